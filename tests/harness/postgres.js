// A PostgreSQL server of a test's own, on loopback (`scripts/postgres`): it ends with this process.
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { tmpdir } from 'node:os';

import { REPO } from './run.js';

let made = 0;

/** Starts it with an empty database "postern" and its owner, as docs/postgresql.md says. */
export function startPostgres() {
  // Its user must be able to enter, so it is not within a private directory.
  made += 1;
  const dir = join(tmpdir(), `postern-js-${process.pid}-${made}`);
  const script = (...args) => execFileSync(join(REPO, 'scripts/postgres'), args, { encoding: 'utf8', env: { ...process.env, POSTERN_TEST_POSTGRES_CONF: 'fsync = off' } });
  const superuser = script('start', dir, String(process.pid)).trim();
  const sql = (text) => execFileSync('psql', ['-qXd', superuser, '-v', 'ON_ERROR_STOP=1', '-c', text], { encoding: 'utf8' });
  sql('CREATE ROLE postern_owner LOGIN CREATEROLE');
  sql('CREATE DATABASE postern OWNER postern_owner');
  sql('REVOKE CONNECT, TEMPORARY ON DATABASE postern FROM PUBLIC');
  const url = new URL(superuser);
  url.username = 'postern';
  url.pathname = '/postern';
  return {
    url: url.href,
    owner: 'postern_owner',
    /** After `postern migrate`, which makes the two roles this one may take. */
    makeServiceRole: () => {
      sql('CREATE ROLE postern LOGIN NOINHERIT IN ROLE postern_app, postern_due');
      sql('GRANT CONNECT ON DATABASE postern TO postern');
    },
    stop: () => script('stop', dir),
  };
}
