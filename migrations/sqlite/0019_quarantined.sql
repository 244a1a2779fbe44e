-- Quarantines whose time is over: few, among very many grants.
CREATE INDEX grants_quarantined ON grants (state_at) WHERE state = 'quarantined';

-- As in 0002, the planner is told.
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
  ('grants', 'grants_quarantined', '100 1');
ANALYZE sqlite_schema;
