-- After a failure the provider is left alone for a while, the longer the more often it failed in a row.
ALTER TABLE refresh_leases ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;
ALTER TABLE refresh_leases ADD COLUMN not_before INTEGER NOT NULL DEFAULT 0;

-- What was asked of a provider and is not known to be answered. Few rows at any time.
CREATE INDEX refresh_leases_in_doubt ON refresh_leases (intent_at) WHERE intent IS NOT NULL;

-- When a grant is looked at again, to renew its token ahead of time or to keep it from dying of idleness. Zero: as soon
-- as possible; NULL: when it changes.
ALTER TABLE grants ADD COLUMN renew_at INTEGER DEFAULT 0;
CREATE INDEX grants_renewal ON grants (renew_at) WHERE renew_at IS NOT NULL AND state = 'active';

-- Grants whose state changed, for the operator's webhook: which change was the last, and which was told. A receiver is
-- told where a grant stands, so changes that nobody was told of in time are told as one.
CREATE TABLE notices (
  org_id   TEXT NOT NULL,
  grant_id TEXT NOT NULL,
  changes  INTEGER NOT NULL,
  at       INTEGER NOT NULL,
  told     INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  due_at   INTEGER,  -- NULL: everything is told
  PRIMARY KEY (org_id, grant_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX notices_due ON notices (due_at) WHERE due_at IS NOT NULL;
