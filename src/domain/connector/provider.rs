//! The OAuth facts of a connector: where to ask, how to ask, what the answers mean. Data only; nothing here acts.
//!
//! Every table refuses unknown keys. A fact nobody checked takes the careful value: rotating, single use, no grace,
//! no narrowing, no revocation.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de};

use super::{
    ActionDefinition, ConnectorId,
    api::{Api, ErrorRules, Identity, Revoke, ScopeInfo},
    token::{Narrow, NarrowHow, Proof, Refresh, ScopeOnRefresh, TokenRules},
};

/// One third-party app: OAuth facts and typed actions, as one file says them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connector {
    /// The version of this format; always 1.
    pub schema: u8,
    /// Stable; equals the file's name.
    pub id: ConnectorId,
    /// What people read.
    pub name: String,
    /// Connectors of one family share an authorization server.
    #[serde(default)]
    pub family: Option<String>,
    /// The day somebody compared this file with the provider's documentation.
    #[serde(deserialize_with = "date")]
    pub verified_on: String,
    /// What the file's claims rest on.
    pub status: Evidence,
    /// The provider's page on its OAuth.
    #[serde(default)]
    pub docs_url: Option<String>,
    /// Where the person sees and ends connected apps at the provider.
    #[serde(default)]
    pub manage_url: Option<String>,
    /// Endpoints.
    pub server: Server,
    /// Every `{name}` that endpoints and hosts use.
    #[serde(default)]
    pub vars: BTreeMap<String, VarSpec>,
    /// How Postern shows itself to the token endpoint.
    #[serde(default)]
    pub client: ClientRules,
    /// The authorization request.
    #[serde(default)]
    pub authorize: Authorize,
    /// The principals one consent can give tokens for; empty: one, unnamed.
    #[serde(default)]
    pub actors: BTreeMap<String, Actor>,
    /// Where things are in a token answer.
    #[serde(default)]
    pub token: TokenRules,
    /// How refresh tokens behave.
    #[serde(default)]
    pub refresh: Refresh,
    /// Whether the provider can hand out less than was granted.
    #[serde(default)]
    pub narrow: Narrow,
    /// How the account behind a grant is told.
    pub identity: Identity,
    /// What refusals mean.
    #[serde(default)]
    pub errors: ErrorRules,
    /// How a token is ended at the provider.
    #[serde(default)]
    pub revoke: Revoke,
    /// The API that actions call.
    pub api: Api,
    /// Every scope, in plain words.
    #[serde(default, rename = "scope")]
    pub scopes: Vec<ScopeInfo>,
    /// The typed actions.
    #[serde(default, rename = "action")]
    pub actions: Vec<ActionDefinition>,
}

impl Connector {
    /// The typed action called `name`.
    #[must_use]
    pub fn action(&self, name: &str) -> Option<&ActionDefinition> {
        self.actions.iter().find(|action| action.name == name)
    }

    /// What people read about a scope.
    #[must_use]
    pub fn scope(&self, name: &str) -> Option<&ScopeInfo> {
        self.scopes.iter().find(|scope| scope.name == name)
    }

    /// Whether asking for fewer scopes on refresh yields a narrower access token, provably, without risk to the
    /// grant: the refresh token survives (it does not rotate, or the old one stays good for a retry of 60 s).
    #[must_use]
    pub fn narrows_by_refresh(&self) -> bool {
        self.narrow.how == NarrowHow::RefreshScope
            && self.narrow.proof != Proof::None
            && self.refresh.scope_on_refresh == ScopeOnRefresh::Safe
            && (!self.refresh.rotates || self.refresh.old_refresh_valid_s >= 60)
    }
}

/// What the claims of a file rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// Read in the provider's documentation; not run.
    Documented,
    /// Run against an emulator.
    EmulatorVerified,
    /// Run against the provider.
    LiveVerified,
}

/// The authorization server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// RFC 8414 issuer; compared with the `iss` of callbacks and id tokens.
    #[serde(default)]
    pub issuer: Option<String>,
    /// RFC 9207: the server always sends `iss`, so a callback without it is refused.
    #[serde(default)]
    pub iss_required: bool,
    /// Where the person is sent.
    pub authorize_url: String,
    /// Where codes are exchanged.
    pub token_url: String,
    /// Where tokens are refreshed, if elsewhere.
    #[serde(default)]
    pub refresh_url: Option<String>,
    /// RFC 8628.
    #[serde(default)]
    pub device_url: Option<String>,
}

/// One `{name}` of endpoints and hosts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VarSpec {
    /// What people read.
    pub label: String,
    /// Empty: the value is one lower-case label. Else it is a host that is one of these or below one.
    #[serde(default)]
    pub host_suffixes: Vec<String>,
    /// Used when nobody gave one.
    #[serde(default)]
    pub default: Option<String>,
    /// Who says it.
    pub source: VarSource,
}

/// Who says what a variable is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VarSource {
    /// The person, before connecting.
    User,
    /// A parameter of the callback.
    Callback,
    /// A member of the token answer.
    Token,
    /// A call after connecting.
    Lookup,
}

/// How the client shows itself to the token endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientRules {
    /// RFC 6749 §2.3.1; without a secret the client id goes in the body.
    pub auth: ClientAuth,
    /// What the provider calls `client_id`.
    pub id_param: String,
    /// RFC 7636.
    pub pkce: Pkce,
    /// How token requests are written.
    pub body: TokenBody,
    /// Fixed headers of token requests.
    pub headers: BTreeMap<String, String>,
}

/// What an org is at a connector (RFC 6749 §2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientType {
    /// It has a client secret.
    Confidential,
    /// It has none.
    Public,
}

impl ClientRules {
    /// Whether a client of this type gets no token: the server wants a secret, and nothing stands in for it.
    #[must_use]
    pub fn turn_away(&self, client: ClientType) -> bool {
        // RFC 9700 §2.1.1: what makes a public client safe is PKCE, so a server that takes one demands it.
        client == ClientType::Public && self.auth != ClientAuth::None && self.pkce != Pkce::Required
    }
}

impl Default for ClientRules {
    fn default() -> Self {
        Self {
            auth: ClientAuth::Basic,
            id_param: "client_id".to_owned(),
            pkce: Pkce::Supported,
            body: TokenBody::Form,
            headers: BTreeMap::new(),
        }
    }
}

/// Client authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// `Authorization: Basic`.
    Basic,
    /// `client_id` and `client_secret` in the body.
    Body,
    /// A public client: no secret is sent even if there is one.
    None,
}

/// Whether the server takes PKCE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pkce {
    /// Demands it.
    Required,
    /// Takes it; Postern sends it.
    Supported,
    /// Fails or changes its behaviour when it is sent.
    Refuse,
}

/// How a token request is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenBody {
    /// As RFC 6749 says.
    Form,
    /// One JSON object.
    Json,
}

/// The authorization request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Authorize {
    /// Fixed parameters.
    pub params: BTreeMap<String, String>,
    /// What the provider calls `scope`.
    pub scope_param: String,
    /// Between scopes.
    pub scope_separator: char,
    /// Asked for besides what actions need.
    pub scopes_always: Vec<String>,
    /// What a second consent does.
    pub incremental: Incremental,
}

impl Default for Authorize {
    fn default() -> Self {
        Self {
            params: BTreeMap::new(),
            scope_param: "scope".to_owned(),
            scope_separator: ' ',
            scopes_always: Vec::new(),
            incremental: Incremental::None,
        }
    }
}

/// What a second consent of the same person does to the scopes of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Incremental {
    /// Each consent stands alone.
    None,
    /// Scopes only grow; a new token carries the old ones too.
    Additive,
    /// They are merged if `include_granted_scopes` is sent; Postern never sends it.
    IncludeGrantedScopes,
}

/// One of several principals of a consent (Slack: user and bot).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// The parameter its scopes are asked with.
    pub scope_param: String,
    /// Where its token is in the answer to a code; empty: at the top.
    #[serde(default)]
    pub token_path: String,
}

fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let date = toml::value::Datetime::deserialize(deserializer)?;
    if date.date.is_some() && date.time.is_none() && date.offset.is_none() {
        Ok(date.to_string())
    } else {
        Err(de::Error::custom("a date without time is needed"))
    }
}
