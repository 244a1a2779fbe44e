//! Facts in memory, each set read in one snapshot and good for one epoch.
//!
//! Nothing here is trusted at release: the gate compares the epoch and reads the secret again. A stale view costs a
//! second try, never a wrong release.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use serde_json::Value;

use crate::{
    crypto::jwk::PinnedKey,
    domain::{
        AgentId, GrantId, OrgId, Time, connector::Connector, entry::Epoch, grant::GrantState, random_pause,
    },
    policy::{CompiledPolicies, Evaluation, OrgPermit, PreparedFacts},
    release::{TrustedKey, verify::Ceiling},
    store::{AgentFacts, SecretKind, SecretRow, VendFacts},
};

use super::{
    Deps, Refusal,
    actions::{Caller, Prepared},
};
use views::Views;

mod views;

/// Views of agents and grants, by epoch.
#[derive(Debug, Default)]
pub struct FactsCache {
    views: Mutex<Views<AgentView, GrantView>>,
    policies: Mutex<HashMap<(OrgId, u64), Arc<CompiledPolicies>>>,
    /// Who misses a view waits for whoever is reading it already: every epoch is read once, not once per request.
    reading: Lanes,
}

/// One reader at a time for each agent or grant; a few share a lane.
#[derive(Debug)]
struct Lanes([tokio::sync::Mutex<()>; LANES]);

impl Default for Lanes {
    fn default() -> Self {
        Self(std::array::from_fn(|_| tokio::sync::Mutex::new(())))
    }
}

impl Lanes {
    async fn enter(&self, key: impl std::hash::Hash) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        let lanes = u64::try_from(LANES).ok()?;
        let lane = self.0.get(usize::try_from(hash % lanes).ok()?)?;
        Some(lane.lock().await)
    }
}

/// An agent with its org's compiled policies and trusted engines.
#[derive(Debug)]
pub struct AgentView {
    /// As read.
    pub facts: AgentFacts,
    /// The policies in force, compiled; `None`: the org has none, so everything is denied.
    pub policies: Option<Arc<CompiledPolicies>>,
    /// The keys of the org's engines.
    pub engine_keys: Vec<TrustedKey>,
}

/// A grant with what its person lets the agent do, and its sealed tokens.
#[derive(Debug)]
pub struct GrantView {
    /// As read.
    pub facts: VendFacts,
    tokens: Mutex<HashMap<String, SecretRow>>,
    policy: OnceLock<PreparedFacts>,
}

impl GrantView {
    /// Whether the grant's person lets the agent ask about it. Of a grant that was revoked the agent is told that, if it
    /// was let ask until then: a revocation ends delegations, too.
    #[must_use]
    pub fn lets_ask(&self, now: Time) -> bool {
        let revoked = matches!(self.facts.grant.state, GrantState::Revoked { .. });
        let also = revoked.then_some(&self.facts.revoked_delegations);
        let mut delegations = self.facts.delegations.iter().chain(also.into_iter().flatten());
        delegations.any(|delegation| delegation.expires_at.is_none_or(|end| now < end))
    }

    /// A sealed token as last seen.
    #[must_use]
    pub fn token(&self, kind: &SecretKind) -> Option<SecretRow> {
        self.tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&kind.to_string())
            .cloned()
    }

    /// Remembers a sealed token.
    pub fn keep_token(&self, kind: &SecretKind, row: SecretRow) {
        self.tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(kind.to_string(), row);
    }
}

impl AgentView {
    /// Whether the agent layer could permit this tool for any arguments.
    #[must_use]
    pub fn covers(&self, connector: &Connector, tool: &str) -> bool {
        self.policies
            .as_ref()
            .is_some_and(|policies| policies.covers_tool(self.facts.agent.id, &connector.id, tool))
    }

    /// Asks the three layers about the exact action.
    ///
    /// # Errors
    /// When the policies in force cannot judge these facts; everything is then refused.
    pub fn evaluate(
        &self,
        prepared: &Prepared,
        claimed: Option<&Value>,
        now: Time,
        permit: &OrgPermit,
    ) -> Result<Evaluation, Refusal> {
        let Some(policies) = &self.policies else {
            return Err(Refusal::denied("not_permitted"));
        };
        let grant = &prepared.grant;
        // INVARIANT: what is laid out for policy is of one epoch, as the gate will ask for one.
        if self.facts.epoch != grant.facts.epoch {
            return Err(Refusal::Unsettled);
        }
        let facts = match grant.policy.get() {
            Some(facts) => facts,
            None => {
                let facts = super::question::prepare(policies, &self.facts, &grant.facts)?;
                grant.policy.get_or_init(|| facts)
            }
        };
        Ok(super::question::ask(facts, prepared, claimed, now, permit))
    }
}

impl Prepared {
    /// The epoch both views were read at.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.agent.facts.epoch
    }
}

impl FactsCache {
    /// The agent that came with a key of this keyed hash before, since the org was last known to have moved on.
    #[must_use]
    pub fn caller(&self, hash: &[u8; 32]) -> Option<Caller> {
        self.views().caller(hash)
    }

    /// Remembers whose key it is.
    pub fn keep_caller(&self, hash: [u8; 32], caller: Caller) {
        self.views().keep_caller(hash, caller);
    }

    /// The agent's view; read if there is none.
    ///
    /// # Errors
    /// When there is no such agent or the database is unavailable.
    pub async fn agent(&self, deps: &Deps, org: OrgId, agent: AgentId) -> Result<Arc<AgentView>, Refusal> {
        if let Some(view) = self.views().agent(org, agent) {
            return Ok(view);
        }
        let _reading = self.reading.enter((org, agent)).await;
        if let Some(view) = self.views().agent(org, agent) {
            return Ok(view);
        }
        let mut tx = deps.store.read(org).await?;
        let mut facts = tx
            .agent_facts(org, agent)
            .await?
            .ok_or(Refusal::Unauthenticated)?;
        drop(tx);
        let policies = self.policies(deps, &facts)?;
        // Their texts, long perhaps, have served their purpose.
        facts.policies = None;
        let engine_keys = facts
            .engines
            .iter()
            .filter_map(|engine| {
                let key = PinnedKey::from_jwk(&engine.public_jwk).ok()?;
                let ceiling = Ceiling {
                    connectors: engine.connectors.iter().cloned().collect(),
                    tools: engine.tools.iter().cloned().collect(),
                };
                Some(TrustedKey {
                    key,
                    iss: engine.iss.clone(),
                    ceiling: Some(ceiling),
                })
            })
            .collect();
        let view = Arc::new(AgentView {
            facts,
            policies,
            engine_keys,
        });
        self.views()
            .keep_agent(org, view.facts.epoch, agent, Arc::clone(&view));
        Ok(view)
    }

    /// The grant's view for an agent; read if there is none, or if it is of another epoch than the agent's.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn grant(
        &self,
        deps: &Deps,
        org: OrgId,
        agent: AgentId,
        grant: GrantId,
    ) -> Result<Option<Arc<GrantView>>, Refusal> {
        if let Some(view) = self.views().grant(org, agent, grant) {
            return Ok(Some(view));
        }
        let _reading = self.reading.enter((org, agent, grant)).await;
        if let Some(view) = self.views().grant(org, agent, grant) {
            return Ok(Some(view));
        }
        let Some(facts) = deps.store.read(org).await?.vend_facts(org, agent, grant).await? else {
            return Ok(None);
        };
        let view = Arc::new(GrantView {
            facts,
            tokens: Mutex::default(),
            policy: OnceLock::new(),
        });
        self.views()
            .keep_grant(org, view.facts.epoch, (agent, grant), Arc::clone(&view));
        Ok(Some(view))
    }

    /// Whether what is remembered of the org is of its current epoch.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn is_current(&self, deps: &Deps, org: OrgId) -> Result<bool, Refusal> {
        let epoch = deps.store.read(org).await?.epoch(org).await?;
        Ok(self.views().fit(org, epoch))
    }

    /// Before what was found stale is tried again: a short pause, longer each time and never the same for two requests, so
    /// that those who wait do not meet again; then what is not of the org's current epoch is forgotten.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn again(&self, deps: &Deps, org: OrgId, attempt: u32) -> Result<(), Refusal> {
        let most = PAUSE.saturating_mul(1 << attempt.min(4));
        tokio::time::sleep(random_pause(most, &*deps.random)?).await;
        match deps.store.read(org).await?.epoch(org).await? {
            Some(epoch) => {
                let mut views = self.views();
                views.forget_callers(org);
                views.forget_before(org, epoch);
            }
            None => self.forget(org),
        }
        Ok(())
    }

    /// Forgets what was read of one grant.
    pub fn forget_grant(&self, org: OrgId, grant: GrantId) {
        self.views().forget_grant(org, grant);
    }

    /// Forgets what was read of an org; compiled policies stay, they are keyed by version.
    pub fn forget(&self, org: OrgId) {
        self.views().forget(org);
    }

    fn views(&self) -> MutexGuard<'_, Views<AgentView, GrantView>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn policies(&self, deps: &Deps, facts: &AgentFacts) -> Result<Option<Arc<CompiledPolicies>>, Refusal> {
        let Some(row) = &facts.policies else {
            return Ok(None);
        };
        let key = (facts.org.id, row.version);
        let held = || self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compiled) = held().get(&key) {
            return Ok(Some(Arc::clone(compiled)));
        }
        let compiled = super::question::compile(deps, row)?;
        let compiled = Arc::new(compiled);
        let mut policies = held();
        policies.retain(|(org, _), _| *org != facts.org.id);
        policies.insert(key, Arc::clone(&compiled));
        Ok(Some(compiled))
    }
}

/// Reads of different agents and grants that may go on at one time.
const LANES: usize = 64;
/// The longest pause before the second try; it doubles with every further one, up to sixteen times this.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(5);
