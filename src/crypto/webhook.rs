//! Signatures of outgoing webhooks (Standard Webhooks, symmetric): HMAC-SHA-256 over id, time and body.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret as _, SecretBox};
use zeroize::Zeroizing;

use super::digest::hmac_sha256;

/// The key shared with a receiver.
#[derive(Debug)]
pub struct WebhookKey(SecretBox<[u8]>);

/// The text is not `whsec_` and base64 of 24 to 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a webhook secret: `whsec_` and base64 of 24 to 64 bytes")]
pub struct NotAWebhookKey;

impl WebhookKey {
    /// Reads the serialised form.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(text: &str) -> Result<Self, NotAWebhookKey> {
        let encoded = text.trim().strip_prefix("whsec_").ok_or(NotAWebhookKey)?;
        let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| NotAWebhookKey)?);
        if !(24..=64).contains(&bytes.len()) {
            return Err(NotAWebhookKey);
        }
        Ok(Self(SecretBox::new(bytes.as_slice().into())))
    }

    /// The value of `webhook-signature`: `v1,` and base64 of the MAC over `id.seconds.body`.
    #[must_use]
    pub fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let prefix = format!("{id}.{seconds}.");
        let mac = hmac_sha256(self.0.expose_secret(), &[prefix.as_bytes(), body]);
        format!("v1,{}", STANDARD.encode(mac))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of the Standard Webhooks reference libraries.
    #[test]
    fn the_known_answer_of_the_specification_holds() {
        let key = WebhookKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(
            key.sign(
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                br#"{"test": 2432232314}"#
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn what_is_no_key_is_refused_and_never_shown() {
        for text in [
            "",
            "whsec_",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_AAAA",
            "whsec_*",
        ] {
            assert!(WebhookKey::parse(text).is_err(), "{text}");
        }
        let key = WebhookKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        assert!(!format!("{key:?}").contains("MfKQ"));
    }
}
