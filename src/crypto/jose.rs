//! Compact JWS (RFC 7515 §7.1) with exactly the header `{alg, kid, typ}`, EdDSA or ES256, keys pinned by the caller.
//!
//! Order, failing closed: size → form → strict header → `typ` → `kid` → algorithm of the key → signature. Nothing in a
//! header ever names or carries the key that is used.

use std::fmt;

use serde_json::Value;

use super::{
    digest::{base64url, base64url_decode},
    jwk::{Algorithm, PinnedKey, is_kid},
    signing::SigningKey,
    strict_json::{Gate, GateError},
};

/// The longest token read.
pub const MAX_TOKEN: usize = 16 * 1024;

/// Signs `payload` as a token of type `typ`, which must be the one of the key's purpose.
///
/// # Errors
/// [`JoseError::Purpose`] when the key is for something else, [`JoseError::TooLong`] when nobody would read the token.
pub fn sign(typ: &str, key: &SigningKey, payload: &[u8]) -> Result<String, JoseError> {
    sign_own(typ, key, payload).map(SignedJws::into_text)
}

/// The same, as a token whose form is known: whoever made it verifies it without reading it again.
///
/// # Errors
/// As [`sign`].
pub fn sign_own(typ: &str, key: &SigningKey, payload: &[u8]) -> Result<SignedJws, JoseError> {
    // INVARIANT: a token of one kind never verifies as another: one key, one purpose, one `typ` (RFC 8725 §3.11).
    if key.purpose().token_typ() != Some(typ) {
        return Err(JoseError::Purpose);
    }
    // The `kid` is a thumbprint and `typ` one of ours: neither needs escaping.
    let header = format!(r#"{{"alg":"EdDSA","kid":"{}","typ":"{typ}"}}"#, key.kid());
    let input = format!("{}.{}", base64url(header.as_bytes()), base64url(payload));
    let signature = key.sign_bytes(input.as_bytes()).ok_or(JoseError::Signature)?;
    let token = format!("{input}.{}", base64url(&signature));
    if token.len() > MAX_TOKEN {
        return Err(JoseError::TooLong);
    }
    Ok(SignedJws { token })
}

/// A token that was made here, and of whose signature nothing is believed yet.
///
/// INVARIANT: constructed only by [`sign_own`]: header and payload are what was given there. A text from anywhere else is read by
/// [`parse`].
pub struct SignedJws {
    token: String,
}

/// Without the token, which is given away by [`SignedJws::into_text`] alone.
impl fmt::Debug for SignedJws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedJws").finish_non_exhaustive()
    }
}

impl SignedJws {
    /// The compact form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.token
    }

    /// The compact form, to be given away.
    #[must_use]
    pub fn into_text(self) -> String {
        self.token
    }

    /// Whether the signature in the compact form is `key`'s over the bytes before it.
    #[must_use]
    pub fn is_signed_by(&self, key: &PinnedKey) -> bool {
        let Some((input, signature)) = self.token.rsplit_once('.') else {
            return false;
        };
        base64url_decode(signature).is_some_and(|signature| key.key().verifies(input.as_bytes(), &signature))
    }
}

/// A token whose form is right and of which nothing is believed yet.
#[derive(Debug, Clone)]
pub struct UnverifiedJws {
    algorithm: Algorithm,
    typ: String,
    kid: String,
    input: String,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

/// Reads the form of a compact JWS.
///
/// # Errors
/// See [`JoseError`].
pub fn parse(token: &str) -> Result<UnverifiedJws, JoseError> {
    if token.len() > MAX_TOKEN {
        return Err(JoseError::TooLong);
    }
    let (input, signature) = token.rsplit_once('.').ok_or(JoseError::NotCompact)?;
    let (header, payload) = input.split_once('.').ok_or(JoseError::NotCompact)?;
    if payload.contains('.') {
        return Err(JoseError::NotCompact);
    }
    let header = base64url_decode(header).ok_or(JoseError::Encoding("header"))?;
    let (algorithm, kid, typ) = read_header(&header)?;
    Ok(UnverifiedJws {
        algorithm,
        typ,
        kid,
        input: input.to_owned(),
        payload: base64url_decode(payload).ok_or(JoseError::Encoding("payload"))?,
        signature: base64url_decode(signature).ok_or(JoseError::Encoding("signature"))?,
    })
}

impl UnverifiedJws {
    /// The claimed type.
    #[must_use]
    pub fn claimed_typ(&self) -> &str {
        &self.typ
    }

    /// The claimed key: for a look-up among keys trusted already, never more.
    #[must_use]
    pub fn claimed_kid(&self) -> &str {
        &self.kid
    }

    /// Believes the token if it is a `typ` signed by `key`.
    ///
    /// # Errors
    /// [`JoseError::Typ`], [`JoseError::Kid`], [`JoseError::AlgorithmNotPinned`] or [`JoseError::Signature`], in this order.
    pub fn verify(self, key: &PinnedKey, typ: &str) -> Result<VerifiedJws, JoseError> {
        // RFC 8725 §3.11: explicit typing, compared exactly.
        if self.typ != typ {
            return Err(JoseError::Typ);
        }
        if self.kid != key.kid() {
            return Err(JoseError::Kid);
        }
        // RFC 8725 §3.1: the algorithm is the key's, not the header's.
        if self.algorithm != key.algorithm() {
            return Err(JoseError::AlgorithmNotPinned);
        }
        if !key.key().verifies(self.input.as_bytes(), &self.signature) {
            return Err(JoseError::Signature);
        }
        Ok(VerifiedJws {
            payload: self.payload,
        })
    }
}

/// A token that a trusted key signed as the expected type; its claims are still to be checked.
#[derive(Debug, Clone)]
pub struct VerifiedJws {
    payload: Vec<u8>,
}

impl VerifiedJws {
    /// The signed bytes, for the strict gate.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// Why a token is not believed or not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoseError {
    /// More than 16 KiB.
    #[error("the token is longer than 16 KiB")]
    TooLong,
    /// Not three parts with two dots.
    #[error("not a compact JWS")]
    NotCompact,
    /// Padding, other characters, or bits that should be zero.
    #[error("the {0} is not canonical base64url")]
    Encoding(&'static str),
    /// The header did not pass the strict gate.
    #[error("the header is not strict json: {0}")]
    Header(GateError),
    /// `crit` or any member but `alg`, `kid` and `typ`; `jku`, `jwk`, `x5u`, `x5c` and `b64` are among them.
    #[error("the header has a member that is not accepted")]
    HeaderMember,
    /// `alg`, `kid` or `typ` is missing or no text of the right form.
    #[error("the header member {0} is missing or wrong")]
    HeaderValue(&'static str),
    /// Neither `EdDSA` nor `ES256`.
    #[error("the algorithm is not accepted")]
    UnknownAlgorithm,
    /// A token of another type than asked for.
    #[error("the token is of another type")]
    Typ,
    /// The key is not the one the token names.
    #[error("the token names another key")]
    Kid,
    /// The header names an algorithm the key is not pinned to.
    #[error("the algorithm is not the key's")]
    AlgorithmNotPinned,
    /// The signature does not hold.
    #[error("the signature does not hold")]
    Signature,
    /// The key is not for tokens of this type.
    #[error("the key is for another purpose")]
    Purpose,
}

fn read_header(bytes: &[u8]) -> Result<(Algorithm, String, String), JoseError> {
    let header = HEADER.check(bytes).map_err(JoseError::Header)?;
    let members = header.as_object().ok_or(JoseError::HeaderValue("alg"))?;
    // RFC 7515 §4.1.11 asks to reject unknown `crit`; here every member that is not needed is refused.
    if members
        .keys()
        .any(|name| !matches!(name.as_str(), "alg" | "kid" | "typ"))
    {
        return Err(JoseError::HeaderMember);
    }
    let text = |name: &'static str| {
        members
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| is_kid(text))
            .ok_or(JoseError::HeaderValue(name))
    };
    let algorithm = Algorithm::parse(text("alg")?).ok_or(JoseError::UnknownAlgorithm)?;
    Ok((algorithm, text("kid")?.to_owned(), text("typ")?.to_owned()))
}

const HEADER: Gate = Gate {
    max_bytes: 1024,
    max_depth: 2,
    fractions: false,
};

/// A new key, for tests of whoever signs and verifies.
#[cfg(test)]
pub(crate) fn key_for_tests(purpose: super::instance::Purpose) -> SigningKey {
    let locking = super::hardening::Locking::Preferred;
    SigningKey::generate(purpose, &super::OsRandomness::new(), locking)
        .unwrap()
        .0
}

#[cfg(test)]
mod tests;
