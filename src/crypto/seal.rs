//! Sealed secrets (crypto §2): data under a data key, bound to their place, committed to their key.
//!
//! `sealed = version(1) ‖ suite(1) ‖ commitment(32) ‖ nonce(12) ‖ ciphertext ‖ tag(16)`

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Nonce, Tag};
use secrecy::{ExposeSecret, ExposeSecretMut, SecretBox};
use zeroize::Zeroizing;

use super::{
    CryptoError,
    aad::AadParts,
    digest::{hkdf_expand, same, sha256},
    random,
};
use crate::domain::{Randomness, RandomnessUnavailable};

/// A data key: one per secret version, never stored but wrapped.
#[derive(Debug)]
pub struct Dek(SecretBox<[u8; 32]>);

impl Dek {
    /// A new key, filled in place.
    ///
    /// # Errors
    /// When the generator cannot deliver.
    pub fn generate(random: &dyn Randomness) -> Result<Self, RandomnessUnavailable> {
        let mut key = SecretBox::default();
        random.fill(ExposeSecretMut::<[u8; 32]>::expose_secret_mut(&mut key))?;
        Ok(Self(key))
    }

    pub(super) fn fill_with(
        fill: impl FnOnce(&mut [u8; 32]) -> Result<(), CryptoError>,
    ) -> Result<Self, CryptoError> {
        let mut key = SecretBox::default();
        fill(key.expose_secret_mut())?;
        Ok(Self(key))
    }

    pub(super) fn expose_secret(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }
}

/// Seals `plaintext` at its place.
///
/// # Errors
/// When the place is malformed, the plaintext longer than 1 MiB, or the generator cannot deliver.
pub fn seal(
    dek: &Dek,
    aad: &AadParts<'_>,
    plaintext: &[u8],
    random: &dyn Randomness,
) -> Result<Vec<u8>, CryptoError> {
    if plaintext.len() > MAX_PLAINTEXT {
        return Err(CryptoError::TooLong("secret"));
    }
    let aad = aad.encode()?;
    let derived = Derived::new(dek, &aad)?;
    let nonce = random::bytes::<NONCE>(random)?;
    let mut sealed = Vec::with_capacity(HEADER + plaintext.len() + TAG);
    sealed.extend_from_slice(&[VERSION, SUITE]);
    sealed.extend_from_slice(&derived.commitment);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(plaintext);
    let (_, text) = sealed.split_at_mut(HEADER);
    let tag = derived
        .cipher
        .encrypt_inout_detached(&GcmNonce::from(nonce), &derived.associated(&aad), text.into())
        .map_err(|_| CryptoError::TooLong("secret"))?;
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

/// Opens what [`seal`] made with the same key at the same place.
///
/// # Errors
/// [`CryptoError::Malformed`] for another version, suite or length, [`CryptoError::WrongKey`] when the commitment is not
/// this key's at this place, [`CryptoError::Tampered`] when the text was changed.
pub fn open(dek: &Dek, aad: &AadParts<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let ([version, suite], rest) = sealed.split_first_chunk().ok_or(MALFORMED)?;
    let (commitment, rest) = rest.split_first_chunk::<COMMITMENT>().ok_or(MALFORMED)?;
    let (nonce, rest) = rest.split_first_chunk::<NONCE>().ok_or(MALFORMED)?;
    let (ciphertext, tag) = rest.split_last_chunk::<TAG>().ok_or(MALFORMED)?;
    if (*version, *suite) != (VERSION, SUITE) || ciphertext.len() > MAX_PLAINTEXT {
        return Err(MALFORMED);
    }
    let aad = aad.encode()?;
    let derived = Derived::new(dek, &aad)?;
    // SECURITY: GCM alone lets one ciphertext open under two keys; the commitment is compared before it is decrypted.
    if !same(commitment, &derived.commitment) {
        return Err(CryptoError::WrongKey);
    }
    let mut plaintext = Zeroizing::new(ciphertext.to_vec());
    derived
        .cipher
        .decrypt_inout_detached(
            &GcmNonce::from(*nonce),
            &derived.associated(&aad),
            plaintext.as_mut_slice().into(),
            &Tag::from(*tag),
        )
        .map_err(|_| CryptoError::Tampered)?;
    Ok(plaintext)
}

struct Derived {
    cipher: Aes256Gcm,
    commitment: [u8; COMMITMENT],
}

impl Derived {
    fn new(dek: &Dek, aad: &[u8]) -> Result<Self, CryptoError> {
        let place = sha256(aad);
        let mut key = Zeroizing::new([0_u8; 32]);
        hkdf_expand(
            dek.expose_secret(),
            &[b"postern/seal/1/enc", &place],
            key.as_mut_slice(),
        )?;
        let mut commitment = [0_u8; COMMITMENT];
        hkdf_expand(
            dek.expose_secret(),
            &[b"postern/seal/1/commit", &place],
            &mut commitment,
        )?;
        let key: &[u8; 32] = &key;
        Ok(Self {
            cipher: Aes256Gcm::new(key.into()),
            commitment,
        })
    }

    /// GCM associated data = version ‖ suite ‖ commitment ‖ aad.
    fn associated(&self, aad: &[u8]) -> Vec<u8> {
        [&[VERSION, SUITE], self.commitment.as_slice(), aad].concat()
    }
}

type GcmNonce = Nonce<aes_gcm::aead::consts::U12>;

const VERSION: u8 = 1;
/// HKDF-SHA-256 and AES-256-GCM.
const SUITE: u8 = 1;
const COMMITMENT: usize = 32;
const NONCE: usize = 12;
const TAG: usize = 16;
/// How much longer a sealed value is than its text.
pub const OVERHEAD: usize = HEADER + TAG;
const HEADER: usize = 2 + COMMITMENT + NONCE;
const MAX_PLAINTEXT: usize = 1024 * 1024;
const MALFORMED: CryptoError = CryptoError::Malformed("sealed secret");

#[cfg(test)]
mod tests;
