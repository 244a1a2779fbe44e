// A host application connects its own users: no login at Postern, a code on the way back, `complete` at the end.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, afterEach, before, describe, test } from 'node:test';

import { openBrowser } from '../harness/browser.js';
import { answerAcme, continueToAcme } from '../harness/journeys.js';
import { startDev } from '../harness/postern.js';
import { until } from '../harness/process.js';
import { plant } from '../harness/run.js';

describe('a host application', { concurrency: false }, () => {
  let dev;
  let browser;
  let host;
  let service;
  let stranger;
  before(async () => {
    const server = createServer((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/html' });
      response.end('<!doctype html><html lang="en"><title>Host</title><main><h1>Back at the host</h1></main></html>');
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    host = { url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
    dev = await startDev();
    const toml = ['host-app', 'other-host'].map((name) => `[[service]]\nname = "${name}"\nreturn_urls = ["${host.url}/back"]\n`).join('');
    const applied = await dev.admin.must(200, 'POST', '/v1/apply', { toml, dry_run: false });
    const keys = applied.created?.services ?? (applied.keys ?? []).filter(({ kind }) => kind === 'service');
    assert.equal(keys.length, 2, `two service keys: ${Object.keys(applied)}`);
    for (const { name, key } of keys) plant(`the key of ${name}`, key);
    service = dev.api(keys.find(({ name }) => name === 'host-app').key);
    stranger = dev.api(keys.find(({ name }) => name === 'other-host').key);
    browser = await openBrowser();
  });
  after(async () => {
    await browser?.close();
    await dev?.stop();
    host?.close();
  });
  afterEach((each) => browser?.finish(each));

  const begin = async (external_id, more = {}) => {
    const session = await service.must(201, 'POST', '/v1/connect-sessions', { user: { external_id }, connector: 'acme-mail', return_url: `${host.url}/back`, ...more });
    plant('a connect link', new URL(session.url).pathname.split('/').pop());
    return session;
  };
  /** To the host's page; the code that came with the browser. */
  const goThrough = async (session, answer) => {
    const person = await browser.person(dev.url, [dev.demo_provider, host.url]);
    await person.page.goto(session.url);
    await continueToAcme(person, dev.demo_provider);
    await answerAcme(person, dev.demo_provider, answer);
    await person.page.getByRole('button', { name: /^confirm/i }).click();
    await until('the browser is back at the host', async () => {
      const link = person.page.getByRole('link', { name: /go|back|continue|return/i });
      if (!person.page.url().startsWith(host.url) && (await link.count()) > 0) await link.first().click({ timeout: 1_000 }).catch(() => {});
      return person.page.url().startsWith(`${host.url}/back`);
    });
    const back = new URL(person.page.url());
    assert.equal(back.searchParams.get('session'), session.id);
    return plant('a completion code', back.searchParams.get('code'));
  };
  const state = async (session) => {
    const body = await service.must(200, 'GET', `/v1/connect-sessions/${session.id}`);
    return body.status ?? body.state;
  };

  test('its user connects without a login at Postern, and `complete` makes the grant', async () => {
    const session = await begin('u-1');
    const code = await goThrough(session);
    assert.equal(await state(session), 'awaiting_complete');
    const done = await service.must(200, 'POST', `/v1/connect-sessions/${session.id}/complete`, { code, user: { external_id: 'u-1' } });
    assert.match(JSON.stringify(done), /grt_/);
    assert.equal(await state(session), 'completed');
  });

  test('a code completes once', async () => {
    const session = await begin('u-2');
    const code = await goThrough(session);
    const body = { code, user: { external_id: 'u-2' } };
    assert.equal((await service.post(`/v1/connect-sessions/${session.id}/complete`, body)).status, 200);
    assert.notEqual((await service.post(`/v1/connect-sessions/${session.id}/complete`, body)).status, 200);
  });

  test('completing for another user discards the grant and gives the access back', async () => {
    const session = await begin('u-3');
    // Of an account that nobody else has connected: its access can be ended alone.
    const code = await goThrough(session, { account: 'other@else.example' });
    const mark = await dev.acme.mark();
    const { status } = await service.post(`/v1/connect-sessions/${session.id}/complete`, { code, user: { external_id: 'u-4' } });
    assert.ok(status >= 400, `answered ${status}`);
    await until('the revocation at Acme', async () => (await dev.acme.since(mark, 'revoke')).some((entry) => entry.status === 200));
    assert.notEqual(await state(session), 'completed');
  });

  test('a wrong code discards the grant', async () => {
    const session = await begin('u-5');
    const code = await goThrough(session);
    const { status } = await service.post(`/v1/connect-sessions/${session.id}/complete`, { code: code.replace(/.$/, (last) => (last === 'A' ? 'B' : 'A')), user: { external_id: 'u-5' } });
    assert.ok(status >= 400);
    assert.notEqual((await service.post(`/v1/connect-sessions/${session.id}/complete`, { code, user: { external_id: 'u-5' } })).status, 200);
  });

  test("another host's key sees nothing of the session", async () => {
    const session = await begin('u-6');
    assert.equal((await stranger.get(`/v1/connect-sessions/${session.id}`)).status, 404);
    const code = await goThrough(session);
    assert.equal((await stranger.post(`/v1/connect-sessions/${session.id}/complete`, { code, user: { external_id: 'u-6' } })).status, 404);
  });

  test('a return address that is not registered is refused', async () => {
    for (const return_url of [`${host.url}/elsewhere`, `${host.url}/back/`, `${host.url}/back?x=1`, 'https://evil.example/back']) {
      const { status, body } = await service.post('/v1/connect-sessions', { user: { external_id: 'u-7' }, connector: 'acme-mail', return_url });
      assert.deepEqual([status, body.code], [400, 'invalid_request'], return_url);
    }
  });

  test('a service cannot mint a link for a person that Postern manages', async () => {
    const { status } = await service.post('/v1/connect-sessions', { user: dev.ada.id, connector: 'acme-mail', return_url: `${host.url}/back` });
    assert.ok([403, 404].includes(status), `answered ${status}`);
  });

  test('before `complete`, the agent gets nothing', async () => {
    const session = await begin('u-8');
    await goThrough(session);
    const users = await service.items('/v1/users?limit=100').catch(() => dev.admin.items('/v1/users?limit=100'));
    const user = users.find((each) => each.external_id === 'u-8');
    const mark = await dev.acme.mark();
    const { status } = await dev.asAgent.post('/v1/vend', { connector: 'acme-mail', user: user.id, tool: 'messages.list', args: {} });
    assert.notEqual(status, 200);
    assert.deepEqual(await dev.acme.since(mark, 'api'), []);
  });
});
