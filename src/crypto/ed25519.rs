//! Ed25519 (RFC 8032) as whoever checks the audit log needs it, without a key of an instance.

use ring::signature::{self, UnparsedPublicKey};
#[cfg(test)]
use ring::signature::{Ed25519KeyPair, KeyPair as _};

/// Whether `signature` is the holder of `public`'s signature over `message`. Malleable forms (S ≥ L) are refused.
#[must_use]
pub fn ed25519_verify(public: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&signature::ED25519, public)
        .verify(message, signature)
        .is_ok()
}

/// A key that signs known-answer vectors and samples.
#[cfg(test)]
pub(crate) struct Ed25519Signer(Ed25519KeyPair);

#[cfg(test)]
impl Ed25519Signer {
    /// A key from its 32-byte seed.
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(seed).unwrap())
    }

    /// The public half.
    pub(crate) fn public(&self) -> [u8; 32] {
        let mut public = [0_u8; 32];
        public.copy_from_slice(self.0.public_key().as_ref());
        public
    }

    /// Signs; deterministic (RFC 8032 §5.1.6).
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut bytes = [0_u8; 64];
        bytes.copy_from_slice(self.0.sign(message).as_ref());
        bytes
    }
}
