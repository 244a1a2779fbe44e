//! Who calls (protocol §1). Humans and agents are distinct kinds.

use serde::{Deserialize, Serialize};

use super::id::{AgentId, KeyId, OrgId, ServiceId, UserId};

/// A person's role in the org.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Connects apps and delegates.
    Member,
    /// Governs the org; reads no secret, acts in nobody's name.
    Admin,
}

impl Role {
    /// The name in JSON and storage.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Admin => "admin",
        }
    }
}

/// What an API key is for; its prefix tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// `psd_…`: an org's administration.
    Admin,
    /// `pss_…`: a host application.
    Service,
    /// `psa_…`: an agent.
    Agent,
}

impl KeyKind {
    /// The prefix in front of the underscore, for secret scanners.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Admin => "psd",
            Self::Service => "pss",
            Self::Agent => "psa",
        }
    }

    /// The name in JSON and storage.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Service => "service",
            Self::Agent => "agent",
        }
    }
}

/// Whom an API key speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOwner {
    /// The org's administration; the key is nobody's own.
    Admin,
    /// A host application.
    Service(ServiceId),
    /// An agent.
    Agent(AgentId),
}

impl KeyOwner {
    /// What a key of this owner is for.
    #[must_use]
    pub fn kind(self) -> KeyKind {
        match self {
            Self::Admin => KeyKind::Admin,
            Self::Service(_) => KeyKind::Service,
            Self::Agent(_) => KeyKind::Agent,
        }
    }

    /// The id of the application or agent; an admin key has none.
    #[must_use]
    pub fn id(self) -> Option<String> {
        match self {
            Self::Admin => None,
            Self::Service(id) => Some(id.to_string()),
            Self::Agent(id) => Some(id.to_string()),
        }
    }
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A person in a browser session.
    User {
        /// The tenant.
        org: OrgId,
        /// Who.
        user: UserId,
        /// What they may do.
        role: Role,
    },
    /// The org's administration by API key.
    Admin {
        /// The tenant.
        org: OrgId,
        /// Which key.
        key: KeyId,
    },
    /// A host application by API key.
    Service {
        /// The tenant.
        org: OrgId,
        /// Which application.
        service: ServiceId,
        /// Which key.
        key: KeyId,
    },
    /// An agent by API key.
    Agent {
        /// The tenant.
        org: OrgId,
        /// Who.
        agent: AgentId,
        /// Which key.
        key: KeyId,
    },
}

impl Principal {
    /// The tenant everything this caller sees belongs to.
    #[must_use]
    pub fn org(&self) -> OrgId {
        match self {
            Self::User { org, .. }
            | Self::Admin { org, .. }
            | Self::Service { org, .. }
            | Self::Agent { org, .. } => *org,
        }
    }
}
