// What goes wrong: keys, a server that is busy, away, or breaks off, contexts that are full.
import {assert, gate, long, main, test} from './harness.mjs';
import {MODELS, entry} from './mock.mjs';

const KEY = 'sesame';

const giveKey = async (s, key, keep = false) => {
  await s.page.waitForSelector('#key[open]');
  await s.page.fill('#key-box', key);
  if (keep) await s.page.check('#key-keep');
  await s.page.press('#key-box', 'Enter');
};

test('a key is asked for, and the question answered', async (s) => {
  s.mock.key = KEY;
  await s.write('Hello');
  await s.page.waitForSelector('#key[open]');
  assert.equal(await s.page.evaluate(() => document.activeElement.id), 'key-box');
  assert.equal(await s.page.getAttribute('#key-box', 'type'), 'password');
  await giveKey(s, 'wrong');
  await s.sees('#key-why', 'none of this server’s');
  await giveKey(s, KEY);
  await s.idle();
  assert.deepEqual(await s.texts(), ['Hello', 'You said: Hello']);
  await s.reload(); // the tab keeps it
  await s.talk('Again');
  assert.equal((await s.texts())[3], 'You said: Again');
  assert.equal(await s.page.evaluate(() => localStorage.getItem('runt.key')), null);
  const other = await s.context.newPage(); // another tab does not have it
  await other.goto(s.url);
  await other.fill('#box', 'Hello');
  await other.press('#box', 'Enter');
  await other.waitForSelector('#key[open]');
});

test('a key is kept in the browser, and forgotten', async (s) => {
  s.mock.key = KEY;
  await s.write('Hello');
  await giveKey(s, KEY, true);
  await s.idle();
  const other = await s.newPage();
  await other.fill('#box', 'Hello');
  await other.press('#box', 'Enter');
  await other.waitForSelector('.figures:not(:empty)');
  await other.click('#panel-toggle');
  assert.equal(await other.innerText('#key-state'), 'Change or forget the API key');
  await other.click('#key-open');
  await other.click('#key-forget');
  assert.deepEqual(await other.evaluate(() => [localStorage.getItem('runt.key'),
    sessionStorage.getItem('runt.key')]), [null, null]);
  await other.fill('#box', 'Hello');
  await other.press('#box', 'Enter');
  await other.waitForSelector('#key[open]');
});

test('no key is given', async (s) => {
  s.mock.key = KEY;
  await s.write('Hello');
  await s.page.waitForSelector('#key[open]');
  await s.page.keyboard.press('Escape');
  await s.sees('.problem', 'only to those who have a key');
  assert(await s.page.isVisible('#send'));
  s.mock.key = null;
  await s.page.click('.problem .quiet');
  await s.idle();
  assert.deepEqual(await s.texts(), ['Hello', 'You said: Hello']);
});

test('a full queue is waited for as long as it says', async (s) => {
  s.mock.reply = (_, n) => n < 3 ? {status: 429, headers: {'Retry-After': '1'}} : {};
  const began = Date.now();
  await s.write('Hello');
  await s.sees('#messages .state', 'The server is busy. Trying again in 1 second …');
  await s.idle();
  assert.deepEqual(await s.texts(), ['Hello', 'You said: Hello']);
  assert.equal(s.mock.asked.length, 3);
  assert(Date.now() - began >= 2000, 'it did not wait');
});

long('waiting for a full queue is stopped', async (s) => {
  s.mock.reply = (_, n) => n === 1 ? {status: 503, headers: {'Retry-After':
    new Date(Date.now() + 50000).toUTCString()}} : {};
  await s.write('Hello');
  await s.sees('#messages .state', /Trying again in (4\d|50) seconds/);
  await s.page.keyboard.press('Escape');
  await s.idle();
  await s.sees('#messages .ending', 'Stopped before the first word.');
  assert.equal(s.mock.asked.length, 1);
});

long('a full queue that names no time, or too long a one, is told', async (s) => {
  s.mock.reply = (_, n) => n === 1 ? {status: 429}
    : n === 2 ? {status: 429, headers: {'Retry-After': '9999'}} : {};
  await s.write('Hello');
  await s.sees('.problem', 'its queue is full');
  await s.page.click('.problem .quiet');
  await s.until(() => s.mock.asked.length === 2);
  await s.sees('.problem', 'its queue is full');
  await s.page.click('.problem .quiet');
  await s.idle();
  assert.deepEqual(await s.texts(), ['Hello', 'You said: Hello']);
});

long('a server that stays busy is given up', async (s) => {
  s.mock.reply = () => ({status: 429, headers: {'Retry-After': '0'}});
  await s.write('Hello');
  await s.sees('.problem', 'its queue is full');
  assert.equal(s.mock.asked.length, 10);
});

test('the server is gone in mid-stream', async (s) => {
  const going = gate(), {mock, page} = s;
  mock.reply = (_, n) => n === 1 ? {pieces: ['Half an answer', going], cut: true} : {};
  await s.write('Hello');
  await s.sees('#messages .text', 'Half an answer');
  const port = mock.port;
  going.open();
  await mock.stop();
  await s.sees('.problem', 'The connection broke off before the answer was complete.');
  await s.sees('#away', 'No answer from 127.0.0.1:' + port);
  assert.deepEqual(await s.texts(), ['Hello', 'Half an answer']);
  await page.click('.problem .quiet');
  await s.sees('.problem', 'The server does not answer. Is it still running?');
  await mock.listen(port);
  await page.waitForSelector('#away', {state: 'hidden'}); // it is found again
  await page.click('.problem .quiet');
  await s.idle();
  // the failed answer without a word is gone, the half one is there to go back to
  assert.equal(await s.text('.versions'), '2 of 2');
  assert.equal((await s.texts())[1], 'You said: Hello');
});

test('the server is away when the page comes up', async (s) => {
  const {mock} = s, port = mock.port;
  await s.page.route('**/v1/models', (route) => route.abort());
  await s.page.reload();
  await s.sees('#away', 'No answer from');
  await s.write('Hello');
  await s.sees('#notice', 'There is no model to ask');
  assert.equal(await s.page.inputValue('#box'), 'Hello'); // nothing is lost
  await s.page.unroute('**/v1/models');
  await s.page.waitForSelector('#away', {state: 'hidden'});
  await s.page.press('#box', 'Enter');
  await s.idle();
  assert.equal((await s.texts())[1], 'You said: Hello');
  assert.equal(port, mock.port);
});

long('an error in mid-stream is told in the server’s words', async (s) => {
  s.mock.reply = (_, n) => n === 1 ? {pieces: ['Half'], fault: 'no more tokens <b>'} : {};
  await s.write('Hello');
  await s.sees('.problem', 'The server said: no more tokens <b>');
  assert.equal((await s.texts())[1], 'Half');
  await s.talk('Go on');
  assert.equal((await s.texts())[3], 'You said: Go on');
});

for (const [what, how, words] of [
  ['no JSON', {raws: 'data: {"choices": [\n\n'}, 'no JSON'],
  ['an end without a reason', {raws: ''}, 'broke off'],
  ['only [DONE]', {raws: 'data: [DONE]\n\n'}, 'broke off'],
  ['values of other types', {raws: 'data: 5\n\ndata: null\n\ndata: {"choices": 5}\n\n' +
    'data: {"choices": [{"delta": 7}]}\n\ndata: {"choices": [{"delta": {"content": {}}}]}\n\n'},
  'broke off'],
  ['a line without an end', {raws: 'data: ' + 'x'.repeat(2 << 20)}, 'without an end'],
]) {
  test(`a stream with ${what}`, async (s) => {
    s.mock.reply = (_, n) => n === 1 ? {pieces: ['Half'], ...how} : {};
    await s.write('Hello');
    await s.sees('.problem', words);
    assert.equal((await s.texts())[1], 'Half');
    await s.page.click('.problem .quiet');
    await s.idle();
    assert.equal((await s.texts())[1], 'You said: Hello');
  });
}

long('streams of other servers: comments, CRLF, letters cut in two', async (s) => {
  const chunk = (delta, end = null) =>
    `data:${JSON.stringify({choices: [{index: 0, delta, finish_reason: end}]})}\r\n\r\n`;
  const bytes = Buffer.from(': hello\r\nevent: x\r\n' + chunk({content: 'Grüße 🐖'}) +
    chunk({}, 'stop') + 'data: [DONE]\r\n\r\n');
  s.mock.reply = () => ({bytes});
  await s.talk('Hello');
  assert.equal((await s.texts())[1], 'Grüße 🐖');
});

for (const [status, raw, words] of [[502, '<html>bad gateway</html>', 'does not answer'],
  [500, '{"error": {"message": "out of memory"}}', 'The server said: out of memory'],
  [418, '{}', 'status 418'], [400, '{"error": "short"}', 'The server said: short'],
  [413, '', 'too long to be sent']]) {
  test(`status ${status}`, async (s) => {
    s.mock.reply = (_, n) => n === 1
      ? {status, raw, headers: {'Content-Type': 'application/json'}} : {};
    await s.write('Hello');
    await s.sees('.problem', words);
    await s.page.click('.problem .quiet');
    await s.idle();
    assert.equal((await s.texts())[1], 'You said: Hello');
  });
}

const tooLong = {status: 400, error: {code: 'context_length_exceeded', message: 'too long'}};

test('a full context: the oldest messages are left out, and that is said', async (s) => {
  const {page, mock} = s;
  for (const n of [1, 2, 3]) await s.talk('Question ' + n);
  mock.reply = (body) => body.messages.length > 3 ? tooLong : {};
  await s.talk('Question 4');
  assert.deepEqual(mock.asked.at(-1).messages.map((m) => m.content),
    ['Question 3', 'You said: Question 3', 'Question 4']);
  await s.sees('#messages .divider', 'no longer sees what stands above');
  const place = await page.$$eval('#messages > li', (l) => l.findIndex((e) => e.matches('.divider')));
  assert.equal(place, 4);
  mock.reply = () => ({});
  await s.talk('Question 5'); // what is left out stays so,
  assert.equal(mock.asked.at(-1).messages[0].content, 'Question 3');
  await s.reload();
  assert.equal(await page.locator('.divider').count(), 1);
  await page.click('#model'); // until a model is chosen whose context may be another
  await page.click('#models .option:nth-child(2)');
  await s.talk('Question 6');
  assert.equal(mock.asked.at(-1).messages[0].content, 'Question 1');
});

test('room for the answer is made before the context is full', async (s) => {
  const {mock} = s;
  mock.models = [entry('m', 1e6, 4, {n_ctx: 100})];
  await s.reload();
  mock.reply = (body) => {
    const letters = body.messages.reduce((n, m) => n + m.content.length, 0);
    return {pieces: ['y'.repeat(40)], usage: {prompt_tokens: letters, total_tokens: letters + 40,
      completion_tokens: 40}};
  };
  await s.talk('a'.repeat(20)); // 60 tokens
  await s.talk('b'.repeat(10)); // would make 70, and 75 are a question's share
  assert.equal(mock.asked[1].messages.length, 3);
  await s.talk('c'.repeat(30)); // would make 140: all but the last question go
  assert.deepEqual(mock.asked[2].messages.map((m) => m.content), ['c'.repeat(30)]);
  assert.match(await s.text('#messages > li:nth-child(5)'), /no longer sees what stands above/);
});

test('one message that does not fit', async (s) => {
  s.mock.reply = () => tooLong;
  await s.write('Much too long');
  await s.sees('.problem', 'This message alone does not fit into the model’s context of 1024 tokens.');
  await s.page.getByRole('button', {name: 'New conversation'}).last().click();
  assert.deepEqual(await s.messages(), []);
  assert.equal(await s.page.evaluate(() => document.activeElement.id), 'box');
});

test('an answer that ends with the context, or at its longest', async (s) => {
  s.mock.reply = (_, n) => n === 1 ? {end: 'length', usage: {total_tokens: 1024}}
    : {end: 'length', usage: {total_tokens: 20}};
  await s.talk('Hello');
  await s.sees('#messages .ending', 'The context of 1024 tokens is full: the answer ends here.');
  assert(await s.page.locator('#context.bad').count());
  await s.page.click('#new');
  await s.talk('Hello');
  await s.sees('#messages .ending', 'Stopped at the longest answer allowed.');
});

long('a model that has just gone', async (s) => {
  s.mock.reply = (body) => body.model === 'pocket-f16' ? {status: 404,
    error: {code: 'model_not_found', message: 'the model does not exist here'}} : {};
  s.mock.models = MODELS.slice(1);
  await s.write('Hello');
  await s.sees('.problem', 'the model does not exist here');
  await s.sees('#model-name', 'pocket-q8'); // the list was asked for again
  await s.page.click('.problem .quiet');
  await s.idle();
  assert.equal((await s.texts())[1], 'You said: Hello');
});

await main();
