// Looks for planted secrets in files, in the forms a leak takes: as they are, percent-encoded, hexadecimal, base64 at
// each of the three alignments, and JSON-escaped. Tokens known only by digest are found by their shape.
import { createHash } from 'node:crypto';
import { lstatSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

/** Every file below `root`, links not followed. */
export function filesBelow(root) {
  const found = [];
  const walk = (path) => {
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (!stat) return;
    if (stat.isDirectory()) for (const name of readdirSync(path)) walk(join(path, name));
    else if (stat.isFile()) found.push(path);
  };
  walk(root);
  return found;
}

/** `[{file, offset, name, form}]` for every planted secret found in `files`. */
export function scan(files, secrets) {
  const needles = secrets.filter(({ secret }) => secret).flatMap(({ name, secret }) => forms(secret).map((each) => ({ name, ...each })));
  const digests = new Map(secrets.filter(({ sha256 }) => sha256).map(({ name, sha256 }) => [sha256.toLowerCase(), name]));
  const prefixes = [...new Set(secrets.filter(({ prefix }) => prefix).map(({ prefix }) => prefix))];
  const leaks = [];
  for (const file of files) {
    const bytes = readFileSync(file);
    for (const { name, form, needle } of needles) {
      for (let offset = bytes.indexOf(needle); offset >= 0; offset = bytes.indexOf(needle, offset + 1)) {
        leaks.push({ file, offset, name, form });
      }
    }
    for (const prefix of prefixes) {
      for (let offset = bytes.indexOf(prefix); offset >= 0; offset = bytes.indexOf(prefix, offset + 1)) {
        const name = digests.get(digestAt(bytes, offset, prefix.length, digests));
        if (name) leaks.push({ file, offset, name, form: 'as it is' });
      }
    }
  }
  return leaks;
}

// 32 bytes are 43 characters of base64url; a database page may put anything right after them.
function digestAt(bytes, offset, prefixLength, digests) {
  for (const length of [43, 44, 42]) {
    const text = bytes.subarray(offset, offset + prefixLength + length);
    const digest = createHash('sha256').update(text).digest('hex');
    if (digests.has(digest)) return digest;
  }
  return undefined;
}

function forms(secret) {
  const raw = Buffer.from(secret, 'utf8');
  const list = [
    { form: 'as it is', needle: raw },
    { form: 'percent-encoded', needle: Buffer.from(encodeURIComponent(secret)) },
    { form: 'JSON-escaped', needle: Buffer.from(JSON.stringify(secret).slice(1, -1)) },
    { form: 'hexadecimal', needle: Buffer.from(raw.toString('hex')) },
    { form: 'HEXADECIMAL', needle: Buffer.from(raw.toString('hex').toUpperCase()) },
    { form: 'UTF-16', needle: Buffer.from(secret, 'utf16le') },
  ];
  for (const encoding of ['base64', 'base64url']) {
    for (const shift of [0, 1, 2]) {
      // The characters that depend on the secret alone, wherever it begins inside a group of three bytes.
      const text = Buffer.concat([Buffer.alloc(shift), raw]).toString(encoding).replace(/=+$/, '');
      const from = [0, 2, 3][shift];
      const until = (shift + raw.length) % 3 === 0 ? text.length : text.length - 1;
      list.push({ form: `${encoding} at ${shift}`, needle: Buffer.from(text.slice(from, until)) });
    }
  }
  const seen = new Set();
  return list.filter(({ needle }) => needle.length >= 12 && !seen.has(needle.toString('latin1')) && seen.add(needle.toString('latin1')));
}
