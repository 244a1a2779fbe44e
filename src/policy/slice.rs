//! The slice: only the policies that can speak about one agent and one grant are evaluated.
//!
//! INVARIANT: a policy is left out only when its own scope rules it out, whatever the rest of it says; so a slice
//! answers as the whole set would (a property test holds this). Cedar is linear in what it is given.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use cedar_policy::{
    ActionConstraint, Effect, Entities, EntityUid, Policy, PolicyId, PolicySet, PrincipalConstraint,
    ResourceConstraint,
};
use serde_json::json;

use super::{
    compile::{Compiled, CompiledPolicies},
    context::{self, Uids},
    evaluation::Terms,
    facts::{Parties, WrongFacts},
    reads::Reads,
    rule::Rule,
    said::Memory,
    schema::{ConnectorTools, Tool, Vocabulary},
};
use crate::domain::{
    AgentId, GrantId, Mode, ModeSet, UserId, connector::ConnectorId, delegation::Delegation,
};

/// The delegations of an org, found by whom they are about: a look-up costs the same however many there are.
#[derive(Debug, Clone, Default)]
pub struct DelegationIndex(HashMap<(AgentId, UserId, GrantId), Vec<Delegation>>);

impl FromIterator<Delegation> for DelegationIndex {
    fn from_iter<I: IntoIterator<Item = Delegation>>(delegations: I) -> Self {
        let mut index = Self::default();
        for delegation in delegations {
            let key = (delegation.agent, delegation.user, delegation.grant);
            index.0.entry(key).or_default().push(delegation);
        }
        index
    }
}

impl DelegationIndex {
    /// The delegations from `user` to `agent` over `grant`.
    #[must_use]
    pub fn of(&self, agent: AgentId, user: UserId, grant: GrantId) -> &[Delegation] {
        self.0.get(&(agent, user, grant)).map_or(&[], Vec::as_slice)
    }
}

/// Everything about one agent and one grant that does not change from request to request. Keep it as long as the org's
/// epoch stands, and no longer.
#[derive(Debug, Clone)]
pub struct PreparedFacts {
    pub(super) compiled: Arc<Compiled>,
    pub(super) connector: Arc<ConnectorTools>,
    pub(super) uids: Uids,
    pub(super) entities: Arc<Entities>,
    pub(super) org: Arc<Slice>,
    pub(super) user: Arc<Slice>,
    pub(super) agent: Arc<Slice>,
    /// Of clones, too: they are about the same.
    pub(super) memory: Arc<Memory>,
}

impl PreparedFacts {
    /// Whether some applying policy reads the arguments of this tool. A delegation reads none.
    pub(super) fn reads_args_of(&self, tool: &Tool) -> bool {
        [&self.org, &self.agent]
            .iter()
            .any(|slice| slice.reads_args.contains(&tool.uid))
    }

    /// Whether Cedar may read the request's context where it is asked about this tool, in any set. If not, it says the same
    /// of every request: all else that it is given is in here, and none of its functions looks at a clock.
    pub(super) fn reads_context_of(&self, tool: &Tool) -> bool {
        [&self.org, &self.user, &self.agent]
            .iter()
            .any(|slice| slice.reads_context.contains(&tool.uid))
    }

    /// The same, but Cedar is asked every time. The yardstick of the property tests.
    #[cfg(test)]
    pub(super) fn forgetful(&self) -> Self {
        let tools = self.connector.tools.values();
        let org = Slice {
            set: self.org.set.clone(),
            rules: self.org.rules.clone(),
            reads_args: self.org.reads_args.clone(),
            reads_context: tools.map(|tool| tool.uid.clone()).collect(),
        };
        Self {
            org: Arc::new(org),
            ..self.clone()
        }
    }
}

/// The facts cannot be prepared for an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unpreparable {
    /// The policies were compiled without this connector.
    #[error("the policies know no such connector")]
    UnknownConnector,
    /// The facts do not fit the policy schema.
    #[error("the facts do not fit the policy schema")]
    Facts,
}

impl From<WrongFacts> for Unpreparable {
    fn from(WrongFacts: WrongFacts) -> Self {
        Self::Facts
    }
}

/// A Cedar set and what is known of its policies.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) set: PolicySet,
    pub(super) rules: HashMap<PolicyId, Arc<Rule>>,
    /// The tools of the connector whose arguments some policy of the set reads.
    reads_args: HashSet<EntityUid>,
    /// Those at which some policy of the set may read any part of the context.
    reads_context: HashSet<EntityUid>,
}

impl Slice {
    fn new<'a>(
        policies: impl IntoIterator<Item = &'a (Policy, Arc<Rule>)>,
        connector: &ConnectorTools,
    ) -> Result<Self, WrongFacts> {
        let (mut set, mut rules) = (PolicySet::new(), HashMap::new());
        for (policy, rule) in policies {
            set.add(policy.clone()).map_err(|_| WrongFacts)?;
            rules.insert(policy.id().clone(), Arc::clone(rule));
        }
        let where_some = |reads: fn(&Rule, &Tool) -> bool| -> HashSet<EntityUid> {
            let tools = connector.tools.values();
            tools
                .filter(|tool| rules.values().any(|rule: &Arc<Rule>| reads(rule, tool)))
                .map(|tool| tool.uid.clone())
                .collect()
        };
        let reads_args = where_some(Rule::reads_args_of);
        let reads_context = where_some(Rule::reads_context_of);
        Ok(Self {
            set,
            rules,
            reads_args,
            reads_context,
        })
    }
}

impl CompiledPolicies {
    /// Picks the slice for one agent and grant and builds the entities.
    ///
    /// `delegations` may hold others' too; only those of exactly these parties count. Floors (revocations) are the
    /// caller's to apply: a dead delegation must not be handed in.
    ///
    /// # Errors
    /// When the connector is unknown or a fact does not fit the schema.
    pub fn prepare(
        &self,
        parties: &Parties,
        delegations: &[Delegation],
    ) -> Result<PreparedFacts, Unpreparable> {
        let compiled = &self.0;
        let uids = Uids::new(&compiled.vocabulary.kinds, parties);
        let connector = self.connector(parties)?;
        let about = About {
            uids: &uids,
            connector: &parties.grant.connector,
        };
        let org = compiled.org.slice(&about, &connector)?;
        let agent = compiled.agent.slice(&about, &connector)?;
        let own = delegations
            .iter()
            .filter(|delegation| is_between(delegation, parties));
        self.assemble(parties, uids, connector, [org, agent], own)
    }

    fn connector(&self, parties: &Parties) -> Result<Arc<ConnectorTools>, Unpreparable> {
        let connectors = &self.0.vocabulary.connectors;
        let connector = connectors.get(&parties.grant.connector);
        connector.map(Arc::clone).ok_or(Unpreparable::UnknownConnector)
    }

    /// Whether the agent layer could permit this tool to this agent for any arguments and grant: what an agent must
    /// have before anything about a person is told to it (protocol §6).
    #[must_use]
    pub fn covers_tool(&self, agent: AgentId, connector: &ConnectorId, tool: &str) -> bool {
        let compiled = &self.0;
        let known = compiled.vocabulary.connectors.get(connector);
        let agent = context::agent_uid(&compiled.vocabulary.kinds, agent);
        known
            .and_then(|known| known.tools.get(tool))
            .is_some_and(|tool| compiled.agent.may_permit(&agent, tool))
    }

    /// The same without slicing: every policy, every delegation. The yardstick of the property tests.
    #[cfg(test)]
    pub(super) fn prepare_whole(
        &self,
        parties: &Parties,
        delegations: &[Delegation],
    ) -> Result<PreparedFacts, Unpreparable> {
        let sliced = self.prepare(parties, delegations)?;
        let whole = |index: &Index, applying: &Slice| -> Result<_, WrongFacts> {
            Ok(Arc::new(Slice {
                // What a tool's arguments are read by is asked of those that apply.
                reads_args: applying.reads_args.clone(),
                ..Slice::new(&index.policies, &sliced.connector)?
            }))
        };
        let sets = [
            whole(&self.0.org, &sliced.org)?,
            whole(&self.0.agent, &sliced.agent)?,
        ];
        let connector = Arc::clone(&sliced.connector);
        self.assemble(parties, sliced.uids.clone(), connector, sets, delegations)
    }

    fn assemble<'a>(
        &self,
        parties: &Parties,
        uids: Uids,
        connector: Arc<ConnectorTools>,
        [org, agent]: [Arc<Slice>; 2],
        delegations: impl IntoIterator<Item = &'a Delegation>,
    ) -> Result<PreparedFacts, Unpreparable> {
        let mut delegated = Vec::new();
        for delegation in delegations {
            delegated.extend(permit(delegation, &connector, &self.0.vocabulary)?);
        }
        let user = Arc::new(Slice::new(&delegated, &connector)?);
        let entities = Arc::new(context::entities(&uids, parties, &connector.entities)?);
        Ok(PreparedFacts {
            compiled: Arc::clone(&self.0),
            connector,
            uids,
            entities,
            org,
            user,
            agent,
            memory: Arc::default(),
        })
    }
}

fn is_between(delegation: &Delegation, parties: &Parties) -> bool {
    delegation.org == parties.org
        && delegation.user == parties.user.id
        && delegation.agent == parties.agent.id
        && delegation.grant == parties.grant.id
}

/// A delegation as a permit; `None` when it lets nothing through. Built from ids and known names, never from text.
fn permit(
    delegation: &Delegation,
    connector: &ConnectorTools,
    vocabulary: &Vocabulary,
) -> Result<Option<(Policy, Arc<Rule>)>, WrongFacts> {
    if delegation.ended_at.is_some() {
        return Ok(None);
    }
    let actions: Vec<EntityUid> = if delegation.tools.is_empty() {
        let categories = delegation.categories.iter();
        categories
            .map(|category| vocabulary.kinds.action(category.as_str()))
            .collect()
    } else {
        // `http.request` is in no category: it is delegated by name or not at all.
        let named = delegation
            .tools
            .iter()
            .filter_map(|name| connector.tools.get(name));
        named
            .filter(|tool| {
                tool.category
                    .is_none_or(|category| delegation.categories.contains(&category))
            })
            .map(|tool| tool.uid.clone())
            .collect()
    };
    if actions.is_empty() {
        return Ok(None);
    }
    let entity = |kind: &str, id: &str| json!({"type": kind, "id": id});
    let names: Vec<_> = actions
        .iter()
        .map(|uid| entity("Action", uid.id().unescaped()))
        .collect();
    let form = json!({
        "effect": "permit",
        "principal": {"op": "==", "entity": entity("Agent", &delegation.agent.to_string())},
        "action": {"op": "in", "entities": names},
        "resource": {"op": "==", "entity": entity("Grant", &delegation.grant.to_string())},
        "conditions": [],
    });
    let name = delegation.id.to_string();
    let policy = Policy::from_json(Some(PolicyId::new(&name)), form).map_err(|_| WrongFacts)?;
    // The person decides about raw tokens only; the other rungs are the organisation's and the agent's matter.
    let modes = if delegation.raw {
        ModeSet::ALL
    } else {
        ModeSet::ALL.without(Mode::Raw)
    };
    let rule = Rule {
        name,
        file: String::new(),
        line: 0,
        effect: Effect::Permit,
        action: ActionConstraint::In(actions),
        reads: Reads::default(),
        reason: None,
        message: None,
        escalate: None,
        terms: Terms {
            modes,
            ..Terms::WIDEST
        },
        expires_at: delegation.expires_at,
    };
    Ok(Some((policy, Arc::new(rule))))
}

/// Whom and what a slice is about.
struct About<'a> {
    uids: &'a Uids,
    connector: &'a ConnectorId,
}

/// The policies of a layer, each filed under the narrowest thing its scope names.
#[derive(Debug)]
pub(super) struct Index {
    policies: Vec<(Policy, Arc<Rule>)>,
    scopes: Vec<Scope>,
    by_entity: HashMap<EntityUid, Vec<usize>>,
    by_connector: HashMap<ConnectorId, Vec<usize>>,
    general: Vec<usize>,
    slices: Mutex<Slices>,
}

/// Those in use, by connector and the numbers of their policies: most grants of an org have the same ones.
type Slices = HashMap<(ConnectorId, Vec<usize>), Weak<Slice>>;

/// What a policy's scope demands; `None`: nothing.
#[derive(Debug)]
struct Scope {
    agent: Option<EntityUid>,
    /// The entity, and whether being `in` it is enough.
    resource: Option<(EntityUid, bool)>,
    connectors: Option<HashSet<ConnectorId>>,
}

impl Index {
    pub(super) fn new(policies: Vec<(Policy, Arc<Rule>)>, vocabulary: &Vocabulary) -> Self {
        let mut index = Self {
            scopes: policies
                .iter()
                .map(|(policy, _)| Scope::of(policy, vocabulary))
                .collect(),
            policies,
            by_entity: HashMap::new(),
            by_connector: HashMap::new(),
            general: Vec::new(),
            slices: Mutex::default(),
        };
        for (number, scope) in index.scopes.iter().enumerate() {
            let entity = scope
                .agent
                .as_ref()
                .or(scope.resource.as_ref().map(|(entity, _)| entity));
            match (entity, &scope.connectors) {
                (Some(entity), _) => index.by_entity.entry(entity.clone()).or_default().push(number),
                (None, Some(connectors)) => {
                    for connector in connectors {
                        index
                            .by_connector
                            .entry(connector.clone())
                            .or_default()
                            .push(number);
                    }
                }
                (None, None) => index.general.push(number),
            }
        }
        index
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.policies.iter().map(|(_, rule)| rule.as_ref())
    }

    /// Whether some permit could match this agent and tool; conditions and resource are left out.
    fn may_permit(&self, agent: &EntityUid, tool: &Tool) -> bool {
        self.policies
            .iter()
            .zip(&self.scopes)
            .any(|((policy, rule), scope)| {
                policy.effect() == Effect::Permit
                    && rule.applies_to(tool)
                    && scope.agent.as_ref().is_none_or(|of| of == agent)
            })
    }

    fn slice(&self, about: &About<'_>, connector: &ConnectorTools) -> Result<Arc<Slice>, WrongFacts> {
        let key = (about.connector.clone(), self.applying(about).collect::<Vec<_>>());
        let slices = || self.slices.lock().unwrap_or_else(PoisonError::into_inner);
        let known = slices().get(&key).and_then(Weak::upgrade);
        if let Some(slice) = known {
            return Ok(slice);
        }
        // Made outside of the lock: of very many policies that takes long. Made twice at once, both are good.
        let (_, numbers) = &key;
        let policies = numbers.iter().filter_map(|number| self.policies.get(*number));
        let slice = Arc::new(Slice::new(policies, connector)?);
        let mut slices = slices();
        // Before the map has to grow, those that nobody holds any more make room.
        if slices.len() == slices.capacity() {
            slices.retain(|_, slice| slice.strong_count() > 0);
        }
        slices.insert(key, Arc::downgrade(&slice));
        Ok(slice)
    }

    /// The numbers of the policies that can speak about these.
    fn applying<'a>(&'a self, about: &'a About<'_>) -> impl Iterator<Item = usize> {
        let uids = about.uids;
        [&uids.agent, &uids.user, &uids.grant]
            .into_iter()
            .filter_map(|uid| self.by_entity.get(uid))
            .chain(self.by_connector.get(about.connector))
            .chain([&self.general])
            .flatten()
            .copied()
            .filter(|number| self.scopes.get(*number).is_none_or(|scope| scope.covers(about)))
    }
}

impl Scope {
    fn of(policy: &Policy, vocabulary: &Vocabulary) -> Self {
        // An agent is in nothing but itself, so `in` and `==` are the same for it.
        let agent = match policy.principal_constraint() {
            PrincipalConstraint::Eq(uid)
            | PrincipalConstraint::In(uid)
            | PrincipalConstraint::IsIn(_, uid) => Some(uid),
            PrincipalConstraint::Any | PrincipalConstraint::Is(_) => None,
        };
        let resource = match policy.resource_constraint() {
            ResourceConstraint::Eq(uid) => Some((uid, false)),
            ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => Some((uid, true)),
            ResourceConstraint::Any | ResourceConstraint::Is(_) => None,
        };
        let connector_of = |uid: &EntityUid| vocabulary.owner.get(uid).cloned();
        let connectors = match policy.action_constraint() {
            ActionConstraint::Any => None,
            ActionConstraint::Eq(uid) => connector_of(&uid).map(|connector| HashSet::from([connector])),
            // One category among them, and every connector is meant.
            ActionConstraint::In(uids) => uids.iter().map(connector_of).collect(),
        };
        Self {
            agent,
            resource,
            connectors,
        }
    }

    fn covers(&self, about: &About<'_>) -> bool {
        let uids = about.uids;
        let agent = self.agent.as_ref().is_none_or(|agent| *agent == uids.agent);
        let resource = self
            .resource
            .as_ref()
            .is_none_or(|(uid, within)| *uid == uids.grant || (*within && *uid == uids.user));
        let connector = self
            .connectors
            .as_ref()
            .is_none_or(|connectors| connectors.contains(about.connector));
        agent && resource && connector
    }
}
