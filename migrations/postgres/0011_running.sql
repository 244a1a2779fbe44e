-- Idempotency keys of calls of which nobody has said yet how they ended. Few at any time: each that is ended leaves this
-- index.
CREATE INDEX idempotency_running ON idempotency (keep_until) WHERE status IS NULL;
GRANT SELECT (entry_id, status) ON idempotency TO postern_due;

-- What no statement does, no statement may. Rows are deleted of sessions, login_links, connect_sessions, secrets,
-- idempotency, spent and open_calls, and of nothing else; policies and keys are written once.
REVOKE DELETE ON
  meta, orgs, odks, instance_keys, users, agents, services, engines, api_keys, connector_clients, policies, grants,
  delegations, refresh_leases, logs, outbox, replicas, notices
  FROM postern_app;
REVOKE UPDATE ON odks, instance_keys, policies FROM postern_app;
-- Since 0004 the workers look at open_calls instead.
REVOKE SELECT (kind, mode, ts, correlation) ON entries FROM postern_due;
