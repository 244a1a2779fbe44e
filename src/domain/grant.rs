//! A grant: one user's stored authorization at one connector account.

use serde::{Deserialize, Serialize};

use super::{
    clock::Time,
    connector::ConnectorId,
    id::{GrantId, OrgId, UserId},
    scope::ScopeSet,
};

/// The person's account at the provider, told apart by the provider's id and never by e-mail or name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The provider's stable id; `None` where the provider tells none.
    pub id: Option<String>,
    /// What people read: an e-mail, a user name, a workspace. Hostile until escaped.
    pub label: String,
    /// Its e-mail address, if the provider vouches for one. Only for the org's rule at connecting: kept with the session,
    /// not with the grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The provider's tenant (workspace, organisation), if it has such.
    pub tenant: Option<String>,
}

/// Why a grant has to be connected again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReconnectReason {
    /// The provider says the refresh token is dead.
    RefreshTokenDead,
    /// A rotated refresh token was lost with a provider that allows no retry.
    RotationLost,
    /// The connector's endpoints or hosts changed since the person consented.
    BindingChanged,
    /// The provider asks for consent again.
    ConsentRequired,
    /// There is no refresh token and the access token has expired.
    Expired,
}

impl ReconnectReason {
    /// The stable code.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RefreshTokenDead => "refresh_token_dead",
            Self::RotationLost => "rotation_lost",
            Self::BindingChanged => "binding_changed",
            Self::ConsentRequired => "consent_required",
            Self::Expired => "expired",
        }
    }
}

/// Where a grant stands. A floor that covers the grant ends it, whatever its row says; `store` applies floors when it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantState {
    /// Vends.
    Active,
    /// The person has to connect again.
    NeedsReconnect {
        /// Why.
        reason: ReconnectReason,
    },
    /// Came back wider than asked: neither vends nor refreshes.
    Quarantined {
        /// When it is discarded.
        until: Time,
    },
    /// Ended; its tokens may only be opened to be revoked.
    Revoked {
        /// When.
        at: Time,
    },
}

impl GrantState {
    /// The name in JSON and storage.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::NeedsReconnect { .. } => "needs_reconnect",
            Self::Quarantined { .. } => "quarantined",
            Self::Revoked { .. } => "revoked",
        }
    }
}

/// A grant as stored, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its id; survives reconnects.
    pub id: GrantId,
    /// The tenant.
    pub org: OrgId,
    /// Whose.
    pub user: UserId,
    /// At which connector.
    pub connector: ConnectorId,
    /// The account behind it.
    pub account: Account,
    /// The person's own name for it.
    pub label: Option<String>,
    /// What the provider granted.
    pub scopes: ScopeSet,
    /// Where it stands.
    pub state: GrantState,
    /// The epoch counter at which it was connected; dead if a floor covering it is not lower.
    pub connected_epoch: i64,
    /// Counts every new refresh or access token; sealed values are bound to it.
    pub generation: u64,
    /// SHA-256 of the endpoints, hosts, token placement and variables the person consented to.
    pub binding: [u8; 32],
    /// When the stored access token ends, if known.
    pub access_expires_at: Option<Time>,
    /// Whether there is a refresh token.
    pub has_refresh_token: bool,
    /// When it was first connected.
    pub connected_at: Time,
    /// When an agent last used it.
    pub last_used_at: Option<Time>,
}
