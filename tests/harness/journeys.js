// What a person does, step by step, so that a test can leave the path at the step it is about.
import assert from 'node:assert/strict';

import { plant } from './run.js';

/** Logs in by a one-time link. */
export async function signIn(person, url) {
  await person.page.goto(url);
  await person.page.getByRole('button', { name: /^sign in$/i }).click();
  await person.page.waitForURL((at) => !at.pathname.startsWith('/login'));
}

/** From the list of connections to the page that says what is asked; its address is the connect link. */
export async function chooseAcme(person, own) {
  await person.page.goto(new URL('/connections', own).href);
  await person.page.getByRole('button', { name: /^connect\s+acme mail$/i }).click();
  await person.page.waitForURL(/\/connect\/[^/]+$/);
  plant('a connect link', new URL(person.page.url()).pathname.split('/').pop());
  return person.page.url();
}

/** Presses the button of the landing page; ends at Acme, whose address is returned. */
export async function continueToAcme(person, provider) {
  await person.page.getByRole('button', { name: /continue to acme mail/i }).click();
  await person.page.waitForURL((at) => at.origin === new URL(provider).origin);
  const asked = new URL(person.page.url());
  const state = asked.searchParams.get('state');
  if (state) plant('a state parameter', state);
  return asked;
}

/** At Acme: picks the account, unticks scopes, says yes or no. Ends wherever Acme sends the browser. */
export async function answerAcme(person, provider, answer) {
  await pressAtAcme(person, answer);
  await person.page.waitForURL((at) => at.origin !== new URL(provider).origin);
}

/** As `answerAcme`, but the callback is caught on the way: its address is returned, and Postern never saw it. */
export async function catchCallback(person, provider, answer) {
  let caught = null;
  const authorize = (url) => url.origin === new URL(provider).origin && url.pathname === '/authorize';
  // A redirect cannot be intercepted in the browser, so Acme's answer is read before the browser has it.
  await person.page.route(authorize, async (route) => {
    const response = await route.fetch({ maxRedirects: 0 });
    const { location } = response.headers();
    if (!location?.includes('/callback/')) return route.fulfill({ response });
    caught = new URL(location);
    return route.fulfill({ status: 200, contentType: 'text/html', body: '<!doctype html><title>caught</title>' });
  });
  await pressAtAcme(person, answer);
  await person.page.waitForFunction(() => document.title === 'caught');
  await person.page.unroute(authorize);
  const code = caught.searchParams.get('code');
  if (code) plant('an authorization code', code);
  return caught;
}

async function pressAtAcme(person, { account = 'ada@acme.example', without = [], verdict = 'Allow' } = {}) {
  await person.page.getByRole('button', { name: account }).click();
  for (const scope of without) await person.page.getByRole('checkbox', { name: new RegExp(scope.replace('.', '\\.'), 'i') }).uncheck();
  await person.page.getByRole('button', { name: verdict, exact: true }).click();
}

const BOXES = { read: /^read\b/i, write: /^write\b/i, destructive: /^(delete|destructive)\b/i, admin: /^admin/i, raw: /raw token/i };

/** The box of a category on the confirm page. */
export function box(person, category) {
  return person.page.getByRole('checkbox', { name: BOXES[category] }).first();
}

/** Confirms the account and what the agent may do with it. `boxes`: {read: true, write: false, …}; others stay. */
export async function confirm(person, boxes = {}) {
  for (const [category, wanted] of Object.entries(boxes)) await box(person, category).setChecked(wanted);
  await person.page.getByRole('button', { name: /^confirm/i }).click();
  await person.page.getByRole('heading', { level: 1, name: /is connected/i }).waitFor();
}

/** The whole way, from signed in to a grant. */
export async function connectAcme(person, dev, options = {}) {
  await chooseAcme(person, dev.url);
  await continueToAcme(person, dev.demo_provider);
  await answerAcme(person, dev.demo_provider, options);
  await confirm(person, options.boxes);
}

/** The user's living grants at Acme, as the admin sees them. */
export async function grantsOf(dev, user, connector = 'acme-mail') {
  const all = await dev.admin.items('/v1/grants?limit=100');
  const of = (grant) => (typeof grant.user === 'object' ? grant.user.id : grant.user);
  return all.filter((grant) => of(grant) === user.id && grant.connector === connector);
}

export async function activeGrant(dev, user, connector) {
  const active = (await grantsOf(dev, user, connector)).filter((grant) => stateOf(grant) === 'active');
  assert.equal(active.length, 1, `one active grant, found ${active.length}`);
  return active[0];
}

export function stateOf(grant) {
  return typeof grant.state === 'object' ? grant.state.state ?? grant.state.kind : grant.state ?? grant.status;
}

/** Everything of the organisation ends: a clean table for the next test of a file. */
export async function revokeAll(dev) {
  await dev.admin.must(200, 'POST', '/v1/revocations', { selector: { all: true }, reason: 'between two tests' });
}
