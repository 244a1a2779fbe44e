//! What an evaluation comes to.

use std::collections::BTreeSet;

use serde::Serialize;

use super::facts::ApprovalKind;
use crate::domain::{
    ModeSet,
    decision::{Layers, Outcome, PolicyRef},
};

/// Where the permit of the organisation layer comes from.
///
/// Forbids of the organisation, the person's delegation and the agent's capability are evaluated either way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrgPermit {
    /// From the organisation's own policies.
    Policy,
    /// From a verified allow of a registered external engine (protocol §4, last paragraph). Its constraints stand in
    /// for the annotations of a permit.
    External {
        /// The modes it named; `None`: the default.
        modes: Option<ModeSet>,
        /// The longest life it allowed.
        max_ttl_s: Option<u64>,
    },
}

/// The answer, with everything the flow, the notary and the entry need.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// The answer.
    pub outcome: Outcome,
    /// A stable, model-safe code; always there unless the outcome is an allow without `@reason`.
    pub reason: Option<String>,
    /// The policy author's text for the model.
    pub model_message: Option<String>,
    /// The approvals that would turn an escalate into an allow; empty otherwise.
    pub escalate: BTreeSet<ApprovalKind>,
    /// What each layer said.
    pub layers: Layers,
    /// How it may be released. Without `token` and `raw` where those would escape an argument policy, an approval or a
    /// budget (protocol §5). Empty unless allowed or escalated.
    pub modes: ModeSet,
    /// The longest life of what is released.
    pub max_ttl_s: Option<u64>,
    /// Budgets that must be spent for this release.
    pub limits: Vec<Limit>,
    /// Which policies answered.
    pub policy: PolicyRef,
    /// The rules that decided, `layer/file#rule`, in order. For the entry and for explaining; never for the model.
    pub determining: Vec<String>,
    /// Whether a policy that applies to this tool reads its arguments.
    pub reads_args: bool,
    /// Whether an approval is needed, or was needed and is there.
    pub needs_approval: bool,
}

/// A budget from `@limit`: at most `count` releases in any window.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Limit {
    /// The rule that set it; budgets are counted per rule.
    pub rule: String,
    /// How many.
    pub count: u64,
    /// In how many seconds.
    pub window_s: u64,
}

/// What permits grant beyond yes: intersected over all that match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) modes: ModeSet,
    pub(super) max_ttl_s: Option<u64>,
    pub(super) limits: Vec<Limit>,
}

impl Terms {
    /// The neutral element of [`Terms::narrow`].
    pub(super) const WIDEST: Self = Self {
        modes: ModeSet::ALL,
        max_ttl_s: None,
        limits: Vec::new(),
    };

    /// INVARIANT: the result is never wider than either (architecture §5).
    pub(super) fn narrow(mut self, other: &Self) -> Self {
        self.modes = self.modes.intersection(other.modes);
        self.max_ttl_s = match (self.max_ttl_s, other.max_ttl_s) {
            (Some(left), Some(right)) => Some(left.min(right)),
            (left, right) => left.or(right),
        };
        self.limits.extend(other.limits.iter().cloned());
        self
    }
}
