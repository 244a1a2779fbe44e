//! Ed25519 keys of ours: one per purpose, private part in locked memory.

use ring::signature::{Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

use super::{
    CryptoError,
    hardening::{Locked, Locking},
    instance::Purpose,
    jwk::{PinnedKey, PublicKey},
};
use crate::domain::Randomness;

/// A private signing key. What it may sign is its purpose's alone.
#[derive(Debug)]
pub struct SigningKey {
    pair: Locked<Ed25519KeyPair>,
    public: PinnedKey,
    purpose: Purpose,
}

impl SigningKey {
    /// A new key and its PKCS#8 form for sealing.
    pub(super) fn generate(
        purpose: Purpose,
        random: &dyn Randomness,
        locking: Locking,
    ) -> Result<(Self, Zeroizing<[u8; PKCS8]>), CryptoError> {
        let mut der = Zeroizing::new([0_u8; PKCS8]);
        let (prefix, seed) = der.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(&PREFIX);
        random.fill(seed)?;
        let key = Self::from_pkcs8(purpose, der.as_slice(), locking)?;
        Ok((key, der))
    }

    /// From PKCS#8 version 1 (RFC 8410 §7), as [`SigningKey::generate`] wrote it.
    pub(super) fn from_pkcs8(purpose: Purpose, der: &[u8], locking: Locking) -> Result<Self, CryptoError> {
        // The public part is compared with the stored JWK by `instance`.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| MALFORMED)?;
        let public: [u8; 32] = pair.public_key().as_ref().try_into().map_err(|_| MALFORMED)?;
        Ok(Self {
            pair: Locked::new(pair, locking)?,
            public: PinnedKey::of(PublicKey::Ed25519(public)),
            purpose,
        })
    }

    /// What it is for.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Its public part; the `kid` is the RFC 7638 thumbprint.
    #[must_use]
    pub fn public(&self) -> &PinnedKey {
        &self.public
    }

    /// The key id of its tokens.
    #[must_use]
    pub fn kid(&self) -> &str {
        self.public.kid()
    }

    /// Signs the text of a signed note (audit checkpoints); `None` for a key of any other purpose.
    ///
    /// INVARIANT: a checkpoint key signs no tokens and a token key signs no notes, so neither can pass for the other.
    #[must_use]
    pub fn sign_note(&self, text: &[u8]) -> Option<[u8; 64]> {
        (self.purpose == Purpose::Checkpoints).then(|| self.sign_bytes(text))?
    }

    pub(super) fn sign_bytes(&self, bytes: &[u8]) -> Option<[u8; 64]> {
        self.pair.expose_secret().sign(bytes).as_ref().try_into().ok()
    }
}

/// SEQUENCE { INTEGER 0, SEQUENCE { OID 1.3.101.112 }, OCTET STRING { OCTET STRING (32) } }.
const PREFIX: [u8; 16] = [
    0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
];
const PKCS8: usize = PREFIX.len() + 32;
const MALFORMED: CryptoError = CryptoError::Malformed("instance key");
