//! A small org: Ada, one agent, two connectors whose actions come from the vectors.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    domain::{
        AgentId, DelegationId, GrantId, OrgId, ScopeSet, Time, UserId,
        connector::{ActionDefinition, Category, ConnectorId},
        delegation::Delegation,
        grant::Account,
        principal::Role,
    },
    policy::{
        AgentFacts, CompiledPolicies, ConnectorActions, Evaluation, GrantFacts, OrgPermit, Parties,
        PolicyFinding, PolicySources, PolicyText, Question, UserFacts, Vocabulary,
    },
};

pub(super) const VECTORS: &str = include_str!("../../../tests/vectors/policy.json");
pub(super) const PERMIT_ALL: &str = "permit (principal, action, resource);";
/// 20 November 2026, a Friday, noon.
pub(super) const NOON: &str = "2026-11-20T12:00:00Z";

#[derive(Deserialize)]
struct WithConnectors {
    connectors: BTreeMap<ConnectorId, Vec<ActionDefinition>>,
}

pub(super) struct World {
    connectors: BTreeMap<ConnectorId, Vec<ActionDefinition>>,
    vocabulary: OnceLock<Arc<Vocabulary>>,
}

pub(super) fn world() -> World {
    let WithConnectors { connectors } = serde_json::from_str(VECTORS).unwrap();
    World {
        connectors,
        vocabulary: OnceLock::new(),
    }
}

impl World {
    pub(super) fn actions(&self) -> Vec<ConnectorActions<'_>> {
        self.connectors
            .iter()
            .map(|(id, actions)| ConnectorActions { id, actions })
            .collect()
    }

    pub(super) fn vocabulary(&self) -> &Arc<Vocabulary> {
        self.vocabulary
            .get_or_init(|| Vocabulary::of(&self.actions()).unwrap())
    }

    pub(super) fn compile(&self, org: &str, agent: &str) -> Result<CompiledPolicies, Vec<PolicyFinding>> {
        CompiledPolicies::compile(&sources(org, agent), self.vocabulary())
    }

    /// Asks with everything delegated.
    pub(super) fn ask(&self, org: &str, agent: &str, question: &Question) -> Evaluation {
        self.compile(org, agent)
            .unwrap()
            .prepare(&parties(), &[delegated_all()])
            .unwrap()
            .evaluate(question, &OrgPermit::Policy)
    }
}

pub(super) fn sources(org: &str, agent: &str) -> PolicySources {
    let file = |text: &str| {
        vec![PolicyText {
            name: "p.cedar".to_owned(),
            text: text.to_owned(),
        }]
    };
    PolicySources {
        org: file(org),
        agent: file(agent),
        version: "1".to_owned(),
    }
}

pub(super) fn number(number: u128) -> [u8; 16] {
    number.to_be_bytes()
}

pub(super) fn parties() -> Parties {
    Parties {
        org: OrgId::from_bytes(number(4)),
        user: UserFacts {
            id: UserId::from_bytes(number(2)),
            email: Some("ada@acme.example".to_owned()),
            role: Role::Member,
            managed_by: None,
        },
        agent: AgentFacts {
            id: AgentId::from_bytes(number(1)),
            name: "demo".to_owned(),
        },
        grant: GrantFacts {
            id: GrantId::from_bytes(number(3)),
            connector: "acme-mail".parse().unwrap(),
            account: Account {
                id: Some("1".to_owned()),
                label: "ada@acme.example".to_owned(),
                email: None,
                tenant: Some("T1".to_owned()),
            },
            label: None,
            scopes: ScopeSet::parse("mail.read mail.send", ' ').unwrap(),
        },
    }
}

pub(super) fn delegation(id: u128) -> Delegation {
    let parties = parties();
    Delegation {
        id: DelegationId::from_bytes(number(id)),
        org: parties.org,
        user: parties.user.id,
        agent: parties.agent.id,
        grant: parties.grant.id,
        categories: BTreeSet::new(),
        tools: BTreeSet::new(),
        raw: false,
        expires_at: None,
        made_epoch: 1,
        ended_at: None,
    }
}

pub(super) fn delegated_all() -> Delegation {
    Delegation {
        categories: Category::ALL.into(),
        raw: true,
        ..delegation(0)
    }
}

pub(super) fn question(tool: &str, args: Value) -> Question {
    Question {
        tool: tool.to_owned(),
        args,
        now: Time::parse_rfc3339(NOON).unwrap(),
        live_session: false,
        admission_age_s: None,
        approvals: BTreeSet::new(),
        budgets: Vec::new(),
        claimed: None,
    }
}

pub(super) fn get() -> Question {
    question("messages.get", json!({"id": "m1"}))
}

pub(super) fn send(domains: &[&str]) -> Question {
    let to: Vec<Value> = domains
        .iter()
        .map(|domain| json!({"local": "x", "domain": domain}))
        .collect();
    question("messages.send", json!({"to": to, "subject": "s", "body": "b"}))
}
