//! Questions whose answer nobody knows: their asker died, or the answer was lost on its way. They are asked again at once,
//! whether or not anybody wants the token: a provider takes the old refresh token for a while only (I3).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{
    domain::{GrantId, OrgId, grant::GrantState},
    failpoints::Failpoint,
    flows::{Deps, Refusal, walk::Walk},
    store::InDoubt,
};

use super::{Want, ensure};

/// How far the questions were gone through: those of a provider that does not answer, and those that cannot be asked, keep
/// nobody from the ones behind them.
#[derive(Debug, Default)]
pub struct Doubts(Mutex<Walk<InDoubt>>);

impl Doubts {
    fn walk(&self) -> MutexGuard<'_, Walk<InDoubt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        // One that waits here for its turn to be asked is taken up already.
        for doubt in due
            .into_iter()
            .filter(|doubt| !deps.flights.is_under_way(doubt.grant) && !deps.store.is_sealed(doubt.org))
        {
            Failpoint::DoubtFound.reached();
            count += 1;
            let deps = Arc::clone(deps);
            // One provider that does not answer must not hold up the others' grants.
            tokio::spawn(async move {
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
            let than = Some(grant.generation);
            Failpoint::DoubtTaken.reached();
            ensure(deps, &grant, Want::Renewed { than }).await?;
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

/// Doubts looked at in one statement.
const PAGE: u64 = 64;
/// How many such statements a look may take.
const PAGES: usize = 64;
/// Once so many are taken up, the others are the next look's.
const AT_ONCE: usize = 64;
