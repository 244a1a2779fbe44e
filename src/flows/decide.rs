//! Deciding: the facts at one epoch, the three policy layers, the notary's signature, the entry.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    crypto::digest,
    domain::{
        DecisionId, EntryId, Mode, ModeSet, OrgId, Time,
        decision::{DecisionClaims, Outcome, UnverifiedDecision, own_jti},
        entry::{EntryDecision, EntryDraft, EntryType},
    },
    policy::{Evaluation, OrgPermit, notary, reason},
    release::{
        DecisionError, Expected, GateRefusal, OwnDecision, Place, Statement, TrustedKey, VerifiedDecision,
        verify,
    },
    store::{IdempotencyKey, NewEntry},
};

use super::{
    Deps, Refusal,
    actions::{self, Ask, Caller, Prepared},
    idempotency, record, token,
};

/// What an evaluation came to, with the modes that are really to be had.
#[derive(Debug)]
pub struct Decided {
    /// The layers' answer.
    pub evaluation: Evaluation,
    /// What policy and person allow and connector and grant leave.
    pub modes: ModeSet,
    /// When it was evaluated, by the database's clock of its facts.
    pub at: Time,
}

/// The answer of `POST /v1/decisions`.
#[derive(Debug)]
pub struct Answer {
    /// Its id.
    pub id: DecisionId,
    /// What it says.
    pub outcome: Outcome,
    /// The signed decision; every outcome is signed, only `allow` releases.
    pub jws: String,
    /// base64url of the action's SHA-256.
    pub action_hash: String,
    /// When it ends.
    pub expires_at: Time,
    /// A stable, model-safe reason.
    pub reason: Option<String>,
    /// In words, model-safe.
    pub message: Option<String>,
    /// The entry that keeps it.
    pub entry: EntryId,
}

/// Evaluates without releasing (`POST /v1/decisions`): a signed answer and its entry.
///
/// # Errors
/// The refusals of protocol §6 up to the decision itself; a deny is an answer here.
pub async fn decide(deps: &Arc<Deps>, caller: Caller, ask: &Ask) -> Result<Answer, Refusal> {
    let mut place = deps.gate.enter(caller.org, caller.agent)?;
    for attempt in 0..ATTEMPTS {
        let Some(prepared) = actions::current(deps, caller, ask).await? else {
            deps.facts.again(deps, caller.org, attempt).await?;
            continue;
        };
        deps.gate.turn(caller.org, &mut place).await;
        let decided = evaluate(deps, &prepared, ask, &OrgPermit::Policy)?;
        let id = DecisionId::new(decided.at, &*deps.random)?;
        let (jws, claims) = sign(deps, &prepared, ask, &decided, id, None)?.into_text();
        place.judged();
        let draft = draft(&prepared, ask, &decided, Some((&claims, &jws)));
        let message = decided.evaluation.model_message.clone();
        let entry = record::open(deps, EntryType::Decision, draft)?;
        let entry = saying(deps, &prepared, entry, message);
        let entry = place.turn_until_it_waits(entry).await?;
        let entry_id = entry.id;
        match deps
            .gate
            .state(Statement {
                org: caller.org,
                epoch: prepared.epoch(),
                idempotency: None,
                entry,
            })
            .await
        {
            Ok(_) => {
                deps.facts.proved(&prepared.agent, Some(&prepared.grant));
                return Ok(Answer {
                    id,
                    outcome: decided.evaluation.outcome,
                    jws,
                    action_hash: digest::action_hash_text(&prepared.hash),
                    expires_at: Time::from_unix_seconds(claims.exp),
                    reason: decided.evaluation.reason,
                    message: decided.evaluation.model_message,
                    entry: entry_id,
                });
            }
            Err(GateRefusal::Stale) => {
                place.without_turn();
                deps.facts.again(deps, caller.org, attempt).await?;
            }
            Err(refusal) => return Err(gate_refusal(deps, caller.org, None, refusal).await),
        }
    }
    Err(Refusal::Unsettled)
}

/// Asks the three layers about the exact action.
///
/// # Errors
/// When the policies in force cannot judge these facts.
pub fn evaluate(deps: &Deps, prepared: &Prepared, ask: &Ask, permit: &OrgPermit) -> Result<Decided, Refusal> {
    let at = deps.clock.now();
    let mut evaluation = prepared
        .agent
        .evaluate(prepared, ask.context.as_ref(), at, permit)?;
    if evaluation.outcome == Outcome::Allow && !evaluation.limits.is_empty() {
        // Budgets are not counted yet: a permit that demands one permits nothing.
        evaluation.outcome = Outcome::Deny;
        evaluation.reason = Some(reason::BUDGET_UNSUPPORTED.to_owned());
    }
    let escapes = evaluation.reads_args || evaluation.needs_approval;
    let modes = token::available(prepared, evaluation.modes, escapes);
    Ok(Decided {
        evaluation,
        modes,
        at,
    })
}

/// Signs what an evaluation came to, for the entry that spends it in this call, if it is not to be given away.
///
/// # Errors
/// When the notary's key cannot sign.
pub fn sign(
    deps: &Deps,
    prepared: &Prepared,
    ask: &Ask,
    decided: &Decided,
    id: DecisionId,
    entry: Option<EntryId>,
) -> Result<OwnDecision, Refusal> {
    let occasion = notary::Occasion {
        issuer: &deps.issuer,
        id,
        entry,
        action: &prepared.action,
        action_hash: &digest::action_hash_text(&prepared.hash),
        run: ask.run.clone(),
        scopes: Some(prepared.scopes.clone()),
        cnf: None,
        approvals: Vec::new(),
        context_digest: ask.context.as_ref().map(context_digest).transpose()?,
        live_session: false,
        now: decided.at,
        life: notary::DEFAULT_LIFE,
    };
    let mut claims = notary::claims(&decided.evaluation, occasion);
    // What the connector and the grant leave of what policy and person allow; of that, what was asked for (protocol §5).
    claims.constraints.modes = Some(asked(ask, decided.modes));
    let most = claims.constraints.max_ttl_s.unwrap_or(DEFAULT_TTL_S);
    claims.constraints.max_ttl_s = Some(ask.ttl_s.map_or(most, |ttl_s| ttl_s.min(most)));
    OwnDecision::sign(&deps.notary, claims).ok_or(Refusal::KeyUnavailable)
}

/// The modes a decision is about: the one that was asked for, none if it is not to be had; all there are if none was named.
fn asked(ask: &Ask, modes: ModeSet) -> ModeSet {
    match ask.mode {
        None => modes,
        asked => choose(asked, modes).map_or(ModeSet::NONE, |mode| ModeSet::NONE.with(mode)),
    }
}

/// Checks a decision that was brought along against this org's keys and this exact action.
///
/// # Errors
/// Why it does not hold.
pub fn check(
    deps: &Deps,
    prepared: &Prepared,
    ask: &Ask,
    unverified: &UnverifiedDecision,
) -> Result<VerifiedDecision, DecisionError> {
    let context = context_of(ask)?;
    let notary = TrustedKey {
        key: deps.notary.public().clone(),
        iss: deps.issuer.clone(),
        ceiling: None,
    };
    let keys = prepared.agent.engine_keys.iter().chain([&notary]);
    verify::verify(
        unverified,
        keys,
        &expected(deps, prepared, context.as_deref(), true),
    )
}

/// Checks a decision that this call made itself, for this entry, against this exact action.
///
/// # Errors
/// Why it does not hold.
pub fn check_own(
    deps: &Deps,
    prepared: &Prepared,
    ask: &Ask,
    own: OwnDecision,
    entry: EntryId,
) -> Result<VerifiedDecision, DecisionError> {
    let context = context_of(ask)?;
    let expected = expected(deps, prepared, context.as_deref(), false);
    verify::own(own, deps.notary.public(), &expected, entry)
}

fn context_of(ask: &Ask) -> Result<Option<String>, DecisionError> {
    let context = ask.context.as_ref().map(context_digest).transpose();
    // The strict gate let it in, so it has a canonical form; if it had none, nothing could have been decided about it.
    context.map_err(|_| DecisionError::WrongContext)
}

fn expected<'a>(
    deps: &'a Deps,
    prepared: &'a Prepared,
    context_digest: Option<&'a str>,
    is_brought: bool,
) -> Expected<'a> {
    let action = &prepared.action;
    Expected {
        issuer: &deps.issuer,
        org: action.org,
        user: action.user,
        agent: action.agent,
        grant: action.grant,
        connector: &action.connector,
        tool: &action.tool,
        action_hash: prepared.hash,
        context_digest,
        now: deps.clock.now(),
        revoked_at: prepared.grant.facts.stale_before(is_brought),
    }
}

/// The refusal a deny or escalate becomes, kept as an entry first.
///
/// # Errors
/// Always: the denial, or why it could not be kept.
pub async fn deny(
    deps: &Deps,
    caller: Caller,
    prepared: &Prepared,
    ask: &Ask,
    decided: Decided,
    idempotency: Option<IdempotencyKey>,
    place: &mut Place,
) -> Result<std::convert::Infallible, Denied> {
    // Approvals come later: an escalation is a deny that says so.
    let (reason, message) = match decided.evaluation.outcome {
        Outcome::Escalate => ("approval_required".to_owned(), None),
        _ => (
            decided
                .evaluation
                .reason
                .clone()
                .unwrap_or_else(|| "not_permitted".to_owned()),
            decided.evaluation.model_message.clone(),
        ),
    };
    let id = DecisionId::new(decided.at, &*deps.random).map_err(Refusal::from)?;
    let (jws, claims) = sign(deps, prepared, ask, &decided, id, None)?.into_text();
    let mut draft = draft(prepared, ask, &decided, Some((&claims, &jws)));
    draft.reason = Some(reason.clone());
    let entry = record::open(deps, EntryType::Decision, draft)?;
    let entry = saying(deps, prepared, entry, message.clone());
    let entry = place.turn_until_it_waits(entry).await?;
    let entry_id = entry.id;
    let digest = idempotency.as_ref().map(|key| key.digest.clone());
    let idempotency = idempotency.map(|key| IdempotencyKey {
        ended: Some((403, "denied".to_owned())),
        ..key
    });
    let statement = Statement {
        org: caller.org,
        epoch: prepared.epoch(),
        idempotency,
        entry,
    };
    let stated = deps.gate.state(statement).await;
    place.without_turn();
    match stated {
        Ok(_) => deps.facts.proved(&prepared.agent, Some(&prepared.grant)),
        Err(GateRefusal::Stale) => return Err(Denied::Stale),
        Err(refusal) => {
            let refusal = gate_refusal(deps, caller.org, digest.as_deref(), refusal).await;
            return Err(Denied::Refused(refusal));
        }
    }
    Err(Denied::Refused(Refusal::Denied {
        reason,
        message,
        decision: Some(own_jti(id)),
        entry: Some(entry_id),
    }))
}

/// How a denial ends.
#[derive(Debug)]
pub enum Denied {
    /// The facts moved on: read again, decide again.
    Stale,
    /// This is the answer.
    Refused(Refusal),
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What an entry about this action says.
#[must_use]
pub fn draft(
    prepared: &Prepared,
    ask: &Ask,
    decided: &Decided,
    decision: Option<(&DecisionClaims, &str)>,
) -> EntryDraft {
    let action = &prepared.action;
    EntryDraft {
        user: Some(action.user),
        agent: Some(action.agent),
        grant: Some(action.grant),
        connector: Some(action.connector.clone()),
        tool: Some(action.tool.clone()),
        decision: decision.map(|(claims, jws)| EntryDecision {
            jti: claims.jti.clone(),
            iss: claims.iss.clone(),
            sha256: digest::hex(&digest::sha256(jws.as_bytes())),
            outcome: claims.outcome,
        }),
        context_digest: ask
            .context
            .as_ref()
            .and_then(|context| context_digest(context).ok()),
        policy: Some(decided.evaluation.policy.clone()),
        outcome: Some(decided.evaluation.outcome.as_str().to_owned()),
        reason: decided.evaluation.reason.clone(),
        ..EntryDraft::default()
    }
}

/// Seals the arguments and names of this action beside an entry about it.
///
/// # Errors
/// When the org's key is unavailable.
pub async fn sealed(deps: &Deps, prepared: &Prepared, entry: NewEntry) -> Result<NewEntry, Refusal> {
    saying(deps, prepared, entry, None).await
}

/// The same, with what the policy lets a model know: the same key is told the same again.
async fn saying(
    deps: &Deps,
    prepared: &Prepared,
    entry: NewEntry,
    model_message: Option<String>,
) -> Result<NewEntry, Refusal> {
    let key = deps.unwrapped(&prepared.agent.facts.odk).await?;
    let held = &prepared.grant.facts;
    let hashed = record::Hashed {
        action: Some(prepared.hash),
        account: held.grant.account.id.as_deref(),
    };
    let details = record::Details {
        args: Some(prepared.action.args.clone()),
        names: record::Names {
            user: Some(held.user.display()),
            agent: Some(prepared.agent.facts.agent.name.clone()),
            account: Some(held.grant.account.label.clone()),
        },
        model_message,
        ..record::Details::default()
    };
    record::seal(deps, &key, prepared.action.org, entry, &hashed, details)
}

fn context_digest(context: &Value) -> Result<String, Refusal> {
    Ok(digest::sha256_text(&crate::crypto::jcs::canonicalize(context)?))
}

/// What a refusal of the gate is to a caller whose idempotency key, if it had one, came with a body of this digest.
pub async fn gate_refusal(deps: &Deps, org: OrgId, digest: Option<&str>, refusal: GateRefusal) -> Refusal {
    match refusal {
        GateRefusal::Sealed => Refusal::Sealed,
        GateRefusal::Stale | GateRefusal::GrantChanged => Refusal::Unsettled,
        GateRefusal::WrongGrant => Refusal::DecisionRejected(DecisionError::WrongGrant),
        GateRefusal::WrongEntry => Refusal::DecisionRejected(DecisionError::WrongAudience),
        GateRefusal::Spent { entry } => Refusal::DecisionSpent { entry },
        GateRefusal::Taken(record) => {
            idempotency::again(deps, org, digest.unwrap_or_default(), &record).await
        }
        GateRefusal::Closed => Refusal::StoreUnavailable(None),
        GateRefusal::Store(error) => error.into(),
    }
}

/// The mode of a release: what was asked for, else the best rung there is.
///
/// # Errors
/// With the modes that are available.
pub fn choose(asked: Option<Mode>, modes: ModeSet) -> Result<Mode, Refusal> {
    match asked {
        Some(Mode::Token) if modes.contains(Mode::Token) => Ok(Mode::Token),
        // The raw rung is asked for as `token` and labelled as what it is (protocol §5).
        Some(Mode::Token) if modes.contains(Mode::Raw) => Ok(Mode::Raw),
        Some(mode) if mode != Mode::Raw && modes.contains(mode) => Ok(mode),
        None => modes
            .iter()
            .find(|mode| *mode != Mode::Raw)
            .ok_or(Refusal::ModeUnavailable(modes)),
        Some(_) => Err(Refusal::ModeUnavailable(modes)),
    }
}

/// How often facts are read again before giving up (architecture §3): for a few seconds altogether.
pub const ATTEMPTS: u32 = 40;
/// The longest life of a released token unless a policy says otherwise, seconds.
const DEFAULT_TTL_S: u64 = 3600;
