// Every page: accessible, within 360 px, in light and dark, without JavaScript, and asking nothing of anybody else.
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';

import { openBrowser } from '../harness/browser.js';
import { activeGrant, answerAcme, chooseAcme, confirm, connectAcme, continueToAcme, signIn } from '../harness/journeys.js';
import { startDev } from '../harness/postern.js';

describe('the pages', { concurrency: false }, () => {
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
    await dev.asAgent.post('/v1/vend', { grant: grant.id, tool: 'messages.list', args: {} });
    await dev.asAgent.post('/v1/vend', { grant: grant.id, tool: 'messages.send', args: { to: ['x@else.example'], subject: 's', body: 'b' } });
    await browser.finish();
  });
  after(async () => {
    await browser?.close();
    await dev?.stop();
  });
  afterEach((each) => browser?.finish(each));

  const looks = {
    'at 360 px in light': { viewport: { width: 360, height: 740 }, colorScheme: 'light' },
    'at 360 px in dark': { viewport: { width: 360, height: 740 }, colorScheme: 'dark' },
    'at 1280 px in light': { viewport: { width: 1280, height: 900 }, colorScheme: 'light' },
    'at 1280 px in dark': { viewport: { width: 1280, height: 900 }, colorScheme: 'dark' },
  };
  const plain = {
    connections: () => '/connections',
    'one connection': () => `/connections/${grant.id}`,
    disconnect: () => `/connections/${grant.id}/disconnect`,
    activity: () => '/activity',
    people: () => '/admin/people',
    agents: () => '/admin/agents',
    revoke: () => '/admin/revoke',
    'a page that is not there': () => '/nothing-here',
    'a problem code': () => '/problems/denied',
  };
  const check = async (person, what) => {
    await person.assertAccessible(what);
    await person.assertFits();
    person.assertKeptToItself();
  };

  for (const [look, options] of Object.entries(looks)) {
    test(`every page of a signed-in admin is in order ${look}`, async () => {
      const ada = await browser.person(dev.url, [dev.demo_provider], options);
      await signIn(ada, await dev.loginUrl(dev.ada));
      for (const [name, path] of Object.entries(plain)) {
        const answer = await ada.page.goto(dev.url + path());
        assert.equal(answer.status(), name === 'a page that is not there' ? 404 : 200, name);
        await check(ada, `${name} ${look}`);
      }
    });

    test(`every page on the way through connecting is in order ${look}`, async () => {
      const ada = await browser.person(dev.url, [dev.demo_provider], options);
      await ada.page.goto(await dev.loginUrl(dev.ada));
      await check(ada, `login ${look}`);
      await ada.page.getByRole('button', { name: 'Sign in' }).click();
      await chooseAcme(ada, dev.url);
      await check(ada, `what is asked ${look}`);
      await continueToAcme(ada, dev.demo_provider);
      await answerAcme(ada, dev.demo_provider, { without: ['mail.write'] });
      await check(ada, `confirm ${look}`);
      await confirm(ada);
      await check(ada, `connected ${look}`);
      await chooseAcme(ada, dev.url);
      await continueToAcme(ada, dev.demo_provider);
      await answerAcme(ada, dev.demo_provider, { verdict: 'Deny' });
      await check(ada, `denied ${look}`);
    });

    test(`the revocation preview is in order ${look}`, async () => {
      const ada = await browser.person(dev.url, [], options);
      await signIn(ada, await dev.loginUrl(dev.ada));
      await ada.page.goto(`${dev.url}/admin/revoke`);
      await ada.page.getByRole('radio', { name: /everything/i }).check();
      await ada.page.getByRole('textbox', { name: /reason/i }).fill('a look');
      await ada.page.getByRole('button', { name: /show what would end/i }).click();
      await check(ada, `revocation preview ${look}`);
    });
  }

  test('connecting works without JavaScript', async () => {
    const ben = await browser.person(dev.url, [dev.demo_provider], { javaScriptEnabled: false });
    await signIn(ben, await dev.loginUrl(dev.ben));
    await connectAcme(ben, dev, { account: 'ben@acme.example' });
    const bens = await activeGrant(dev, dev.ben);
    const { status } = await dev.asAgent.post('/v1/vend', { grant: bens.id, tool: 'messages.list', args: {} });
    assert.equal(status, 200);
    await ben.page.goto(`${dev.url}/connections/${bens.id}/disconnect`);
    await ben.page.getByRole('button', { name: /^disconnect$/i }).click();
    await ben.page.getByRole('heading', { name: /is disconnected/i }).waitFor();
  });

  test('every page comes with the headers that keep it alone', async () => {
    const ada = await browser.person(dev.url);
    await signIn(ada, await dev.loginUrl(dev.ada));
    for (const [name, path] of Object.entries(plain)) {
      const answer = await ada.page.goto(dev.url + path());
      const headers = await answer.allHeaders();
      const policy = headers['content-security-policy'] ?? '';
      assert.match(policy, /default-src 'none'/, name);
      assert.match(policy, /frame-ancestors 'none'/, name);
      assert.match(policy, /base-uri 'none'/, name);
      assert.match(policy, /form-action 'self'/, name);
      assert.doesNotMatch(policy, /unsafe|\*/, name);
      assert.equal(headers['x-content-type-options'], 'nosniff', name);
      assert.match(headers['referrer-policy'] ?? '', /no-referrer|same-origin/, name);
      assert.match(headers['cache-control'] ?? '', /no-store/, name);
    }
  });

  test('a page can be walked with the keyboard alone: the first stop skips to the content', async () => {
    const ada = await browser.person(dev.url);
    await signIn(ada, await dev.loginUrl(dev.ada));
    await ada.page.goto(`${dev.url}/connections`);
    await ada.page.keyboard.press('Tab');
    assert.match(await ada.page.evaluate(() => document.activeElement?.textContent ?? ''), /skip to content/i);
  });
});
