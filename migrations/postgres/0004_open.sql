-- What is open: found by what there is of it, not by walking what ever was.

-- Calls that were sent and have no outcome yet, in a small table of their own: a revocation names them and the sweeper
-- ends them, and both cost what is open now, not what there ever was. Triggers keep it, so that no way of writing an
-- entry can forget it.
CREATE TABLE open_calls (
  org_id   TEXT COLLATE "C" NOT NULL,
  entry_id TEXT COLLATE "C" NOT NULL,
  sent_at  BIGINT NOT NULL,
  PRIMARY KEY (org_id, entry_id)
);
CREATE INDEX open_calls_due ON open_calls (sent_at);

-- The owner, too, sees no org's rows unless row-level security steps aside for this one statement.
ALTER TABLE entries NO FORCE ROW LEVEL SECURITY;
INSERT INTO open_calls (org_id, entry_id, sent_at)
  SELECT e.org_id, e.id, e.ts FROM (
    SELECT org_id, id FROM entries WHERE kind = 'release' AND mode = 'execute'
    EXCEPT SELECT org_id, correlation FROM entries WHERE kind IN ('outcome', 'dropped')
  ) o CROSS JOIN entries e WHERE e.org_id = o.org_id AND e.id = o.id;
ALTER TABLE entries FORCE ROW LEVEL SECURITY;

CREATE FUNCTION entries_open() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO open_calls (org_id, entry_id, sent_at) VALUES (NEW.org_id, NEW.id, NEW.ts);
  RETURN NULL;
END $$;
CREATE FUNCTION entries_close() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM open_calls WHERE org_id = NEW.org_id AND entry_id = NEW.correlation;
  RETURN NULL;
END $$;
CREATE TRIGGER entries_open AFTER INSERT ON entries
  FOR EACH ROW WHEN (NEW.kind = 'release' AND NEW.mode = 'execute') EXECUTE FUNCTION entries_open();
CREATE TRIGGER entries_close AFTER INSERT ON entries
  FOR EACH ROW WHEN (NEW.kind IN ('outcome', 'dropped')) EXECUTE FUNCTION entries_close();
DROP INDEX entries_executed;

-- Connect sessions under way, for the revocation that ends them.
CREATE INDEX connect_sessions_open ON connect_sessions (org_id, made_epoch)
  WHERE status NOT IN ('completed', 'failed');

GRANT SELECT, INSERT, DELETE ON open_calls TO postern_app;
GRANT SELECT (org_id, entry_id, sent_at) ON open_calls TO postern_due;
ALTER TABLE open_calls ENABLE ROW LEVEL SECURITY;
ALTER TABLE open_calls FORCE ROW LEVEL SECURITY;
CREATE POLICY admitted ON open_calls
  USING (org_id = ANY ((SELECT string_to_array(current_setting('postern.orgs', true), ','))::text[]))
  WITH CHECK (org_id = ANY ((SELECT string_to_array(current_setting('postern.orgs', true), ','))::text[]));
CREATE POLICY due ON open_calls FOR SELECT TO postern_due USING (true);
