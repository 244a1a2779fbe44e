-- After a failure the provider is left alone for a while, the longer the more often it failed in a row.
ALTER TABLE refresh_leases ADD COLUMN failures BIGINT NOT NULL DEFAULT 0;
ALTER TABLE refresh_leases ADD COLUMN not_before BIGINT NOT NULL DEFAULT 0;

-- What was asked of a provider and is not known to be answered. Few rows at any time.
CREATE INDEX refresh_leases_in_doubt ON refresh_leases (intent_at) WHERE intent IS NOT NULL;

GRANT SELECT (org_id, grant_id, expires_at, intent, intent_at, not_before) ON refresh_leases TO postern_due;
CREATE POLICY due ON refresh_leases FOR SELECT TO postern_due USING (true);

-- When a grant is looked at again, to renew its token ahead of time or to keep it from dying of idleness. Zero: as soon
-- as possible; NULL: when it changes.
ALTER TABLE grants ADD COLUMN renew_at BIGINT DEFAULT 0;
CREATE INDEX grants_renewal ON grants (renew_at) WHERE renew_at IS NOT NULL AND state = 'active';

GRANT SELECT (renew_at) ON grants TO postern_due;

-- Grants whose state changed, for the operator's webhook: which change was the last, and which was told. A receiver is
-- told where a grant stands, so changes that nobody was told of in time are told as one.
CREATE TABLE notices (
  org_id   TEXT COLLATE "C" NOT NULL,
  grant_id TEXT COLLATE "C" NOT NULL,
  changes  BIGINT NOT NULL,
  at       BIGINT NOT NULL,
  told     BIGINT NOT NULL,
  attempts BIGINT NOT NULL,
  due_at   BIGINT,  -- NULL: everything is told
  PRIMARY KEY (org_id, grant_id)
);
CREATE INDEX notices_due ON notices (due_at) WHERE due_at IS NOT NULL;

GRANT SELECT, INSERT, UPDATE, DELETE ON notices TO postern_app;
GRANT SELECT (org_id, grant_id, due_at) ON notices TO postern_due;
ALTER TABLE notices ENABLE ROW LEVEL SECURITY;
ALTER TABLE notices FORCE ROW LEVEL SECURITY;
CREATE POLICY admitted ON notices
  USING (org_id = ANY ((SELECT string_to_array(current_setting('postern.orgs', true), ','))::text[]))
  WITH CHECK (org_id = ANY ((SELECT string_to_array(current_setting('postern.orgs', true), ','))::text[]));
CREATE POLICY due ON notices FOR SELECT TO postern_due USING (true);
