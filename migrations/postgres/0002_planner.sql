-- SQLite is told here how many rows an org has. PostgreSQL measures that by itself.
SELECT 1;
