-- The log, so that the sequencer adds small rows at the end of tables instead of writing every entry a second time.

-- Where an entry stands in its org's log.
CREATE TABLE leaves (
  org_id    TEXT COLLATE "C" NOT NULL,
  log_index BIGINT NOT NULL,
  entry_id  TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (org_id, log_index)
);
CREATE UNIQUE INDEX leaves_entry ON leaves (org_id, entry_id);

-- Hash tiles (C2SP tlog-tiles): up to 256 hashes of 32 bytes, side by side. Only the last of a level ever changes.
CREATE TABLE tiles (
  org_id TEXT COLLATE "C" NOT NULL,
  level  BIGINT NOT NULL,
  tile   BIGINT NOT NULL,
  hashes BYTEA NOT NULL,
  PRIMARY KEY (org_id, level, tile)
);

-- The last number of the writer that has a place. What lies between it and `seq` waits for one.
ALTER TABLE writers ADD COLUMN placed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX writers_waiting ON writers (org_id) WHERE seq > placed;

DROP INDEX entries_log;
DROP INDEX entries_unsequenced;
ALTER TABLE entries DROP COLUMN log_index;

-- How far each sink has copied the log.
CREATE TABLE sink_cursors (
  org_id     TEXT COLLATE "C" NOT NULL,
  sink       TEXT COLLATE "C" NOT NULL,
  next_index BIGINT NOT NULL,
  moved_at   BIGINT NOT NULL,
  PRIMARY KEY (org_id, sink)
);

-- A place that was given stays; a tile only grows.
GRANT SELECT, INSERT ON leaves TO postern_app;
GRANT SELECT, INSERT, UPDATE ON tiles, sink_cursors TO postern_app;
GRANT SELECT (org_id, seq, placed) ON writers TO postern_due;
GRANT SELECT (org_id, size) ON logs TO postern_due;
GRANT SELECT (org_id, sink, next_index) ON sink_cursors TO postern_due;

DO $$
DECLARE
  one TEXT;
  admitted CONSTANT TEXT :=
    'org_id = ANY ((SELECT string_to_array(current_setting(''postern.orgs'', true), '',''))::text[])';
BEGIN
  FOREACH one IN ARRAY ARRAY['leaves', 'tiles', 'sink_cursors']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', one);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', one);
    EXECUTE format('CREATE POLICY admitted ON %I USING (%s) WITH CHECK (%s)', one, admitted, admitted);
  END LOOP;
  FOREACH one IN ARRAY ARRAY['writers', 'logs', 'sink_cursors']
  LOOP
    EXECUTE format('CREATE POLICY due ON %I FOR SELECT TO postern_due USING (true)', one);
  END LOOP;
END $$;
