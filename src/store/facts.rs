//! What a decision is made of, read in one snapshot together with the epoch it holds at.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    crypto::keyring::OdkRecord,
    domain::{
        AgentId, GrantId, KeyId, OrgId, Time, connector::ConnectorId, delegation::Delegation, entry::Epoch,
        grant::Grant, rules::ConnectorRules,
    },
};

use super::{
    AgentRow, EngineRow, OrgRow, PolicyRow, StoreError, UserRow,
    sql::{Tx, params},
};

/// What is known of an agent and its org, whatever the grant.
#[derive(Debug, Clone)]
pub struct AgentFacts {
    /// The epoch all of this holds at.
    pub epoch: Epoch,
    /// The tenant.
    pub org: OrgRow,
    /// The agent.
    pub agent: AgentRow,
    /// Its API keys that are not revoked.
    pub keys: Vec<KeyId>,
    /// The policies in force.
    pub policies: Option<PolicyRow>,
    /// What the org lays down about the connectors it has a client at.
    pub rules: BTreeMap<ConnectorId, ConnectorRules>,
    /// The registered engines that are not disabled.
    pub engines: Vec<EngineRow>,
    /// The data key new entries are sealed under.
    pub odk: OdkRecord,
}

/// What is known of a grant and who may use it.
#[derive(Debug, Clone)]
pub struct VendFacts {
    /// The epoch all of this holds at.
    pub epoch: Epoch,
    /// The grant, floors applied.
    pub grant: Grant,
    /// Whose it is.
    pub user: UserRow,
    /// What that person lets this agent do with it; expiry is the reader's to check.
    pub delegations: Vec<Delegation>,
    /// What a revocation ended of that, and nobody by hand.
    pub revoked_delegations: Vec<Delegation>,
    /// The latest revocation that covers org, person, agent, connector or grant.
    pub revoked_at: Option<Time>,
    /// When the org was last recovered: the database does not know what was spent before.
    pub recovered_at: Option<Time>,
}

impl VendFacts {
    /// From before when a decision counts for nothing. One that a caller brought along has no epoch to be told by: it has to
    /// be later than a recovery as well, or it may have been spent in what was lost.
    #[must_use]
    pub fn stale_before(&self, brought_along: bool) -> Option<Time> {
        let recovered = self.recovered_at.filter(|_| brought_along);
        self.revoked_at.max(recovered.map(|at| at + CLOCKS_APART))
    }
}

impl Tx {
    /// The facts of an agent; `None` if there is no such agent in the org.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn agent_facts(
        &mut self,
        org: OrgId,
        agent: AgentId,
    ) -> Result<Option<AgentFacts>, StoreError> {
        let (Some(epoch), Some(org_row)) = (self.epoch(org).await?, self.org(org).await?) else {
            return Ok(None);
        };
        let Some(agent) = self.agent(org, agent).await? else {
            return Ok(None);
        };
        let odk = self
            .current_odk(Some(org))
            .await?
            .ok_or(StoreError::Inconsistent { table: "odks" })?;
        let engines = self
            .engines(org)
            .await?
            .into_iter()
            .filter(|engine| engine.disabled_at.is_none())
            .collect();
        Ok(Some(AgentFacts {
            epoch,
            org: org_row,
            keys: self.living_keys_of(org, agent.id).await?,
            agent,
            policies: self.policies(org).await?,
            rules: self.connector_rules(org).await?,
            engines,
            odk,
        }))
    }

    /// The facts of a grant for an agent; `None` if there is no such grant in the org.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn vend_facts(
        &mut self,
        org: OrgId,
        agent: AgentId,
        grant: GrantId,
    ) -> Result<Option<VendFacts>, StoreError> {
        let Some(epoch) = self.epoch(org).await? else {
            return Ok(None);
        };
        let Some(grant) = self.grant(org, grant).await? else {
            return Ok(None);
        };
        let user = self
            .user(org, grant.user)
            .await?
            .ok_or(StoreError::Inconsistent { table: "grants" })?;
        let left = self.delegations_left(org, grant.id, Some(agent)).await?;
        let (delegations, revoked_delegations) = left
            .into_iter()
            .partition(|delegation| delegation.ended_at.is_none());
        let floor = self
            .row(
                "SELECT max(CASE WHEN kind <> 'recovered' THEN at END), max(CASE WHEN kind = 'recovered' THEN at END)
                 FROM floors WHERE org_id = $1
                   AND ((kind = 'all' AND id = '') OR (kind = 'user' AND id = $2) OR (kind = 'agent' AND id = $3)
                     OR (kind = 'connector' AND id = $4) OR (kind = 'grant' AND id = $5)
                     OR (kind = 'recovered' AND id = ''))",
                params![org, grant.user, agent, &grant.connector, grant.id],
            )
            .await?;
        let (revoked_at, recovered_at) = match floor {
            Some(row) => {
                let mut fields = row.fields("floors");
                (fields.opt_time()?, fields.opt_time()?)
            }
            None => (None, None),
        };
        Ok(Some(VendFacts {
            epoch,
            grant,
            user,
            delegations,
            revoked_delegations,
            revoked_at,
            recovered_at,
        }))
    }

    /// Writes down that the org is recovered now: decisions made before are brought along in vain. It is a floor that no
    /// grant and nothing else is under, for it covers no epoch.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn distrust_decisions(&mut self, org: OrgId) -> Result<(), StoreError> {
        self.change(
            "floors",
            "INSERT INTO floors (org_id, kind, id, epoch, at) VALUES ($1, 'recovered', '', 0, $2)
             ON CONFLICT (org_id, kind, id) DO UPDATE SET at = $2",
            params![org, self.now],
        )
        .await
    }
}

/// Clocks of replicas that are ready are at most 5 s off, and a decision says its time in whole seconds.
const CLOCKS_APART: Duration = Duration::from_secs(6);
