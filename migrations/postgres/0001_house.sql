-- The house. `org_id` leads every key and is in every query. Times are microseconds since the Unix epoch.
-- Ids are TypeIDs as text; `epoch` columns hold the counter of the org's epoch. Text is compared by its bytes, as on
-- SQLite: the order of ids is the order of pages.

CREATE TABLE meta (
  name  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  value TEXT COLLATE "C" NOT NULL
);

CREATE TABLE orgs (
  org_id             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  name               TEXT COLLATE "C" NOT NULL,
  agents_may_ask     BIGINT NOT NULL DEFAULT 1,
  created_at         BIGINT NOT NULL
);

-- The guard: one row per org. Every release locks it shared, every loss of permission moves it on.
CREATE TABLE epochs (
  org_id      TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  incarnation BIGINT NOT NULL,
  counter     BIGINT NOT NULL
);

-- A grant, agent or delegation made at an epoch not above a floor that covers it is dead.
CREATE TABLE floors (
  org_id TEXT COLLATE "C" NOT NULL,
  kind   TEXT COLLATE "C" NOT NULL,  -- all | user | agent | connector | grant
  id     TEXT COLLATE "C" NOT NULL,  -- '' for all
  epoch  BIGINT NOT NULL,
  at     BIGINT NOT NULL,
  PRIMARY KEY (org_id, kind, id)
);

-- Org data keys; org_id '' is the deployment's own.
CREATE TABLE odks (
  org_id     TEXT COLLATE "C" NOT NULL,
  id         TEXT COLLATE "C" NOT NULL,
  kek_ref    TEXT COLLATE "C" NOT NULL,
  wrapped    BYTEA NOT NULL,
  commitment BYTEA NOT NULL,
  created_at BIGINT NOT NULL,
  retired_at BIGINT,
  PRIMARY KEY (org_id, id)
);

CREATE TABLE instance_keys (
  id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  purpose     TEXT COLLATE "C" NOT NULL,
  public_jwk  TEXT COLLATE "C",
  odk         TEXT COLLATE "C" NOT NULL,
  sealed      BYTEA NOT NULL,
  wrapped_dek BYTEA NOT NULL,
  created_at  BIGINT NOT NULL,
  retired_at  BIGINT
);

CREATE TABLE users (
  org_id      TEXT COLLATE "C" NOT NULL,
  id          TEXT COLLATE "C" NOT NULL,
  email       TEXT COLLATE "C",
  role        TEXT COLLATE "C" NOT NULL,
  service_id  TEXT COLLATE "C",              -- the host application that manages this person; NULL: Postern's own login
  external_id TEXT COLLATE "C",
  created_at  BIGINT NOT NULL,
  PRIMARY KEY (org_id, id)
);
CREATE UNIQUE INDEX users_email ON users (org_id, email) WHERE email IS NOT NULL;
CREATE UNIQUE INDEX users_external ON users (org_id, service_id, external_id) WHERE external_id IS NOT NULL;

CREATE TABLE agents (
  org_id      TEXT COLLATE "C" NOT NULL,
  id          TEXT COLLATE "C" NOT NULL,
  name        TEXT COLLATE "C" NOT NULL,
  made_epoch  BIGINT NOT NULL,
  created_at  BIGINT NOT NULL,
  disabled_at BIGINT,
  PRIMARY KEY (org_id, id)
);
CREATE UNIQUE INDEX agents_name ON agents (org_id, name);

CREATE TABLE services (
  org_id      TEXT COLLATE "C" NOT NULL,
  id          TEXT COLLATE "C" NOT NULL,
  name        TEXT COLLATE "C" NOT NULL,
  return_urls TEXT COLLATE "C" NOT NULL,  -- JSON array
  created_at  BIGINT NOT NULL,
  PRIMARY KEY (org_id, id)
);
CREATE UNIQUE INDEX services_name ON services (org_id, name);

CREATE TABLE engines (
  org_id      TEXT COLLATE "C" NOT NULL,
  id          TEXT COLLATE "C" NOT NULL,
  name        TEXT COLLATE "C" NOT NULL,
  iss         TEXT COLLATE "C" NOT NULL,
  alg         TEXT COLLATE "C" NOT NULL,
  kid         TEXT COLLATE "C" NOT NULL,
  public_jwk  TEXT COLLATE "C" NOT NULL,
  connectors  TEXT COLLATE "C" NOT NULL,  -- JSON array: the ceiling; empty means none
  tools       TEXT COLLATE "C" NOT NULL,  -- JSON array: the ceiling; empty means none
  created_at  BIGINT NOT NULL,
  disabled_at BIGINT,
  PRIMARY KEY (org_id, id)
);
CREATE UNIQUE INDEX engines_kid ON engines (org_id, kid);
CREATE UNIQUE INDEX engines_name ON engines (org_id, name);

CREATE TABLE api_keys (
  org_id     TEXT COLLATE "C" NOT NULL,
  id         TEXT COLLATE "C" NOT NULL,
  kind       TEXT COLLATE "C" NOT NULL,   -- admin | service | agent
  owner_id   TEXT COLLATE "C" NOT NULL,   -- agent or service; the org for admin keys
  hash       BYTEA NOT NULL,   -- keyed
  created_at BIGINT NOT NULL,
  revoked_at BIGINT,
  PRIMARY KEY (org_id, id)
);
CREATE UNIQUE INDEX api_keys_hash ON api_keys (hash);

CREATE TABLE connector_clients (
  org_id      TEXT COLLATE "C" NOT NULL,
  connector   TEXT COLLATE "C" NOT NULL,
  client_id   TEXT COLLATE "C" NOT NULL,
  generation  BIGINT NOT NULL,
  odk         TEXT COLLATE "C",
  sealed      BYTEA,              -- client secret; NULL: public client
  wrapped_dek BYTEA,
  updated_at  BIGINT NOT NULL,
  PRIMARY KEY (org_id, connector)
);

CREATE TABLE policies (
  org_id     TEXT COLLATE "C" NOT NULL,
  version    BIGINT NOT NULL,
  texts      TEXT COLLATE "C" NOT NULL,   -- JSON {"org": [{"name","text"}], "agent": […]}
  digest     TEXT COLLATE "C" NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (org_id, version)
);

CREATE TABLE sessions (
  hash       BYTEA NOT NULL PRIMARY KEY,
  org_id     TEXT COLLATE "C" NOT NULL,
  user_id    TEXT COLLATE "C" NOT NULL,
  made_epoch BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  seen_at    BIGINT NOT NULL,
  expires_at BIGINT NOT NULL
);

CREATE TABLE login_links (
  hash       BYTEA NOT NULL PRIMARY KEY,
  org_id     TEXT COLLATE "C" NOT NULL,
  user_id    TEXT COLLATE "C" NOT NULL,
  made_epoch BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  spent_at   BIGINT
);

CREATE TABLE connect_sessions (
  org_id       TEXT COLLATE "C" NOT NULL,
  id           TEXT COLLATE "C" NOT NULL,
  link_hash    BYTEA NOT NULL,
  user_id      TEXT COLLATE "C" NOT NULL,
  connector    TEXT COLLATE "C" NOT NULL,
  scopes       TEXT COLLATE "C" NOT NULL,  -- JSON array, asked
  label        TEXT COLLATE "C",
  agent_id     TEXT COLLATE "C",              -- the agent that asked, if one did
  service_id   TEXT COLLATE "C",              -- the host application that minted it
  return_url   TEXT COLLATE "C",
  reconnect    TEXT COLLATE "C",              -- the grant it renews
  status       TEXT COLLATE "C" NOT NULL,  -- pending | spent | exchanging | confirming | awaiting_complete | completed | failed
  failure      TEXT COLLATE "C",
  made_epoch   BIGINT NOT NULL,
  created_at   BIGINT NOT NULL,
  expires_at   BIGINT NOT NULL,
  state_hash   BYTEA,
  browser_hash BYTEA,
  odk          TEXT COLLATE "C",
  verifier     BYTEA,              -- sealed PKCE verifier
  verifier_dek BYTEA,
  tokens       BYTEA,              -- sealed token answer, kept until the person confirms
  tokens_dek   BYTEA,
  account      TEXT COLLATE "C",              -- JSON
  granted      TEXT COLLATE "C",              -- JSON array
  grant_id     TEXT COLLATE "C",
  code_hash    BYTEA,              -- completion code of a host-managed session
  code_expires BIGINT,
  PRIMARY KEY (org_id, id)
);
CREATE UNIQUE INDEX connect_sessions_link ON connect_sessions (link_hash);
CREATE UNIQUE INDEX connect_sessions_state ON connect_sessions (state_hash) WHERE state_hash IS NOT NULL;
CREATE INDEX connect_sessions_due ON connect_sessions (expires_at) WHERE status NOT IN ('completed', 'failed');

CREATE TABLE grants (
  org_id            TEXT COLLATE "C" NOT NULL,
  id                TEXT COLLATE "C" NOT NULL,
  user_id           TEXT COLLATE "C" NOT NULL,
  connector         TEXT COLLATE "C" NOT NULL,
  account_id        TEXT COLLATE "C",
  account_label     TEXT COLLATE "C" NOT NULL,
  account_tenant    TEXT COLLATE "C",
  label             TEXT COLLATE "C",
  scopes            TEXT COLLATE "C" NOT NULL,  -- JSON array
  state             TEXT COLLATE "C" NOT NULL,
  state_reason      TEXT COLLATE "C",
  state_at          BIGINT,
  connected_epoch   BIGINT NOT NULL,
  generation        BIGINT NOT NULL,
  binding           BYTEA NOT NULL,
  access_expires_at BIGINT,
  has_refresh_token BIGINT NOT NULL,
  connected_at      BIGINT NOT NULL,
  last_used_at      BIGINT,
  upstream          TEXT COLLATE "C",              -- what the provider said to the revocation
  PRIMARY KEY (org_id, id)
);
CREATE INDEX grants_user ON grants (org_id, user_id, connector);
-- Not unique: one living grant per account is kept under the guard, by the transaction that connects; a grant that a
-- floor has ended keeps its row until its tombstone is written.
CREATE INDEX grants_account ON grants (org_id, user_id, connector, account_id) WHERE account_id IS NOT NULL;

-- Sealed secrets of a grant: refresh_token, access_token, narrowed:<scope hash>.
CREATE TABLE secrets (
  org_id      TEXT COLLATE "C" NOT NULL,
  row_id      TEXT COLLATE "C" NOT NULL,
  kind        TEXT COLLATE "C" NOT NULL,
  generation  BIGINT NOT NULL,
  odk         TEXT COLLATE "C" NOT NULL,
  sealed      BYTEA NOT NULL,
  wrapped_dek BYTEA NOT NULL,
  scopes      TEXT COLLATE "C",
  expires_at  BIGINT,
  created_at  BIGINT NOT NULL,
  PRIMARY KEY (org_id, row_id, kind)
);

CREATE TABLE delegations (
  org_id     TEXT COLLATE "C" NOT NULL,
  id         TEXT COLLATE "C" NOT NULL,
  user_id    TEXT COLLATE "C" NOT NULL,
  agent_id   TEXT COLLATE "C" NOT NULL,
  grant_id   TEXT COLLATE "C" NOT NULL,
  categories TEXT COLLATE "C" NOT NULL,  -- JSON array
  tools      TEXT COLLATE "C" NOT NULL,  -- JSON array; empty: all of the categories
  raw        BIGINT NOT NULL,
  expires_at BIGINT,
  made_epoch BIGINT NOT NULL,
  ended_at   BIGINT,
  PRIMARY KEY (org_id, id)
);
CREATE INDEX delegations_grant ON delegations (org_id, grant_id, agent_id);

-- One refresher per grant at a time; `fence` grows with every claim.
CREATE TABLE refresh_leases (
  org_id     TEXT COLLATE "C" NOT NULL,
  grant_id   TEXT COLLATE "C" NOT NULL,
  fence      BIGINT NOT NULL,
  holder     TEXT COLLATE "C" NOT NULL,
  expires_at BIGINT NOT NULL,
  intent     TEXT COLLATE "C",              -- what is being asked of the provider; NULL: nothing under way
  intent_at  BIGINT,
  PRIMARY KEY (org_id, grant_id)
);

-- Decisions that were spent; a row outlives `exp` by 24 hours.
CREATE TABLE spent (
  org_id   TEXT COLLATE "C" NOT NULL,
  iss      TEXT COLLATE "C" NOT NULL,
  jti      TEXT COLLATE "C" NOT NULL,
  entry_id TEXT COLLATE "C" NOT NULL,
  keep_until BIGINT NOT NULL,
  PRIMARY KEY (org_id, iss, jti)
);
CREATE INDEX spent_due ON spent (keep_until);

CREATE TABLE idempotency (
  org_id     TEXT COLLATE "C" NOT NULL,
  principal  TEXT COLLATE "C" NOT NULL,
  route      TEXT COLLATE "C" NOT NULL,
  key        TEXT COLLATE "C" NOT NULL,
  digest     TEXT COLLATE "C" NOT NULL,
  entry_id   TEXT COLLATE "C" NOT NULL,
  status     BIGINT,           -- NULL: still running
  code       TEXT COLLATE "C",
  keep_until BIGINT NOT NULL,
  PRIMARY KEY (org_id, principal, route, key)
);
CREATE INDEX idempotency_entry ON idempotency (org_id, entry_id);
CREATE INDEX idempotency_due ON idempotency (keep_until);

CREATE TABLE entries (
  org_id      TEXT COLLATE "C" NOT NULL,
  id          TEXT COLLATE "C" NOT NULL,
  epoch       BIGINT NOT NULL,
  ts          BIGINT NOT NULL,
  writer      TEXT COLLATE "C" NOT NULL,
  writer_seq  BIGINT NOT NULL,
  kind        TEXT COLLATE "C" NOT NULL,
  user_id     TEXT COLLATE "C",
  agent_id    TEXT COLLATE "C",
  connector   TEXT COLLATE "C",
  outcome     TEXT COLLATE "C",
  mode        TEXT COLLATE "C",
  correlation TEXT COLLATE "C",
  bytes       TEXT COLLATE "C" NOT NULL,  -- the canonical JSON that is hashed
  odk         TEXT COLLATE "C",              -- sealed beside it: salt, args, display names
  sealed      BYTEA,
  wrapped_dek BYTEA,
  log_index   BIGINT,           -- place in the org's Merkle log, once sequenced
  PRIMARY KEY (org_id, id)
);
CREATE UNIQUE INDEX entries_writer ON entries (org_id, writer, writer_seq);
CREATE UNIQUE INDEX entries_log ON entries (org_id, log_index) WHERE log_index IS NOT NULL;
CREATE INDEX entries_unsequenced ON entries (org_id, epoch, writer, writer_seq) WHERE log_index IS NULL;
-- Calls that were sent and have no outcome yet are looked for among these.
CREATE INDEX entries_executed ON entries (ts) WHERE kind = 'release' AND mode = 'execute';
CREATE INDEX entries_correlation ON entries (org_id, correlation) WHERE correlation IS NOT NULL;

CREATE TABLE writers (
  org_id TEXT COLLATE "C" NOT NULL,
  writer TEXT COLLATE "C" NOT NULL,
  seq    BIGINT NOT NULL,
  hash   BYTEA NOT NULL,
  PRIMARY KEY (org_id, writer)
);

CREATE TABLE logs (
  org_id     TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  size       BIGINT NOT NULL,
  head       TEXT COLLATE "C" NOT NULL,  -- JSON: size, frontier and every writer's last number
  checkpoint TEXT COLLATE "C" NOT NULL,  -- signed note
  updated_at BIGINT NOT NULL
);

CREATE TABLE revocations (
  org_id   TEXT COLLATE "C" NOT NULL,
  id       TEXT COLLATE "C" NOT NULL,
  selector TEXT COLLATE "C" NOT NULL,  -- JSON
  reason   TEXT COLLATE "C" NOT NULL,
  epoch    BIGINT NOT NULL,
  at       BIGINT NOT NULL,
  counts   TEXT COLLATE "C" NOT NULL,  -- JSON
  fanned_out BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (org_id, id)
);

-- Upstream revocations: queued, retried, reported per grant.
CREATE TABLE outbox (
  org_id        TEXT COLLATE "C" NOT NULL,
  grant_id      TEXT COLLATE "C" NOT NULL,
  revocation_id TEXT COLLATE "C",
  connector     TEXT COLLATE "C" NOT NULL,
  due_at        BIGINT NOT NULL,
  give_up_at    BIGINT NOT NULL,
  attempts      BIGINT NOT NULL DEFAULT 0,
  result        TEXT COLLATE "C" NOT NULL,  -- pending | revoked | unsupported | unconfirmed
  PRIMARY KEY (org_id, grant_id)
);
CREATE INDEX outbox_due ON outbox (due_at) WHERE result = 'pending';

-- Processes that write, by the name their chains in the log bear. A name whose lease has ended is used again.
CREATE TABLE replicas (
  name       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  token      BYTEA NOT NULL,
  expires_at BIGINT NOT NULL
);

-- The row that writers over what belongs to no org stand in line for.
INSERT INTO meta (name, value) VALUES ('writer', '');

-- Who may do what. Both roles are for membership: `CREATE ROLE postern LOGIN NOINHERIT … IN ROLE postern_app, postern_due`.
-- Neither owns anything, so neither can change the schema or step around the policies below. A transaction takes one of
-- them; a login role that inherited `postern_due` would see through its policies in every transaction.
DO $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'postern_app') THEN
    CREATE ROLE postern_app NOLOGIN NOBYPASSRLS;
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'postern_due') THEN
    CREATE ROLE postern_due NOLOGIN NOBYPASSRLS;
  END IF;
  EXECUTE format('GRANT USAGE ON SCHEMA %I TO postern_app, postern_due', current_schema());
END $$;

GRANT SELECT ON _sqlx_migrations TO postern_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON
  meta, orgs, odks, instance_keys, users, agents, services, engines, api_keys, connector_clients, policies, sessions,
  login_links, connect_sessions, grants, secrets, delegations, refresh_leases, idempotency, logs, outbox, replicas
  TO postern_app;
-- What must not be taken back has no way to be.
GRANT SELECT, INSERT, UPDATE ON epochs, floors, writers TO postern_app;
GRANT SELECT, INSERT, DELETE ON spent TO postern_app;
GRANT SELECT, INSERT ON entries, revocations TO postern_app;
GRANT UPDATE (log_index) ON entries TO postern_app;
GRANT UPDATE (fanned_out) ON revocations TO postern_app;

-- The workers' look across orgs: ids, states and times.
GRANT SELECT (org_id) ON epochs TO postern_due;
GRANT SELECT (org_id, id, kind, mode, ts, correlation, log_index) ON entries TO postern_due;
GRANT SELECT (org_id, keep_until) ON spent, idempotency TO postern_due;
GRANT SELECT (org_id, expires_at) ON login_links, sessions TO postern_due;
GRANT SELECT (org_id, id, status, expires_at) ON connect_sessions TO postern_due;
GRANT SELECT (org_id, id, fanned_out, at) ON revocations TO postern_due;
GRANT SELECT (org_id, grant_id, result, due_at) ON outbox TO postern_due;
GRANT SELECT (org_id, id, state, state_at) ON grants TO postern_due;

-- Row-level security: a transaction sees and writes the orgs it named, and nothing else, whatever its statements say.
-- The sub-select is evaluated once per statement, not once per row.
DO $$
DECLARE
  one TEXT;
  admitted CONSTANT TEXT :=
    'org_id = ANY ((SELECT string_to_array(current_setting(''postern.orgs'', true), '',''))::text[])';
BEGIN
  FOREACH one IN ARRAY ARRAY['orgs', 'epochs', 'floors', 'users', 'agents', 'services', 'engines', 'api_keys',
    'connector_clients', 'policies', 'sessions', 'login_links', 'connect_sessions', 'grants', 'secrets', 'delegations',
    'refresh_leases', 'spent', 'idempotency', 'entries', 'writers', 'logs', 'revocations', 'outbox']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', one);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', one);
    EXECUTE format('CREATE POLICY admitted ON %I USING (%s) WITH CHECK (%s)', one, admitted, admitted);
  END LOOP;
  -- The deployment's own data key belongs to no org.
  ALTER TABLE odks ENABLE ROW LEVEL SECURITY;
  ALTER TABLE odks FORCE ROW LEVEL SECURITY;
  EXECUTE format('CREATE POLICY admitted ON odks USING (org_id = %1$L OR %2$s) WITH CHECK (org_id = %1$L OR %2$s)',
    '', admitted);
  FOREACH one IN ARRAY ARRAY['epochs', 'entries', 'spent', 'idempotency', 'login_links', 'sessions',
    'connect_sessions', 'revocations', 'outbox', 'grants']
  LOOP
    EXECUTE format('CREATE POLICY due ON %I FOR SELECT TO postern_due USING (true)', one);
  END LOOP;
END $$;

-- Who holds a key, a session or a link proves it by its keyed hash, before anybody knows the org.
CREATE POLICY by_hash ON api_keys FOR SELECT
  USING (hash = (SELECT decode(current_setting('postern.hash', true), 'hex')));
CREATE POLICY by_hash ON sessions FOR SELECT
  USING (hash = (SELECT decode(current_setting('postern.hash', true), 'hex')));
CREATE POLICY by_hash ON login_links FOR SELECT
  USING (hash = (SELECT decode(current_setting('postern.hash', true), 'hex')));
CREATE POLICY by_hash ON connect_sessions FOR SELECT
  USING (link_hash = (SELECT decode(current_setting('postern.hash', true), 'hex'))
    OR state_hash = (SELECT decode(current_setting('postern.hash', true), 'hex')));
