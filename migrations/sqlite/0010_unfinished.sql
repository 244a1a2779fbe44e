-- The revocations whose fan-out is not finished are looked for again and again: each one that is leaves this index.
CREATE INDEX revocations_unfinished ON revocations (at, org_id, id) WHERE fanned_out = 0;
