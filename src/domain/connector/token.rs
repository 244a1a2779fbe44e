//! Facts about tokens: where they are in an answer, how they refresh, whether they can be narrowed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SuccessRule;

/// Where things are in a token answer. Path look-ups only.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenRules {
    /// The envelope; empty: none.
    pub root: String,
    /// The members, below the root.
    pub fields: TokenFields,
    /// What a success looks like, besides status 2xx.
    pub success: Option<SuccessRule>,
    /// `token_type` values that mean a bearer token here, besides `bearer`.
    pub types: Vec<String>,
    /// Between scopes in the answer; absent: as in the request.
    pub scope_separator: Option<char>,
    /// The life of an access token when the answer is silent.
    pub expires_default_s: Option<u32>,
}

/// The names of the members of a token answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenFields {
    /// The access token.
    pub access: String,
    /// The refresh token.
    pub refresh: String,
    /// Seconds of life, as a number or digits.
    pub expires_in: String,
    /// The end of its life: RFC 3339, or Unix seconds or milliseconds.
    pub expires_at: String,
    /// The granted scopes.
    pub scope: String,
    /// RFC 6749 §7.1.
    pub token_type: String,
    /// OpenID Connect.
    pub id_token: String,
}

impl Default for TokenFields {
    fn default() -> Self {
        Self {
            access: "access_token".to_owned(),
            refresh: "refresh_token".to_owned(),
            expires_in: "expires_in".to_owned(),
            expires_at: "expires_at".to_owned(),
            scope: "scope".to_owned(),
            token_type: "token_type".to_owned(),
            id_token: "id_token".to_owned(),
        }
    }
}

/// How refresh tokens behave. The default is the careful guess: rotating, single use, no grace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Refresh {
    /// Whether access tokens end.
    pub expiry: Expiry,
    /// Whether a refresh yields a new refresh token.
    pub rotates: bool,
    /// How long the old one may be sent again after a rotation.
    pub old_refresh_valid_s: u32,
    /// What sending the old one later does.
    pub reuse: Reuse,
    /// Whether a refresh ends the access token before it.
    pub kills_old_access: bool,
    /// How many access tokens may be minted.
    pub mint_limit: Option<MintLimit>,
    /// A grant unused for so many days dies.
    pub idle_days: Option<u32>,
    /// What a `scope` parameter on refresh does.
    pub scope_on_refresh: ScopeOnRefresh,
}

impl Refresh {
    /// How long an answer that was lost can be asked for once more, where that is a question of time.
    #[must_use]
    pub fn grace(&self) -> Option<Duration> {
        let grace = Duration::from_secs(self.old_refresh_valid_s.into());
        (self.rotates && !grace.is_zero()).then_some(grace)
    }
}

impl Default for Refresh {
    fn default() -> Self {
        Self {
            expiry: Expiry::Optional,
            rotates: true,
            old_refresh_valid_s: 0,
            reuse: Reuse::Unknown,
            kills_old_access: false,
            mint_limit: None,
            idle_days: None,
            scope_on_refresh: ScopeOnRefresh::Unknown,
        }
    }
}

/// Whether access tokens end by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expiry {
    /// All of them.
    Always,
    /// It depends on the app's settings.
    Optional,
    /// None of them.
    Never,
}

/// What sending a spent refresh token does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reuse {
    /// Ends every token that came from the same consent.
    KillsFamily,
    /// Is refused; nothing else happens.
    Ignored,
    /// Nobody knows.
    Unknown,
}

/// What a `scope` parameter on refresh does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScopeOnRefresh {
    /// Narrows the access token only.
    Safe,
    /// Narrows the refresh token for good.
    Destructive,
    /// Nothing.
    Ignored,
    /// Nobody knows.
    Unknown,
}

/// A limit on minting access tokens from one refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MintLimit {
    /// So many …
    pub n: u32,
    /// … in so many seconds.
    pub per_s: u32,
}

/// Whether the provider can hand out less than was granted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Narrow {
    /// The way.
    pub how: NarrowHow,
    /// What proves that it worked.
    pub proof: Proof,
    /// RFC 7662, for `proof = "introspect"`.
    pub introspect_url: Option<String>,
}

/// The way to a narrower token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NarrowHow {
    /// RFC 6749 §6: fewer scopes on refresh.
    RefreshScope,
    /// There is none.
    #[default]
    None,
}

/// What proves that a token is narrower.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The `scope` of the token answer.
    ReturnedScope,
    /// The `scope` of RFC 7662 introspection.
    Introspect,
    /// Nothing does: it is not narrower.
    #[default]
    None,
}
