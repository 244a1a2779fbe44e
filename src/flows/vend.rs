//! The main path: decide, verify, make sure of a token, pass the gate, open, and only then act.

use std::{sync::Arc, time::Duration};

use crate::{
    connectors::FilteredResponse,
    domain::{
        DecisionId, EntryId, Mode, ScopeSet, Time,
        decision::Outcome,
        entry::{EntryDecision, EntryType},
        secret::AccessToken,
    },
    failpoints::Failpoint,
    policy::OrgPermit,
    release::{AuditReceipt, DecisionError, GateRefusal, Place, Release, VerifiedDecision, open},
    store::{IdempotencyKey, NewEntry},
};

use super::{
    Deps, Refusal,
    actions::{self, Ask, Caller, Prepared},
    decide::{self, ATTEMPTS, Decided, Denied},
    execute, idempotency, refused, selection,
    token::{self, Ready},
};

/// What a vend released.
#[derive(Debug)]
pub enum Vended {
    /// Postern made the call.
    Executed {
        /// What came back.
        answer: FilteredResponse,
        /// The decision it rests on.
        decision: String,
        /// The entry that precedes it.
        entry: EntryId,
    },
    /// A token left.
    Token {
        /// The token.
        token: AccessToken,
        /// When it ends, if known.
        expires_at: Option<Time>,
        /// What it can do.
        scopes: ScopeSet,
        /// Whether the provider narrowed it; else it is as wide as the grant.
        narrowed: bool,
        /// The decision it rests on.
        decision: String,
        /// The entry that precedes it.
        entry: EntryId,
    },
}

/// Releases one action, or says why not.
///
/// Runs in its own task: a caller that hangs up cannot stop it half-way.
///
/// # Errors
/// A typed refusal of protocol §6.
pub async fn vend(deps: &Arc<Deps>, caller: Caller, ask: Ask) -> Result<Vended, Refusal> {
    // Before anything: a refresh token that was put back may have been used since, and using it twice could end the
    // grant at the provider.
    if deps.store.is_sealed(caller.org) {
        return Err(Refusal::Sealed);
    }
    let place = deps.gate.enter(caller.org, caller.agent)?;
    let deps = Arc::clone(deps);
    tokio::spawn(async move { attempt(&deps, caller, &ask, place).await })
        .await
        // Where it stopped is not known: it may have been released.
        .unwrap_or(Err(Refusal::OutcomeUnknown { entry: None }))
}

/// What one try came to.
enum Try {
    Done(Box<Vended>),
    /// The facts moved on: read again, decide again (an external decision: verify again).
    Again,
}

async fn attempt(deps: &Arc<Deps>, caller: Caller, ask: &Ask, mut place: Place) -> Result<Vended, Refusal> {
    for attempt in 0..ATTEMPTS {
        match once(deps, caller, ask, &mut place).await? {
            Try::Done(vended) => return Ok(*vended),
            Try::Again => {
                place.without_turn();
                deps.facts.again(deps, caller.org, attempt).await?;
            }
        }
    }
    Err(Refusal::Unsettled)
}

async fn once(deps: &Arc<Deps>, caller: Caller, ask: &Ask, place: &mut Place) -> Result<Try, Refusal> {
    let Some(prepared) = actions::current(deps, caller, ask).await? else {
        return Ok(Try::Again);
    };
    let idempotency = idempotency::key(deps, caller, ask);
    idempotency::unused(deps, caller, idempotency.as_ref()).await?;

    deps.gate.turn(caller.org, place).await;
    let judged = judge(deps, &prepared, ask);
    place.judged();
    let (decided, verified) = match judged {
        Ok(Judged::Allowed(decided, verified)) => (decided, verified),
        Ok(Judged::Rejected(error)) => {
            place.without_turn();
            return Box::pin(rejected(deps, caller, &prepared, error)).await;
        }
        Ok(Judged::Denied(decided)) => {
            let denied = decide::deny(deps, caller, &prepared, ask, decided, idempotency, place);
            return match Box::pin(denied).await {
                Ok(never) => match never {},
                Err(Denied::Stale) => Ok(Try::Again),
                Err(Denied::Refused(refusal)) => Err(refusal),
            };
        }
        Ok(Judged::Without(refusal)) => {
            place.without_turn();
            return unless_stale(deps, &prepared, refusal).await;
        }
        Err(refusal) => return Err(refusal),
    };
    let rung = match rung(ask, &decided, &verified) {
        Ok(rung) => rung,
        Err(refusal) => {
            place.without_turn();
            return unless_stale(deps, &prepared, refusal).await;
        }
    };
    let ready = make_ready(deps, &prepared, rung.mode, &verified);
    let ready = match place.until_it_waits(ready).await {
        Err(Refusal::GrantNeedsReconnect(_)) => {
            return Err(Box::pin(reconnect(deps, caller, ask, &prepared)).await);
        }
        Err(Refusal::DecisionRejected(error)) => {
            place.without_turn();
            return Box::pin(rejected(deps, caller, &prepared, error)).await;
        }
        Err(Refusal::NotNarrowed) => {
            place.without_turn();
            let others = Refusal::ModeUnavailable(decided.modes.without(Mode::Token));
            return unless_stale(deps, &prepared, others).await;
        }
        other => other?,
    };
    let lasts = rung.mode != Mode::Execute && !token::fits(ready.row.expires_at, deps.clock.now(), rung.most);
    if lasts {
        place.without_turn();
        if token::forgot_from_ahead(deps, &prepared, &ready).await? {
            return Ok(Try::Again);
        }
        // Postern cannot call this one token back at the end of a shorter lease.
        let others = Refusal::ModeUnavailable(decided.modes.without(rung.mode));
        return unless_stale(deps, &prepared, others).await;
    }
    // Entries are listed by their ids: one that waited for a provider is no older than what came of that.
    let waited = deps.clock.now().since(decided.at) > SOON;
    let verified = match verified.entry() {
        Some(_) if waited => match own(deps, &prepared, ask, &decided) {
            // The clock moved on farther than anybody waits: what was decided then is decided again.
            Err(Refusal::DecisionRejected(_)) => return Ok(Try::Again),
            own => own?,
        },
        _ => verified,
    };
    release(
        deps,
        caller,
        ask,
        prepared,
        decided,
        verified,
        rung,
        ready,
        idempotency,
        place,
    )
    .await
}

/// What a call deserves, by facts that the gate will hold to.
#[expect(clippy::large_enum_variant, reason = "it is taken apart where it is made")]
enum Judged {
    /// Allowed, by this decision.
    Allowed(Decided, VerifiedDecision),
    /// The decision brought along does not hold.
    Rejected(DecisionError),
    /// Policy denies it.
    Denied(Decided),
    /// Allowed, but not in the mode asked for.
    Without(Refusal),
}

/// Decides, signs and verifies: all that takes a processor long, and waits for nothing.
fn judge(deps: &Deps, prepared: &Prepared, ask: &Ask) -> Result<Judged, Refusal> {
    // A decision brought along is checked before anything is evaluated (protocol §6).
    let brought = match &ask.decision {
        Some(unverified) => match decide::check(deps, prepared, ask, unverified) {
            Ok(verified) => Some(verified),
            Err(error) => return Ok(Judged::Rejected(error)),
        },
        None => None,
    };
    let permit = match &brought {
        // A registered engine's allow stands in for the organisation layer's permit, and for nothing else.
        Some(decision) if decision.is_external() => {
            let constraints = &decision.claims().constraints;
            OrgPermit::External {
                modes: constraints.modes,
                max_ttl_s: constraints.max_ttl_s,
            }
        }
        _ => OrgPermit::Policy,
    };
    let decided = decide::evaluate(deps, prepared, ask, &permit)?;
    if decided.evaluation.outcome != Outcome::Allow {
        return Ok(Judged::Denied(decided));
    }
    if let Some(decision) = brought {
        return Ok(Judged::Allowed(decided, decision));
    }
    if let Err(refusal) = decide::choose(ask.mode, decided.modes) {
        return Ok(Judged::Without(refusal));
    }
    let verified = own(deps, prepared, ask, &decided)?;
    Ok(Judged::Allowed(decided, verified))
}

/// The call's own decision. It goes nowhere, and is of no use elsewhere: it is spent by one entry, of this moment, or by none.
fn own(deps: &Deps, prepared: &Prepared, ask: &Ask, decided: &Decided) -> Result<VerifiedDecision, Refusal> {
    let now = deps.clock.now();
    let id = DecisionId::new(now, &*deps.random)?;
    let entry = EntryId::new(now, &*deps.random)?;
    let own = decide::sign(deps, prepared, ask, decided, id, Some(entry))?;
    decide::check_own(deps, prepared, ask, own, entry).map_err(Refusal::DecisionRejected)
}

/// The decision brought along does not hold: that is an entry too.
async fn rejected(
    deps: &Deps,
    caller: Caller,
    prepared: &Prepared,
    error: DecisionError,
) -> Result<Try, Refusal> {
    if !deps.facts.holds(deps, caller.org, prepared.epoch()).await? {
        return Ok(Try::Again);
    }
    match refused::rejection(deps, caller, prepared, error).await? {
        Some(refusal) => Err(refusal),
        None => Ok(Try::Again),
    }
}

/// What is refused on cached facts must be refused on current ones too.
async fn unless_stale(deps: &Deps, prepared: &Prepared, refusal: Refusal) -> Result<Try, Refusal> {
    match actions::stands(deps, prepared.action.org, prepared.epoch(), refusal).await? {
        Some(refusal) => Err(refusal),
        None => Ok(Try::Again),
    }
}

/// The grant needs its person: a link that works.
async fn reconnect(deps: &Deps, caller: Caller, ask: &Ask, prepared: &Prepared) -> Refusal {
    deps.facts.forget(caller.org);
    selection::reconnect_required(
        deps,
        caller,
        ask,
        &prepared.grant.facts.grant,
        &prepared.connector,
    )
    .await
}

struct Rung {
    mode: Mode,
    most: Duration,
}

/// Policy, person, connector, grant and the decision's own constraints intersect; each only narrows.
fn rung(ask: &Ask, decided: &Decided, verified: &VerifiedDecision) -> Result<Rung, Refusal> {
    let constraints = &verified.claims().constraints;
    let modes = match constraints.modes {
        Some(modes) => decided.modes.intersection(modes),
        None => decided.modes,
    };
    let mode = decide::choose(ask.mode, modes)?;
    let most = [
        constraints.max_ttl_s,
        decided.evaluation.max_ttl_s,
        ask.ttl_s,
        Some(3600),
    ]
    .into_iter()
    .flatten()
    .min()
    .unwrap_or(0);
    Ok(Rung {
        mode,
        most: Duration::from_secs(most),
    })
}

async fn make_ready(
    deps: &Arc<Deps>,
    prepared: &Prepared,
    mode: Mode,
    verified: &VerifiedDecision,
) -> Result<Ready, Refusal> {
    if mode != Mode::Token {
        // An engine's scopes narrow every mode: what is used or released must lie within them.
        let used = if mode == Mode::Raw {
            &prepared.grant.facts.grant.scopes
        } else {
            &prepared.scopes
        };
        let within = verified
            .claims()
            .constraints
            .scopes
            .as_ref()
            .is_none_or(|most| used.is_subset(most));
        if verified.is_external() && !within {
            return Err(Refusal::DecisionRejected(DecisionError::UnmetConstraint));
        }
        return token::wide(deps, prepared).await;
    }
    // The decision's scopes only narrow what the tool needs; an empty list means none.
    let scopes = match &verified.claims().constraints.scopes {
        Some(scopes) => prepared.scopes.intersection(scopes),
        None => prepared.scopes.clone(),
    };
    if scopes.is_empty() {
        return Err(Refusal::NotNarrowed);
    }
    token::narrowed(deps, prepared, scopes).await
}

#[expect(
    clippy::too_many_arguments,
    reason = "the one place where everything a release needs comes together"
)]
async fn release(
    deps: &Arc<Deps>,
    caller: Caller,
    ask: &Ask,
    prepared: Prepared,
    decided: Decided,
    verified: VerifiedDecision,
    rung: Rung,
    ready: Ready,
    idempotency: Option<IdempotencyKey>,
    place: &mut Place,
) -> Result<Try, Refusal> {
    let entry = entry_of(deps, &prepared, ask, &decided, &verified, rung.mode, &ready);
    let entry = place.turn_until_it_waits(entry).await?;
    let decision = verified.claims().jti.clone();
    let digest = idempotency.as_ref().map(|key| key.digest.clone());
    let keyed = digest.is_some();
    let release = Release {
        org: caller.org,
        epoch: prepared.epoch(),
        secret: (
            prepared.grant.facts.grant.id,
            ready.kind.clone(),
            ready.row.generation,
        ),
        idempotency,
        entry,
    };
    let passed = deps.gate.release(verified, release).await;
    place.leave();
    let receipt = match passed {
        Ok(receipt) => receipt,
        Err(GateRefusal::Stale) => return Ok(Try::Again),
        Err(GateRefusal::GrantChanged) => {
            // Its tokens were renewed elsewhere, which moves no epoch on.
            deps.facts.forget_grant(caller.org, prepared.action.grant);
            return Ok(Try::Again);
        }
        Err(refusal) => {
            return Err(decide::gate_refusal(deps, caller.org, digest.as_deref(), refusal).await);
        }
    };
    deps.facts.proved(&prepared.agent, Some(&prepared.grant));
    let entry = receipt.entry();
    let mut released = leave(deps, caller, ask, &prepared, &rung, &ready, &receipt, decision).await;
    if keyed {
        let end = released
            .as_ref()
            .map_or_else(idempotency::ended, |_| idempotency::RELEASED);
        idempotency::finish(deps, caller.org, entry, end).await;
    }
    // Waiting for anything since the token was opened counts, with a key or without: nothing leaves on a dead receipt.
    if matches!(released, Ok(Vended::Token { .. }))
        && let Err(dead) = receipt.live()
    {
        let refusal = execute::dropped(deps, &prepared, entry, &dead.into()).await;
        if keyed {
            idempotency::finish(deps, caller.org, entry, idempotency::ended(&refusal)).await;
        }
        released = Err(refusal);
    }
    released.map(|vended| Try::Done(Box::new(vended)))
}

/// The entry of a release: the one that the decision is made out to, if it is.
///
/// # Errors
/// When the org's key is unavailable or the generator fails.
pub async fn entry_of(
    deps: &Deps,
    prepared: &Prepared,
    ask: &Ask,
    decided: &Decided,
    verified: &VerifiedDecision,
    mode: Mode,
    ready: &Ready,
) -> Result<NewEntry, Refusal> {
    let claims = verified.claims();
    let id = match verified.entry() {
        Some(made_for) => made_for,
        None => EntryId::new(deps.clock.now(), &*deps.random)?,
    };
    let mut draft = decide::draft(prepared, ask, decided, None);
    draft.decision = Some(EntryDecision {
        jti: claims.jti.clone(),
        iss: claims.iss.clone(),
        sha256: verified.sha256().to_owned(),
        outcome: claims.outcome,
    });
    draft.mode = Some(mode);
    draft.generation = Some(ready.row.generation);
    let entry = NewEntry {
        id,
        kind: EntryType::Release,
        draft,
        sealed: None,
    };
    decide::sealed(deps, prepared, entry).await
}

/// What leaves on the receipt.
#[expect(
    clippy::too_many_arguments,
    reason = "the one place where everything a release needs comes together"
)]
async fn leave(
    deps: &Arc<Deps>,
    caller: Caller,
    ask: &Ask,
    prepared: &Prepared,
    rung: &Rung,
    ready: &Ready,
    receipt: &AuditReceipt,
    decision: String,
) -> Result<Vended, Refusal> {
    let entry = receipt.entry();
    if rung.mode == Mode::Execute {
        let answer = match Box::pin(execute::run(deps, prepared, receipt, ready)).await {
            Err(Refusal::GrantNeedsReconnect(_)) => {
                return Err(Box::pin(reconnect(deps, caller, ask, prepared)).await);
            }
            other => other?,
        };
        return Ok(Vended::Executed {
            answer,
            decision,
            entry,
        });
    }
    let grant = &prepared.grant.facts.grant;
    let token = match open::access_token(receipt, &ready.key, grant, &ready.kind) {
        Ok(token) => token,
        Err(error) => return Err(execute::dropped(deps, prepared, entry, &error).await),
    };
    Failpoint::TokenOpened.reached();
    Ok(Vended::Token {
        token,
        expires_at: ready.row.expires_at,
        scopes: ready.row.scopes.clone().unwrap_or_else(|| grant.scopes.clone()),
        narrowed: ready.narrowed,
        decision,
        entry,
    })
}

/// An entry's id is made this long before its commit is begun at most, but for what stands in line.
const SOON: Duration = Duration::from_secs(1);
