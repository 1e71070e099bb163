// Texts that nobody would write on a page of their own: letters from right to left, words
// without an end, emoji of many parts, markup, and conversations of any length.
import {PHONE, assert, gate, long, main, test} from './harness.mjs';
import {entry} from './mock.mjs';

const HEBREW = 'שלום, מה שלומך היום?', FAMILY = '👩‍👩‍👧‍👦', FLAG = '🇮🇸';

// Where the letters of the n-th line of a text stand: at its 'left' or its 'right' end.
const sideOf = (s, selector, line) => s.page.evaluate(([where, n]) => {
  const p = document.querySelector(where), lines = p.textContent.split('\n');
  const from = lines.slice(0, n).reduce((sum, l) => sum + l.length + 1, 0), range = new Range();
  range.setStart(p.firstChild, from);
  range.setEnd(p.firstChild, from + lines[n].length);
  const text = range.getBoundingClientRect(), box = p.getBoundingClientRect();
  return text.left - box.left < box.right - text.right ? 'left' : 'right';
}, [selector, line]);

test('each line runs as its own letters do', async (s) => {
  s.mock.reply = () => ({pieces: ['Short.\n', HEBREW + '\n', 'And on.']});
  await s.talk(HEBREW + '\nShort.');
  const answer = '#messages .answer .text p';
  assert.deepEqual([await sideOf(s, answer, 0), await sideOf(s, answer, 1),
    await sideOf(s, answer, 2)], ['left', 'right', 'left']);
  assert.deepEqual([await sideOf(s, '#messages .said .text p', 0),
    await sideOf(s, '#messages .said .text p', 1)], ['right', 'left']);
  assert.equal(await s.page.$eval('#messages .figures', (e) => getComputedStyle(e).direction), 'ltr');
});

test('an override of direction turns nothing around it', async (s) => {
  s.mock.reply = () => ({pieces: ['\u202e\u2067never ended']});
  await s.talk('\u202e' + HEBREW);
  await s.menu(0, 'delete');
  assert.equal(await s.text('#notice span'), '“\u2068\u202e' + HEBREW + '\u2069” was deleted.');
});

test('emoji come whole, and names are cut between them', async (s) => {
  s.mock.reply = () => ({pieces: [FAMILY, FLAG, '👍🏽', ' e\u0301']});
  await s.talk('a' + FAMILY.repeat(40) + FLAG.repeat(40));
  assert.equal((await s.texts())[1], FAMILY + FLAG + '👍🏽 e\u0301');
  assert.deepEqual(await s.titles(), ['a' + FAMILY.repeat(40) + FLAG.repeat(17) + ' …']);
});

// Everything that can have a name has a long one.
const endless = async (s) => {
  const name = 'a-model-of-' + 'x'.repeat(180);
  s.mock.models = [entry(name, 123e9, 16.25, {tokens_per_second: 12345, template: null}),
    entry('שם-' + 'ארוך'.repeat(40), 1, 0.01)];
  s.mock.reply = () => ({pieces: ['W'.repeat(3000) + '\n\n```\n' + 'c'.repeat(3000) + '\n```\n' +
    'http://' + 'u'.repeat(900) + '\n' + '<b>'.repeat(200)]});
  await s.reload();
  await s.talk('q'.repeat(2000));
  await s.fits();
  await s.page.click('#model');
  await s.fits();
  await s.page.keyboard.press('Escape');
  if (await s.page.isHidden('#side')) await s.page.click('#side-toggle');
  await s.fits();
  await s.page.goto(s.url + '#small');
  await s.page.fill('#ask-box', 'q'.repeat(2000));
  await s.page.press('#ask-box', 'Enter');
  await s.page.waitForSelector('#ask-send:not([hidden])', {state: 'attached'});
  await s.fits();
};
long('words and names without an end', endless);
test('words and names without an end, on a telephone', endless,
  {viewport: PHONE, hasTouch: true, isMobile: true});

const messages = Array.from({length: 200}, (_, i) => i % 2 ? {role: 'assistant',
  content: `Answer ${i}. ` + 'Some more words to it. '.repeat(20), tokens: 90, total: 500,
  letters: 60000}
  : {role: 'user', content: `Question ${i}?`});

test('two hundred messages are drawn at once, and the two hundred and first comes', async (s) => {
  const more = gate();
  const seen = await s.page.evaluate(() => {
    window.layouts = 0; // how often the page asks how high everything is
    const height = Object.getOwnPropertyDescriptor(Element.prototype, 'scrollHeight');
    Object.defineProperty(Element.prototype, 'scrollHeight', {...height, get() {
      window.layouts += this.id === 'scroll' ? 1 : 0;
      return height.get.call(this);
    }});
    document.querySelectorAll('#chats .title')[0].click();
    return window.layouts;
  });
  assert(seen <= 5, 'laid out ' + seen + ' times');
  assert.equal((await s.messages()).length, 200);
  const below = () => s.page.$eval('#scroll', (e) => e.scrollHeight - e.scrollTop - e.clientHeight);
  assert(await below() < 5);
  s.mock.reply = () => ({pieces: [...Array.from({length: 400}, (_, i) => `word ${i} `), more]});
  await s.write('One more?');
  await s.sees('#messages .running .text', 'word 399');
  await s.until(async () => await below() < 5);
  more.open();
  await s.idle();
  assert.equal((await s.messages()).length, 202);
  assert.equal(s.mock.asked[0].messages.length, 201);
}, {before: (s) => s.context.addInitScript((chat) => {
  localStorage.setItem('runt.chat.long', JSON.stringify(chat));
}, {title: 'Long', updated: 5, messages})});

long('an answer of one hundred thousand letters', async (s) => {
  const piece = 'A hundred letters, in lines that end now and then, of which there are many, and so on and on.\n';
  s.mock.reply = () => ({pieces: Array.from({length: 1000}, () => piece)});
  await s.talk('Go on');
  assert.equal((await s.texts())[1].length, 1000 * piece.length - 1);
  await s.reload();
  assert.equal((await s.texts())[1].length, 1000 * piece.length - 1);
});

long('fences without an end', async (s) => {
  s.mock.reply = () => ({pieces: ['```\n'.repeat(2001), '~~~\n', '`'.repeat(5000)]});
  await s.talk('Go');
  assert.equal(await s.page.locator('#messages .answer pre').count(), 1001);
  await s.fits();
});

await main();
