-- What is to be renewed ahead is looked for provider by provider: one that is slow holds up nobody else's.
DROP INDEX grants_renewal;
CREATE INDEX grants_renewal ON grants (connector, renew_at) WHERE renew_at IS NOT NULL AND state = 'active';
GRANT SELECT (connector) ON grants TO postern_due;
