-- Quarantines whose time is over: few, among very many grants.
CREATE INDEX grants_quarantined ON grants (state_at) WHERE state = 'quarantined';
