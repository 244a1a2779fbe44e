// Where one run of the suites keeps everything: outputs, data directories, screenshots, and — outside the part the
// canary greps — the secrets to look for.
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const TESTS = resolve(dirname(fileURLToPath(import.meta.url)), '..');
export const REPO = resolve(TESTS, '..');

const base = process.env.POSTERN_TEST_RUN ?? mkdtempSync(join(tmpdir(), 'postern-tests-'));

/** Everything below here is grepped by the canary. */
export const SEEN = join(base, 'seen');
/** The planted secrets: JSON lines of {name, secret} or {name, sha256, pattern}. */
const PLANTED = join(base, 'planted.jsonl');
/** Pictures of failures. */
export const PICTURES = join(base, 'pictures');
/** Key files: the one place where a key is meant to be, so not below SEEN. */
export const KEYS = join(base, 'keys');
/** Temporary files of the programs under test; those of the tests' own browser lie elsewhere. */
export const TEMPORARY = join(SEEN, 'tmp');
for (const folder of [SEEN, PICTURES, KEYS, TEMPORARY]) mkdirSync(folder, { recursive: true });

let counter = 0;
/** A new folder for one server's outputs and data. */
export function folder(name) {
  counter += 1;
  const path = join(SEEN, `${name}-${process.pid}-${counter}`);
  mkdirSync(path, { recursive: true, mode: 0o700 });
  return path;
}

/** Tells the canary to look for `secret` in everything Postern wrote. */
export function plant(name, secret) {
  if (typeof secret !== 'string' || secret.length < 12) throw new Error(`not a secret worth looking for: ${name}`);
  appendFileSync(PLANTED, `${JSON.stringify({ name, secret })}\n`);
  return secret;
}

/** Tells the canary about a secret known only by its SHA-256; `prefix` is how such tokens begin. */
export function plantDigest(name, prefix, sha256) {
  appendFileSync(PLANTED, `${JSON.stringify({ name, prefix, sha256 })}\n`);
}

/** What was planted so far, by this process and the ones before it in the run. */
export function planted() {
  if (!existsSync(PLANTED)) return [];
  const seen = new Set();
  return readFileSync(PLANTED, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line))
    .filter((each) => !seen.has(each.secret ?? each.sha256) && seen.add(each.secret ?? each.sha256));
}

/** The program under test. A missing one is a failure, never a skip. */
export function posternBinary() {
  const target = process.env.CARGO_TARGET_DIR ?? join(REPO, 'target');
  const candidates = process.env.POSTERN_BIN
    ? [process.env.POSTERN_BIN]
    : [join(target, 'release/postern'), join(target, 'debug/postern')];
  const found = candidates.find(existsSync);
  if (!found) {
    throw new Error(`no postern program at ${candidates.join(' or ')}: build it (cargo build) or set POSTERN_BIN`);
  }
  return found;
}
