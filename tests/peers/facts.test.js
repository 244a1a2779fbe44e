// What the peers do and do not do, asked of them directly. Nothing of Postern runs here: these are the facts on which
// the other tests of this folder, and the sentences of README.md about what they cannot show, rest. A new version of
// a peer that behaves differently fails here first.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { freePorts } from '../harness/ports.js';
import { authorize, basic, bearer, get, post, read } from './drive.js';
import { startEmulator } from './emulators.js';
import { CLIENTS, startOidcProvider } from './oidc-provider.js';

const REDIRECT = 'http://127.0.0.1:9/callback/facts';

describe('oidc-provider', () => {
  let peer;
  before(async () => {
    peer = await startOidcProvider({ redirects: { strict: [REDIRECT], lenient: [REDIRECT] } });
  });
  after(() => peer.close());

  const consent = (which, params = {}) =>
    authorize(
      `${peer.issuer}/auth`,
      { client_id: CLIENTS[which].id, scope: 'openid offline_access mail.read mail.send', prompt: 'consent', ...params },
      { redirect: REDIRECT, fields: { login: 'ada', password: 'x' } },
    );
  const tokens = async (which) => {
    const { answer, verifier } = await consent(which);
    const form = { grant_type: 'authorization_code', code: answer.code, redirect_uri: REDIRECT, code_verifier: verifier };
    return (await post(`${peer.issuer}/token`, form, basic(CLIENTS[which]))).body;
  };

  test('sends `iss` with the code (RFC 9207)', async () => {
    const { answer } = await consent('lenient');
    assert.equal(answer.iss, peer.issuer);
  });

  test('refuses an authorization request without PKCE', async () => {
    const { answer } = await consent('lenient', { code_challenge: null, code_challenge_method: null });
    assert.equal(answer.error, 'invalid_request');
    assert.equal(answer.code, undefined);
  });

  test('refuses a code with the wrong verifier', async () => {
    const { answer } = await consent('lenient');
    const form = { grant_type: 'authorization_code', code: answer.code, redirect_uri: REDIRECT, code_verifier: 'x'.repeat(43) };
    const { status, body } = await post(`${peer.issuer}/token`, form, basic(CLIENTS.lenient));
    assert.deepEqual([status, body.error], [400, 'invalid_grant']);
  });

  test('strict: a used refresh token kills the newest one and its access token', async () => {
    const first = await tokens('strict');
    const { body: second } = await peer.refresh('strict', first.refresh_token);
    assert.notEqual(second.refresh_token, first.refresh_token);
    assert.equal((await peer.introspect(second.access_token)).active, true);
    assert.equal((await peer.refresh('strict', first.refresh_token)).body.error, 'invalid_grant');
    assert.equal((await peer.refresh('strict', second.refresh_token)).body.error, 'invalid_grant');
    assert.equal((await peer.introspect(second.access_token)).active, false);
  });

  test('strict: narrowing by refresh works but costs the refresh token', async () => {
    const first = await tokens('strict');
    const { body } = await peer.refresh('strict', first.refresh_token, 'mail.read');
    assert.equal(body.scope, 'mail.read');
    assert.notEqual(body.refresh_token, first.refresh_token);
  });

  test('lenient: narrowing by refresh is real, and the broad grant stays', async () => {
    const first = await tokens('lenient');
    const { body: narrow } = await peer.refresh('lenient', first.refresh_token, 'mail.read');
    assert.equal(narrow.refresh_token, first.refresh_token);
    assert.equal((await peer.introspect(narrow.access_token)).scope, 'mail.read');
    const url = `${peer.issuer}/api/messages`;
    assert.equal((await get(url, bearer(narrow.access_token))).status, 200);
    const refused = await fetch(url, { method: 'POST', body: '{}', headers: bearer(narrow.access_token) });
    assert.equal(refused.status, 403);
    const { body: broad } = await peer.refresh('lenient', first.refresh_token);
    assert.match(broad.scope, /mail\.send/);
  });

  test('widening on refresh is refused', async () => {
    const first = await tokens('lenient');
    const { status, body } = await peer.refresh('lenient', first.refresh_token, 'mail.write');
    assert.deepEqual([status, body.error], [400, 'invalid_scope']);
  });

  test('revoking the refresh token ends every access token of the grant', async () => {
    const first = await tokens('lenient');
    const { body: second } = await peer.refresh('lenient', first.refresh_token);
    const done = await post(`${peer.issuer}/token/revocation`, { token: first.refresh_token, token_type_hint: 'refresh_token' }, basic(CLIENTS.lenient));
    assert.equal(done.status, 200);
    for (const { access_token } of [first, second]) assert.equal((await peer.introspect(access_token)).active, false);
  });

  test('tells who the account is by `sub`', async () => {
    const { access_token } = await tokens('lenient');
    const { body } = await get(`${peer.issuer}/me`, bearer(access_token));
    assert.deepEqual(body, { sub: 'ada', email: 'ada@oidc.example' });
  });

  test('an access token that was made to end is refused by its API, and the grant lives on', async () => {
    const first = await tokens('lenient');
    await peer.expireAccessTokens();
    assert.equal((await get(`${peer.issuer}/api/messages`, bearer(first.access_token))).status, 401);
    assert.equal((await peer.refresh('lenient', first.refresh_token)).status, 200);
  });
});

describe('emulate: Google', () => {
  let peer;
  before(async () => {
    const [port] = await freePorts(1);
    peer = await startEmulator('google', { port, redirect: REDIRECT });
  });
  after(() => peer.close());
  const READ = 'https://www.googleapis.com/auth/gmail.readonly';
  const SEND = 'https://www.googleapis.com/auth/gmail.send';
  const client = () => ({ client_id: peer.client.id, client_secret: peer.client.secret });
  const consent = (options = {}) =>
    authorize(
      `${peer.url}/o/oauth2/v2/auth`,
      { client_id: peer.client.id, scope: `openid email ${READ} ${SEND}`, access_type: 'offline', prompt: 'consent', ...options },
      { redirect: options.redirect_uri ?? REDIRECT, pick: (form) => form.includes('ada@peers.example') },
    );
  const exchange = ({ answer, verifier }, more = {}) =>
    post(`${peer.url}/oauth2/token`, { grant_type: 'authorization_code', code: answer.code, redirect_uri: REDIRECT, code_verifier: verifier, ...client(), ...more });
  const tokens = async () => (await exchange(await consent())).body;

  test('checks PKCE, the client secret, the redirect URI, and that a code is used once', async () => {
    const consented = await consent();
    assert.equal((await exchange(consented, { code_verifier: 'x'.repeat(43) })).body.error, 'invalid_grant');
    assert.equal((await exchange(consented, { client_secret: 'wrong' })).body.error, 'invalid_client');
    assert.equal((await exchange(consented)).status, 200);
    assert.equal((await exchange(consented)).body.error, 'invalid_grant');
    const elsewhere = await consent({ redirect_uri: 'http://127.0.0.1:9/callback/other' });
    assert.ok(elsewhere.refused, 'another redirect URI is not answered');
  });

  test('signs an id token for the client under the address it is reached at', async () => {
    const { id_token } = await tokens();
    const claims = JSON.parse(Buffer.from(id_token.split('.')[1], 'base64url'));
    assert.equal(claims.iss, peer.url);
    assert.equal(claims.aud, peer.client.id);
    assert.equal(claims.email, 'ada@peers.example');
  });

  test('cannot show: narrowing. The scope of a refresh is ignored and the old scopes are answered', async () => {
    const { refresh_token } = await tokens();
    const { body } = await post(`${peer.url}/oauth2/token`, { grant_type: 'refresh_token', refresh_token, scope: READ, ...client() });
    assert.ok(body.scope.includes(SEND));
  });

  test('cannot show: rotation. A refresh answers no new refresh token', async () => {
    const { refresh_token } = await tokens();
    const { body } = await post(`${peer.url}/oauth2/token`, { grant_type: 'refresh_token', refresh_token, ...client() });
    assert.equal(body.refresh_token, undefined);
  });

  test('cannot show: that a token matters. Its API takes a token nobody issued', async () => {
    assert.equal((await get(`${peer.url}/gmail/v1/users/me/messages`, bearer('a-token-nobody-issued'))).status, 200);
  });

  test('revoking kills the refresh token, but not the access token', async () => {
    const { refresh_token, access_token } = await tokens();
    assert.equal((await post(`${peer.url}/oauth2/revoke`, { token: refresh_token })).status, 200);
    assert.equal((await post(`${peer.url}/oauth2/token`, { grant_type: 'refresh_token', refresh_token, ...client() })).body.error, 'invalid_grant');
    assert.equal((await get(`${peer.url}/gmail/v1/users/me/messages`, bearer(access_token))).status, 200);
  });

  test('cannot show: `iss` in the callback (RFC 9207)', async () => {
    assert.equal((await consent()).answer.iss, undefined);
  });
});

describe('emulate: Slack', () => {
  let peer;
  before(async () => {
    const [port] = await freePorts(1);
    peer = await startEmulator('slack', { port, redirect: REDIRECT });
  });
  after(() => peer.close());
  const consent = () =>
    authorize(
      `${peer.url}/oauth/v2/authorize`,
      { client_id: peer.client.id, scope: null, user_scope: 'chat:write,channels:read', code_challenge: null, code_challenge_method: null },
      { redirect: REDIRECT, pick: (form) => form.includes('ada@peers.example') },
    );
  const exchange = ({ answer }, more = {}) =>
    post(`${peer.url}/api/oauth.v2.access`, { code: answer.code, redirect_uri: REDIRECT, client_id: peer.client.id, client_secret: peer.client.secret, ...more });

  test('answers a user token below `authed_user`, once per code', async () => {
    const consented = await consent();
    const { body } = await exchange(consented);
    assert.equal(body.ok, true);
    assert.match(body.authed_user.access_token, /^xoxp-/);
    assert.equal((await exchange(consented)).body.error, 'invalid_code');
  });

  test('refuses a wrong client secret with status 200', async () => {
    const { status, body } = await exchange(await consent(), { client_secret: 'wrong' });
    assert.deepEqual([status, body.ok], [200, false]);
  });

  test('cannot show: a revocation. `auth.revoke` does not exist', async () => {
    const { body } = await exchange(await consent());
    assert.equal((await post(`${peer.url}/api/auth.revoke`, {}, bearer(body.authed_user.access_token))).status, 404);
  });

  test('cannot show: that a token matters. `auth.test` takes a token nobody issued', async () => {
    assert.equal((await post(`${peer.url}/api/auth.test`, {}, bearer('xoxp-nobody-issued-this'))).body.ok, true);
    assert.equal((await post(`${peer.url}/api/auth.test`, {})).body.error, 'not_authed');
  });

  test('cannot show: token rotation. Tokens have no end and there is no refresh token', async () => {
    const { body } = await exchange(await consent());
    assert.equal(body.expires_in, undefined);
    assert.equal(body.refresh_token ?? body.authed_user.refresh_token, undefined);
  });
});

describe('emulate: GitHub', () => {
  let peer;
  before(async () => {
    const [port] = await freePorts(1);
    peer = await startEmulator('github', { port, redirect: REDIRECT });
  });
  after(() => peer.close());
  const consent = () =>
    authorize(
      `${peer.url}/login/oauth/authorize`,
      { client_id: peer.client.id, scope: 'repo read:user' },
      { redirect: REDIRECT, pick: (form) => form.includes('ada@peers.example') },
    );
  const exchange = ({ answer, verifier }, more = {}) =>
    post(
      `${peer.url}/login/oauth/access_token`,
      { code: answer.code, redirect_uri: REDIRECT, code_verifier: verifier, client_id: peer.client.id, client_secret: peer.client.secret, ...more },
      { accept: 'application/json' },
    );

  test('answers a token for a code, once', async () => {
    const consented = await consent();
    const { body } = await exchange(consented);
    assert.match(body.access_token, /^gho_/);
    assert.notEqual((await exchange(consented)).body.access_token?.length > 0, true);
  });

  test('cannot show: PKCE. A wrong verifier is accepted', async () => {
    assert.match((await exchange(await consent(), { code_verifier: 'x'.repeat(43) })).body.access_token, /^gho_/);
  });

  test('cannot show: a revocation. `DELETE /applications/{client_id}/grant` does not exist', async () => {
    const { body } = await exchange(await consent());
    const answer = await read(
      await fetch(`${peer.url}/applications/${peer.client.id}/grant`, {
        method: 'DELETE',
        headers: { ...basic(peer.client), 'content-type': 'application/json' },
        body: JSON.stringify({ access_token: body.access_token }),
      }),
    );
    assert.equal(answer.status, 404);
  });

  test('cannot show: that a token matters. `GET /user` takes a token nobody issued', async () => {
    assert.equal((await get(`${peer.url}/user`, bearer('nobody-issued-this'))).status, 200);
  });

  test('cannot show: ends or rotation. Tokens have no end and there is no refresh token', async () => {
    const { body } = await exchange(await consent());
    assert.equal(body.expires_in ?? body.refresh_token, undefined);
  });

  test('cannot show: scopes with commas. It echoes the spaces of the request', async () => {
    assert.equal((await exchange(await consent())).body.scope, 'repo read:user');
  });

  test('knows the account by a number', async () => {
    const { body } = await exchange(await consent());
    const user = await get(`${peer.url}/user`, bearer(body.access_token));
    assert.equal(user.body.login, 'ada');
    assert.equal(typeof user.body.id, 'number');
  });
});
