//! The exact thing to be done (protocol §3).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    connector::ConnectorId,
    id::{AgentId, GrantId, OrgId, UserId},
};

/// The canonical action: what is hashed, signed, approved and executed. All members, no others.
///
/// INVARIANT: `args` passed the strict gate and the tool's schema, defaults filled; only `connectors` builds one
/// from outside input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// Always `postern.action/1`.
    pub typ: ActionType,
    /// The tenant.
    pub org: OrgId,
    /// As whom.
    pub user: UserId,
    /// By whom.
    pub agent: AgentId,
    /// With which grant.
    pub grant: GrantId,
    /// At which connector.
    pub connector: ConnectorId,
    /// Which tool of it.
    pub tool: String,
    /// `sha256:` and hex, over the tool's definition and the consented binding.
    pub tool_digest: String,
    /// The arguments, validated, defaults filled.
    pub args: Value,
}

/// The `typ` member of an action: one value exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActionType {
    /// Version 1.
    #[serde(rename = "postern.action/1")]
    V1,
}

/// SHA-256 over the canonical form of an action; base64url without padding in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ActionHash(pub [u8; 32]);
