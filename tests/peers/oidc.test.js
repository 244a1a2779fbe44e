// The whole path against npm oidc-provider: connect, vend, refresh, narrow, revoke — asserted at the peer, too.
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';

import { grantsOf, stateOf } from '../harness/journeys.js';
import { plant } from '../harness/run.js';
import { CLIENTS, startOidcProvider } from './oidc-provider.js';
import { ada, confirmGrant, consent, learnRedirect, revokeAndWait, setOff, startPosternFor, vend } from './scenario.js';

for (const [kind, expectation] of Object.entries({
  lenient: 'a client whose refresh tokens do not rotate',
  strict: 'a client with strict rotation, where reuse kills the family',
})) {
  describe(`oidc-provider, ${expectation}`, { concurrency: false }, () => {
    const peer = `oidc-${kind}`;
    let world;
    let provider;
    let grant;
    let narrowed;

    before(async () => {
      world = await startPosternFor({ [peer]: CLIENTS[kind] });
      const redirect = await learnRedirect(world, peer);
      const redirects = { strict: ['http://127.0.0.1:9/unused'], lenient: ['http://127.0.0.1:9/unused'], [kind]: [redirect] };
      provider = await startOidcProvider({ port: world.derived[peer].port, redirects, onSecret: plant });
    });
    after(async () => {
      await world?.stop();
      await provider?.close();
    });
    afterEach((test) => world?.browser.finish(test));
    const list = (more) => vend(world, peer, 'messages.list', {}, more);
    const granted = (grant_type) => provider.log.filter((entry) => entry.kind === 'token' && entry.grant_type === grant_type);

    test('a person connects in the browser', async () => {
      const person = await ada(world, [provider.issuer]);
      const asked = await setOff(world, person, peer);
      assert.equal(asked.searchParams.get('code_challenge_method'), 'S256');
      assert.ok(asked.searchParams.get('state').length >= 32);
      await consent(person);
      grant = await confirmGrant(world, person, peer);
      person.assertKeptToItself();
      assert.equal(granted('authorization_code').length, 1);
      assert.match(JSON.stringify(grant.account), /ada/);
    });

    test('the agent executes an action, and the peer answers for the right account', async () => {
      const { status, body } = await list({ mode: 'execute' });
      assert.equal(status, 200, JSON.stringify(body));
      assert.equal(body.status, 200);
      assert.equal(body.body.account, 'ada');
    });

    test('an ended access token is refreshed once, for eight callers', async () => {
      await provider.expireAccessTokens();
      const before = granted('refresh_token').length;
      const answers = await Promise.all(Array.from({ length: 8 }, () => list({ mode: 'execute' })));
      assert.deepEqual(answers.map(({ status, body }) => [status, body.status]), Array.from({ length: 8 }, () => [200, 200]));
      assert.equal(granted('refresh_token').length - before, 1);
      assert.deepEqual(provider.log.filter(({ kind: seen }) => seen === 'grant.error'), []);
    });

    test('a refresh asks for no scope', () => {
      assert.equal(granted('refresh_token').at(-1).asked_scope, undefined);
    });

    if (kind === 'lenient') {
      test('a vended token is narrowed, and introspection proves it', async () => {
        const { status, body } = await list({ mode: 'token' });
        assert.equal(status, 200, JSON.stringify(body));
        narrowed = plant('a narrowed token', body.access_token);
        assert.deepEqual([body.mode, body.narrowed], ['token', 'provider']);
        const facts = await provider.introspect(narrowed);
        assert.equal(facts.active, true);
        assert.ok(facts.scope.split(' ').includes('mail.read'));
        assert.ok(!facts.scope.split(' ').includes('mail.send'), `the token has ${facts.scope}`);
        assert.deepEqual([...body.scopes].sort(), facts.scope.split(' ').sort());
      });

      test('the narrowed token cannot send, at the peer itself', async () => {
        const url = `${provider.issuer}/api/messages`;
        const headers = { authorization: `Bearer ${narrowed}`, 'content-type': 'application/json' };
        assert.equal((await fetch(url, { headers })).status, 200);
        assert.equal((await fetch(url, { method: 'POST', headers, body: '{}' })).status, 403);
      });

      test('the broad grant still sends after narrowing', async () => {
        await provider.expireAccessTokens();
        const { status, body } = await vend(world, peer, 'messages.send', { to: 'ben@peers.example', text: 'hello' });
        assert.deepEqual([status, body.status], [200, 201], JSON.stringify(body));
      });
    } else {
      test('a token would cost the refresh token, so the mode is unavailable and nothing is asked of the peer', async () => {
        const before = provider.tokenRequests().length;
        const { status, body } = await list({ mode: 'token' });
        assert.deepEqual([status, body.code], [422, 'mode_unavailable'], JSON.stringify(body));
        assert.ok(body.modes.includes('execute') && !body.modes.includes('token'));
        assert.equal(provider.tokenRequests().length, before);
      });

      test('a refresh rotates, and the rotated token is the one used next', async () => {
        for (let round = 0; round < 3; round += 1) {
          await provider.expireAccessTokens();
          assert.equal((await list()).status, 200);
        }
        assert.deepEqual(provider.log.filter(({ kind: seen }) => seen === 'grant.error'), []);
      });

      test('a thief who uses an old refresh token kills the family: the agent is told to have it reconnected', async () => {
        const old = provider.issued.find(({ refresh_token }) => refresh_token).refresh_token;
        assert.equal((await provider.refresh('strict', old)).body.error, 'invalid_grant');
        const { status, body } = await list();
        assert.deepEqual([status, body.code], [409, 'reconnect_required'], JSON.stringify(body));
        assert.match(body.connect.url, /\/connect\//);
        plant('a connect link', new URL(body.connect.url).pathname.split('/').pop());
      });

      test('after that, no more refreshes are tried on the dead grant', async () => {
        const before = provider.tokenRequests().length;
        assert.equal((await list()).status, 409);
        assert.equal(provider.tokenRequests().length, before);
      });

      test('the same person reconnects, and the grant keeps its id', async () => {
        const { body } = await list();
        const person = await ada(world, [provider.issuer]);
        await person.page.goto(body.connect.url);
        await person.page.getByRole('button', { name: /continue to/i }).click();
        await consent(person);
        const again = await confirmGrant(world, person, peer);
        assert.equal(again.id, grant.id);
        assert.equal((await list()).status, 200);
      });
    }

    test('revoking ends the grant at the peer: its tokens are inactive', async () => {
      const living = [];
      for (const { access_token } of provider.issued) if ((await provider.introspect(access_token)).active) living.push(access_token);
      assert.ok(living.length > 0, 'something to revoke');
      const { row } = await revokeAndWait(world, grant);
      assert.equal(row.stopped, true);
      assert.equal(row.upstream, 'revoked');
      for (const token of provider.issued.flatMap(({ access_token }) => access_token)) {
        assert.equal((await provider.introspect(token)).active, false);
      }
    });

    test('after the revocation a vend is refused and nothing reaches the peer', async () => {
      const before = provider.log.length;
      const { status, body } = await list({ connector: undefined, user: undefined, grant: grant.id });
      assert.deepEqual([status, body.code], [410, 'revoked'], JSON.stringify(body));
      assert.equal(provider.log.length, before);
      assert.ok((await grantsOf(world, world.ada, world.derived[peer].connector)).every((each) => stateOf(each) !== 'active'));
    });
  });
}
