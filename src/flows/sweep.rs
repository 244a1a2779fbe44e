//! What time does by itself: sessions, quarantines and calls that come to no end get one.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::{
    domain::{
        EntryId, GrantId, OrgId, Time,
        entry::{Entry, EntryDraft, EntryType},
        grant::GrantState,
    },
    store::Outlived,
};

use super::{
    Deps, Refusal,
    connect::overdue::Ending,
    idempotency::REMEMBERED,
    record, refused,
    revoke::OUTCOME_DUE,
    upstream,
    walk::{Walk, begin_anywhere},
};

/// Ends what is overdue; returns how many things it ended. What cannot be ended keeps nothing else from its end, as long as
/// there is a database.
///
/// # Errors
/// When something has to wait for the database; what was done stays done.
pub async fn run(deps: &Arc<Deps>) -> Result<u64, Refusal> {
    deps.keyring.sweep();
    let mut ended = refused::sum_up(deps, false).await;
    let mut failed = None;
    let rows = Outlived::ALL.map(Overdue::Rows);
    // Rows come last: there may be very many.
    for overdue in [
        Overdue::Calls,
        Overdue::Quarantines,
        Overdue::Keys,
        Overdue::Connects,
    ]
    .into_iter()
    .chain(rows)
    {
        match overdue.end(deps).await {
            Ok(more) => ended += more,
            Err(refusal) if refusal.is_outage() => return Err(refusal),
            Err(refusal) if failed.is_none() => failed = Some(refusal),
            Err(refusal) => tracing::warn!(cause = %refusal, "something overdue has to wait"),
        }
    }
    failed.map_or(Ok(ended), Err)
}

/// What may be overdue.
#[derive(Debug, Clone, Copy)]
enum Overdue {
    Calls,
    Quarantines,
    Keys,
    Connects,
    Rows(Outlived),
}

impl Overdue {
    async fn end(self, deps: &Deps) -> Result<u64, Refusal> {
        match self {
            Self::Calls => calls(deps).await,
            Self::Quarantines => quarantines(deps).await,
            Self::Keys => keys(deps).await,
            Self::Connects => connects(deps).await,
            Self::Rows(what) => outlived(deps, what).await,
        }
    }
}

async fn calls(deps: &Deps) -> Result<u64, Refusal> {
    let mut due = deps.store.due().await?;
    let before = due.now() - OUTCOME_DUE;
    let calls = due.outcomes(before, BATCH).await?;
    drop(due);
    let mut ended = 0;
    for (org, id) in calls {
        ended += counted(org, deps.store.retry(|| unknown_outcome(deps, org, id)).await);
    }
    Ok(ended)
}

async fn quarantines(deps: &Deps) -> Result<u64, Refusal> {
    let quarantines = deps.store.due().await?.quarantines(BATCH).await?;
    let mut ended = 0;
    for (org, id) in quarantines {
        ended += counted(org, deps.store.retry(|| quarantine_over(deps, org, id)).await);
    }
    Ok(ended)
}

/// Removes rows that have outlived their purpose, a step of each org in turn: one that has very many keeps no other waiting, and
/// who writes beside it waits for a step and not for all of it. What is left after some time is the next look's.
async fn outlived(deps: &Deps, what: Outlived) -> Result<u64, Refusal> {
    let until = deps.clock.since_boot() + LONGEST_LOOK;
    let mut orgs: Vec<OrgId> = Vec::new();
    let mut walk = Walk::default();
    loop {
        let page = deps
            .store
            .due()
            .await?
            .orgs_to_sweep(what, walk.after(), PAGE)
            .await?;
        orgs.extend(&page);
        if walk.passed(&page, PAGE) {
            break;
        }
    }
    // Those in front may have more every time than there is time for.
    begin_anywhere(&mut orgs, &*deps.random)?;
    let (mut orgs, mut gone) = (VecDeque::from(orgs), 0);
    while let Some(org) = orgs.pop_front() {
        let step = deps.store.retry(|| deps.store.sweep(org, what)).await;
        let step = counted(org, step.map_err(Refusal::from));
        gone += step;
        if step >= Outlived::STEP {
            orgs.push_back(org);
        }
        if deps.clock.since_boot() >= until {
            break;
        }
        tokio::task::yield_now().await;
    }
    Ok(gone)
}

/// Ends the idempotency keys of calls of which nobody will say any more how they ended: their process died, or the commit
/// was never confirmed. What was sent has a row among the open calls, which ends its key; a token has none.
async fn keys(deps: &Deps) -> Result<u64, Refusal> {
    let (mut ended, mut waiting) = (0, 0);
    loop {
        let mut due = deps.store.due().await?;
        let until = due.now() + REMEMBERED - KEY_DUE;
        let keys = due.unfinished_keys(until, waiting, BATCH).await?;
        drop(due);
        if keys.is_empty() || ended >= BATCH {
            return Ok(ended);
        }
        let mut orgs: BTreeMap<OrgId, Vec<EntryId>> = BTreeMap::new();
        for (org, id) in keys {
            orgs.entry(org).or_default().push(id);
        }
        for (org, ids) in orgs {
            match counted(org, deps.store.retry(|| give_up(deps, org, &ids)).await) {
                0 => waiting += ids.len() as u64,
                moved => ended += moved,
            }
        }
    }
}

/// Ends connects past their time. Those that cannot be ended stay the first in the line: who is behind them has its turn.
async fn connects(deps: &Deps) -> Result<u64, Refusal> {
    let (mut ended, mut waiting) = (0, 0);
    let mut ending = Ending::default();
    loop {
        let connects = deps.store.due().await?.connects(waiting, BATCH).await?;
        if connects.is_empty() || ended >= BATCH {
            return Ok(ended);
        }
        for (org, id) in connects {
            match ending.end(deps, org, id).await {
                None | Some(0) => waiting += 1,
                Some(moved) => ended += moved,
            }
        }
    }
}

/// Ends what an earlier process left under way, if no other process can be: it will not come to its end any more. A caller
/// that repeats its key then learns at once that the outcome is unknown.
///
/// # Errors
/// When the database is unavailable.
pub async fn earlier_life(deps: &Deps) -> Result<(), Refusal> {
    if !deps.store.is_alone() {
        return Ok(());
    }
    loop {
        let mut due = deps.store.due().await?;
        let calls = due.outcomes(due.now() + OUTCOME_DUE, BATCH).await?;
        // However late: a clock that was ahead may have begun them.
        let keys = due.unfinished_keys(LAST, 0, BATCH).await?;
        drop(due);
        if calls.is_empty() && keys.is_empty() {
            return Ok(());
        }
        let mut ended = 0;
        for (org, id) in calls {
            ended += unknown_outcome(deps, org, id).await?;
        }
        for (org, id) in keys {
            ended += give_up(deps, org, &[id]).await?;
        }
        // What cannot be ended, as a call whose entry is missing, is found again every time.
        if ended == 0 {
            return Ok(());
        }
    }
}

/// What cannot be ended waits for the next look; it must not hold up what is due beside it, nor another org's.
fn counted(org: OrgId, done: Result<u64, Refusal>) -> u64 {
    done.unwrap_or_else(|refusal| {
        tracing::warn!(org.id = %org, cause = %refusal, "something overdue in {org} has to wait");
        0
    })
}

/// Ends keys of one org that still say nothing.
async fn give_up(deps: &Deps, org: OrgId, ids: &[EntryId]) -> Result<u64, Refusal> {
    let mut tx = deps.store.write(org).await?;
    let mut ended = 0;
    for id in ids {
        ended += u64::from(tx.give_up_idempotency(org, *id).await?);
    }
    tx.commit().await?;
    Ok(ended)
}

/// A call that was sent and whose outcome nobody recorded is `unknown` after five minutes.
async fn unknown_outcome(deps: &Deps, org: OrgId, id: EntryId) -> Result<u64, Refusal> {
    let mut tx = deps.store.write(org).await?;
    if !tx.close_call(org, id).await? {
        return Ok(0);
    }
    let Some(row) = tx.entry(org, id).await? else {
        return Ok(0);
    };
    let release: Option<Entry> = serde_json::from_str(&row.bytes).ok();
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
    tx.finish_idempotency(org, id, 504, "outcome_unknown").await?;
    tx.append_entry(org, record::open(deps, EntryType::Outcome, draft)?)
        .await?;
    tx.commit().await?;
    Ok(1)
}

/// A grant that was wider than asked and that nobody reconnected is ended at the provider.
async fn quarantine_over(deps: &Deps, org: OrgId, id: GrantId) -> Result<u64, Refusal> {
    let mut tx = deps.store.write(org).await?;
    let now = tx.now();
    // Read in the transaction that buries it: it may have been reconnected meanwhile.
    let Some(mut grant) = tx.grant(org, id).await? else {
        return Ok(0);
    };
    if !matches!(grant.state, GrantState::Quarantined { until } if until <= now) {
        return Ok(0);
    }
    grant.state = GrantState::Revoked { at: now };
    tx.bury_grant(&grant, &upstream::outbox_row(&grant, now)).await?;
    let draft = EntryDraft {
        user: Some(grant.user),
        grant: Some(id),
        connector: Some(grant.connector.clone()),
        outcome: Some("discarded".to_owned()),
        reason: Some("quarantine_over".to_owned()),
        ..EntryDraft::default()
    };
    tx.append_entry(org, record::open(deps, EntryType::Connect, draft)?)
        .await?;
    tx.commit().await?;
    Ok(1)
}

const BATCH: u64 = 100;
/// Orgs with rows to remove, read at a time.
const PAGE: u64 = 1000;
/// How long one look removes rows of one kind: a process that is to end waits for no more.
const LONGEST_LOOK: Duration = Duration::from_secs(2);
/// A key is taken before its entry is made, but by no more than a request may last (`http::router`): whoever waited longer
/// was told that the outcome is unknown. From there on it is given the time that a call without an outcome is given.
const KEY_DUE: Duration = OUTCOME_DUE.saturating_add(Duration::from_secs(120));
/// Later than any time a row bears.
const LAST: Time = Time::from_unix_micros(i64::MAX);
