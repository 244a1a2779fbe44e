//! PLACEHOLDER
#![expect(missing_docs)]
use crate::domain::{connector::*, decision::*, delegation::*, grant::*, principal::*, *};
pub enum OrgPermit {
    Policy,
    External,
}
#[derive(Debug)]
pub struct Evaluation {
    pub outcome: Outcome,
    pub reason: Option<String>,
    pub model_message: Option<String>,
    pub layers: Layers,
    pub modes: ModeSet,
    pub max_ttl_s: Option<u64>,
    pub policy: PolicyRef,
    pub determining: Vec<String>,
    pub reads_args: bool,
    pub needs_approval: bool,
}
impl Evaluation {
    pub fn no_policies() -> Self {
        Self {
            outcome: Outcome::Deny,
            reason: Some("no_policy".into()),
            model_message: None,
            layers: Layers::default(),
            modes: ModeSet::NONE,
            max_ttl_s: None,
            policy: PolicyRef {
                id: "org".into(),
                version: "0".into(),
                digest: String::new(),
            },
            determining: vec![],
            reads_args: true,
            needs_approval: false,
        }
    }
}
#[derive(Debug)]
pub struct Source {
    pub name: String,
    pub text: String,
}
#[derive(Debug)]
pub struct ToolFacts<'a> {
    pub connector: &'a ConnectorId,
    pub tool: &'a str,
    pub category: Option<Category>,
    pub args: &'a std::collections::BTreeMap<String, ArgSpec>,
}
#[derive(Debug)]
pub struct Finding {
    pub file: String,
    pub line: usize,
    pub column: usize,
    pub message: String,
    pub help: Option<String>,
}
#[derive(Debug)]
pub struct CompiledPolicies;
impl CompiledPolicies {
    pub fn compile(
        _version: u64,
        _org: &[Source],
        _agent: &[Source],
        _tools: &[ToolFacts<'_>],
    ) -> Result<Self, Vec<Finding>> {
        Ok(Self)
    }
    pub fn covers_tool(&self, _agent: AgentId, _connector: &ConnectorId, _tool: &str) -> bool {
        true
    }
    pub fn evaluate(&self, _q: &Question<'_>, _permit: OrgPermit) -> Evaluation {
        Evaluation::no_policies()
    }
    pub fn digest(&self) -> &str {
        ""
    }
}
#[derive(Debug)]
pub struct Question<'a> {
    pub org: OrgId,
    pub user: UserId,
    pub user_email: Option<&'a str>,
    pub user_role: Role,
    pub agent: AgentId,
    pub agent_name: &'a str,
    pub grant: GrantId,
    pub connector: &'a ConnectorId,
    pub account: &'a Account,
    pub label: Option<&'a str>,
    pub scopes: &'a ScopeSet,
    pub tool: &'a str,
    pub category: Option<Category>,
    pub args: &'a serde_json::Value,
    pub delegations: &'a [Delegation],
    pub now: Time,
    pub live_session: bool,
    pub claimed: Option<&'a serde_json::Value>,
}
