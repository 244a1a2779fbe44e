//! Public keys as JWK (RFC 7517, 7518 §6.2, 8037 §2), their thumbprints (RFC 7638), and keys pinned to an algorithm.

use std::fmt;

use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};
use serde_json::{Map, Value, json};

use super::digest::{base64url, base64url_decode, sha256};

/// A signature algorithm (RFC 7518 §3.1, RFC 8037 §3.1). No others are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// `EdDSA` with Ed25519.
    EdDsa,
    /// `ES256`.
    Es256,
}

impl Algorithm {
    /// The name in `alg`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
        }
    }

    /// The algorithm of this name; `None` for all others, `none` among them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "EdDSA" => Some(Self::EdDsa),
            "ES256" => Some(Self::Es256),
            _ => None,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A public key; its type decides its one algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicKey {
    /// RFC 8032 §5.1.5.
    Ed25519([u8; 32]),
    /// The coordinates of a point on P-256.
    P256 {
        /// Big-endian.
        x: [u8; 32],
        /// Big-endian.
        y: [u8; 32],
    },
}

impl PublicKey {
    /// The one algorithm this key verifies.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Ed25519(_) => Algorithm::EdDsa,
            Self::P256 { .. } => Algorithm::Es256,
        }
    }

    /// RFC 7638 §3: base64url of SHA-256 over the required members in order.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        let required = match self {
            Self::Ed25519(x) => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, base64url(x)),
            Self::P256 { x, y } => {
                format!(
                    r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#,
                    base64url(x),
                    base64url(y)
                )
            }
        };
        base64url(&sha256(required.as_bytes()))
    }

    /// Whether `signature` is this key's over `message`. ES256 signatures are r ‖ s (RFC 7518 §3.4).
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(x) => UnparsedPublicKey::new(&ED25519, x)
                .verify(message, signature)
                .is_ok(),
            Self::P256 { x, y } => {
                let point = [&[4_u8], x.as_slice(), y.as_slice()].concat();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                    .verify(message, signature)
                    .is_ok()
            }
        }
    }

    fn from_members(members: &Map<String, Value>) -> Result<Self, InvalidJwk> {
        match (text(members, "kty")?, text(members, "crv")?) {
            ("OKP", "Ed25519") => {
                if members.contains_key("y") {
                    return Err(InvalidJwk::Member("y"));
                }
                let x = coordinate(members, "x")?;
                // SECURITY: under a key of small order anybody can sign anything.
                if has_small_order(&x) {
                    return Err(InvalidJwk::WeakKey);
                }
                Ok(Self::Ed25519(x))
            }
            ("EC", "P-256") => Ok(Self::P256 {
                x: coordinate(members, "x")?,
                y: coordinate(members, "y")?,
            }),
            _ => Err(InvalidJwk::UnsupportedType),
        }
    }
}

/// A public key trusted under a name, pinned to its algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedKey {
    kid: String,
    key: PublicKey,
}

impl PinnedKey {
    /// Pins `key` under its thumbprint, the `kid` of our own keys.
    #[must_use]
    pub fn of(key: PublicKey) -> Self {
        Self {
            kid: key.thumbprint(),
            key,
        }
    }

    /// Reads a JWK that passed the strict gate. Without `kid` the thumbprint serves.
    ///
    /// # Errors
    /// See [`InvalidJwk`]. Members that say nothing of the key are ignored (RFC 7517 §4).
    pub fn from_jwk(jwk: &Value) -> Result<Self, InvalidJwk> {
        let members = jwk.as_object().ok_or(InvalidJwk::NotAnObject)?;
        // SECURITY: a private key that reached us is compromised; taking it as public would hide that.
        if PRIVATE.iter().any(|name| members.contains_key(*name)) {
            return Err(InvalidJwk::Private);
        }
        let key = PublicKey::from_members(members)?;
        if members
            .get("alg")
            .is_some_and(|alg| alg != key.algorithm().as_str())
        {
            return Err(InvalidJwk::Member("alg"));
        }
        if members.get("use").is_some_and(|usage| usage != "sig") {
            return Err(InvalidJwk::Member("use"));
        }
        let verifies = |operations: &Value| {
            operations
                .as_array()
                .is_some_and(|operations| operations.iter().any(|operation| operation == "verify"))
        };
        if members
            .get("key_ops")
            .is_some_and(|operations| !verifies(operations))
        {
            return Err(InvalidJwk::Member("key_ops"));
        }
        let kid = match members.get("kid") {
            None => key.thumbprint(),
            Some(_) => text(members, "kid")?.to_owned(),
        };
        if is_kid(&kid) {
            Ok(Self { kid, key })
        } else {
            Err(InvalidJwk::Member("kid"))
        }
    }

    /// The name.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The one algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    /// The JWK for a JWKS: the required members, `alg`, `kid` and `use`.
    #[must_use]
    pub fn to_jwk(&self) -> Value {
        let (alg, kid) = (self.algorithm().as_str(), &self.kid);
        match &self.key {
            PublicKey::Ed25519(x) => {
                json!({"alg": alg, "crv": "Ed25519", "kid": kid, "kty": "OKP", "use": "sig", "x": base64url(x)})
            }
            PublicKey::P256 { x, y } => json!({
                "alg": alg, "crv": "P-256", "kid": kid, "kty": "EC", "use": "sig", "x": base64url(x), "y": base64url(y)
            }),
        }
    }

    /// The same as text, members in order, for storage.
    #[must_use]
    pub fn to_jwk_text(&self) -> String {
        self.to_jwk().to_string()
    }
}

/// Why a JWK is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJwk {
    /// Not a JSON object.
    #[error("a JWK is an object")]
    NotAnObject,
    /// It holds a private or secret part.
    #[error("the JWK holds a private key")]
    Private,
    /// Neither OKP with Ed25519 nor EC with P-256.
    #[error("only Ed25519 and P-256 keys are accepted")]
    UnsupportedType,
    /// A member is missing or wrong.
    #[error("the JWK member {0} is missing or wrong")]
    Member(&'static str),
    /// A key under which anybody can sign.
    #[error("the key is weak")]
    WeakKey,
}

/// A key id: 1 to 128 printable ASCII characters without quote and backslash.
pub(super) fn is_kid(kid: &str) -> bool {
    (1..=128).contains(&kid.len())
        && kid
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'))
}

fn text<'a>(members: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, InvalidJwk> {
    members
        .get(name)
        .and_then(Value::as_str)
        .ok_or(InvalidJwk::Member(name))
}

fn coordinate(members: &Map<String, Value>, name: &'static str) -> Result<[u8; 32], InvalidJwk> {
    // RFC 7518 §6.2.1.2: the full size of a coordinate, no shorter form.
    base64url_decode(text(members, name)?)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(InvalidJwk::Member(name))
}

/// The y coordinates of the eight points of small order and their non-canonical forms; the top bit is x's sign.
fn has_small_order(key: &[u8; 32]) -> bool {
    let [start @ .., last] = key;
    SMALL_ORDER
        .iter()
        .any(|[weak @ .., end]| weak == start && *end == last & 0x7f)
}

const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

const fn edge(first: u8, rest: u8, last: u8) -> [u8; 32] {
    let mut bytes = [rest; 32];
    let [start, .., end] = &mut bytes;
    *start = first;
    *end = last;
    bytes
}

const SMALL_ORDER: [[u8; 32]; 7] = [
    edge(0, 0, 0),
    edge(1, 0, 0),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
    edge(0xec, 0xff, 0x7f),
    edge(0xed, 0xff, 0x7f),
    edge(0xee, 0xff, 0x7f),
];

#[cfg(test)]
mod tests;
