-- What follows a revocation of very many grants, in steps that each cost what the step does.

-- The grants a fan-out has still to bury: each one that is buried leaves this index.
CREATE INDEX grants_living ON grants (org_id, connector, id) WHERE state <> 'revoked';

-- How far a revocation has come, counted and page by page.
CREATE INDEX outbox_revocation ON outbox (org_id, revocation_id, grant_id);
CREATE INDEX outbox_result ON outbox (org_id, revocation_id, result);

-- What is due is looked for provider by provider: one that is slow holds up nobody else's.
DROP INDEX outbox_due;
CREATE INDEX outbox_due ON outbox (connector, due_at) WHERE result = 'pending';

-- How fast and from when on a provider may be asked to end tokens, by all replicas together: a token bucket, kept as the
-- moment up to which its tokens are taken. It belongs to no org.
CREATE TABLE providers (
  host        TEXT    NOT NULL PRIMARY KEY,
  taken_up_to INTEGER NOT NULL,
  not_before  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- As in 0002, the planner is told.
DELETE FROM sqlite_stat1 WHERE tbl = 'outbox' OR idx = 'grants_living';
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
  ('grants', 'grants_living',     '1000000 10000 2500 1'),
  ('outbox', 'outbox',            '1000000 10000 1'),
  ('outbox', 'outbox_revocation', '1000000 10000 100 1'),
  ('outbox', 'outbox_result',     '1000000 10000 100 50 1'),
  ('outbox', 'outbox_due',        '1000000 100000 1 1 1');
ANALYZE sqlite_schema;
