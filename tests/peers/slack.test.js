// The shipped Slack connector, pointed at the Slack of npm emulate.
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';

import { until } from '../harness/process.js';
import { plant } from '../harness/run.js';
import { CLIENTS, startEmulator } from './emulators.js';
import { ada, confirmGrant, learnRedirect, revokeAndWait, setOff, startPosternFor, vend } from './scenario.js';

describe('emulate: Slack, with the connector file that ships', { concurrency: false }, () => {
  let world;
  let slack;
  let grant;
  before(async () => {
    world = await startPosternFor({ slack: CLIENTS.slack });
    const redirect = await learnRedirect(world, 'slack');
    slack = await startEmulator('slack', { port: world.derived.slack.port, redirect, onSecret: plant });
  });
  after(async () => {
    await world?.stop();
    await slack?.close();
  });
  afterEach((test) => world?.browser.finish(test));

  test('a person connects in the browser, asking for a user token', async () => {
    const person = await ada(world, [slack.url]);
    const asked = await setOff(world, person, 'slack');
    assert.match(asked.searchParams.get('user_scope'), /chat:write/);
    assert.equal(asked.searchParams.get('scope') || null, null);
    await person.page.getByRole('button', { name: /ada@peers\.example/ }).click();
    grant = await confirmGrant(world, person, 'slack');
    person.assertKeptToItself();
    assert.match(JSON.stringify(grant.account), /T000000001/);
  });

  test('a message is posted as the person', async () => {
    const { status, body } = await vend(world, 'slack', 'chat.postMessage', { channel: 'C000000001', text: 'from an agent' });
    assert.deepEqual([status, body.status, body.body.ok], [200, 200, true], JSON.stringify(body));
    assert.equal(slack.to('/api/chat.postMessage').length, 1);
  });

  test('a refusal that comes with status 200 is not a success', async () => {
    const { status, body } = await vend(world, 'slack', 'chat.postMessage', { channel: 'C0DOESNOTEXIST', text: 'x' });
    assert.equal(status, 200);
    assert.equal(body.body.ok, false);
    assert.ok(body.body.error, 'the provider’s own words reach the agent');
  });

  test('a token is not vended: Slack can narrow nothing', async () => {
    const { status, body } = await vend(world, 'slack', 'chat.postMessage', { channel: 'C000000001', text: 'x' }, { mode: 'token' });
    assert.deepEqual([status, body.code], [422, 'mode_unavailable'], JSON.stringify(body));
  });

  test('revoking stops the grant, tries the peer, and does not claim what the peer did not do', async () => {
    const { id, row } = await revokeAndWait(world, grant, { settled: ['pending', 'unsupported', 'unconfirmed', 'revoked'] });
    assert.equal(row.stopped, true);
    await until('an attempt at auth.revoke', () => slack.to('/api/auth.revoke').some(({ status }) => status === 404));
    const report = await world.admin.must(200, 'GET', `/v1/revocations/${id}`);
    assert.ok(!/"upstream":"revoked"/.test(JSON.stringify(report)), 'the emulator answers 404: nothing was revoked there');
    const { status, body } = await world.asAgent.post('/v1/vend', { grant: grant.id, tool: 'chat.postMessage', args: { channel: 'C1', text: 'x' } });
    assert.deepEqual([status, body.code], [410, 'revoked']);
  });
});
