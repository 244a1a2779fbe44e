//! Ed25519 (RFC 8032) as the audit log needs it: sign a note, check a note. Nothing else.

use ring::signature::{self, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

/// Whether `signature` is the holder of `public`'s signature over `message`. Malleable forms (S ≥ L) are refused.
#[must_use]
pub fn ed25519_verify(public: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&signature::ED25519, public)
        .verify(message, signature)
        .is_ok()
}

/// A private key that signs; never printed, never serialised.
pub struct Ed25519Signer(Ed25519KeyPair);

/// The bytes are not an Ed25519 private key in PKCS#8 form, version 2 (RFC 8410).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 key in PKCS#8 form")]
pub struct InvalidSigningKey;

impl Ed25519Signer {
    /// Reads a PKCS#8 document that holds the public key too.
    ///
    /// # Errors
    /// When the document is not one, or its halves do not belong together.
    pub fn from_pkcs8(document: &[u8]) -> Result<Self, InvalidSigningKey> {
        Ed25519KeyPair::from_pkcs8(document)
            .map(Self)
            .map_err(|_| InvalidSigningKey)
    }

    /// A key from its 32-byte seed, for known-answer vectors.
    #[cfg(test)]
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(seed).unwrap())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        let mut public = [0_u8; 32];
        public.copy_from_slice(self.0.public_key().as_ref());
        public
    }

    /// Signs; deterministic (RFC 8032 §5.1.6).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut bytes = [0_u8; 64];
        bytes.copy_from_slice(self.0.sign(message).as_ref());
        bytes
    }
}

impl std::fmt::Debug for Ed25519Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ed25519Signer([redacted])")
    }
}
