//! Questions whose answer nobody knows: their asker died, or the answer was lost on its way. They are asked again at once,
//! whether or not anybody wants the token: a provider takes the old refresh token for a while only (I3).

use std::sync::Arc;

use crate::{
    domain::{GrantId, OrgId, grant::GrantState},
    failpoints::Failpoint,
    flows::{Deps, Refusal},
};

use super::{Want, ensure};

/// Asks again what is in doubt and not being asked; returns how many questions it took up. Does not wait for answers.
///
/// # Errors
/// When the database is unavailable.
pub async fn ask_again(deps: &Arc<Deps>) -> Result<usize, Refusal> {
    if deps.uncut.is_stopping() {
        return Ok(0);
    }
    let due = deps.store.due().await?.refreshes_in_doubt(BATCH).await?;
    let count = due.len();
    for (org, grant) in due {
        Failpoint::DoubtFound.reached();
        let deps = Arc::clone(deps);
        // One provider that does not answer must not hold up the others' grants.
        tokio::spawn(async move {
            if let Err(refusal) = settle(&deps, org, grant).await {
                tracing::debug!(grant.id = %grant, cause = %refusal, "what was asked for {grant} stays in doubt");
            }
        });
    }
    Ok(count)
}

/// Settles one doubt, by asking again or by finding that it makes no difference.
///
/// # Errors
/// When the provider, the key service or the database refuses.
pub async fn settle(deps: &Arc<Deps>, org: OrgId, id: GrantId) -> Result<(), Refusal> {
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
            let mut tx = deps.store.write(org).await?;
            tx.forget_refresh(org, id).await?;
            Ok(tx.commit().await?)
        }
    }
}

/// Doubts taken up at a time.
const BATCH: u64 = 64;
