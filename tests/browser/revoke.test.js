// The admin ends access on one page: what would end, a word to confirm, a receipt.
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';

import { openBrowser } from '../harness/browser.js';
import { activeGrant, connectAcme, signIn } from '../harness/journeys.js';
import { startDev } from '../harness/postern.js';
import { until } from '../harness/process.js';

describe('revoking in a browser', { concurrency: false }, () => {
  let dev;
  let browser;
  let ada;
  let grant;
  let benState;
  before(async () => {
    dev = await startDev();
    browser = await openBrowser();
    const ben = await browser.person(dev.url, [dev.demo_provider]);
    await signIn(ben, dev.ben.login_url);
    await connectAcme(ben, dev, { account: 'ben@acme.example' });
    grant = await activeGrant(dev, dev.ben);
    benState = await ben.context.storageState();
    await browser.finish();
  });
  after(async () => {
    await browser?.close();
    await dev?.stop();
  });
  afterEach((each) => browser?.finish(each));
  const vend = () => dev.asAgent.post('/v1/vend', { grant: grant.id, tool: 'messages.list', args: {} });
  const preview = async () => {
    ada = await browser.person(dev.url, [dev.demo_provider]);
    await signIn(ada, await dev.loginUrl(dev.ada));
    await ada.page.goto(`${dev.url}/admin/revoke`);
    await ada.page.getByRole('radio', { name: /^one person/i }).check();
    await ada.page.getByRole('combobox', { name: /one person/i }).selectOption(dev.ben.id);
    await ada.page.getByRole('textbox', { name: /reason/i }).fill('laptop <b>lost</b>');
    await ada.page.getByRole('button', { name: /show what would end/i }).click();
  };

  test('a member does not see the page', async () => {
    const ben = await browser.person(dev.url);
    await signIn(ben, await dev.loginUrl(dev.ben));
    const answer = await ben.page.goto(`${dev.url}/admin/revoke`);
    assert.ok([403, 404].includes(answer.status()), `answered ${answer.status()}`);
    assert.equal(await ben.page.getByRole('link', { name: 'Revoke' }).count(), 0);
  });

  test('the dry run counts and ends nothing', async () => {
    await preview();
    assert.match(await ada.text(), /nothing has ended yet/i);
    assert.match(await ada.text(), /1\s+connection/i);
    assert.match(await ada.text(), /laptop <b>lost<\/b>/, 'the reason is shown as text');
    assert.equal((await vend()).status, 200);
  });

  test('a mistyped word ends nothing', async () => {
    await preview();
    await ada.page.getByRole('textbox', { name: /^type/i }).fill('wrong');
    await ada.page.getByRole('button', { name: /end it now/i }).click();
    assert.match(await ada.text(), /nothing has ended/i);
    assert.equal((await vend()).status, 200);
  });

  test('confirming ends it at once, and the receipt says what became of it at the provider', async () => {
    const mark = await dev.acme.mark();
    await preview();
    const label = await ada.page.locator('label[for="word"] strong').innerText();
    await ada.page.getByRole('textbox', { name: /^type/i }).fill(label);
    await ada.page.getByRole('button', { name: /end it now/i }).click();
    await ada.page.getByRole('heading', { level: 1, name: /revocation receipt/i }).waitFor();
    const { status, body } = await vend();
    assert.deepEqual([status, body.code], [410, 'revoked']);
    await until('the revocation at Acme', async () => (await dev.acme.since(mark, 'revoke')).some((entry) => entry.status === 200));
    await until('the receipt to say so', async () => {
      await ada.page.getByRole('link', { name: /look again/i }).click();
      return /revoked|ended at the app|confirmed/i.test(await ada.page.getByRole('table').innerText());
    });
    assert.deepEqual(await dev.acme.since(mark, 'api'), []);
    ada.assertKeptToItself();
  });

  test('the person’s session ended, too', async () => {
    assert.ok(benState.cookies.length > 0, 'Ben had a session');
    const ben = await browser.person(dev.url, [], { storageState: benState });
    await ben.page.goto(`${dev.url}/connections`);
    assert.match(await ben.text(), /not signed in/i);
  });

  test('the activity page tells who ended what, and why', async () => {
    ada = await browser.person(dev.url);
    await signIn(ada, await dev.loginUrl(dev.ada));
    await ada.page.goto(`${dev.url}/activity`);
    const text = await ada.text();
    assert.match(text, /laptop <b>lost<\/b>|revoked|ended/i);
    ada.assertKeptToItself();
  });
});
