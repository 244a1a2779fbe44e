// Postern itself, as a person would start it: `postern dev` for the demo, `postern serve` for production.
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { Acme } from './acme.js';
import { Api } from './api.js';
import { freePorts } from './ports.js';
import { run, start, startAndRead, until } from './process.js';
import { KEYS, folder, plant, posternBinary } from './run.js';

/**
 * `postern dev --json --port 0`, its data directory kept for the canary. With `movableClock`, `moveClock(seconds)`
 * sets the wall clock of that process (and of Acme, which lives in it) ahead; nobody else's.
 */
export async function startDev({ env = {}, movableClock = false } = {}) {
  const dir = folder('dev');
  const data = join(dir, 'data');
  const clock = join(dir, 'clock');
  if (movableClock) {
    writeFileSync(clock, '+0\n');
    env = { ...env, LD_PRELOAD: faketime(), FAKETIME_TIMESTAMP_FILE: clock, FAKETIME_NO_CACHE: '1', FAKETIME_DONT_FAKE_MONOTONIC: '1' };
  }
  const started = await startAndRead(posternBinary(), ['dev', '--json', '--port', '0', '--data', data], { dir, env, name: 'postern dev' });
  const demo = started.answer;
  plant('the demo admin key', demo.admin_key);
  plant('the demo service key', demo.service_key);
  for (const agent of demo.agents) plant(`the key of ${agent.name}`, agent.key);
  const admin = new Api(demo.url, demo.admin_key);
  const acme = new Acme(demo.demo_provider);
  return {
    ...demo,
    ...started,
    data,
    ada: demo.users.at(0),
    ben: demo.users.at(-1),
    agent: demo.agents[0],
    admin,
    acme,
    api: (key) => new Api(demo.url, key),
    asAgent: new Api(demo.url, demo.agents[0].key),
    asService: new Api(demo.url, demo.service_key),
    /** A fresh login link: the printed ones live ten minutes and work once. */
    async loginUrl(user) {
      const { url } = await admin.must(201, 'POST', `/v1/users/${user.id}/login-links`, {}).catch(() =>
        admin.must(200, 'POST', `/v1/users/${user.id}/login-links`, {}),
      );
      plant('a login link', new URL(url).pathname.split('/').pop());
      return url;
    },
    /** Moves the wall clock `seconds` ahead, and checks that Postern noticed. */
    async moveClock(seconds) {
      writeFileSync(clock, `+${seconds}\n`);
      const answer = await admin.post(`/v1/users/${demo.users.at(-1).id}/login-links`, {});
      const ahead = Date.parse(answer.body.expires_at) - Date.now();
      plant('a login link', new URL(answer.body.url).pathname.split('/').pop());
      if (!(ahead > seconds * 1000)) throw new Error(`the clock did not move: a new link ends ${ahead} ms from now. Does the program ask the kernel past libc?`);
    },
    async stop() {
      await acme.log().catch(() => {}); // the digests of all it issued, for the canary
      return started.stop();
    },
  };
}

/**
 * `postern serve` over a new database, one organisation "Peers" with the admin Ada, and what `apply` (a TOML text)
 * says. `connectors` is the folder of connector files, `allow` the loopback addresses they may reach. Over SQLite one
 * process; over `postgres` (`startPostgres`) as many `replicas` as are asked for, behind the first one's address.
 */
export async function startServe({ connectors, allow, secrets = {}, apply, policies, ports, postgres, replicas = 1 }) {
  const dir = folder('serve');
  const [port, ...free] = ports ?? (await freePorts(2 * replicas));
  const url = `http://127.0.0.1:${port}`;
  const kek = join(KEYS, `kek-${process.pid}-${port}`);
  writeFileSync(kek, `${plant('the KEK', randomBytes(32).toString('base64'))}\n`, { mode: 0o600 });
  const places = Array.from({ length: replicas }, (_, number) => {
    const suffix = number === 0 ? '' : String(number);
    const [listen, ops] = number === 0 ? [port, free[0]] : free.slice(2 * number - 1, 2 * number + 1);
    return { config: join(dir, `postern${suffix}.toml`), data: join(dir, `data${suffix}`), listen, ops, url: `http://127.0.0.1:${listen}` };
  });
  for (const { config, data, listen, ops } of places) {
    mkdirSync(data, { mode: 0o700 });
    writeFileSync(
      config,
      [
        '[server]',
        `listen = "127.0.0.1:${listen}"`,
        `ops_listen = "127.0.0.1:${ops}"`,
        `public_url = "${url}"`,
        '[store]',
        `url = "${postgres?.url ?? `sqlite://${join(data, 'postern.db')}`}"`,
        '[data]',
        `dir = "${data}"`,
        '[keys]',
        `kek = { kind = "local", file = "${kek}" }`,
        'allow_unlocked = true',
        '[connectors]',
        `dir = "${connectors}"`,
        '[log]',
        'format = "json"',
        'level = "debug"',
        ...allow.flatMap(({ connector, address }) => ['[[egress.allow]]', 'org = "*"', `connector = "${connector}"`, `address = "${address}"`]),
        '',
      ].join('\n'),
    );
  }
  const postern = posternBinary();
  const [{ config }] = places;
  if (postgres) {
    const { code, stderr } = run(postern, ['migrate', '--config', config, '--owner', postgres.owner], { dir });
    if (code !== 0) throw new Error(`postern migrate ended with ${code}: ${stderr}`);
    postgres.makeServiceRole();
  }
  const init = json(run(postern, ['init', '--json', '--config', config, '--org', 'Peers', '--admin', 'ada@peers.example'], { dir }), 'postern init');
  plant('the admin key of Peers', init.admin_key);
  plant("Ada's first login link", new URL(init.login_url).pathname.split('/').pop());
  for (const [name, secret] of Object.entries(secrets)) plant(`the client secret ${name}`, secret);

  const servers = [];
  for (const place of places) {
    const server = start(postern, ['serve', '--config', place.config], { dir });
    servers.push(server);
    const ready = until('postern serve is ready', async () => (await fetch(`http://127.0.0.1:${place.ops}/readyz`)).ok);
    await Promise.race([
      ready,
      server.exited.then(({ code, signal }) => {
        throw new Error(`postern serve ended before it was ready (${signal ?? `exit ${code}`}); see ${dir}/stderr.log`);
      }),
    ]);
  }

  for (const [name, text] of Object.entries(policies ?? {})) writeFileSync(join(dir, name), text);
  writeFileSync(join(dir, 'apply.toml'), apply);
  const environment = { POSTERN_URL: url, POSTERN_API_KEY: init.admin_key, ...secrets };
  const applied = json(run(postern, ['apply', join(dir, 'apply.toml'), '--yes', '--json'], { dir, env: environment }), 'postern apply');
  const agents = applied.created?.agents ?? (applied.keys ?? []).filter(({ kind }) => kind === 'agent');
  for (const agent of agents) plant(`the key of ${agent.name}`, agent.key);
  const admin = new Api(url, init.admin_key);
  const [person] = await admin.items('/v1/users');
  return {
    url,
    dir,
    config,
    init,
    applied,
    admin,
    agent: agents[0],
    ada: person,
    asAgent: new Api(url, agents[0]?.key),
    /** The agent at each replica. */
    asAgentAtEach: places.map((place) => new Api(place.url, agents[0]?.key, new URL(url).host)),
    cli: (...args) => run(postern, args, { dir, env: environment }),
    stop: () => Promise.all(servers.map((server) => server.stop())),
    pid: servers[0].pid,
  };
}

function faketime() {
  const places = ['x86_64', 'aarch64'].map((arch) => `/usr/lib/${arch}-linux-gnu/faketime/libfaketime.so.1`);
  const found = [process.env.LIBFAKETIME, ...places].find((path) => path && existsSync(path));
  if (!found) throw new Error('no libfaketime: apt-get install libfaketime, or set LIBFAKETIME');
  return found;
}

function json({ code, stdout, stderr }, what) {
  if (code !== 0) throw new Error(`${what} ended with ${code}: ${stderr.slice(-2000)}`);
  try {
    return JSON.parse(stdout);
  } catch {
    throw new Error(`${what} did not answer in JSON`);
  }
}
