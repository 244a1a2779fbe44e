-- Orgs take turns at a connector: those of which upstream revocations wait there are found by one jump each, however many do.
DROP INDEX outbox_due;
CREATE INDEX outbox_due ON outbox (connector, org_id, due_at) WHERE result = 'pending';

-- As in 0002, the planner is told.
DELETE FROM sqlite_stat1 WHERE tbl = 'outbox' AND idx = 'outbox_due';
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
  ('outbox', 'outbox_due', '1000000 100000 100 1 1');
ANALYZE sqlite_schema;
