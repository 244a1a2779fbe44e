//! A connector: one third-party app, as facts (OAuth) and typed actions. Parsed from `connectors/<id>.toml`.
//!
//! `action` holds the typed actions, `provider`, `token` and `api` the facts. The shape is data only; the room `connectors` loads, checks and uses it.

mod action;
mod api;
mod provider;
mod token;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub use action::{
    ActionDefinition, ArgFormat, ArgSpec, ArgType, BodyKind, RequestTemplate, ResponseRule, SuccessRule,
};
pub use api::{
    Api, ErrorAt, ErrorRule, ErrorRules, Identity, IdentityHow, Revoke, RevokeAccepts, RevokeAuth, RevokeHow,
    RevokeKills, ScopeInfo, ScopeKind, TokenPlacement, UnknownPlacement,
};
pub use provider::{
    Actor, Authorize, ClientAuth, ClientRules, ClientType, Connector, Evidence, Incremental, Pkce, Server,
    TokenBody, VarSource, VarSpec,
};
pub use token::{
    Expiry, MintLimit, Narrow, NarrowHow, Proof, Refresh, Reuse, ScopeOnRefresh, TokenFields, TokenRules,
};

/// The id of a connector: lower-case letters, digits and `-`, at most 40.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConnectorId(String);

/// The text is not a connector id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a connector id: 1 to 40 of a-z, 0-9 and -")]
pub struct InvalidConnectorId;

impl ConnectorId {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ConnectorId {
    type Err = InvalidConnectorId;

    fn from_str(text: &str) -> Result<Self, InvalidConnectorId> {
        let fits = (1..=40).contains(&text.len())
            && text
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !text.starts_with('-');
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidConnectorId)
        }
    }
}

impl TryFrom<String> for ConnectorId {
    type Error = InvalidConnectorId;

    fn try_from(text: String) -> Result<Self, InvalidConnectorId> {
        text.parse()
    }
}

impl From<ConnectorId> for String {
    fn from(id: ConnectorId) -> Self {
        id.0
    }
}

impl fmt::Display for ConnectorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a tool does to the world; `http.request` has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    /// Looks only.
    Read,
    /// Adds or changes.
    Write,
    /// Removes what cannot be brought back.
    Destructive,
    /// Changes who may do what.
    Admin,
}

impl Category {
    /// All categories, mildest first.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Destructive, Self::Admin];

    /// The name in files, policies and forms.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Destructive => "destructive",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Category {
    type Err = UnknownCategory;

    fn from_str(text: &str) -> Result<Self, UnknownCategory> {
        Self::ALL
            .into_iter()
            .find(|category| category.as_str() == text)
            .ok_or(UnknownCategory)
    }
}

/// No category has this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a category: read, write, destructive or admin")]
pub struct UnknownCategory;

/// The generic tool for calls without a typed action.
pub const HTTP_REQUEST: &str = "http.request";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connector_ids_are_narrow() {
        for text in ["", "Slack", "a b", "../x", "-a", &"a".repeat(41)] {
            assert!(text.parse::<ConnectorId>().is_err(), "{text}");
        }
        assert_eq!("acme-mail".parse::<ConnectorId>().unwrap().as_str(), "acme-mail");
    }
}
