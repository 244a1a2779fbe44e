//! One audit record (crypto §6), as plain values. Its bytes are the JCS of [`Entry`].

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    clock::Time,
    connector::ConnectorId,
    decision::{ApprovalRef, Outcome, PolicyRef},
    id::{AgentId, EntryId, GrantId, OrgId, UserId},
    mode::Mode,
};

/// The org's epoch: a random incarnation and a counter that every loss of permission moves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// Changed by recovery, so that a restored database never repeats an epoch.
    pub incarnation: u32,
    /// Moved on by every change that can turn an allow into a deny.
    pub counter: i64,
}

impl Epoch {
    /// Whether what was read at this epoch is outdated at `other`. Incarnations have no order: another one is another
    /// history.
    #[must_use]
    pub fn is_before(self, other: Self) -> bool {
        self.incarnation != other.incarnation || self.counter < other.counter
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}:{}", self.incarnation, self.counter)
    }
}

impl FromStr for Epoch {
    type Err = InvalidEpoch;

    fn from_str(text: &str) -> Result<Self, InvalidEpoch> {
        let (incarnation, counter) = text.split_once(':').ok_or(InvalidEpoch)?;
        let epoch = Self {
            incarnation: u32::from_str_radix(incarnation, 16).map_err(|_| InvalidEpoch)?,
            counter: counter.parse().map_err(|_| InvalidEpoch)?,
        };
        if epoch.to_string() == text {
            Ok(epoch)
        } else {
            Err(InvalidEpoch)
        }
    }
}

/// The text is not an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an epoch")]
pub struct InvalidEpoch;

impl Serialize for Epoch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryType {
    /// An evaluation that released nothing: a deny, or `POST /v1/decisions`.
    Decision,
    /// A release: commits before anything leaves.
    Release,
    /// What became of a release.
    Outcome,
    /// A receipt that died before anything left.
    Dropped,
    /// An access token was renewed or narrowed.
    Refresh,
    /// A grant was connected or connected again.
    Connect,
    /// A delegation was made, narrowed or ended.
    Delegation,
    /// A revocation.
    Revoke,
    /// What the provider said to an upstream revocation.
    UpstreamRevoke,
    /// A login link was made or used, a session began or ended.
    Session,
    /// An admin changed the org.
    Admin,
    /// A writer started or stopped.
    Writer,
}

impl EntryType {
    /// The name in JSON and storage.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decision => "decision",
            Self::Release => "release",
            Self::Outcome => "outcome",
            Self::Dropped => "dropped",
            Self::Refresh => "refresh",
            Self::Connect => "connect",
            Self::Delegation => "delegation",
            Self::Revoke => "revoke",
            Self::UpstreamRevoke => "upstream_revoke",
            Self::Session => "session",
            Self::Admin => "admin",
            Self::Writer => "writer",
        }
    }
}

/// One audit record. Every member is present in its JSON; absent ones are `null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Always 1.
    pub schema: u8,
    /// Its id.
    pub id: EntryId,
    /// The tenant.
    pub org: OrgId,
    /// The epoch it committed under.
    pub epoch: Epoch,
    /// The database's time of the commit.
    pub ts: Time,
    /// Which writer: `<replica>/<lane>`.
    pub writer: String,
    /// Counts per (org, writer) without gaps, from 1.
    pub writer_seq: u64,
    /// Lower-case hex SHA-256 of that writer's previous entry for the org; 64 zeros for its first.
    pub prev: String,
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: EntryType,
    /// The rest, as the caller drafted it.
    #[serde(flatten)]
    pub draft: EntryDraft,
}

/// What a caller says of an entry; the store adds epoch, time, writer, number and chain in the same transaction.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EntryDraft {
    /// The person concerned.
    pub user: Option<UserId>,
    /// The agent that acted.
    pub agent: Option<AgentId>,
    /// Who else stood behind it (RFC 8693 actor chain), admin keys and persons included, as ids.
    #[serde(default)]
    pub on_behalf: Vec<String>,
    /// The grant concerned.
    pub grant: Option<GrantId>,
    /// The generation of the sealed secret that was read.
    pub generation: Option<u64>,
    /// The connector concerned.
    pub connector: Option<ConnectorId>,
    /// base64url HMAC-SHA-256(salt, account id).
    pub account_hash: Option<String>,
    /// The tool.
    pub tool: Option<String>,
    /// base64url HMAC-SHA-256(salt, action hash).
    pub action_hash: Option<String>,
    /// The decision relied on.
    pub decision: Option<EntryDecision>,
    /// `sha256:` hex of the caller's context.
    pub context_digest: Option<String>,
    /// The policy that answered.
    pub policy: Option<PolicyRef>,
    /// Approvals spent.
    #[serde(default)]
    pub approvals: Vec<ApprovalRef>,
    /// The mode of the release.
    pub mode: Option<Mode>,
    /// `allow`, `deny`, `ok`, `failed`, `unknown`, `revoked` …: stable codes of the type.
    pub outcome: Option<String>,
    /// A stable, model-safe reason.
    pub reason: Option<String>,
    /// The entry or request this one belongs to.
    pub correlation: Option<String>,
}

/// The decision an entry relies on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryDecision {
    /// RFC 7519 `jti`.
    pub jti: String,
    /// RFC 7519 `iss`.
    pub iss: String,
    /// Lower-case hex SHA-256 of the compact JWS.
    pub sha256: String,
    /// What it said.
    pub outcome: Outcome,
}
