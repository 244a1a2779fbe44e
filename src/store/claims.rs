//! The lane of claims: few statements and one commit for the leases of many grants.
//!
//! A claim writes nothing but leases, so it stands in no org's line: locks on the leases keep it apart from other claims of
//! them and from whoever keeps an answer under them.

use crate::{domain::OrgId, failpoints::Failpoint};

use super::{
    Claim, ClaimAsk, Store, StoreError,
    lane::{Lane, Patience, Work},
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
    /// When the database is unavailable; [`StoreError::Lost`] where it lacks what this process knows.
    pub async fn claim(&self, ask: ClaimAsk) -> Result<Claim, StoreError> {
        self.0.hand_in(ask).await
    }
}

#[derive(Debug)]
struct Claiming(Store);

impl Work for Claiming {
    type Ask = ClaimAsk;
    type Answer = Claim;

    fn org(ask: &ClaimAsk) -> OrgId {
        ask.org
    }

    async fn all(&self, asks: &[ClaimAsk], patience: Patience) -> Result<Vec<Claim>, StoreError> {
        // Whichever org it was noticed of: none is asked for over such a database.
        if self.0.has_lost_entries() {
            return Err(StoreError::Lost);
        }
        let orgs = Self::orgs(asks);
        self.0
            .try_with(patience, || async {
                let gate = self.0.hot_writer(&orgs);
                let mut tx = self.0.write_rows(&orgs).await?;
                let claims = tx.claim_beside(&self.0.replica(), asks, Some(&gate)).await?;
                Failpoint::RefreshClaiming.reached();
                tx.commit().await?;
                Failpoint::RefreshLeased.reached();
                Ok(claims)
            })
            .await
    }
}
