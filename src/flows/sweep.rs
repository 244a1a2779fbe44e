//! What time does by itself: sessions, quarantines and calls that come to no end get one.

use std::sync::Arc;

use crate::domain::{
    EntryId, OrgId,
    entry::{Entry, EntryDraft, EntryType},
    grant::GrantState,
};

use super::{Deps, Refusal, connect::discard, record, revoke::OUTCOME_DUE, upstream};

/// Ends what is overdue; returns how many things it ended.
///
/// # Errors
/// When the database is unavailable; what was done stays done.
pub async fn run(deps: &Arc<Deps>) -> Result<u64, Refusal> {
    let mut ended = u64::try_from(discard::overdue(deps).await?).unwrap_or(u64::MAX);
    ended += unknown_outcomes(deps).await?;
    ended += quarantine(deps).await?;
    let mut tx = deps.store.write().await?;
    ended += tx.sweep_spent().await?;
    tx.commit().await?;
    deps.keyring.sweep();
    Ok(ended)
}

/// A call that was sent and whose outcome nobody recorded is `unknown` after five minutes.
async fn unknown_outcomes(deps: &Deps) -> Result<u64, Refusal> {
    let mut tx = deps.store.read().await?;
    let before = tx.now() - OUTCOME_DUE;
    let overdue = tx.outcomes_overdue(before, BATCH).await?;
    drop(tx);
    let mut written = 0;
    for (org, id, bytes) in overdue {
        write_unknown(deps, org, id, &bytes).await?;
        written += 1;
    }
    Ok(written)
}

async fn write_unknown(deps: &Deps, org: OrgId, id: EntryId, bytes: &str) -> Result<(), Refusal> {
    let release: Option<Entry> = serde_json::from_str(bytes).ok();
    let draft = EntryDraft {
        user: release.as_ref().and_then(|entry| entry.draft.user),
        agent: release.as_ref().and_then(|entry| entry.draft.agent),
        grant: release.as_ref().and_then(|entry| entry.draft.grant),
        connector: release.as_ref().and_then(|entry| entry.draft.connector.clone()),
        tool: release.and_then(|entry| entry.draft.tool),
        outcome: Some("unknown".to_owned()),
        reason: Some("not_recorded".to_owned()),
        correlation: Some(id.to_string()),
        ..EntryDraft::default()
    };
    let mut tx = deps.store.write().await?;
    tx.finish_idempotency(org, id, 504, "outcome_unknown").await?;
    tx.append_entry(org, record::open(deps, EntryType::Outcome, draft)?)
        .await?;
    Ok(tx.commit().await?)
}

/// A grant that was wider than asked and that nobody reconnected is ended at the provider.
async fn quarantine(deps: &Deps) -> Result<u64, Refusal> {
    let over = deps.store.read().await?.quarantine_over(BATCH).await?;
    let mut ended = 0;
    for seen in over {
        let mut tx = deps.store.write().await?;
        let now = tx.now();
        // Read again in the transaction that buries it: it may have been reconnected meanwhile.
        let Some(mut grant) = tx.grant(seen.org, seen.id).await? else {
            continue;
        };
        if !matches!(grant.state, GrantState::Quarantined { until } if until <= now) {
            continue;
        }
        grant.state = GrantState::Revoked { at: now };
        tx.bury_grant(&grant, &upstream::outbox_row(&grant, now)).await?;
        let draft = EntryDraft {
            user: Some(grant.user),
            grant: Some(grant.id),
            connector: Some(grant.connector.clone()),
            outcome: Some("discarded".to_owned()),
            reason: Some("quarantine_over".to_owned()),
            ..EntryDraft::default()
        };
        tx.append_entry(grant.org, record::open(deps, EntryType::Connect, draft)?)
            .await?;
        tx.commit().await?;
        ended += 1;
    }
    Ok(ended)
}

const BATCH: u64 = 100;
