-- Entries in the order in which they come, at the end of their table, instead of clustered by their key. An entry is
-- longer than a key's page may hold, so every look at a key read the whole entry beside it, its overflow page too.
CREATE TABLE entries_new (
  org_id      TEXT    NOT NULL,
  id          TEXT    NOT NULL,
  epoch       INTEGER NOT NULL,
  ts          INTEGER NOT NULL,
  writer      TEXT    NOT NULL,
  writer_seq  INTEGER NOT NULL,
  kind        TEXT    NOT NULL,
  user_id     TEXT,
  agent_id    TEXT,
  connector   TEXT,
  outcome     TEXT,
  mode        TEXT,
  correlation TEXT,
  bytes       TEXT    NOT NULL,  -- the canonical JSON that is hashed
  odk         TEXT,              -- sealed beside it: salt, args, display names
  sealed      BLOB,
  wrapped_dek BLOB,
  PRIMARY KEY (org_id, id)
) STRICT;
INSERT INTO entries_new SELECT org_id, id, epoch, ts, writer, writer_seq, kind, user_id, agent_id, connector, outcome,
  mode, correlation, bytes, odk, sealed, wrapped_dek FROM entries;
-- Its indexes and triggers go with it.
DROP TABLE entries;
ALTER TABLE entries_new RENAME TO entries;
CREATE UNIQUE INDEX entries_writer ON entries (org_id, writer, writer_seq);
CREATE INDEX entries_correlation ON entries (org_id, correlation) WHERE correlation IS NOT NULL;
CREATE TRIGGER entries_open AFTER INSERT ON entries WHEN NEW.kind = 'release' AND NEW.mode = 'execute'
BEGIN
  INSERT INTO open_calls (org_id, entry_id, sent_at) VALUES (NEW.org_id, NEW.id, NEW.ts);
END;
CREATE TRIGGER entries_close AFTER INSERT ON entries WHEN NEW.kind IN ('outcome', 'dropped')
BEGIN
  DELETE FROM open_calls WHERE org_id = NEW.org_id AND entry_id = NEW.correlation;
END;

DELETE FROM sqlite_stat1 WHERE tbl IN ('entries', 'entries_new');
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
  ('entries', 'sqlite_autoindex_entries_1', '10000000 100000 1'),
  ('entries', 'entries_writer',             '10000000 100000 10000 1'),
  ('entries', 'entries_correlation',        '10000000 100000 2');
ANALYZE sqlite_schema;

-- Whether a writer has entries without a place: what the sequencer looks for (see PostgreSQL's side).
DROP INDEX writers_waiting;
ALTER TABLE writers ADD COLUMN waits INTEGER GENERATED ALWAYS AS (seq > placed) VIRTUAL;
CREATE INDEX writers_waiting ON writers (org_id) WHERE waits = 1;
