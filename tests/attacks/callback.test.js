// Invariant I9, at the callback: whatever comes back, in whatever browser, no token request leaves Postern unless the
// person who started it is the person who returns, in the browser that started it, from the server it was sent to.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, afterEach, before, describe, test } from 'node:test';

import { confirm, signIn } from '../harness/journeys.js';
import { plant } from '../harness/run.js';
import { altered, doubled, openScene } from './scene.js';

const ANY = randomBytes(32).toString('base64url');

describe('attacks on the callback', { concurrency: false }, () => {
  let scene;
  before(async () => {
    scene = await openScene({ movableClock: true });
  });
  after(() => scene?.close());
  afterEach((each) => scene?.finish(each));

  test('the honest way works: without this, every other test here would pass for the wrong reason', async () => {
    const { person } = await scene.onTheWay();
    const mark = await scene.dev.acme.mark();
    const callback = await scene.callbackOf(person);
    await person.page.goto(callback.href);
    await confirm(person);
    assert.equal((await scene.dev.acme.tokenRequestsSince(mark)).length, 1);
    assert.equal((await scene.living()).length, 1);
  });

  test('a state nobody issued is refused', async () => {
    const { person } = await scene.onTheWay();
    const callback = await scene.callbackOf(person);
    await scene.sendsNoTokenRequest(() => scene.deliver(person, altered(callback, { state: ANY })));
  });

  test('a callback without a state is refused', async () => {
    const { person } = await scene.onTheWay();
    const callback = await scene.callbackOf(person);
    await scene.sendsNoTokenRequest(() => scene.deliver(person, altered(callback, { state: null })));
  });

  test('a callback with an empty state or code is refused', async () => {
    const { person } = await scene.onTheWay();
    const callback = await scene.callbackOf(person);
    await scene.sendsNoTokenRequest(async () => {
      await scene.deliver(person, altered(callback, { state: '' }));
      await scene.deliver(person, altered(callback, { code: '' }));
    });
  });

  test('the state of another session of the same person is refused', async () => {
    const first = await scene.onTheWay();
    const second = await scene.onTheWay();
    const callback = await scene.callbackOf(first.person);
    await scene.sendsNoTokenRequest(() => scene.deliver(first.person, altered(callback, { state: second.asked.searchParams.get('state') })));
  });

  test('a callback in another browser is refused, even when the same person is signed in there', async () => {
    const { person } = await scene.onTheWay();
    const callback = await scene.callbackOf(person);
    const other = await scene.signedIn(scene.dev.ada);
    await scene.sendsNoTokenRequest(() => scene.deliver(other, callback, /another browser/i));
  });

  test('a callback in a browser where nobody is signed in is refused', async () => {
    const { person } = await scene.onTheWay();
    const callback = await scene.callbackOf(person);
    const nobody = await scene.nobody();
    await scene.sendsNoTokenRequest(() => scene.deliver(nobody, callback));
  });

  test('a callback in the right browser is refused when another person has signed in there meanwhile', async () => {
    const { person } = await scene.onTheWay();
    const callback = await scene.callbackOf(person);
    await person.page.goto(`${scene.dev.url}/connections`);
    await person.page.getByRole('button', { name: /sign out/i }).click();
    await signIn(person, await scene.dev.loginUrl(scene.dev.ben));
    await scene.sendsNoTokenRequest(() => scene.deliver(person, callback));
  });

  test('a callback after signing out is refused', async () => {
    const { person } = await scene.onTheWay();
    const callback = await scene.callbackOf(person);
    await person.page.goto(`${scene.dev.url}/connections`);
    await person.page.getByRole('button', { name: /sign out/i }).click();
    await scene.sendsNoTokenRequest(() => scene.deliver(person, callback));
  });

  test("login CSRF: the attacker's callback in the victim's browser is refused, and the victim gets no grant", async () => {
    const attacker = await scene.onTheWay(scene.dev.ben);
    const callback = await scene.callbackOf(attacker.person, { account: 'other@else.example' });
    const victim = await scene.signedIn(scene.dev.ada);
    await scene.sendsNoTokenRequest(() => scene.deliver(victim, callback));
  });

  test("login CSRF: the attacker's code under the victim's state buys nothing", async () => {
    const attacker = await scene.onTheWay(scene.dev.ben);
    const stolen = await scene.callbackOf(attacker.person, { account: 'other@else.example' });
    const victim = await scene.onTheWay(scene.dev.ada);
    const callback = await scene.callbackOf(victim.person);
    const mark = await scene.dev.acme.mark();
    await scene.deliver(victim.person, altered(callback, { code: stolen.searchParams.get('code') }));
    // The state is the victim's own, so the code is tried; PKCE makes it worthless (RFC 9700 §4.5.3.1).
    const tried = await scene.dev.acme.tokenRequestsSince(mark);
    assert.ok(tried.every(({ status }) => status === 400), JSON.stringify(tried));
    assert.deepEqual(await scene.living(), []);
  });

  test('a callback works once', async () => {
    const { person } = await scene.onTheWay();
    const callback = await scene.callbackOf(person);
    await person.page.goto(callback.href);
    await scene.sendsNoTokenRequest(() => scene.deliver(person, callback));
  });

  test('a callback sent eight times at once is exchanged once', async () => {
    const { person } = await scene.onTheWay();
    const callback = await scene.callbackOf(person);
    const mark = await scene.dev.acme.mark();
    const cookies = (await person.context.cookies(callback.href)).map(({ name, value }) => `${name}=${value}`).join('; ');
    await Promise.all(Array.from({ length: 8 }, () => fetch(callback, { redirect: 'manual', headers: { cookie: cookies } })));
    assert.equal((await scene.dev.acme.tokenRequestsSince(mark)).length, 1);
  });

  test('after a refusal at the provider, a yes for the same session is refused', async () => {
    const { person } = await scene.onTheWay();
    const callback = await scene.callbackOf(person);
    const denied = altered(callback, { code: null, error: 'access_denied' });
    await person.page.goto(denied.href);
    await scene.sendsNoTokenRequest(() => scene.deliver(person, callback));
  });

  test('an error with a state nobody issued ends nobody’s session', async () => {
    const { person } = await scene.onTheWay();
    const callback = await scene.callbackOf(person);
    await scene.sendsNoTokenRequest(() => scene.deliver(person, altered(callback, { code: null, error: 'access_denied', state: ANY })));
    await person.page.goto(callback.href);
    await confirm(person);
  });

  test('an error and a code together are refused', async () => {
    const { person } = await scene.onTheWay();
    const callback = await scene.callbackOf(person);
    await scene.sendsNoTokenRequest(() => scene.deliver(person, altered(callback, { error: 'access_denied' })));
  });

  for (const name of ['state', 'code', 'iss']) {
    test(`a callback with \`${name}\` twice is refused, also when both are the same (RFC 6749 §3.1)`, async () => {
      const { person } = await scene.onTheWay();
      const callback = await scene.callbackOf(person);
      await scene.sendsNoTokenRequest(() => scene.deliver(person, doubled(callback, name)));
    });

    test(`a callback with a second, different \`${name}\` is refused`, async () => {
      const { person } = await scene.onTheWay();
      const callback = await scene.callbackOf(person);
      await scene.sendsNoTokenRequest(() => scene.deliver(person, doubled(callback, name, ANY)));
    });
  }

  test('a callback of ten thousand parameters is refused', async () => {
    const { person } = await scene.onTheWay();
    const callback = await scene.callbackOf(person);
    const cookies = (await person.context.cookies(callback.href)).map(({ name, value }) => `${name}=${value}`).join('; ');
    await scene.sendsNoTokenRequest(async () => {
      const { status } = await fetch(`${callback}${'&x=1'.repeat(10_000)}`, { redirect: 'manual', headers: { cookie: cookies } });
      assert.ok(status >= 400, `answered ${status}`);
    });
  });

  test('a callback sent by POST is refused: Postern never asked for form_post', async () => {
    const { person } = await scene.onTheWay();
    const callback = await scene.callbackOf(person);
    const cookies = (await person.context.cookies(callback.href)).map(({ name, value }) => `${name}=${value}`).join('; ');
    await scene.sendsNoTokenRequest(async () => {
      const { status } = await fetch(new URL(callback.pathname, callback), { method: 'POST', redirect: 'manual', headers: { cookie: cookies }, body: callback.searchParams });
      assert.ok(status >= 400, `answered ${status}`);
    });
  });

  for (const [words, fault] of Object.entries({
    'without `iss`': { omit: ['iss'] },
    'with the `iss` of another server': { set: { iss: 'https://evil.example' } },
    'with an `iss` that differs by a slash': { set: { iss: 'SLASH' } },
    'with an `iss` in capitals': { set: { iss: 'UPPER' } },
    'with an empty `iss`': { set: { iss: '' } },
  })) {
    test(`a callback ${words} is refused (RFC 9207 §2.4)`, async () => {
      const { person } = await scene.onTheWay();
      const issuer = scene.dev.demo_provider.replace(/\/$/, '');
      const iss = { SLASH: `${issuer}/`, UPPER: issuer.replace('http:', 'HTTP:') }[fault.set?.iss];
      await scene.dev.acme.fault({ next: 'authorize', ...fault, ...(iss ? { set: { iss } } : {}) });
      const callback = await scene.callbackOf(person);
      await scene.sendsNoTokenRequest(() => scene.deliver(person, callback));
    });
  }

  test('mix-up: the callback of one connector is refused at the address of another', async () => {
    const { person } = await scene.onTheWay();
    const callback = await scene.callbackOf(person);
    const slack = await slackContext(scene);
    const misdirected = new URL(callback);
    misdirected.pathname = `/callback/${slack.context}`;
    await scene.sendsNoTokenRequest(() => scene.deliver(person, misdirected));
  });

  test('mix-up: a code that the honest server sent for a session with another connector is refused', async () => {
    const { person } = await scene.onTheWay();
    const callback = await scene.callbackOf(person);
    const slack = await slackContext(scene, person);
    const mixed = altered(callback, { state: slack.state });
    await scene.sendsNoTokenRequest(() => scene.deliver(person, mixed));
    // And the other way: at the other connector's address, with that one's state, but with the `iss` of Acme. Sending
    // the code on would hand it to the wrong server, so this must fail before anything is sent, not because of it.
    mixed.pathname = `/callback/${slack.context}`;
    await scene.sendsNoTokenRequest(() => scene.deliver(person, mixed, /security check/i));
  });

  test('a callback at an address that belongs to no connector is refused', async () => {
    const { person } = await scene.onTheWay();
    const callback = await scene.callbackOf(person);
    await scene.sendsNoTokenRequest(async () => {
      for (const context of ['unknown', '..%2fcallback', ANY, 'acme-mail%00']) {
        const astray = new URL(callback);
        astray.pathname = `/callback/${context}`;
        await scene.deliver(person, astray);
      }
    });
  });

  test('PKCE taken out of the authorization request: the provider refuses, nothing is exchanged', async () => {
    const { person, asked } = await scene.onTheWay();
    await scene.sendsNoTokenRequest(async () => {
      await person.page.goto(altered(asked, { code_challenge: null, code_challenge_method: null }).href);
      assert.equal(await person.page.getByRole('button', { name: 'Allow' }).count(), 0);
    });
  });

  test('PKCE downgraded to plain: the provider refuses, nothing is exchanged', async () => {
    const { person, asked } = await scene.onTheWay();
    await scene.sendsNoTokenRequest(async () => {
      await person.page.goto(altered(asked, { code_challenge_method: 'plain' }).href);
      assert.equal(await person.page.getByRole('button', { name: 'Allow' }).count(), 0);
    });
  });

  test("a code bought with the attacker's challenge is worthless to Postern's verifier", async () => {
    const { person, asked } = await scene.onTheWay();
    await person.page.goto(altered(asked, { code_challenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM' }).href);
    const callback = await scene.callbackOf(person);
    const mark = await scene.dev.acme.mark();
    await scene.deliver(person, callback);
    const tried = await scene.dev.acme.tokenRequestsSince(mark);
    assert.deepEqual(tried.map(({ status, error }) => [status, error]), [[400, 'invalid_grant']]);
    assert.deepEqual(await scene.living(), []);
  });

  test('the state, the challenge and the binding cookie are fresh each time', async () => {
    const seen = new Set();
    for (let round = 0; round < 3; round += 1) {
      const { person, asked } = await scene.onTheWay();
      const binding = (await person.context.cookies(`${scene.dev.url}/callback/x`)).filter(({ path }) => path.startsWith('/callback'));
      assert.equal(binding.length, 1, 'one binding cookie, for the callback only');
      assert.deepEqual([binding[0].httpOnly, binding[0].sameSite], [true, 'Lax']);
      for (const value of [asked.searchParams.get('state'), asked.searchParams.get('code_challenge'), binding[0].value]) {
        assert.ok(value.length >= 32 && !seen.has(value), 'fresh and long');
        seen.add(value);
      }
    }
  });

  // Last, because the clock of the server does not come back.
  test('a callback later than ten minutes is refused', async () => {
    const { person } = await scene.onTheWay();
    const callback = await scene.callbackOf(person);
    await scene.dev.moveClock(11 * 60);
    await scene.sendsNoTokenRequest(() => scene.deliver(person, callback));
  });
});

/** A session with Slack, which is configured but not reachable: its callback's context and its state. */
async function slackContext(scene, person) {
  const secret = plant('the client secret of Slack', 'slack-secret-for-the-mix-up-test');
  const toml = `[connector.slack]\nclient_id = "1.2"\nclient_secret = "${secret}"\n`;
  await scene.dev.admin.must(200, 'POST', '/v1/apply', { toml, dry_run: false });
  const somebody = person ?? (await scene.signedIn(scene.dev.ada));
  await somebody.page.goto(`${scene.dev.url}/connections`);
  await somebody.page.getByRole('button', { name: /^connect\s+slack$/i }).click();
  const asked = somebody.page.waitForRequest((request) => new URL(request.url()).host === 'slack.com');
  await somebody.page.getByRole('button', { name: /continue to slack/i }).click();
  const url = new URL((await asked).url());
  somebody.strays.length = 0; // slack.com was asked for on purpose; it was not let through
  const redirect = new URL(url.searchParams.get('redirect_uri'));
  return { state: url.searchParams.get('state'), context: redirect.pathname.split('/').pop() };
}
