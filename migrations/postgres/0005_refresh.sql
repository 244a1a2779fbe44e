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
