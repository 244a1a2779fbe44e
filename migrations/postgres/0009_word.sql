-- Whether a replica's word may be taken that this database is the one it has been writing to.
-- 0: it has not compared yet; 1: all that it keeps outside agrees; 2: it has never heard of an org; 3: an org is sealed
-- there because the database is another or an older one.
ALTER TABLE replicas ADD COLUMN word BIGINT NOT NULL DEFAULT 0;

-- Every replica follows how far each org has come, whoever signs its log.
GRANT SELECT (org_id, counter) ON epochs TO postern_due;
