//! Facts in memory, each set read in one snapshot and good for one epoch.
//!
//! Nothing here is trusted at release: the gate compares the epoch and reads the secret again. A stale view costs a
//! second try, never a wrong release. A database that goes back under the process repeats an epoch with other facts: it is
//! given up where it is seen to be behind what was read of it, and what was only read is read again for every call until a
//! commit at its epoch has left a number that such a database lacks ([`FactsCache::proved`]).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::Value;

use crate::{
    crypto::jwk::PinnedKey,
    domain::{
        AgentId, GrantId, OrgId, Time, connector::Connector, entry::Epoch, grant::GrantState, random_pause,
    },
    policy::{CompiledPolicies, Evaluation, OrgPermit, PolicyFinding, PreparedFacts},
    release::{TrustedKey, verify::Ceiling},
    store::{AgentFacts, PolicyText, SecretKind, SecretRow, VendFacts},
};

use super::{
    Deps, Refusal,
    actions::{Caller, Prepared},
};
use policies::{Policies, Texts};
use views::{Moment, Views};

mod policies;
mod views;

/// Views of agents and grants, by epoch.
#[derive(Debug, Default)]
pub struct FactsCache {
    views: Mutex<Views<AgentView, GrantView>>,
    policies: Policies,
    /// Who misses a view waits for whoever is reading it already: every epoch is read once, not once per request. Nobody
    /// compiles in here.
    reading: Lanes,
    /// How far the epochs of orgs have come, as far as they were read here.
    seen: Mutex<HashMap<OrgId, Epoch>>,
    moments: AtomicU64,
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
    read: Moment,
}

/// An agent's facts, not yet with what the policies among them come to.
struct Found {
    facts: AgentFacts,
    texts: Option<Texts>,
    read: Moment,
}

/// A grant with what its person lets the agent do, and its sealed tokens.
#[derive(Debug)]
pub struct GrantView {
    /// As read.
    pub facts: VendFacts,
    tokens: Mutex<HashMap<String, SecretRow>>,
    policy: OnceLock<PreparedFacts>,
    read: Moment,
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

    /// The agent's view; read if there is none that is good for this call.
    ///
    /// # Errors
    /// When there is no such agent, the policies in force do not compile, or the database is unavailable or behind what was
    /// read of it.
    pub async fn agent(&self, deps: &Deps, org: OrgId, agent: AgentId) -> Result<Arc<AgentView>, Refusal> {
        let asked = self.moment();
        if let Some(view) = self.remembered_agent(org, agent, asked) {
            return Ok(view);
        }
        let reading = self.reading.enter((org, agent)).await;
        if let Some(view) = self.remembered_agent(org, agent, asked) {
            return Ok(view);
        }
        let found = self.read_agent(deps, org, agent).await?;
        let policies = found.texts.as_ref().map(|texts| self.policies.find(org, texts));
        if matches!(policies, Some(None)) {
            // Who waits for that holds neither the lane, where others wait, nor the texts.
            drop(found);
            drop(reading);
            return Box::pin(self.agent_to_compile_for(deps, org, agent, asked)).await;
        }
        Ok(self.keep_agent(found, policies.flatten()))
    }

    fn remembered_agent(&self, org: OrgId, agent: AgentId, asked: Moment) -> Option<Arc<AgentView>> {
        let view = self.views().agent(org, agent, asked)?;
        // So that an org whose facts stand is none that does not need them.
        self.policies.needed_by(org);
        Some(view)
    }

    /// The agent's view, where the org's policies have to be compiled for it: one call of the org at a time. What was read
    /// before is read again, for others may have compiled them meanwhile, or put other ones in force.
    async fn agent_to_compile_for(
        &self,
        deps: &Deps,
        org: OrgId,
        agent: AgentId,
        asked: Moment,
    ) -> Result<Arc<AgentView>, Refusal> {
        let _alone = self.policies.alone(org).await;
        if let Some(view) = self.remembered_agent(org, agent, asked) {
            return Ok(view);
        }
        let mut found = self.read_agent(deps, org, agent).await?;
        let policies = match found.texts.take() {
            Some(texts) => Some(self.policies.compiled(&deps.catalogue, org, texts).await?),
            None => None,
        };
        Ok(self.keep_agent(found, policies))
    }

    async fn read_agent(&self, deps: &Deps, org: OrgId, agent: AgentId) -> Result<Found, Refusal> {
        let (read, before) = (self.moment(), self.seen(org));
        let mut tx = deps.store.read(org).await?;
        let mut facts = tx
            .agent_facts(org, agent)
            .await?
            .ok_or(Refusal::Unauthenticated)?;
        drop(tx);
        self.saw(deps, org, before, Some(facts.epoch))?;
        // Taken out: the view does without their texts, long perhaps.
        let texts = facts.policies.take().map(Texts::from);
        Ok(Found { facts, texts, read })
    }

    fn keep_agent(&self, found: Found, policies: Option<Arc<CompiledPolicies>>) -> Arc<AgentView> {
        let Found { facts, read, .. } = found;
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
            read,
        });
        let (org, id) = (view.facts.org.id, view.facts.agent.id);
        self.forget_without_policies();
        let mut views = self.views();
        if self.may_keep(&view) {
            views.keep_agent(org, view.facts.epoch, id, Arc::clone(&view), read);
        }
        drop(views);
        view
    }

    /// The grant's view for an agent, of the epoch of the agent's; read if there is none that is good for this call.
    ///
    /// INVARIANT: facts of two epochs never meet: the gate compares one only, and so does whoever refuses.
    ///
    /// # Errors
    /// [`Refusal::Unsettled`] when the agent's view is of another epoch; when the database is unavailable or behind what was
    /// read of it.
    pub async fn grant(
        &self,
        deps: &Deps,
        agent: &AgentView,
        grant: GrantId,
    ) -> Result<Option<Arc<GrantView>>, Refusal> {
        let asked = self.moment();
        let (org, id) = (agent.facts.org.id, agent.facts.agent.id);
        if let Some(view) = self.views().grant(org, id, grant, asked) {
            return at_epoch_of(agent, view);
        }
        let _reading = self.reading.enter((org, id, grant)).await;
        if let Some(view) = self.views().grant(org, id, grant, asked) {
            return at_epoch_of(agent, view);
        }
        let (read, before) = (self.moment(), self.seen(org));
        let Some(facts) = deps.store.read(org).await?.vend_facts(org, id, grant).await? else {
            return Ok(None);
        };
        self.saw(deps, org, before, Some(facts.epoch))?;
        let view = Arc::new(GrantView {
            facts,
            tokens: Mutex::default(),
            policy: OnceLock::new(),
            read,
        });
        let mut views = self.views();
        if self.may_keep(agent) {
            views.keep_grant(org, view.facts.epoch, (id, grant), Arc::clone(&view), read);
        }
        drop(views);
        at_epoch_of(agent, view)
    }

    /// Whether views with this agent's policies may be remembered: they hold them, and more than [`Policies`] holds must not
    /// be held by what nobody uses. Asked with the views locked: who gives a set up forgets its views after that.
    fn may_keep(&self, agent: &AgentView) -> bool {
        let policies = agent.policies.as_ref();
        policies.is_none_or(|set| self.policies.holds(agent.facts.org.id, set))
    }

    /// Forgets the views of orgs whose policies were given up.
    fn forget_without_policies(&self) {
        let given_up = self.policies.given_up();
        if given_up.is_empty() {
            return;
        }
        let mut views = self.views();
        for (org, _) in &given_up {
            views.forget(*org);
        }
        drop(views);
        // To take long ones apart takes long.
        tokio::task::spawn_blocking(move || drop(given_up));
    }

    /// What is wrong with policies that an org wants to put in force; nothing if they can be.
    ///
    /// # Errors
    /// When it could not be found out.
    pub async fn findings(
        &self,
        deps: &Deps,
        org: OrgId,
        of_org: Vec<PolicyText>,
        of_agents: Vec<PolicyText>,
    ) -> Result<Vec<PolicyFinding>, Refusal> {
        let _alone = self.policies.alone(org).await;
        self.policies.findings(&deps.catalogue, of_org, of_agents).await
    }

    /// Told of a commit of this process at the epoch of these views, after it: what was read since they were is for every
    /// call from here on.
    pub fn proved(&self, agent: &AgentView, grant: Option<&GrantView>) {
        let read = grant.map_or(agent.read, |grant| agent.read.max(grant.read));
        self.views().prove(agent.facts.org.id, agent.facts.epoch, read);
    }

    /// Whether the org is at this epoch still: what was concluded from facts of that epoch holds at this moment, whatever is
    /// remembered by now.
    ///
    /// # Errors
    /// When the database is unavailable or behind what was read of it.
    pub async fn holds(&self, deps: &Deps, org: OrgId, epoch: Epoch) -> Result<bool, Refusal> {
        Ok(self.epoch(deps, org).await? == Some(epoch))
    }

    /// Before what was found stale is tried again: a short pause, longer each time and never the same for two requests, so
    /// that those who wait do not meet again; then what is not of the org's current epoch is forgotten.
    ///
    /// # Errors
    /// When the database is unavailable or behind what was read of it.
    pub async fn again(&self, deps: &Deps, org: OrgId, attempt: u32) -> Result<(), Refusal> {
        let most = PAUSE.saturating_mul(1 << attempt.min(4));
        tokio::time::sleep(random_pause(most, &*deps.random)?).await;
        match self.epoch(deps, org).await? {
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

    /// Forgets what was read of an org; compiled policies stay, they are known by their texts.
    pub fn forget(&self, org: OrgId) {
        self.views().forget(org);
    }

    async fn epoch(&self, deps: &Deps, org: OrgId) -> Result<Option<Epoch>, Refusal> {
        let before = self.seen(org);
        let epoch = deps.store.read(org).await?.epoch(org).await?;
        self.saw(deps, org, before, epoch)?;
        Ok(epoch)
    }

    fn seen(&self, org: OrgId) -> Option<Epoch> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&org).copied()
    }

    /// Remembers how far the org's epoch has come. `before` was known when the snapshot began: a database that is not as far
    /// has forgotten what it said.
    fn saw(
        &self,
        deps: &Deps,
        org: OrgId,
        before: Option<Epoch>,
        epoch: Option<Epoch>,
    ) -> Result<(), Refusal> {
        let is_behind = before.is_some_and(|before| {
            // One of another incarnation is compared before anything is entered.
            epoch
                .is_none_or(|epoch| epoch.incarnation == before.incarnation && epoch.counter < before.counter)
        });
        if is_behind {
            return Err(deps
                .store
                .found_older(org, &"it is behind what was read of it")
                .into());
        }
        if let Some(epoch) = epoch {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let known = seen.entry(org).or_insert(epoch);
            if known.incarnation != epoch.incarnation || known.counter < epoch.counter {
                *known = epoch;
            }
        }
        Ok(())
    }

    fn moment(&self) -> Moment {
        Moment(self.moments.fetch_add(1, Ordering::SeqCst))
    }

    fn views(&self) -> MutexGuard<'_, Views<AgentView, GrantView>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The grant's view, if it is of the epoch of the agent's.
fn at_epoch_of(agent: &AgentView, grant: Arc<GrantView>) -> Result<Option<Arc<GrantView>>, Refusal> {
    if grant.facts.epoch == agent.facts.epoch {
        Ok(Some(grant))
    } else {
        Err(Refusal::Unsettled)
    }
}

/// Reads of different agents and grants that may go on at one time.
const LANES: usize = 64;
/// The longest pause before the second try; it doubles with every further one, up to sixteen times this.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(5);
