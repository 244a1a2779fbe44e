//! The lane of claims: whatever waits is claimed together, one statement and one commit for many grants of an org. The
//! commit under way is the window in which the next batch gathers, as in the gate.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use crate::{domain::OrgId, failpoints::Failpoint};

use super::{Claim, ClaimAsk, Store, StoreError};

/// Where claims are handed in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Claims(mpsc::Sender<Waiting>);

#[derive(Debug)]
struct Waiting {
    org: OrgId,
    ask: ClaimAsk,
    answer: oneshot::Sender<Result<Claim, StoreError>>,
}

impl Claims {
    /// Starts the lane; it ends when nobody can hand anything in any more.
    #[must_use]
    pub fn start(store: Store) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Waiting>(QUEUE);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(BATCH);
            while waiting.recv_many(&mut batch, BATCH).await > 0 {
                let mut orgs: BTreeMap<OrgId, Vec<Waiting>> = BTreeMap::new();
                for one in batch.drain(..) {
                    orgs.entry(one.org).or_default().push(one);
                }
                for (org, batch) in orgs {
                    claim(&store, org, batch).await;
                }
            }
        });
        Self(queue)
    }

    /// Claims one grant's lease, together with whatever else waits.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn claim(&self, org: OrgId, ask: ClaimAsk) -> Result<Claim, StoreError> {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { org, ask, answer };
        self.0.send(waiting).await.map_err(|_| StoreError::Stopped)?;
        answered.await.map_err(|_| StoreError::Stopped)?
    }
}

async fn claim(store: &Store, org: OrgId, batch: Vec<Waiting>) {
    let (asks, answers): (Vec<_>, Vec<_>) = batch.into_iter().map(|one| (one.ask, one.answer)).unzip();
    match store.retry(|| claim_all(store, org, &asks)).await {
        Ok(claims) => {
            for (answer, claim) in answers.into_iter().zip(claims) {
                // Nobody waits for it any more: the lease ends by itself.
                let _gone = answer.send(Ok(claim));
            }
        }
        Err(error) => {
            // One that cannot be claimed must not take the others with it, unless there is no database for any.
            let outage = error.outage();
            for (ask, answer) in asks.into_iter().zip(answers) {
                let alone = match &outage {
                    Some(cause) => Err(StoreError::Unavailable(Arc::clone(cause))),
                    None => claim_all(store, org, &[ask]).await.and_then(|claims| {
                        claims.into_iter().next().ok_or(StoreError::Inconsistent {
                            table: "refresh_leases",
                        })
                    }),
                };
                let _gone = answer.send(alone);
            }
        }
    }
}

async fn claim_all(store: &Store, org: OrgId, asks: &[ClaimAsk]) -> Result<Vec<Claim>, StoreError> {
    let mut tx = store.write(org).await?;
    let claims = tx.claim_refreshes(org, &store.replica(), asks).await?;
    Failpoint::RefreshClaiming.reached();
    tx.commit().await?;
    Ok(claims)
}

/// Claims in one statement.
const BATCH: usize = 256;
/// Claims that may wait; the next ones wait to be handed in.
const QUEUE: usize = 4096;
