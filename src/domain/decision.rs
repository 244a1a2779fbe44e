//! The signed answer (protocol §4), as plain values. Signing is `policy::notary`, checking is `release::verify`.

use serde::{Deserialize, Serialize};

use super::{
    id::{AgentId, ApprovalId, DecisionId, EntryId, GrantId, OrgId, UserId},
    mode::ModeSet,
    scope::ScopeSet,
};

/// What an evaluation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// May be released.
    Allow,
    /// May not.
    Deny,
    /// A human has to say yes first.
    Escalate,
}

impl Outcome {
    /// The name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Escalate => "escalate",
        }
    }
}

/// The claims of a decision. Unknown members are refused.
///
/// Members of this and of what it holds stand in the order of RFC 8785, and there are no fractions: its JSON is its
/// canonical form. A test of `policy::notary` holds that against the canonicaliser.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionClaims {
    /// By whom.
    pub act: Actor,
    /// base64url of the action's SHA-256.
    pub action_hash: String,
    /// Approvals that were taken into account.
    #[serde(default)]
    pub approvals: Vec<ApprovalRef>,
    /// `<issuer>/orgs/<org>`: one string.
    pub aud: String,
    /// These only narrow.
    #[serde(default)]
    pub constraints: Constraints,
    /// `sha256:` hex of the caller's context, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_digest: Option<String>,
    /// RFC 7519 §4.1.4, seconds; at most 120 after `iat`.
    pub exp: i64,
    /// With which grant.
    pub grant: GrantId,
    /// RFC 7519 §4.1.6, seconds.
    pub iat: i64,
    /// Who signed: Postern's public base URL, or the registered engine's `iss`.
    pub iss: String,
    /// Spent once per (org, iss). `dec_…` from Postern; an engine may use any text of 1 to 128 characters without control
    /// characters.
    pub jti: String,
    /// What each layer said; evidence.
    #[serde(default)]
    pub layers: Layers,
    /// Whether a person was in a live session.
    #[serde(default)]
    pub live_session: bool,
    /// The tenant.
    pub org: OrgId,
    /// Only `allow` releases.
    pub outcome: Outcome,
    /// Which policy answered.
    pub policy: PolicyRef,
    /// As whom.
    pub sub: UserId,
    /// Which tool.
    pub tool: String,
    /// Always 1.
    pub ver: u8,
}

/// RFC 8693 §4.1 actor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// The agent's own name for its run; evidence only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The agent.
    pub sub: AgentId,
}

/// Constraints of a decision. An unknown one rejects; an empty list means none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constraints {
    /// RFC 7800 confirmation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
    /// Longest life of what is released, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ttl_s: Option<u64>,
    /// The modes allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modes: Option<ModeSet>,
    /// The scopes a released token may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<ScopeSet>,
}

/// RFC 9449 §6.1: the thumbprint of the key the caller must prove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// RFC 7638 thumbprint.
    pub jkt: String,
}

/// The policy that answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRef {
    /// `sha256:` hex over the policy texts.
    pub digest: String,
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: String,
}

/// What each layer said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layers {
    /// The agent's capability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Outcome>,
    /// The organisation's policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<Outcome>,
    /// The person's delegation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Outcome>,
}

/// A reference to an approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalRef {
    /// The approval.
    pub id: ApprovalId,
}

/// What a decision's text may be before it is checked: 16 KiB, nothing known about it.
#[derive(Debug, Clone)]
pub struct UnverifiedDecision(pub String);

/// Whom a decision is made out to, `aud`: `<issuer>/orgs/<org>`. One that is made and spent within a call is made out to the
/// one entry that spends it, `<issuer>/orgs/<org>/entries/<entry>`: nobody else can use it.
#[must_use]
pub fn audience(issuer: &str, org: OrgId, entry: Option<EntryId>) -> String {
    match entry {
        None => format!("{issuer}/orgs/{org}"),
        Some(entry) => format!("{issuer}/orgs/{org}/entries/{entry}"),
    }
}

/// The id under which Postern's own decisions are spent.
#[must_use]
pub fn own_jti(id: DecisionId) -> String {
    id.to_string()
}
