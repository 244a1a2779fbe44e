// Invariant I9, at the pages: links that scanners open, pages in frames, forms from other sites, other Hosts, and
// credentials of the wrong kind.
import assert from 'node:assert/strict';
import { request } from 'node:http';
import { after, afterEach, before, describe, test } from 'node:test';

import { chooseAcme, confirm, answerAcme, continueToAcme } from '../harness/journeys.js';
import { evilSite, openScene } from './scene.js';

describe('attacks on the pages', { concurrency: false }, () => {
  let scene;
  before(async () => {
    scene = await openScene();
  });
  after(() => scene?.close());
  afterEach((each) => scene?.finish(each));

  test('a connect link opened by scanners and prefetchers is not used up', async () => {
    const person = await scene.signedIn(scene.dev.ada);
    const link = await chooseAcme(person, scene.dev.url);
    await scene.sendsNoTokenRequest(async () => {
      for (const headers of [{}, { 'sec-purpose': 'prefetch' }, { purpose: 'prefetch' }, { 'user-agent': 'LinkScanner/1.0' }]) {
        for (const method of ['GET', 'HEAD']) {
          const answer = await fetch(link, { method, headers, redirect: 'manual' });
          assert.ok(answer.status !== 303, `${method} was sent on`);
          assert.ok(!answer.headers.getSetCookie().some((cookie) => /path=\/callback/i.test(cookie)), 'no binding cookie is handed out');
        }
      }
    });
    await person.page.goto(link);
    await continueToAcme(person, scene.dev.demo_provider);
    await answerAcme(person, scene.dev.demo_provider);
    await confirm(person);
  });

  test('a login link opened by scanners and prefetchers is not used up, and signs nobody in', async () => {
    const url = await scene.dev.loginUrl(scene.dev.ada);
    for (const method of ['GET', 'HEAD', 'GET']) {
      const answer = await fetch(url, { method, redirect: 'manual', headers: { 'sec-purpose': 'prefetch' } });
      assert.ok(answer.status < 300 || answer.status >= 400, `${method} answered ${answer.status}`);
    }
    const nobody = await scene.nobody();
    await nobody.page.goto(url);
    await nobody.page.getByRole('button', { name: 'Sign in' }).click();
    await nobody.page.getByRole('link', { name: 'Connections' }).waitFor();
  });

  test('no page shows itself in a frame of another site', async () => {
    const person = await scene.signedIn(scene.dev.ada);
    const link = await chooseAcme(person, scene.dev.url);
    const evil = await evilSite(`<iframe src="${link}" width="800" height="600"></iframe>`);
    try {
      const victim = await scene.signedIn(scene.dev.ada, [evil.url]);
      await victim.page.goto(evil.url);
      const frame = victim.page.frames().find((each) => each !== victim.page.mainFrame());
      await frame.waitForLoadState().catch(() => {});
      assert.equal(await frame.getByRole('button', { name: /continue to/i }).count().catch(() => 0), 0);
    } finally {
      evil.close();
    }
  });

  test('a form on another site cannot press "Continue" for the victim', async () => {
    const person = await scene.signedIn(scene.dev.ada);
    const link = await chooseAcme(person, scene.dev.url);
    const evil = await evilSite(`<form method="post" action="${link}"><button>win</button></form>`);
    try {
      const page = await person.context.newPage();
      await person.context.unroute('**/*');
      await page.goto(evil.url);
      await scene.sendsNoTokenRequest(async () => {
        const answered = page.waitForResponse((response) => response.request().method() === 'POST');
        await page.getByRole('button', { name: 'win' }).click();
        const { status } = { status: (await answered).status() };
        assert.ok(status >= 400, `answered ${status}`);
      });
      assert.ok(!page.url().startsWith(scene.dev.demo_provider), 'not at the provider');
      await person.page.goto(link);
      assert.equal(await person.page.getByRole('button', { name: /continue to acme mail/i }).count(), 1, 'the link is not used up');
    } finally {
      evil.close();
    }
  });

  test("login CSRF: a form on another site cannot sign the victim in as the attacker", async () => {
    const attackers = await scene.dev.loginUrl(scene.dev.ben);
    const evil = await evilSite(`<form method="post" action="${attackers}"><button>win</button></form>`);
    try {
      const victim = await scene.nobody([evil.url]);
      await victim.page.goto(evil.url);
      const answered = victim.page.waitForResponse((response) => response.request().method() === 'POST');
      await victim.page.getByRole('button', { name: 'win' }).click();
      assert.ok((await answered).status() >= 400);
      await victim.page.goto(`${scene.dev.url}/connections`);
      assert.match(await victim.text(), /not signed in/i);
    } finally {
      evil.close();
    }
  });

  test('no form works without its CSRF token, or with the token of another session', async () => {
    const ada = await scene.signedIn(scene.dev.ada);
    const ben = await scene.signedIn(scene.dev.ben);
    await ben.page.goto(`${scene.dev.url}/connections`);
    const stolen = await ben.page.locator('input[name="csrf"]').first().inputValue();
    const cookie = (await ada.context.cookies(scene.dev.url)).map(({ name, value }) => `${name}=${value}`).join('; ');
    await scene.sendsNoTokenRequest(async () => {
      for (const [path, fields] of [
        ['/connections/connect', { connector: 'acme-mail' }],
        ['/admin/revoke/preview', { what: 'all', reason: 'x' }],
        ['/admin/revoke', { what: 'all', reason: 'x', word: 'everything' }],
        ['/logout', {}],
      ]) {
        for (const csrf of [undefined, '', stolen]) {
          const body = new URLSearchParams({ ...fields, ...(csrf === undefined ? {} : { csrf }) });
          const answer = await fetch(scene.dev.url + path, { method: 'POST', redirect: 'manual', headers: { cookie, origin: scene.dev.url }, body });
          assert.ok(answer.status >= 400, `${path} with csrf ${csrf === stolen ? 'of another session' : csrf} answered ${answer.status}`);
        }
      }
    });
    await ada.page.goto(`${scene.dev.url}/connections`);
    assert.equal(await ada.page.getByRole('button', { name: /sign out/i }).count(), 1, 'still signed in');
  });

  test('a form with the right token from another origin is refused', async () => {
    const ada = await scene.signedIn(scene.dev.ada);
    await ada.page.goto(`${scene.dev.url}/connections`);
    const csrf = await ada.page.locator('input[name="csrf"]').first().inputValue();
    const cookie = (await ada.context.cookies(scene.dev.url)).map(({ name, value }) => `${name}=${value}`).join('; ');
    for (const origin of ['https://evil.example', 'null', scene.dev.url.replace('http:', 'https:'), `${scene.dev.url}.evil.example`]) {
      const answer = await fetch(`${scene.dev.url}/connections/connect`, {
        method: 'POST',
        redirect: 'manual',
        headers: { cookie, origin },
        body: new URLSearchParams({ connector: 'acme-mail', csrf }),
      });
      assert.ok(answer.status >= 400, `from ${origin}: ${answer.status}`);
    }
  });

  test('the session cookie is HttpOnly, SameSite, and changes at login', async () => {
    const person = await scene.nobody();
    await person.page.goto(await scene.dev.loginUrl(scene.dev.ada));
    const before = new Map((await person.context.cookies()).map(({ name, value }) => [name, value]));
    await person.page.getByRole('button', { name: 'Sign in' }).click();
    await person.page.getByRole('link', { name: 'Connections' }).waitFor();
    const cookies = (await person.context.cookies()).filter(({ name }) => !/callback/i.test(name));
    assert.ok(cookies.length > 0);
    for (const { name, value, httpOnly, sameSite } of cookies) {
      assert.equal(httpOnly, true, name);
      assert.ok(['Lax', 'Strict'].includes(sameSite), name);
      assert.notEqual(before.get(name), value, `${name} did not change at login`);
    }
  });

  test('an API key, of whatever kind, opens no page', async () => {
    const keys = { admin: scene.dev.admin_key, service: scene.dev.service_key, agent: scene.dev.agents[0].key };
    for (const [kind, key] of Object.entries(keys)) {
      for (const path of ['/connections', '/activity', '/admin/revoke', '/admin/people']) {
        const answer = await fetch(scene.dev.url + path, { redirect: 'manual', headers: { authorization: `Bearer ${key}` } });
        assert.ok(answer.status !== 200 || /not signed in/i.test(await answer.text()), `${kind} key at ${path}`);
      }
    }
  });

  test('a session cookie is no key to the API of agents', async () => {
    const ada = await scene.signedIn(scene.dev.ada);
    const cookie = (await ada.context.cookies(scene.dev.url)).map(({ name, value }) => `${name}=${value}`).join('; ');
    await scene.sendsNoTokenRequest(async () => {
      const answer = await fetch(`${scene.dev.url}/v1/vend`, {
        method: 'POST',
        headers: { cookie, 'content-type': 'application/json' },
        body: JSON.stringify({ connector: 'acme-mail', user: scene.dev.ada.id, tool: 'messages.list', args: {} }),
      });
      assert.ok([401, 403].includes(answer.status), `answered ${answer.status}`);
    });
  });

  test('the demo answers to its own Host only (DNS rebinding)', async () => {
    const { port } = new URL(scene.dev.url);
    for (const path of ['/connections', '/v1/agents', '/openapi.json']) {
      for (const host of ['evil.example', `evil.example:${port}`, '']) {
        const status = await new Promise((resolve, reject) => {
          const asked = request({ host: '127.0.0.1', port, path, setHost: false, headers: { ...(host && { host }), authorization: `Bearer ${scene.dev.admin_key}` } }, (answer) => {
            answer.resume();
            resolve(answer.statusCode);
          });
          asked.on('error', reject).end();
        });
        assert.ok(status >= 400, `${path} for Host "${host}" answered ${status}`);
      }
    }
  });

  test('a wrong key and no key get the same answer', async () => {
    const answers = [];
    for (const key of [undefined, 'x', `psa_${'A'.repeat(43)}`, scene.dev.agents[0].key.replace(/.$/, (last) => (last === 'A' ? 'B' : 'A')), `${scene.dev.agents[0].key}x`]) {
      const { status, body } = await scene.dev.api(key).post('/v1/vend', { connector: 'acme-mail', user: scene.dev.ada.id, tool: 'messages.list', args: {} });
      const { instance, request_id, ...rest } = body;
      answers.push({ status, ...rest });
    }
    for (const answer of answers) assert.deepEqual(answer, answers[0]);
    assert.equal(answers[0].status, 401);
  });
});
