// The shipped Gmail connector, pointed at the Google of npm emulate.
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';

import { plant } from '../harness/run.js';
import { CLIENTS, startEmulator } from './emulators.js';
import { ada, confirmGrant, learnRedirect, revokeAndWait, setOff, startPosternFor, vend } from './scenario.js';

describe('emulate: Google, with the connector file that ships', { concurrency: false }, () => {
  let world;
  let google;
  let grant;
  before(async () => {
    world = await startPosternFor({ google: CLIENTS.google });
    const redirect = await learnRedirect(world, 'google');
    google = await startEmulator('google', { port: world.derived.google.port, redirect, onSecret: plant });
  });
  after(async () => {
    await world?.stop();
    await google?.close();
  });
  afterEach((test) => world?.browser.finish(test));
  const refreshes = () => google.to('/oauth2/token').filter(({ grant_type }) => grant_type === 'refresh_token');

  test('a person connects in the browser', async () => {
    google.expiresIn(1); // so that the next vend has to refresh: the emulator's own tokens never end
    const person = await ada(world, [google.url]);
    const asked = await setOff(world, person, 'google');
    assert.equal(asked.searchParams.get('access_type'), 'offline');
    assert.equal(asked.searchParams.get('code_challenge_method'), 'S256');
    await person.page.getByRole('button', { name: /ada@peers\.example/ }).click();
    grant = await confirmGrant(world, person, 'google');
    person.assertKeptToItself();
    assert.match(JSON.stringify(grant.account), /ada@peers\.example/);
  });

  test('an access token at its end is refreshed, without a scope', async () => {
    const before = refreshes().length;
    google.expiresIn(null);
    const { status, body } = await vend(world, 'google', 'messages.list', {});
    assert.deepEqual([status, body.status], [200, 200], JSON.stringify(body));
    assert.equal(refreshes().length, before + 1);
    assert.ok(!refreshes().at(-1).names.includes('scope'));
  });

  test('a fresh access token is not refreshed again', async () => {
    const before = refreshes().length;
    assert.equal((await vend(world, 'google', 'messages.list', {})).status, 200);
    assert.equal(refreshes().length, before);
  });

  test('a mail that was sent lies in the mailbox at the peer', async () => {
    const sent = await vend(world, 'google', 'messages.send', { to: ['ben@peers.example'], subject: 'Zwölf Boxkämpfer', body: 'Grüße' });
    assert.deepEqual([sent.status, sent.body.status], [200, 200], JSON.stringify(sent.body));
    const got = await vend(world, 'google', 'messages.get', { id: sent.body.body.id });
    assert.match(JSON.stringify(got.body.body), /ben@peers\.example/);
    assert.equal(google.to('/gmail/v1/users/me/messages/send').length, 1);
  });

  test('a token is not vended, because the answered scope proves that nothing was narrowed', async () => {
    const { status, body } = await vend(world, 'google', 'messages.list', {}, { mode: 'token' });
    assert.deepEqual([status, body.code], [422, 'mode_unavailable'], JSON.stringify(body));
    assert.equal(JSON.stringify(body).includes('google_'), false, 'no token in the refusal');
  });

  test('revoking reaches the peer, whose refresh token is dead afterwards', async () => {
    const { row } = await revokeAndWait(world, grant);
    assert.equal(row.stopped, true);
    assert.equal(row.upstream, 'revoked');
    assert.ok(google.to('/oauth2/revoke').some(({ status }) => status === 200));
  });

  test('after the revocation a vend is refused and nothing reaches the peer', async () => {
    const before = google.log.length;
    const { status, body } = await world.asAgent.post('/v1/vend', { grant: grant.id, tool: 'messages.list', args: {} });
    assert.deepEqual([status, body.code], [410, 'revoked']);
    assert.equal(google.log.length, before);
  });
});
