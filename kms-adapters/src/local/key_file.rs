//! A key file: 32 random bytes as base64 or hex text, one line.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecretMut, SecretBox};
use zeroize::Zeroizing;

use super::{LocalKeyError, private_file};
use crate::port::PlainKey;

/// Makes a new key file with mode 0600; an existing file is never touched.
///
/// # Errors
/// When the file exists or cannot be written, or the random generator fails.
pub fn create_key_file(path: &Path) -> Result<(), LocalKeyError> {
    let mut key = Zeroizing::new([0_u8; 32]);
    SystemRandom::new()
        .fill(key.as_mut_slice())
        .map_err(|_| LocalKeyError::Randomness)?;
    let mut text = Zeroizing::new([b'\n'; 45]);
    STANDARD
        .encode_slice(key.as_slice(), text.as_mut_slice())
        .map_err(|_| LocalKeyError::Malformed)?;
    private_file::create(path, text.as_slice())
}

/// Ends what a process that died while it made this file, or that of a passphrase's parameters, may have left undone: makes its
/// name durable, and removes drafts of it. The file itself is not touched.
///
/// # Errors
/// When its directory cannot be written.
pub fn settle_key_file(path: &Path) -> Result<(), LocalKeyError> {
    private_file::settle(path)
}

pub(super) fn read_key_file(path: &Path) -> Result<PlainKey, LocalKeyError> {
    let bytes = private_file::read(path)?;
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let mut key: PlainKey = SecretBox::default();
    let decoded = match text.len() {
        64 => decode_hex(text, key.expose_secret_mut()),
        44 => decode_base64(text, key.expose_secret_mut()),
        _ => None,
    };
    decoded.map(|()| key).ok_or(LocalKeyError::Malformed)
}

fn decode_base64(text: &[u8], key: &mut [u8; 32]) -> Option<()> {
    // 44 characters could hold 33 bytes; the room for the estimate is wiped with the rest.
    let mut room = Zeroizing::new([0_u8; 33]);
    let length = STANDARD.decode_slice(text, room.as_mut_slice()).ok()?;
    key.copy_from_slice(room.get(..length)?.first_chunk::<32>().filter(|_| length == 32)?);
    Some(())
}

fn decode_hex(text: &[u8], key: &mut [u8; 32]) -> Option<()> {
    let (pairs, []) = text.as_chunks::<2>() else {
        return None;
    };
    if pairs.len() != key.len() {
        return None;
    }
    for (byte, [high, low]) in key.iter_mut().zip(pairs) {
        *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
    }
    Some(())
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}
