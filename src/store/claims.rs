//! The lane of claims: one statement and one commit for the leases of many grants.

use std::collections::BTreeSet;

use crate::{domain::OrgId, failpoints::Failpoint};

use super::{
    Claim, ClaimAsk, Store, StoreError,
    lane::{Lane, Work},
};

/// Where claims are handed in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Claims(Lane<Claiming>);

impl Claims {
    /// Starts the lane; it ends when nobody can hand anything in any more.
    #[must_use]
    pub fn start(store: Store) -> Self {
        Self(Lane::start(Claiming(store)))
    }

    /// Claims one grant's lease, together with whatever else waits.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn claim(&self, ask: ClaimAsk) -> Result<Claim, StoreError> {
        self.0.hand_in(ask).await
    }
}

#[derive(Debug)]
struct Claiming(Store);

impl Work for Claiming {
    type Ask = ClaimAsk;
    type Answer = Claim;

    async fn all(&self, asks: &[ClaimAsk]) -> Result<Vec<Claim>, StoreError> {
        let orgs: BTreeSet<OrgId> = asks.iter().map(|ask| ask.org).collect();
        let orgs = Vec::from_iter(orgs);
        self.0
            .retry(|| async {
                let mut tx = self.0.write_orgs(&orgs).await?;
                let claims = tx.claim_refreshes(&self.0.replica(), asks).await?;
                Failpoint::RefreshClaiming.reached();
                tx.commit().await?;
                Ok(claims)
            })
            .await
    }
}
