-- Grants of which nobody has said when they are looked at again: a version before this said so of those that needed nothing.
CREATE INDEX grants_unset ON grants (connector, org_id, id) WHERE renew_at IS NULL AND state = 'active';
