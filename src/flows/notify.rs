//! Telling the operator's webhook where a grant stands whenever that changes: signed (Standard Webhooks), at least once,
//! retried with growing pauses. A message names ids, a state and its reason; never a person's name, never a secret.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use crate::{
    domain::{
        GrantId, OrgId, Time, UserId,
        connector::ConnectorId,
        grant::{Grant, GrantState},
    },
    egress::{Undelivered, Webhook},
    store::{Notice, StoreError},
};

use super::{Deps, Refusal};

/// Tells what is due; returns how many messages arrived.
///
/// # Errors
/// When the database is unavailable.
pub async fn tell(deps: &Arc<Deps>) -> Result<usize, Refusal> {
    let Some(webhook) = &deps.webhook else {
        return Ok(0);
    };
    let due = deps.store.due().await?.notices(BATCH).await?;
    let mut tasks = tokio::task::JoinSet::new();
    for (org, grant) in due {
        let (deps, webhook) = (Arc::clone(deps), Arc::clone(webhook));
        tasks.spawn(async move { tell_one(&deps, &webhook, org, grant).await });
    }
    let mut told = 0;
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok(Ok(arrived)) => told += usize::from(arrived),
            Ok(Err(refusal)) => tracing::warn!(cause = %refusal, "a notice has to wait"),
            Err(_) => tracing::error!("a notice stopped unexpectedly"),
        }
    }
    Ok(told)
}

/// One try; `true` if it arrived.
async fn tell_one(deps: &Deps, webhook: &Webhook, org: OrgId, id: GrantId) -> Result<bool, Refusal> {
    let Some((now, notice, grant)) = deps.store.retry(|| take(deps, org, id)).await? else {
        return Ok(false);
    };
    let sent = match message(&grant, &notice) {
        Some((message, body)) => webhook.send(&message, now, body).await,
        None => Err(Undelivered::Message),
    };
    let arrived = sent.is_ok();
    if let Err(cause) = sent {
        if notice.attempts < GIVE_UP_AFTER {
            tracing::warn!(grant.id = %id, cause = %cause, "the receiver was not told of {id}");
            return Ok(false);
        }
        tracing::error!(grant.id = %id, cause = %cause, "the receiver is not told of {id} any more");
    }
    let ended = deps.store.retry(|| async {
        let mut tx = deps.store.write(org).await?;
        tx.end_notice(org, id, &notice).await?;
        tx.commit().await
    });
    ended.await?;
    Ok(arrived)
}

/// Takes a notice up, with the time and its grant; `None` if there is nothing to tell any more, or another is at it.
async fn take(deps: &Deps, org: OrgId, id: GrantId) -> Result<Option<(Time, Notice, Grant)>, StoreError> {
    let mut tx = deps.store.write(org).await?;
    let now = tx.now();
    let (Some(notice), Some(grant)) = (tx.notice(org, id).await?, tx.grant(org, id).await?) else {
        return Ok(None);
    };
    // Whoever takes it up has the time until the next try for itself.
    if !tx.take_notice(org, id, now + pause(notice.attempts)).await? {
        return Ok(None);
    }
    tx.commit().await?;
    Ok(Some((now, notice, grant)))
}

/// Id and body.
fn message(grant: &Grant, notice: &Notice) -> Option<(String, Vec<u8>)> {
    let reason = match grant.state {
        GrantState::NeedsReconnect { reason } => Some(reason.as_str()),
        _ => None,
    };
    let message = Message {
        kind: "grant.state_changed",
        timestamp: notice.at,
        data: Changed {
            org: grant.org,
            grant: grant.id,
            user: grant.user,
            connector: &grant.connector,
            state: grant.state.as_str(),
            reason,
        },
    };
    let body = serde_json::to_vec(&message).ok()?;
    Some((format!("{}.{}", grant.id, notice.changes), body))
}

/// Standard Webhooks, "payload structure".
#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: Time,
    data: Changed<'a>,
}

#[derive(Serialize)]
struct Changed<'a> {
    org: OrgId,
    grant: GrantId,
    user: UserId,
    connector: &'a ConnectorId,
    state: &'static str,
    reason: Option<&'static str>,
}

/// Longer than the client waits for an answer, then doubling up to six hours.
fn pause(attempts: u64) -> Duration {
    let doublings = u32::try_from(attempts.min(8)).unwrap_or(8);
    (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
}

/// Messages under way at a time.
const BATCH: u64 = 16;
const FIRST_PAUSE: Duration = Duration::from_secs(150);
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);
/// About three days.
const GIVE_UP_AFTER: u64 = 18;
