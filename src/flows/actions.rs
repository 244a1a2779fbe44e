//! From a request to the exact action: which grant, which tool, which arguments (protocol §3, §6).

use std::sync::Arc;

use serde_json::Value;

use crate::{
    connectors::{self, ValidArgs},
    crypto::digest,
    domain::{
        Action, AgentId, GrantId, KeyId, OrgId, UserId,
        action::{ActionHash, ActionType},
        connector::{Category, Connector, ConnectorId},
        decision::UnverifiedDecision,
        entry::Epoch,
        mode::Mode,
    },
};

use super::{
    Deps, Fault, Refusal,
    facts::{AgentView, GrantView},
    refused,
    selection::{self, known_connector, known_tool},
};

/// The calling agent.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// The tenant.
    pub org: OrgId,
    /// Who.
    pub agent: AgentId,
    /// By which key.
    pub key: KeyId,
}

/// What an agent asks for: the body of vend, decisions and actions.
#[derive(Debug, Clone)]
pub struct Ask {
    /// With which grant.
    pub target: Target,
    /// Which tool.
    pub tool: String,
    /// Its arguments, strict JSON, not yet validated.
    pub args: Value,
    /// By which mode; `None`: the best there is.
    pub mode: Option<Mode>,
    /// How long a released token is needed, seconds.
    pub ttl_s: Option<u64>,
    /// A decision brought along.
    pub decision: Option<UnverifiedDecision>,
    /// What the caller claims, for policy under `context.claimed`.
    pub context: Option<Value>,
    /// The caller's own name for its run; evidence only.
    pub run: Option<String>,
    /// The caller's idempotency key and the digest of its body.
    pub idempotency: Option<(String, String)>,
}

/// Which grant.
#[derive(Debug, Clone)]
pub enum Target {
    /// This one.
    Grant(GrantId),
    /// The person's own at a connector.
    Account {
        /// At which connector.
        connector: ConnectorId,
        /// Whose.
        user: UserId,
        /// Which of several accounts: the provider's id, the label, or the grant's own label.
        account: Option<String>,
    },
}

/// The exact action, with everything a decision about it needs.
#[derive(Debug)]
pub struct Prepared {
    /// The agent's facts.
    pub agent: Arc<AgentView>,
    /// The grant's facts.
    pub grant: Arc<GrantView>,
    /// The connector.
    pub connector: Arc<Connector>,
    /// The action.
    pub action: Action,
    /// Its canonical bytes.
    pub canonical: Vec<u8>,
    /// SHA-256 of them.
    pub hash: ActionHash,
    /// The arguments as validated.
    pub args: ValidArgs,
    /// What the tool does to the world; `None` for `http.request`.
    pub category: Option<Category>,
    /// The scopes one call needs.
    pub scopes: crate::domain::ScopeSet,
}

/// Prepares the action on facts of one epoch, whether or not it is the org's current one, refusing in the order of protocol
/// §6.
///
/// # Errors
/// The first refusal that applies.
pub async fn prepare(deps: &Deps, caller: Caller, ask: &Ask) -> Result<Prepared, Refusal> {
    for attempt in 0..SNAPSHOTS {
        let agent = deps.facts.agent(deps, caller.org, caller.agent).await?;
        match prepare_on(deps, caller, ask, &agent).await {
            Err(Refusal::Unsettled) => deps.facts.again(deps, caller.org, attempt).await?,
            prepared => return prepared,
        }
    }
    Err(Refusal::Unsettled)
}

/// The same on these facts of the agent: whatever it comes to rests on their epoch.
///
/// # Errors
/// The first refusal that applies; [`Refusal::Unsettled`] if other facts are of another epoch.
pub(super) async fn prepare_on(
    deps: &Deps,
    caller: Caller,
    ask: &Ask,
    agent: &Arc<AgentView>,
) -> Result<Prepared, Refusal> {
    // SECURITY: also a call that was let in before its key or agent ended: the gate makes it read its facts again.
    if agent.facts.agent.disabled_at.is_some() || !agent.facts.keys.contains(&caller.key) {
        return Err(Refusal::Unauthenticated);
    }
    let grant = selection::select(deps, caller, ask, agent).await?;
    let connector = Arc::clone(known_connector(deps, &grant.facts.grant.connector)?);
    let tool = known_tool(&connector, &ask.tool)?;
    let args = connectors::validate(&connector, tool, &ask.args).map_err(|errors| {
        Refusal::InvalidArgs(
            errors
                .into_iter()
                .map(|error| Fault {
                    pointer: format!("/args{}", error.pointer),
                    detail: error.problem.to_owned(),
                })
                .collect(),
        )
    })?;
    let held = &grant.facts.grant;
    let tool_digest = deps
        .catalogue
        .tool_digest(&connector.id, &ask.tool, &held.binding)
        .ok_or(Refusal::NotFound)?;
    let action = Action {
        typ: ActionType::V1,
        org: caller.org,
        user: held.user,
        agent: caller.agent,
        grant: held.id,
        connector: held.connector.clone(),
        tool: ask.tool.clone(),
        tool_digest: tool_digest.to_owned(),
        args: args.canonical().clone(),
    };
    let canonical = crate::crypto::jcs::action(&action)?;
    let hash = digest::action_hash(&canonical);
    let (category, scopes) = (tool.category(), tool.scopes());
    Ok(Prepared {
        agent: Arc::clone(agent),
        grant,
        connector,
        action,
        canonical,
        hash,
        args,
        category,
        scopes,
    })
}

/// Prepares the action on facts that a refusal may rest on; `None`: they are not current, read again. What an agent may
/// not ask is kept as an entry.
///
/// # Errors
/// The first refusal that applies, in the order of protocol §6.
pub async fn current(deps: &Deps, caller: Caller, ask: &Ask) -> Result<Option<Prepared>, Refusal> {
    let agent = deps.facts.agent(deps, caller.org, caller.agent).await?;
    let refusal = match prepare_on(deps, caller, ask, &agent).await {
        Ok(prepared) => return Ok(Some(prepared)),
        Err(refusal) => refusal,
    };
    match stands(deps, caller.org, agent.facts.epoch, refusal).await? {
        None => Ok(None),
        Some(Refusal::Denied { reason, .. }) => {
            match refused::denial(deps, caller, ask, &agent, reason).await? {
                Some(denied) => Err(denied),
                None => Ok(None),
            }
        }
        Some(refusal) => Err(refusal),
    }
}

/// The refusal, which rests on facts of this epoch, if it may be answered: what is refused on cached facts must be refused
/// on current ones too. `None`: read again.
///
/// INVARIANT: these very facts are asked about, not what is cached by now, which may be newer.
///
/// # Errors
/// When the database is unavailable or behind what was read of it.
pub(super) async fn stands(
    deps: &Deps,
    org: OrgId,
    epoch: Epoch,
    refusal: Refusal,
) -> Result<Option<Refusal>, Refusal> {
    let stands = match refusal {
        Refusal::Unsettled => false,
        // Asked before the link was made. Saying why it is needed may have moved the epoch on since, and a second link
        // would count against the few there are.
        Refusal::ConnectionRequired(_) | Refusal::ReconnectRequired(_) => true,
        _ => deps.facts.holds(deps, org, epoch).await?,
    };
    Ok(stands.then_some(refusal))
}

/// How often two views are read before they are of one epoch.
const SNAPSHOTS: u32 = 3;
