-- After a failure the provider is left alone for a while, the longer the more often it failed in a row.
ALTER TABLE refresh_leases ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;
ALTER TABLE refresh_leases ADD COLUMN not_before INTEGER NOT NULL DEFAULT 0;

-- What was asked of a provider and is not known to be answered. Few rows at any time.
CREATE INDEX refresh_leases_in_doubt ON refresh_leases (intent_at) WHERE intent IS NOT NULL;
