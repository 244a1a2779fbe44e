//! `postern policy check` and what explaining an answer needs; offline, nothing but texts.

use cedar_policy::Effect;
use serde::Serialize;

use super::{
    compile::{CompiledPolicies, ConnectorActions, PolicySources},
    evaluation::Limit,
    finding::PolicyFinding,
    rule::Rule,
    schema::Vocabulary,
};
use crate::domain::ModeSet;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckReport {
    /// Whether the policies may go live.
    pub ok: bool,
    /// Errors and warnings, by file and place.
    pub findings: Vec<PolicyFinding>,
    /// The digest the decisions would carry; `None` when there are errors.
    pub digest: Option<String>,
    /// The rules; empty when there are errors.
    pub rules: Vec<RuleSummary>,
}

/// One rule, for people: in a report, and to explain a name in [`super::Evaluation::determining`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleSummary {
    /// `layer/file#rule`.
    pub name: String,
    /// The file.
    pub file: String,
    /// Its first line.
    pub line: usize,
    /// Whether it is a forbid.
    pub forbids: bool,
    /// The code it gives.
    pub reason: Option<String>,
    /// The text it gives to the model.
    pub model_message: Option<String>,
    /// Who may lift it.
    pub escalate: Option<String>,
    /// The modes it grants; `None` for a forbid.
    pub modes: Option<ModeSet>,
    /// The longest life it grants.
    pub max_ttl_s: Option<u64>,
    /// Its budgets.
    pub limits: Vec<Limit>,
    /// Whether it reads arguments, which rules out tokens for the tools it covers.
    pub reads_args: bool,
}

/// Checks texts as [`CompiledPolicies::compile`] would.
#[must_use]
pub fn check(sources: &PolicySources, connectors: &[ConnectorActions<'_>]) -> CheckReport {
    let compiled =
        Vocabulary::of(connectors).and_then(|vocabulary| CompiledPolicies::compile(sources, &vocabulary));
    match compiled {
        Ok(compiled) => CheckReport {
            ok: true,
            findings: compiled.warnings().to_vec(),
            digest: Some(compiled.reference().digest.clone()),
            rules: compiled.rules().map(RuleSummary::of).collect(),
        },
        Err(findings) => CheckReport {
            ok: false,
            findings,
            digest: None,
            rules: Vec::new(),
        },
    }
}

impl CompiledPolicies {
    /// Explains the name of a rule; `None` for a delegation or a rule of other policies.
    #[must_use]
    pub fn explain(&self, name: &str) -> Option<RuleSummary> {
        self.rules().find(|rule| rule.name == name).map(RuleSummary::of)
    }
}

impl RuleSummary {
    fn of(rule: &Rule) -> Self {
        let forbids = rule.effect == Effect::Forbid;
        Self {
            name: rule.name.clone(),
            file: rule.file.clone(),
            line: rule.line,
            forbids,
            reason: rule.reason.clone(),
            model_message: rule.message.clone(),
            escalate: rule.escalate.as_ref().map(ToString::to_string),
            modes: (!forbids).then_some(rule.terms.modes),
            max_ttl_s: rule.terms.max_ttl_s,
            limits: rule.terms.limits.clone(),
            reads_args: rule.reads.args || rule.reads.whole,
        }
    }
}
