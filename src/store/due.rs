//! What waits for the workers, across all orgs: ids only. The work itself is done in a transaction of its org.

use crate::domain::{ConnectSessionId, EntryId, GrantId, OrgId, RevocationId, Time};

use super::{
    StoreError,
    sql::{Row, Tx, Value, params},
};

/// A look across orgs. It sees ids, states and times, never what is kept for anybody.
#[derive(Debug)]
pub struct Due(pub(super) Tx);

impl Due {
    /// The database's time, taken when the look began.
    #[must_use]
    pub fn now(&self) -> Time {
        self.0.now
    }

    /// Every org, in the order of their ids.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn orgs(&mut self, after: Option<OrgId>, limit: u64) -> Result<Vec<OrgId>, StoreError> {
        self.list(
            "SELECT org_id FROM epochs WHERE CAST($1 AS TEXT) IS NULL OR org_id > $1 ORDER BY org_id LIMIT $2",
            params![after, limit],
            org,
        )
        .await
    }

    /// Orgs with entries that have no place in their log yet.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn orgs_to_sequence(&mut self) -> Result<Vec<OrgId>, StoreError> {
        self.list(
            "SELECT DISTINCT org_id FROM entries WHERE log_index IS NULL ORDER BY org_id LIMIT 1000",
            params![],
            org,
        )
        .await
    }

    /// Orgs with decisions, idempotency keys, links or sessions that have outlived their purpose.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn orgs_to_sweep(&mut self) -> Result<Vec<OrgId>, StoreError> {
        self.list(
            "SELECT org_id FROM spent WHERE keep_until < $1
             UNION SELECT org_id FROM idempotency WHERE keep_until < $1
             UNION SELECT org_id FROM login_links WHERE expires_at < $1
             UNION SELECT org_id FROM sessions WHERE expires_at < $1 LIMIT 1000",
            params![self.0.now],
            org,
        )
        .await
    }

    /// Connect sessions past their time that are not at an end: their tokens have to be revoked upstream.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn connects(&mut self, limit: u64) -> Result<Vec<(OrgId, ConnectSessionId)>, StoreError> {
        self.list(
            "SELECT org_id, id FROM connect_sessions WHERE expires_at < $1 AND status NOT IN ('completed', 'failed')
             ORDER BY expires_at LIMIT $2",
            params![self.0.now, limit],
            pair,
        )
        .await
    }

    /// Revocations whose fan-out is not finished, the oldest first.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn revocations(&mut self, limit: u64) -> Result<Vec<(OrgId, RevocationId)>, StoreError> {
        self.list(
            "SELECT org_id, id FROM revocations WHERE fanned_out = 0 ORDER BY at LIMIT $1",
            params![limit],
            pair,
        )
        .await
    }

    /// Grants whose upstream revocation is to be tried now.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn outbox(&mut self, limit: u64) -> Result<Vec<(OrgId, GrantId)>, StoreError> {
        self.list(
            "SELECT org_id, grant_id FROM outbox WHERE result = 'pending' AND due_at <= $1 ORDER BY due_at LIMIT $2",
            params![self.0.now, limit],
            pair,
        )
        .await
    }

    /// Grants of which nobody knows what the provider answered to a refresh, and nobody is asking, the oldest first.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn refreshes_in_doubt(&mut self, limit: u64) -> Result<Vec<(OrgId, GrantId)>, StoreError> {
        self.list(
            "SELECT org_id, grant_id FROM refresh_leases
             WHERE intent IS NOT NULL AND expires_at <= $1 AND not_before <= $1 ORDER BY intent_at LIMIT $2",
            params![self.0.now, limit],
            pair,
        )
        .await
    }

    /// Grants that are to be looked at again, the longest overdue first.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn renewals(&mut self, limit: u64) -> Result<Vec<(OrgId, GrantId)>, StoreError> {
        self.list(
            "SELECT org_id, id FROM grants
             WHERE renew_at IS NOT NULL AND state = 'active' AND renew_at <= $1 ORDER BY renew_at LIMIT $2",
            params![self.0.now, limit],
            pair,
        )
        .await
    }

    /// Grants of whose state the operator's webhook is to be told now.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn notices(&mut self, limit: u64) -> Result<Vec<(OrgId, GrantId)>, StoreError> {
        self.list(
            "SELECT org_id, grant_id FROM notices
             WHERE due_at IS NOT NULL AND due_at <= $1 ORDER BY due_at LIMIT $2",
            params![self.0.now, limit],
            pair,
        )
        .await
    }

    /// Grants whose time in quarantine is over.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn quarantines(&mut self, limit: u64) -> Result<Vec<(OrgId, GrantId)>, StoreError> {
        self.list(
            "SELECT org_id, id FROM grants WHERE state = 'quarantined' AND state_at < $1 ORDER BY state_at LIMIT $2",
            params![self.0.now, limit],
            pair,
        )
        .await
    }

    /// Calls that were sent before `before` and have no outcome.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn outcomes(&mut self, before: Time, limit: u64) -> Result<Vec<(OrgId, EntryId)>, StoreError> {
        self.list(
            "SELECT e.org_id, e.id FROM entries e
             WHERE e.kind = 'release' AND e.mode = 'execute' AND e.ts < $1 AND e.ts > $2
               AND NOT EXISTS (SELECT 1 FROM entries o WHERE o.org_id = e.org_id AND o.correlation = e.id
                               AND o.kind IN ('outcome', 'dropped'))
             ORDER BY e.ts LIMIT $3",
            params![before, before - LOOK_BACK, limit],
            pair,
        )
        .await
    }

    async fn list<T>(
        &mut self,
        sql: &'static str,
        params: Vec<Value>,
        read: impl Fn(Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        self.0.rows(sql, params).await?.into_iter().map(read).collect()
    }
}

fn org(row: Row) -> Result<OrgId, StoreError> {
    row.fields("due").parse()
}

fn pair<T: std::str::FromStr>(row: Row) -> Result<(OrgId, T), StoreError> {
    let mut fields = row.fields("due");
    Ok((fields.parse()?, fields.parse()?))
}

/// How far back calls without an outcome are looked for.
const LOOK_BACK: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);
