//! The evaluation: three sets asked apart, intersected, any error a deny.

use std::{collections::BTreeSet, sync::Arc};

use cedar_policy::{AuthorizationError, Authorizer, Decision, Request};

use super::{
    context,
    evaluation::{Evaluation, OrgPermit, Terms},
    facts::{ApprovalKind, Question, WrongFacts},
    reason,
    rule::Rule,
    said::Said,
    schema::Tool,
    slice::{PreparedFacts, Slice},
};
use crate::domain::{
    Mode, ModeSet, Time,
    decision::{Layers, Outcome},
};

/// What one set answers to the request.
#[derive(Debug)]
enum Answer {
    /// Some policy could not be evaluated.
    Failed(Vec<Arc<Rule>>),
    /// Some permit matched that still counts, and no forbid.
    Allowed(Vec<Arc<Rule>>),
    /// Some forbid matched.
    Forbidden(Vec<Arc<Rule>>),
    /// Nothing matched that counts.
    Silent,
}

/// The answers of organisation, user and agent, in this order.
type Answers = [Answer; 3];

/// What the three came to, before it is put into words.
enum Verdict {
    Allow(Answers),
    Escalate(Answers, BTreeSet<ApprovalKind>, Terms),
    Deny(Answers, [Outcome; 3]),
}

impl PreparedFacts {
    /// Answers one question. Never fails: what cannot be evaluated is denied with `policy_error`.
    #[must_use]
    pub fn evaluate(&self, question: &Question, permit: &OrgPermit) -> Evaluation {
        let Some(tool) = self.connector.tools.get(&question.tool) else {
            return self.denied([Outcome::Deny; 3], reason::POLICY_ERROR, None, &[], false);
        };
        let reads_args = self.reads_args_of(tool);
        let asking = Asking {
            facts: self,
            question,
            tool,
            permit,
        };
        match asking.verdict() {
            Ok(Verdict::Allow(answers)) => {
                let needs_approval = asking.needed_approval();
                self.allowed(&answers, permit, reads_args, needs_approval)
            }
            Ok(Verdict::Escalate(answers, kinds, terms)) => {
                self.escalated(&answers, kinds, terms, reads_args)
            }
            Ok(Verdict::Deny(answers, outcomes)) => self.refused(&answers, outcomes, reads_args),
            Err(WrongFacts) => self.denied([Outcome::Deny; 3], reason::POLICY_ERROR, None, &[], reads_args),
        }
    }

    fn allowed(
        &self,
        answers: &Answers,
        permit: &OrgPermit,
        reads_args: bool,
        needs_approval: bool,
    ) -> Evaluation {
        let terms = terms(answers, permit);
        let rules = rules(answers);
        let word = |pick: fn(&Rule) -> &Option<String>| rules.iter().find_map(|rule| pick(rule).clone());
        Evaluation {
            outcome: Outcome::Allow,
            reason: word(|rule| &rule.reason),
            model_message: word(|rule| &rule.message),
            escalate: BTreeSet::new(),
            layers: layers([Outcome::Allow; 3]),
            modes: releasable(&terms, reads_args, needs_approval),
            max_ttl_s: terms.max_ttl_s,
            limits: terms.limits,
            policy: self.compiled.reference.clone(),
            determining: names(&rules),
            reads_args,
            needs_approval,
        }
    }

    fn escalated(
        &self,
        answers: &Answers,
        kinds: BTreeSet<ApprovalKind>,
        terms: Terms,
        reads_args: bool,
    ) -> Evaluation {
        let forbids: Vec<Arc<Rule>> = answers.iter().flat_map(Answer::forbids).cloned().collect();
        let outcome = |answer: &Answer| match answer {
            Answer::Allowed(_) => Outcome::Allow,
            _ => Outcome::Escalate,
        };
        Evaluation {
            outcome: Outcome::Escalate,
            reason: Some(reason::APPROVAL_REQUIRED.to_owned()),
            model_message: forbids.iter().find_map(|rule| rule.message.clone()),
            escalate: kinds,
            layers: layers(answers.each_ref().map(outcome)),
            modes: releasable(&terms, reads_args, true),
            max_ttl_s: terms.max_ttl_s,
            limits: terms.limits,
            policy: self.compiled.reference.clone(),
            determining: names(&forbids),
            reads_args,
            needs_approval: true,
        }
    }

    /// Chooses the one reason to give: errors first, then the agent, the organisation, the person.
    ///
    /// The agent comes first so that an agent learns nothing about a person where its own capability ends
    /// (protocol §6).
    fn refused(&self, answers: &Answers, outcomes: [Outcome; 3], reads_args: bool) -> Evaluation {
        let failed: Vec<Arc<Rule>> = answers.iter().flat_map(Answer::failures).cloned().collect();
        if answers.iter().any(|answer| matches!(answer, Answer::Failed(_))) {
            return self.denied(outcomes, reason::POLICY_ERROR, None, &failed, reads_args);
        }
        let [org, user, agent] = answers;
        let [org_said, user_said, agent_said] = outcomes;
        let denying = [
            (agent, agent_said, reason::NOT_PERMITTED),
            (org, org_said, reason::NOT_PERMITTED),
            (user, user_said, reason::NOT_DELEGATED),
        ]
        .into_iter()
        .find(|(_, outcome, _)| *outcome == Outcome::Deny);
        match denying {
            Some((Answer::Forbidden(forbids), ..)) => {
                // A forbid that no approval lifts is the better reason.
                let order = |escalating: bool| {
                    forbids
                        .iter()
                        .filter(move |rule| rule.escalate.is_some() == escalating)
                };
                let told = order(false).chain(order(true)).find(|rule| rule.reason.is_some());
                let code = told
                    .and_then(|rule| rule.reason.as_deref())
                    .unwrap_or(reason::FORBIDDEN);
                let message = told.and_then(|rule| rule.message.clone());
                self.denied(outcomes, code, message, forbids, reads_args)
            }
            Some((_, _, code)) => self.denied(outcomes, code, None, &[], reads_args),
            None => self.denied(outcomes, reason::POLICY_ERROR, None, &[], reads_args),
        }
    }

    fn denied(
        &self,
        outcomes: [Outcome; 3],
        code: &str,
        message: Option<String>,
        rules: &[Arc<Rule>],
        reads_args: bool,
    ) -> Evaluation {
        Evaluation {
            outcome: Outcome::Deny,
            reason: Some(code.to_owned()),
            model_message: message,
            escalate: BTreeSet::new(),
            layers: layers(outcomes),
            modes: ModeSet::NONE,
            max_ttl_s: None,
            limits: Vec::new(),
            policy: self.compiled.reference.clone(),
            determining: names(rules),
            reads_args,
            needs_approval: false,
        }
    }
}

/// One question being answered.
struct Asking<'a> {
    facts: &'a PreparedFacts,
    question: &'a Question,
    tool: &'a Tool,
    permit: &'a OrgPermit,
}

impl Asking<'_> {
    fn verdict(&self) -> Result<Verdict, WrongFacts> {
        let given = &self.question.approvals;
        let answers = self.ask(given)?;
        let wanted = answers.each_ref().map(Answer::lifted_by);
        let mut outcomes = [Outcome::Deny; 3];
        for (number, (outcome, answer)) in outcomes.iter_mut().zip(&answers).enumerate() {
            *outcome = match (answer, wanted.get(number)) {
                (Answer::Allowed(_), _) => Outcome::Allow,
                // Architecture §5: the same request, with those approvals, has to be allowed by this set.
                (Answer::Forbidden(_), Some(Some(kinds)))
                    if self
                        .ask(&union(given, kinds))?
                        .get(number)
                        .is_some_and(Answer::is_allowed) =>
                {
                    Outcome::Escalate
                }
                _ => Outcome::Deny,
            };
        }
        if outcomes.contains(&Outcome::Deny) {
            return Ok(Verdict::Deny(answers, outcomes));
        }
        if !outcomes.contains(&Outcome::Escalate) {
            return Ok(Verdict::Allow(answers));
        }
        // Approvals that one set asks for must not close another.
        let kinds: BTreeSet<ApprovalKind> = wanted.into_iter().flatten().flatten().collect();
        let approved = self.ask(&union(given, &kinds))?;
        if approved.iter().all(Answer::is_allowed) {
            let terms = terms(&approved, self.permit);
            Ok(Verdict::Escalate(answers, kinds, terms))
        } else {
            let closed = outcomes.map(|outcome| match outcome {
                Outcome::Escalate => Outcome::Deny,
                other => other,
            });
            Ok(Verdict::Deny(answers, closed))
        }
    }

    /// Whether the allow rests on an approval.
    fn needed_approval(&self) -> bool {
        !self.question.approvals.is_empty()
            && !self
                .ask(&BTreeSet::new())
                .is_ok_and(|answers| answers.iter().all(Answer::is_allowed))
    }

    fn ask(&self, approvals: &BTreeSet<ApprovalKind>) -> Result<Answers, WrongFacts> {
        let said = self.said(approvals)?;
        let [org, user, agent] = said.each_ref().map(|said| self.answer(said));
        let org = match (self.permit, org) {
            // Protocol §4: an external allow stands in for the permit; errors and forbids stay.
            (OrgPermit::External { .. }, Answer::Allowed(_) | Answer::Silent) => Answer::Allowed(Vec::new()),
            (_, answer) => answer,
        };
        Ok([org, user, agent])
    }

    /// What Cedar says of the three sets: now, or when it was first asked, where the request has no part in it.
    fn said(&self, approvals: &BTreeSet<ApprovalKind>) -> Result<Arc<[Said; 3]>, WrongFacts> {
        let (facts, tool) = (self.facts, self.tool);
        if facts.reads_context_of(tool) {
            return self.ask_cedar(approvals).map(Arc::new);
        }
        // INVARIANT: facts that do not fit are refused whatever was remembered.
        context::check(self.question, tool)?;
        if let Some(said) = facts.memory.of(tool) {
            return Ok(said);
        }
        let said = Arc::new(self.ask_cedar(approvals)?);
        facts.memory.keep(tool, &said);
        Ok(said)
    }

    fn ask_cedar(&self, approvals: &BTreeSet<ApprovalKind>) -> Result<[Said; 3], WrongFacts> {
        let facts = self.facts;
        let context = context::context(self.question, self.tool, approvals)?;
        // Checked against the schema: policies were validated for facts of exactly these types.
        let request = Request::new(
            facts.uids.agent.clone(),
            self.tool.uid.clone(),
            facts.uids.grant.clone(),
            context,
            Some(&facts.compiled.vocabulary.schema),
        )
        .map_err(|_| WrongFacts)?;
        Ok([&facts.org, &facts.user, &facts.agent].map(|slice| self.ask_set(slice, &request)))
    }

    fn ask_set(&self, slice: &Slice, request: &Request) -> Said {
        let response = Authorizer::new().is_authorized(request, &slice.set, &self.facts.entities);
        let diagnostics = response.diagnostics();
        // INVARIANT: any error denies. Cedar skips a forbid that errors, which would open what it closes.
        let mut failed = diagnostics.errors().peekable();
        if failed.peek().is_some() {
            let ids = failed.map(|AuthorizationError::PolicyEvaluationError(error)| error.policy_id());
            return Said::Failed(in_order(ids.filter_map(|id| slice.rules.get(id))));
        }
        let matched = in_order(diagnostics.reason().filter_map(|id| slice.rules.get(id)));
        match response.decision() {
            Decision::Deny if matched.is_empty() => Said::Silent,
            Decision::Deny => Said::Forbidden(matched),
            Decision::Allow => Said::Permitted(matched),
        }
    }

    fn answer(&self, said: &Said) -> Answer {
        match said {
            Said::Failed(rules) => Answer::Failed(rules.clone()),
            Said::Forbidden(rules) => Answer::Forbidden(rules.clone()),
            Said::Silent => Answer::Silent,
            Said::Permitted(rules) => {
                let counts = |rule: &Rule| rule.applies_to(self.tool) && is_live(rule, self.question.now);
                let permits: Vec<_> = rules.iter().filter(|rule| counts(rule)).cloned().collect();
                if permits.is_empty() {
                    Answer::Silent
                } else {
                    Answer::Allowed(permits)
                }
            }
        }
    }
}

impl Answer {
    fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }

    fn forbids(&self) -> &[Arc<Rule>] {
        match self {
            Self::Forbidden(rules) => rules,
            _ => &[],
        }
    }

    fn failures(&self) -> &[Arc<Rule>] {
        match self {
            Self::Failed(rules) => rules,
            _ => &[],
        }
    }

    /// The approvals that all matching forbids ask for; `None` when one of them asks for none.
    fn lifted_by(&self) -> Option<BTreeSet<ApprovalKind>> {
        match self {
            Self::Forbidden(rules) => rules.iter().map(|rule| rule.escalate.clone()).collect(),
            _ => None,
        }
    }
}

/// What all matching permits of all sets leave over.
fn terms(answers: &Answers, permit: &OrgPermit) -> Terms {
    let external = match permit {
        OrgPermit::Policy => None,
        OrgPermit::External { modes, max_ttl_s } => Some(Terms {
            modes: modes.unwrap_or(ModeSet::DEFAULT),
            max_ttl_s: *max_ttl_s,
            limits: Vec::new(),
        }),
    };
    let start = external.iter().fold(Terms::WIDEST, Terms::narrow);
    rules(answers)
        .iter()
        .fold(start, |terms, rule| terms.narrow(&rule.terms))
}

/// Protocol §5: a token escapes argument policy, approvals and budgets.
fn releasable(terms: &Terms, reads_args: bool, needs_approval: bool) -> ModeSet {
    if reads_args || needs_approval || !terms.limits.is_empty() {
        terms.modes.without(Mode::Token).without(Mode::Raw)
    } else {
        terms.modes
    }
}

fn rules(answers: &Answers) -> Vec<Arc<Rule>> {
    let matched = answers.iter().flat_map(|answer| match answer {
        Answer::Allowed(rules) | Answer::Forbidden(rules) | Answer::Failed(rules) => rules.as_slice(),
        Answer::Silent => &[],
    });
    matched.cloned().collect()
}

fn is_live(rule: &Rule, now: Time) -> bool {
    rule.expires_at.is_none_or(|at| now < at)
}

fn in_order<'a>(rules: impl Iterator<Item = &'a Arc<Rule>>) -> Vec<Arc<Rule>> {
    let mut rules: Vec<_> = rules.cloned().collect();
    rules.sort_by(|left, right| left.name.cmp(&right.name));
    rules
}

fn names(rules: &[Arc<Rule>]) -> Vec<String> {
    rules.iter().map(|rule| rule.name.clone()).collect()
}

fn union(left: &BTreeSet<ApprovalKind>, right: &BTreeSet<ApprovalKind>) -> BTreeSet<ApprovalKind> {
    left.union(right).cloned().collect()
}

fn layers([org, user, agent]: [Outcome; 3]) -> Layers {
    Layers {
        org: Some(org),
        user: Some(user),
        agent: Some(agent),
    }
}
