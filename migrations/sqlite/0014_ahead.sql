-- What is to be renewed ahead is looked for provider by provider: one that is slow holds up nobody else's.
DROP INDEX grants_renewal;
CREATE INDEX grants_renewal ON grants (connector, renew_at) WHERE renew_at IS NOT NULL AND state = 'active';

-- As in 0002, the planner is told.
DELETE FROM sqlite_stat1 WHERE idx = 'grants_renewal';
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
  ('grants', 'grants_renewal', '1000000 100000 1 1 1');
ANALYZE sqlite_schema;
