//! The policy question: facts of ours, laid out for the engine.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    domain::{
        Time,
        connector::{ArgSpec, HTTP_REQUEST},
    },
    policy::{CompiledPolicies, Evaluation, Finding, OrgPermit, Question, Source, ToolFacts},
    store::{PolicyRow, PolicyText, StoreError},
};

use super::{Deps, Refusal, actions::Prepared};

/// Asks the three layers about the exact action.
#[must_use]
pub fn ask(
    policies: &CompiledPolicies,
    prepared: &Prepared,
    claimed: Option<&Value>,
    now: Time,
    permit: OrgPermit,
) -> Evaluation {
    let (agent, held) = (&prepared.agent.facts, &prepared.grant.facts);
    let question = Question {
        org: agent.org.id,
        user: held.user.id,
        user_email: held.user.email.as_deref(),
        user_role: held.user.role,
        agent: agent.agent.id,
        agent_name: &agent.agent.name,
        grant: held.grant.id,
        connector: &held.grant.connector,
        account: &held.grant.account,
        label: held.grant.label.as_deref(),
        scopes: &held.grant.scopes,
        tool: &prepared.action.tool,
        category: prepared.category,
        args: prepared.args.policy_view(),
        delegations: &held.delegations,
        now,
        live_session: false,
        claimed,
    };
    policies.evaluate(&question, permit)
}

/// Compiles a version that was valid when it was written.
///
/// # Errors
/// When it is not valid any more, as after a connector lost a tool: everything is then refused, loudly.
pub fn compile(deps: &Deps, row: &PolicyRow) -> Result<CompiledPolicies, Refusal> {
    compile_texts(deps, row.version, &row.org, &row.agent).map_err(|findings| {
        for finding in findings {
            tracing::error!(policy.file = %finding.file, policy.line = finding.line, cause = %finding.message,
                "a policy in force does not compile");
        }
        Refusal::StoreUnavailable(Some(StoreError::Inconsistent { table: "policies" }))
    })
}

/// Compiles policies against the tools of this deployment.
///
/// # Errors
/// What is wrong with them, file by file.
pub fn compile_texts(
    deps: &Deps,
    version: u64,
    org: &[PolicyText],
    agent: &[PolicyText],
) -> Result<CompiledPolicies, Vec<Finding>> {
    let sources = |texts: &[PolicyText]| -> Vec<Source> {
        texts
            .iter()
            .map(|text| Source {
                name: text.name.clone(),
                text: text.text.clone(),
            })
            .collect()
    };
    let none: BTreeMap<String, ArgSpec> = BTreeMap::new();
    let mut tools = Vec::new();
    for connector in deps.catalogue.iter() {
        for action in &connector.actions {
            tools.push(ToolFacts {
                connector: &connector.id,
                tool: &action.name,
                category: Some(action.category),
                args: &action.args,
            });
        }
        if connector.api.origin.is_some() {
            tools.push(ToolFacts {
                connector: &connector.id,
                tool: HTTP_REQUEST,
                category: None,
                args: &none,
            });
        }
    }
    CompiledPolicies::compile(version, &sources(org), &sources(agent), &tools)
}
