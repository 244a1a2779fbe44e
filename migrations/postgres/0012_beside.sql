-- Who else could end with a grant at its provider: whoever's lives of the same account. Each that is buried leaves this index;
-- those that a floor of the org or of a connector has ended lie behind the others in it.
CREATE INDEX grants_beside ON grants (org_id, connector, account_id, connected_epoch) WHERE state <> 'revoked';
