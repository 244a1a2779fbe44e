use postern::domain::{GrantId, OrgId};

fn grant_of(org: OrgId) -> GrantId {
    org //~ E0308 mismatched types: expected `GrantId`, found `OrgId`
}

fn main() {}
