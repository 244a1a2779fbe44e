//! An engine, played by implementations of Ed25519 and ECDSA that Postern does not use.

use ed25519_dalek::Signer as _;
use postern::crypto::digest::base64url;
use serde_json::{Value, json};

/// Its issuer.
pub(super) const ENGINE: &str = "https://engine.example";

/// The key of an engine.
pub(super) enum Key {
    Ed25519(ed25519_dalek::SigningKey),
    P256(p256::ecdsa::SigningKey),
}

impl Key {
    pub(super) fn ed25519(seed: u8) -> Self {
        Self::Ed25519(ed25519_dalek::SigningKey::from_bytes(&[seed; 32]))
    }

    pub(super) fn p256(seed: u8) -> Self {
        Self::P256(p256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    pub(super) fn alg(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "EdDSA",
            Self::P256(_) => "ES256",
        }
    }

    pub(super) fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Ed25519(key) => {
                let x = base64url(key.verifying_key().as_bytes());
                json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid})
            }
            Self::P256(key) => {
                let point = key.verifying_key().to_encoded_point(false);
                let (x, y) = (base64url(point.x().unwrap()), base64url(point.y().unwrap()));
                json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid})
            }
        }
    }

    pub(super) fn sign_as(&self, alg: &str, kid: &str, claims: &Value) -> String {
        let header = json!({"typ": "action-decision+jwt", "alg": alg, "kid": kid}).to_string();
        let input = format!(
            "{}.{}",
            base64url(header.as_bytes()),
            base64url(claims.to_string().as_bytes())
        );
        let signature = match self {
            Self::Ed25519(key) => key.sign(input.as_bytes()).to_bytes().to_vec(),
            Self::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(input.as_bytes());
                signature.to_bytes().to_vec()
            }
        };
        format!("{input}.{}", base64url(&signature))
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        self.sign_as(self.alg(), "house-1", claims)
    }
}

/// An engine as `apply` registers it.
pub(super) fn engine(name: &str, key: &Key, kid: &str, connectors: &[&str], tools: &[&str]) -> Value {
    json!({
        "name": name, "iss": ENGINE, "alg": key.alg(), "public_key_jwk": key.jwk(kid),
        "connectors": connectors, "tools": tools,
    })
}
