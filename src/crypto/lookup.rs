//! Keyed hashes under which secrets of ours are found again, and the one way to show a fresh one.

use super::{CryptoError, MacKey};
use crate::domain::secret::{ApiKey, LinkToken};

/// The MAC keys of a deployment, one per purpose.
#[derive(Debug)]
pub struct LookupKeys {
    /// For API keys.
    pub api_keys: MacKey,
    /// For sessions and forms.
    pub sessions: MacKey,
    /// For links, connect state and codes.
    pub connect_state: MacKey,
}

impl LookupKeys {
    /// The hash of an API key.
    ///
    /// # Errors
    /// Never in practice: the domain is short.
    pub fn api_key(&self, key: &ApiKey) -> Result<[u8; 32], CryptoError> {
        self.api_keys.mac("api-key", key.expose_secret().as_bytes())
    }

    /// The hash of a session cookie.
    ///
    /// # Errors
    /// Never in practice: the domain is short.
    pub fn session(&self, token: &LinkToken) -> Result<[u8; 32], CryptoError> {
        self.sessions.mac("session", token.expose_secret().as_bytes())
    }

    /// The hash of a one-time secret; one `kind` never passes for another.
    ///
    /// # Errors
    /// When the kind's name is longer than 64 KiB.
    pub fn link(&self, kind: &str, token: &LinkToken) -> Result<[u8; 32], CryptoError> {
        self.connect_state.mac(kind, token.expose_secret().as_bytes())
    }

    /// The `state` of a connect session (RFC 6749 §10.12): made from its link, so that no copy is kept.
    ///
    /// # Errors
    /// Never in practice: the domain is short.
    pub fn state_of(&self, link: &LinkToken) -> Result<String, CryptoError> {
        self.link("state", link).map(|mac| super::digest::base64url(&mac))
    }

    /// The MAC behind the token of a form.
    ///
    /// # Errors
    /// Never in practice: the domain is short.
    pub fn csrf(&self, message: &[u8]) -> Result<[u8; 32], CryptoError> {
        self.sessions.mac("csrf", message)
    }

    /// Whether `tag` is the MAC behind the token of a form, in constant time.
    #[must_use]
    pub fn csrf_holds(&self, message: &[u8], tag: &[u8]) -> bool {
        self.sessions.verify("csrf", message, tag)
    }

    /// The hash of a `state`.
    ///
    /// # Errors
    /// Never in practice: the domain is short.
    pub fn state(&self, state: &str) -> Result<[u8; 32], CryptoError> {
        self.connect_state.mac("state-hash", state.as_bytes())
    }
}

/// The text of a fresh one-time secret, for the one answer that hands it out.
#[must_use]
pub fn show_link(token: &LinkToken) -> String {
    token.expose_secret().to_owned()
}

/// The text of a fresh API key, for the one answer that hands it out.
#[must_use]
pub fn show_api_key(key: &ApiKey) -> String {
    key.expose_secret().to_owned()
}
