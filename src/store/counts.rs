//! Living grants and delegations, counted for the pages of admins.

use std::collections::BTreeMap;

use crate::domain::{AgentId, OrgId, UserId};

use super::{
    StoreError,
    sql::{Tx, params},
};

/// A grant that is neither buried nor under a floor.
macro_rules! living_grant {
    () => {
        "g.state <> 'revoked' AND NOT EXISTS (SELECT 1 FROM floors f WHERE f.org_id = g.org_id \
           AND f.epoch >= g.connected_epoch AND ((f.kind = 'all' AND f.id = '') \
             OR (f.kind = 'user' AND f.id = g.user_id) OR (f.kind = 'connector' AND f.id = g.connector) \
             OR (f.kind = 'grant' AND f.id = g.id)))"
    };
}

impl Tx {
    /// How many living grants each person has; persons without one are left out.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn living_grants_per_user(&mut self, org: OrgId) -> Result<BTreeMap<UserId, u64>, StoreError> {
        let rows = self
            .rows(
                concat!(
                    "SELECT g.user_id, count(*) FROM grants g WHERE g.org_id = $1 AND ",
                    living_grant!(),
                    " GROUP BY g.user_id"
                ),
                params![org],
            )
            .await?;
        rows.into_iter()
            .map(|row| {
                let mut fields = row.fields("grants");
                Ok((fields.parse()?, fields.count()?))
            })
            .collect()
    }

    /// How many living delegations over living grants each agent has; agents without one are left out.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn living_delegations_per_agent(
        &mut self,
        org: OrgId,
    ) -> Result<BTreeMap<AgentId, u64>, StoreError> {
        let rows = self
            .rows(
                concat!(
                    "SELECT d.agent_id, count(*) FROM delegations d \
                     JOIN grants g ON g.org_id = d.org_id AND g.id = d.grant_id \
                     WHERE d.org_id = $1 AND d.ended_at IS NULL AND (d.expires_at IS NULL OR d.expires_at > $2) \
                       AND NOT EXISTS (SELECT 1 FROM floors f WHERE f.org_id = d.org_id AND f.epoch >= d.made_epoch \
                         AND ((f.kind = 'all' AND f.id = '') OR (f.kind = 'user' AND f.id = d.user_id) \
                           OR (f.kind = 'agent' AND f.id = d.agent_id))) AND ",
                    living_grant!(),
                    " GROUP BY d.agent_id"
                ),
                params![org, self.now],
            )
            .await?;
        rows.into_iter()
            .map(|row| {
                let mut fields = row.fields("delegations");
                Ok((fields.parse()?, fields.count()?))
            })
            .collect()
    }
}
