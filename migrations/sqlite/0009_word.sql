-- A SQLite database has one process, which has nobody's word to take.
SELECT 1;
