//! What a person lets an agent do with a grant.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{
    clock::Time,
    connector::Category,
    id::{AgentId, DelegationId, GrantId, OrgId, UserId},
};

/// One delegation, made only in the person's own session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Delegation {
    /// Its id.
    pub id: DelegationId,
    /// The tenant.
    #[serde(skip)]
    pub org: OrgId,
    /// Whose.
    pub user: UserId,
    /// For whom.
    pub agent: AgentId,
    /// Over which grant.
    pub grant: GrantId,
    /// What kinds of action.
    pub categories: BTreeSet<Category>,
    /// Only these tools of those categories; empty: all of them.
    pub tools: BTreeSet<String>,
    /// Whether a raw token may be released (protocol §5, rung 3).
    pub raw: bool,
    /// When it ends by itself.
    pub expires_at: Option<Time>,
    /// The epoch counter at which it was made; dead if a floor covering it is not lower.
    #[serde(skip)]
    pub made_epoch: i64,
    /// When it was ended by hand.
    pub ended_at: Option<Time>,
}

impl Delegation {
    /// Whether it holds at `now`, floors aside.
    #[must_use]
    pub fn is_live(&self, now: Time) -> bool {
        self.ended_at.is_none() && self.expires_at.is_none_or(|at| now < at)
    }
}
