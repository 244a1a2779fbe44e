//! Sealing, key hierarchy, signatures and the strict JSON gate.
//!
//! The only room that names `ring` and `aes-gcm`. It promises that a sealed value opens only at its own place and
//! generation, that a signature of one kind never passes for another, and that bytes from outside become values by
//! one strict gate. It must never log, never fall back, never hold a key in the clear longer than it said.
//! Byte layouts: `docs/crypto.md`; known answers: `tests/vectors`.

pub mod aad;
pub mod api_key;
pub mod digest;
pub mod ed25519;
pub mod entry_bytes;
pub mod entry_text;
pub mod hardening;
pub mod instance;
pub mod jcs;
pub mod jose;
pub mod jwk;
pub mod keyring;
pub mod lookup;
pub mod mac;
pub mod random;
pub mod seal;
pub mod signing;
pub mod strict_json;
#[cfg(test)]
mod vectors;
pub mod webhook;
pub mod wrap;
#[cfg(test)]
mod wycheproof;

pub use aad::AadParts;
pub use hardening::Locking;
pub use keyring::{Keyring, OdkHandle, OdkRecord, PreparedSeal, SealedSecret};
pub use mac::MacKey;
use postern_kms::KeyError;
pub use random::OsRandomness;
pub use signing::SigningKey;
pub use strict_json::{Gate, GateError};

use crate::domain::RandomnessUnavailable;

/// What may go wrong with keys and sealed values. JSON and signatures have their own, finer enums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// No unpredictable bytes; nothing may go on.
    #[error(transparent)]
    Randomness(#[from] RandomnessUnavailable),
    /// The KMS did not deliver the key: `key_unavailable`, never a fallback.
    #[error(transparent)]
    KeyService(#[from] KeyError),
    /// The handle's time is over; ask the keyring again.
    #[error("the data key's time in memory is over")]
    KeyExpired,
    /// No memory could be had that is never swapped out.
    #[error("key memory cannot be locked")]
    Unlockable,
    /// Not in the format of this version.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// Made under another key than the one given.
    #[error("the key is not the one this was made with")]
    WrongKey,
    /// Changed, or not at its own place and generation.
    #[error("not intact at this place and generation")]
    Tampered,
    /// An org's data key was asked to serve another org.
    #[error("the data key belongs to another organisation")]
    ForeignOrg,
    /// Longer than this format carries.
    #[error("too long: {0}")]
    TooLong(&'static str),
    /// A value has no canonical form (RFC 8785 §3.2.2.3: not a finite number).
    #[error("the value has no canonical form")]
    NotCanonical,
}
