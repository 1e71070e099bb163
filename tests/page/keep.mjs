// What the browser keeps: conversations, settings, files; and what becomes of it when it is
// broken, forbidden or too much.
import {readFileSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {PHONE, assert, gate, long, main, test} from './harness.mjs';

const chat = (id, title, more = {}) => ({id, title, created: 1, updated: 1, model: '', system: '',
  skip: 0, messages: [{role: 'user', content: title}], ...more});

// Before the page's own script: what lies in the storage.
const holding = (items) => ({before: (s) => s.context.addInitScript((list) => {
  if (sessionStorage.getItem('test.filled')) return;
  sessionStorage.setItem('test.filled', '1');
  for (const [k, v] of list) localStorage.setItem(k, typeof v === 'string' ? v : JSON.stringify(v));
}, items)});

const keys = (s) => s.page.evaluate(() => Object.keys(localStorage)
  .filter((k) => k.startsWith('runt.chat.')).sort());

test('a reload shows the conversation and the others', async (s) => {
  await s.talk('One');
  await s.page.click('#new');
  await s.talk('Two');
  await s.talk('Two again');
  const before = await s.messages();
  await s.reload();
  assert.deepEqual(await s.messages(), before);
  assert.deepEqual(await s.titles(), ['Two', 'One']);
  assert.equal(await s.page.getAttribute('#chats .title >> nth=0', 'aria-current'), 'true');
  await s.page.click('#chats .title >> nth=1');
  assert.deepEqual(await s.texts(), ['One', 'You said: One']);
  await s.talk('And on'); // goes on with its history, and moves to the top
  assert.deepEqual(s.mock.asked.at(-1).messages.map((m) => m.content),
    ['One', 'You said: One', 'And on']);
  assert.deepEqual(await s.titles(), ['One', 'Two']);
});

test('a reload in mid-answer keeps what was there', async (s) => {
  const never = gate();
  s.mock.reply = (_, n) => n === 1 ? {pieces: ['Half ', 'an answer', never]} : {};
  await s.write('Go');
  await s.sees('#messages .text', 'Half an answer');
  await s.reload();
  assert.deepEqual(await s.texts(), ['Go', 'Half an answer']);
  await s.sees('.problem', 'The page was closed before the answer was complete.');
  await s.page.click('.problem .quiet');
  await s.idle();
  assert.deepEqual(await s.texts(), ['Go', 'You said: Go']);
  never.open();
});

test('new, rename, delete and undo', async (s) => {
  const {page} = s;
  await s.talk('One');
  await page.click('#new');
  assert.deepEqual(await s.titles(), ['One']); // an empty one is not kept
  await s.talk('Two');
  await s.menu(1, 'rename');
  await page.fill('#chats form input', '  The first one  ');
  await page.keyboard.press('Enter');
  assert.deepEqual(await s.titles(), ['Two', 'The first one']);
  await s.menu(0, 'rename');
  await page.fill('#chats form input', 'Given up');
  await page.keyboard.press('Escape');
  assert.deepEqual(await s.titles(), ['Two', 'The first one']);
  await s.menu(0, 'delete');
  assert.deepEqual(await s.titles(), ['The first one']);
  assert.deepEqual(await s.messages(), []); // it was the one shown
  assert.equal((await keys(s)).length, 1);
  await page.click('#notice .quiet');
  assert.deepEqual(await s.titles(), ['Two', 'The first one']);
  assert.deepEqual(await s.texts(), ['Two', 'You said: Two']);
  await s.menu(1, 'delete');
  await s.reload();
  assert.deepEqual(await s.titles(), ['Two']);
});

test('a conversation is deleted while it is answered', async (s) => {
  const never = gate();
  s.mock.reply = () => ({pieces: ['Some', never, 'more']});
  await s.write('Go');
  await s.sees('#messages .text', 'Some');
  await s.menu(0, 'delete');
  await s.until(() => s.mock.left === 1);
  await s.page.waitForTimeout(300);
  assert.deepEqual(await keys(s), []);
  await s.page.click('#notice .quiet');
  assert.equal((await s.texts())[1], 'Some');
  never.open();
});

const garbage = [
  ['runt.settings', '{"model": 3, "system": [], "sampling": {"temperature": "hot", "top_k": 9,' +
    '"top_p": 99, "seed": null, "strange": 1}, "theme": "purple", "side": 0, "panel": "yes",' +
    '"small": {"names": {"a": 1}, "order": 7, "prompt": 8}}'],
  ['runt.chat.a', 'no JSON'], ['runt.chat.b', 'null'], ['runt.chat.c', '[]'],
  ['runt.chat.d', '{"messages": 5}'], ['runt.chat.', '{"messages": []}'],
  ['runt.chat.e', '{"id": {}, "title": ["x"], "updated": "z", "skip": -9, "messages": [1, null,' +
    '{"role": "wizard", "content": "no"}, {"role": "user"}, {"role": "user", "content": "kept"},' +
    '{"role": "assistant"}, {"role": "assistant", "versions": [], "at": 0},' +
    '{"role": "assistant", "versions": [null, {"content": 4, "end": "x", "rate": "fast"},' +
    '{"content": "second"}], "at": 99}]}'],
  ['runt.chat.f', JSON.stringify(chat('f', 'x', {skip: 1e9, title: '<b>title</b>'}))],
  ['runt.key', ''], ['runt.chatter', 'not ours'], ['other', 'not ours'],
];

long('broken storage is taken apart, and the rest kept', async (s) => {
  const {page} = s;
  assert.deepEqual(new Set(await s.titles()), new Set(['Without a name', '<b>title</b>']));
  assert.equal((await s.titles()).length, 2);
  await page.click('#chats .title >> text=Without a name');
  assert.deepEqual((await s.texts()).filter(Boolean), ['kept', 'second']);
  await page.click('#panel-toggle');
  assert.equal(await page.inputValue('#set-temperature'), '0.8');
  assert.equal(await page.inputValue('#set-top_k'), '9');
  assert.equal(await page.inputValue('#set-top_p'), '0.95');
  await s.talk('Go on');
  assert.equal(s.mock.asked[0].top_k, 9);
  assert(!('strange' in s.mock.asked[0]));
  assert.equal(await page.evaluate(() => localStorage.getItem('other') +
    localStorage.getItem('runt.chatter')), 'not oursnot ours');
}, holding(garbage));

long('settings that are no JSON', async (s) => {
  await s.talk('Go');
  await s.page.click('#panel-toggle');
  await s.page.fill('#set-top_k', '3');
  await s.reload();
  assert.equal(await s.page.inputValue('#set-top_k'), '3');
}, holding([['runt.settings', '{{{']]));

long('random values in place of everything', async (s) => {
  const failed = await s.page.evaluate(() => {
    let seed = 12345;
    const random = (n) => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
    const names = ['id', 'title', 'messages', 'role', 'content', 'versions', 'at', 'skip', 'end'];
    const any = (depth) => {
      const k = random(depth ? 9 : 6);
      if (k < 6) return [null, true, random(9) - 4, 'user', 'assistant', ''][k];
      if (k === 6) return Array.from({length: random(5)}, () => any(depth - 1));
      return Object.fromEntries(Array.from({length: random(6)},
        () => [names[random(9)], any(depth - 1)]));
    };
    for (let i = 0; i < 20000; i++) {
      const value = {...any(3), messages: any(4)};
      const c = store.cleanChat(value);
      if (!c) continue;
      const good = typeof c.id === 'string' && c.id && Number.isInteger(c.skip) &&
        c.messages.every((m) => m.role === 'user' ? typeof m.content === 'string'
          : m.versions[m.at] && m.versions.every((v) => typeof v.content === 'string'));
      if (!good) return JSON.stringify(value);
      const again = store.fromFile(store.toFile(c));
      if (typeof again === 'object' && again.messages.length !== c.messages.length)
        return JSON.stringify(value);
    }
    return null;
  });
  assert.equal(failed, null);
});

long('two hundred conversations are kept, and the oldest goes', async (s) => {
  assert.equal((await keys(s)).length, 200);
  await s.talk('One more');
  assert.equal((await keys(s)).length, 200);
  assert(!(await keys(s)).includes('runt.chat.n0') && (await keys(s)).includes('runt.chat.n1'));
  await s.sees('#notice', 'the oldest conversation was removed');
}, holding(Array.from({length: 200}, (_, i) =>
  [`runt.chat.n${i}`, chat('n' + i, 'Number ' + i, {updated: 1000 + i})])));

test('a full storage makes room, and tells', async (s) => {
  await s.talk('Hello');
  await s.page.evaluate(() => {
    for (let n = 1 << 20, i = 0; n >= 16; ) // whatever there is left
      try {
        localStorage.setItem('filler' + i++, 'x'.repeat(n));
      } catch { n >>= 1; }
  });
  s.mock.reply = () => ({pieces: ['y'.repeat(3000)]});
  await s.talk('More');
  await s.sees('#notice', 'the oldest conversation was removed');
  assert.equal((await s.texts())[3].length, 3000);
  const had = await keys(s);
  assert(!had.includes('runt.chat.old') && had.length === 2, had.join());
  await s.reload();
  assert.equal((await s.texts())[3].length, 3000);
}, holding([['runt.chat.old', chat('old', 'z'.repeat(8000), {updated: 1})],
  ['runt.chat.newer', chat('newer', 'Newer', {updated: 2})]]));

long('a conversation that is larger than the storage goes on, and tells', async (s) => {
  await s.page.evaluate(() => {
    for (let n = 1 << 20, i = 0; n >= 1; )
      try {
        localStorage.setItem('filler' + i++, 'x'.repeat(n));
      } catch { n >>= 1; }
  });
  await s.talk('Hello');
  await s.sees('#notice', 'too large to be kept');
  assert.deepEqual(await s.texts(), ['Hello', 'You said: Hello']);
  const [file] = await Promise.all([s.page.waitForEvent('download'), s.page.click('#notice .quiet')]);
  assert.equal(JSON.parse(readFileSync(await file.path())).messages.length, 2);
});

test('a conversation goes to a file and comes back', async (s) => {
  const {page} = s;
  await page.click('#panel-toggle');
  await page.fill('#system', 'You are a pig.');
  await s.talk('Hällo “you” <b>');
  await s.talk('Two\nlines');
  const before = await s.messages();
  await page.locator('#chats .icon').first().click();
  const [file] = await Promise.all([page.waitForEvent('download'),
    page.click('#chat-menu [data-do=export]')]);
  assert.equal(file.suggestedFilename(), 'hällo-you-b.json');
  const path = await file.path(), written = JSON.parse(readFileSync(path, 'utf8'));
  assert.deepEqual(written.messages.map((m) => [m.role, m.content]), [
    ['system', 'You are a pig.'], ['user', 'Hällo “you” <b>'],
    ['assistant', 'You said: Hällo “you” <b>'], ['user', 'Two\nlines'],
    ['assistant', 'You said: Two\nlines']]);
  assert.equal(written.model, 'pocket-f16');
  await page.fill('#system', '');
  await s.menu(0, 'delete');
  await page.setInputFiles('#import-file', path);
  await s.until(async () => (await s.messages()).length === 4);
  assert.deepEqual(await s.messages(), before);
  assert.equal(await page.inputValue('#system'), 'You are a pig.');
  assert.deepEqual(await s.titles(), ['Hällo “you” <b>']);
  await page.setInputFiles('#import-file', path); // a second time is a second conversation
  await s.until(async () => (await s.titles()).length === 2);
});

long('a file of the terminal’s chat is read', async (s) => {
  const path = join(tmpdir(), `runt-chat-${process.pid}.json`);
  writeFileSync(path, JSON.stringify({model: 'tiny.gguf', messages: [
    {role: 'system', content: 'Short.'}, {role: 'user', content: 'Hi'},
    {role: 'assistant', content: 'Hello.'}]}));
  await s.page.setInputFiles('#import-file', path);
  await s.until(async () => (await s.titles())[0] === 'Hi');
  await s.talk('Go on');
  assert.deepEqual(s.mock.asked[0].messages.map((m) => m.content), ['Short.', 'Hi', 'Hello.', 'Go on']);
});

test('files that are no conversation are told apart', async (s) => {
  for (const [content, words] of [['', 'no JSON'], ['{"a"', 'no JSON'], ['[]', 'no list'],
    ['{"messages": {}}', 'no list'], ['{"messages": []}', 'no message'],
    ['{"messages": [{"role": "tool", "content": "x"}, 5]}', 'no message'],
    [' '.repeat((8 << 20) + 1), 'too large']]) {
    await s.page.setInputFiles('#import-file',
      {name: 'some.json', mimeType: 'application/json', buffer: Buffer.from(content)});
    await s.sees('#notice', words);
    await s.sees('#notice', 'some.json');
  }
  assert.deepEqual(await s.titles(), []);
});

test('without storage the page works as long as it is open', async (s) => {
  await s.sees('#notice', 'keeps nothing');
  await s.talk('Hello');
  assert.deepEqual(await s.titles(), ['Hello']);
  await s.page.click('#new');
  await s.page.click('#chats .title');
  assert.deepEqual(await s.texts(), ['Hello', 'You said: Hello']);
}, {before: (s) => s.context.addInitScript(() => {
  for (const name of ['localStorage', 'sessionStorage'])
    Object.defineProperty(window, name, {get() { throw new DOMException('no', 'SecurityError'); }});
})});

test('another tab’s changes are seen', async (s) => {
  await s.talk('Hello');
  const other = await s.newPage();
  await other.click('#chats .title');
  await other.fill('#box', 'From the other');
  await other.press('#box', 'Enter');
  await s.until(async () => (await s.texts())[3] === 'You said: From the other');
  await other.locator('#chats .icon').click();
  await other.click('#chat-menu [data-do=delete]');
  await s.until(async () => !(await s.titles()).length);
});

test('the theme is kept, and there before anything is drawn', async (s) => {
  const {page} = s, ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert.equal(await ground(), 'rgb(250, 249, 246)');
  await page.check('[name=theme][value=dark]');
  assert.equal(await ground(), 'rgb(23, 22, 19)');
  await s.reload();
  assert.equal(await ground(), 'rgb(23, 22, 19)');
  assert(await page.isChecked('[name=theme][value=dark]'));
  await page.check('[name=theme][value=auto]');
  assert.equal(await ground(), 'rgb(250, 249, 246)');
  await page.emulateMedia({colorScheme: 'dark'});
  assert.equal(await ground(), 'rgb(23, 22, 19)');
  await page.check('[name=theme][value=light]');
  assert.equal(await ground(), 'rgb(250, 249, 246)');
});

test('the system prompt belongs to its conversation', async (s) => {
  const {page, mock} = s;
  await page.click('#panel-toggle');
  await page.fill('#system', 'One.');
  await s.talk('First');
  await page.click('#new');
  assert.equal(await page.inputValue('#system'), 'One.'); // as the last one
  await page.fill('#system', 'Two.');
  await s.talk('Second');
  await page.click('#chats .title >> nth=1');
  assert.equal(await page.inputValue('#system'), 'One.');
  await s.talk('Third');
  assert.deepEqual(mock.asked.map((b) => b.messages[0].content), ['One.', 'Two.', 'One.']);
});

long('drawers are as they were left', async (s) => {
  await s.page.click('#side-toggle');
  await s.page.click('#panel-toggle');
  await s.reload();
  assert(await s.page.isHidden('#side') && await s.page.isVisible('#panel'));
  await s.page.setViewportSize(PHONE); // over the page they begin closed
  assert(await s.page.isHidden('#side') && await s.page.isHidden('#panel'));
});

await main();
