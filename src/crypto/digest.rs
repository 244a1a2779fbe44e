//! Hashes, MACs, derivation and their texts.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{digest, hkdf, hmac};
use subtle::ConstantTimeEq;

use super::CryptoError;
use crate::domain::action::ActionHash;

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    array(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// `sha256:` and lower-case hex, the form of digests in JSON.
#[must_use]
pub fn sha256_text(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&sha256(bytes)))
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| half + if half < 10 { b'0' } else { b'a' - 10 };
    let mut text = Vec::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    // Digits are ASCII, so this is never anything else.
    String::from_utf8(text).unwrap_or_default()
}

/// base64url without padding (RFC 4648 §5, RFC 7515 §2).
#[must_use]
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Strict base64url: no padding, no white space, and the unused bits of the last character are zero (RFC 4648 §3.5).
#[must_use]
pub fn base64url_decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// HMAC-SHA-256 (RFC 2104) over the concatenation of `parts`.
#[must_use]
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    array(context.sign().as_ref())
}

/// Compares in constant time for equal lengths; the lengths themselves are not secret.
#[must_use]
pub fn same(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

/// HKDF-Expand with SHA-256 (RFC 5869 §2.3), info = the concatenation of `info`, filling `out` in place.
///
/// # Errors
/// When more than 255 × 32 bytes are asked for.
pub fn hkdf_expand(prk: &[u8; 32], info: &[&[u8]], out: &mut [u8]) -> Result<(), CryptoError> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, prk)
        .expand(info, Length(out.len()))
        .and_then(|okm| okm.fill(out))
        .map_err(|_| CryptoError::TooLong("derived key"))
}

/// The hash of an action, from its canonical form (protocol §3).
#[must_use]
pub fn action_hash(canonical: &[u8]) -> ActionHash {
    ActionHash(sha256(canonical))
}

/// The text of an action hash: base64url, 43 characters.
#[must_use]
pub fn action_hash_text(hash: &ActionHash) -> String {
    base64url(&hash.0)
}

fn array(bytes: &[u8]) -> [u8; 32] {
    let mut array = [0_u8; 32];
    array.copy_from_slice(bytes);
    array
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{crypto::jcs, domain::Action};

    #[test]
    fn hkdf_expand_matches_rfc_5869_test_case_1() {
        let prk: [u8; 32] = unhex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
            .try_into()
            .unwrap();
        let mut okm = [0; 42];
        hkdf_expand(&prk, &[&unhex("f0f1f2f3f4"), &unhex("f5f6f7f8f9")], &mut okm).unwrap();
        assert_eq!(
            hex(&okm),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        );
    }

    #[test]
    fn hex_has_two_lower_case_digits_for_each_byte() {
        let bytes: Vec<u8> = (0..=255).collect();
        let formatted: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex(&bytes), formatted);
        assert_eq!(hex(&[]), "");
    }

    #[test]
    fn hmac_matches_rfc_4231_test_case_2() {
        assert_eq!(
            hex(&hmac_sha256(b"Jefe", &[b"what do ya want ", b"for nothing?"])),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn sha256_matches_fips_180() {
        assert_eq!(
            sha256_text(b"abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn action_hashes_match_the_published_vectors() {
        for case in crate::crypto::vectors::cases("action_hash.json") {
            let action: Action = serde_json::from_value(case["action"].clone()).unwrap();
            let canonical = jcs::action(&action).unwrap();
            assert_eq!(canonical, jcs::canonicalize(&action).unwrap());
            assert_eq!(
                action_hash_text(&action_hash(&canonical)),
                case["action_hash"].as_str().unwrap(),
                "{}",
                case["name"]
            );
            assert_eq!(
                String::from_utf8(canonical).unwrap(),
                case["canonical"].as_str().unwrap(),
                "{}",
                case["name"]
            );
        }
    }

    #[test]
    fn base64url_has_one_form() {
        assert_eq!(base64url_decode("-_8"), Some(vec![0xfb, 0xff]));
        for text in ["+/8", "-_8=", "-_9", "-_8 ", "-", "-_8\n"] {
            assert_eq!(base64url_decode(text), None, "{text}");
        }
    }

    #[test]
    fn comparison_tells_equal_from_unequal() {
        assert!(same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd"));
        assert!(!same(b"abc", b"ab"));
    }

    fn unhex(text: &str) -> Vec<u8> {
        crate::crypto::vectors::unhex(text)
    }
}
