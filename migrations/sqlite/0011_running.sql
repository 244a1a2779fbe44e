-- Idempotency keys of calls of which nobody has said yet how they ended. Few at any time: each that is ended leaves this
-- index.
CREATE INDEX idempotency_running ON idempotency (keep_until) WHERE status IS NULL;

-- As in 0002, the planner is told: an org has many keys, an entry has one. Without these figures SQLite walks all of the
-- org's keys to end one.
DELETE FROM sqlite_stat1 WHERE tbl = 'idempotency';
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
  ('idempotency', 'idempotency',         '1000000 10000 100 100 1'),
  ('idempotency', 'idempotency_entry',   '1000000 10000 1 1 1 1'),
  ('idempotency', 'idempotency_due',     '1000000 1 1 1 1 1'),
  ('idempotency', 'idempotency_running', '100 1 1 1 1 1');
ANALYZE sqlite_schema;
