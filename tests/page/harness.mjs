// What the tests of the page share: Chromium, a fresh page and server a test, and TAP.
//
// A test fails, too, when the page throws, complains on the console, or does what its
// Content-Security-Policy forbids.
//
//   RUNT_NPM       the folder that has node_modules
//   RUNT_URL       a server to use in place of the mock
//   RUNT_CHROMIUM  the browser
//   RUNT_SLOW      how much longer everything may take
//   RUNT_LONG      1: the rarer cases, too
import assert from 'node:assert/strict';
import {createRequire} from 'node:module';
import {Mock} from './mock.mjs';

const require = createRequire(process.env.RUNT_NPM + '/');
const {chromium} = require('playwright-core');
export const AXE = require.resolve('axe-core');
const SLOW = Number(process.env.RUNT_SLOW || 1), PATIENCE = 30000 * SLOW;
const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'];

export const WIDE = {width: 1360, height: 860}, PHONE = {width: 360, height: 740};
export {assert};

const tests = [];

// f gets a stage: {page, mock, context, ...}; options are those of a browser's context.
export function test(name, f, options = {}) {
  tests.push({name, f, options});
}

// The rarer cases: only with RUNT_LONG=1.
export const long = process.env.RUNT_LONG === '1' ? test : () => {};

export async function main() {
  const browser = await chromium.launch({executablePath: process.env.RUNT_CHROMIUM,
    args: FLAGS, timeout: PATIENCE});
  const wanted = process.argv[2] ? new RegExp(process.argv[2]) : null;
  let n = 0, failed = 0;
  for (const t of tests) {
    if (wanted && !wanted.test(t.name)) continue;
    const stage = new Stage(browser, t.options);
    let trouble = '';
    try {
      await stage.start();
      await t.f(stage);
      await stage.check();
    } catch (e) {
      trouble = String(e.stack ?? e);
    }
    await stage.end();
    failed += trouble ? 1 : 0;
    console.log(`${trouble ? 'not ok' : 'ok'} ${++n} - ${t.name}`);
    if (trouble) console.log(trouble.replace(/^/gm, '# '));
  }
  await browser.close();
  console.log(`1..${n}`);
  process.exitCode = failed ? 1 : 0;
}

export class Stage {
  constructor(browser, options) {
    this.browser = browser;
    this.options = options;
    this.complaints = [];
  }

  async start() {
    const {before, ...more} = this.options, url = process.env.RUNT_URL;
    this.mock = url ? null : await Mock.start();
    this.url = url || this.mock.url;
    this.context = await this.browser.newContext({viewport: WIDE, ...more});
    this.context.setDefaultTimeout(PATIENCE);
    await this.context.exposeBinding('complain', (_, text) => this.complaints.push(text));
    await this.context.addInitScript(() => addEventListener('securitypolicyviolation', (e) =>
      window.complain('policy: ' + e.violatedDirective + ' ' + e.blockedURI)));
    if (before) await before(this);
    this.page = await this.newPage();
  }

  async newPage() {
    const page = await this.context.newPage();
    page.on('pageerror', (e) => this.complaints.push(e.stack));
    page.on('console', (m) => {
      const text = m.text(); // what Chromium says of each refused request is no complaint
      if (['error', 'warning'].includes(m.type()) && !text.startsWith('Failed to load resource'))
        this.complaints.push(text);
    });
    await page.goto(this.url);
    await page.waitForFunction(() => document.getElementById('model-name').textContent !== '…' ||
      !document.getElementById('away').hidden);
    return page;
  }

  async reload() {
    await this.page.reload();
    await this.page.waitForFunction(() => document.getElementById('model-name').textContent !== '…');
  }

  async check() {
    assert.deepEqual(this.complaints, []);
  }

  async end() {
    await this.context?.close();
    await this.mock?.stop();
  }

  // ---- what a person does ----

  async write(text) {
    await this.page.fill('#box', text);
    await this.page.press('#box', 'Enter');
  }

  // Until nothing is being written.
  async idle() {
    await this.page.waitForSelector('#send:not([hidden])', {state: 'attached'});
  }

  async talk(text) {
    await this.write(text);
    await this.idle();
  }

  // [[who, text], ...]
  async messages() {
    return this.page.$$eval('#messages > li:not(.divider)', (list) => list.map((li) => [
      li.querySelector('h2').textContent, li.querySelector('.text').innerText.trim()]));
  }

  async texts() {
    return (await this.messages()).map((m) => m[1]);
  }

  async text(selector) {
    return (await this.page.locator(selector).innerText()).trim();
  }

  // Wait until the text of an element holds `words`.
  async sees(selector, words) {
    await this.page.locator(selector).filter({hasText: words}).first().waitFor();
  }

  async until(what) {
    const end = Date.now() + PATIENCE;
    while (!await what()) {
      assert(Date.now() < end, 'it does not come true: ' + what);
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }

  // The buttons of a message are only shown where the pointer is.
  async press(which, label) {
    const li = this.page.locator('#messages > li').nth(which);
    await li.hover();
    await li.getByRole('button', {name: label}).click();
  }

  async menu(which, what) {
    await this.page.locator('#chats li').nth(which).locator('.icon').click();
    await this.page.click(`#chat-menu [data-do=${what}]`);
  }

  async titles() {
    return this.page.$$eval('#chats .title', (list) => list.map((b) => b.title));
  }

  // Nothing reaches beyond the window's edges, or is cut off there.
  async fits() {
    const wide = await this.page.evaluate(() => {
      const found = [];
      if (document.documentElement.scrollWidth > innerWidth) found.push('the page is scrolled');
      for (const e of document.querySelectorAll('body *')) {
        const r = e.getBoundingClientRect();
        if (!r.width || !r.height || e.closest('svg, .unseen, .skip, pre, input, [inert]')) continue;
        if (getComputedStyle(e).visibility === 'hidden') continue;
        const name = e.tagName + '#' + e.id + '.' + e.className;
        if (r.right > innerWidth + 0.5 || r.left < -0.5) found.push(name + ' ' + r.left + '-' + r.right);
        const s = getComputedStyle(e);
        if (e.scrollWidth > e.clientWidth + 1 && e.clientWidth && s.display !== 'inline' &&
            s.textOverflow !== 'ellipsis') found.push(name + ' has more than it shows');
      }
      return found;
    });
    assert.deepEqual(wide, []);
  }
}

export function gate() {
  let open;
  const promise = new Promise((resolve) => { open = resolve; });
  promise.open = open;
  return promise;
}
