use postern::domain::{GrantId, OrgId};

fn grant_of(org: OrgId) -> GrantId {
    org
}

fn main() {}
