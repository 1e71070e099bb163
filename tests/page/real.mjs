// The page and the server that it belongs to.  tests/cli/test_page.py starts one at RUNT_URL for
// each group of cases, and names the group.
import {PHONE, assert, main, test} from './harness.mjs';

const greedy = async (s, longest = '24') => {
  await s.page.click('#panel-toggle');
  await s.page.fill('#set-temperature', '0');
  await s.page.fill('#set-max_tokens', longest);
  await s.page.click('#panel-toggle');
};

const served = async (s) => (await (await fetch(s.url + 'v1/models')).json()).data;

const metric = async (s, name) => {
  const text = await (await fetch(s.url + 'metrics')).text();
  return Number(new RegExp(`^runt_${name} (\\S+)$`, 'm').exec(text)[1]);
};

const choose = async (s, name) => {
  await s.page.click('#model');
  await s.page.locator('#models .option', {hasText: name}).click();
};

test('plain: a conversation, again, and after a reload', async (s) => {
  await greedy(s);
  await s.talk('Tell me a story.');
  await s.talk('And then?');
  const before = await s.messages();
  assert.equal(before.length, 4);
  assert(before[1][1].length > 10 && before[3][1].length > 10, JSON.stringify(before));
  assert.match(await s.text('#messages > li:last-child .figures'), /^\d+ tokens? · \d+ tok\/s$/);
  assert.match(await s.text('#context'), /^Context: \d+ of 256 tokens$/);
  await s.press(3, 'Answer again');
  await s.idle();
  assert.equal((await s.texts())[3], before[3][1]); // nothing is left to chance
  assert.equal(await s.text('.versions'), '2 of 2');
  await s.reload();
  assert.deepEqual(await s.messages(), before);
  await s.press(2, 'Edit');
  await s.page.fill('.edit', 'Why?');
  await s.page.press('.edit', 'Enter');
  await s.idle();
  assert.equal((await s.texts())[2], 'Why?');
  assert((await s.texts())[3].length > 0);
});

test('plain: the models are as the server has them', async (s) => {
  await s.talk('Hello'); // so that a speed is known
  await s.page.click('#model');
  const list = await served(s), rows = await s.page.$$eval('#models .option', (l) =>
    l.map((o) => [...o.querySelectorAll('b, .figure')].map((e) => e.textContent)));
  assert.deepEqual(rows.map((r) => r[0]), list.map((m) => m.id));
  for (const [k, m] of list.entries()) {
    assert.match(rows[k][1], /^\d+(\.\d)? [kM]B$/);
    const unit = rows[k][1].endsWith('MB') ? 1e6 : 1e3;
    assert(Math.abs(parseFloat(rows[k][1]) * unit - m.runt.file_bytes) <= 0.05 * unit ||
           Math.abs(parseFloat(rows[k][1]) * unit - m.runt.file_bytes) <= 500);
    assert(Math.abs(parseFloat(rows[k][2]) - m.runt.bits_per_weight) <= 0.05);
  }
  assert.match(await s.text('#model-facts'), /[kM]B · [\d.]+ bits · \d+ tok\/s/);
});

test('plain: the panel has the server’s defaults', async (s) => {
  await s.page.click('#panel-toggle');
  assert.equal(await s.page.inputValue('#set-temperature'), '0.55');
  assert.equal(await s.page.inputValue('#set-top_k'), '40');
  assert.equal(await s.page.inputValue('#set-repeat_last_n'), '64');
});

test('plain: side by side', async (s) => {
  await greedy(s);
  for (const order of ['turns', 'once']) {
    await s.page.goto(s.url + '#small');
    await s.page.check(`[name=order][value=${order}]`);
    await s.page.fill('#ask-box', 'Once upon a time');
    await s.page.press('#ask-box', 'Enter');
    await s.page.waitForSelector('#ask-send:not([hidden])', {state: 'attached'});
    const columns = await s.page.$$eval('.column', (l) => l.map((c) => [
      c.querySelector('h3').textContent, c.querySelector('.text').innerText,
      c.querySelector('dl').innerText.replace(/\s+/g, ' ')]));
    assert.deepEqual(columns.map((c) => c[0]), ['f16', 'q8', 'q4']); // by size
    for (const [, text, figures] of columns) {
      assert(text.length > 10);
      assert.match(figures, /^Size [\d.]+ [kM]B( \([\d.]+% of f16\))? Per weight [\d.]+ bits Speed \d+ tok\/s$/);
    }
  }
});

test('plain: a context that fills up', async (s) => {
  await greedy(s, '60');
  for (let i = 0; i < 5; i++) await s.talk(`Tell me more about the small pig, part ${i}, please.`);
  assert.equal((await s.messages()).length, 10);
  assert.equal(await s.page.locator('.problem').count(), 0);
  assert.equal(await s.page.locator('.divider').count(), 1);
  await s.write('word '.repeat(300));
  await s.sees('.problem', 'does not fit into the model’s context of 256 tokens');
});

test('plain: on a telephone', async (s) => {
  await s.talk('Hello');
  await s.fits();
  await s.page.goto(s.url + '#small');
  await s.page.fill('#ask-box', 'Hello');
  await s.page.press('#ask-box', 'Enter');
  await s.page.waitForSelector('#ask-send:not([hidden])', {state: 'attached'});
  await s.fits();
}, {viewport: PHONE, hasTouch: true, isMobile: true});

test('plain: one file, and a strict policy', async (s) => {
  const asked = [];
  s.page.on('request', (r) => asked.push(new URL(r.url()).pathname));
  const response = await s.page.goto(s.url);
  await s.talk('Hello');
  assert.match(response.headers()['content-security-policy'], /^default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:/);
  assert.deepEqual([...new Set(asked.filter((p) => p))].sort(),
    ['/', '/v1/chat/completions', '/v1/models']);
});

test('slow: stop, and the server hears of it', async (s) => {
  await s.write('Hello');
  await s.until(async () => ((await s.texts())[1] ?? '').length > 3);
  assert.equal(await metric(s, 'requests_processing'), 1);
  await s.page.click('#stop');
  await s.sees('#messages .ending', 'Stopped.');
  await s.until(async () => await metric(s, 'requests_processing') === 0);
  assert((await s.texts())[1].length > 3);
});

test('slow: a full queue is waited for', async (s) => {
  await s.write('Hello');
  await s.until(async () => ((await s.texts())[1] ?? '').length > 3);
  await s.page.click('#new');
  await s.page.click('#panel-toggle');
  await s.page.fill('#set-max_tokens', '2');
  await s.write('Hello, too');
  await s.sees('#messages .state', /The server is busy. Trying again in \d+ second/);
  await s.page.getByRole('button', {name: 'Hello (answering)', exact: true}).click();
  await s.page.click('#stop');
  await s.sees('#messages .ending', 'Stopped.');
  await s.page.getByRole('button', {name: /^Hello, too/}).first().click();
  await s.idle();
  assert.equal((await s.messages()).length, 2);
  await s.sees('#messages .ending', 'Stopped at the longest answer allowed.');
});

test('key: it is asked for', async (s) => {
  await s.write('Hello');
  await s.page.waitForSelector('#key[open]');
  await s.page.fill('#key-box', 'wrong');
  await s.page.press('#key-box', 'Enter');
  await s.sees('#key-why', 'none of this server’s');
  await s.page.fill('#key-box', 'secret');
  await s.page.press('#key-box', 'Enter');
  await s.idle();
  assert((await s.texts())[1].length > 0);
});

test('base: a model without a template goes on', async (s) => {
  await s.sees('#empty-note', 'continues what you write');
  await greedy(s, '8');
  await s.talk('Once upon a time, there was a little');
  assert((await s.texts())[1].length > 0);
});

await main();
