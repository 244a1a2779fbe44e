// The README's quickstart does what it says, within the minute it promises. The build is not part of the minute.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { appendFileSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';

import { openBrowser } from '../harness/browser.js';
import { answerAcme, chooseAcme, confirm, continueToAcme, signIn } from '../harness/journeys.js';
import { until } from '../harness/process.js';
import { REPO, TEMPORARY, folder, posternBinary } from '../harness/run.js';
import { printedCurls, quickstart } from './readme.js';

const dir = folder('quickstart');
let server;
let browser;
after(async () => {
  // The shell of a `serve` block leads a process group of its own; only that group ends here.
  if (server && server.exitCode === null) process.kill(-server.pid, 'SIGTERM');
  await browser?.close();
});

test('markers, blocks and expectations are found in order', () => {
  const steps = quickstart('<!-- quickstart: serve -->\n```sh\n$ a\n```\n<!-- quickstart -->\n\n```bash\nb \\\n  c\n```\n<!-- quickstart: expect hello -->\n```sh\nnot this\n```\n<!-- quickstart: printed -->');
  assert.deepEqual(steps.map(({ kind, commands, expect }) => [kind, commands, expect]), [
    ['serve', 'a', []],
    ['run', 'b \\\n  c', ['hello']],
    ['printed', undefined, []],
  ]);
  assert.deepEqual(printedCurls('  $ curl -s x \\\n     -d y\nnothing\ncurl z'), ['curl -s x  -d y', 'curl z']);
});

test('the quickstart of README.md works as it stands', { timeout: 180_000 }, async () => {
  const steps = quickstart(readFileSync(join(REPO, 'README.md'), 'utf8'));
  assert.ok(steps.some(({ kind }) => kind === 'serve'), 'README.md has no block marked <!-- quickstart: serve -->');
  const began = Date.now();
  const state = join(dir, 'shell-state');
  let printed = '';
  for (const { kind, commands, line, expect } of steps) {
    let output = '';
    if (kind === 'serve') {
      server = spawn('bash', ['-euc', built(commands)], { cwd: REPO, env: environment(), detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
      for (const stream of [server.stdout, server.stderr]) stream.on('data', (chunk) => (printed += chunk.toString('utf8')));
      await until('the server prints where it is', () => {
        assert.equal(server.exitCode, null, printed);
        return /http:\/\/127\.0\.0\.1:\d+\/login\/\S+/.test(plain(printed));
      }, 60_000);
      output = printed;
    } else if (kind === 'exports') {
      const pasted = plain(printed).split('\n').find((line) => /^\s*export POSTERN_URL=/.test(line));
      assert.ok(pasted, 'the server printed no export line');
      appendFileSync(state, `${pasted.trim()}\n`);
    } else if (kind === 'connect') {
      const [, login] = /(http:\/\/127\.0\.0\.1:\d+\/login\/\S+)/.exec(plain(printed));
      browser ??= await openBrowser();
      const own = new URL(login).origin;
      const person = await browser.person(own, ['http://127.0.0.1']);
      await person.context.unroute('**/*');
      await signIn(person, login);
      await chooseAcme(person, own);
      const asked = await continueToAcme(person, await providerIn(printed, own));
      await answerAcme(person, asked.origin);
      await confirm(person);
    } else {
      const script = kind === 'printed' ? printedCurls(printed).join('\n') : built(commands);
      assert.ok(script.trim(), `README.md:${line}: nothing to run`);
      const done = spawnSync('bash', ['-euo', 'pipefail', '-c', `[ ! -f "${state}" ] || . "${state}"; ${script}\nexport -p > "${state}"`], { cwd: REPO, env: environment(), encoding: 'utf8', timeout: 60_000 });
      output = `${done.stdout}${done.stderr}`;
      assert.equal(done.status, 0, `README.md:${line}:\n${script}\n${output}`);
    }
    for (const text of expect) assert.ok(plain(output).includes(text), `README.md:${line}: the output does not hold "${text}":\n${output.slice(-2000)}`);
  }
  const seconds = (Date.now() - began) / 1000;
  assert.ok(seconds < 60, `it took ${seconds} s; the README says sixty`);
});

// The program is built before the tests run; `cargo run --release` would build it once more, for ten minutes.
function built(commands) {
  return commands.replaceAll(/cargo run (--release )?(--locked )?--(?= )/g, 'postern');
}

function environment() {
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith('POSTERN_'));
  return { ...Object.fromEntries(kept), TMPDIR: TEMPORARY, PATH: `${dirname(posternBinary())}:${process.env.PATH}` };
}

function plain(output) {
  return output.replace(/\u001b\[[0-9;]*m/g, '');
}

// Acme Mail is whichever other address on loopback the server printed.
async function providerIn(output, own) {
  const origins = [...plain(output).matchAll(/http:\/\/127\.0\.0\.1:\d+/g)].map(([origin]) => origin);
  for (const origin of new Set(origins)) {
    if (origin === own) continue;
    if ((await fetch(`${origin}/admin/log`).catch(() => ({ ok: false }))).ok) return origin;
  }
  throw new Error('the server did not print where Acme Mail is');
}
