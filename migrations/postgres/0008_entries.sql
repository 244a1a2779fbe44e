-- SQLite's entries are no longer clustered by their key. Here they never were.

-- Whether a writer has entries without a place: what the sequencer looks for. It changes when the first entry comes and
-- when the last has its place, the numbers with every batch; an index over the numbers themselves made each of those
-- changes a new entry in every index of the table, which the next batch had to step over.
DROP INDEX writers_waiting;
ALTER TABLE writers ADD COLUMN waits BIGINT GENERATED ALWAYS AS (CASE WHEN seq > placed THEN 1 ELSE 0 END) STORED;
CREATE INDEX writers_waiting ON writers (org_id) WHERE waits = 1;
-- Room for the next version of a row on its own page.
ALTER TABLE writers SET (fillfactor = 50);
GRANT SELECT (waits) ON writers TO postern_due;
