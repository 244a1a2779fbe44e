//! The policy question: facts of ours, laid out for the engine.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::Value;

use crate::{
    connectors::Catalogue,
    domain::Time,
    policy::{
        AgentFacts, CheckReport, CompiledPolicies, ConnectorActions, Evaluation, GrantFacts, OrgPermit,
        Parties, PolicyFinding, PolicySources, PolicyText, PreparedFacts, Question, UserFacts, Vocabulary,
        check,
    },
    store::{self, StoreError, VendFacts},
};

use super::{Refusal, actions::Prepared};

/// Lays out who asks with what; good as long as the epoch of both views stands.
///
/// # Errors
/// When the facts do not fit the policies in force: everything is then refused.
pub fn prepare(
    policies: &CompiledPolicies,
    agent: &store::AgentFacts,
    held: &VendFacts,
) -> Result<PreparedFacts, Refusal> {
    let parties = Parties {
        org: agent.org.id,
        user: UserFacts {
            id: held.user.id,
            email: held.user.email.clone(),
            role: held.user.role,
            managed_by: held.user.managed_by,
        },
        agent: AgentFacts {
            id: agent.agent.id,
            name: agent.agent.name.clone(),
        },
        grant: GrantFacts {
            id: held.grant.id,
            connector: held.grant.connector.clone(),
            account: held.grant.account.clone(),
            label: held.grant.label.clone(),
            scopes: held.grant.scopes.clone(),
        },
    };
    policies.prepare(&parties, &held.delegations).map_err(|error| {
        tracing::error!(grant.id = %held.grant.id, cause = %error, "the policies cannot judge {}", held.grant.id);
        Refusal::StoreUnavailable(Some(StoreError::Inconsistent { table: "policies" }))
    })
}

/// Asks the three layers about the exact action.
#[must_use]
pub fn ask(
    facts: &PreparedFacts,
    prepared: &Prepared,
    claimed: Option<&Value>,
    now: Time,
    permit: &OrgPermit,
) -> Evaluation {
    let question = Question {
        tool: prepared.action.tool.clone(),
        args: prepared.args.policy_view().clone(),
        now,
        live_session: false,
        admission_age_s: None,
        approvals: BTreeSet::new(),
        budgets: Vec::new(),
        claimed: claimed.cloned(),
    };
    facts.evaluate(&question, permit)
}

/// What policies may name in this deployment.
///
/// # Errors
/// When its connectors clash; everything is then refused, loudly.
pub fn vocabulary(catalogue: &Catalogue) -> Result<Arc<Vocabulary>, Refusal> {
    Vocabulary::of(&actions(catalogue)).map_err(unusable)
}

/// The texts of one version, as policy takes them.
#[must_use]
pub fn sources(version: u64, org: Vec<store::PolicyText>, agent: Vec<store::PolicyText>) -> PolicySources {
    PolicySources {
        org: policy_texts(org),
        agent: policy_texts(agent),
        version: version.to_string(),
    }
}

/// Compiles a version that was valid when it was written.
///
/// # Errors
/// When it is not valid any more, as after a connector lost a tool: everything is then refused, loudly.
pub fn compile(sources: &PolicySources, vocabulary: &Arc<Vocabulary>) -> Result<CompiledPolicies, Refusal> {
    CompiledPolicies::compile(sources, vocabulary).map_err(unusable)
}

/// Compiles policies against the tools of this deployment, to see whether they could be put in force.
///
/// # Errors
/// What is wrong with them, file by file.
pub fn compile_texts(
    catalogue: &Catalogue,
    version: u64,
    org: &[store::PolicyText],
    agent: &[store::PolicyText],
) -> Result<CompiledPolicies, Vec<PolicyFinding>> {
    let vocabulary = Vocabulary::of(&actions(catalogue))?;
    CompiledPolicies::compile(&sources(version, org.to_vec(), agent.to_vec()), &vocabulary)
}

/// Looks at policies without putting them in force.
#[must_use]
pub fn look(catalogue: &Catalogue, org: &[store::PolicyText], agent: &[store::PolicyText]) -> CheckReport {
    check(&sources(0, org.to_vec(), agent.to_vec()), &actions(catalogue))
}

fn unusable(findings: Vec<PolicyFinding>) -> Refusal {
    for finding in findings {
        tracing::error!(policy.file = %finding.file, policy.line = finding.line, cause = %finding.message,
            "a policy in force does not compile");
    }
    Refusal::StoreUnavailable(Some(StoreError::Inconsistent { table: "policies" }))
}

fn policy_texts(texts: Vec<store::PolicyText>) -> Vec<PolicyText> {
    let text = |store::PolicyText { name, text }| PolicyText { name, text };
    texts.into_iter().map(text).collect()
}

fn actions(catalogue: &Catalogue) -> Vec<ConnectorActions<'_>> {
    catalogue
        .iter()
        .map(|connector| ConnectorActions {
            id: &connector.id,
            actions: &connector.actions,
        })
        .collect()
}
