//! Living grants and delegations, counted: for the pages of admins, and for a revocation of what they belong to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::{AgentId, OrgId, UserId};

use super::{
    Selector, StoreError,
    sql::{Tx, params},
};

/// How much a selector covers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelectorCounts {
    /// Living grants.
    pub grants: u64,
    /// Living delegations over living grants.
    pub delegations: u64,
    /// Browser sessions.
    pub sessions: u64,
    /// Connect sessions under way.
    pub connects: u64,
    /// Agents.
    pub agents: u64,
}

/// A grant that is neither buried nor under a floor.
macro_rules! living_grant {
    () => {
        "g.state <> 'revoked' AND NOT EXISTS (SELECT 1 FROM floors f WHERE f.org_id = g.org_id \
           AND f.epoch >= g.connected_epoch AND ((f.kind = 'all' AND f.id = '') \
             OR (f.kind = 'user' AND f.id = g.user_id) OR (f.kind = 'connector' AND f.id = g.connector) \
             OR (f.kind = 'grant' AND f.id = g.id)))"
    };
}

/// A delegation `d` that has not ended, over a living grant `g`.
macro_rules! living_delegation {
    (now: $now:literal) => {
        concat!(
            "d.ended_at IS NULL AND (d.expires_at IS NULL OR d.expires_at > ",
            $now,
            ") \
               AND NOT EXISTS (SELECT 1 FROM floors f WHERE f.org_id = d.org_id AND f.epoch >= d.made_epoch \
                 AND ((f.kind = 'all' AND f.id = '') OR (f.kind = 'user' AND f.id = d.user_id) \
                   OR (f.kind = 'agent' AND f.id = d.agent_id))) AND ",
            living_grant!()
        )
    };
}

/// A statement about the grants `g` of a selector, whose target is `$2`: each kind of its own, so that the planner can
/// take the index that fits it.
macro_rules! of_selector {
    ($kind:expr, [$($before:tt)*], [$($after:tt)*]) => {
        match $kind {
            "user" => concat!($($before)*, " AND g.user_id = $2", $($after)*),
            "connector" => concat!($($before)*, " AND g.connector = $2", $($after)*),
            "grant" => concat!($($before)*, " AND g.id = $2", $($after)*),
            "all" => concat!($($before)*, " AND $2 = ''", $($after)*),
            // An agent's grants belong to persons, and stay.
            _ => concat!($($before)*, " AND CAST($2 AS TEXT) IS NULL", $($after)*),
        }
    };
}
pub(super) use of_selector;

impl Tx {
    /// How much a selector covers now.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn count_selector(
        &mut self,
        org: OrgId,
        selector: &Selector,
    ) -> Result<SelectorCounts, StoreError> {
        let (kind, target) = selector.floor();
        let grants = grants_of_selector(kind);
        let delegations = match selector {
            Selector::Agent(_) => concat!(
                "SELECT count(*) FROM delegations d JOIN grants g ON g.org_id = d.org_id AND g.id = d.grant_id \
                 WHERE d.org_id = $1 AND d.agent_id = $2 AND ",
                living_delegation!(now: "$3")
            ),
            _ => delegations_of_selector(kind),
        };
        Ok(SelectorCounts {
            grants: self.number(grants, params![org, &target]).await?,
            delegations: self.number(delegations, params![org, &target, self.now]).await?,
            sessions: self
                .number(SESSIONS, params![org, &target, self.now, kind])
                .await?,
            connects: self
                .number(CONNECTS, params![org, &target, self.now, kind])
                .await?,
            agents: self.number(AGENTS, params![org, &target, kind]).await?,
        })
    }

    async fn number(&mut self, sql: &'static str, params: Vec<super::sql::Value>) -> Result<u64, StoreError> {
        let row = self.row(sql, params).await?;
        row.map_or(Ok(0), |row| row.fields("counts").count())
    }

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
                     WHERE d.org_id = $1 AND ",
                    living_delegation!(now: "$2"),
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

pub(super) fn grants_of_selector(kind: &str) -> &'static str {
    of_selector!(
        kind,
        [
            "SELECT count(*) FROM grants g WHERE g.org_id = $1 AND ",
            living_grant!()
        ],
        [""]
    )
}

/// The grants lead: few of an org's delegations belong to one person or one grant.
pub(super) fn delegations_of_selector(kind: &str) -> &'static str {
    of_selector!(
        kind,
        [
            "SELECT count(*) FROM grants g CROSS JOIN delegations d \
             WHERE g.org_id = $1 AND d.org_id = g.org_id AND d.grant_id = g.id AND ",
            living_delegation!(now: "$3")
        ],
        [""]
    )
}

const SESSIONS: &str = "SELECT count(*) FROM sessions s WHERE s.org_id = $1 AND s.expires_at > $3
     AND NOT EXISTS (SELECT 1 FROM floors f WHERE f.org_id = $1 AND f.kind = 'user'
       AND f.id = s.user_id AND f.epoch >= s.made_epoch)
     AND $4 = 'user' AND s.user_id = $2";

const CONNECTS: &str = "SELECT count(*) FROM connect_sessions c WHERE c.org_id = $1 AND c.expires_at > $3
     AND c.status NOT IN ('completed', 'failed')
     AND NOT EXISTS (SELECT 1 FROM floors f WHERE f.org_id = $1 AND f.epoch >= c.made_epoch
       AND ((f.kind = 'all') OR (f.kind = 'user' AND f.id = c.user_id)
         OR (f.kind = 'connector' AND f.id = c.connector) OR (f.kind = 'agent' AND f.id = c.agent_id)))
     AND ($4 = 'all' OR ($4 = 'user' AND c.user_id = $2) OR ($4 = 'connector' AND c.connector = $2)
       OR ($4 = 'agent' AND c.agent_id = $2))";

const AGENTS: &str = "SELECT count(*) FROM agents a WHERE a.org_id = $1 AND a.disabled_at IS NULL
     AND $3 = 'agent' AND a.id = $2";
