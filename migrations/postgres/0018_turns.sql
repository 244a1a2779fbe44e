-- Orgs take turns at a connector: those of which upstream revocations wait there are found by one jump each, however many do.
DROP INDEX outbox_due;
CREATE INDEX outbox_due ON outbox (connector, org_id, due_at) WHERE result = 'pending';
