//! Questions whose answer nobody knows: their asker died, or the answer was lost on its way. They are asked again at once,
//! whether or not anybody wants the token: a provider takes the old refresh token for a while only (I3). So they wait in a
//! line of their own, not behind a crowd in which somebody may wait for the same grant.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
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

use super::{Line, Want, says_binding_changed, with_a_place};

/// How far the questions were gone through: those of a provider that does not answer, and those that cannot be asked, keep
/// nobody from the ones behind them. And those that are taken up here.
#[derive(Debug, Default)]
pub struct Doubts {
    walk: Mutex<Walk<InDoubt>>,
    taken: Arc<Mutex<HashSet<GrantId>>>,
    /// Until when those of which nobody can be asked here are passed over, by the time since the boot.
    idle: Mutex<HashMap<GrantId, Duration>>,
}

impl Doubts {
    fn walk(&self) -> MutexGuard<'_, Walk<InDoubt>> {
        locked(&self.walk)
    }

    /// Passes over a question for a while. Those for which there is no room are looked at each time.
    fn pass_over(&self, grant: GrantId, now: Duration) {
        let mut idle = locked(&self.idle);
        if idle.len() >= MOST_IDLE {
            idle.retain(|_, until| *until > now);
        }
        if idle.len() < MOST_IDLE {
            idle.insert(grant, now + IDLE_FOR);
        }
    }

    fn is_passed_over(&self, grant: GrantId, now: Duration) -> bool {
        locked(&self.idle).get(&grant).is_some_and(|until| *until > now)
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
    let (mut count, since_boot) = (0, deps.clock.since_boot());
    for _page in 0..PAGES {
        let after = deps.doubts.walk().after();
        let due = deps.store.due().await?.refreshes_in_doubt(after, PAGE).await?;
        let is_last = deps.doubts.walk().passed(&due, PAGE);
        // A flight here that may call asks itself.
        for doubt in due
            .into_iter()
            .filter(|doubt| !deps.flights.is_asking(doubt.grant) && !deps.store.is_sealed(doubt.org))
            .filter(|doubt| !deps.doubts.is_passed_over(doubt.grant, since_boot))
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
    match (at_stake(deps, grant.as_ref()), grant) {
        (AtStake::Something, Some(grant)) => {
            Failpoint::DoubtTaken.reached();
            renew(deps, grant).await?;
            Failpoint::DoubtSettled.reached();
            Ok(())
        }
        (AtStake::Unknown, _) => {
            deps.doubts.pass_over(id, deps.clock.since_boot());
            Ok(())
        }
        _ => {
            let forget = deps.store.retry(|| async {
                let mut tx = deps.store.write(org).await?;
                tx.forget_refresh(org, id).await?;
                tx.commit().await
            });
            Ok(forget.await?)
        }
    }
}

/// Whether a grant may be lost over a question without an answer.
enum AtStake {
    /// It may be, and the provider may be asked.
    Something,
    /// Nothing is, whatever the answer was.
    Nothing,
    /// It may be, and nobody can be asked here and now: another replica may have the connector's file, this one may be given it
    /// back.
    Unknown,
}

fn at_stake(deps: &Deps, grant: Option<&Grant>) -> AtStake {
    let Some(grant) = grant else {
        return AtStake::Nothing;
    };
    let is_active = grant.state == GrantState::Active;
    if !is_active && !says_binding_changed(grant) {
        return AtStake::Nothing;
    }
    match deps.catalogue.get(&grant.connector) {
        Some(connector) if !connector.refresh.rotates => AtStake::Nothing,
        Some(_) if is_active => AtStake::Something,
        Some(_) | None => AtStake::Unknown,
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
/// For how long a question of which nobody can be asked here is passed over.
const IDLE_FOR: Duration = Duration::from_secs(30);
/// How many of these are remembered.
const MOST_IDLE: usize = 100_000;
