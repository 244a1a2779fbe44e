//! A decision of Postern's own between its signature and what becomes of it: it is verified in the call that made it, or
//! given away.

use crate::{
    crypto::{
        SigningKey, digest,
        jose::{self, SignedJws},
        jwk::PinnedKey,
    },
    domain::decision::DecisionClaims,
};

use super::verify::DECISION_TYPE;

/// A signed decision that nobody has but the call that made it.
///
/// INVARIANT: constructed only by [`OwnDecision::sign`], so that what was signed is the JSON of these very claims. Moved, never
/// cloned: whoever has its text has no [`OwnDecision`] any more, and what is verified as one was given to nobody.
#[derive(Debug)]
pub struct OwnDecision {
    token: SignedJws,
    claims: DecisionClaims,
}

impl OwnDecision {
    /// Signs these claims; `None` when the key cannot.
    #[must_use]
    pub fn sign(key: &SigningKey, claims: DecisionClaims) -> Option<Self> {
        // Canonical as it is (RFC 8785): the members of the claims are declared in that order.
        let payload = serde_json::to_vec(&claims).ok()?;
        let token = jose::sign_own(DECISION_TYPE, key, &payload).ok()?;
        Some(Self { token, claims })
    }

    /// The compact JWS and what it says. From here on it is like any other that is brought along.
    #[must_use]
    pub fn into_text(self) -> (String, DecisionClaims) {
        (self.token.into_text(), self.claims)
    }

    /// What it says, and the lower-case hex SHA-256 of the compact JWS, if `key` signed just that.
    pub(super) fn verified(self, key: &PinnedKey) -> Option<(DecisionClaims, String)> {
        if !self.token.is_signed_by(key) {
            return None;
        }
        let sha256 = digest::hex(&digest::sha256(self.token.as_str().as_bytes()));
        Some((self.claims, sha256))
    }
}
