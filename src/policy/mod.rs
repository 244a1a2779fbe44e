//! Policy: may this agent do this, as this person, now? And the notary that puts the answer into claims.
//!
//! Three Cedar policy sets — organisation, user delegation, agent capability — are evaluated apart and intersected.
//! Nothing is allowed by default, a forbid always wins, and any error in any set is a deny. The room is pure: no clock,
//! no store, no network; it must never see a secret.
//!
//! The way through: [`Vocabulary::of`] says once what policies may name, [`CompiledPolicies::compile`] parses and checks
//! texts once, [`CompiledPolicies::prepare`] picks the slice for one agent and grant (keep it as long as the org's epoch
//! stands), [`PreparedFacts::evaluate`] answers one [`Question`], [`notary::claims`] turns the [`Evaluation`] into a
//! decision to sign. `docs/policy.md` is for the people who write policies.

mod cedar;
mod check;
mod compile;
mod context;
pub mod demo;
mod evaluation;
mod facts;
mod finding;
mod limits;
pub mod notary;
mod reads;
mod rule;
mod said;
mod schema;
mod shape;
mod slice;
#[cfg(test)]
mod tests;

pub use check::{CheckReport, RuleSummary, check};
pub use compile::{CompiledPolicies, ConnectorActions, PolicySources, PolicyText};
pub use evaluation::{Evaluation, Limit, OrgPermit};
pub use facts::{
    AgentFacts, ApprovalKind, Budget, GrantFacts, InvalidApprovalKind, Parties, Question, UserFacts,
};
pub use finding::{PolicyFinding, Severity};
pub use schema::{Vocabulary, schema_text};
pub use slice::{DelegationIndex, PreparedFacts, Unpreparable};

/// Reason codes of the engine itself. Stable, safe to show to a model; `docs/policy.md` explains each.
pub mod reason {
    /// A policy could not be evaluated, or the facts do not fit the schema: fails closed.
    pub const POLICY_ERROR: &str = "policy_error";
    /// No policy of the organisation, or of the agent, permits it.
    pub const NOT_PERMITTED: &str = "not_permitted";
    /// The person has not let this agent do it.
    pub const NOT_DELEGATED: &str = "not_delegated";
    /// The tool needs a scope that the organisation lets nobody grant.
    pub const SCOPE_NOT_ALLOWED: &str = "scope_not_allowed";
    /// A forbid without a `@reason` of its own matched.
    pub const FORBIDDEN: &str = "forbidden";
    /// A human has to say yes first.
    pub const APPROVAL_REQUIRED: &str = "approval_required";

    /// The permit demands a budget, and budgets are not counted yet.
    pub const BUDGET_UNSUPPORTED: &str = "budget_unsupported";

    /// Codes that no `@reason` may take.
    pub(super) const RESERVED: [&str; 7] = [
        POLICY_ERROR,
        NOT_PERMITTED,
        NOT_DELEGATED,
        SCOPE_NOT_ALLOWED,
        FORBIDDEN,
        APPROVAL_REQUIRED,
        BUDGET_UNSUPPORTED,
    ];
}
