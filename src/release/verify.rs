//! Checks a decision, in the one order of protocol §4, failing closed. The only maker of [`VerifiedDecision`].

use std::collections::BTreeSet;

use crate::{
    crypto::{
        digest,
        jose::{self, JoseError},
        jwk::PinnedKey,
        strict_json::Gate,
    },
    domain::{
        AgentId, EntryId, GrantId, OrgId, Time, UserId,
        action::ActionHash,
        connector::ConnectorId,
        decision::{DecisionClaims, Outcome, UnverifiedDecision, audience},
    },
};

use super::own::OwnDecision;

/// The `typ` of a decision.
pub const DECISION_TYPE: &str = "action-decision+jwt";

/// Proof that a decision's signature, issuer, audience, times, action and constraints were all checked.
///
/// INVARIANT: constructed only by [`verify`] and [`own`]; moved, never cloned: it is spent once.
#[derive(Debug)]
pub struct VerifiedDecision {
    claims: DecisionClaims,
    sha256: String,
    origin: Origin,
}

/// Who signed a decision, and who can use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Postern signed it, made out to this entry: the call that made it had it, alone.
    Here(EntryId),
    /// Postern signed it; whoever brought it along had it.
    Notary,
    /// An engine signed it; whoever brought it along had it.
    Engine,
}

impl VerifiedDecision {
    /// What the decision says.
    #[must_use]
    pub fn claims(&self) -> &DecisionClaims {
        &self.claims
    }

    /// Lower-case hex SHA-256 of the compact JWS, for the entry.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Whether a registered engine signed it, not Postern.
    #[must_use]
    pub fn is_external(&self) -> bool {
        self.origin == Origin::Engine
    }

    /// The one entry that can spend it, if it was made in this very call. Never of one that was brought along, whoever signed it.
    #[must_use]
    pub fn entry(&self) -> Option<EntryId> {
        match self.origin {
            Origin::Here(entry) => Some(entry),
            Origin::Notary | Origin::Engine => None,
        }
    }
}

/// A key the org trusts for decisions. Keys named by a header are never used.
#[derive(Debug, Clone)]
pub struct TrustedKey {
    /// The public key with its one algorithm and its id.
    pub key: PinnedKey,
    /// Who may sign with it.
    pub iss: String,
    /// `None`: Postern's own notary. Else the ceiling of a registered engine.
    pub ceiling: Option<Ceiling>,
}

/// What a registered engine may decide about; nothing beyond.
#[derive(Debug, Clone)]
pub struct Ceiling {
    /// Connectors.
    pub connectors: BTreeSet<String>,
    /// Tools; `*` stands for every tool.
    pub tools: BTreeSet<String>,
}

/// What the authenticated request and the trusted rows say a decision must be about.
#[derive(Debug)]
pub struct Expected<'a> {
    /// Postern's public base URL.
    pub issuer: &'a str,
    /// The tenant of the caller.
    pub org: OrgId,
    /// Whose grant it is.
    pub user: UserId,
    /// The caller.
    pub agent: AgentId,
    /// The grant.
    pub grant: GrantId,
    /// Its connector.
    pub connector: &'a ConnectorId,
    /// The tool.
    pub tool: &'a str,
    /// Recomputed from the received action.
    pub action_hash: ActionHash,
    /// The digest of the context that came with the request; `None`: none came.
    pub context_digest: Option<&'a str>,
    /// The database's time.
    pub now: Time,
    /// The latest revocation that covers org, user, agent, grant or key; of a decision that was brought along, also the
    /// org's last recovery.
    pub revoked_at: Option<Time>,
}

/// Why a decision was refused (`decision_error` in the problem).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecisionError {
    /// Longer than 16 KiB.
    #[error("too_large")]
    TooLarge,
    /// Not a compact JWS of ours, or its claims are not exactly those of a decision.
    #[error("malformed")]
    Malformed,
    /// Another kind of token.
    #[error("wrong_type")]
    WrongType,
    /// Its key is not registered in this org.
    #[error("unknown_key")]
    UnknownKey,
    /// Its key is pinned to another algorithm.
    #[error("wrong_algorithm")]
    WrongAlgorithm,
    /// The signature does not hold.
    #[error("bad_signature")]
    BadSignature,
    /// Its issuer does not own the key.
    #[error("wrong_issuer")]
    WrongIssuer,
    /// Meant for another audience.
    #[error("wrong_audience")]
    WrongAudience,
    /// A version this build does not know.
    #[error("unsupported_version")]
    UnsupportedVersion,
    /// Past its end.
    #[error("expired")]
    Expired,
    /// From the future.
    #[error("not_yet_valid")]
    NotYetValid,
    /// Longer than 120 s.
    #[error("too_long")]
    TooLong,
    /// Made before a revocation that covers it, or before a recovery.
    #[error("stale")]
    Stale,
    /// For another tenant.
    #[error("wrong_org")]
    WrongOrg,
    /// For another person.
    #[error("wrong_user")]
    WrongUser,
    /// For another agent.
    #[error("wrong_agent")]
    WrongAgent,
    /// For another grant.
    #[error("wrong_grant")]
    WrongGrant,
    /// For another tool or other arguments.
    #[error("wrong_action")]
    WrongAction,
    /// For another context of the caller's, or for none.
    #[error("wrong_context")]
    WrongContext,
    /// Its key may not decide about this connector or tool.
    #[error("outside_ceiling")]
    OutsideCeiling,
    /// It does not say allow.
    #[error("not_allow")]
    NotAllow,
    /// It carries a constraint this caller cannot meet.
    #[error("unmet_constraint")]
    UnmetConstraint,
    /// It names an approval this org does not know.
    #[error("unknown_approval")]
    UnknownApproval,
}

/// Checks a decision that was brought along against the keys the org trusts and what it must be about.
///
/// # Errors
/// The first check that fails, in the order of protocol §4.
pub fn verify<'k>(
    unverified: &UnverifiedDecision,
    keys: impl IntoIterator<Item = &'k TrustedKey>,
    expected: &Expected<'_>,
) -> Result<VerifiedDecision, DecisionError> {
    let jws = jose::parse(&unverified.0).map_err(|error| match error {
        JoseError::TooLong => DecisionError::TooLarge,
        _ => DecisionError::Malformed,
    })?;
    if jws.claimed_typ() != DECISION_TYPE {
        return Err(DecisionError::WrongType);
    }
    // INVARIANT: the key is looked up among the org's own; nothing in the header brings one along.
    let trusted = keys
        .into_iter()
        .find(|trusted| trusted.key.kid() == jws.claimed_kid())
        .ok_or(DecisionError::UnknownKey)?;
    let verified = jws
        .verify(&trusted.key, DECISION_TYPE)
        .map_err(|error| match error {
            JoseError::AlgorithmNotPinned => DecisionError::WrongAlgorithm,
            _ => DecisionError::BadSignature,
        })?;
    let claims: DecisionClaims = Gate::STRICT
        .from_slice(verified.payload())
        .map_err(|_| DecisionError::Malformed)?;
    if !is_decision_id(&claims.jti) {
        return Err(DecisionError::Malformed);
    }
    check_claims(&claims, &trusted.iss, trusted.ceiling.as_ref(), expected, None)?;
    Ok(VerifiedDecision {
        claims,
        sha256: digest::hex(&digest::sha256(unverified.0.as_bytes())),
        origin: match trusted.ceiling {
            Some(_) => Origin::Engine,
            None => Origin::Notary,
        },
    })
}

/// Checks a decision that was made in this very call, for this entry, against the notary's key and what it must be about: as
/// [`verify`] would, but that the claims which were signed are at hand, and that it is made out to the entry.
///
/// # Errors
/// What [`verify`] would refuse its text with, were it made out to the org.
pub fn own(
    decision: OwnDecision,
    notary: &PinnedKey,
    expected: &Expected<'_>,
    entry: EntryId,
) -> Result<VerifiedDecision, DecisionError> {
    // SECURITY: the signature is verified over the very bytes that the entry hashes.
    let (claims, sha256) = decision.verified(notary).ok_or(DecisionError::BadSignature)?;
    if !has_exact_numbers(&claims) || !is_decision_id(&claims.jti) {
        return Err(DecisionError::Malformed);
    }
    check_claims(&claims, expected.issuer, None, expected, Some(entry))?;
    Ok(VerifiedDecision {
        claims,
        sha256,
        origin: Origin::Here(entry),
    })
}

/// Whether the strict gate lets the numbers of these claims in: the one thing in them that it could refuse.
fn has_exact_numbers(claims: &DecisionClaims) -> bool {
    let exact = -MOST_EXACT..=MOST_EXACT;
    let max_ttl_s = claims.constraints.max_ttl_s.map(i64::try_from);
    exact.contains(&claims.iat)
        && exact.contains(&claims.exp)
        && max_ttl_s.is_none_or(|most| most.is_ok_and(|most| exact.contains(&most)))
}

/// Whether a decision can be spent by this id.
fn is_decision_id(jti: &str) -> bool {
    // SECURITY: PostgreSQL keeps no text with a NUL. A decision with one in its id would fail the batch it is spent in, every
    // other request with it, and never be spent.
    !jti.is_empty() && jti.chars().nth(LONGEST_ID).is_none() && !jti.chars().any(char::is_control)
}

fn check_claims(
    claims: &DecisionClaims,
    iss: &str,
    ceiling: Option<&Ceiling>,
    expected: &Expected<'_>,
    entry: Option<EntryId>,
) -> Result<(), DecisionError> {
    let refuse = |wrong: bool, error: DecisionError| if wrong { Err(error) } else { Ok(()) };
    // An engine may not speak in Postern's name, whatever it registered.
    let postern = claims.iss == expected.issuer;
    refuse(
        claims.iss != iss || postern != ceiling.is_none(),
        DecisionError::WrongIssuer,
    )?;
    refuse(
        claims.aud != audience(expected.issuer, expected.org, entry),
        DecisionError::WrongAudience,
    )?;
    refuse(claims.ver != 1, DecisionError::UnsupportedVersion)?;
    check_times(claims, ceiling.is_some(), expected)?;
    refuse(claims.org != expected.org, DecisionError::WrongOrg)?;
    refuse(claims.sub != expected.user, DecisionError::WrongUser)?;
    refuse(claims.act.sub != expected.agent, DecisionError::WrongAgent)?;
    refuse(claims.grant != expected.grant, DecisionError::WrongGrant)?;
    refuse(claims.tool != expected.tool, DecisionError::WrongAction)?;
    refuse(
        claims.action_hash != digest::action_hash_text(&expected.action_hash),
        DecisionError::WrongAction,
    )?;
    // Both ways: a context the decision does not know of was not decided about.
    refuse(
        claims.context_digest.as_deref() != expected.context_digest,
        DecisionError::WrongContext,
    )?;
    if let Some(ceiling) = ceiling {
        let covered = ceiling.connectors.contains(expected.connector.as_str())
            && (ceiling.tools.contains("*") || ceiling.tools.contains(expected.tool));
        refuse(!covered, DecisionError::OutsideCeiling)?;
    }
    refuse(claims.outcome != Outcome::Allow, DecisionError::NotAllow)?;
    // Callers prove themselves by API key: a decision bound to a DPoP key cannot be met (RFC 9449 §6).
    refuse(claims.constraints.cnf.is_some(), DecisionError::UnmetConstraint)?;
    refuse(!claims.approvals.is_empty(), DecisionError::UnknownApproval)
}

fn check_times(
    claims: &DecisionClaims,
    external: bool,
    expected: &Expected<'_>,
) -> Result<(), DecisionError> {
    let now = expected.now.unix_seconds();
    let life = claims.exp.checked_sub(claims.iat).ok_or(DecisionError::TooLong)?;
    if life > LONGEST_LIFE_S {
        return Err(DecisionError::TooLong);
    }
    // RFC 7519 §4.1.4: the moment of `exp` itself is too late; the skew is ours.
    if claims.exp.saturating_add(SKEW_S) <= now || life <= 0 {
        return Err(DecisionError::Expired);
    }
    if claims.iat.saturating_sub(SKEW_S) > now {
        return Err(DecisionError::NotYetValid);
    }
    // An engine has a clock of its own: its decision has to be later than a revocation by the skew. Postern's own
    // are made at an epoch, which the gate compares exactly.
    let skew = if external { SKEW_S } else { 0 };
    match expected.revoked_at {
        Some(at) if claims.iat < at.unix_seconds().saturating_add(skew) => Err(DecisionError::Stale),
        _ => Ok(()),
    }
}

/// The longest life of a decision, seconds (protocol §4).
const LONGEST_LIFE_S: i64 = 120;
/// How far clocks may be apart, seconds (protocol §4).
const SKEW_S: i64 = 30;
/// The longest `jti`, characters (protocol §4).
const LONGEST_ID: usize = 128;
/// Whole numbers up to here are exact for everybody who reads JSON (RFC 8785 §3.2.2.3).
const MOST_EXACT: i64 = (1 << 53) - 1;

#[cfg(test)]
mod tests;
