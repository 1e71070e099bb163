// "How small can it go?": one prompt, several models side by side.
import {assert, gate, long, main, test} from './harness.mjs';
import {MODELS, entry} from './mock.mjs';

const PROMPT = 'Tell me a story.';

const open = async (s) => {
  await s.page.click('#to-small');
  await s.page.waitForSelector('#small:not([hidden])');
};

const ask = async (s, prompt = PROMPT) => {
  await s.page.fill('#ask-box', prompt);
  await s.page.press('#ask-box', 'Enter');
};

const done = (s) => s.page.waitForSelector('#ask-send:not([hidden])', {state: 'attached'});

// Of each column: name, figures, text, note.
const columns = (s) => s.page.$$eval('.column', (list) => list.map((c) => ({
  name: c.querySelector('h3').textContent,
  figures: [...c.querySelectorAll('dd')].map((d) => d.firstChild.textContent),
  bar: c.querySelector('.bar span').style.width,
  text: c.querySelector('.text').innerText.trim(), note: c.querySelector('.note').textContent})));

const choose = async (s, ...names) => {
  for (const box of await s.page.locator('#column-choice input').all())
    await box.setChecked(names.includes(await box.inputValue()));
};

test('the same prompt, side by side, from the largest to the smallest', async (s) => {
  const {page, mock} = s;
  mock.models = [MODELS[4], MODELS[0], MODELS[2]]; // in no order
  await s.reload();
  mock.reply = (body) => ({
    pieces: body.model === 'pocket-f16' ? ['Once ', 'upon ', 'a ', 'time.']
      : body.model === 'pocket-q4' ? ['Once ', 'upon ', 'two ', 'times.'] : ['No.'],
    usage: {completion_tokens: 101, runt: {completion_seconds: body.model === 'tiny-q4' ? 0.05 : 2}}});
  await open(s);
  assert.equal(await page.title(), 'How small can it go? – runt');
  assert.equal(await page.getAttribute('#to-small', 'aria-current'), 'page');
  await ask(s);
  await done(s);
  assert.deepEqual(await columns(s), [
    {name: 'pocket-f16', figures: ['251 MB', '16.2 bits', '50 tok/s'], bar: '100%',
      text: 'Once upon a time.', note: ''},
    {name: 'pocket-q4', figures: ['71 MB', '4.57 bits', '50 tok/s'], bar: '28.2245%',
      text: 'Once upon two times.', note: 'As pocket-f16 for 2 words.'},
    {name: 'tiny-q4', figures: ['2.6 MB', '4.90 bits', '2000 tok/s'], bar: '1.04186%',
      text: 'No.', note: 'Differs from pocket-f16 from the first word.'}]);
  assert.equal(mock.asked.length, 3);
  for (const body of mock.asked) {
    assert.deepEqual(body.messages, [{role: 'user', content: PROMPT}]);
    assert.equal(body.seed, mock.asked[0].seed); // the same chances for all
    assert(Number.isInteger(body.seed));
  }
  const boxes = await page.$$eval('.column', (l) => l.map((e) => e.getBoundingClientRect().top));
  assert(boxes[0] === boxes[1] && boxes[1] === boxes[2], 'they are not side by side');
  mock.reply = () => ({});
  await ask(s, 'All alike');
  await done(s);
  assert.deepEqual((await columns(s)).map((c) => c.note),
    ['', 'The same answer as pocket-f16.', 'The same answer as pocket-f16.']);
  assert.notEqual(mock.asked[3].seed, mock.asked[0].seed);
});

test('columns are chosen, and remembered', async (s) => {
  const {page, mock} = s;
  await open(s);
  assert.deepEqual(await page.$$eval('#column-choice :checked', (l) => l.map((i) => i.value)),
    ['pocket-f16', 'pocket-q8', 'pocket-r4', 'tiny-q4']); // four over the whole range
  await choose(s, 'pocket-q4', 'tiny-q4');
  await ask(s);
  await done(s);
  assert.deepEqual(mock.asked.map((b) => b.model), ['pocket-q4', 'tiny-q4']);
  await s.reload();
  assert.deepEqual(await page.$$eval('#column-choice :checked', (l) => l.map((i) => i.value)),
    ['pocket-q4', 'tiny-q4']);
  assert.equal(await page.inputValue('#ask-box'), PROMPT);
  await choose(s);
  assert(await page.isDisabled('#ask-send'));
  await ask(s);
  assert.equal(mock.asked.length, 2);
});

test('one after another, or all at once', async (s) => {
  const {page, mock} = s, gates = {};
  mock.reply = (body) => ({pieces: ['first ', gates[body.model] = gate(), 'last']});
  await open(s);
  await choose(s, 'pocket-f16', 'pocket-q4', 'tiny-q4');
  await ask(s);
  for (const [k, name] of ['pocket-f16', 'pocket-q4', 'tiny-q4'].entries()) {
    await s.until(async () => (await columns(s))[k].text === 'first');
    assert.equal(mock.asked.length, k + 1);
    if (k < 2) assert.equal((await columns(s))[k + 1].note, 'Waiting for its turn …');
    gates[name].open();
  }
  await done(s);
  await page.check('[name=order][value=once]');
  await s.sees('#order-note', 'share the processor');
  await ask(s);
  await s.until(async () => (await columns(s)).every((c) => c.text === 'first'));
  assert.equal(mock.asked.length, 6);
  assert.equal(await page.locator('.column[aria-busy=true]').count(), 3);
  for (const g of Object.values(gates)) g.open();
  await done(s);
  assert((await columns(s)).every((c) => c.text === 'first last'));
  await s.reload();
  assert(await page.isChecked('[name=order][value=once]'));
});

test('all answers are stopped', async (s) => {
  const never = gate();
  s.mock.reply = (_, n) => ({pieces: n === 1 ? ['All of it'] : ['Half', never]});
  await open(s);
  await choose(s, 'pocket-f16', 'pocket-q4', 'tiny-q4');
  await ask(s);
  await s.until(async () => (await columns(s))[1]?.text === 'Half');
  await s.page.keyboard.press('Escape');
  await done(s);
  await s.until(() => s.mock.left === 1);
  assert.deepEqual((await columns(s)).map((c) => [c.text, c.note]),
    [['All of it', ''], ['Half', 'Stopped.'], ['', 'Stopped.']]);
  assert.equal(s.mock.asked.length, 2);
  never.open();
});

test('one model fails, and the others answer', async (s) => {
  s.mock.reply = (body) => body.model === 'pocket-q8' ? {status: 500, error: {message: 'oh'}}
    : body.model === 'tiny-q4' ? {status: 400, error: {code: 'context_length_exceeded', message: 'x'}}
      : body.model === 'pocket-r4' ? {end: 'length', usage: {total_tokens: 1024}} : {};
  await open(s);
  await ask(s);
  await done(s);
  assert.deepEqual((await columns(s)).map((c) => c.note), ['', 'The server said: oh',
    'Its context is full. The same answer as pocket-f16.',
    'The prompt does not fit into its context.']);
});

long('a busy server is waited for', async (s) => {
  s.mock.reply = (_, n) => n === 1 ? {status: 429, headers: {'Retry-After': '1'}} : {};
  await open(s);
  await choose(s, 'tiny-q4');
  await ask(s);
  await s.sees('.column .note', 'Trying again in 1 second');
  await done(s);
  assert.equal((await columns(s))[0].text, 'You said: ' + PROMPT);
});

long('a key is asked for once', async (s) => {
  s.mock.key = 'sesame';
  await open(s);
  await s.page.check('[name=order][value=once]');
  await ask(s);
  await s.page.waitForSelector('#key[open]');
  await s.page.fill('#key-box', 'sesame');
  await s.page.press('#key-box', 'Enter');
  await done(s);
  assert((await columns(s)).every((c) => c.text));
  assert(await s.page.isHidden('#key'));
});

test('a conversation goes on from a column', async (s) => {
  const {page, mock} = s;
  await open(s);
  await ask(s);
  await done(s);
  await page.locator('.column').nth(2).getByRole('button').click();
  await page.waitForSelector('#chat:not([hidden])');
  assert.deepEqual(await s.messages(), [['You', PROMPT], ['pocket-r4', 'You said: ' + PROMPT]]);
  assert.equal(await s.text('#model-name'), 'pocket-r4');
  await s.talk('And then?');
  assert.equal(mock.asked.at(-1).model, 'pocket-r4');
  assert.equal(mock.asked.at(-1).messages.length, 3);
  assert.deepEqual(await s.titles(), [PROMPT]);
  await page.goBack(); // the answers are still there
  await page.waitForSelector('#small:not([hidden])');
  assert.equal((await columns(s)).length, 4);
});

test('sampler and system prompt hold here, too', async (s) => {
  const {page, mock} = s;
  await page.click('#panel-toggle');
  await page.fill('#system', 'Rhyme.');
  await page.fill('#set-temperature', '0');
  await page.fill('#set-seed', '7');
  await open(s);
  await choose(s, 'tiny-q4');
  await ask(s);
  await done(s);
  assert.deepEqual([mock.asked[0].temperature, mock.asked[0].seed, mock.asked[0].messages[0].content],
    [0, 7, 'Rhyme.']);
});

test('a server with one model says how to have several', async (s) => {
  s.mock.models = [entry('only', 1e6, 4)];
  await s.reload();
  await open(s);
  await s.sees('#results', 'runt serve -m large=a.gguf -m small=b.gguf');
  await ask(s);
  await done(s);
  assert.equal((await columns(s))[0].text, 'You said: ' + PROMPT);
});

long('answers here and in a conversation at the same time', async (s) => {
  const slow = gate();
  s.mock.reply = (_, n) => n === 1 ? {pieces: ['Slow ', slow, 'answer']} : {};
  await s.write('Hello');
  await s.sees('#messages .text', 'Slow');
  await open(s);
  await choose(s, 'tiny-q4');
  await ask(s);
  await done(s);
  await s.page.keyboard.press('Escape'); // stops what is seen here, of which nothing runs
  slow.open();
  await s.page.goBack();
  await s.idle();
  assert.equal((await s.texts())[1], 'Slow answer');
});

test('the view is marked in the list, and no menu of the other stays over it', async (s) => {
  const {page} = s, marked = () => page.$$eval('#side [aria-current]', (l) =>
    l.map((e) => e.id || e.textContent));
  await s.talk('Hello');
  assert.deepEqual(await marked(), ['Hello']);
  await page.click('#model');
  await page.keyboard.press('Alt+Shift+C');
  await page.waitForSelector('#models', {state: 'hidden'});
  assert.deepEqual(await marked(), ['to-small']);
  await page.keyboard.press('Alt+Shift+C');
  await s.until(async () => (await marked())[0] === 'Hello');
});

await main();
