// The canonical form (RFC 8785) and the action hash, against npm canonicalize.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, afterEach, before, describe, test } from 'node:test';

import canonicalizeModule from 'canonicalize';

import { openBrowser } from '../harness/browser.js';
import { activeGrant, connectAcme, signIn } from '../harness/journeys.js';
import { startDev } from '../harness/postern.js';

const canonicalize = canonicalizeModule.default ?? canonicalizeModule;
const TEXTS = {
  'plain text': 'hello',
  'quotes, backslashes and slashes': 'a "quoted" \\ and / slash',
  'short escapes': '\b\t\n\f\r',
  'other controls': '\u0001\u001f\u007f\u0080',
  'line and paragraph separators': '\u2028\u2029',
  'characters beyond the first plane': '😂 𝒳 𠜎',
  'right to left and combining': 'שלום \u0301e\u0301 é',
  'what looks like JSON': '{"a":[1,2,{"b":null}]}',
  'what looks like escapes': '\\u0041 \\n &lt;',
  'a byte order mark and a replacement character': '\ufeff\ufffd',
};

describe('the canonical form and a second implementation of it', { concurrency: false }, () => {
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
  const describeAction = (tool, args) => dev.asAgent.must(200, 'POST', '/v1/actions', { grant: grant.id, tool, args });

  const agree = ({ action, canonical, action_hash }) => {
    assert.equal(canonical, canonicalize(action), 'two implementations, one form');
    assert.equal(action_hash, createHash('sha256').update(canonicalize(action)).digest('base64url'));
  };

  for (const [name, body] of Object.entries(TEXTS)) {
    test(`two implementations agree on ${name}`, async () => {
      const answer = await describeAction('messages.send', { to: ['ben@acme.example'], subject: 'A subject', body });
      assert.equal(answer.action.args.body, body);
      agree(answer);
    });
  }

  test('two implementations agree on integers at both ends', async () => {
    for (const limit of [1, 100]) agree(await describeAction('messages.list', { limit }));
  });

  test('the action has all its members and no others', async () => {
    const { action } = await describeAction('messages.list', {});
    assert.deepEqual(Object.keys(action).sort(), ['agent', 'args', 'connector', 'grant', 'org', 'tool', 'tool_digest', 'typ', 'user']);
    assert.equal(action.typ, 'postern.action/1');
    assert.match(action.tool_digest, /^sha256:[0-9a-f]{64}$/);
  });

  test('a default is filled in before hashing: leaving it out or giving it makes no difference', async () => {
    const left = await describeAction('messages.list', {});
    const given = await describeAction('messages.list', { limit: left.action.args.limit });
    assert.equal(typeof left.action.args.limit, 'number');
    assert.equal(left.action_hash, given.action_hash);
  });

  test('the order of the arguments makes no difference', async () => {
    const args = { to: ['ben@acme.example'], subject: 's', body: 'b' };
    const backwards = Object.fromEntries(Object.entries(args).reverse());
    assert.equal((await describeAction('messages.send', args)).action_hash, (await describeAction('messages.send', backwards)).action_hash);
  });

  test('one different character makes a different hash', async () => {
    const args = { to: ['ben@acme.example'], subject: 's', body: 'b' };
    assert.notEqual((await describeAction('messages.send', args)).action_hash, (await describeAction('messages.send', { ...args, body: 'c' })).action_hash);
  });

  test('asking for the form of an action does nothing at the provider', async () => {
    const mark = await dev.acme.mark();
    await describeAction('messages.send', { to: ['ben@acme.example'], subject: 's', body: 'b' });
    assert.deepEqual(await dev.acme.since(mark), []);
  });

  for (const [name, text] of Object.entries({
    'a member twice': '{"limit":1,"limit":2}',
    'a lone surrogate': '{"q":"\\ud800"}',
    'a fraction where an integer belongs': '{"limit":1.5}',
    'an integer beyond 2^53': '{"limit":9007199254740993}',
    'a fraction that says an integer': '{"limit":1.0}',
    'an exponent': '{"limit":1e1}',
  })) {
    test(`the strict gate refuses ${name}`, async () => {
      const answer = await fetch(new URL('/v1/actions', dev.url), {
        method: 'POST',
        headers: { authorization: `Bearer ${dev.agent.key}`, 'content-type': 'application/json' },
        body: `{"grant":"${grant.id}","tool":"messages.list","args":${text}}`,
      });
      assert.equal(answer.status, 400);
      assert.match((await answer.json()).code, /^invalid_(request|args)$/);
    });
  }
});
