//! API keys of ours: a prefix per kind, 256 random bits, and a checksum, so that secret scanners find them
//! and a mistyped one is refused without a look-up.
//!
//! ```text
//! key      = prefix ‖ "_" ‖ secret(43) ‖ checksum(6)          psd_ admin · pss_ service · psa_ agent    53 characters
//! secret   = the 256 bits as one big-endian number in base 62, digits 0-9 A-Z a-z, zero-padded
//! checksum = the first 4 bytes of SHA-256("postern/api-key/1" ‖ prefix ‖ "_" ‖ secret) in base 62, zero-padded
//! scanner  = \bps[das]_[0-9A-Za-z]{49}\b
//! ```

use zeroize::Zeroizing;

use super::digest::sha256;
use crate::domain::{Randomness, RandomnessUnavailable, principal::KeyKind, secret::ApiKey};

/// Makes a new key. It is shown once and stored as a keyed hash of its whole text.
///
/// # Errors
/// When the generator cannot deliver.
pub fn mint(kind: KeyKind, random: &dyn Randomness) -> Result<ApiKey, RandomnessUnavailable> {
    let mut secret = Zeroizing::new([0_u8; 32]);
    random.fill(secret.as_mut_slice())?;
    // Exactly the length: a string that grows leaves copies behind.
    let mut text = String::with_capacity(LENGTH);
    text.push_str(kind.prefix());
    text.push('_');
    push_base62(&mut text, secret.as_mut_slice(), SECRET);
    let mut checksum = checksum(&text);
    push_base62(&mut text, &mut checksum, CHECKSUM);
    Ok(ApiKey::new(text))
}

/// Takes a presented key; `None` unless prefix, length, alphabet and checksum are right.
#[must_use]
pub fn parse(text: &str) -> Option<(KeyKind, ApiKey)> {
    let kind = [KeyKind::Admin, KeyKind::Service, KeyKind::Agent]
        .into_iter()
        .find(|kind| {
            text.strip_prefix(kind.prefix())
                .is_some_and(|rest| rest.starts_with('_'))
        })?;
    if text.len() != LENGTH {
        return None;
    }
    let (body, check) = text.split_at_checked(LENGTH - CHECKSUM)?;
    let (_, secret) = body.split_once('_')?;
    // One text per key: a number beyond 256 bits has no place. Texts of one length are ordered as their numbers are.
    if secret > GREATEST || !secret.bytes().all(|digit| digit.is_ascii_alphanumeric()) {
        return None;
    }
    let claimed = read_base62(check)?;
    let right = u32::from_be_bytes(checksum(body));
    (claimed == u64::from(right)).then(|| (kind, ApiKey::new(text.to_owned())))
}

/// What a key says it is for; `None` where [`parse`] would not take it.
#[must_use]
pub fn kind(key: &ApiKey) -> Option<KeyKind> {
    parse(key.expose_secret()).map(|(kind, _)| kind)
}

fn checksum(body: &str) -> [u8; 4] {
    let mut input = Zeroizing::new(Vec::with_capacity(LABEL.len() + LENGTH));
    input.extend_from_slice(LABEL);
    input.extend_from_slice(body.as_bytes());
    let [a, b, c, d, ..] = sha256(&input);
    [a, b, c, d]
}

/// Appends `digits` digits of the big-endian number; the number is used up.
fn push_base62(text: &mut String, number: &mut [u8], digits: usize) {
    let mut reversed = Zeroizing::new([b'0'; SECRET]);
    for place in reversed.iter_mut().take(digits) {
        let mut remainder = 0_u16;
        for byte in number.iter_mut() {
            let current = remainder << 8 | u16::from(*byte);
            // The quotient fits one byte, because the remainder is below 62.
            [_, *byte] = (current / 62).to_be_bytes();
            remainder = current % 62;
        }
        *place = ALPHABET.get(usize::from(remainder)).copied().unwrap_or(b'0');
    }
    text.extend(reversed.iter().take(digits).rev().map(|digit| char::from(*digit)));
}

/// The number of a few digits; `None` when a character is no digit or the number does not fit.
fn read_base62(text: &str) -> Option<u64> {
    text.bytes().try_fold(0_u64, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'A'..=b'Z' => digit - b'A' + 10,
            b'a'..=b'z' => digit - b'a' + 36,
            _ => return None,
        };
        number.checked_mul(62)?.checked_add(u64::from(value))
    })
}

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 2^256−1.
const GREATEST: &str = "yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1";
const LABEL: &[u8] = b"postern/api-key/1";
const SECRET: usize = 43;
const CHECKSUM: usize = 6;
const LENGTH: usize = 4 + SECRET + CHECKSUM;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::{OsRandomness, vectors};

    const KINDS: [KeyKind; 3] = [KeyKind::Admin, KeyKind::Service, KeyKind::Agent];

    #[test]
    fn keys_match_the_published_vectors() {
        for case in vectors::cases("api_key.json") {
            let kind = KINDS
                .into_iter()
                .find(|kind| kind.prefix() == case["prefix"])
                .unwrap();
            let random = vectors::Scripted::new(&vectors::bytes(&case["random"]));
            let key = mint(kind, &random).unwrap();
            assert_eq!(key.expose_secret(), case["key"].as_str().unwrap());
            assert_eq!(parse(key.expose_secret()).unwrap().0, kind);
        }
    }

    #[test]
    fn refused_keys_match_the_published_vectors() {
        let refused = vectors::read("api_key.json")["refused"].clone();
        for case in refused.as_array().unwrap() {
            assert!(parse(case["key"].as_str().unwrap()).is_none(), "{}", case["name"]);
        }
    }

    #[test]
    fn every_kind_of_key_parses_as_itself() {
        for kind in KINDS {
            let key = mint(kind, &OsRandomness::new()).unwrap();
            let (parsed, same) = parse(key.expose_secret()).unwrap();
            assert_eq!(parsed, kind);
            assert_eq!(same.expose_secret(), key.expose_secret());
        }
    }

    /// The big-endian number of these digits, multiplied out; `None` when a character is no digit or it does not fit.
    fn multiplied<const N: usize>(text: &str) -> Option<[u8; N]> {
        let mut number = [0; N];
        for digit in text.bytes() {
            let value = ALPHABET.iter().position(|known| *known == digit)?;
            let mut carry = u16::try_from(value).unwrap();
            for byte in number.iter_mut().rev() {
                let [high, low] = (u16::from(*byte) * 62 + carry).to_be_bytes();
                *byte = low;
                carry = u16::from(high);
            }
            if carry != 0 {
                return None;
            }
        }
        Some(number)
    }

    fn base62(mut number: impl AsMut<[u8]>, digits: usize) -> String {
        let mut text = String::new();
        push_base62(&mut text, number.as_mut(), digits);
        text
    }

    /// Whether a key with this secret and its right checksum is taken.
    fn is_taken(secret: &str) -> bool {
        let body = format!("psa_{secret}");
        parse(&format!("{body}{}", base62(checksum(&body), CHECKSUM))).is_some()
    }

    #[test]
    fn the_greatest_secret_is_256_bits_and_digits_are_in_the_order_of_their_texts() {
        assert_eq!(base62([0xff; 32], SECRET), GREATEST);
        assert!(ALPHABET.is_sorted());
        assert!(ALPHABET.iter().all(u8::is_ascii_alphanumeric));
        assert!(is_taken(GREATEST));
        assert!(!is_taken(&GREATEST.replace("Xp1", "Xp2")));
    }

    #[test]
    fn a_checksum_beyond_32_bits_is_refused() {
        let body = format!("psa_{GREATEST}");
        let right = u64::from(u32::from_be_bytes(checksum(&body)));
        for (number, taken) in [(right, true), (right + (1 << 32), false)] {
            let check = base62(number.to_be_bytes(), CHECKSUM);
            assert_eq!(read_base62(&check), Some(number));
            assert_eq!(parse(&format!("{body}{check}")).is_some(), taken);
        }
    }

    proptest! {
        #[test]
        fn a_secret_is_taken_if_it_is_a_number_of_256_bits(
            secret in "[0-9A-Za-z]{43}", place in 0..SECRET, digit in "[0-9A-Za-z]", wrong in "[ -~]",
        ) {
            let mut near = GREATEST.to_owned();
            near.replace_range(place..=place, &digit);
            let mut other = near.clone();
            other.replace_range(place..=place, &wrong);
            for secret in [secret, near, other] {
                prop_assert_eq!(is_taken(&secret), multiplied::<32>(&secret).is_some(), "{}", secret);
            }
        }

        #[test]
        fn few_digits_are_the_number_multiplied_out(text in "[0-9A-Za-z]{0,13}|[ -~]{1,6}") {
            prop_assert_eq!(read_base62(&text), multiplied(&text).map(u64::from_be_bytes));
        }

        #[test]
        fn one_wrong_character_is_refused(secret: [u8; 32], place in 0..LENGTH, wrong in "[0-9A-Za-z_ -]") {
            let key = mint(KeyKind::Agent, &vectors::Scripted::new(&secret)).unwrap();
            let mut text = key.expose_secret().to_owned();
            text.replace_range(place..=place, &wrong);
            prop_assume!(text != key.expose_secret());
            prop_assert!(parse(&text).is_none());
        }

        #[test]
        fn no_text_makes_parsing_panic(text in ".{0,60}") {
            let _ = parse(&text);
        }
    }
}
