-- Grants of which nobody has said when they are looked at again: a version before this said so of those that needed nothing.
CREATE INDEX grants_unset ON grants (connector, org_id, id) WHERE renew_at IS NULL AND state = 'active';

-- As in 0002, the planner is told.
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
  ('grants', 'grants_unset', '100 100 10 1');
ANALYZE sqlite_schema;
