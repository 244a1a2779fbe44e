//! Idempotency keys: the same key gives the same outcome (I15). What a record means is said here and nowhere else,
//! whether it was there before or another call won the race for it.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    domain::{EntryId, OrgId, random_pause},
    store::{IdempotencyKey, IdempotencyRecord, StoreError},
};

use super::{
    Deps, Refusal,
    actions::{Ask, Caller},
    record,
};

/// The key of a vend, if its caller gave one.
#[must_use]
pub fn key(deps: &Deps, caller: Caller, ask: &Ask) -> Option<IdempotencyKey> {
    let (key, digest) = ask.idempotency.clone()?;
    Some(IdempotencyKey {
        principal: caller.agent.to_string(),
        route: "vend",
        key,
        digest,
        ended: None,
        keep_until: deps.clock.now() + REMEMBERED,
    })
}

/// Refuses a call whose key was used before, with what that call came to.
///
/// # Errors
/// What the earlier call came to.
pub async fn unused(deps: &Deps, caller: Caller, key: Option<&IdempotencyKey>) -> Result<(), Refusal> {
    let Some(key) = key else { return Ok(()) };
    let mut tx = deps.store.read(caller.org).await?;
    let record = tx
        .idempotency(caller.org, &key.principal, key.route, &key.key)
        .await?;
    drop(tx);
    match record {
        None => Ok(()),
        Some(record) => Err(again(deps, caller.org, &key.digest, &record).await),
    }
}

/// What a key's record is to a call that comes with the key and a body of this digest.
pub async fn again(deps: &Deps, org: OrgId, digest: &str, record: &IdempotencyRecord) -> Refusal {
    let entry = record.entry;
    if record.digest != digest {
        return Refusal::IdempotencyConflict { entry };
    }
    match (record.status, record.code.as_deref()) {
        (None, _) => Refusal::InProgress { entry },
        (Some(403), Some("denied")) => denial(deps, org, entry).await.unwrap_or_else(|refusal| refusal),
        (Some(504), _) => Refusal::OutcomeUnknown { entry: Some(entry) },
        (Some(status), _) => Refusal::AlreadyReleased { entry, status },
    }
}

/// A denial stays that denial: the one its entry keeps.
async fn denial(deps: &Deps, org: OrgId, id: EntryId) -> Result<Refusal, Refusal> {
    let row = deps
        .store
        .read(org)
        .await?
        .entry(org, id)
        .await?
        .ok_or(Refusal::NotFound)?;
    let (entry, details) = record::read(deps, &row).await?;
    Ok(Refusal::Denied {
        reason: entry.draft.reason.unwrap_or_else(|| "not_permitted".to_owned()),
        message: details.and_then(|details| details.model_message),
        decision: entry.draft.decision.map(|decision| decision.jti),
        entry: Some(id),
    })
}

/// Records how the call of a key ended: the last thing before its answer. Where the database does not answer it goes on
/// being tried: whoever repeats the key would be told for minutes that the call still runs, and then that its outcome is unknown.
pub(super) async fn finish(deps: &Arc<Deps>, org: OrgId, entry: EntryId, end: (u16, &'static str)) {
    if finished(deps, org, entry, end).await.is_ok() {
        return;
    }
    tracing::warn!(entry.id = %entry, "the idempotency key of {entry} could not be finished yet");
    let deps = Arc::clone(deps);
    tokio::spawn(async move {
        // The tries are tokio's time, so their end is too: each may take longer than the pause before it.
        let until = Instant::now() + TRIED_FOR;
        while Instant::now() < until {
            let more = random_pause(PAUSE, &*deps.random).unwrap_or(PAUSE);
            tokio::time::sleep(LEAST_PAUSE + more).await;
            if finished(&deps, org, entry, end).await.is_ok() {
                return;
            }
        }
        tracing::error!(entry.id = %entry, "the idempotency key of {entry} could not be finished");
    });
}

async fn finished(
    deps: &Deps,
    org: OrgId,
    entry: EntryId,
    (status, code): (u16, &str),
) -> Result<(), StoreError> {
    deps.store
        .retry(|| async {
            let mut tx = deps.store.write(org).await?;
            tx.finish_idempotency(org, entry, status, code).await?;
            tx.commit().await
        })
        .await
}

/// The status and code a refusal has outside, to be recorded. `http::refusal` answers the same; a test compares them.
#[must_use]
pub fn ended(refusal: &Refusal) -> (u16, &'static str) {
    match refusal {
        Refusal::InvalidRequest(_) => (400, "invalid_request"),
        Refusal::InvalidArgs(_) => (400, "invalid_args"),
        Refusal::Unauthenticated => (401, "unauthenticated"),
        Refusal::Denied { .. } => (403, "denied"),
        Refusal::DecisionRejected(_) => (403, "decision_rejected"),
        Refusal::NotFound => (404, "not_found"),
        Refusal::ConnectionRequired(_) => (409, "connection_required"),
        Refusal::ReconnectRequired(_) | Refusal::GrantNeedsReconnect(_) => (409, "reconnect_required"),
        Refusal::AccountSelectionRequired(_) => (409, "account_selection_required"),
        Refusal::DecisionSpent { .. } => (409, "decision_spent"),
        Refusal::IdempotencyConflict { .. } => (409, "idempotency_conflict"),
        Refusal::AlreadyReleased { .. } => (409, "already_released"),
        Refusal::InProgress { .. } => (409, "in_progress"),
        Refusal::Revoked { .. } => (410, "revoked"),
        Refusal::ModeUnavailable(_) | Refusal::NotNarrowed => (422, "mode_unavailable"),
        Refusal::RateLimited(_) => (429, "rate_limited"),
        Refusal::KeyUnavailable => (503, "key_unavailable"),
        Refusal::ProviderUnavailable => (503, "provider_unavailable"),
        Refusal::StoreUnavailable(_) => (503, "store_unavailable"),
        Refusal::Sealed => (503, "sealed"),
        Refusal::Unsettled | Refusal::TooLate => (503, "store_unavailable"),
        Refusal::OutcomeUnknown { .. } => (504, "outcome_unknown"),
        Refusal::Broken => (500, "internal"),
    }
}

/// How a call that released ended.
pub(super) const RELEASED: (u16, &str) = (200, "released");
/// How long a key is remembered (protocol §5).
pub(super) const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// How long to wait at least before each further try to finish a key, and how much longer at most. Often: whoever repeats it
/// when the database is back is to be told how the call ended.
const LEAST_PAUSE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_secs(1);
/// How long it is tried: the last try is over long before the sweeper ends the key ([`OUTCOME_DUE`](super::revoke::OUTCOME_DUE)).
const TRIED_FOR: Duration = Duration::from_secs(120);
