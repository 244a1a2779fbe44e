-- What the planner has to know and cannot guess: an org has many grants and delegations, a grant few of them. Without
-- these figures SQLite walks every delegation of the org to find those of one grant. They are set, not measured, so
-- that a plan never depends on what was in the database when somebody last measured it.
-- The figures: rows, then rows per distinct value of the first column, of the first two, and so on.
ANALYZE sqlite_schema;
DELETE FROM sqlite_stat1 WHERE tbl IN ('delegations', 'grants');
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
  ('delegations', 'delegations',       '1000000 10000 1'),
  ('delegations', 'delegations_grant', '1000000 10000 4 1 1'),
  ('grants',      'grants',            '1000000 10000 1'),
  ('grants',      'grants_user',       '1000000 10000 8 2 1'),
  ('grants',      'grants_account',    '1000000 10000 8 2 1 1');
-- Once more: the connection that wrote the figures reads them only now.
ANALYZE sqlite_schema;
