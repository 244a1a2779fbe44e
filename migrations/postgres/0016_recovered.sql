-- Where the incarnations of an org's epoch began: few, among very many entries.
CREATE INDEX entries_incarnations ON entries (org_id, epoch) WHERE kind = 'admin' AND outcome IN ('recovered', 'copied');
