//! What a person lets an agent do with a grant.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

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

/// What the person lets one agent do, as ticked; no category and no raw token: nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// Which agent.
    pub agent: AgentId,
    /// What kinds of action.
    pub categories: BTreeSet<Category>,
    /// Whether a raw token may be released.
    pub raw: bool,
}

impl Choice {
    /// Whether it ends what held before and allows nothing instead.
    #[must_use]
    pub fn allows_nothing(&self) -> bool {
        self.categories.is_empty() && !self.raw
    }

    /// Whether it changes nothing about the living delegations of its agent.
    #[must_use]
    pub fn is_what_holds(&self, living: &[Delegation]) -> bool {
        match living {
            [] => self.allows_nothing(),
            [one] => one.categories == self.categories && one.raw == self.raw,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(categories: &[Category], raw: bool) -> Choice {
        Choice {
            agent: AgentId::from_bytes([1; 16]),
            categories: categories.iter().copied().collect(),
            raw,
        }
    }

    fn delegation(categories: &[Category], raw: bool) -> Delegation {
        Delegation {
            id: DelegationId::from_bytes([2; 16]),
            org: OrgId::from_bytes([3; 16]),
            user: UserId::from_bytes([4; 16]),
            agent: AgentId::from_bytes([1; 16]),
            grant: GrantId::from_bytes([5; 16]),
            categories: categories.iter().copied().collect(),
            tools: BTreeSet::new(),
            raw,
            expires_at: Some(Time::from_unix_seconds(10)),
            made_epoch: 1,
            ended_at: None,
        }
    }

    #[test]
    fn an_unchanged_choice_changes_nothing() {
        let read = [Category::Read];
        assert!(choice(&read, false).is_what_holds(&[delegation(&read, false)]));
        assert!(choice(&[], false).is_what_holds(&[]));
    }

    #[test]
    fn any_difference_is_a_change() {
        let read = [Category::Read];
        assert!(!choice(&read, true).is_what_holds(&[delegation(&read, false)]));
        assert!(!choice(&[], false).is_what_holds(&[delegation(&read, false)]));
        assert!(!choice(&read, false).is_what_holds(&[]));
        assert!(!choice(&read, false).is_what_holds(&[delegation(&read, false), delegation(&read, false)]));
    }
}
