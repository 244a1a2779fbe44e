-- The house. `org_id` leads every key and is in every query. Times are microseconds since the Unix epoch.
-- Ids are TypeIDs as text; `epoch` columns hold the counter of the org's epoch.

CREATE TABLE meta (
  name  TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE orgs (
  org_id             TEXT    NOT NULL PRIMARY KEY,
  name               TEXT    NOT NULL,
  agents_may_ask     INTEGER NOT NULL DEFAULT 1,
  created_at         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The guard: one row per org. Every release locks it shared, every loss of permission moves it on.
CREATE TABLE epochs (
  org_id      TEXT    NOT NULL PRIMARY KEY,
  incarnation INTEGER NOT NULL,
  counter     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A grant, agent or delegation made at an epoch not above a floor that covers it is dead.
CREATE TABLE floors (
  org_id TEXT    NOT NULL,
  kind   TEXT    NOT NULL,  -- all | user | agent | connector | grant
  id     TEXT    NOT NULL,  -- '' for all
  epoch  INTEGER NOT NULL,
  at     INTEGER NOT NULL,
  PRIMARY KEY (org_id, kind, id)
) STRICT, WITHOUT ROWID;

-- Org data keys; org_id '' is the deployment's own.
CREATE TABLE odks (
  org_id     TEXT    NOT NULL,
  id         TEXT    NOT NULL,
  kek_ref    TEXT    NOT NULL,
  wrapped    BLOB    NOT NULL,
  commitment BLOB    NOT NULL,
  created_at INTEGER NOT NULL,
  retired_at INTEGER,
  PRIMARY KEY (org_id, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE instance_keys (
  id          TEXT    NOT NULL PRIMARY KEY,
  purpose     TEXT    NOT NULL,
  public_jwk  TEXT,
  odk         TEXT    NOT NULL,
  sealed      BLOB    NOT NULL,
  wrapped_dek BLOB    NOT NULL,
  created_at  INTEGER NOT NULL,
  retired_at  INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
  org_id      TEXT    NOT NULL,
  id          TEXT    NOT NULL,
  email       TEXT,
  role        TEXT    NOT NULL,
  service_id  TEXT,              -- the host application that manages this person; NULL: Postern's own login
  external_id TEXT,
  created_at  INTEGER NOT NULL,
  PRIMARY KEY (org_id, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX users_email ON users (org_id, email) WHERE email IS NOT NULL;
CREATE UNIQUE INDEX users_external ON users (org_id, service_id, external_id) WHERE external_id IS NOT NULL;

CREATE TABLE agents (
  org_id      TEXT    NOT NULL,
  id          TEXT    NOT NULL,
  name        TEXT    NOT NULL,
  made_epoch  INTEGER NOT NULL,
  created_at  INTEGER NOT NULL,
  disabled_at INTEGER,
  PRIMARY KEY (org_id, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX agents_name ON agents (org_id, name);

CREATE TABLE services (
  org_id      TEXT    NOT NULL,
  id          TEXT    NOT NULL,
  name        TEXT    NOT NULL,
  return_urls TEXT    NOT NULL,  -- JSON array
  created_at  INTEGER NOT NULL,
  PRIMARY KEY (org_id, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX services_name ON services (org_id, name);

CREATE TABLE engines (
  org_id      TEXT    NOT NULL,
  id          TEXT    NOT NULL,
  name        TEXT    NOT NULL,
  iss         TEXT    NOT NULL,
  alg         TEXT    NOT NULL,
  kid         TEXT    NOT NULL,
  public_jwk  TEXT    NOT NULL,
  connectors  TEXT    NOT NULL,  -- JSON array: the ceiling; empty means none
  tools       TEXT    NOT NULL,  -- JSON array: the ceiling; empty means none
  created_at  INTEGER NOT NULL,
  disabled_at INTEGER,
  PRIMARY KEY (org_id, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX engines_kid ON engines (org_id, kid);
CREATE UNIQUE INDEX engines_name ON engines (org_id, name);

CREATE TABLE api_keys (
  org_id     TEXT    NOT NULL,
  id         TEXT    NOT NULL,
  kind       TEXT    NOT NULL,   -- admin | service | agent
  owner_id   TEXT    NOT NULL,   -- agent or service; the org for admin keys
  hash       BLOB    NOT NULL,   -- keyed
  created_at INTEGER NOT NULL,
  revoked_at INTEGER,
  PRIMARY KEY (org_id, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX api_keys_hash ON api_keys (hash);

CREATE TABLE connector_clients (
  org_id      TEXT    NOT NULL,
  connector   TEXT    NOT NULL,
  client_id   TEXT    NOT NULL,
  generation  INTEGER NOT NULL,
  odk         TEXT,
  sealed      BLOB,              -- client secret; NULL: public client
  wrapped_dek BLOB,
  updated_at  INTEGER NOT NULL,
  PRIMARY KEY (org_id, connector)
) STRICT, WITHOUT ROWID;

CREATE TABLE policies (
  org_id     TEXT    NOT NULL,
  version    INTEGER NOT NULL,
  texts      TEXT    NOT NULL,   -- JSON {"org": [{"name","text"}], "agent": […]}
  digest     TEXT    NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (org_id, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
  hash       BLOB    NOT NULL PRIMARY KEY,
  org_id     TEXT    NOT NULL,
  user_id    TEXT    NOT NULL,
  made_epoch INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  seen_at    INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE login_links (
  hash       BLOB    NOT NULL PRIMARY KEY,
  org_id     TEXT    NOT NULL,
  user_id    TEXT    NOT NULL,
  made_epoch INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  spent_at   INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE connect_sessions (
  org_id       TEXT    NOT NULL,
  id           TEXT    NOT NULL,
  link_hash    BLOB    NOT NULL,
  user_id      TEXT    NOT NULL,
  connector    TEXT    NOT NULL,
  scopes       TEXT    NOT NULL,  -- JSON array, asked
  label        TEXT,
  agent_id     TEXT,              -- the agent that asked, if one did
  service_id   TEXT,              -- the host application that minted it
  return_url   TEXT,
  reconnect    TEXT,              -- the grant it renews
  status       TEXT    NOT NULL,  -- pending | spent | exchanging | confirming | awaiting_complete | completed | failed
  failure      TEXT,
  made_epoch   INTEGER NOT NULL,
  created_at   INTEGER NOT NULL,
  expires_at   INTEGER NOT NULL,
  state_hash   BLOB,
  browser_hash BLOB,
  odk          TEXT,
  verifier     BLOB,              -- sealed PKCE verifier
  verifier_dek BLOB,
  tokens       BLOB,              -- sealed token answer, kept until the person confirms
  tokens_dek   BLOB,
  account      TEXT,              -- JSON
  granted      TEXT,              -- JSON array
  grant_id     TEXT,
  code_hash    BLOB,              -- completion code of a host-managed session
  code_expires INTEGER,
  PRIMARY KEY (org_id, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX connect_sessions_link ON connect_sessions (link_hash);
CREATE UNIQUE INDEX connect_sessions_state ON connect_sessions (state_hash) WHERE state_hash IS NOT NULL;
CREATE INDEX connect_sessions_due ON connect_sessions (expires_at) WHERE status NOT IN ('completed', 'failed');

CREATE TABLE grants (
  org_id            TEXT    NOT NULL,
  id                TEXT    NOT NULL,
  user_id           TEXT    NOT NULL,
  connector         TEXT    NOT NULL,
  account_id        TEXT,
  account_label     TEXT    NOT NULL,
  account_tenant    TEXT,
  label             TEXT,
  scopes            TEXT    NOT NULL,  -- JSON array
  state             TEXT    NOT NULL,
  state_reason      TEXT,
  state_at          INTEGER,
  connected_epoch   INTEGER NOT NULL,
  generation        INTEGER NOT NULL,
  binding           BLOB    NOT NULL,
  access_expires_at INTEGER,
  has_refresh_token INTEGER NOT NULL,
  connected_at      INTEGER NOT NULL,
  last_used_at      INTEGER,
  upstream          TEXT,              -- what the provider said to the revocation
  PRIMARY KEY (org_id, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX grants_user ON grants (org_id, user_id, connector);
-- Not unique: one living grant per account is kept under the guard, by the transaction that connects; a grant that a
-- floor has ended keeps its row until its tombstone is written.
CREATE INDEX grants_account ON grants (org_id, user_id, connector, account_id) WHERE account_id IS NOT NULL;

-- Sealed secrets of a grant: refresh_token, access_token, narrowed:<scope hash>.
CREATE TABLE secrets (
  org_id      TEXT    NOT NULL,
  row_id      TEXT    NOT NULL,
  kind        TEXT    NOT NULL,
  generation  INTEGER NOT NULL,
  odk         TEXT    NOT NULL,
  sealed      BLOB    NOT NULL,
  wrapped_dek BLOB    NOT NULL,
  scopes      TEXT,
  expires_at  INTEGER,
  created_at  INTEGER NOT NULL,
  PRIMARY KEY (org_id, row_id, kind)
) STRICT, WITHOUT ROWID;

CREATE TABLE delegations (
  org_id     TEXT    NOT NULL,
  id         TEXT    NOT NULL,
  user_id    TEXT    NOT NULL,
  agent_id   TEXT    NOT NULL,
  grant_id   TEXT    NOT NULL,
  categories TEXT    NOT NULL,  -- JSON array
  tools      TEXT    NOT NULL,  -- JSON array; empty: all of the categories
  raw        INTEGER NOT NULL,
  expires_at INTEGER,
  made_epoch INTEGER NOT NULL,
  ended_at   INTEGER,
  PRIMARY KEY (org_id, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX delegations_grant ON delegations (org_id, grant_id, agent_id);

-- One refresher per grant at a time; `fence` grows with every claim.
CREATE TABLE refresh_leases (
  org_id     TEXT    NOT NULL,
  grant_id   TEXT    NOT NULL,
  fence      INTEGER NOT NULL,
  holder     TEXT    NOT NULL,
  expires_at INTEGER NOT NULL,
  intent     TEXT,              -- what is being asked of the provider; NULL: nothing under way
  intent_at  INTEGER,
  PRIMARY KEY (org_id, grant_id)
) STRICT, WITHOUT ROWID;

-- Decisions that were spent; a row outlives `exp` by 24 hours.
CREATE TABLE spent (
  org_id   TEXT    NOT NULL,
  iss      TEXT    NOT NULL,
  jti      TEXT    NOT NULL,
  entry_id TEXT    NOT NULL,
  keep_until INTEGER NOT NULL,
  PRIMARY KEY (org_id, iss, jti)
) STRICT, WITHOUT ROWID;
CREATE INDEX spent_due ON spent (keep_until);

CREATE TABLE idempotency (
  org_id     TEXT    NOT NULL,
  principal  TEXT    NOT NULL,
  route      TEXT    NOT NULL,
  key        TEXT    NOT NULL,
  digest     TEXT    NOT NULL,
  entry_id   TEXT    NOT NULL,
  status     INTEGER,           -- NULL: still running
  code       TEXT,
  keep_until INTEGER NOT NULL,
  PRIMARY KEY (org_id, principal, route, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_entry ON idempotency (org_id, entry_id);
CREATE INDEX idempotency_due ON idempotency (keep_until);

CREATE TABLE entries (
  org_id      TEXT    NOT NULL,
  id          TEXT    NOT NULL,
  epoch       INTEGER NOT NULL,
  ts          INTEGER NOT NULL,
  writer      TEXT    NOT NULL,
  writer_seq  INTEGER NOT NULL,
  kind        TEXT    NOT NULL,
  user_id     TEXT,
  agent_id    TEXT,
  connector   TEXT,
  outcome     TEXT,
  mode        TEXT,
  correlation TEXT,
  bytes       TEXT    NOT NULL,  -- the canonical JSON that is hashed
  odk         TEXT,              -- sealed beside it: salt, args, display names
  sealed      BLOB,
  wrapped_dek BLOB,
  log_index   INTEGER,           -- place in the org's Merkle log, once sequenced
  PRIMARY KEY (org_id, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX entries_writer ON entries (org_id, writer, writer_seq);
CREATE UNIQUE INDEX entries_log ON entries (org_id, log_index) WHERE log_index IS NOT NULL;
CREATE INDEX entries_unsequenced ON entries (org_id, epoch, writer, writer_seq) WHERE log_index IS NULL;
-- Calls that were sent and have no outcome yet are looked for among these.
CREATE INDEX entries_executed ON entries (ts) WHERE kind = 'release' AND mode = 'execute';
CREATE INDEX entries_correlation ON entries (org_id, correlation) WHERE correlation IS NOT NULL;

CREATE TABLE writers (
  org_id TEXT    NOT NULL,
  writer TEXT    NOT NULL,
  seq    INTEGER NOT NULL,
  hash   BLOB    NOT NULL,
  PRIMARY KEY (org_id, writer)
) STRICT, WITHOUT ROWID;

CREATE TABLE logs (
  org_id     TEXT    NOT NULL PRIMARY KEY,
  size       INTEGER NOT NULL,
  head       TEXT    NOT NULL,  -- JSON: size, frontier and every writer's last number
  checkpoint TEXT    NOT NULL,  -- signed note
  updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE revocations (
  org_id   TEXT    NOT NULL,
  id       TEXT    NOT NULL,
  selector TEXT    NOT NULL,  -- JSON
  reason   TEXT    NOT NULL,
  epoch    INTEGER NOT NULL,
  at       INTEGER NOT NULL,
  counts   TEXT    NOT NULL,  -- JSON
  fanned_out INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (org_id, id)
) STRICT, WITHOUT ROWID;

-- Upstream revocations: queued, retried, reported per grant.
CREATE TABLE outbox (
  org_id        TEXT    NOT NULL,
  grant_id      TEXT    NOT NULL,
  revocation_id TEXT,
  connector     TEXT    NOT NULL,
  due_at        INTEGER NOT NULL,
  give_up_at    INTEGER NOT NULL,
  attempts      INTEGER NOT NULL DEFAULT 0,
  result        TEXT    NOT NULL,  -- pending | revoked | unsupported | unconfirmed
  PRIMARY KEY (org_id, grant_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_due ON outbox (due_at) WHERE result = 'pending';
