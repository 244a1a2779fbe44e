//! What persons let agents do.

use crate::domain::{AgentId, DelegationId, GrantId, OrgId, connector::Category, delegation::Delegation};

use super::{
    StoreError,
    sql::{Row, Tx, json, params},
};

/// The columns of a delegation; the last one is when a floor over its agent or person ended it, if one did.
macro_rules! delegation_columns {
    () => {
        "d.id, d.org_id, d.user_id, d.agent_id, d.grant_id, d.categories, d.tools, d.raw, d.expires_at, \
         d.made_epoch, d.ended_at, \
         (SELECT max(f.at) FROM floors f WHERE f.org_id = d.org_id AND f.epoch >= d.made_epoch \
          AND ((f.kind = 'all' AND f.id = '') OR (f.kind = 'user' AND f.id = d.user_id) \
            OR (f.kind = 'agent' AND f.id = d.agent_id)))"
    };
}
pub(super) use delegation_columns;

impl Tx {
    /// Keeps a delegation. The person's earlier ones for the same agent and grant end.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn replace_delegation(&mut self, delegation: &Delegation) -> Result<(), StoreError> {
        self.execute(
            "UPDATE delegations SET ended_at = $4
             WHERE org_id = $1 AND grant_id = $2 AND agent_id = $3 AND ended_at IS NULL",
            params![delegation.org, delegation.grant, delegation.agent, self.now],
        )
        .await?;
        self.change(
            "delegations",
            "INSERT INTO delegations (org_id, id, user_id, agent_id, grant_id, categories, tools, raw, expires_at,
               made_epoch)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            params![
                delegation.org,
                delegation.id,
                delegation.user,
                delegation.agent,
                delegation.grant,
                json(&delegation.categories),
                json(&delegation.tools),
                delegation.raw,
                delegation.expires_at,
                delegation.made_epoch
            ],
        )
        .await
    }

    /// One delegation, floors applied.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn delegation(
        &mut self,
        org: OrgId,
        delegation: DelegationId,
    ) -> Result<Option<Delegation>, StoreError> {
        let row = self
            .row(
                concat!(
                    "SELECT ",
                    delegation_columns!(),
                    " FROM delegations d WHERE d.org_id = $1 AND d.id = $2"
                ),
                params![org, delegation],
            )
            .await?;
        row.map(read).transpose()
    }

    /// The living delegations over a grant (of one agent), floors applied; expiry is the caller's to check.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn delegations_of(
        &mut self,
        org: OrgId,
        grant: GrantId,
        agent: Option<AgentId>,
    ) -> Result<Vec<Delegation>, StoreError> {
        let mut living = self.delegations_left(org, grant, agent).await?;
        living.retain(|delegation| delegation.ended_at.is_none());
        Ok(living)
    }

    /// The delegations over a grant (of one agent) that nobody ended by hand: the living ones, and with an end those that
    /// a floor ended.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub(super) async fn delegations_left(
        &mut self,
        org: OrgId,
        grant: GrantId,
        agent: Option<AgentId>,
    ) -> Result<Vec<Delegation>, StoreError> {
        // Two texts, not one with "or any agent": only so does the agent narrow the index.
        let rows = match agent {
            Some(agent) => {
                let sql = concat!(
                    "SELECT ",
                    delegation_columns!(),
                    " FROM delegations d WHERE d.org_id = $1 AND d.grant_id = $2 AND d.agent_id = $3
                       AND d.ended_at IS NULL ORDER BY d.id"
                );
                self.rows(sql, params![org, grant, agent]).await?
            }
            None => {
                let sql = concat!(
                    "SELECT ",
                    delegation_columns!(),
                    " FROM delegations d WHERE d.org_id = $1 AND d.grant_id = $2
                       AND d.ended_at IS NULL ORDER BY d.id"
                );
                self.rows(sql, params![org, grant]).await?
            }
        };
        rows.into_iter().map(read).collect()
    }

    /// Delegations of the org in the order of their ids, floors applied.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn delegations(
        &mut self,
        org: OrgId,
        after: Option<DelegationId>,
        limit: u64,
    ) -> Result<Vec<Delegation>, StoreError> {
        let rows = self
            .rows(
                concat!(
                    "SELECT ",
                    delegation_columns!(),
                    " FROM delegations d WHERE d.org_id = $1 AND (CAST($2 AS TEXT) IS NULL OR d.id > $2) ORDER BY d.id LIMIT $3"
                ),
                params![org, after, limit],
            )
            .await?;
        rows.into_iter().map(read).collect()
    }

    /// Ends a delegation.
    ///
    /// # Errors
    /// When the database is unavailable or there is no such delegation.
    pub async fn end_delegation(&mut self, org: OrgId, delegation: DelegationId) -> Result<(), StoreError> {
        self.change(
            "delegations",
            "UPDATE delegations SET ended_at = coalesce(ended_at, $3) WHERE org_id = $1 AND id = $2",
            params![org, delegation, self.now],
        )
        .await
    }
}

pub(super) fn read(row: Row) -> Result<Delegation, StoreError> {
    let mut fields = row.fields("delegations");
    let mut delegation = Delegation {
        id: fields.parse()?,
        org: fields.parse()?,
        user: fields.parse()?,
        agent: fields.parse()?,
        grant: fields.parse()?,
        categories: fields.json::<Vec<Category>>()?.into_iter().collect(),
        tools: fields.json::<Vec<String>>()?.into_iter().collect(),
        raw: fields.flag()?,
        expires_at: fields.opt_time()?,
        made_epoch: fields.int()?,
        ended_at: fields.opt_time()?,
    };
    // INVARIANT: a floor over the agent or the person ends the delegation, whatever its own row still says.
    delegation.ended_at = delegation.ended_at.or(fields.opt_time()?);
    Ok(delegation)
}
