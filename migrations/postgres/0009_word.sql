-- Whether a replica's word may be taken that this database is the one it has been writing to.
-- 0: it has not compared yet; 1: all that it keeps outside agrees; 2: an org is sealed there.
ALTER TABLE replicas ADD COLUMN word BIGINT NOT NULL DEFAULT 0;
