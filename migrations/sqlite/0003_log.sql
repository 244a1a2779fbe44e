-- The log, so that the sequencer adds small rows at the end of tables instead of writing every entry a second time.

-- Where an entry stands in its org's log.
CREATE TABLE leaves (
  org_id    TEXT    NOT NULL,
  log_index INTEGER NOT NULL,
  entry_id  TEXT    NOT NULL,
  PRIMARY KEY (org_id, log_index)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX leaves_entry ON leaves (org_id, entry_id);

-- Hash tiles (C2SP tlog-tiles): up to 256 hashes of 32 bytes, side by side. Only the last of a level ever changes.
CREATE TABLE tiles (
  org_id TEXT    NOT NULL,
  level  INTEGER NOT NULL,
  tile   INTEGER NOT NULL,
  hashes BLOB    NOT NULL,
  PRIMARY KEY (org_id, level, tile)
) STRICT;

-- The last number of the writer that has a place. What lies between it and `seq` waits for one.
ALTER TABLE writers ADD COLUMN placed INTEGER NOT NULL DEFAULT 0;

INSERT INTO leaves (org_id, log_index, entry_id)
  SELECT org_id, log_index, id FROM entries WHERE log_index IS NOT NULL;
UPDATE writers SET placed = coalesce((SELECT max(e.writer_seq) FROM entries e
  WHERE e.org_id = writers.org_id AND e.writer = writers.writer AND e.log_index IS NOT NULL), 0);
CREATE INDEX writers_waiting ON writers (org_id) WHERE seq > placed;

DROP INDEX entries_log;
DROP INDEX entries_unsequenced;
ALTER TABLE entries DROP COLUMN log_index;

-- How far each sink has copied the log.
CREATE TABLE sink_cursors (
  org_id     TEXT    NOT NULL,
  sink       TEXT    NOT NULL,
  next_index INTEGER NOT NULL,
  moved_at   INTEGER NOT NULL,
  PRIMARY KEY (org_id, sink)
) STRICT, WITHOUT ROWID;
