-- What the org lays down about a connector beside its client there.
ALTER TABLE connector_clients ADD COLUMN scopes TEXT;    -- JSON array: the most that is asked of people; NULL: no ceiling
ALTER TABLE connector_clients ADD COLUMN accounts TEXT;  -- JSON {domains?, tenants?}: whose accounts may be connected; NULL: any
