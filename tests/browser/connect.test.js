// A person connects Acme Mail: every way it can go, in a real browser.
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';

import { openBrowser } from '../harness/browser.js';
import { activeGrant, answerAcme, box, chooseAcme, confirm, connectAcme, continueToAcme, grantsOf, revokeAll, signIn, stateOf } from '../harness/journeys.js';
import { startDev } from '../harness/postern.js';
import { until } from '../harness/process.js';

describe('connecting in a browser', { concurrency: false }, () => {
  let dev;
  let browser;
  before(async () => {
    dev = await startDev({ movableClock: true });
    browser = await openBrowser();
  });
  after(async () => {
    await browser?.close();
    await dev?.stop();
  });
  afterEach(async (each) => {
    await browser?.finish(each);
    await dev?.acme.clearFaults();
    if (dev) await revokeAll(dev);
  });
  const signedIn = async (user, options) => {
    const person = await browser.person(dev.url, [dev.demo_provider], options);
    await signIn(person, await dev.loginUrl(user));
    return person;
  };
  const ada = (options) => signedIn(dev.ada, options);
  const vend = (body) => dev.asAgent.post('/v1/vend', { connector: 'acme-mail', user: dev.ada.id, ...body });

  test('a login link asks for one press before it is used', async () => {
    const url = await dev.loginUrl(dev.ada);
    const person = await browser.person(dev.url);
    for (let look = 0; look < 3; look += 1) await person.page.goto(url);
    assert.match(await person.text(), /ada@acme\.example/);
    await person.page.getByRole('button', { name: 'Sign in' }).click();
    await person.page.getByRole('link', { name: 'Connections' }).waitFor();
    person.assertKeptToItself();
  });

  test('a login link works once', async () => {
    const url = await dev.loginUrl(dev.ada);
    await signIn(await browser.person(dev.url), url);
    const second = await browser.person(dev.url);
    await second.page.goto(url);
    assert.match(await second.text(), /no longer works/i);
    assert.equal(await second.page.getByRole('button', { name: 'Sign in' }).count(), 0);
  });

  test('a login link is refused while another person is signed in, and is not used up', async () => {
    const person = await ada();
    const url = await dev.loginUrl(dev.ben);
    await person.page.goto(url);
    const press = person.page.getByRole('button', { name: /^sign in$/i });
    if ((await press.count()) > 0) await press.click();
    assert.match(await person.text(), /someone else is signed in/i);
    await signIn(await browser.person(dev.url), url);
  });

  test('the page before the provider says who, where, what is asked and under whose key', async () => {
    const person = await ada();
    await chooseAcme(person, dev.url);
    const text = await person.text();
    for (const words of [/ada/i, /acme/i, /read your mail/i, /send mail as you/i, /sealed under/i]) assert.match(text, words);
    person.assertKeptToItself();
  });

  test('a person connects, sees the grant, and the agent can use it', async () => {
    const person = await ada();
    await connectAcme(person, dev);
    await person.page.goto(`${dev.url}/connections`);
    assert.match(await person.text(), /ada@acme\.example/);
    const { status, body } = await vend({ tool: 'messages.list', args: {} });
    assert.deepEqual([status, body.status], [200, 200], JSON.stringify(body));
    person.assertKeptToItself();
  });

  test('the provider is asked with PKCE S256 and a long state', async () => {
    const person = await ada();
    await chooseAcme(person, dev.url);
    const asked = await continueToAcme(person, dev.demo_provider);
    assert.equal(asked.searchParams.get('code_challenge_method'), 'S256');
    assert.match(asked.searchParams.get('code_challenge'), /^[A-Za-z0-9_-]{43}$/);
    assert.ok(asked.searchParams.get('state').length >= 43);
    assert.match(asked.searchParams.get('redirect_uri'), new RegExp(`^${dev.url}/callback/[^/?]+$`));
  });

  test('nothing is connected before the person confirms', async () => {
    const person = await ada();
    await chooseAcme(person, dev.url);
    await continueToAcme(person, dev.demo_provider);
    await answerAcme(person, dev.demo_provider);
    assert.match(await person.text(), /nothing is connected yet/i);
    const { status, body } = await vend({ tool: 'messages.list', args: {} });
    assert.deepEqual([status, body.code], [409, 'connection_required'], JSON.stringify(body));
  });

  test('read and write are preselected on the confirm page, deleting and raw tokens are not', async () => {
    const person = await ada();
    await chooseAcme(person, dev.url);
    await continueToAcme(person, dev.demo_provider);
    await answerAcme(person, dev.demo_provider);
    assert.equal(await box(person, 'read').isChecked(), true);
    assert.equal(await box(person, 'write').isChecked(), true);
    assert.equal(await box(person, 'destructive').isChecked(), false);
    if ((await box(person, 'raw').count()) > 0) assert.equal(await box(person, 'raw').isChecked(), false);
  });

  test('what the person leaves unticked, the agent may not do', async () => {
    const person = await ada();
    await connectAcme(person, dev, { boxes: { read: true, write: false } });
    const mark = await dev.acme.mark();
    const send = await vend({ tool: 'messages.send', args: { to: ['ben@acme.example'], subject: 's', body: 'b' } });
    assert.deepEqual([send.status, send.body.code], [403, 'denied'], JSON.stringify(send.body));
    assert.deepEqual(await dev.acme.since(mark, 'api'), []);
    assert.equal((await vend({ tool: 'messages.list', args: {} })).status, 200);
  });

  test('cancelling on the confirm page keeps nothing and gives the access back', async () => {
    const person = await ada();
    await chooseAcme(person, dev.url);
    await continueToAcme(person, dev.demo_provider);
    await answerAcme(person, dev.demo_provider);
    const mark = await dev.acme.mark();
    await person.page.getByRole('button', { name: /^cancel$/i }).click();
    assert.match(await person.text(), /nothing was connected/i);
    await until('the revocation at Acme', async () => (await dev.acme.since(mark, 'revoke')).some(({ status }) => status === 200));
    assert.ok((await grantsOf(dev, dev.ada)).every((grant) => stateOf(grant) !== 'active'));
  });

  test('denying at the provider is said in its own words, and nothing is exchanged', async () => {
    const person = await ada();
    await chooseAcme(person, dev.url);
    await continueToAcme(person, dev.demo_provider);
    const mark = await dev.acme.mark();
    await answerAcme(person, dev.demo_provider, { verdict: 'Deny' });
    assert.match(await person.text(), /you did not allow access/i);
    assert.equal(await person.page.getByRole('button', { name: /start again/i }).count(), 1);
    assert.deepEqual(await dev.acme.tokenRequestsSince(mark), []);
    person.assertKeptToItself();
  });

  test('fewer scopes than asked are shown before confirming, and what they lack is refused', async () => {
    const person = await ada();
    await chooseAcme(person, dev.url);
    await continueToAcme(person, dev.demo_provider);
    await answerAcme(person, dev.demo_provider, { without: ['mail.send', 'mail.write'] });
    assert.match(await person.text(), /asked for, but not allowed/i);
    await confirm(person);
    assert.equal((await vend({ tool: 'messages.list', args: {} })).status, 200);
    const mark = await dev.acme.mark();
    const { status } = await vend({ tool: 'messages.send', args: { to: ['ben@acme.example'], subject: 's', body: 'b' } });
    assert.ok(status === 403 || status === 409, `answered ${status}`);
    assert.deepEqual(await dev.acme.since(mark, 'api'), []);
  });

  test('a link that was used says so', async () => {
    const person = await ada();
    const link = await chooseAcme(person, dev.url);
    await continueToAcme(person, dev.demo_provider);
    await person.page.goto(link);
    assert.match(await person.text(), /already used/i);
    assert.equal(await person.page.getByRole('button', { name: /continue to acme mail/i }).count(), 0);
  });

  test("another person's link shows them nothing to press", async () => {
    const link = await chooseAcme(await ada(), dev.url);
    const ben = await signedIn(dev.ben);
    const answer = await ben.page.goto(link);
    assert.equal(answer.status(), 403);
    assert.match(await ben.text(), /for someone else/i);
    assert.equal(await ben.page.getByRole('button', { name: /continue to/i }).count(), 0);
    assert.doesNotMatch(await ben.text(), /ada@acme\.example/, 'the link carries no personal data to another');
  });

  test('a link in a browser nobody is signed in at asks to sign in first, and is not used up', async () => {
    const link = await chooseAcme(await ada(), dev.url);
    const nobody = await browser.person(dev.url, [dev.demo_provider]);
    await nobody.page.goto(link);
    assert.match(await nobody.text(), /sign in first|not signed in/i);
    await signIn(nobody, await dev.loginUrl(dev.ada));
    await nobody.page.goto(link);
    await continueToAcme(nobody, dev.demo_provider);
  });

  test('an agent that is not connected yet gets a link that works', async () => {
    const { status, body } = await vend({ tool: 'messages.list', args: {} });
    assert.deepEqual([status, body.code], [409, 'connection_required'], JSON.stringify(body));
    const person = await ada();
    await person.page.goto(body.connect.url);
    assert.match(await person.text(), /agent/i);
    const asked = await continueToAcme(person, dev.demo_provider);
    assert.equal(asked.searchParams.get('scope'), 'mail.read', "only the tool's scope is asked for");
    await answerAcme(person, dev.demo_provider);
    await confirm(person);
    assert.equal((await vend({ tool: 'messages.list', args: {} })).status, 200);
    const session = await dev.asAgent.must(200, 'GET', `/v1/connect-sessions/${body.connect.session}`);
    assert.equal(session.status ?? session.state, 'completed');
  });

  test('two accounts of one person live side by side, and a vend has to choose', async () => {
    const person = await ada();
    await connectAcme(person, dev, { account: 'ada@acme.example' });
    await connectAcme(person, dev, { account: 'other@else.example' });
    const active = (await grantsOf(dev, dev.ada)).filter((grant) => stateOf(grant) === 'active');
    assert.equal(active.length, 2);
    const { status, body } = await vend({ tool: 'messages.list', args: {} });
    assert.deepEqual([status, body.code, body.accounts.length], [409, 'account_selection_required', 2]);
  });

  test('disconnecting ends the grant here and at the provider', async () => {
    const person = await ada();
    await connectAcme(person, dev);
    const grant = await activeGrant(dev, dev.ada);
    const mark = await dev.acme.mark();
    await person.page.goto(`${dev.url}/connections/${grant.id}/disconnect`);
    await person.page.getByRole('button', { name: /^disconnect$/i }).click();
    await person.page.getByRole('heading', { name: /is disconnected/i }).waitFor();
    const { status, body } = await dev.asAgent.post('/v1/vend', { grant: grant.id, tool: 'messages.list', args: {} });
    assert.deepEqual([status, body.code], [410, 'revoked']);
    await until('the revocation at Acme', async () => (await dev.acme.since(mark, 'revoke')).some((entry) => entry.status === 200));
    assert.deepEqual(await dev.acme.since(mark, 'api'), []);
    person.assertKeptToItself();
  });

  test("nobody can open the disconnect page of another's grant", async () => {
    await connectAcme(await ada(), dev);
    const grant = await activeGrant(dev, dev.ada);
    const ben = await signedIn(dev.ben);
    for (const path of [`/connections/${grant.id}`, `/connections/${grant.id}/disconnect`]) {
      const answer = await ben.page.goto(dev.url + path);
      assert.ok([403, 404].includes(answer.status()), `${path} answered ${answer.status()}`);
    }
  });

  // The last test: it moves the clock of the server, and what came before it does not expect that.
  test('a link older than ten minutes says that it has expired, and starts again', async () => {
    const person = await ada();
    const link = await chooseAcme(person, dev.url);
    await dev.moveClock(11 * 60);
    await person.page.goto(link);
    assert.match(await person.text(), /has expired/i);
    assert.equal(await person.page.getByRole('button', { name: /continue to/i }).count(), 0);
  });
});
