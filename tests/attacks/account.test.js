// Invariant I9, at the account: more than was asked, another account than before, names made to deceive.
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';

import { activeGrant, answerAcme, confirm, connectAcme, continueToAcme, grantsOf, stateOf } from '../harness/journeys.js';
import { until } from '../harness/process.js';
import { openScene } from './scene.js';

describe('attacks with accounts and scopes', { concurrency: false }, () => {
  let scene;
  before(async () => {
    scene = await openScene();
  });
  after(() => scene?.close());
  afterEach((each) => scene?.finish(each));
  const vend = (body) => scene.dev.asAgent.post('/v1/vend', { tool: 'messages.list', args: {}, ...body });

  test('a provider that grants more than was asked: the grant is held back, neither vends nor refreshes', async () => {
    const { person } = await scene.onTheWay();
    await scene.dev.acme.fault({ next: 'token', grant_type: 'authorization_code', widen_scope: true });
    await answerAcme(person, scene.dev.demo_provider);
    assert.match(await person.text(), /more was granted/i);
    assert.equal(await person.page.getByRole('button', { name: /^confirm/i }).count(), 0);
    const held = (await grantsOf(scene.dev, scene.dev.ada)).filter((grant) => stateOf(grant) === 'quarantined');
    assert.equal(held.length, 1);
    await scene.dev.acme.expire('ada@acme.example');
    const mark = await scene.dev.acme.mark();
    const { status, body } = await vend({ grant: held[0].id });
    assert.notEqual(status, 200, JSON.stringify(body));
    assert.deepEqual(await scene.dev.acme.since(mark), [], 'neither the token nor the API was asked');
  });

  test('a refresh that comes back wider releases nothing', async () => {
    const { person } = await scene.onTheWay();
    await answerAcme(person, scene.dev.demo_provider, { without: ['mail.send', 'mail.write'] });
    await confirm(person);
    const grant = await activeGrant(scene.dev, scene.dev.ada);
    await scene.dev.acme.expire('ada@acme.example');
    await scene.dev.acme.fault({ next: 'token', grant_type: 'refresh_token', widen_scope: true });
    const mark = await scene.dev.acme.mark();
    const { status } = await vend({ grant: grant.id });
    assert.notEqual(status, 200);
    assert.deepEqual((await scene.dev.acme.since(mark, 'api')).filter((entry) => entry.status === 200), []);
  });

  test('reconnecting with another account is refused, the grant stays as it was, and the other access is given back', async () => {
    const first = await scene.signedIn(scene.dev.ada);
    await connectAcme(first, scene.dev, { account: 'ada@acme.example' });
    const grant = await activeGrant(scene.dev, scene.dev.ada);
    await scene.dev.acme.disconnect('ada@acme.example');
    const dead = await until('the grant to need a reconnect', async () => {
      const answer = await vend({ grant: grant.id });
      return answer.body.code === 'reconnect_required' && answer;
    });
    const person = await scene.signedIn(scene.dev.ada);
    await person.page.goto(dead.body.connect.url);
    await continueToAcme(person, scene.dev.demo_provider);
    const mark = await scene.dev.acme.mark();
    await answerAcme(person, scene.dev.demo_provider, { account: 'other@else.example' });
    assert.match(await person.text(), /different account/i);
    assert.match(await person.text(), /ada@acme\.example/);
    const after = (await grantsOf(scene.dev, scene.dev.ada)).find(({ id }) => id === grant.id);
    assert.equal(stateOf(after), 'needs_reconnect');
    assert.deepEqual(after.account, grant.account);
    await until('the other access to be revoked at Acme', async () => (await scene.dev.acme.since(mark, 'revoke')).some((entry) => entry.status === 200));
    assert.equal((await vend({ grant: grant.id })).status, 409);
  });

  test('an account is told by its id, not by its address: the same address with another id is another account', async () => {
    const first = await scene.signedIn(scene.dev.ada);
    await connectAcme(first, scene.dev, { account: 'ada@acme.example' });
    const grant = await activeGrant(scene.dev, scene.dev.ada);
    await scene.dev.acme.disconnect('ada@acme.example');
    const dead = await until('the grant to need a reconnect', async () => {
      const answer = await vend({ grant: grant.id });
      return answer.body.code === 'reconnect_required' && answer;
    });
    const person = await scene.signedIn(scene.dev.ada);
    await person.page.goto(dead.body.connect.url);
    await continueToAcme(person, scene.dev.demo_provider);
    await scene.dev.acme.fault({ next: 'api', path: '/userinfo', set: { sub: 'acct-someone-else', email: 'ada@acme.example' } });
    await answerAcme(person, scene.dev.demo_provider, { account: 'other@else.example' });
    assert.match(await person.text(), /different account/i);
    assert.equal(stateOf((await grantsOf(scene.dev, scene.dev.ada)).find(({ id }) => id === grant.id)), 'needs_reconnect');
  });

  const NAMES = {
    'a script': '<script>document.title="owned"</script>',
    'an image with a handler': '"><img src=x onerror="document.title=\'owned\'">',
    'a form': '</h1><form action="https://evil.example"><button>Confirm</button></form>',
    'a style': '<style>*{display:none}</style>',
    'template syntax': '{{7*7}}${7*7}<%= 7*7 %>',
    'text that runs backwards': 'ada\u202emoc.emca@live',
    'invisible characters': 'ada\u200b\u2060@acme.example\ufeff',
    'a line break and a terminal escape': 'ada@acme.example\r\nSet-Cookie: x=y\u001b[31m',
    'a NUL': 'ada\u0000@acme.example',
    'ten thousand letters': 'a'.repeat(10_000),
    'another person’s address': 'ben@acme.example',
  };
  for (const [what, email] of Object.entries(NAMES)) {
    test(`an account whose name is ${what} is shown as text and harms nobody`, async () => {
      const { person } = await scene.onTheWay();
      await scene.dev.acme.fault({ next: 'api', path: '/userinfo', set: { email } });
      await answerAcme(person, scene.dev.demo_provider);
      const shown = await person.text();
      assert.notEqual(await person.page.title(), 'owned');
      assert.equal(await person.page.locator('form[action*="evil"], img[src="x"], main script, main style').count(), 0);
      for (const hidden of ['\u202e', '\u200b', '\u2060', '\ufeff', '\u0000', '\u001b']) assert.ok(!shown.includes(hidden), `U+${hidden.codePointAt(0).toString(16)} stands on the page as it is`);
      await person.assertFits();
      person.assertKeptToItself();
      // It may be refused or shown; if it can be confirmed, the list and the record must bear it, too.
      if ((await person.page.getByRole('button', { name: /^confirm/i }).count()) > 0) {
        await confirm(person);
        for (const path of ['/connections', '/activity']) {
          await person.page.goto(scene.dev.url + path);
          assert.notEqual(await person.page.title(), 'owned');
          await person.assertFits();
        }
        person.assertKeptToItself();
      }
    });
  }

  test('an account that calls itself Ben does not become Ben: the grant is the one’s who consented', async () => {
    const { person } = await scene.onTheWay(scene.dev.ada);
    await scene.dev.acme.fault({ next: 'api', path: '/userinfo', set: { email: 'ben@acme.example' } });
    await answerAcme(person, scene.dev.demo_provider);
    await confirm(person);
    assert.deepEqual((await grantsOf(scene.dev, scene.dev.ben)).filter((grant) => stateOf(grant) === 'active'), []);
    await activeGrant(scene.dev, scene.dev.ada);
  });

  test('a provider’s error text reaches no page as markup', async () => {
    const { person, asked } = await scene.onTheWay();
    const state = asked.searchParams.get('state');
    const callback = new URL(asked.searchParams.get('redirect_uri'));
    callback.searchParams.set('state', state);
    callback.searchParams.set('iss', scene.dev.demo_provider.replace(/\/$/, ''));
    callback.searchParams.set('error', 'server_error"><script>document.title="owned"</script>');
    callback.searchParams.set('error_description', '<b>call 0800-EVIL</b>');
    await scene.sendsNoTokenRequest(() => scene.deliver(person, callback));
    assert.notEqual(await person.page.title(), 'owned');
    assert.doesNotMatch(await person.text(), /0800-EVIL/);
  });
});
