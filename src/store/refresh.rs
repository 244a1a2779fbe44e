//! One refresher per grant at a time, across all replicas: a lease with a fencing number, and the durable intent.
//!
//! A lease is honoured for a few seconds only and renewed while its holder waits for the provider. A holder that died
//! must not keep the others from asking again while the provider still takes the old refresh token.

use std::time::Duration;

use crate::domain::{GrantId, OrgId, Time};

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
    /// How often in a row the provider gave nothing.
    pub failures: u64,
}

/// What came of a claim.
#[derive(Debug)]
pub enum Claim {
    /// The lease is the caller's.
    Ours(Lease),
    /// Another holds it; its answer will do.
    Held,
    /// The provider gave nothing a moment ago and is left alone for now.
    Cooling,
}

impl Tx {
    /// Claims the grant's lease for `holder` and records what is about to be asked.
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
    ) -> Result<Claim, StoreError> {
        let row = self
            .row(
                "SELECT fence, expires_at, intent, failures, not_before FROM refresh_leases
                 WHERE org_id = $1 AND grant_id = $2",
                params![org, grant],
            )
            .await?;
        let mut lease = Lease {
            fence: 1,
            in_doubt: None,
            failures: 0,
        };
        if let Some(row) = row {
            let mut fields = row.fields("refresh_leases");
            let (fence, expires_at) = (fields.int()?, fields.time()?);
            lease = Lease {
                fence: fence + 1,
                in_doubt: fields.opt_text()?,
                failures: fields.count()?,
            };
            if expires_at > self.now {
                return Ok(Claim::Held);
            }
            if fields.time()? > self.now {
                return Ok(Claim::Cooling);
            }
        }
        self.change(
            "refresh_leases",
            "INSERT INTO refresh_leases (org_id, grant_id, fence, holder, expires_at, intent, intent_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (org_id, grant_id) DO UPDATE SET fence = $3, holder = $4, expires_at = $5, intent = $6,
               intent_at = $7",
            params![org, grant, lease.fence, holder, self.now + life, intent, self.now],
        )
        .await?;
        Ok(Claim::Ours(lease))
    }

    /// Honours the lease for longer; `false` if it is its holder's no more.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn renew_refresh(
        &mut self,
        org: OrgId,
        grant: GrantId,
        fence: i64,
        life: Duration,
    ) -> Result<bool, StoreError> {
        let changed = self
            .execute(
                "UPDATE refresh_leases SET expires_at = $4
                 WHERE org_id = $1 AND grant_id = $2 AND fence = $3 AND intent IS NOT NULL AND expires_at > 0",
                params![org, grant, fence, self.now + life],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Gives the lease back after a failure: nobody asks before `not_before`. With `in_doubt`, the question stays
    /// unanswered: whoever claims the lease next is told.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn fail_refresh(
        &mut self,
        org: OrgId,
        grant: GrantId,
        fence: i64,
        in_doubt: bool,
        not_before: Time,
    ) -> Result<(), StoreError> {
        self.execute(
            "UPDATE refresh_leases SET expires_at = 0, failures = failures + 1, not_before = $4,
               intent = CASE WHEN CAST($5 AS BIGINT) = 1 THEN intent END,
               intent_at = CASE WHEN CAST($5 AS BIGINT) = 1 THEN intent_at END
             WHERE org_id = $1 AND grant_id = $2 AND fence = $3",
            params![org, grant, fence, not_before, in_doubt],
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
                "UPDATE refresh_leases SET expires_at = 0, intent = NULL, intent_at = NULL, failures = 0, not_before = 0
                 WHERE org_id = $1 AND grant_id = $2 AND fence = $3",
                params![org, grant, fence],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Drops a doubt that makes no difference any more, unless somebody is asking right now.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn forget_refresh(&mut self, org: OrgId, grant: GrantId) -> Result<(), StoreError> {
        self.execute(
            "UPDATE refresh_leases SET intent = NULL, intent_at = NULL
             WHERE org_id = $1 AND grant_id = $2 AND expires_at <= $3",
            params![org, grant, self.now],
        )
        .await
        .map(drop)
    }

    /// Voids every lease: each was held by an earlier process that is known to be dead. Their intents stay.
    pub(super) async fn void_refreshes(&mut self) -> Result<(), StoreError> {
        self.execute(
            "UPDATE refresh_leases SET expires_at = 0 WHERE expires_at > 0",
            params![],
        )
        .await
        .map(drop)
    }
}
