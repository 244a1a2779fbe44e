//! What an evaluation is given: plain values, read by the caller at one epoch.
//!
//! [`Parties`] change only with the org's epoch, a [`Question`] with every request.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::{
    AgentId, GrantId, OrgId, ScopeSet, ServiceId, Time, UserId, connector::ConnectorId, grant::Account,
    principal::Role,
};

/// Who asks with what: fixed for one agent and grant while the org's epoch stands.
///
/// The grant's owner is always `user`: a grant of somebody else cannot be written down here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parties {
    /// The tenant.
    pub org: OrgId,
    /// The person the agent acts as, who owns the grant.
    pub user: UserFacts,
    /// The agent that asks.
    pub agent: AgentFacts,
    /// The grant it asks to use.
    pub grant: GrantFacts,
}

/// The person, as policies see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserFacts {
    /// Their id.
    pub id: UserId,
    /// Their address, if known; host-managed people may have none.
    pub email: Option<String>,
    /// Their role in the org.
    pub role: Role,
    /// The host application that manages them; `None`: Postern's own login.
    pub managed_by: Option<ServiceId>,
}

/// The agent, as policies see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentFacts {
    /// Its id.
    pub id: AgentId,
    /// Its name.
    pub name: String,
}

/// The grant, as policies see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantFacts {
    /// Its id.
    pub id: GrantId,
    /// At which connector.
    pub connector: ConnectorId,
    /// The account behind it.
    pub account: Account,
    /// The person's own name for it.
    pub label: Option<String>,
    /// What the provider granted.
    pub scopes: ScopeSet,
}

/// One request: which tool, with which arguments, under which circumstances.
///
/// Everything but `claimed` is a fact of ours.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The tool of the grant's connector, or `http.request`.
    pub tool: String,
    /// The arguments as `connectors` shows them to policy: validated, defaults filled, an address as
    /// `{local, domain}`.
    pub args: Value,
    /// The moment that counts; the database's, where there is one.
    pub now: Time,
    /// Whether the person is at a browser now.
    pub live_session: bool,
    /// Seconds since the person was last admitted (logged in), if that is known.
    pub admission_age_s: Option<u64>,
    /// Approvals that exist for exactly this action.
    pub approvals: BTreeSet<ApprovalKind>,
    /// Budgets and what is left of them.
    pub budgets: Vec<Budget>,
    /// What the caller says about itself. A forbid may read it, a permit never.
    pub claimed: Option<Value>,
}

/// One budget and what is left of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Its name.
    pub name: String,
    /// What is left.
    pub left: u64,
}

/// Who has to say yes: `user` (the person themself), `four_eyes`, or `four_eyes:<group>` (protocol §7).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ApprovalKind(String);

/// The text is not a kind of approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a kind of approval: `user`, `four_eyes` or `four_eyes:<group>`")]
pub struct InvalidApprovalKind;

impl ApprovalKind {
    /// The text, as in policies.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ApprovalKind {
    type Err = InvalidApprovalKind;

    fn from_str(text: &str) -> Result<Self, InvalidApprovalKind> {
        let fits = match text.split_once(':') {
            None => matches!(text, "user" | "four_eyes"),
            Some(("four_eyes", group)) => {
                (1..=64).contains(&group.len())
                    && group
                        .bytes()
                        .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
            }
            Some(_) => false,
        };
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidApprovalKind)
        }
    }
}

impl TryFrom<String> for ApprovalKind {
    type Error = InvalidApprovalKind;

    fn try_from(text: String) -> Result<Self, InvalidApprovalKind> {
        text.parse()
    }
}

impl From<ApprovalKind> for String {
    fn from(kind: ApprovalKind) -> Self {
        kind.0
    }
}

impl fmt::Display for ApprovalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The facts do not fit the schema; no details, for they may hold what the caller sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the facts do not fit the policy schema")]
pub(super) struct WrongFacts;
