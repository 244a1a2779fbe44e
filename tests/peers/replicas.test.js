// Many callers on many replicas and one rotating grant at oidc-provider, where a refresh token used twice is the end of
// the grant: each time the token ends there is one request, whoever notices.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { startPostgres } from '../harness/postgres.js';
import { plant } from '../harness/run.js';
import { CLIENTS, startOidcProvider } from './oidc-provider.js';
import { ada, confirmGrant, consent, learnRedirect, setOff, startPosternFor } from './scenario.js';

const REPLICAS = 5;
const CALLERS = 64;
const ROUNDS = process.env.POSTERN_LONG ? 500 : 50;
// Too short for a token that is still to be used: Postern renews it first, before anything is written or sent.
const NEARLY_OVER = 20;
const AN_HOUR = 3_600;

describe('oidc-provider, a strict grant shared by five replicas on PostgreSQL', { concurrency: false }, () => {
  const peer = 'oidc-strict';
  let postgres;
  let world;
  let provider;

  before(async () => {
    postgres = startPostgres();
    world = await startPosternFor({ [peer]: CLIENTS.strict }, { postgres, replicas: REPLICAS });
    const strict = [await learnRedirect(world, peer)];
    const redirects = { strict, lenient: ['http://127.0.0.1:9/unused'] };
    provider = await startOidcProvider({ port: world.derived[peer].port, redirects, accessTokenSeconds: AN_HOUR, believesForLong: true, onSecret: plant });
    const person = await ada(world, [provider.issuer]);
    await setOff(world, person, peer);
    await consent(person);
    await confirmGrant(world, person, peer);
  });
  after(async () => {
    await world?.stop();
    await provider?.close();
    postgres?.stop();
  });

  test(`${CALLERS} callers on each replica, ${ROUNDS} times: one token request each time, and the grant lives`, async () => {
    const { connector } = world.derived[peer];
    const list = (agent) => agent.post('/v1/vend', { connector, user: world.ada.id, tool: 'messages.list', args: {} });
    // Every replica knows the facts before many ask at once.
    for (const agent of world.asAgentAtEach) assert.equal((await list(agent)).status, 200);
    for (let round = 0; round < ROUNDS; round += 1) {
      // One replica gets a token that is nearly over, and then is; the others still know the one before it.
      provider.accessTokensLive(NEARLY_OVER);
      await provider.expireAccessTokens();
      await oneRefresh(`before round ${round}`, () => list(world.asAgentAtEach[round % REPLICAS]));
      provider.accessTokensLive(AN_HOUR);
      await provider.expireAccessTokens();
      const answers = await oneRefresh(`round ${round}`, () =>
        Promise.all(world.asAgentAtEach.flatMap((agent) => Array.from({ length: CALLERS }, () => list(agent)))),
      );
      const others = answers.filter(({ status, body }) => status !== 200 || body.status !== 200);
      assert.deepEqual(others.map(({ status, body }) => `${status} ${JSON.stringify(body)}`).slice(0, 3), [], `round ${round}`);
    }
  });

  /** Does `work`, which makes one token request, granted; what came of it. */
  async function oneRefresh(when, work) {
    const mark = provider.tokenRequests().length;
    const done = await work();
    const asked = provider.tokenRequests().slice(mark).map(({ kind, grant_type }) => [kind, grant_type]);
    assert.deepEqual(asked, [['token', 'refresh_token']], when);
    return done;
  }
});
