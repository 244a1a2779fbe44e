// Debian's Chromium, one fresh context per person, and a witness that no page asks anything of a stranger.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

import axe from 'axe-core';
import { chromium } from 'playwright-core';

import { PICTURES } from './run.js';

const EXECUTABLE = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** One browser for a test file. */
export async function openBrowser() {
  if (!existsSync(EXECUTABLE)) throw new Error(`no Chromium at ${EXECUTABLE}: apt-get install chromium, or set CHROMIUM`);
  const browser = await chromium.launch({ executablePath: EXECUTABLE, headless: true, args: FLAGS });
  return new Browser(browser);
}

class Browser {
  #browser;
  #people = [];

  constructor(browser) {
    this.#browser = browser;
  }

  /**
   * A person with a browser of their own: no cookie is shared. `own` is Postern's origin, `others` the origins a
   * person may be sent to. Requests to anywhere else are stopped; those made by Postern's pages fail the test.
   */
  async person(own, others = [], options = {}) {
    const context = await this.#browser.newContext({ locale: 'en-GB', ...options });
    context.setDefaultTimeout(15_000);
    const person = new Person(context, new URL(own).origin, others.map((url) => new URL(url).origin));
    await person.watch();
    this.#people.push(person);
    return person;
  }

  async close() {
    await this.#browser.close();
  }

  /** For `afterEach`: a picture of every open page of a failed test, then all contexts end. */
  async finish(test) {
    const failed = test && test.passed === false;
    for (const person of this.#people.splice(0)) {
      if (failed) await person.picture(test.name);
      await person.context.close().catch(() => {});
    }
  }
}

class Person {
  /** Requests Postern's own pages made to anywhere but Postern, navigations apart. */
  strays = [];
  /** Everything the browser asked for. */
  requests = [];
  /** What the pages complained about: CSP violations, script errors. */
  complaints = [];

  constructor(context, own, others) {
    this.context = context;
    this.own = own;
    this.others = others;
  }

  async watch() {
    this.page = await this.context.newPage();
    // Redirects pass here, too; they never reach `route` below.
    this.context.on('request', (request) => {
      this.requests.push({ method: request.method(), url: request.url() });
      const origin = new URL(request.url()).origin;
      if (origin === this.own || origin === 'null') return;
      const from = frameOf(request)?.url() ?? '';
      const sentOn = request.isNavigationRequest() && frameOf(request)?.parentFrame() === null && this.others.includes(origin);
      if (from.startsWith(`${this.own}/`) && !sentOn) this.strays.push(`${from} asked for ${request.url()}`);
    });
    this.context.on('weberror', (error) => this.complaints.push(error.error().message));
    this.page.on('console', (message) => {
      if (message.type() === 'error' && /Content.Security.Policy|Refused to/i.test(message.text())) this.complaints.push(message.text());
    });
    await this.context.route('**/*', (route) => {
      const origin = new URL(route.request().url()).origin;
      return origin === this.own || this.others.includes(origin) ? route.continue() : route.abort('blockedbyclient');
    });
  }

  /** No page of Postern's asked another origin for anything, or broke its own content security policy. */
  assertKeptToItself() {
    assert.deepEqual(this.strays, [], 'a page of Postern asked another origin for something');
    assert.deepEqual(this.complaints, [], 'a page of Postern broke its policy or threw');
  }

  /** axe-core finds nothing serious or critical on the page as it is. */
  async assertAccessible(what = this.page.url()) {
    await this.page.evaluate(axe.source);
    const { violations, passes } = await this.page.evaluate(() =>
      globalThis.axe.run(document, { resultTypes: ['violations', 'passes'] }),
    );
    assert.ok(passes.length > 0, `axe looked at nothing on ${what}`);
    const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
    assert.deepEqual(
      serious.map(({ id, help, nodes }) => ({ id, help, where: nodes.map(({ target }) => target.join(' ')) })),
      [],
      `axe on ${what}`,
    );
  }

  /** Nothing on the page is wider than the window. */
  async assertFits() {
    const { scroll, client } = await this.page.evaluate(() => ({
      scroll: document.documentElement.scrollWidth,
      client: document.documentElement.clientWidth,
    }));
    assert.ok(scroll <= client, `${new URL(this.page.url()).pathname} is ${scroll} px wide in a window of ${client} px`);
  }

  /** The page's text, as a person reads it. */
  text() {
    return this.page.locator('body').innerText();
  }

  async picture(name) {
    for (const [index, page] of this.context.pages().entries()) {
      const file = join(PICTURES, `${name.replace(/[^a-z0-9]+/gi, '-').slice(0, 80)}-${index}.png`);
      await page.screenshot({ path: file, fullPage: true }).catch(() => {});
    }
  }
}

// A request of a page that is just being made has no frame yet.
function frameOf(request) {
  try {
    return request.frame();
  } catch {
    return null;
  }
}
