// I7: no plaintext secret outside the memory of the request. Runs last: it greps everything the other suites made
// Postern write — logs, process output, database files, WAL, spool, temporary files — for what they planted.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { test } from 'node:test';

import { SEEN, planted } from '../harness/run.js';
import { filesBelow, scan } from '../harness/scan.js';

test('the canary sings: a secret planted in a file is found, in every form, with its offset', () => {
  const dir = mkdtempSync(join(tmpdir(), 'postern-canary-'));
  try {
    const secret = `psa_${randomBytes(32).toString('base64url')}`;
    const token = `acme_at_${randomBytes(32).toString('base64url')}`;
    const secrets = [
      { name: 'a key', secret },
      { name: 'a token', prefix: 'acme_at_', sha256: createHash('sha256').update(token).digest('hex') },
    ];
    const written = {
      plain: `noise ${secret} noise`,
      hex: Buffer.from(secret).toString('hex'),
      basic: Buffer.from(`client:${secret}:more`).toString('base64'),
      url: `x?y=${encodeURIComponent(secret)}`,
      token: `${token}AAAA`,
    };
    for (const [name, text] of Object.entries(written)) {
      const file = join(dir, name);
      writeFileSync(file, Buffer.concat([Buffer.from([0, 255]), Buffer.from(text)]));
      const leaks = scan([file], secrets);
      assert.ok(leaks.length > 0, `not found: ${name}`);
      assert.ok(leaks[0].offset >= 2);
    }
    const innocent = join(dir, 'innocent');
    writeFileSync(innocent, `acme_at_${randomBytes(32).toString('base64url')} psa_${randomBytes(32).toString('base64url')}`);
    assert.deepEqual(scan([innocent], secrets), []);
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test('nothing Postern wrote during the whole run holds a planted secret', () => {
  const secrets = planted();
  const files = filesBelow(SEEN);
  assert.ok(process.env.POSTERN_TEST_RUN, 'POSTERN_TEST_RUN is not set: there is no run to look at (use scripts/test)');
  const literal = secrets.filter(({ secret }) => secret).length;
  const digests = secrets.length - literal;
  assert.ok(literal >= 5, `only ${literal} secrets were planted: the suites before this one did not run`);
  assert.ok(digests >= 4, `only ${digests} of Acme's tokens are known: the suites before this one did not run`);
  assert.ok(files.some((file) => /\.db$|\.sqlite3?$/.test(file)), 'no database file was seen');
  assert.ok(files.some((file) => /stderr\.log$/.test(file)), 'no process output was seen');
  const leaks = scan(files, secrets);
  const lines = leaks.slice(0, 50).map(({ file, offset, name, form }) => `${relative(SEEN, file)} at byte ${offset}: ${name}, ${form}`);
  assert.equal(leaks.length, 0, `${leaks.length} leaks:\n${lines.join('\n')}`);
  console.log(`canary: ${literal} secrets and ${digests} digests in ${files.length} files: none found`);
});
