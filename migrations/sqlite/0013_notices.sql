-- What the operator's webhook is to be told is looked for org by org: one with very many changes keeps nobody from being told
-- of another's.
DROP INDEX notices_due;
CREATE INDEX notices_due ON notices (org_id, due_at, grant_id) WHERE due_at IS NOT NULL;

-- 1: somebody is telling the receiver of this grant, until due_at at the latest. A change that comes meanwhile waits for that,
-- so that no older state arrives behind a newer one.
ALTER TABLE notices ADD COLUMN under_way INTEGER NOT NULL DEFAULT 0;

-- As in 0002, the planner is told.
DELETE FROM sqlite_stat1 WHERE tbl = 'notices';
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
  ('notices', 'notices',     '1000000 10000 1'),
  ('notices', 'notices_due', '1000000 10000 100 1');
ANALYZE sqlite_schema;
