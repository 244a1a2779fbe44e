//! `tests/vectors/policy.json`: what every engine has to answer.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::fixture::{NOON, VECTORS, delegation, number, parties, question, sources, world};
use crate::{
    domain::{DelegationId, ModeSet, Time, connector::Category, delegation::Delegation},
    policy::{ApprovalKind, Budget, CompiledPolicies, OrgPermit, Question, demo},
};

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    org: String,
    agent: String,
    delegations: Vec<DelegationCase>,
    question: QuestionCase,
    expect: Map<String, Value>,
    #[serde(default)]
    connector: Option<String>,
    #[serde(default = "ada")]
    email: Option<String>,
    #[serde(default)]
    external: Option<ExternalCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DelegationCase {
    categories: BTreeSet<Category>,
    #[serde(default)]
    tools: BTreeSet<String>,
    #[serde(default)]
    raw: bool,
    #[serde(default)]
    expires_at: Option<Time>,
    #[serde(default)]
    ended_at: Option<Time>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QuestionCase {
    tool: String,
    args: Value,
    #[serde(default)]
    now: Option<Time>,
    #[serde(default)]
    live_session: bool,
    #[serde(default)]
    admission_age_s: Option<u64>,
    #[serde(default)]
    approvals: BTreeSet<ApprovalKind>,
    #[serde(default)]
    budgets: Vec<Budget>,
    #[serde(default)]
    claimed: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExternalCase {
    modes: Option<ModeSet>,
    max_ttl_s: Option<u64>,
}

fn ada() -> Option<String> {
    parties().user.email
}

#[test]
fn every_decision_vector_is_answered_as_written() {
    let File { cases } = serde_json::from_str(VECTORS).unwrap();
    assert!(cases.len() >= 60, "the vectors are all there");
    let wrong: Vec<String> = cases.iter().flat_map(run).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The members that differ.
fn run(case: &Case) -> Vec<String> {
    let world = world();
    let demo = demo::sources();
    let mut sources = sources(&case.org, &case.agent);
    if case.org == "demo" {
        sources.org = demo.org;
    }
    if case.agent == "demo" {
        sources.agent = demo.agent;
    }
    let compiled = match CompiledPolicies::compile(&sources, world.vocabulary()) {
        Ok(compiled) => compiled,
        Err(findings) => return vec![format!("{}: {}", case.name, findings[0])],
    };
    let mut parties = parties();
    parties.user.email.clone_from(&case.email);
    if let Some(connector) = &case.connector {
        parties.grant.connector = connector.parse().unwrap();
    }
    let delegations: Vec<Delegation> = (0..).zip(&case.delegations).map(delegated).collect();
    let permit = match &case.external {
        None => OrgPermit::Policy,
        Some(external) => OrgPermit::External {
            modes: external.modes,
            max_ttl_s: external.max_ttl_s,
        },
    };
    let evaluation = compiled
        .prepare(&parties, &delegations)
        .unwrap()
        .evaluate(&asked(&case.question), &permit);
    let got = serde_json::to_value(&evaluation).unwrap();
    case.expect
        .iter()
        .filter(|(member, wanted)| got.get(*member) != Some(wanted))
        .map(|(member, wanted)| format!("{}: {member} is {}, not {wanted}", case.name, got[member]))
        .collect()
}

fn delegated((id, case): (u128, &DelegationCase)) -> Delegation {
    Delegation {
        id: DelegationId::from_bytes(number(id)),
        categories: case.categories.clone(),
        tools: case.tools.clone(),
        raw: case.raw,
        expires_at: case.expires_at,
        ended_at: case.ended_at,
        ..delegation(id)
    }
}

fn asked(case: &QuestionCase) -> Question {
    Question {
        now: case.now.unwrap_or(Time::parse_rfc3339(NOON).unwrap()),
        live_session: case.live_session,
        admission_age_s: case.admission_age_s,
        approvals: case.approvals.clone(),
        budgets: case.budgets.clone(),
        claimed: case.claimed.clone(),
        ..question(&case.tool, case.args.clone())
    }
}
