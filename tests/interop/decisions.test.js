// Decisions across implementations: npm jose reads what Postern signs, and signs what Postern accepts.
import assert from 'node:assert/strict';
import { createHash, randomUUID } from 'node:crypto';
import { after, afterEach, before, describe, test } from 'node:test';

import { CompactSign, compactVerify, createLocalJWKSet, decodeProtectedHeader, exportJWK, generateKeyPair } from 'jose';

import { openBrowser } from '../harness/browser.js';
import { activeGrant, connectAcme, signIn } from '../harness/journeys.js';
import { startDev } from '../harness/postern.js';
import { plant } from '../harness/run.js';

const LIST = { tool: 'messages.list', args: { limit: 3 } };

describe('decisions and a second implementation of JWS', { concurrency: false }, () => {
  let dev;
  let browser;
  let grant;
  before(async () => {
    dev = await startDev();
    browser = await openBrowser();
    const ada = await browser.person(dev.url, [dev.demo_provider]);
    await signIn(ada, dev.ada.login_url);
    await connectAcme(ada, dev);
    grant = await activeGrant(dev, dev.ada);
  });
  after(async () => {
    await browser?.close();
    await dev?.stop();
  });
  afterEach((each) => browser?.finish(each));

  const decide = async (body) => dev.asAgent.must(200, 'POST', '/v1/decisions', { grant: grant.id, ...LIST, ...body });
  const jwks = async () => createLocalJWKSet(await dev.api().must(200, 'GET', '/.well-known/postern/decision-keys'));

  test('jose verifies a decision of Postern against the published keys', async () => {
    const { decision, action_hash, outcome } = await decide();
    assert.equal(outcome, 'allow');
    const { payload, protectedHeader } = await compactVerify(decision, await jwks(), { algorithms: ['EdDSA', 'Ed25519'] });
    assert.equal(protectedHeader.typ, 'action-decision+jwt');
    const claims = JSON.parse(Buffer.from(payload).toString('utf8'));
    assert.equal(claims.iss, dev.url);
    assert.equal(claims.aud, `${dev.url}/orgs/${claims.org}`);
    assert.deepEqual([claims.sub, claims.act.sub, claims.grant, claims.tool, claims.outcome, claims.ver], [dev.ada.id, dev.agent.id, grant.id, LIST.tool, 'allow', 1]);
    assert.equal(claims.action_hash, action_hash);
    assert.ok(claims.exp - claims.iat <= 120, `lives ${claims.exp - claims.iat} s`);
    assert.match(claims.jti, /^dec_/);
  });

  test('jose finds a flipped bit in a decision', async () => {
    const { decision } = await decide();
    const [header, payload, signature] = decision.split('.');
    const claims = JSON.parse(Buffer.from(payload, 'base64url'));
    const forged = Buffer.from(JSON.stringify({ ...claims, tool: 'messages.delete' })).toString('base64url');
    await assert.rejects(compactVerify([header, forged, signature].join('.'), await jwks()), { code: 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED' });
  });

  test('the published keys hold no private member', async () => {
    const { keys } = await dev.api().must(200, 'GET', '/.well-known/postern/decision-keys');
    assert.ok(keys.length >= 1);
    for (const key of keys) for (const member of ['d', 'p', 'q', 'k']) assert.ok(!(member in key), `${member} in ${key.kid}`);
  });

  test('a decision vends once', async () => {
    const { decision } = await decide();
    const first = await dev.asAgent.post('/v1/vend', { grant: grant.id, ...LIST, decision });
    assert.equal(first.status, 200, JSON.stringify(first.body));
    const second = await dev.asAgent.post('/v1/vend', { grant: grant.id, ...LIST, decision });
    assert.deepEqual([second.status, second.body.code], [409, 'decision_spent']);
    assert.match(second.body.entry_id, /^ent_/);
  });

  for (const [alg, name] of [['EdDSA', 'Ed25519'], ['ES256', 'P-256']]) {
    describe(`an external engine that signs with ${name}`, { concurrency: false }, () => {
      const iss = `https://engine-${alg.toLowerCase()}.peers.example`;
      let key;
      let kid;
      before(async () => {
        key = await generateKeyPair(alg, { crv: name, extractable: true });
        const jwk = await exportJWK(key.publicKey);
        plant(`the private key of the ${name} engine`, (await exportJWK(key.privateKey)).d);
        kid = `engine-${alg.toLowerCase()}-1`;
        // `apply` states the whole; what the demo has and this file leaves out stays, unless it is named.
        const toml = [
          '[[engine]]',
          `name = "engine-${alg.toLowerCase()}"`,
          `iss = "${iss}"`,
          `alg = "${alg}"`,
          `public_key_jwk = '${JSON.stringify({ ...jwk, kid, alg, use: 'sig' })}'`,
          'connectors = ["acme-mail"]',
          'tools = ["messages.list"]',
          '',
        ].join('\n');
        await dev.admin.must(200, 'POST', '/v1/apply', { toml, dry_run: false });
      });

      /** Signs an allow for exactly the action Postern describes. */
      const sign = async ({ claims = {}, header = {}, signer = key.privateKey, tool = LIST.tool, args = LIST.args } = {}) => {
        const { action, action_hash } = await dev.asAgent.must(200, 'POST', '/v1/actions', { grant: grant.id, tool, args });
        const now = Math.floor(Date.now() / 1000);
        const payload = {
          iss,
          aud: `${dev.url}/orgs/${action.org}`,
          iat: now,
          exp: now + 60,
          jti: randomUUID(),
          ver: 1,
          org: action.org,
          sub: action.user,
          act: { sub: action.agent },
          grant: action.grant,
          tool: action.tool,
          action_hash,
          outcome: 'allow',
          policy: { id: 'external', version: '7', digest: `sha256:${createHash('sha256').update('external').digest('hex')}` },
          ...claims,
        };
        return new CompactSign(new TextEncoder().encode(JSON.stringify(payload))).setProtectedHeader({ typ: 'action-decision+jwt', alg, kid, ...header }).sign(signer);
      };
      const vend = (decision, more = {}) => dev.asAgent.post('/v1/vend', { grant: grant.id, ...LIST, decision, ...more });
      const refused = async (decision, errors, more) => {
        const mark = await dev.acme.mark();
        const { status, body } = await vend(decision, more);
        assert.deepEqual([status, body.code], [403, 'decision_rejected'], JSON.stringify(body));
        if (errors) assert.ok(errors.includes(body.decision_error), `decision_error is ${body.decision_error}`);
        assert.deepEqual(await dev.acme.since(mark), [], 'nothing reached the provider');
      };

      test('its allow is accepted', async () => {
        const { status, body } = await vend(await sign());
        assert.deepEqual([status, body.status], [200, 200], JSON.stringify(body));
      });

      test('its allow is spent once', async () => {
        const decision = await sign();
        assert.equal((await vend(decision)).status, 200);
        assert.deepEqual([(await vend(decision)).body.code], ['decision_spent']);
      });

      test('an allow for other arguments is refused', async () => {
        await refused(await sign({ args: { limit: 4 } }), ['wrong_action']);
      });

      test('an expired allow is refused', async () => {
        const now = Math.floor(Date.now() / 1000);
        await refused(await sign({ claims: { iat: now - 200, exp: now - 100 } }), ['expired']);
      });

      test('an allow that lives longer than two minutes is refused', async () => {
        const now = Math.floor(Date.now() / 1000);
        await refused(await sign({ claims: { iat: now, exp: now + 121 } }));
      });

      test('an allow for another audience is refused', async () => {
        await refused(await sign({ claims: { aud: `${dev.url}/orgs/org_00000000000000000000000000` } }));
      });

      test('an allow with two audiences is refused', async () => {
        await refused(await sign({ claims: { aud: [`${dev.url}/orgs/${dev.org.id ?? dev.org}`, 'https://elsewhere.example'] } }));
      });

      test('an allow in the name of Postern itself is refused', async () => {
        await refused(await sign({ claims: { iss: dev.url } }));
      });

      test('an allow signed by another key under the registered kid is refused', async () => {
        const stranger = await generateKeyPair(alg, { crv: 'Ed25519' });
        await refused(await sign({ signer: stranger.privateKey }), ['bad_signature']);
      });

      test('an allow under a kid nobody registered is refused', async () => {
        await refused(await sign({ header: { kid: 'unheard-of' } }), ['unknown_key']);
      });

      test('a key that comes along in the header is not used', async () => {
        const stranger = await generateKeyPair(alg, { crv: name, extractable: true });
        const jwk = await exportJWK(stranger.publicKey);
        await refused(await sign({ signer: stranger.privateKey, header: { kid: 'unheard-of', jwk } }));
      });

      test('an allow with a constraint nobody knows is refused', async () => {
        await refused(await sign({ claims: { constraints: { max_ttl_s: 60, only_on_sundays: true } } }));
      });

      test('a deny releases nothing', async () => {
        await refused(await sign({ claims: { outcome: 'deny' } }));
      });

      test('a plain JWT type is refused', async () => {
        await refused(await sign({ header: { typ: 'JWT' } }));
      });

      test('it cannot allow a tool above the ceiling of its key', async () => {
        const tool = 'messages.get';
        const args = { id: 'm1' };
        const decision = await sign({ tool, args });
        const mark = await dev.acme.mark();
        const { status } = await dev.asAgent.post('/v1/vend', { grant: grant.id, tool, args, decision });
        assert.equal(status, 403);
        assert.deepEqual(await dev.acme.since(mark), []);
      });
    });
  }

  test('an unsigned decision is refused, whatever its header says', async () => {
    const { decision } = await decide();
    const [header, payload] = decision.split('.');
    const { kid } = decodeProtectedHeader(decision);
    for (const alg of ['none', 'HS256']) {
      const forged = `${Buffer.from(JSON.stringify({ typ: 'action-decision+jwt', alg, kid })).toString('base64url')}.${payload}.`;
      const { status, body } = await dev.asAgent.post('/v1/vend', { grant: grant.id, ...LIST, decision: forged });
      assert.deepEqual([status, body.code], [403, 'decision_rejected'], `${alg}, ${header}`);
    }
  });
});
