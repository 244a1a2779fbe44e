//! Questions whose answer nobody knows: their asker died, or the answer was lost on its way. They are asked again at once,
//! whether or not anybody wants the token: a provider takes the old refresh token for a while only (I3). So they wait in a
//! line of their own, not behind a crowd in which somebody may wait for the same grant.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    domain::{
        GrantId, OrgId,
        grant::{Grant, GrantState},
    },
    failpoints::Failpoint,
    flows::{Deps, Refusal, walk::Walk},
    store::InDoubt,
};

use super::{Line, Want, with_a_place};

/// How far the questions were gone through: those of a provider that does not answer, and those that cannot be asked, keep
/// nobody from the ones behind them. And those that are taken up here.
#[derive(Debug, Default)]
pub struct Doubts {
    walk: Mutex<Walk<InDoubt>>,
    taken: Arc<Mutex<HashSet<GrantId>>>,
}

impl Doubts {
    fn walk(&self) -> MutexGuard<'_, Walk<InDoubt>> {
        locked(&self.walk)
    }

    /// Takes up the question about a grant; `None` if it is taken up already.
    fn take(&self, grant: GrantId) -> Option<Taken> {
        locked(&self.taken).insert(grant).then(|| Taken {
            taken: Arc::clone(&self.taken),
            grant,
        })
    }
}

/// A question that is taken up. Dropping it lets the next look take it up again.
#[derive(Debug)]
struct Taken {
    taken: Arc<Mutex<HashSet<GrantId>>>,
    grant: GrantId,
}

impl Drop for Taken {
    fn drop(&mut self) {
        locked(&self.taken).remove(&self.grant);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks again what is in doubt and not being asked, from where it stopped last; returns how many questions it took up. Does
/// not wait for answers.
///
/// # Errors
/// When the database is unavailable.
pub async fn ask_again(deps: &Arc<Deps>) -> Result<usize, Refusal> {
    if deps.uncut.is_stopping() {
        return Ok(0);
    }
    let mut count = 0;
    for _page in 0..PAGES {
        let after = deps.doubts.walk().after();
        let due = deps.store.due().await?.refreshes_in_doubt(after, PAGE).await?;
        let is_last = deps.doubts.walk().passed(&due, PAGE);
        // A flight here that has its place asks itself.
        for doubt in due
            .into_iter()
            .filter(|doubt| !deps.flights.is_placed(doubt.grant) && !deps.store.is_sealed(doubt.org))
        {
            let Some(taken) = deps.doubts.take(doubt.grant) else {
                continue;
            };
            Failpoint::DoubtFound.reached();
            count += 1;
            let deps = Arc::clone(deps);
            // One provider that does not answer must not hold up the others' grants.
            tokio::spawn(async move {
                let _taken = taken;
                let InDoubt { org, grant, .. } = doubt;
                if let Err(refusal) = settle(&deps, org, grant).await {
                    tracing::debug!(grant.id = %grant, cause = %refusal, "what was asked for {grant} stays in doubt");
                }
            });
        }
        if is_last || count >= AT_ONCE {
            break;
        }
    }
    Ok(count)
}

/// Settles one doubt, by asking again or by finding that it makes no difference.
///
/// # Errors
/// When the provider, the key service or the database refuses, or the org is sealed.
pub async fn settle(deps: &Arc<Deps>, org: OrgId, id: GrantId) -> Result<(), Refusal> {
    if deps.store.is_sealed(org) {
        return Err(Refusal::Sealed);
    }
    let mut tx = deps.store.read(org).await?;
    if !tx.is_refresh_in_doubt(org, id).await? {
        // Its asker was alive and has kept the answer since: the token that came is not renewed again.
        return Ok(());
    }
    let grant = tx.grant(org, id).await?;
    drop(tx);
    let at_stake = grant.filter(|grant| {
        let rotates = |connector| {
            deps.catalogue
                .get(connector)
                .is_some_and(|known| known.refresh.rotates)
        };
        grant.state == GrantState::Active && rotates(&grant.connector)
    });
    match at_stake {
        Some(grant) => {
            Failpoint::DoubtTaken.reached();
            renew(deps, grant).await?;
            Failpoint::DoubtSettled.reached();
            Ok(())
        }
        None => {
            let forget = deps.store.retry(|| async {
                let mut tx = deps.store.write(org).await?;
                tx.forget_refresh(org, id).await?;
                tx.commit().await
            });
            Ok(forget.await?)
        }
    }
}

/// Renews a grant's token, beside whoever waits in the crowd to do so and finds it then. In a task of its own, as any rotation.
///
/// INVARIANT: I4; this is no flight, so what keeps it and one from both asking is the lease. Whoever comes second finds it
/// held, or another generation than the one it read.
async fn renew(deps: &Arc<Deps>, grant: Grant) -> Result<(), Refusal> {
    let deps = Arc::clone(deps);
    tokio::spawn(async move {
        let connector = deps.catalogue.get(&grant.connector).ok_or(Refusal::NotFound)?;
        let (line, than) = (Line::Urgent, Some(grant.generation));
        let want = Want::Renewed { than };
        let place = deps.flights.place_in(line, connector).await;
        let renewed = Box::pin(with_a_place(&deps, &grant, &want, connector, line, place)).await;
        if matches!(renewed, Ok(_) | Err(Refusal::GrantNeedsReconnect(_))) {
            deps.flights.tell(grant.id);
        }
        Failpoint::RefreshLanded.reached();
        renewed.map(drop)
    })
    .await
    .unwrap_or(Err(Refusal::Broken))
}

/// Doubts looked at in one statement.
const PAGE: u64 = 64;
/// How many such statements a look may take.
const PAGES: usize = 64;
/// Once so many are taken up, the others are the next look's.
const AT_ONCE: usize = 64;
