//! Wrapped data keys (crypto §3) and the org data key's commitment (crypto §1).
//!
//! `wrapped = version(1) ‖ odk id(16) ‖ salt(32) ‖ ciphertext(32) ‖ tag(16)`

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Nonce, Tag};
use zeroize::Zeroizing;

use super::{
    CryptoError,
    aad::{AadParts, field},
    digest::{hkdf_expand, sha256},
    hardening::{Locked, Locking},
    random,
    seal::Dek,
};
use crate::domain::{KeyId, OrgId, Randomness};

/// A plaintext org data key with its id, in memory that is never swapped out, wiped when dropped.
#[derive(Debug)]
pub struct Odk {
    id: KeyId,
    key: Locked<[u8; 32]>,
}

impl Odk {
    /// Has `fill` write the key where it stays.
    ///
    /// # Errors
    /// When memory cannot be locked as `locking` demands, or `fill` fails.
    pub fn fill_with<E>(
        id: KeyId,
        locking: Locking,
        fill: impl FnOnce(&mut [u8; 32]) -> Result<(), E>,
    ) -> Result<Self, CryptoError>
    where
        CryptoError: From<E>,
    {
        let mut key = Locked::new([0_u8; 32], locking)?;
        fill(key.expose_secret_mut())?;
        Ok(Self { id, key })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// `HKDF-Expand(ODK, "postern/odk/commit/1" ‖ f(org) ‖ f(odk id), 32)`, stored beside the wrapped ODK.
    ///
    /// # Errors
    /// Never for ids; the signature is derivation's.
    pub fn commitment(&self, org: Option<OrgId>) -> Result<[u8; 32], CryptoError> {
        let mut bound = Vec::with_capacity(80);
        field(
            &mut bound,
            org.map(|org| org.to_string()).unwrap_or_default().as_bytes(),
        )?;
        field(&mut bound, self.id.to_string().as_bytes())?;
        let mut commitment = [0_u8; 32];
        hkdf_expand(
            self.expose_secret(),
            &[b"postern/odk/commit/1", &bound],
            &mut commitment,
        )?;
        Ok(commitment)
    }

    pub(super) fn expose_secret(&self) -> &[u8; 32] {
        self.key.expose_secret()
    }
}

/// Wraps a DEK for the place of its secret.
///
/// # Errors
/// When the place is malformed or the generator cannot deliver.
pub fn wrap(
    odk: &Odk,
    aad: &AadParts<'_>,
    dek: &Dek,
    random: &dyn Randomness,
) -> Result<Vec<u8>, CryptoError> {
    let aad = aad.encode_for_dek()?;
    let salt = random::bytes::<SALT>(random)?;
    let (cipher, nonce) = cipher(odk, &salt, &aad)?;
    let mut text = Zeroizing::new(*dek.expose_secret());
    let tag = cipher
        .encrypt_inout_detached(&nonce, &aad, text.as_mut_slice().into())
        .map_err(|_| CryptoError::TooLong("bound context"))?;
    let mut wrapped = Vec::with_capacity(1 + ID + SALT + 32 + TAG);
    wrapped.push(VERSION);
    wrapped.extend_from_slice(odk.id.as_bytes());
    wrapped.extend_from_slice(&salt);
    wrapped.extend_from_slice(text.as_slice());
    wrapped.extend_from_slice(&tag);
    Ok(wrapped)
}

/// Unwraps what [`wrap`] made under the same ODK for the same place.
///
/// # Errors
/// [`CryptoError::Malformed`] for another version or length, [`CryptoError::WrongKey`] when another ODK made it,
/// [`CryptoError::Tampered`] when it was changed or belongs to another place.
pub fn unwrap(odk: &Odk, aad: &AadParts<'_>, wrapped: &[u8]) -> Result<Dek, CryptoError> {
    let ([version], rest) = wrapped.split_first_chunk().ok_or(MALFORMED)?;
    let (id, rest) = rest.split_first_chunk::<ID>().ok_or(MALFORMED)?;
    let (salt, rest) = rest.split_first_chunk::<SALT>().ok_or(MALFORMED)?;
    let (text, tag) = rest.split_first_chunk::<32>().ok_or(MALFORMED)?;
    let tag = <[u8; TAG]>::try_from(tag).map_err(|_| MALFORMED)?;
    if *version != VERSION {
        return Err(MALFORMED);
    }
    if id != odk.id.as_bytes() {
        return Err(CryptoError::WrongKey);
    }
    let aad = aad.encode_for_dek()?;
    let (cipher, nonce) = cipher(odk, salt, &aad)?;
    Dek::fill_with(|key| {
        key.copy_from_slice(text);
        cipher
            .decrypt_inout_detached(&nonce, &aad, key.as_mut_slice().into(), &Tag::from(tag))
            .map_err(|_| CryptoError::Tampered)
    })
}

/// key ‖ nonce = `HKDF-Expand(ODK, "postern/wrap/1" ‖ salt ‖ H(aad), 44)`: no count of wraps is needed.
fn cipher(odk: &Odk, salt: &[u8; SALT], aad: &[u8]) -> Result<(Aes256Gcm, GcmNonce), CryptoError> {
    let mut derived = Zeroizing::new([0_u8; 44]);
    hkdf_expand(
        odk.expose_secret(),
        &[b"postern/wrap/1", salt, &sha256(aad)],
        derived.as_mut_slice(),
    )?;
    let (key, nonce) = derived.split_first_chunk::<32>().ok_or(MALFORMED)?;
    let nonce = <[u8; 12]>::try_from(nonce).map_err(|_| MALFORMED)?;
    Ok((Aes256Gcm::new(key.into()), GcmNonce::from(nonce)))
}

type GcmNonce = Nonce<aes_gcm::aead::consts::U12>;

const VERSION: u8 = 1;
const ID: usize = 16;
const SALT: usize = 32;
const TAG: usize = 16;
const MALFORMED: CryptoError = CryptoError::Malformed("wrapped key");

#[cfg(test)]
mod tests;
