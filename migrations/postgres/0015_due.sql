-- What has outlived its purpose is found by org and then by time: a step of the sweep walks what is due in its org, and looks
-- once at each other org.
DROP INDEX spent_due;
CREATE INDEX spent_due ON spent (org_id, keep_until);
DROP INDEX idempotency_due;
CREATE INDEX idempotency_due ON idempotency (org_id, keep_until);
CREATE INDEX login_links_due ON login_links (org_id, expires_at);
CREATE INDEX sessions_due ON sessions (org_id, expires_at);
