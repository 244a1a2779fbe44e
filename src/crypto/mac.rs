//! Keyed hashes of secrets that are looked up or recognised: API keys, sessions, links, connect state.

use super::{
    CryptoError,
    aad::field,
    digest::{hmac_sha256, same},
    hardening::{Locked, Locking},
};
use crate::domain::{KeyId, Randomness};

/// A 256-bit key for [`MacKey::mac`], in locked memory.
#[derive(Debug)]
pub struct MacKey {
    id: KeyId,
    key: Locked<[u8; 32]>,
}

impl MacKey {
    pub(super) fn generate(
        id: KeyId,
        random: &dyn Randomness,
        locking: Locking,
    ) -> Result<Self, CryptoError> {
        let mut key = Locked::new([0_u8; 32], locking)?;
        random.fill(key.expose_secret_mut())?;
        Ok(Self { id, key })
    }

    pub(super) fn from_bytes(id: KeyId, bytes: &[u8], locking: Locking) -> Result<Self, CryptoError> {
        let bytes: &[u8; 32] = bytes
            .try_into()
            .map_err(|_| CryptoError::Malformed("instance key"))?;
        let mut key = Locked::new([0_u8; 32], locking)?;
        key.expose_secret_mut().copy_from_slice(bytes);
        Ok(Self { id, key })
    }

    pub(super) fn expose_secret(&self) -> &[u8; 32] {
        self.key.expose_secret()
    }

    /// Which key this is.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// `HMAC-SHA-256(key, f("postern/mac/1") ‖ f(domain) ‖ bytes)`: a value of one domain is never one of another.
    ///
    /// # Errors
    /// When the domain's name is longer than 64 KiB.
    pub fn mac(&self, domain: &str, bytes: &[u8]) -> Result<[u8; 32], CryptoError> {
        let mut prefix = Vec::with_capacity(64);
        field(&mut prefix, b"postern/mac/1")?;
        field(&mut prefix, domain.as_bytes())?;
        Ok(hmac_sha256(self.expose_secret(), &[&prefix, bytes]))
    }

    /// Whether `expected` is the MAC of `bytes`, in constant time.
    #[must_use]
    pub fn verify(&self, domain: &str, bytes: &[u8], expected: &[u8]) -> bool {
        self.mac(domain, bytes).is_ok_and(|mac| same(&mac, expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{digest::hex, vectors};

    #[test]
    fn macs_match_the_published_vectors() {
        for case in vectors::cases("mac.json") {
            let key = MacKey::from_bytes(
                vectors::key_id(1),
                &vectors::bytes(&case["key"]),
                Locking::Preferred,
            )
            .unwrap();
            let mac = key
                .mac(case["domain"].as_str().unwrap(), &vectors::bytes(&case["bytes"]))
                .unwrap();
            assert_eq!(hex(&mac), case["mac"], "{}", case["name"]);
        }
    }

    #[test]
    fn a_mac_holds_for_its_key_domain_and_bytes_alone() {
        let key = MacKey::from_bytes(vectors::key_id(1), &[1; 32], Locking::Preferred).unwrap();
        let other = MacKey::from_bytes(vectors::key_id(1), &[2; 32], Locking::Preferred).unwrap();
        let mac = key.mac("link", b"token").unwrap();
        assert!(key.verify("link", b"token", &mac));
        assert!(!key.verify("session", b"token", &mac));
        assert!(!key.verify("linkt", b"oken", &mac));
        assert!(!key.verify("link", b"other", &mac));
        assert!(!key.verify("link", b"token", &mac[..31]));
        assert!(!other.verify("link", b"token", &mac));
    }
}
