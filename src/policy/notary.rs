//! The notary: puts an evaluation into the claims of a decision to sign (protocol §4).
//!
//! It says what the engine said about exactly one action and adds nothing of its own but identifiers and times.

use std::time::Duration;

use super::evaluation::Evaluation;
use crate::domain::{
    Action, DecisionId, EntryId, ScopeSet, Time,
    decision::{Actor, ApprovalRef, Confirmation, Constraints, DecisionClaims, audience, own_jti},
};

/// How long a decision lives unless something else is asked.
pub const DEFAULT_LIFE: Duration = Duration::from_secs(60);

/// The longest life of a decision (protocol §4).
pub const MAX_LIFE: Duration = Duration::from_secs(120);

/// What a decision says beyond the evaluation.
#[derive(Debug, Clone)]
pub struct Occasion<'a> {
    /// Postern's public base URL, without a trailing slash.
    pub issuer: &'a str,
    /// The decision's new id.
    pub id: DecisionId,
    /// The entry that spends it, of one that is spent in the call that makes it; `None`: it is given away.
    pub entry: Option<EntryId>,
    /// The exact action.
    pub action: &'a Action,
    /// Its hash, base64url.
    pub action_hash: &'a str,
    /// The agent's own name for its run.
    pub run: Option<String>,
    /// The scopes a released token may have.
    pub scopes: Option<ScopeSet>,
    /// The key the caller must prove.
    pub cnf: Option<Confirmation>,
    /// The approvals that were in the question.
    pub approvals: Vec<ApprovalRef>,
    /// `sha256:` hex of the caller's context.
    pub context_digest: Option<String>,
    /// Whether the person is at a browser now.
    pub live_session: bool,
    /// The moment of issue.
    pub now: Time,
    /// How long it lives: whole seconds, at most [`MAX_LIFE`].
    pub life: Duration,
}

/// Builds the claims.
#[must_use]
pub fn claims(evaluation: &Evaluation, occasion: Occasion<'_>) -> DecisionClaims {
    let action = occasion.action;
    let iat = occasion.now.unix_seconds();
    // INVARIANT: exp − iat ≤ 120 s, whatever is asked for (protocol §4).
    let life_s = i64::try_from(occasion.life.min(MAX_LIFE).as_secs()).unwrap_or(0);
    DecisionClaims {
        iss: occasion.issuer.to_owned(),
        aud: audience(occasion.issuer, action.org, occasion.entry),
        iat,
        exp: iat.saturating_add(life_s),
        jti: own_jti(occasion.id),
        ver: 1,
        org: action.org,
        sub: action.user,
        act: Actor {
            sub: action.agent,
            run: occasion.run,
        },
        grant: action.grant,
        tool: action.tool.clone(),
        action_hash: occasion.action_hash.to_owned(),
        outcome: evaluation.outcome,
        constraints: Constraints {
            max_ttl_s: evaluation.max_ttl_s,
            modes: Some(evaluation.modes),
            scopes: occasion.scopes,
            cnf: occasion.cnf,
        },
        policy: evaluation.policy.clone(),
        layers: evaluation.layers,
        approvals: occasion.approvals,
        context_digest: occasion.context_digest,
        live_session: occasion.live_session,
    }
}
