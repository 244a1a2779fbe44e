// What the peer tests share: Postern before the peer, the way through its pages, and vending.
//
// Order matters. Providers register redirect URIs exactly, and only Postern knows its own; so Postern starts first, a
// person is sent off to a peer that is not there yet, and the redirect URI is read from where the browser wanted to go.
import assert from 'node:assert/strict';
import { join } from 'node:path';

import { openBrowser } from '../harness/browser.js';
import { grantsOf, signIn, stateOf } from '../harness/journeys.js';
import { freePorts } from '../harness/ports.js';
import { startServe } from '../harness/postern.js';
import { until } from '../harness/process.js';
import { folder, plant } from '../harness/run.js';
import { derive } from './derive-connectors.js';

const ORG_POLICY = `@id("org-allows")
@modes("execute,token")
permit (principal, action, resource);
`;
const AGENT_POLICY = `@id("agent-may")
@modes("execute,token")
permit (principal, action, resource);
`;

/** Starts `postern serve` with the connectors of `peers` (name → client), all at ports that are still free; `more` as `startServe` takes it. */
export async function startPosternFor(peers, more = {}) {
  const connectors = join(folder('connectors'), 'run');
  const names = Object.keys(peers);
  const ports = await freePorts(names.length);
  const derived = Object.fromEntries(names.map((name, index) => [name, { ...derive(name, ports[index], connectors), port: ports[index] }]));
  const secrets = Object.fromEntries(names.map((name) => [variable(name), peers[name].secret]));
  const postern = await startServe({
    connectors,
    allow: names.map((name) => derived[name]),
    secrets,
    policies: { 'org.cedar': ORG_POLICY, 'agent.cedar': AGENT_POLICY },
    apply: [
      '[[agent]]',
      'name = "peer-agent"',
      ...names.flatMap((name) => [
        `[connector.${derived[name].connector}]`,
        `client_id = ${JSON.stringify(peers[name].id)}`,
        `client_secret_env = "${variable(name)}"`,
      ]),
      '[policies]',
      'org = ["org.cedar"]',
      'agent = ["agent.cedar"]',
      '',
    ].join('\n'),
    ...more,
  });
  const browser = await openBrowser();
  return { ...postern, browser, derived, async stop() {
    await browser.close();
    return postern.stop();
  } };
}

/** Ada, signed in, in a browser of her own. */
export async function ada(world, others) {
  const person = await world.browser.person(world.url, others);
  await signIn(person, await loginUrl(world));
  return person;
}

const firstLinkIsUsed = new WeakSet();
async function loginUrl(world) {
  if (!firstLinkIsUsed.has(world.init)) {
    firstLinkIsUsed.add(world.init);
    return world.init.login_url;
  }
  const answer = await world.admin.post(`/v1/users/${world.ada.id}/login-links`, {});
  assert.ok(answer.status === 200 || answer.status === 201, `a login link: ${answer.status}`);
  return answer.body.url;
}

/** From the connections to the landing page of `name`, and on to the provider's address, which is returned. */
export async function setOff(world, person, peer) {
  const { name } = world.derived[peer];
  await person.page.goto(new URL('/connections', world.url).href);
  await person.page.getByRole('button', { name: new RegExp(`^connect\\s+${escape(name)}$`, 'i') }).click();
  await person.page.waitForURL(/\/connect\/[^/]+$/);
  plant('a connect link', new URL(person.page.url()).pathname.split('/').pop());
  const origin = `http://${world.derived[peer].address}`;
  const asked = person.page.waitForRequest((request) => request.url().startsWith(origin));
  await person.page.getByRole('button', { name: new RegExp(`continue to ${escape(name)}`, 'i') }).click();
  return new URL((await asked).url());
}

/** The redirect URI Postern uses with `peer`, learnt before the peer exists. */
export async function learnRedirect(world, peer) {
  const person = await ada(world, []);
  const asked = await setOff(world, person, peer);
  await person.context.close();
  const redirect = asked.searchParams.get('redirect_uri');
  assert.ok(redirect.startsWith(`${world.url}/callback/`), `a redirect URI of Postern's with its context: ${redirect}`);
  return redirect;
}

/** Confirms and waits for the one active grant at `peer`. */
export async function confirmGrant(world, person, peer, boxes = {}) {
  await person.page.waitForURL((at) => at.origin === world.url && !at.pathname.startsWith('/callback'));
  for (const [name, wanted] of Object.entries(boxes)) await person.page.getByRole('checkbox', { name: new RegExp(name, 'i') }).first().setChecked(wanted);
  await person.page.getByRole('button', { name: /confirm/i }).click();
  const { connector } = world.derived[peer];
  return until('an active grant', async () => (await grantsOf(world, world.ada, connector)).find((grant) => stateOf(grant) === 'active'));
}

/** Through the login and consent pages that oidc-provider ships. */
export async function consent(person) {
  const { page } = person;
  await page.getByPlaceholder('Enter any login').fill('ada');
  await page.getByPlaceholder('and password').fill('x');
  await page.getByRole('button', { name: 'Sign-in' }).click();
  await page.getByRole('button', { name: 'Continue' }).click();
}

/** One vend by the agent. */
export function vend(world, peer, tool, args, more = {}) {
  return world.asAgent.post('/v1/vend', { connector: world.derived[peer].connector, user: world.ada.id, tool, args, ...more });
}

/** Revokes the grant and waits for the upstream's final word, as far as there is one within `timeoutMs`. */
export async function revokeAndWait(world, grant, { settled = ['revoked', 'unsupported', 'unconfirmed'], timeoutMs = 20_000 } = {}) {
  const answer = await world.admin.must(200, 'POST', '/v1/revocations', { selector: { grant: grant.id }, reason: 'peer test' });
  const report = () => world.admin.must(200, 'GET', `/v1/revocations/${answer.id}`);
  const about = (body) => (body.grants ?? body.items ?? []).find((each) => (each.grant?.id ?? each.grant ?? each.id) === grant.id);
  const row = await until(`the upstream's word on ${grant.id}`, async () => {
    const found = about(await report());
    return found && settled.includes(found.upstream) && found;
  }, timeoutMs);
  return { ...answer, row };
}

function variable(peer) {
  return `PEER_${peer.toUpperCase().replaceAll('-', '_')}_SECRET`;
}

function escape(text) {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
