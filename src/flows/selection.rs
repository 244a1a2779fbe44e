//! Which grant a request means, and what may be said about it: nothing of a person who does not let the agent ask.

use std::sync::Arc;

use crate::{
    connectors::Tool,
    domain::{
        UserId,
        connector::{Connector, ConnectorId},
        grant::{Grant, GrantState},
        rules::ConnectorRules,
    },
    policy::reason,
};

use super::{
    AccountChoice, ConnectLink, Deps, Refusal,
    actions::{Ask, Caller, Target},
    connect::begin,
    facts::{AgentView, GrantView},
    refresh,
};

/// Finds the one grant meant.
///
/// # Errors
/// The first refusal that applies, in the order of protocol §6.
pub(super) async fn select(
    deps: &Deps,
    caller: Caller,
    ask: &Ask,
    agent: &AgentView,
) -> Result<Arc<GrantView>, Refusal> {
    match &ask.target {
        Target::Grant(id) => {
            let view = deps.facts.grant(deps, agent, *id).await?;
            // SECURITY: of a grant the agent may not ask about nothing is told: not where it is, not how it stands.
            let Some(view) = view else {
                anywhere(deps, agent, &ask.tool)?;
                return Err(Refusal::NotFound);
            };
            if !view.lets_ask(deps.clock.now()) {
                anywhere(deps, agent, &ask.tool)?;
                return Err(Refusal::denied(reason::NOT_DELEGATED));
            }
            let grant = &view.facts.grant;
            let connector = known_connector(deps, &grant.connector)?;
            capable(agent, connector, &ask.tool)?;
            usable(deps, caller, ask, agent, grant, connector).await?;
            Ok(view)
        }
        Target::Account {
            connector,
            user,
            account,
        } => {
            let connector = known_connector(deps, connector)?;
            capable(agent, connector, &ask.tool)?;
            let mut views = delegated(deps, caller, *user, connector, agent).await?;
            if let Some(account) = account {
                views.retain(|view| names(&view.facts.grant, account));
            }
            match views.as_slice() {
                [] => {
                    settled(deps, agent).await?;
                    Err(connection_required(deps, caller, ask, *user, connector).await)
                }
                [one] => {
                    usable(deps, caller, ask, agent, &one.facts.grant, connector).await?;
                    Ok(Arc::clone(one))
                }
                several => {
                    let choices = several
                        .iter()
                        .map(|view| &view.facts.grant)
                        .map(|grant| AccountChoice {
                            grant: grant.id,
                            connector: grant.connector.clone(),
                            label: grant.label.clone().unwrap_or_else(|| grant.account.label.clone()),
                        });
                    Err(Refusal::AccountSelectionRequired(choices.collect()))
                }
            }
        }
    }
}

/// The person's grants at a connector that they let the agent ask about. Others are not there for it, not by their names
/// and not by their number.
async fn delegated(
    deps: &Deps,
    caller: Caller,
    user: UserId,
    connector: &Connector,
    agent: &AgentView,
) -> Result<Vec<Arc<GrantView>>, Refusal> {
    let mut tx = deps.store.read(caller.org).await?;
    let grants = tx.grants_of(caller.org, user, Some(&connector.id)).await?;
    drop(tx);
    let now = deps.clock.now();
    let (mut connected, mut views) = (false, Vec::new());
    for grant in grants {
        if !is_living(&grant) {
            continue;
        }
        connected = true;
        let view = deps.facts.grant(deps, agent, grant.id).await?;
        views.extend(view.filter(|view| is_living(&view.facts.grant) && view.lets_ask(now)));
    }
    // Who has connected has said who may ask; for the others the org does (protocol §6).
    if views.is_empty() && (connected || !agent.facts.org.agents_may_ask) {
        return Err(Refusal::denied(reason::NOT_DELEGATED));
    }
    Ok(views)
}

fn is_living(grant: &Grant) -> bool {
    matches!(
        grant.state,
        GrantState::Active | GrantState::NeedsReconnect { .. }
    )
}

fn names(grant: &Grant, account: &str) -> bool {
    grant.account.id.as_deref() == Some(account)
        || grant.account.label == account
        || grant.label.as_deref() == Some(account)
}

/// An agent that could use the tool at no connector is told so of every grant it may not ask about, there or not.
fn anywhere(deps: &Deps, agent: &AgentView, tool: &str) -> Result<(), Refusal> {
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

/// Whether the agent could use the tool for anybody at all.
fn capable(agent: &AgentView, connector: &Connector, tool: &str) -> Result<(), Refusal> {
    let scopes = known_tool(connector, tool)?.scopes();
    if !agent.covers(connector, tool) {
        return Err(Refusal::denied(reason::NOT_PERMITTED));
    }
    // What nobody may grant is asked of nobody.
    let above = |rules: &ConnectorRules| !rules.allow(connector, &scopes);
    if agent.facts.rules.get(&connector.id).is_some_and(above) {
        return Err(Refusal::denied(reason::SCOPE_NOT_ALLOWED));
    }
    Ok(())
}

async fn usable(
    deps: &Deps,
    caller: Caller,
    ask: &Ask,
    agent: &AgentView,
    grant: &Grant,
    connector: &Connector,
) -> Result<(), Refusal> {
    let is_consented_to = deps.binding(&grant.connector) == Some(grant.binding);
    match grant.state {
        // What the tool needs and the person did not grant is asked for again, not tried.
        GrantState::Active
            if is_consented_to
                && known_tool(connector, &ask.tool)?
                    .scopes()
                    .is_subset(&grant.scopes) =>
        {
            Ok(())
        }
        GrantState::Revoked { at } => Err(Refusal::Revoked { grant: grant.id, at }),
        _ => {
            settled(deps, agent).await?;
            if grant.state == GrantState::Active && !is_consented_to {
                // The first one to be refused says so to everybody.
                Box::pin(say_so(deps, caller, grant)).await?;
            }
            if is_consented_to && refresh::says_binding_changed(grant) && !deps.store.is_sealed(caller.org) {
                // The file was put back: read it again, and decide again.
                Box::pin(refresh::binding_restored(deps, grant)).await?;
                deps.facts.forget(caller.org);
                return Err(Refusal::Unsettled);
            }
            Err(reconnect_required(deps, caller, ask, grant, connector).await)
        }
    }
}

/// The connector is not what the person consented to any more: the pages and the webhook tell that, too.
async fn say_so(deps: &Deps, caller: Caller, grant: &Grant) -> Result<(), Refusal> {
    // What is said over a database that is older than it should be may not hold.
    if deps.store.is_sealed(caller.org) {
        return Ok(());
    }
    if !refresh::binding_changed(deps, grant).await? {
        return Err(Refusal::Unsettled);
    }
    // The epoch has moved on by this alone: nothing that the refusal rests on is stale, and no second link is made.
    deps.facts.forget(caller.org);
    Ok(())
}

/// A grant that was connected again since it was read needs no link, and none that counts against the few there are.
/// Every grant was read at the agent's epoch.
async fn settled(deps: &Deps, agent: &AgentView) -> Result<(), Refusal> {
    if deps
        .facts
        .holds(deps, agent.facts.org.id, agent.facts.epoch)
        .await?
    {
        Ok(())
    } else {
        Err(Refusal::Unsettled)
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
    // Who is not there lets nobody ask, and is answered as who has connected and lets this agent not.
    if tx.user(caller.org, user).await?.is_none() {
        return Err(Refusal::denied(reason::NOT_DELEGATED));
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
        scopes: Some(scopes),
        reconnect: reconnect.map(|grant| grant.id),
        agent: Some(caller.agent),
        ..begin::Ask::new(user, connector.id.clone())
    };
    begin::create(deps, caller.org, wanted).await
}

/// The connector, if there is one.
///
/// # Errors
/// When there is none.
pub(super) fn known_connector<'a>(deps: &'a Deps, id: &ConnectorId) -> Result<&'a Arc<Connector>, Refusal> {
    deps.catalogue
        .get(id)
        .ok_or_else(|| Refusal::invalid("/connector", "there is no such connector"))
}

/// The connector's tool, if it has it.
///
/// # Errors
/// When it has not.
pub(super) fn known_tool<'c>(connector: &'c Connector, name: &str) -> Result<Tool<'c>, Refusal> {
    Tool::find(connector, name).ok_or_else(unknown_tool)
}

fn unknown_tool() -> Refusal {
    Refusal::invalid("/tool", "the connector has no such tool")
}

/// Links an agent may have made for one person …
const LINKS: u64 = 10;
/// … within this time.
const LINKS_PER: std::time::Duration = std::time::Duration::from_secs(600);
