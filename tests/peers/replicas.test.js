// Many callers on many replicas and one rotating grant at oidc-provider, where a refresh token used twice is the end of
// the grant: each time the token ends there is one request, whoever notices.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { startPostgres } from '../harness/postgres.js';
import { plant } from '../harness/run.js';
import { CLIENTS, startOidcProvider } from './oidc-provider.js';
import { ada, confirmGrant, consent, learnRedirect, setOff, startPosternFor } from './scenario.js';

const REPLICAS = 5;
// A call is sent again with the new token within five seconds of its entry or not at all, so no more of them than two
// processors get through by then; 64 callers are in tests/it/replicas.rs.
const CALLERS = 12;
const ROUNDS = process.env.POSTERN_LONG ? 500 : 50;

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
    provider = await startOidcProvider({ port: world.derived[peer].port, redirects, onSecret: plant });
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
      await provider.expireAccessTokens();
      const asked = provider.tokenRequests().length;
      const answers = await Promise.all(world.asAgentAtEach.flatMap((agent) => Array.from({ length: CALLERS }, () => list(agent))));
      const others = answers.filter(({ status, body }) => status !== 200 || body.status !== 200);
      assert.deepEqual(others.map(({ status, body }) => `${status} ${JSON.stringify(body)}`).slice(0, 3), [], `round ${round}`);
      const requests = provider.tokenRequests().slice(asked);
      assert.deepEqual(requests.map(({ kind, grant_type }) => [kind, grant_type]), [['token', 'refresh_token']], `round ${round}`);
    }
  });
});
