//! The local wrap format, byte by byte.
//!
//! ```text
//! wrapped = version(1) = 0x01 ‖ salt(32) ‖ ciphertext(32) ‖ tag(16)                             81 bytes
//! context = f("postern/kek-context/1") ‖ f(org, absent = empty) ‖ f(odk) ‖ f(purpose)
//! f(x)    = u32 big-endian length of x ‖ x
//! key(32) ‖ nonce(12) = HKDF-Expand-SHA-256(PRK = KEK, info = "postern/kek-wrap/1" ‖ salt ‖ SHA-256(context), 44)
//! ciphertext ‖ tag = AES-256-GCM(key, nonce, plaintext = the data key, associated data = version ‖ context)
//! ```
//! Every wrap has a key and a nonce of its own, so no count of wraps under one KEK is needed.

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Nonce, Tag};
use ring::{
    digest, hkdf,
    rand::{SecureRandom, SystemRandom},
};
use secrecy::{ExposeSecretMut, SecretBox};
use zeroize::Zeroizing;

use crate::port::{KeyContext, KeyError, PlainKey};

pub(super) fn wrap(kek: &[u8; 32], context: &KeyContext, plaintext: &[u8; 32]) -> Result<Vec<u8>, KeyError> {
    let mut salt = [0_u8; SALT];
    SystemRandom::new()
        .fill(&mut salt)
        .map_err(|_| KeyError::Unavailable)?;
    wrap_with_salt(kek, context, plaintext, &salt)
}

pub(super) fn wrap_with_salt(
    kek: &[u8; 32],
    context: &KeyContext,
    plaintext: &[u8; 32],
    salt: &[u8; SALT],
) -> Result<Vec<u8>, KeyError> {
    let context = encode(context)?;
    let (cipher, nonce) = cipher(kek, salt, &context)?;
    let mut buffer = Zeroizing::new(*plaintext);
    let tag = cipher
        .encrypt_inout_detached(&nonce, &associated(&context), buffer.as_mut_slice().into())
        .map_err(|_| KeyError::Integrity)?;
    let mut wrapped = Vec::with_capacity(WRAPPED);
    wrapped.push(VERSION);
    wrapped.extend_from_slice(salt);
    wrapped.extend_from_slice(buffer.as_slice());
    wrapped.extend_from_slice(&tag);
    Ok(wrapped)
}

pub(super) fn unwrap(kek: &[u8; 32], context: &KeyContext, wrapped: &[u8]) -> Result<PlainKey, KeyError> {
    let (version, rest) = wrapped.split_first().ok_or(KeyError::Integrity)?;
    let (salt, rest) = rest.split_first_chunk::<SALT>().ok_or(KeyError::Integrity)?;
    let (ciphertext, tag) = rest.split_first_chunk::<32>().ok_or(KeyError::Integrity)?;
    let tag = <[u8; 16]>::try_from(tag).map_err(|_| KeyError::Integrity)?;
    if *version != VERSION {
        return Err(KeyError::Integrity);
    }
    let context = encode(context)?;
    let (cipher, nonce) = cipher(kek, salt, &context)?;
    let mut key: PlainKey = SecretBox::default();
    key.expose_secret_mut().copy_from_slice(ciphertext);
    cipher
        .decrypt_inout_detached(
            &nonce,
            &associated(&context),
            key.expose_secret_mut().as_mut_slice().into(),
            &Tag::from(tag),
        )
        .map_err(|_| KeyError::Integrity)?;
    Ok(key)
}

fn cipher(kek: &[u8; 32], salt: &[u8; SALT], context: &[u8]) -> Result<(Aes256Gcm, GcmNonce), KeyError> {
    let mut derived = Zeroizing::new([0_u8; 44]);
    expand(
        kek,
        &[LABEL, salt, digest::digest(&digest::SHA256, context).as_ref()],
        derived.as_mut_slice(),
    )?;
    let (key, nonce) = derived.split_first_chunk::<32>().ok_or(KeyError::Integrity)?;
    let nonce = <[u8; 12]>::try_from(nonce).map_err(|_| KeyError::Integrity)?;
    Ok((Aes256Gcm::new(key.into()), GcmNonce::from(nonce)))
}

/// HKDF-Expand with SHA-256 (RFC 5869 §2.3) into `out`.
pub(super) fn expand(prk: &[u8; 32], info: &[&[u8]], out: &mut [u8]) -> Result<(), KeyError> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, prk)
        .expand(info, Length(out.len()))
        .and_then(|okm| okm.fill(out))
        .map_err(|_| KeyError::Integrity)
}

fn encode(context: &KeyContext) -> Result<Vec<u8>, KeyError> {
    if context.org.as_deref() == Some("") {
        return Err(KeyError::Misconfigured(
            "an empty organisation is not an absent one",
        ));
    }
    let org = context.org.as_deref().unwrap_or_default();
    let mut bytes = Vec::new();
    for field in ["postern/kek-context/1", org, &context.odk, context.purpose] {
        let length =
            u32::try_from(field.len()).map_err(|_| KeyError::Misconfigured("the context is too long"))?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(field.as_bytes());
    }
    Ok(bytes)
}

fn associated(context: &[u8]) -> Vec<u8> {
    [&[VERSION], context].concat()
}

type GcmNonce = Nonce<aes_gcm::aead::consts::U12>;

const VERSION: u8 = 1;
const SALT: usize = 32;
const WRAPPED: usize = 1 + SALT + 32 + 16;
const LABEL: &[u8] = b"postern/kek-wrap/1";
