// A conversation: streaming, stopping, answering again, editing, and what is sent.
import {assert, gate, long, main, test} from './harness.mjs';
import {MODELS, entry} from './mock.mjs';

const two = async (s) => {
  await s.talk('First?');
  await s.talk('Second?');
};

test('a whole conversation', async (s) => {
  const {page, mock} = s;
  assert(await page.isDisabled('#send'));
  await page.type('#box', 'Hello');
  await page.press('#box', 'Shift+Enter');
  await page.type('#box', 'there');
  await page.press('#box', 'Enter');
  await s.idle();
  await s.talk('How are you?');
  assert.deepEqual(await s.messages(), [['You', 'Hello\nthere'],
    ['pocket-f16', 'You said: Hello\nthere'], ['You', 'How are you?'],
    ['pocket-f16', 'You said: How are you?']]);
  assert.deepEqual(mock.asked[1], {model: 'pocket-f16', stream: true,
    stream_options: {include_usage: true}, messages: [{role: 'user', content: 'Hello\nthere'},
      {role: 'assistant', content: 'You said: Hello\nthere'},
      {role: 'user', content: 'How are you?'}]});
  assert.equal(await page.inputValue('#box'), '');
  assert.deepEqual(await s.titles(), ['Hello there']);
  assert.equal(await page.title(), 'Hello there – runt');
  assert.match(await s.text('#messages > li:last-child .figures'), /^3 tokens · 100 tok\/s$/);
  assert.match(await s.text('#context'), /^Context: \d+ of 1024 tokens$/);
});

test('blank messages are not sent', async (s) => {
  await s.write('  \n ');
  assert(await s.page.isDisabled('#send'));
  assert.equal(s.mock.asked.length, 0);
  assert.deepEqual(await s.messages(), []);
});

test('a beginning that is offered is sent', async (s) => {
  await s.page.locator('#ideas button').first().click();
  await s.idle();
  assert.equal(s.mock.asked[0].messages[0].content, await s.page.evaluate(() =>
    document.querySelector('#messages .said .text').innerText));
});

test('an answer is shown as it comes', async (s) => {
  const more = gate(), {page} = s;
  s.mock.reply = () => ({pieces: ['One, ', 'two', more, ', three.']});
  await s.write('Count');
  await s.sees('#messages li.running .text', 'One, two');
  assert.equal((await s.texts())[1], 'One, two');
  assert.equal(await page.getAttribute('#messages li.answer', 'aria-busy'), 'true');
  assert(await page.isVisible('#stop') && await page.isHidden('#send'));
  more.open();
  await s.idle();
  assert.equal((await s.texts())[1], 'One, two, three.');
  assert.equal(await page.getAttribute('#messages li.answer', 'aria-busy'), 'false');
});

test('what a person has selected stays so while the answer grows', async (s) => {
  const more = gate();
  s.mock.reply = () => ({pieces: ['selected words ', more, 'and more\n\n```\ncode']});
  await s.write('Go');
  await s.sees('#messages li.running .text', 'selected words');
  await s.page.evaluate(() => getSelection().setBaseAndExtent(
    document.querySelector('.running .text p').firstChild, 0,
    document.querySelector('.running .text p').firstChild, 8));
  more.open();
  await s.idle();
  assert.equal(await s.page.evaluate(() => getSelection().toString()), 'selected');
});

for (const way of ['the button', 'Escape']) {
  test(`stop by ${way}`, async (s) => {
    const never = gate(), {page, mock} = s;
    mock.reply = (_, n) => n === 1 ? {pieces: ['Half an ans', never, 'wer']} : {};
    await s.write('Go');
    await s.sees('#messages li.running .text', 'Half an ans');
    if (way === 'Escape') await page.keyboard.press('Escape');
    else await page.click('#stop');
    await s.idle();
    await s.until(() => mock.left === 1); // the server is told by the connection
    assert.equal((await s.texts())[1], 'Half an ans');
    await s.sees('#messages li .ending', 'Stopped.');
    await s.talk('Go on');
    assert.deepEqual(mock.asked[1].messages.map((m) => m.content), ['Go', 'Half an ans', 'Go on']);
    never.open();
  });
}

test('stop before the first word', async (s) => {
  const never = gate();
  s.mock.reply = (_, n) => n === 1 ? {pieces: [never]} : {};
  await s.write('Go');
  await s.sees('#messages .state', 'Reading');
  await s.page.click('#stop');
  await s.sees('#messages .ending', 'Stopped before the first word.');
  await s.talk('Now?');
  assert.deepEqual(s.mock.asked[1].messages.map((m) => m.content), ['Go', 'Now?']);
  never.open();
});

test('answer again, and choose among the answers', async (s) => {
  s.mock.reply = (_, n) => ({pieces: ['Answer ' + n]});
  await s.talk('Go');
  await s.press(1, 'Answer again');
  await s.idle();
  assert.deepEqual(s.mock.asked[0].messages, s.mock.asked[1].messages);
  assert.deepEqual(await s.texts(), ['Go', 'Answer 2']);
  assert.equal(await s.text('.versions'), '2 of 2');
  await s.press(1, 'The answer before');
  assert.deepEqual(await s.texts(), ['Go', 'Answer 1']);
  await s.talk('And?'); // goes on from the one that is shown
  assert.equal(s.mock.asked[2].messages[1].content, 'Answer 1');
  await s.reload();
  assert.deepEqual(await s.texts(), ['Go', 'Answer 1', 'And?', 'Answer 3']);
  await s.press(1, 'The next answer');
  assert.equal((await s.texts())[1], 'Answer 2');
});

long('no more than eight answers to one message are kept', async (s) => {
  s.mock.reply = (_, n) => ({pieces: ['Answer ' + n]});
  await s.talk('Go');
  for (let n = 2; n <= 10; n++) {
    await s.press(1, 'Answer again');
    await s.until(async () => (await s.texts())[1] === 'Answer ' + n);
    await s.idle();
  }
  assert.equal(await s.text('.versions'), '8 of 8');
});

test('answering an earlier question again removes what followed, until it is undone', async (s) => {
  await two(s);
  await s.press(1, 'Answer again');
  await s.idle();
  assert.deepEqual(await s.texts(), ['First?', 'You said: First?']);
  await s.page.click('#notice .quiet');
  assert.deepEqual(await s.texts(), ['First?', 'You said: First?', 'Second?', 'You said: Second?']);
  assert.equal(await s.page.locator('.versions').count(), 0);
  await s.reload();
  assert.equal((await s.texts()).length, 4);
});

test('edit an earlier message and go on from there', async (s) => {
  await two(s);
  await s.press(0, 'Edit');
  assert.equal(await s.page.inputValue('.edit'), 'First?');
  await s.page.fill('.edit', 'Another first?');
  await s.page.press('.edit', 'Enter');
  await s.idle();
  assert.deepEqual(await s.texts(), ['Another first?', 'You said: Another first?']);
  assert.deepEqual(s.mock.asked[2].messages, [{role: 'user', content: 'Another first?'}]);
  assert.deepEqual(await s.titles(), ['Another first?']);
  await s.talk('Third?');
  assert.deepEqual(s.mock.asked[3].messages.map((m) => m.content),
    ['Another first?', 'You said: Another first?', 'Third?']);
});

long('an edit is undone, in mid-answer too', async (s) => {
  await two(s);
  const never = gate();
  s.mock.reply = () => ({pieces: ['Some', never, ' more']});
  await s.press(0, 'Edit');
  await s.page.fill('.edit', 'Changed');
  await s.page.click('.editor .main');
  await s.sees('#messages .running .text', 'Some');
  await s.page.click('#notice .quiet');
  assert.deepEqual(await s.texts(), ['First?', 'You said: First?', 'Second?', 'You said: Second?']);
  assert(await s.page.isVisible('#send'));
  never.open();
  s.mock.reply = () => ({});
  await s.talk('Third?');
  assert.equal((await s.texts()).length, 6);
});

test('an edit is given up with Escape', async (s) => {
  await s.talk('First?');
  await s.press(0, 'Edit');
  await s.page.fill('.edit', 'Changed');
  await s.page.press('.edit', 'Escape');
  assert.deepEqual(await s.texts(), ['First?', 'You said: First?']);
  assert.match(await s.page.evaluate(() => document.activeElement.getAttribute('aria-label')), /^Edit/);
  assert.equal(s.mock.asked.length, 1);
});

test('texts of models are texts', async (s) => {
  const evil = '<img src=x onerror="window.hurt=1"><script>window.hurt=1</script>\n' +
    '<b>bold</b> &amp; [a](javascript:alert(1))\n\n```html\n<i>code</i>\n  indented\n```\nafter';
  s.mock.reply = () => ({pieces: evil.match(/[^]{1,7}/g)});
  await s.talk('<u>me</u>');
  const found = await s.page.evaluate(() => ({
    tags: [...document.querySelectorAll('#messages .text *')].map((e) => e.tagName),
    code: document.querySelector('#messages pre').textContent,
    text: document.querySelector('#messages .answer .text p').textContent,
    said: document.querySelector('#messages .said .text').textContent, hurt: window.hurt}));
  assert.deepEqual(found.tags, ['P', 'P', 'PRE', 'CODE', 'P']);
  assert.equal(found.code, '<i>code</i>\n  indented');
  assert.equal(found.text, evil.slice(0, evil.indexOf('\n\n```')));
  assert.equal(found.said, '<u>me</u>');
  assert.equal(found.hurt, undefined);
});

test('fences: open ones, nested ones, tildes, and none', async (s) => {
  const split = (text) => s.page.evaluate((t) => splitFences(t), text);
  const code = (text) => ({code: true, text}), plain = (text) => ({code: false, text});
  assert.deepEqual(await split('a\n```\nb'), [plain('a'), code('b')]);
  assert.deepEqual(await split('```js\nx\n\n```'), [code('x\n')]);
  assert.deepEqual(await split('````\n```\nx\n```\n````\ny'), [code('```\nx\n```'), plain('y')]);
  assert.deepEqual(await split('~~~\n```\n~~~'), [code('```')]);
  assert.deepEqual(await split('``` `` ```'), [code('')]);
  assert.deepEqual(await split('    ```\nfour blanks are no fence'),
    [plain('    ```\nfour blanks are no fence')]);
  assert.deepEqual(await split('\n \n'), []);
  assert.deepEqual(await split(''), []);
});

test('only what was changed is sent; it is remembered, and goes back to the defaults', async (s) => {
  const {page, mock} = s;
  await page.click('#panel-toggle');
  await page.fill('#set-temperature', '0,3');
  await page.fill('#set-top_k', '7');
  await page.fill('#set-min_p', '0.1');
  await page.fill('#set-top_p', '0.9');
  await page.fill('#set-repeat_penalty', '1.1');
  await page.fill('#set-frequency_penalty', '-0.5');
  await page.fill('#set-presence_penalty', '0.25');
  await page.fill('#set-repeat_last_n', '128');
  await page.fill('#set-typical_p', '0.95');
  await page.fill('#set-dry_multiplier', '0.8');
  await page.fill('#set-mirostat', '2');
  await page.fill('#set-mirostat_tau', '3.5');
  await page.fill('#set-seed', '9007199254740991');
  await page.fill('#set-max_tokens', '50');
  await page.fill('#system', 'Be brief.');
  await s.talk('Go');
  const wanted = {temperature: 0.3, top_k: 7, min_p: 0.1, top_p: 0.9, repeat_penalty: 1.1,
    frequency_penalty: -0.5, presence_penalty: 0.25, repeat_last_n: 128,
    typical_p: 0.95, dry_multiplier: 0.8, mirostat: 2, mirostat_tau: 3.5, seed: 9007199254740991, max_tokens: 50};
  const {model, messages, stream, stream_options, ...sampling} = mock.asked[0];
  assert.deepEqual(sampling, wanted);
  assert.deepEqual(messages[0], {role: 'system', content: 'Be brief.'});
  assert.equal(model + stream + stream_options.include_usage, 'pocket-f16truetrue');
  await s.reload();
  assert(await page.isVisible('#panel'));
  assert.equal(await page.inputValue('#set-top_k'), '7');
  await page.click('#reset');
  assert.equal(await page.inputValue('#set-temperature'), '0.8');
  assert.equal(await page.inputValue('#set-seed'), '');
  await s.talk('Go');
  assert.deepEqual(Object.keys(mock.asked[1]).sort(),
    ['messages', 'model', 'stream', 'stream_options']);
  await page.click('#notice .quiet'); // undo
  await s.talk('Go');
  assert.equal(mock.asked[2].seed, wanted.seed);
});

test('values out of range are told and not taken', async (s) => {
  const {page, mock} = s;
  await page.click('#panel-toggle');
  await page.fill('#set-temperature', '1.5');
  for (const [field, value, words] of [['temperature', '2.1', 'From 0 to 2.'],
    ['temperature', 'hot', 'This is no number.'], ['top_k', '1.5', 'A whole number, please.'],
    ['mirostat', '1', '0 or 2.'],
    ['top_p', '', 'A number, please.'], ['seed', '-1', 'From 0 to'],
    ['max_tokens', '0', 'From 1 to'], ['seed', '1e999', 'This is no number.']]) {
    await page.fill('#set-' + field, value);
    await s.sees('#set-' + field + '-hint.bad', words);
    assert.equal(await page.getAttribute('#set-' + field, 'aria-invalid'), 'true');
  }
  await s.talk('Go');
  assert.equal(mock.asked[0].temperature, 1.5);
  assert(!('top_k' in mock.asked[0] || 'seed' in mock.asked[0] || 'max_tokens' in mock.asked[0]));
  assert.equal(await page.inputValue('#set-temperature'), '1.5'); // the last one that was good
});

test('sliders and boxes agree', async (s) => {
  const {page, mock} = s;
  await page.click('#panel-toggle');
  const slider = page.locator('.field:has(#set-temperature) [type=range]');
  await slider.focus();
  await page.keyboard.press('Home');
  assert.equal(await page.inputValue('#set-temperature'), '0');
  await page.keyboard.press('ArrowRight');
  assert.equal(await page.inputValue('#set-temperature'), '0.05');
  await page.fill('#set-temperature', '1');
  assert.equal(await slider.inputValue(), '1');
  await page.fill('#set-temperature', '0.8'); // the default again
  await s.talk('Go');
  assert(!('temperature' in mock.asked[0]));
});

test('defaults that the server tells are shown', async (s) => {
  s.mock.models = [entry('m', 1e6, 4, {sampler: {temperature: 0.2, top_k: 0}})];
  await s.reload();
  await s.page.click('#panel-toggle');
  assert.equal(await s.page.inputValue('#set-temperature'), '0.2');
  assert.equal(await s.page.inputValue('#set-top_k'), '0');
  assert.equal(await s.page.inputValue('#set-top_p'), '0.95');
});

test('the model is picked by size, bits and speed', async (s) => {
  const {page, mock} = s;
  assert.equal(await s.text('#model-facts'), '251 MB · 16.2 bits · 42 tok/s');
  await page.click('#model');
  assert.deepEqual((await page.$$eval('#models .option', (list) => list.map((o) =>
    o.innerText.replace(/\s+/g, ' ').trim()))), ['pocket-f16 251 MB 16.2 bits 42 tok/s',
    'pocket-q8 133 MB 8.60 bits 78 tok/s', 'pocket-q4 71 MB 4.57 bits 131 tok/s',
    'pocket-r4 63 MB 4.05 bits –', 'tiny-q4 2.6 MB 4.90 bits 2210 tok/s']);
  await page.click('#models .option:nth-child(3)');
  await page.waitForSelector('#models', {state: 'hidden'});
  await s.talk('Go');
  assert.equal(mock.asked[0].model, 'pocket-q4');
  assert.equal((await s.messages())[1][0], 'pocket-q4');
  await s.reload();
  assert.equal(await s.text('#model-name'), 'pocket-q4');
  mock.models = MODELS.map((m) => ({...m, runt: {...m.runt, tokens_per_second: 7.25}}));
  await s.talk('Faster');
  await s.sees('#model-facts', '7.3 tok/s'); // as the server has just measured
});

test('a conversation remembers its model; one that is gone is replaced', async (s) => {
  const {page, mock} = s;
  await page.click('#model');
  await page.click('#models .option:nth-child(5)');
  await s.talk('Go');
  await page.click('#new');
  await page.click('#model');
  await page.click('#models .option:nth-child(2)');
  await page.locator('#chats .title').first().click();
  assert.equal(await s.text('#model-name'), 'tiny-q4');
  mock.models = MODELS.slice(0, 2);
  await s.reload();
  assert.equal(await s.text('#model-name'), 'pocket-f16');
  await s.talk('Still there?');
  assert.equal(mock.asked[1].model, 'pocket-f16');
});

test('a model without a template is told apart', async (s) => {
  s.mock.models = [entry('base', 1e6, 4, {template: null})];
  await s.reload();
  await s.sees('#empty-note', 'continues what you write');
  assert.match(await s.page.getAttribute('#box', 'placeholder'), /beginning/);
  await s.page.click('#model');
  await s.sees('#models .option', 'no chat template');
});

long('a server that tells nothing of its models will do', async (s) => {
  s.mock.models = [{id: 'other', object: 'model'}];
  await s.page.reload();
  await s.sees('#model-name', 'other');
  s.mock.reply = () => ({usage: {runt: undefined}});
  await s.talk('Go');
  assert.equal(await s.text('#model-facts'), '');
  assert.equal((await s.texts())[1], 'You said: Go');
});

test('two conversations are answered at the same time', async (s) => {
  const {page, mock} = s, first = gate();
  mock.reply = (_, n) => n === 1 ? {pieces: ['One ', first, 'done']} : {};
  await s.write('First');
  await s.sees('#messages .running .text', 'One');
  await page.click('#new');
  await s.talk('Second');
  assert.equal((await s.texts())[1], 'You said: Second');
  assert.equal(await page.locator('#chats .busy').count(), 1);
  first.open();
  await page.waitForSelector('#chats .busy', {state: 'detached'});
  await page.getByRole('button', {name: 'First', exact: true}).click();
  assert.deepEqual(await s.texts(), ['First', 'One done']);
});

test('the newest line stays in sight, unless the person looks elsewhere', async (s) => {
  const {page} = s, more = gate(), lines = Array.from({length: 60}, (_, i) => `line ${i}\n`);
  s.mock.reply = () => ({pieces: [...lines, more, ...lines, 'the end']});
  await s.write('Go');
  await s.sees('#messages .running .text', 'line 59');
  const below = () => page.$eval('#scroll', (e) => e.scrollHeight - e.scrollTop - e.clientHeight);
  await s.until(async () => await below() < 5);
  await page.hover('#messages .running');
  await page.mouse.wheel(0, -600);
  await page.waitForSelector('#latest:not([hidden])');
  more.open();
  await s.idle();
  assert(await below() > 500);
  await page.click('#latest');
  await s.until(async () => await below() < 5);
  assert(await page.isHidden('#latest'));
});

await main();
