// The stage of the attack suite: a demo, its people, and callbacks caught before they are delivered.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';

import { openBrowser } from '../harness/browser.js';
import { catchCallback, chooseAcme, continueToAcme, grantsOf, revokeAll, signIn, stateOf } from '../harness/journeys.js';
import { startDev } from '../harness/postern.js';

export async function openScene(options) {
  const dev = await startDev(options);
  const browser = await openBrowser();
  return new Scene(dev, browser);
}

class Scene {
  constructor(dev, browser) {
    this.dev = dev;
    this.browser = browser;
  }

  async close() {
    await this.browser.close();
    await this.dev.stop();
  }

  async finish(test) {
    await this.browser.finish(test);
    await this.dev.acme.clearFaults();
    await revokeAll(this.dev);
  }

  nobody(others = []) {
    return this.browser.person(this.dev.url, [this.dev.demo_provider, ...others]);
  }

  async signedIn(user, others = []) {
    const person = await this.nobody(others);
    await signIn(person, await this.dev.loginUrl(user));
    return person;
  }

  /** A person on the way: at Acme, nothing answered yet. `asked` is the authorization request. */
  async onTheWay(user = this.dev.ada, others = []) {
    const person = await this.signedIn(user, others);
    const link = await chooseAcme(person, this.dev.url);
    const asked = await continueToAcme(person, this.dev.demo_provider);
    return { person, link, asked };
  }

  /** Says yes at Acme and catches the callback before Postern sees it. */
  callbackOf(person, answer) {
    return catchCallback(person, this.dev.demo_provider, answer);
  }

  /** Nothing was sent to Acme's token endpoint while `attack` ran, and no grant of anybody came of it. */
  async sendsNoTokenRequest(attack) {
    const mark = await this.dev.acme.mark();
    const before = await this.living();
    const outcome = await attack();
    assert.deepEqual(await this.dev.acme.tokenRequestsSince(mark), [], 'a token request left Postern');
    assert.deepEqual(await this.living(), before, 'the living grants changed');
    return outcome;
  }

  async living() {
    const all = [...(await grantsOf(this.dev, this.dev.ada)), ...(await grantsOf(this.dev, this.dev.ben))];
    return all.filter((grant) => stateOf(grant) === 'active').map(({ id }) => id).sort();
  }

  /** Delivers `url` in the browser of `person` and reads the page that answers: a refusal, in its own words. */
  async deliver(person, url, words) {
    // The provider's own way back, cut off earlier, may still be on its way to an error page: a page of its own.
    person.page = await person.context.newPage();
    const answer = await person.page.goto(url.href);
    const text = await person.text();
    if (words) assert.match(text, words);
    assert.ok(answer.status() >= 400, `a refusal, not ${answer.status()}`);
    assert.equal(await person.page.getByRole('button', { name: /^confirm/i }).count(), 0, 'nothing to confirm');
    person.assertKeptToItself();
    return { status: answer.status(), text };
  }
}

/** A page of the attacker's, on an origin of its own. */
export async function evilSite(html) {
  const server = createServer((_request, response) => {
    response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' });
    response.end(`<!doctype html><html lang="en"><title>evil</title>${html}`);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  // Another name for loopback, so that it is another site and not only another origin.
  return { url: `http://localhost:${server.address().port}/`, close: () => server.close() };
}

/** `url` with its parameters changed; `null` takes one out. */
export function altered(url, changes) {
  const copy = new URL(url);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) copy.searchParams.delete(name);
    else copy.searchParams.set(name, value);
  }
  return copy;
}

/** `url` with one more parameter, beside the one of the same name. */
export function doubled(url, name, value = new URL(url).searchParams.get(name)) {
  const copy = new URL(url);
  copy.searchParams.append(name, value);
  return copy;
}
