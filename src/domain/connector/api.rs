//! Facts about the account, refusals, revocation and the API.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{SuccessRule, TokenBody};

/// How the account behind a grant is told. A path is dotted; paths joined with `/` make one value of several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The way.
    pub how: IdentityHow,
    /// For `userinfo` and `call`.
    #[serde(default)]
    pub url: Option<String>,
    /// For `call`; `GET` or `POST`.
    #[serde(default)]
    pub method: Option<String>,
    /// What a success looks like, besides status 2xx.
    #[serde(default)]
    pub success: Option<SuccessRule>,
    /// The stable id.
    #[serde(default)]
    pub id: String,
    /// What people read.
    #[serde(default)]
    pub label: Option<String>,
    /// The account's e-mail address, for the org's rule about accounts.
    #[serde(default)]
    pub email: Option<String>,
    /// Where the provider says that the address was verified; the address counts only with `true` there. Absent: the
    /// provider's addresses are all verified.
    #[serde(default)]
    pub email_verified: Option<String>,
    /// The provider's tenant.
    #[serde(default)]
    pub tenant: Option<String>,
}

/// The way to the account's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityHow {
    /// The claims of the id token in the token answer.
    IdToken,
    /// OpenID Connect Core §5.3.
    Userinfo,
    /// Members of the token answer.
    TokenResponse,
    /// A call of the API.
    Call,
    /// The provider tells none.
    None,
}

/// What refusals mean. Looked at in the order transient, config, consent, dead; then RFC 6749's own meaning.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ErrorRules {
    /// The token or grant has ended.
    pub dead: Vec<ErrorRule>,
    /// Later it may work.
    pub transient: Vec<ErrorRule>,
    /// The operator's client is at fault; reconnecting helps nobody.
    pub config: Vec<ErrorRule>,
    /// The person must consent again.
    pub consent: Vec<ErrorRule>,
}

/// One pattern of a refusal: everything given must match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorRule {
    /// At which endpoint; absent: any.
    #[serde(default)]
    pub at: Option<ErrorAt>,
    /// The HTTP status.
    #[serde(default)]
    pub status: Option<u16>,
    /// Dotted path into the JSON body; absent: `error`.
    #[serde(default)]
    pub path: Option<String>,
    /// The values there; empty: any body.
    #[serde(default)]
    pub is: Vec<String>,
}

/// The kind of endpoint that refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorAt {
    /// Token endpoint.
    Token,
    /// The API.
    Api,
    /// Revocation.
    Revoke,
}

/// How a token is ended at the provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Revoke {
    /// The way.
    pub how: RevokeHow,
    /// Where; may name `{client_id}`.
    pub url: Option<String>,
    /// For `call`; default `POST`.
    pub method: Option<String>,
    /// How the request is authenticated; absent: as token requests.
    pub auth: Option<RevokeAuth>,
    /// For `call`: how the token is sent, besides as the bearer.
    pub body: Option<TokenBody>,
    /// For `call` with a body: what the token is called there.
    pub param: Option<String>,
    /// Which tokens it takes; absent: both.
    pub accepts: Option<RevokeAccepts>,
    /// What a success looks like, besides status 2xx.
    pub success: Option<SuccessRule>,
    /// What else ends with it.
    pub kills: Option<RevokeKills>,
    /// How many requests a second it takes, from all replicas together.
    pub per_second: u32,
}

impl Default for Revoke {
    fn default() -> Self {
        Self {
            how: RevokeHow::None,
            url: None,
            method: None,
            auth: None,
            body: None,
            param: None,
            accepts: None,
            success: None,
            kills: None,
            // Few providers publish a limit for this. A person's few grants fit into one second.
            per_second: 10,
        }
    }
}

/// The way to end a token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeHow {
    /// RFC 7009.
    Rfc7009,
    /// A call of the provider's own.
    Call,
    /// There is none.
    #[default]
    None,
}

/// How a revocation request is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeAuth {
    /// Not at all: holding the token is enough.
    None,
    /// By the token itself.
    Bearer,
    /// By client id and secret, `Authorization: Basic`.
    ClientBasic,
}

/// Which one kind of token a revocation takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeAccepts {
    /// Access tokens only.
    Access,
    /// Refresh tokens only.
    Refresh,
}

/// What ends with a revoked token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeKills {
    /// That token only.
    Token,
    /// The grant it came from.
    Grant,
    /// Everything this person gave this client.
    AllTokensOfUserAndClient,
}

/// The API that actions call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// `host` or `host:port`; no action leaves them.
    pub hosts: Vec<String>,
    /// Where `http.request` goes; absent: the connector has no such tool.
    #[serde(default)]
    pub origin: Option<String>,
    /// Path patterns `http.request` stays in; empty: all. `*` ends a segment, `**` is the rest.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Path patterns `http.request` never reaches: batch, GraphQL, token minting.
    #[serde(default)]
    pub deny: Vec<String>,
    /// Where the access token goes.
    #[serde(default)]
    pub token_in: TokenPlacement,
    /// Fixed headers of every call.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// Where the access token goes in an API call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TokenPlacement {
    /// `Authorization: Bearer` (RFC 6750 §2.1).
    #[default]
    Bearer,
    /// A header of the provider's own.
    Header(String),
    /// A query parameter.
    Query(String),
}

/// The text names no place for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token placement: bearer, header:<name> or query:<name>")]
pub struct UnknownPlacement;

impl TryFrom<String> for TokenPlacement {
    type Error = UnknownPlacement;

    fn try_from(text: String) -> Result<Self, UnknownPlacement> {
        match text.split_once(':') {
            None if text == "bearer" => Ok(Self::Bearer),
            Some(("header", name)) if !name.is_empty() => Ok(Self::Header(name.to_owned())),
            Some(("query", name)) if !name.is_empty() => Ok(Self::Query(name.to_owned())),
            _ => Err(UnknownPlacement),
        }
    }
}

impl From<TokenPlacement> for String {
    fn from(placement: TokenPlacement) -> Self {
        placement.to_string()
    }
}

impl fmt::Display for TokenPlacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer => f.write_str("bearer"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
        }
    }
}

/// A scope in plain words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeInfo {
    /// As the provider writes it.
    pub name: String,
    /// What it allows, as people say it.
    pub title: String,
    /// How it is shown.
    pub kind: ScopeKind,
}

/// How a scope is shown to the person who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScopeKind {
    /// Looks only.
    Read,
    /// Changes things.
    Act,
    /// Wide or hard to undo.
    Sensitive,
}
