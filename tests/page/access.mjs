// For everybody: by keyboard alone, with a screen reader, on a telephone, in the dark, without
// motion.  axe-core checks names, roles and contrasts of each state in both themes.
import {AXE, PHONE, assert, gate, long, main, test} from './harness.mjs';

const SMALL = PHONE;

// A text that has everything, and one word that is wider than a telephone.
const RICH = 'A line.\n\n```\n' + 'code that is wider than a telephone is, and by far; '.repeat(3) +
  '\n```\n' + 'Donaudampfschifffahrtsgesellschaft'.repeat(3) + ' ends it.';

const states = {
  async 'nothing said'() {},
  async 'a conversation'(s) {
    s.mock.reply = (_, n) => n === 2 ? {pieces: [RICH]} : {};
    await s.talk('Hello');
    await s.talk('W'.repeat(200));
    await s.press(3, 'Answer again');
    await s.idle();
  },
  async 'an answer on its way'(s) {
    s.mock.reply = () => ({pieces: ['Some words', gate()]});
    await s.write('Hello');
    await s.sees('#messages .running .text', 'Some words');
  },
  async 'editing'(s) {
    await s.talk('Hello');
    await s.press(0, 'Edit');
  },
  async 'a failure'(s) {
    s.mock.reply = () => ({pieces: ['Half'], cut: true});
    await s.write('Hello');
    await s.page.waitForSelector('.problem');
    await s.page.evaluate(() => {
      document.getElementById('away').hidden = false;
      document.getElementById('away').textContent = 'No answer from 127.0.0.1:8080. ' +
        'The page looks for it every few seconds.';
    });
  },
  async 'a full context'(s) {
    await s.talk('Hello');
    s.mock.reply = (b) => b.messages.length > 1
      ? {status: 400, error: {code: 'context_length_exceeded', message: 'x'}}
      : {end: 'length', usage: {total_tokens: 1024}};
    await s.talk('And on');
    await s.page.waitForSelector('.divider');
  },
  async 'the list, with a name being typed'(s) {
    await s.talk('A rather long question that becomes a rather long name of a conversation');
    if (await s.page.isHidden('#side')) await s.page.click('#side-toggle');
    await s.menu(0, 'rename');
  },
  async 'a conversation’s menu'(s) {
    await s.talk('Hello');
    if (await s.page.isHidden('#side')) await s.page.click('#side-toggle');
    await s.page.click('#chats .icon');
  },
  async 'the panel, with a fault'(s) {
    await s.page.click('#panel-toggle');
    await s.page.fill('#set-temperature', '1');
    await s.page.fill('#set-top_k', '-1');
  },
  async 'the models'(s) {
    await s.page.click('#model');
  },
  async 'the key'(s) {
    s.mock.key = 'x';
    await s.write('Hello');
    await s.page.waitForSelector('#key[open]');
  },
  async 'the list of keys'(s) {
    await s.page.keyboard.press('Alt+Shift+K');
  },
  async 'a notice'(s) {
    await s.talk('A rather long question that becomes a rather long name of a conversation');
    if (await s.page.isHidden('#side')) await s.page.click('#side-toggle');
    await s.menu(0, 'delete');
  },
  async 'nothing compared'(s) {
    await s.page.goto(s.url + '#small');
  },
  async 'side by side'(s) {
    s.mock.reply = () => ({pieces: [RICH]});
    await s.page.goto(s.url + '#small');
    await s.page.fill('#ask-box', 'Hello');
    await s.page.press('#ask-box', 'Enter');
    await s.page.waitForSelector('#ask-send:not([hidden])', {state: 'attached'});
  },
};

async function axe(s) {
  if (!await s.page.evaluate(() => 'axe' in window)) await s.page.addScriptTag({path: AXE});
  const found = await s.page.evaluate(async () => (await axe.run(document, {
    runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}))
    .violations.map((v) => [v.id, v.help, v.nodes.map((n) => n.html.slice(0, 160) + ' ' +
      (n.any[0]?.message ?? n.failureSummary))]));
  assert.deepEqual(found, []);
}

const OFTEN = ['a conversation', 'the panel, with a fault', 'side by side'];

for (const [name, reach] of Object.entries(states)) {
  const add = OFTEN.includes(name) ? test : long;
  add(`axe finds nothing: ${name}`, async (s) => {
    await reach(s);
    await axe(s);
    await s.page.emulateMedia({colorScheme: 'dark'});
    await axe(s);
  }, {reducedMotion: 'reduce'});
  add(`360 pixels are enough: ${name}`, async (s) => {
    await reach(s);
    await s.fits();
    await axe(s);
  }, {viewport: SMALL, hasTouch: true, isMobile: true, reducedMotion: 'reduce'});
}

long('letters twice as large still fit 360 pixels', async (s) => {
  await s.page.addStyleTag({content: 'html { font-size: 200%; }'});
  await s.talk('Hello');
  await s.fits();
}, {viewport: SMALL, hasTouch: true, isMobile: true});

// ---- screen readers ----

test('finished answers are read out, once and whole', async (s) => {
  const {page} = s, more = gate();
  await page.evaluate(() => {
    window.heard = [];
    new MutationObserver(() => window.heard.push(document.getElementById('live').textContent))
      .observe(document.getElementById('live'), {childList: true});
  });
  s.mock.reply = () => ({pieces: ['One ', 'two ', more, 'three.']});
  await s.write('Count');
  await s.sees('#messages .running .text', 'One two');
  assert.deepEqual(await page.evaluate(() => window.heard), ['Sent.']);
  more.open();
  await s.idle();
  assert.deepEqual((await page.evaluate(() => window.heard)).map((t) => t.trim()),
    ['Sent.', 'pocket-f16 answered: One two three.']);
  assert.equal(await page.locator('#messages [aria-live], #scroll[aria-live]').count(), 0);
});

test('landmarks and headings', async (s) => {
  await s.talk('Hello');
  await s.page.click('#panel-toggle');
  const found = await s.page.evaluate(() => ({
    landmarks: [...document.querySelectorAll('nav, main, header, aside')].map((e) => e.tagName),
    headings: [...document.querySelectorAll('h1, h2, h3')].filter((e) => e.offsetParent !== null)
      .map((e) => e.tagName + ' ' + e.textContent)}));
  assert.deepEqual(found.landmarks, ['NAV', 'HEADER', 'MAIN', 'ASIDE']);
  assert.deepEqual(found.headings, ['H2 Conversations', 'H1 runt', 'H2 You', 'H2 pocket-f16',
    'H2 How it answers']);
});

// ---- the keyboard ----

// As if the page had just been reached.
const atTop = (s) => s.page.evaluate(() => {
  document.body.tabIndex = -1;
  document.body.focus();
  document.body.removeAttribute('tabindex');
});

const focused = (s) => s.page.evaluate(() => {
  const e = document.activeElement;
  return e.id || e.getAttribute('aria-label') || e.textContent;
});

test('everything by keyboard', async (s) => {
  const {page, mock} = s, keys = (...list) => list.reduce((p, k) =>
    p.then(() => page.keyboard.press(k)), Promise.resolve());
  await atTop(s);
  await keys('Tab');
  assert.equal(await focused(s), 'Skip to the message');
  await keys('Enter');
  assert.equal(await focused(s), 'box');
  await page.keyboard.type('Hello');
  await keys('Enter');
  await s.idle();
  assert.equal(await focused(s), 'box'); // and goes on
  await keys('ArrowUp'); // edit the last message
  await page.keyboard.type(' again');
  await keys('Enter');
  await s.idle();
  assert.deepEqual(await s.texts(), ['Hello again', 'You said: Hello again']);
  await keys('Alt+Shift+R');
  await s.idle();
  assert.equal(mock.asked.length, 3);
  await keys('Alt+Shift+M', 'ArrowDown', 'ArrowDown', 'Enter'); // the third model
  assert.equal(await s.text('#model-name'), 'pocket-q4');
  assert.equal(await focused(s), 'box');
  await keys('Alt+Shift+N');
  assert.deepEqual(await s.messages(), []);
  assert.equal(await focused(s), 'box');
  await keys('Alt+Shift+P'); // the panel, from whose button it is reached
  assert(await page.isVisible('#panel'));
  await page.focus('#chats .title');
  await keys('Enter');
  assert.deepEqual(await s.texts(), ['Hello again', 'You said: Hello again']);
  await page.focus('#chats .title');
  await keys('Tab', 'Enter'); // its menu
  assert.equal(await focused(s), 'Rename');
  await keys('Escape');
  assert.match(await focused(s), /^Rename, export or delete “Hello again”$/);
  await keys('Enter', 'Enter');
  await page.keyboard.type('A name');
  await keys('Enter');
  assert.deepEqual(await s.titles(), ['A name']);
  assert.equal(await focused(s), 'A name');
  await keys('Alt+Shift+C');
  await s.until(async () => await focused(s) === 'ask-box');
  await page.keyboard.type('Hi');
  await keys('Enter');
  await page.waitForSelector('#ask-send:not([hidden])', {state: 'attached'});
  assert.equal(await page.locator('.column').count(), 4);
  await keys('Alt+Shift+C');
  await s.until(async () => await focused(s) === 'box');
  await keys('Alt+Shift+K');
  assert(await page.isVisible('#keys'));
  await keys('Escape');
  assert(await page.isHidden('#keys'));
});

long('keys of composed letters do not send', async (s) => {
  await s.page.fill('#box', 'にほん');
  await s.page.evaluate(() => document.getElementById('box').dispatchEvent(
    new KeyboardEvent('keydown', {key: 'Enter', bubbles: true, isComposing: true})));
  assert.equal(s.mock.asked.length, 0);
  assert.equal(await s.page.inputValue('#box'), 'にほん');
});

test('what has the focus is seen to have it', async (s) => {
  await s.talk('Hello');
  await s.page.click('#panel-toggle');
  await atTop(s);
  const bare = [], seen = new Set();
  for (let i = 0; i < 80; i++) {
    await s.page.keyboard.press('Tab');
    const [name, visible] = await s.page.evaluate(() => {
      const e = document.activeElement, around = [e, e.nextElementSibling, e.closest('.box')];
      const marked = around.some((x) => x && (getComputedStyle(x).outlineStyle !== 'none' ||
        (x !== e && x.matches('.box') && getComputedStyle(x).boxShadow.includes('0px 0px 0px 1px'))));
      return [e.tagName + '#' + e.id + (e.getAttribute('aria-label') ?? ''),
        marked && Number(getComputedStyle(e.closest('.row') ?? e.parentElement).opacity) === 1];
    });
    if (name.startsWith('BODY')) break;
    seen.add(name);
    if (!visible) bare.push(name);
  }
  assert.deepEqual(bare, []);
  assert(seen.size > 30, [...seen].join());
}, {reducedMotion: 'reduce'});

test('drawers of a telephone hold the focus and give it back', async (s) => {
  const {page} = s;
  await s.talk('Hello');
  for (const [name, toggle] of [['side', 'side-toggle'], ['panel', 'panel-toggle']]) {
    await page.click('#' + toggle);
    assert.equal(await focused(s), name + '-close');
    assert(await page.evaluate(() => document.getElementById('stage').inert));
    for (let i = 0; i < 40; i++) {
      await page.keyboard.press('Tab');
      assert(await page.evaluate((id) => document.activeElement === document.body ||
        document.getElementById(id).contains(document.activeElement), name));
    }
    await page.keyboard.press('Escape');
    assert(await page.isHidden('#' + name));
    assert.equal(await focused(s), toggle);
    assert(!await page.evaluate(() => document.getElementById('stage').inert));
  }
  await page.click('#side-toggle');
  await page.click('#scrim', {position: {x: 350, y: 400}});
  assert(await page.isHidden('#side'));
  await page.click('#side-toggle');
  await page.click('#new');
  assert(await page.isHidden('#side'));
}, {viewport: SMALL, hasTouch: true, isMobile: true});

// ---- the eyes ----

test('without motion, nothing moves', async (s) => {
  s.mock.reply = () => ({pieces: ['Some', gate()]});
  await s.write('Hello');
  await s.sees('#messages .running .text', 'Some');
  assert.equal(await s.page.evaluate(() => document.getAnimations().length), 0);
}, {reducedMotion: 'reduce'});

test('in the dark, light letters on dark grounds', async (s) => {
  await s.talk('Hello');
  const found = await s.page.evaluate(() => {
    const light = (colour) => {
      const [r, g, b] = colour.match(/[\d.]+/g).map(Number);
      return (r + g + b) / 3;
    };
    const body = getComputedStyle(document.body), box = getComputedStyle(document.querySelector('.box'));
    return [light(body.backgroundColor), light(box.backgroundColor), light(body.color)];
  });
  assert(found[0] < 40 && found[1] < 50 && found[2] > 200, found.join());
}, {colorScheme: 'dark'});

long('with colours of the person’s own choice, controls keep their edges', async (s) => {
  await s.talk('Hello');
  assert.equal(await s.page.evaluate(() =>
    getComputedStyle(document.querySelector('#send')).borderTopStyle), 'solid');
}, {forcedColors: 'active'});

await main();
