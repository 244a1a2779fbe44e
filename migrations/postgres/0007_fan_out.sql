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
  host        TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  taken_up_to BIGINT NOT NULL,
  not_before  BIGINT NOT NULL
);

GRANT SELECT, INSERT, UPDATE ON providers TO postern_app;
GRANT SELECT (connector) ON outbox TO postern_due;
-- What a revocation ended is counted once it has taken effect.
GRANT UPDATE (counts) ON revocations TO postern_app;
