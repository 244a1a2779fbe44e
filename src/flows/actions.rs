//! From a request to the exact action: which grant, which tool, which arguments (protocol §3, §6).

use std::sync::Arc;

use serde_json::Value;

use crate::{
    connectors::{self, Tool, ValidArgs},
    crypto::digest,
    domain::{
        Action, AgentId, GrantId, KeyId, OrgId, UserId,
        action::{ActionHash, ActionType},
        connector::{Category, Connector, ConnectorId},
        decision::UnverifiedDecision,
        grant::{Grant, GrantState},
        mode::Mode,
        rules::ConnectorRules,
    },
    policy::reason,
};

use super::{
    AccountChoice, ConnectLink, Deps, Fault, Refusal,
    connect::begin,
    facts::{AgentView, GrantView},
    refused,
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

/// Prepares the action, refusing in the order of protocol §6.
///
/// # Errors
/// The first refusal that applies.
pub async fn prepare(deps: &Deps, caller: Caller, ask: &Ask) -> Result<Prepared, Refusal> {
    let (agent, grant) = same_epoch(deps, caller, ask).await?;
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
    let binding = held.binding;
    let action = Action {
        typ: ActionType::V1,
        org: caller.org,
        user: held.user,
        agent: caller.agent,
        grant: held.id,
        connector: held.connector.clone(),
        tool: ask.tool.clone(),
        tool_digest: connectors::tool_digest(&connector, tool, &binding).ok_or(Refusal::NotFound)?,
        args: args.canonical().clone(),
    };
    let canonical = crate::crypto::jcs::canonicalize(&action)?;
    let hash = digest::action_hash(&canonical);
    let (category, scopes) = (tool.category(), tool.scopes());
    Ok(Prepared {
        agent,
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
    let refusal = match prepare(deps, caller, ask).await {
        Ok(prepared) => return Ok(Some(prepared)),
        Err(refusal) => refusal,
    };
    // What is refused on cached facts must be refused on current ones too.
    if matches!(refusal, Refusal::Unsettled) || !deps.facts.is_current(deps, caller.org).await? {
        return Ok(None);
    }
    let Refusal::Denied { reason, .. } = refusal else {
        return Err(refusal);
    };
    match refused::denial(deps, caller, ask, reason).await? {
        Some(denied) => Err(denied),
        None => Ok(None),
    }
}

/// Both views, read at one epoch: the gate compares one epoch only, so facts of two must never meet.
async fn same_epoch(
    deps: &Deps,
    caller: Caller,
    ask: &Ask,
) -> Result<(Arc<AgentView>, Arc<GrantView>), Refusal> {
    for attempt in 0..SNAPSHOTS {
        let agent = deps.facts.agent(deps, caller.org, caller.agent).await?;
        // SECURITY: also a call that was let in before its key or agent ended: the gate makes it read its facts again.
        if agent.facts.agent.disabled_at.is_some() || !agent.facts.keys.contains(&caller.key) {
            return Err(Refusal::Unauthenticated);
        }
        let grant = select(deps, caller, ask, &agent).await?;
        if agent.facts.epoch == grant.facts.epoch {
            return Ok((agent, grant));
        }
        deps.facts.again(deps, caller.org, attempt).await?;
    }
    Err(Refusal::Unsettled)
}

fn known_connector<'a>(deps: &'a Deps, id: &ConnectorId) -> Result<&'a Arc<Connector>, Refusal> {
    deps.catalogue
        .get(id)
        .ok_or_else(|| Refusal::invalid("/connector", "there is no such connector"))
}

fn known_tool<'c>(connector: &'c Connector, name: &str) -> Result<Tool<'c>, Refusal> {
    Tool::find(connector, name).ok_or_else(unknown_tool)
}

fn unknown_tool() -> Refusal {
    Refusal::invalid("/tool", "the connector has no such tool")
}

/// Finds the one grant meant, telling nothing about a person the agent may not ask about.
async fn select(
    deps: &Deps,
    caller: Caller,
    ask: &Ask,
    agent: &AgentView,
) -> Result<Arc<GrantView>, Refusal> {
    match &ask.target {
        Target::Grant(id) => {
            let Some(view) = deps.facts.grant(deps, caller.org, caller.agent, *id).await? else {
                nowhere(deps, agent, &ask.tool)?;
                return Err(Refusal::NotFound);
            };
            let grant = &view.facts.grant;
            let connector = known_connector(deps, &grant.connector)?;
            known_tool(connector, &ask.tool)?;
            may_ask(agent, connector, &ask.tool, !view.facts.delegations.is_empty())?;
            usable(deps, caller, ask, grant, connector).await?;
            Ok(view)
        }
        Target::Account {
            connector: id,
            user,
            account,
        } => {
            let connector = known_connector(deps, id)?;
            known_tool(connector, &ask.tool)?;
            let grants = deps
                .store
                .read(caller.org)
                .await?
                .grants_of(caller.org, *user, Some(id))
                .await?;
            let mut living: Vec<Grant> = grants
                .into_iter()
                .filter(|grant| {
                    matches!(
                        grant.state,
                        GrantState::Active | GrantState::NeedsReconnect { .. }
                    )
                })
                .collect();
            let mut delegated = false;
            for grant in &living {
                let view = deps.facts.grant(deps, caller.org, caller.agent, grant.id).await?;
                delegated |= view.is_some_and(|view| !view.facts.delegations.is_empty());
            }
            may_ask(agent, connector, &ask.tool, delegated)?;
            if let Some(account) = account {
                living.retain(|grant| names(grant, account));
            }
            let chosen = match living.as_slice() {
                [] => return Err(connection_required(deps, caller, ask, *user, connector).await),
                [one] => one,
                several => {
                    let choices = several.iter().map(|grant| AccountChoice {
                        grant: grant.id,
                        connector: grant.connector.clone(),
                        label: grant.label.clone().unwrap_or_else(|| grant.account.label.clone()),
                    });
                    return Err(Refusal::AccountSelectionRequired(choices.collect()));
                }
            };
            usable(deps, caller, ask, chosen, connector).await?;
            deps.facts
                .grant(deps, caller.org, caller.agent, chosen.id)
                .await?
                .ok_or(Refusal::NotFound)
        }
    }
}

fn names(grant: &Grant, account: &str) -> bool {
    grant.account.id.as_deref() == Some(account)
        || grant.account.label == account
        || grant.label.as_deref() == Some(account)
}

/// An agent that could use the tool at no connector is told the same of a grant that is not there as of one that is.
fn nowhere(deps: &Deps, agent: &AgentView, tool: &str) -> Result<(), Refusal> {
    let mut covered = None;
    for connector in deps.catalogue.iter() {
        if known_tool(connector, tool).is_ok() {
            *covered.get_or_insert(false) |= agent.covers(connector, tool);
        }
    }
    match covered {
        None => Err(unknown_tool()),
        Some(false) => Err(Refusal::denied(reason::NOT_PERMITTED)),
        Some(true) => Ok(()),
    }
}

/// Nothing about a person is told unless the agent's capability covers the tool and that person lets it ask.
fn may_ask(agent: &AgentView, connector: &Connector, tool: &str, delegated: bool) -> Result<(), Refusal> {
    if !agent.covers(connector, tool) {
        return Err(Refusal::denied(reason::NOT_PERMITTED));
    }
    let above = |rules: &ConnectorRules| {
        Tool::find(connector, tool).is_some_and(|tool| !rules.allow(connector, &tool.scopes()))
    };
    // What nobody may grant is asked of nobody.
    if agent.facts.rules.get(&connector.id).is_some_and(above) {
        return Err(Refusal::denied(reason::SCOPE_NOT_ALLOWED));
    }
    if !delegated && !agent.facts.org.agents_may_ask {
        return Err(Refusal::denied(reason::NOT_DELEGATED));
    }
    Ok(())
}

async fn usable(
    deps: &Deps,
    caller: Caller,
    ask: &Ask,
    grant: &Grant,
    connector: &Connector,
) -> Result<(), Refusal> {
    match grant.state {
        // What the tool needs and the person did not grant is asked for again, not tried.
        GrantState::Active
            if deps.binding(&grant.connector) == Some(grant.binding)
                && known_tool(connector, &ask.tool)?
                    .scopes()
                    .is_subset(&grant.scopes) =>
        {
            Ok(())
        }
        GrantState::Revoked { at } => Err(Refusal::Revoked { grant: grant.id, at }),
        _ => Err(reconnect_required(deps, caller, ask, grant, connector).await),
    }
}

/// The refusal with a link that works, carrying only the tool's scopes (protocol §6).
async fn connection_required(
    deps: &Deps,
    caller: Caller,
    ask: &Ask,
    user: UserId,
    connector: &Connector,
) -> Refusal {
    match link(deps, caller, ask, user, connector, None).await {
        Ok(link) => Refusal::ConnectionRequired(link),
        Err(refusal) => refusal,
    }
}

/// The refusal with a link that renews this grant.
pub(super) async fn reconnect_required(
    deps: &Deps,
    caller: Caller,
    ask: &Ask,
    grant: &Grant,
    connector: &Connector,
) -> Refusal {
    match link(deps, caller, ask, grant.user, connector, Some(grant)).await {
        Ok(link) => Refusal::ReconnectRequired(link),
        Err(refusal) => refusal,
    }
}

async fn link(
    deps: &Deps,
    caller: Caller,
    ask: &Ask,
    user: UserId,
    connector: &Connector,
    reconnect: Option<&Grant>,
) -> Result<ConnectLink, Refusal> {
    let mut tx = deps.store.read(caller.org).await?;
    if tx.user(caller.org, user).await?.is_none() {
        return Err(Refusal::NotFound);
    }
    let recent = tx
        .connects_asked_since(caller.org, user, caller.agent, tx.now() - LINKS_PER)
        .await?;
    let mut rules = tx.connector_rules(caller.org).await?;
    drop(tx);
    if recent >= LINKS {
        return Err(Refusal::RateLimited(LINKS_PER));
    }
    let tool = known_tool(connector, &ask.tool)?;
    let scopes = match reconnect {
        // Reconnecting restores what the person had consented to, which is not more than before: with the tool's scopes
        // alone everything else they use would be lost (protocol §6). What the org has stopped allowing is not restored.
        Some(grant) => {
            let rules = rules.remove(&connector.id).unwrap_or_default();
            let kept = grant.scopes.difference(&rules.above(connector, &grant.scopes));
            kept.union(&tool.scopes())
        }
        None => tool.scopes(),
    };
    let wanted = begin::Ask {
        user,
        connector: connector.id.clone(),
        scopes: Some(scopes),
        label: None,
        reconnect: reconnect.map(|grant| grant.id),
        return_url: None,
        agent: Some(caller.agent),
        service: None,
    };
    begin::create(deps, caller.org, wanted).await
}

/// Links an agent may have made for one person …
const LINKS: u64 = 10;
/// How often two views are read before they are of one epoch.
const SNAPSHOTS: u32 = 3;
/// … within this time.
const LINKS_PER: std::time::Duration = std::time::Duration::from_secs(600);
