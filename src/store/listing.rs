//! Lists as one principal may see them: every filter is part of the query, so that a page is never thinned afterwards.

use crate::domain::{
    AgentId, DelegationId, GrantId, OrgId, RevocationId, ServiceId, UserId, connector::ConnectorId,
    delegation::Delegation, grant::Grant,
};

use super::{
    PolicyRow, StoreError, UserRow,
    delegations::{delegation_columns, read as read_delegation},
    grants::{grant_columns, read_grant},
    people::read_user,
    policies::read_policies,
    sql::{Tx, params},
};

/// Which grants to list.
#[derive(Debug, Clone, Default)]
pub struct GrantFilter {
    /// This person's.
    pub user: Option<UserId>,
    /// At this connector.
    pub connector: Option<ConnectorId>,
    /// Of persons this host application manages.
    pub service: Option<ServiceId>,
    /// In use, and delegated to this agent now.
    pub agent: Option<AgentId>,
    /// Behind this one.
    pub after: Option<GrantId>,
    /// At most so many.
    pub limit: u64,
}

/// Which delegations to list.
#[derive(Debug, Clone, Default)]
pub struct DelegationFilter {
    /// This person's.
    pub user: Option<UserId>,
    /// For this agent.
    pub agent: Option<AgentId>,
    /// Over this grant.
    pub grant: Option<GrantId>,
    /// Behind this one.
    pub after: Option<DelegationId>,
    /// At most so many.
    pub limit: u64,
}

/// How far a revocation has come at the providers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UpstreamTotals {
    /// Not yet answered for good.
    pub pending: u64,
    /// Ended there, too.
    pub revoked: u64,
    /// The provider has no way to.
    pub unsupported: u64,
    /// No answer within seven days, or a refusal.
    pub unconfirmed: u64,
}

impl Tx {
    /// Grants in the order of their ids, floors applied.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn grants_seen(&mut self, org: OrgId, filter: &GrantFilter) -> Result<Vec<Grant>, StoreError> {
        let rows = self
            .rows(
                concat!(
                    "SELECT ",
                    grant_columns!(),
                    " FROM grants g WHERE g.org_id = $1
                       AND (CAST($2 AS TEXT) IS NULL OR g.id > $2)
                       AND (CAST($3 AS TEXT) IS NULL OR g.user_id = $3)
                       AND (CAST($4 AS TEXT) IS NULL OR g.connector = $4)
                       AND (CAST($5 AS TEXT) IS NULL OR EXISTS (SELECT 1 FROM users u
                             WHERE u.org_id = g.org_id AND u.id = g.user_id AND u.service_id = $5))
                       AND (CAST($6 AS TEXT) IS NULL OR EXISTS (SELECT 1 FROM delegations d
                             WHERE d.org_id = g.org_id AND d.grant_id = g.id AND d.agent_id = $6
                               AND d.ended_at IS NULL AND (d.expires_at IS NULL OR d.expires_at > $7)
                               AND NOT EXISTS (SELECT 1 FROM floors f
                                     WHERE f.org_id = d.org_id AND f.epoch >= d.made_epoch
                                       AND ((f.kind = 'all' AND f.id = '') OR (f.kind = 'user' AND f.id = d.user_id)
                                         OR (f.kind = 'agent' AND f.id = d.agent_id)))))
                     ORDER BY g.id LIMIT $8"
                ),
                params![
                    org,
                    filter.after,
                    filter.user,
                    filter.connector.as_ref(),
                    filter.service,
                    filter.agent,
                    self.now,
                    filter.limit
                ],
            )
            .await?;
        rows.into_iter().map(read_grant).collect()
    }

    /// Delegations in the order of their ids, floors applied.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn delegations_seen(
        &mut self,
        org: OrgId,
        filter: &DelegationFilter,
    ) -> Result<Vec<Delegation>, StoreError> {
        let rows = self
            .rows(
                concat!(
                    "SELECT ",
                    delegation_columns!(),
                    " FROM delegations d WHERE d.org_id = $1
                       AND (CAST($2 AS TEXT) IS NULL OR d.id > $2)
                       AND (CAST($3 AS TEXT) IS NULL OR d.user_id = $3)
                       AND (CAST($4 AS TEXT) IS NULL OR d.agent_id = $4)
                       AND (CAST($5 AS TEXT) IS NULL OR d.grant_id = $5)
                     ORDER BY d.id LIMIT $6"
                ),
                params![
                    org,
                    filter.after,
                    filter.user,
                    filter.agent,
                    filter.grant,
                    filter.limit
                ],
            )
            .await?;
        rows.into_iter().map(read_delegation).collect()
    }

    /// The persons a host application manages, in the order of their ids.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn users_managed_by(
        &mut self,
        org: OrgId,
        service: ServiceId,
        after: Option<UserId>,
        limit: u64,
    ) -> Result<Vec<UserRow>, StoreError> {
        let rows = self
            .rows(
                "SELECT id, email, role, service_id, external_id, created_at FROM users
                 WHERE org_id = $1 AND service_id = $2 AND (CAST($3 AS TEXT) IS NULL OR id > $3) ORDER BY id LIMIT $4",
                params![org, service, after, limit],
            )
            .await?;
        rows.into_iter().map(read_user).collect()
    }

    /// Policy versions, oldest first.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn policy_versions(
        &mut self,
        org: OrgId,
        after: Option<u64>,
        limit: u64,
    ) -> Result<Vec<PolicyRow>, StoreError> {
        let rows = self
            .rows(
                "SELECT version, texts, digest FROM policies WHERE org_id = $1 AND (CAST($2 AS BIGINT) IS NULL OR version > $2)
                 ORDER BY version LIMIT $3",
                params![org, after, limit],
            )
            .await?;
        rows.into_iter().map(read_policies).collect()
    }

    /// How far a revocation has come at the providers, over the grants that are tombstones already.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn upstream_totals(
        &mut self,
        org: OrgId,
        revocation: RevocationId,
    ) -> Result<UpstreamTotals, StoreError> {
        let rows = self.rows(UPSTREAM_TOTALS, params![org, revocation]).await?;
        let mut totals = UpstreamTotals::default();
        for row in rows {
            let mut fields = row.fields("outbox");
            let result = fields.text()?;
            let count = fields.count()?;
            match result.as_str() {
                "pending" => totals.pending = count,
                "revoked" => totals.revoked = count,
                "unsupported" => totals.unsupported = count,
                "unconfirmed" => totals.unconfirmed = count,
                _ => return Err(fields.bad()),
            }
        }
        Ok(totals)
    }
}

pub(super) const UPSTREAM_TOTALS: &str =
    "SELECT result, count(*) FROM outbox WHERE org_id = $1 AND revocation_id = $2 GROUP BY result";
