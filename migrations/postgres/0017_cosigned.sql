-- The last head of the log that the witness has cosigned, with its cosignature: a busy log has a newer one by the time the
-- cosignature comes.
ALTER TABLE logs ADD COLUMN cosigned TEXT;
ALTER TABLE logs ADD COLUMN cosigned_size BIGINT NOT NULL DEFAULT 0;

-- Until now only the newest head bore one: a signature line beside the log's own. U+2014 begins each. The owner, too, sees no
-- org's rows unless row-level security steps aside for this one statement.
ALTER TABLE logs NO FORCE ROW LEVEL SECURITY;
UPDATE logs SET cosigned = checkpoint, cosigned_size = size
  WHERE length(checkpoint) - length(replace(checkpoint, chr(10) || chr(8212), '')) > 2;
ALTER TABLE logs FORCE ROW LEVEL SECURITY;
