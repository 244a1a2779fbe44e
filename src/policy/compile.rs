//! From policy texts to policies that can be sliced and evaluated: parsed once, validated strictly, never read again.

use std::{collections::HashMap, sync::Arc};

use cedar_policy::{Effect, Policy, PolicyId, PolicySet, ValidationMode, Validator, ffi::DetailedError};

use super::{
    finding::{PolicyFinding, Severity, merged, position},
    limits,
    reads::{self, Reads},
    rule::{Annotations, Refused, Rule},
    schema::Vocabulary,
    slice::Index,
};
use crate::{
    crypto::digest::sha256_text,
    domain::{
        connector::{ActionDefinition, ConnectorId},
        decision::PolicyRef,
    },
};

/// One file of policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyText {
    /// The file's name, unique in its layer.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// The texts an org has put in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicySources {
    /// The organisation layer.
    pub org: Vec<PolicyText>,
    /// The agent capability layer.
    pub agent: Vec<PolicyText>,
    /// The version the store gave this set.
    pub version: String,
}

impl PolicySources {
    /// Which policies these are, as decisions name them: nothing but these texts at this version has it.
    ///
    /// The digest covers layer, name and text of every file, each with its length in front, in the order of names.
    #[must_use]
    pub fn reference(&self) -> PolicyRef {
        let mut bytes = Vec::new();
        let mut put = |text: &str| {
            bytes.extend(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            bytes.extend(text.as_bytes());
        };
        put("postern/policy/1");
        for (layer, files) in [("org", &self.org), ("agent", &self.agent)] {
            let mut files: Vec<&PolicyText> = files.iter().collect();
            files.sort_by(|left, right| left.name.cmp(&right.name));
            for file in files {
                put(layer);
                put(&file.name);
                put(&file.text);
            }
        }
        PolicyRef {
            id: ENGINE.to_owned(),
            version: self.version.clone(),
            digest: sha256_text(&bytes),
        }
    }
}

/// What a connector offers to policies.
#[derive(Debug, Clone, Copy)]
pub struct ConnectorActions<'a> {
    /// Its id.
    pub id: &'a ConnectorId,
    /// Its typed actions; `http.request` is added here.
    pub actions: &'a [ActionDefinition],
}

/// Policies ready to be sliced. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CompiledPolicies(pub(super) Arc<Compiled>);

#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) vocabulary: Arc<Vocabulary>,
    pub(super) org: Index,
    pub(super) agent: Index,
    pub(super) reference: PolicyRef,
    warnings: Vec<PolicyFinding>,
}

impl CompiledPolicies {
    /// Parses and checks texts against the connectors' schema, which is shared, not copied.
    ///
    /// # Errors
    /// Every finding, warnings included, when at least one is an error.
    pub fn compile(
        sources: &PolicySources,
        vocabulary: &Arc<Vocabulary>,
    ) -> Result<Self, Vec<PolicyFinding>> {
        limits::on_a_deep_stack(|| Self::compile_here(sources, vocabulary)).unwrap_or_else(|| {
            let fix = "try again; if it stays, simplify the policies";
            let problem = "the policies could not be compiled";
            Err(vec![PolicyFinding::at("policies", "", 0, problem, fix)])
        })
    }

    fn compile_here(
        sources: &PolicySources,
        vocabulary: &Arc<Vocabulary>,
    ) -> Result<Self, Vec<PolicyFinding>> {
        let mut findings = Vec::new();
        let org = compile_layer("org", &sources.org, vocabulary, &mut findings);
        let agent = compile_layer("agent", &sources.agent, vocabulary, &mut findings);
        findings.sort();
        if findings.iter().any(|finding| finding.severity == Severity::Error) {
            return Err(findings);
        }
        Ok(Self(Arc::new(Compiled {
            vocabulary: Arc::clone(vocabulary),
            org: Index::new(org, vocabulary),
            agent: Index::new(agent, vocabulary),
            reference: sources.reference(),
            warnings: findings,
        })))
    }

    /// What is probably not as meant, though it works.
    #[must_use]
    pub fn warnings(&self) -> &[PolicyFinding] {
        &self.0.warnings
    }

    /// Which policies these are.
    #[must_use]
    pub fn reference(&self) -> &PolicyRef {
        &self.0.reference
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.0.org.rules().chain(self.0.agent.rules())
    }
}

fn compile_layer(
    layer: &str,
    files: &[PolicyText],
    vocabulary: &Vocabulary,
    findings: &mut Vec<PolicyFinding>,
) -> Vec<(Policy, Arc<Rule>)> {
    let mut policies = Vec::new();
    for (number, file) in files.iter().enumerate() {
        if files.iter().take(number).any(|other| other.name == file.name) {
            let fix = "give each file of a layer its own name";
            findings.push(PolicyFinding::at(
                &file.name,
                "",
                0,
                "a file has this name already",
                fix,
            ));
            continue;
        }
        match parse_file(layer, file) {
            Ok(parsed) => policies.extend(parsed),
            Err(problems) => findings.extend(problems),
        }
    }
    let texts: HashMap<&str, &str> = files
        .iter()
        .map(|file| (file.name.as_str(), file.text.as_str()))
        .collect();
    findings.extend(merged(validate(&policies, &texts, vocabulary)));
    policies
}

fn parse_file(layer: &str, file: &PolicyText) -> Result<Vec<(Policy, Arc<Rule>)>, Vec<PolicyFinding>> {
    let PolicyText { name, text } = file;
    limits::check_text(text).map_err(|(offset, problem)| {
        vec![PolicyFinding::at(
            name,
            text,
            offset,
            problem,
            "split it into smaller ones",
        )]
    })?;
    let set: PolicySet = text.parse().map_err(|errors| {
        let detail = DetailedError::from(&errors);
        vec![PolicyFinding::from_cedar(name, text, 0, detail, Severity::Error)]
    })?;
    let mut findings: Vec<PolicyFinding> = set
        .templates()
        .map(|template| {
            let offset = template.as_ref().loc().map_or(0, |loc| loc.start());
            let fix = "name the agent or the grant, or leave the scope open";
            PolicyFinding::at(
                name,
                text,
                offset,
                "`?principal` and `?resource` cannot be used",
                fix,
            )
        })
        .collect();
    let mut parsed: Vec<(usize, &Policy)> = set.policies().map(|policy| (start(policy), policy)).collect();
    parsed.sort_by_key(|(offset, _)| *offset);
    let mut policies: Vec<(Policy, Arc<Rule>)> = Vec::new();
    for (number, (offset, policy)) in parsed.into_iter().enumerate() {
        match rule(layer, file, offset, number + 1, policy) {
            Ok(rule) if policies.iter().any(|(_, other)| other.name == rule.name) => {
                let fix = "give each policy of a file its own `@id`";
                findings.push(PolicyFinding::at(
                    name,
                    text,
                    offset,
                    "a policy has this `@id` already",
                    fix,
                ));
            }
            Ok(rule) => policies.push((policy.new_id(PolicyId::new(&rule.name)), Arc::new(rule))),
            Err(problems) => findings.extend(
                problems
                    .into_iter()
                    .map(|Refused(problem, fix)| PolicyFinding::at(name, text, offset, problem, fix)),
            ),
        }
    }
    if findings.is_empty() {
        Ok(policies)
    } else {
        Err(findings)
    }
}

fn start(policy: &Policy) -> usize {
    policy.as_ref().loc().map_or(0, |loc| loc.start())
}

fn rule(
    layer: &str,
    file: &PolicyText,
    offset: usize,
    number: usize,
    policy: &Policy,
) -> Result<Rule, Vec<Refused>> {
    let annotations = Annotations::read(policy)?;
    let refuse = |problem: &str, fix: &str| Err(vec![Refused(problem.to_owned(), fix.to_owned())]);
    if !limits::is_small(policy) {
        return refuse("the policy has too many parts", "split it into smaller ones");
    }
    let Some(reads) = reads::reads(policy) else {
        return refuse(
            "the policy nests too deep",
            "split it, or use sets and `contains`",
        );
    };
    check_reads(policy.effect(), &annotations, reads).map_err(|refused| vec![refused])?;
    let id = annotations.id.clone().unwrap_or_else(|| number.to_string());
    let name = format!("{layer}/{}#{id}", file.name);
    Ok(Rule {
        terms: annotations.terms(&name),
        name,
        file: file.name.clone(),
        line: position(&file.text, offset).0,
        effect: policy.effect(),
        action: policy.action_constraint(),
        reads,
        reason: annotations.reason,
        message: annotations.message,
        escalate: annotations.escalate,
        expires_at: None,
    })
}

fn check_reads(effect: Effect, annotations: &Annotations, reads: Reads) -> Result<(), Refused> {
    // SECURITY: what a caller says of itself must never open anything (architecture §5).
    if effect == Effect::Permit && (reads.claimed || reads.whole) {
        return Err(Refused(
            "a permit may not read `context.claimed`, nor the context as a whole".to_owned(),
            "the caller can claim anything: read a fact instead, or use it in a forbid".to_owned(),
        ));
    }
    // Such a forbid could never be lifted: nobody would be asked, and nobody would know why.
    if annotations.escalate.is_some() && !(reads.approvals || reads.whole) {
        return Err(Refused(
            "a forbid with `@escalate` has to look at `context.approvals`".to_owned(),
            "add `unless { context.approvals.contains(\"…\") }` with the same text".to_owned(),
        ));
    }
    Ok(())
}

fn validate(
    policies: &[(Policy, Arc<Rule>)],
    texts: &HashMap<&str, &str>,
    vocabulary: &Vocabulary,
) -> Vec<PolicyFinding> {
    let rules: HashMap<&str, (&Rule, usize)> = policies
        .iter()
        .map(|(policy, rule)| (rule.name.as_str(), (rule.as_ref(), start(policy))))
        .collect();
    let set = match PolicySet::from_policies(policies.iter().map(|(policy, _)| policy.clone())) {
        Ok(set) => set,
        Err(error) => {
            let fix = "give each policy its own `@id`";
            return vec![PolicyFinding::at("policies", "", 0, error.to_string(), fix)];
        }
    };
    let finding = |id: &PolicyId, detail: DetailedError, severity| {
        let id: &str = id.as_ref();
        let (file, offset) = rules
            .get(id)
            .map_or(("policies", 0), |(rule, offset)| (rule.file.as_str(), *offset));
        let text = texts.get(file).copied().unwrap_or_default();
        PolicyFinding::from_cedar(file, text, offset, detail, severity)
    };
    let result = Validator::new(vocabulary.schema.clone()).validate(&set, ValidationMode::Strict);
    let errors = result
        .validation_errors()
        .map(|error| finding(error.policy_id(), DetailedError::from(error), Severity::Error));
    let warnings = result.validation_warnings().map(|warning| {
        finding(
            warning.policy_id(),
            DetailedError::from(warning),
            Severity::Warning,
        )
    });
    errors.chain(warnings).collect()
}

/// The id of the built-in engine in decisions.
const ENGINE: &str = "cedar";
