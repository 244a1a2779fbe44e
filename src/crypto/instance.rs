//! Keys of this deployment, each for one purpose, sealed under the deployment's data key (crypto §1).
//!
//! Never sealed under an org's key: logging in, entries without args and `revoke` need no org key.

use std::{fmt, str::FromStr};

use super::{
    CryptoError,
    aad::AadParts,
    keyring::{OdkHandle, SealedSecret},
    mac::MacKey,
    signing::SigningKey,
};
use crate::domain::{KeyId, Time};

/// What an instance key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Keyed hashes of API keys.
    ApiKeys,
    /// Keyed hashes of sessions and cookies.
    Sessions,
    /// Keyed hashes of connect state, login links and one-time codes.
    ConnectState,
    /// Signs decisions.
    Notary,
    /// Signs delegation receipts.
    DelegationReceipts,
    /// Signs access tokens of ours.
    AccessTokens,
    /// Signs audit checkpoints.
    Checkpoints,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Self; 7] = [
        Self::ApiKeys,
        Self::Sessions,
        Self::ConnectState,
        Self::Notary,
        Self::DelegationReceipts,
        Self::AccessTokens,
        Self::Checkpoints,
    ];

    /// The name in storage, bound into the sealing.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApiKeys => "api_keys",
            Self::Sessions => "sessions",
            Self::ConnectState => "connect_state",
            Self::Notary => "notary",
            Self::DelegationReceipts => "delegation_receipts",
            Self::AccessTokens => "access_tokens",
            Self::Checkpoints => "checkpoints",
        }
    }

    /// Whether the key signs; else it makes keyed hashes.
    #[must_use]
    pub fn signs(self) -> bool {
        !matches!(self, Self::ApiKeys | Self::Sessions | Self::ConnectState)
    }

    /// The one `typ` of the tokens a key of this purpose signs; `None` when it signs no tokens.
    #[must_use]
    pub fn token_typ(self) -> Option<&'static str> {
        match self {
            Self::Notary => Some("action-decision+jwt"),
            Self::DelegationReceipts => Some("delegation-receipt+jwt"),
            // RFC 9068 §2.1.
            Self::AccessTokens => Some("at+jwt"),
            Self::ApiKeys | Self::Sessions | Self::ConnectState | Self::Checkpoints => None,
        }
    }

    /// The kind in the AAD.
    fn kind(self) -> String {
        format!("instance:{}", self.as_str())
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No purpose has this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a purpose of an instance key")]
pub struct UnknownPurpose;

impl FromStr for Purpose {
    type Err = UnknownPurpose;

    fn from_str(text: &str) -> Result<Self, UnknownPurpose> {
        Self::ALL
            .into_iter()
            .find(|purpose| purpose.as_str() == text)
            .ok_or(UnknownPurpose)
    }
}

/// An instance key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceKeyRecord {
    /// Its id.
    pub id: KeyId,
    /// What it is for.
    pub purpose: Purpose,
    /// The JWK of a signing key's public part, canonical JSON.
    pub public_jwk: Option<String>,
    /// The private part: PKCS#8 of a signing key, 32 bytes of a MAC key.
    pub secret: SealedSecret,
    /// When it was made.
    pub created_at: Time,
    /// Since when it only verifies.
    pub retired_at: Option<Time>,
}

/// Makes a signing key and its record.
///
/// # Errors
/// When `purpose` signs nothing, `odk` is an org's, or randomness or memory fails.
pub fn generate_signing_key(
    purpose: Purpose,
    odk: &OdkHandle,
    now: Time,
) -> Result<(SigningKey, InstanceKeyRecord), CryptoError> {
    if !purpose.signs() {
        return Err(CryptoError::Malformed("purpose"));
    }
    let id = KeyId::new(now, odk.random())?;
    let (key, der) = SigningKey::generate(purpose, odk.random(), odk.locking())?;
    let record = record(
        id,
        purpose,
        Some(key.public().to_jwk_text()),
        seal(odk, id, purpose, der.as_slice())?,
        now,
    );
    Ok((key, record))
}

/// Makes a MAC key and its record.
///
/// # Errors
/// When `purpose` signs, `odk` is an org's, or randomness or memory fails.
pub fn generate_mac_key(
    purpose: Purpose,
    odk: &OdkHandle,
    now: Time,
) -> Result<(MacKey, InstanceKeyRecord), CryptoError> {
    if purpose.signs() {
        return Err(CryptoError::Malformed("purpose"));
    }
    let id = KeyId::new(now, odk.random())?;
    let key = MacKey::generate(id, odk.random(), odk.locking())?;
    let record = record(
        id,
        purpose,
        None,
        seal(odk, id, purpose, key.expose_secret())?,
        now,
    );
    Ok((key, record))
}

/// Opens a signing key.
///
/// # Errors
/// When the record is of another kind, was changed, or its public JWK is not the sealed key's.
pub fn open_signing_key(record: &InstanceKeyRecord, odk: &OdkHandle) -> Result<SigningKey, CryptoError> {
    if !record.purpose.signs() {
        return Err(CryptoError::Malformed("purpose"));
    }
    let kind = record.purpose.kind();
    let der = odk.open(&place(&record.id.to_string(), &kind), &record.secret)?;
    let key = SigningKey::from_pkcs8(record.purpose, &der, odk.locking())?;
    // SECURITY: a planted JWK would be published and believed while the sealed key still signs.
    if record.public_jwk.as_deref() == Some(key.public().to_jwk_text().as_str()) {
        Ok(key)
    } else {
        Err(CryptoError::Tampered)
    }
}

/// Opens a MAC key.
///
/// # Errors
/// When the record is of another kind or was changed.
pub fn open_mac_key(record: &InstanceKeyRecord, odk: &OdkHandle) -> Result<MacKey, CryptoError> {
    if record.purpose.signs() || record.public_jwk.is_some() {
        return Err(CryptoError::Malformed("purpose"));
    }
    let kind = record.purpose.kind();
    let bytes = odk.open(&place(&record.id.to_string(), &kind), &record.secret)?;
    MacKey::from_bytes(record.id, &bytes, odk.locking())
}

fn record(
    id: KeyId,
    purpose: Purpose,
    public_jwk: Option<String>,
    secret: SealedSecret,
    created_at: Time,
) -> InstanceKeyRecord {
    InstanceKeyRecord {
        id,
        purpose,
        public_jwk,
        secret,
        created_at,
        retired_at: None,
    }
}

fn seal(odk: &OdkHandle, id: KeyId, purpose: Purpose, plaintext: &[u8]) -> Result<SealedSecret, CryptoError> {
    odk.seal(&place(&id.to_string(), &purpose.kind()), plaintext)
}

/// The place of an instance key: its own row, its purpose, no org, so that an org's key refuses it.
fn place<'a>(row: &'a str, kind: &'a str) -> AadParts<'a> {
    AadParts {
        org: None,
        user: None,
        connector: None,
        account: "",
        row,
        kind,
        binding: None,
        generation: 1,
    }
}

#[cfg(test)]
mod tests;
