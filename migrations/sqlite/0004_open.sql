-- What is open: found by what there is of it, not by walking what ever was.

-- Calls that were sent and have no outcome yet, in a small table of their own: a revocation names them and the sweeper
-- ends them, and both cost what is open now, not what there ever was. Triggers keep it, so that no way of writing an
-- entry can forget it.
CREATE TABLE open_calls (
  org_id   TEXT    NOT NULL,
  entry_id TEXT    NOT NULL,
  sent_at  INTEGER NOT NULL,
  PRIMARY KEY (org_id, entry_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX open_calls_due ON open_calls (sent_at);

INSERT INTO open_calls (org_id, entry_id, sent_at)
  SELECT e.org_id, e.id, e.ts FROM (
    SELECT org_id, id FROM entries WHERE kind = 'release' AND mode = 'execute'
    EXCEPT SELECT org_id, correlation FROM entries WHERE kind IN ('outcome', 'dropped')
  ) o CROSS JOIN entries e WHERE e.org_id = o.org_id AND e.id = o.id;

CREATE TRIGGER entries_open AFTER INSERT ON entries WHEN NEW.kind = 'release' AND NEW.mode = 'execute'
BEGIN
  INSERT INTO open_calls (org_id, entry_id, sent_at) VALUES (NEW.org_id, NEW.id, NEW.ts);
END;
CREATE TRIGGER entries_close AFTER INSERT ON entries WHEN NEW.kind IN ('outcome', 'dropped')
BEGIN
  DELETE FROM open_calls WHERE org_id = NEW.org_id AND entry_id = NEW.correlation;
END;
DROP INDEX entries_executed;

-- Connect sessions under way, for the revocation that ends them.
CREATE INDEX connect_sessions_open ON connect_sessions (org_id, made_epoch)
  WHERE status NOT IN ('completed', 'failed');

-- What belongs to an entry is few, an org's log is long: as in 0002, the planner is told.
DELETE FROM sqlite_stat1 WHERE tbl = 'entries';
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
  ('entries', 'entries',             '10000000 100000 1'),
  ('entries', 'entries_writer',      '10000000 100000 10000 1 1'),
  ('entries', 'entries_correlation', '10000000 100000 2 1');
ANALYZE sqlite_schema;
