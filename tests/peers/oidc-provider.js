// An independent OAuth 2 server: npm oidc-provider, in memory, on loopback. Nothing of ours but this configuration,
// two login pages' worth of defaults that ship with the package, and a resource API of thirty lines that believes
// only introspection.
//
// Two clients:
//   strict   rotates refresh tokens on every use; presenting a used one kills the whole family.
//   lenient  does not rotate; narrowing by `scope` on refresh works, and introspection proves it.
//
// Everything secret that it issues or sees goes to `onSecret`, for the canary.
import { createServer } from 'node:http';
import { createServer as createTcp } from 'node:net';
import { pathToFileURL } from 'node:url';

import { Provider } from 'oidc-provider';

export const SCOPES = ['mail.read', 'mail.send', 'mail.write'];
export const CLIENTS = {
  strict: { id: 'postern-strict', secret: 'strict-client-secret-c4n4ry-7f3a' },
  lenient: { id: 'postern-lenient', secret: 'lenient-client-secret-c4n4ry-91bd' },
  api: { id: 'resource-api', secret: 'resource-api-secret-not-posterns' },
};

/**
 * Starts the server. `redirects` are the callback URIs registered for each Postern client. With `believesForLong` the
 * API asks about a token once until tokens are ended here (RFC 7662 §4), so that many calls measure Postern and not it.
 */
export async function startOidcProvider({
  port = 0,
  redirects = { strict: [], lenient: [] },
  accessTokenSeconds = 300,
  believesForLong = false,
  onSecret = () => {},
} = {}) {
  const at = port === 0 ? await freePort() : port;
  const issuer = `http://127.0.0.1:${at}`;
  const client = (which) => ({
    client_id: CLIENTS[which].id,
    client_secret: CLIENTS[which].secret,
    redirect_uris: redirects[which],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'client_secret_basic',
    scope: ['openid', 'offline_access', ...SCOPES].join(' '),
  });

  const provider = new Provider(issuer, {
    clients: [
      client('strict'),
      client('lenient'),
      {
        client_id: CLIENTS.api.id,
        client_secret: CLIENTS.api.secret,
        redirect_uris: [],
        grant_types: [],
        response_types: [],
        token_endpoint_auth_method: 'client_secret_basic',
      },
    ],
    scopes: ['openid', 'offline_access', ...SCOPES],
    claims: { openid: ['sub'], 'mail.read': ['email'] },
    pkce: { required: () => true },
    rotateRefreshToken: (ctx) => ctx.oidc.client.clientId === CLIENTS.strict.id,
    issueRefreshToken: async (_ctx, client, code) =>
      client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
    features: {
      devInteractions: { enabled: true },
      introspection: {
        enabled: true,
        // The package's default lets a client ask about its own tokens only; the resource API asks about all.
        allowedPolicy: async (_ctx, asking, token) =>
          asking.clientId === CLIENTS.api.id || token.clientId === asking.clientId,
      },
      revocation: { enabled: true },
    },
    ttl: {
      AccessToken: () => accessTokenSeconds,
      AuthorizationCode: 60,
      RefreshToken: 86_400,
      Grant: 86_400,
      IdToken: 300,
      Interaction: 600,
      Session: 3_600,
    },
    findAccount: async (_ctx, sub) => ({
      accountId: sub,
      claims: async () => ({ sub, email: `${sub}@oidc.example` }),
    }),
    cookies: { keys: ['peer-cookie-key'] },
  });

  // What it saw, for assertions at the peer.
  const log = [];
  const remember = (kind, token) => {
    log.push({ kind, client: token.clientId, grant: token.grantId, scope: token.scope, jti: token.jti, at: Date.now() });
  };
  provider.on('access_token.issued', (token) => remember('access_token.issued', token));
  provider.on('refresh_token.saved', (token) => remember('refresh_token.saved', token));
  provider.on('refresh_token.consumed', (token) => remember('refresh_token.consumed', token));
  provider.on('grant.revoked', (_ctx, grant) => log.push({ kind: 'grant.revoked', grant, at: Date.now() }));
  provider.on('grant.error', (ctx, error) =>
    log.push({
      kind: 'grant.error',
      client: ctx.oidc.client?.clientId,
      grant_type: ctx.oidc.params?.grant_type,
      error: error.error,
      detail: error.error_detail,
      at: Date.now(),
    }),
  );
  provider.on('grant.success', (ctx) => {
    const { access_token, refresh_token, id_token, scope } = ctx.body ?? {};
    log.push({
      kind: 'token',
      client: ctx.oidc.client.clientId,
      grant_type: ctx.oidc.params.grant_type,
      asked_scope: ctx.oidc.params.scope,
      scope,
      at: Date.now(),
    });
    const { code, code_verifier } = ctx.oidc.params;
    for (const [name, secret] of Object.entries({ access_token, refresh_token, id_token, code, code_verifier })) {
      if (secret) onSecret(`a ${name} of oidc-provider`, secret);
    }
    issued.push({ client: ctx.oidc.client.clientId, access_token, refresh_token, scope });
  });
  const issued = [];
  let ended = 0;

  const introspect = async (token) => {
    const answer = await fetch(`${issuer}/token/introspection`, {
      method: 'POST',
      headers: {
        authorization: basic(CLIENTS.api),
        'content-type': 'application/x-www-form-urlencoded',
      },
      body: new URLSearchParams({ token }),
    });
    return answer.json();
  };

  const believed = new Map();
  const factsOf = (bearer) => {
    if (!believesForLong) return introspect(bearer);
    if (!believed.has(bearer)) believed.set(bearer, introspect(bearer));
    return believed.get(bearer);
  };

  const sent = [];
  const callback = provider.callback();
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, issuer);
    const json = (status, value) => {
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(JSON.stringify(value));
    };
    if (url.pathname.startsWith('/api/')) {
      const [, bearer] = /^Bearer (.+)$/.exec(request.headers.authorization ?? '') ?? [];
      const facts = bearer ? await factsOf(bearer) : { active: false };
      log.push({ kind: 'api', path: url.pathname, method: request.method, active: facts.active, scope: facts.scope, at: Date.now() });
      if (!facts.active) return json(401, { error: 'invalid_token' });
      const scopes = (facts.scope ?? '').split(' ');
      const needs = request.method === 'GET' ? 'mail.read' : 'mail.send';
      if (!scopes.includes(needs)) return json(403, { error: 'insufficient_scope', scope: needs });
      if (url.pathname === '/api/messages' && request.method === 'GET') {
        return json(200, { account: facts.sub, scopes, messages: sent });
      }
      if (url.pathname === '/api/messages' && request.method === 'POST') {
        sent.push(JSON.parse(await text(request)));
        return json(201, { id: `m${sent.length}`, account: facts.sub, scopes });
      }
      return json(404, { error: 'not_found' });
    }
    return callback(request, response);
  });
  await new Promise((resolve) => server.listen(at, '127.0.0.1', resolve));

  return {
    issuer,
    port: at,
    log,
    issued,
    introspect,
    /** Token requests that were granted or refused, so far. */
    tokenRequests: () => log.filter(({ kind }) => kind === 'token' || kind === 'grant.error'),
    /** Every access token ends now, as if its time were over; grants and refresh tokens stay. */
    async expireAccessTokens() {
      for (const { access_token } of issued.slice(ended)) await (await provider.AccessToken.find(access_token))?.destroy();
      ended = issued.length;
      believed.clear();
    },
    /** Access tokens that are issued from now on live so long. */
    accessTokensLive(seconds) {
      accessTokenSeconds = seconds;
    },
    /** How a stranger (or an attacker with a stolen copy) would use a refresh token. */
    refresh: (which, refresh_token, scope) => refresh(issuer, CLIENTS[which], refresh_token, scope),
    close: () => {
      server.closeAllConnections();
      return new Promise((done) => server.close(done));
    },
  };
}

async function refresh(issuer, client, refresh_token, scope) {
  const answer = await fetch(`${issuer}/token`, {
    method: 'POST',
    headers: { authorization: basic(client) },
    body: new URLSearchParams({ grant_type: 'refresh_token', refresh_token, ...(scope ? { scope } : {}) }),
  });
  return { status: answer.status, body: await answer.json() };
}

function basic({ id, secret }) {
  return `Basic ${Buffer.from(`${encodeURIComponent(id)}:${encodeURIComponent(secret)}`).toString('base64')}`;
}

async function text(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

async function freePort() {
  const probe = createTcp();
  await new Promise((resolve) => probe.listen(0, '127.0.0.1', resolve));
  const { port } = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

// By hand: PEER_OPTIONS='{"redirects":{"strict":["http://127.0.0.1:9/callback/x"],"lenient":[…]}}' node oidc-provider.js
if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { issuer, port } = await startOidcProvider(JSON.parse(process.env.PEER_OPTIONS ?? '{}'));
  console.log(JSON.stringify({ issuer, port }));
}
