// The shipped GitHub connector, pointed at the GitHub of npm emulate.
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';

import { until } from '../harness/process.js';
import { plant } from '../harness/run.js';
import { CLIENTS, startEmulator } from './emulators.js';
import { ada, confirmGrant, learnRedirect, revokeAndWait, setOff, startPosternFor, vend } from './scenario.js';

describe('emulate: GitHub, with the connector file that ships', { concurrency: false }, () => {
  let world;
  let github;
  let grant;
  before(async () => {
    world = await startPosternFor({ github: CLIENTS.github });
    const redirect = await learnRedirect(world, 'github');
    github = await startEmulator('github', { port: world.derived.github.port, redirect, onSecret: plant });
  });
  after(async () => {
    await world?.stop();
    await github?.close();
  });
  afterEach((test) => world?.browser.finish(test));

  test('a person connects in the browser', async () => {
    const person = await ada(world, [github.url]);
    const asked = await setOff(world, person, 'github');
    assert.equal(asked.searchParams.get('code_challenge_method'), 'S256');
    await person.page.getByRole('button', { name: /ada@peers\.example/ }).click();
    grant = await confirmGrant(world, person, 'github');
    person.assertKeptToItself();
    assert.match(JSON.stringify(grant.account), /ada/);
  });

  test('an issue is opened as the person', async () => {
    const { status, body } = await vend(world, 'github', 'issues.create', { owner: 'ada', repo: 'hello', title: 'From an agent' });
    assert.deepEqual([status, body.status], [200, 201], JSON.stringify(body));
    assert.equal(body.body.user.login, 'ada');
  });

  test('a token is not vended: GitHub can narrow nothing', async () => {
    const { status, body } = await vend(world, 'github', 'issues.list', { owner: 'ada', repo: 'hello' }, { mode: 'token' });
    assert.deepEqual([status, body.code], [422, 'mode_unavailable'], JSON.stringify(body));
  });

  // The connector reads 404 from `DELETE /applications/{id}/grant` as "already gone", which is true of GitHub. The
  // emulator answers 404 because it lacks the route; so here only the attempt and its form can be asserted.
  test('revoking stops the grant and tries the peer', async () => {
    const { row } = await revokeAndWait(world, grant, { settled: ['pending', 'unsupported', 'unconfirmed', 'revoked'] });
    assert.equal(row.stopped, true);
    const path = `/applications/${CLIENTS.github.id}/grant`;
    await until('an attempt at the revocation', () => github.to(path).some(({ method }) => method === 'DELETE'));
    const { status, body } = await world.asAgent.post('/v1/vend', { grant: grant.id, tool: 'issues.list', args: { owner: 'ada', repo: 'hello' } });
    assert.deepEqual([status, body.code], [410, 'revoked']);
  });
});
