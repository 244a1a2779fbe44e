//! Randomness of the operating system, and the secrets made straight from it.

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::digest::{base64url, base64url_decode};
use crate::domain::{Randomness, RandomnessUnavailable, secret::LinkToken};

/// The operating system's generator.
#[derive(Debug, Clone)]
pub struct OsRandomness(SystemRandom);

impl OsRandomness {
    /// A handle on the generator; it holds no state of its own.
    #[must_use]
    pub fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Default for OsRandomness {
    fn default() -> Self {
        Self::new()
    }
}

impl Randomness for OsRandomness {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomnessUnavailable> {
        self.0.fill(bytes).map_err(|_| RandomnessUnavailable)
    }
}

/// `N` unpredictable bytes, for salts and nonces. Keys are filled in place instead.
///
/// # Errors
/// When the generator cannot deliver.
pub fn bytes<const N: usize>(random: &dyn Randomness) -> Result<[u8; N], RandomnessUnavailable> {
    let mut bytes = [0_u8; N];
    random.fill(&mut bytes)?;
    Ok(bytes)
}

/// A new one-time secret of 256 bits for a link, a cookie or a form: 43 characters of base64url.
///
/// # Errors
/// When the generator cannot deliver.
pub fn link_token(random: &dyn Randomness) -> Result<LinkToken, RandomnessUnavailable> {
    let mut secret = Zeroizing::new([0_u8; 32]);
    random.fill(secret.as_mut_slice())?;
    Ok(LinkToken::new(base64url(secret.as_slice())))
}

/// Takes a presented one-time secret; `None` when it is not 256 bits in their one form.
#[must_use]
pub fn parse_link_token(text: &str) -> Option<LinkToken> {
    let decoded = Zeroizing::new((text.len() == 43).then(|| base64url_decode(text))??);
    (decoded.len() == 32).then(|| LinkToken::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_link_tokens_differ_and_parse() {
        let random = OsRandomness::new();
        let (first, second) = (link_token(&random).unwrap(), link_token(&random).unwrap());
        assert_ne!(first.expose_secret(), second.expose_secret());
        assert!(parse_link_token(first.expose_secret()).is_some());
    }

    #[test]
    fn a_link_token_has_one_form() {
        let zeros = "A".repeat(43);
        assert!(parse_link_token(&zeros).is_some());
        for text in [
            "",
            &"A".repeat(42),
            &"A".repeat(44),
            &format!("{}B", "A".repeat(42)),
            &"=".repeat(43),
            &"+".repeat(43),
        ] {
            assert!(parse_link_token(text).is_none(), "{text}");
        }
    }
}
