//! A KEK from a passphrase: PBKDF2-HMAC-SHA-256 (RFC 8018 §5.2), its salt and rounds in a small file.
//!
//! ```text
//! postern-passphrase/1 pbkdf2-hmac-sha256 <iterations> <salt: base64, 32 bytes> <check: base64, 16 bytes>\n
//! check = HKDF-Expand-SHA-256(PRK = KEK, info = "postern/kek-check/1", 16)
//! ```
//! The check finds a mistyped passphrase at the start and gives an attacker with this file nothing that a wrapped
//! key would not give: in both cases each guess costs the full rounds.

use std::{num::NonZeroU32, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    pbkdf2,
    rand::{SecureRandom, SystemRandom},
};
use secrecy::{ExposeSecret, ExposeSecretMut, SecretBox, SecretString};

use super::{LocalKeyError, envelope, private_file};
use crate::port::PlainKey;

/// The fewest rounds accepted, and the number written (OWASP Password Storage Cheat Sheet, PBKDF2-HMAC-SHA256).
pub const MIN_ITERATIONS: u32 = 600_000;

/// Makes a new parameters file with mode 0600 for `passphrase`; an existing file is never touched.
///
/// # Errors
/// When the passphrase has fewer than 16 characters, the file exists or cannot be written, or randomness fails.
pub fn create_passphrase_file(passphrase: &SecretString, path: &Path) -> Result<(), LocalKeyError> {
    let mut salt = [0_u8; 32];
    SystemRandom::new()
        .fill(&mut salt)
        .map_err(|_| LocalKeyError::Randomness)?;
    let iterations = NonZeroU32::new(MIN_ITERATIONS).ok_or(LocalKeyError::TooFewIterations)?;
    let key = stretch(passphrase, &salt, iterations)?;
    let text = format!(
        "{MAGIC} {KDF} {MIN_ITERATIONS} {} {}\n",
        STANDARD.encode(salt),
        STANDARD.encode(check_value(&key)?),
    );
    private_file::create(path, text.as_bytes())
}

pub(super) fn derive_key(passphrase: &SecretString, path: &Path) -> Result<PlainKey, LocalKeyError> {
    let bytes = private_file::read(path)?;
    let parameters = std::str::from_utf8(&bytes)
        .ok()
        .and_then(parse)
        .ok_or(LocalKeyError::Malformed)?;
    if parameters.iterations.get() < MIN_ITERATIONS {
        return Err(LocalKeyError::TooFewIterations);
    }
    // SECURITY: a planted file must not be able to keep the start busy for hours.
    if parameters.iterations.get() > MAX_ITERATIONS {
        return Err(LocalKeyError::Malformed);
    }
    let key = stretch(passphrase, &parameters.salt, parameters.iterations)?;
    if check_value(&key)? == parameters.check {
        Ok(key)
    } else {
        Err(LocalKeyError::WrongPassphrase)
    }
}

struct Parameters {
    iterations: NonZeroU32,
    salt: [u8; 32],
    check: [u8; 16],
}

fn parse(text: &str) -> Option<Parameters> {
    let mut words = text.strip_suffix('\n')?.split(' ');
    if words.next()? != MAGIC || words.next()? != KDF {
        return None;
    }
    let iterations = words.next()?.parse().ok()?;
    let salt = STANDARD.decode(words.next()?).ok()?.try_into().ok()?;
    let check = STANDARD.decode(words.next()?).ok()?.try_into().ok()?;
    words.next().is_none().then_some(Parameters {
        iterations,
        salt,
        check,
    })
}

fn stretch(
    passphrase: &SecretString,
    salt: &[u8],
    iterations: NonZeroU32,
) -> Result<PlainKey, LocalKeyError> {
    if passphrase.expose_secret().chars().count() < MIN_PASSPHRASE {
        return Err(LocalKeyError::PassphraseTooShort);
    }
    let mut key: PlainKey = SecretBox::default();
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        iterations,
        salt,
        passphrase.expose_secret().as_bytes(),
        key.expose_secret_mut().as_mut_slice(),
    );
    Ok(key)
}

fn check_value(key: &PlainKey) -> Result<[u8; 16], LocalKeyError> {
    let mut check = [0_u8; 16];
    envelope::expand(key.expose_secret(), &[b"postern/kek-check/1"], &mut check)
        .map_err(|_| LocalKeyError::Malformed)?;
    Ok(check)
}

const MAGIC: &str = "postern-passphrase/1";
const KDF: &str = "pbkdf2-hmac-sha256";
const MAX_ITERATIONS: u32 = 50_000_000;
const MIN_PASSPHRASE: usize = 16;
