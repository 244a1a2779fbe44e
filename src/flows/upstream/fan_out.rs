//! What follows a revocation, grant by grant: the tombstone and a place in the outbox. In steps, each a transaction of its
//! own, so that a fan-out over very many grants stops nobody else's work, can stop anywhere and goes on from there.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use crate::{
    connectors::oauth::TokenToEnd,
    domain::{
        OrgId, RevocationId, Time,
        connector::{ConnectorId, Revoke},
    },
    failpoints::Failpoint,
    flows::{Deps, Refusal, connect::overdue::Ending, walk::Walk},
    store::{ConnectStatus, RevocationRow, Unfinished, UpstreamResult},
};

use super::{GIVE_UP, can_revoke, outbox_row};

/// Writes tombstones for what was revoked, queues every grant and ends the connects that were under way; returns how
/// many grants were queued. The revocations take turns, so that a large one does not hold up a small one.
///
/// # Errors
/// When the database is unavailable; what was done stays done, the rest follows on the next call.
pub async fn fan_out(deps: &Deps) -> Result<usize, Refusal> {
    let mut paces: HashMap<RevocationId, Pace> = HashMap::new();
    // Nothing but connects that have to wait keeps these from their end: they are not looked at twice.
    let mut waiting: HashSet<RevocationId> = HashSet::new();
    let (mut walk, mut ending) = (Walk::default(), Ending::default());
    let (mut queued, mut before) = (0, 0);
    loop {
        let after = walk.after();
        let page = deps.store.due().await?.revocations(after, IN_TURN).await?;
        for &Unfinished { org, id, .. } in &page {
            if deps.uncut.is_stopping() {
                return Ok(queued);
            }
            if waiting.contains(&id) {
                continue;
            }
            match step(deps, org, id, paces.entry(id).or_default(), &mut ending).await {
                Ok(Step { buried, waits }) => {
                    queued += buried;
                    if waits {
                        waiting.insert(id);
                    }
                }
                // What cannot be done yet must not hold up the other revocations.
                Err(refusal) => {
                    tracing::warn!(revocation.id = %id, cause = %refusal, "the fan-out of {id} has to wait");
                }
            }
        }
        if walk.passed(&page, IN_TURN) {
            if queued == before {
                return Ok(queued);
            }
            before = queued;
        }
    }
}

/// The first step of one revocation at once, so that what is shown next names its grants. The worker does the rest.
///
/// # Errors
/// When the database is unavailable.
pub async fn bury_now(deps: &Deps, org: OrgId, id: RevocationId) -> Result<(), Refusal> {
    step(deps, org, id, &mut Pace::default(), &mut Ending::default())
        .await
        .map(drop)
}

/// What a step came to.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// How many grants were buried.
    buried: usize,
    /// All are, and connects that the revocation covers have to wait.
    waits: bool,
}

/// Buries some of a revocation's grants; after the last of them, ends its connects.
async fn step(
    deps: &Deps,
    org: OrgId,
    id: RevocationId,
    pace: &mut Pace,
    ending: &mut Ending,
) -> Result<Step, Refusal> {
    let mut step = Step {
        buried: 0,
        waits: false,
    };
    let mut tx = deps.store.read(org).await?;
    let Some(revocation) = tx.revocation(org, id).await? else {
        return Ok(step);
    };
    // Where only connects are left, nobody has to wait for a transaction that writes nothing.
    let is_buried = tx.grants_to_bury(org, &revocation, 1).await?.is_empty();
    drop(tx);
    if !is_buried {
        let buried = deps.store.retry(|| bury(deps, org, &revocation, pace.clone()));
        (step.buried, *pace) = buried.await?;
    }
    if step.buried == usize::try_from(STEP).unwrap_or(usize::MAX) {
        return Ok(step);
    }
    step.waits = !end_connects(deps, org, &revocation, ending).await?;
    if !step.waits {
        let finish = deps.store.retry(|| async {
            let mut tx = deps.store.write(org).await?;
            tx.finish_fan_out(org, id).await?;
            tx.commit().await
        });
        finish.await?;
    }
    Ok(step)
}

async fn bury(
    deps: &Deps,
    org: OrgId,
    revocation: &RevocationRow,
    mut pace: Pace,
) -> Result<(usize, Pace), Refusal> {
    let mut tx = deps.store.write(org).await?;
    let grants = tx.grants_to_bury(org, revocation, STEP).await?;
    for (grant, refresh, access) in &grants {
        let revoke = deps
            .catalogue
            .get(&grant.connector)
            .filter(|connector| can_revoke(connector))
            .map(|connector| &connector.revoke);
        let mut outbox = outbox_row(grant, tx.now());
        outbox.revocation = Some(revocation.id);
        match revoke {
            Some(revoke) => {
                let requests = requests_for(revoke, *refresh, *access);
                outbox.due_at = pace.next(&grant.connector, revoke.per_second, requests, tx.now());
            }
            None => outbox.result = UpstreamResult::Unsupported,
        }
        outbox.give_up_at = outbox.due_at + GIVE_UP;
        tx.bury_grant(grant, &outbox).await?;
        if revoke.is_none() {
            tx.shred_secrets(org, grant.id).await?;
        }
    }
    Failpoint::FanOutBurying.reached();
    tx.commit().await?;
    Failpoint::FanOutBuried.reached();
    Ok((grants.len(), pace))
}

/// How often the provider is asked to end so many tokens.
fn requests_for(revoke: &Revoke, refresh: u64, access: u64) -> u64 {
    let sent = |is_refresh, tokens| {
        if TokenToEnd::is_sent(revoke, is_refresh) {
            tokens
        } else {
            0
        }
    };
    sent(true, refresh) + sent(false, access)
}

/// When each of a revocation's grants is due at its provider: not all at once, but as fast as the provider is asked at
/// all, once for each token that it takes. What somebody else revokes meanwhile is then due among them and not behind the last.
#[derive(Debug, Default, Clone)]
struct Pace(HashMap<ConnectorId, Time>);

impl Pace {
    fn next(&mut self, connector: &ConnectorId, per_second: u32, requests: u64, now: Time) -> Time {
        // The first second's worth is due at once.
        let behind = self.0.entry(connector.clone()).or_insert(now - SECOND);
        // A grant for which nothing is sent takes its turn as well.
        let requests = u32::try_from(requests).unwrap_or(u32::MAX).max(1);
        *behind = (*behind).max(now - SECOND) + SECOND / per_second.max(1) * requests;
        now.max(*behind)
    }
}

/// Ends the connects a revocation covers: tokens that wait for their person go to the outbox. `false` while some have to
/// wait.
async fn end_connects(
    deps: &Deps,
    org: OrgId,
    revocation: &RevocationRow,
    ending: &mut Ending,
) -> Result<bool, Refusal> {
    let mut waiting = 0;
    loop {
        let connects = deps
            .store
            .read(org)
            .await?
            .connects_to_end(org, revocation, waiting, STEP)
            .await?;
        // Without its key, one look at an org's connects is enough to know that they have to wait. Links that nobody followed
        // wait with them; they lead to nothing.
        if connects.is_empty() || waiting > 0 && ending.is_keyless(org) {
            return Ok(waiting == 0);
        }
        for (id, status) in connects {
            if deps.uncut.is_stopping() {
                return Ok(false);
            }
            // Its tokens are on their way here: they are ended once they have come.
            if status == ConnectStatus::Exchanging || ending.end(deps, org, id).await.is_none() {
                waiting += 1;
            }
        }
    }
}

/// Revocations that are looked up at a time.
const IN_TURN: u64 = 256;
/// Grants buried in one transaction: the gate may have to wait for it.
const STEP: u64 = 100;
const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::connector::{RevokeAccepts, RevokeHow};

    #[test]
    fn what_the_provider_does_not_take_is_no_request() {
        let mut revoke = Revoke {
            how: RevokeHow::Call,
            ..Revoke::default()
        };
        for (accepts, requests) in [
            (None, 3),
            (Some(RevokeAccepts::Access), 2),
            (Some(RevokeAccepts::Refresh), 1),
        ] {
            revoke.accepts = accepts;
            assert_eq!(requests_for(&revoke, 1, 2), requests, "{accepts:?}");
        }
    }

    #[test]
    fn a_fan_out_is_due_as_fast_as_the_provider_is_asked() {
        let now = Time::from_unix_seconds(1_800_000_000);
        let (mail, chat) = ("acme-mail".parse().unwrap(), "slack".parse().unwrap());
        let mut pace = Pace::default();
        let due: Vec<_> = (0..25).map(|_| pace.next(&mail, 10, 1, now).since(now)).collect();
        assert_eq!(due[9], Duration::ZERO);
        assert_eq!(due[10], Duration::from_millis(100));
        assert_eq!(due[24], Duration::from_millis(1500));
        assert_eq!(
            pace.next(&chat, 10, 1, now),
            now,
            "each provider has its own pace"
        );
        let three = pace.next(&mail, 10, 3, now).since(now);
        assert_eq!(three, Duration::from_millis(1800), "each request takes its time");
        let none = pace.next(&mail, 10, 0, now).since(now);
        assert_eq!(none, Duration::from_millis(1900));
        let later = now + Duration::from_secs(60);
        assert_eq!(
            pace.next(&mail, 10, 1, later),
            later,
            "and none is behind for ever"
        );
    }
}
