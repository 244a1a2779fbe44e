//! The outbox of upstream revocations: queued, retried, reported per grant.

use serde::{Deserialize, Serialize};

use crate::domain::{GrantId, OrgId, RevocationId, Time, connector::ConnectorId};

use super::{
    StoreError,
    sql::{Fields, Tx, params},
    waits::{LONGEST_BACKOFF, farthest, is_over},
};

/// What the provider said to an upstream revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamResult {
    /// Not answered yet.
    Pending,
    /// The provider confirmed.
    Revoked,
    /// The provider has no way to revoke.
    Unsupported,
    /// It never confirmed; our copy is gone.
    Unconfirmed,
}

impl UpstreamResult {
    /// The name in JSON and storage.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Revoked => "revoked",
            Self::Unsupported => "unsupported",
            Self::Unconfirmed => "unconfirmed",
        }
    }

    fn read(fields: &mut Fields) -> Result<Self, StoreError> {
        match fields.text()?.as_str() {
            "pending" => Ok(Self::Pending),
            "revoked" => Ok(Self::Revoked),
            "unsupported" => Ok(Self::Unsupported),
            "unconfirmed" => Ok(Self::Unconfirmed),
            _ => Err(fields.bad()),
        }
    }
}

/// An upstream revocation that waits, or how it ended.
#[derive(Debug, Clone)]
pub struct OutboxRow {
    /// The tenant.
    pub org: OrgId,
    /// Whose tokens.
    pub grant: GrantId,
    /// On behalf of which revocation.
    pub revocation: Option<RevocationId>,
    /// At which connector.
    pub connector: ConnectorId,
    /// When to try next.
    pub due_at: Time,
    /// When to stop trying.
    pub give_up_at: Time,
    /// How often it was tried.
    pub attempts: u64,
    /// What came of it.
    pub result: UpstreamResult,
}

impl Tx {
    /// Queues an upstream revocation or writes what came of it. One that was queued on nobody's behalf becomes that of the
    /// first revocation that comes to it, and is tried as long as whoever queued it last asks for. `false` if it has come to
    /// its end already.
    ///
    /// INVARIANT: where no secret is left that could be ended, the last word stays what it was.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn put_outbox(&mut self, row: &OutboxRow) -> Result<bool, StoreError> {
        let put = self.execute(
            "INSERT INTO outbox (org_id, grant_id, revocation_id, connector, due_at, give_up_at, attempts, result)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (org_id, grant_id) DO UPDATE SET due_at = $5, attempts = $7, result = $8,
               revocation_id = coalesce(outbox.revocation_id, excluded.revocation_id),
               give_up_at = CASE WHEN outbox.give_up_at < excluded.give_up_at THEN excluded.give_up_at
                 ELSE outbox.give_up_at END
             WHERE outbox.result = 'pending'
               OR EXISTS (SELECT 1 FROM secrets s WHERE s.org_id = outbox.org_id AND s.row_id = outbox.grant_id)",
            params![
                row.org,
                row.grant,
                row.revocation,
                &row.connector,
                row.due_at,
                row.give_up_at,
                row.attempts,
                row.result.as_str()
            ],
        );
        if put.await? == 0 {
            self.change(
                "outbox",
                "UPDATE outbox SET revocation_id = coalesce(revocation_id, $3) WHERE org_id = $1 AND grant_id = $2",
                params![row.org, row.grant, row.revocation],
            )
            .await?;
            return Ok(false);
        }
        self.execute(
            "UPDATE grants SET upstream = $3 WHERE org_id = $1 AND id = $2",
            params![row.org, row.grant, row.result.as_str()],
        )
        .await?;
        Ok(true)
    }

    /// Takes upstream revocations that are due for this process until a moment: who asks, asks alone. Returns those it
    /// got. If the process dies, they are due again at that moment.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn claim_outbox(
        &mut self,
        org: OrgId,
        grants: &[GrantId],
        until: Time,
    ) -> Result<Vec<GrantId>, StoreError> {
        let mut claimed = Vec::with_capacity(grants.len());
        for &grant in grants {
            let farthest = farthest(self.now, LONGEST_BACKOFF);
            let changed = self
                .execute(CLAIM, params![org, grant, until, self.now, farthest])
                .await?;
            if changed == 1 {
                claimed.push(grant);
            }
        }
        Ok(claimed)
    }

    /// What became of the grants of a revocation, in the order of their ids.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn outbox_of(
        &mut self,
        org: OrgId,
        revocation: RevocationId,
        after: Option<GrantId>,
        limit: u64,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        let rows = self
            .rows(OF_REVOCATION, params![org, revocation, after, limit])
            .await?;
        rows.into_iter()
            .map(|row| read_outbox(row.fields("outbox")))
            .collect()
    }

    /// What the provider said to a grant's revocation.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn outbox(&mut self, org: OrgId, grant: GrantId) -> Result<Option<OutboxRow>, StoreError> {
        let row = self
            .row(
                "SELECT org_id, grant_id, revocation_id, connector, due_at, give_up_at, attempts, result FROM outbox
                 WHERE org_id = $1 AND grant_id = $2",
                params![org, grant],
            )
            .await?;
        row.map(|row| read_outbox(row.fields("outbox"))).transpose()
    }
}

pub(super) const CLAIM: &str = concat!(
    "UPDATE outbox SET due_at = $3 WHERE org_id = $1 AND grant_id = $2 AND result = 'pending' AND ",
    is_over!("due_at", "$4", "$5")
);

pub(super) const OF_REVOCATION: &str =
    "SELECT org_id, grant_id, revocation_id, connector, due_at, give_up_at, attempts, result FROM outbox
     WHERE org_id = $1 AND revocation_id = $2 AND (CAST($3 AS TEXT) IS NULL OR grant_id > $3)
     ORDER BY grant_id LIMIT $4";

fn read_outbox(mut fields: Fields) -> Result<OutboxRow, StoreError> {
    Ok(OutboxRow {
        org: fields.parse()?,
        grant: fields.parse()?,
        revocation: fields.opt_parse()?,
        connector: fields.parse()?,
        due_at: fields.time()?,
        give_up_at: fields.time()?,
        attempts: fields.count()?,
        result: UpstreamResult::read(&mut fields)?,
    })
}
