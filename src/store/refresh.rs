//! One refresher per grant at a time, across all replicas: a lease with a fencing number, and the durable intent.

use std::time::Duration;

use crate::domain::{GrantId, OrgId};

use super::{
    StoreError,
    sql::{Tx, params},
};

/// A claimed lease. Whoever writes a result names its fence; a later claim makes it void.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Grows with every claim.
    pub fence: i64,
    /// What an earlier holder had asked of the provider and never learned the answer of.
    pub in_doubt: Option<String>,
}

impl Tx {
    /// Claims the grant's lease for `holder` and records what is about to be asked; `None` while another holds it.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn claim_refresh(
        &mut self,
        org: OrgId,
        grant: GrantId,
        holder: &str,
        intent: &str,
        life: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        let row = self
            .row(
                "SELECT fence, expires_at, intent FROM refresh_leases WHERE org_id = $1 AND grant_id = $2",
                params![org, grant],
            )
            .await?;
        let (fence, in_doubt) = match row {
            None => (0, None),
            Some(row) => {
                let mut fields = row.fields("refresh_leases");
                let (fence, expires_at) = (fields.int()?, fields.time()?);
                let intent = fields.opt_text()?;
                if expires_at > self.now {
                    return Ok(None);
                }
                (fence, intent)
            }
        };
        self.change(
            "refresh_leases",
            "INSERT INTO refresh_leases (org_id, grant_id, fence, holder, expires_at, intent, intent_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (org_id, grant_id) DO UPDATE SET fence = $3, holder = $4, expires_at = $5, intent = $6,
               intent_at = $7",
            params![org, grant, fence + 1, holder, self.now + life, intent, self.now],
        )
        .await?;
        Ok(Some(Lease {
            fence: fence + 1,
            in_doubt,
        }))
    }

    /// Gives the lease back with its question unanswered: whoever claims it next is told.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn leave_in_doubt(&mut self, org: OrgId, grant: GrantId, fence: i64) -> Result<(), StoreError> {
        self.execute(
            "UPDATE refresh_leases SET expires_at = 0 WHERE org_id = $1 AND grant_id = $2 AND fence = $3",
            params![org, grant, fence],
        )
        .await
        .map(drop)
    }

    /// Gives the lease back with its question answered; `false` if it was claimed by another meanwhile.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn release_refresh(
        &mut self,
        org: OrgId,
        grant: GrantId,
        fence: i64,
    ) -> Result<bool, StoreError> {
        let changed = self
            .execute(
                "UPDATE refresh_leases SET expires_at = 0, intent = NULL, intent_at = NULL
                 WHERE org_id = $1 AND grant_id = $2 AND fence = $3",
                params![org, grant, fence],
            )
            .await?;
        Ok(changed == 1)
    }
}
