-- The last head of the log that the witness has cosigned, with its cosignature: a busy log has a newer one by the time the
-- cosignature comes.
ALTER TABLE logs ADD COLUMN cosigned TEXT;
ALTER TABLE logs ADD COLUMN cosigned_size INTEGER NOT NULL DEFAULT 0;

-- Until now only the newest head bore one: a signature line beside the log's own. U+2014 begins each.
UPDATE logs SET cosigned = checkpoint, cosigned_size = size
  WHERE length(checkpoint) - length(replace(checkpoint, char(10, 8212), '')) > 2;
