// The real connector files, pointed at loopback: only addresses and the id change (and what
// `adapt` says, with its reason), so what is tested is what ships.
//
//   node derive-connectors.js OUT google=4700 slack=4701 github=4702 oidc=4703
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { parse, stringify } from 'smol-toml';

import { REPO, TESTS } from '../harness/run.js';

/** Which file stands for which peer, and where the peer has what the real provider has. First match wins. */
export const SOURCES = {
  google: {
    file: join(REPO, 'connectors/gmail.toml'),
    id: 'peer-gmail',
    addresses: [
      // emulate serves Google's token host below /oauth2; everything else has the real path.
      ['https://oauth2.googleapis.com/token', '/oauth2/token'],
      ['https://oauth2.googleapis.com/revoke', '/oauth2/revoke'],
      ['https://oauth2.googleapis.com', ''],
      ['https://accounts.google.com', ''],
      ['https://gmail.googleapis.com', ''],
    ],
  },
  slack: { file: join(REPO, 'connectors/slack.toml'), id: 'peer-slack', addresses: [['https://slack.com', '']] },
  github: {
    file: join(REPO, 'connectors/github.toml'),
    id: 'peer-github',
    addresses: [
      ['https://api.github.com', ''],
      ['https://github.com', ''],
    ],
    // GitHub answers scopes with commas; emulate echoes the spaces of the request (facts.test.js holds it to that).
    adapt: (connector) => delete connector.token.scope_separator,
  },
  'oidc-strict': { file: join(TESTS, 'peers/connectors/oidc-strict.toml'), addresses: [['https://oidc.peer.example', '']] },
  'oidc-lenient': { file: join(TESTS, 'peers/connectors/oidc-lenient.toml'), addresses: [['https://oidc.peer.example', '']] },
};

/** Writes the connector file of `peer` for a server at `port` into `folder`; returns its id and address. */
export function derive(peer, port, folder) {
  const { file, id, addresses, adapt = () => {} } = SOURCES[peer];
  const connector = parse(readFileSync(file, 'utf8'));
  const origin = `http://127.0.0.1:${port}`;
  const authority = `127.0.0.1:${port}`;
  const hosts = new Set(addresses.map(([from]) => new URL(from).host));
  let moved = 0;

  const rewrite = (value, path) => {
    if (Array.isArray(value)) return value.map((each) => rewrite(each, path));
    if (value && typeof value === 'object' && !(value instanceof Date)) {
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, rewrite(each, [...path, key])]));
    }
    if (typeof value !== 'string') return value;
    // Pages for people, never called.
    if (['docs_url', 'manage_url'].includes(path.at(-1))) return value;
    if (path.join('.') === 'api.hosts' && hosts.has(value)) return authority;
    const match = addresses.find(([from]) => value === from || value.startsWith(`${from}/`));
    if (!match) return value;
    moved += 1;
    return `${origin}${match[1]}${value.slice(match[0].length)}`;
  };
  const derived = rewrite(connector, []);
  derived.id = id ?? connector.id;
  adapt(derived);
  // A file whose calls would still leave the machine is a broken derivation, not a test.
  const called = stringify({ server: derived.server, identity: derived.identity, revoke: derived.revoke ?? {}, api: derived.api, action: derived.action });
  const outside = [...hosts].filter((host) => called.includes(host));
  if (moved < 3 || outside.length > 0) throw new Error(`${file}: ${moved} addresses moved to loopback, still named: ${outside.join(', ')}`);
  const text = stringify(derived);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `${derived.id}.toml`), text);
  return { connector: derived.id, name: connector.name, address: authority };
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [folder, ...peers] = process.argv.slice(2);
  if (!folder || peers.length === 0) {
    console.error(`usage: derive-connectors.js OUT PEER=PORT …   (peers: ${Object.keys(SOURCES).join(', ')})`);
    process.exit(2);
  }
  for (const [peer, port] of peers.map((each) => each.split('='))) console.log(JSON.stringify(derive(peer, Number(port), folder)));
}
