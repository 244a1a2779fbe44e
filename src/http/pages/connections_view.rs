//! Connections as `web` shows them.

use std::collections::BTreeSet;

use super::{boxes, entries_view, words};
use crate::{
    domain::{
        connector::{ConnectorId, RevokeHow, RevokeKills},
        grant::GrantState,
    },
    flows::{
        Deps,
        overview::{Connection, Detail},
    },
    web::{
        Shell, Shown, When,
        pages::connections::{AvailableConnector, GrantCard, GrantPage, LastUse, UpstreamReach},
        parts::{AgentMay, Notice},
    },
};

/// A connection as a card.
pub(super) fn card(deps: &Deps, one: &Connection) -> GrantCard {
    let grant = &one.grant;
    let connector = deps.catalogue.get(&grant.connector);
    let now = deps.clock.now();
    let last_used = one.last_use.as_ref().map(|used| LastUse {
        at: When::new(used.at, now),
        agent: used.agent.as_deref().map(Shown::new),
        tool: used
            .tool
            .as_deref()
            .map(|tool| entries_view::tool_title(deps, Some(&grant.connector), tool)),
    });
    GrantCard {
        id: grant.id,
        connector: words::connector_name(deps, &grant.connector),
        account: words::account(grant),
        label: grant.label.as_deref().map(Shown::new),
        status: words::status(grant, one.upstream, deps),
        connected: When::new(grant.connected_at, now),
        last_used,
        permissions: words::permissions(connector.map(AsRef::as_ref), &grant.scopes),
        agents: one
            .delegations
            .iter()
            .map(|(agent, delegation)| AgentMay {
                agent: Shown::new(agent),
                categories: delegation.categories.clone(),
                raw: delegation.raw,
            })
            .collect(),
    }
}

/// The page of one connection.
pub(super) fn grant_page(deps: &Deps, shell: Shell, notice: Option<Notice>, detail: &Detail) -> GrantPage {
    let one = &detail.connection;
    let connector = deps.catalogue.get(&one.grant.connector);
    let delegations = one.delegations.iter().map(|(_, delegation)| delegation);
    let agents = if matches!(one.grant.state, GrantState::Revoked { .. }) {
        Vec::new()
    } else {
        boxes::holding(&detail.agents, connector.map(AsRef::as_ref), delegations)
    };
    let is_admin = shell.person.as_ref().is_some_and(|person| person.is_admin);
    GrantPage {
        shell,
        notice,
        grant: card(deps, one),
        key: Shown::new(&deps.key_words),
        agents,
        recent: detail
            .recent
            .iter()
            .map(|told| entries_view::line(deps, told, is_admin))
            .collect(),
    }
}

/// The connectors of this deployment, those the org has a client for first.
pub(super) fn available(deps: &Deps, ready: &BTreeSet<ConnectorId>) -> Vec<AvailableConnector> {
    let mut all: Vec<_> = deps
        .catalogue
        .iter()
        .map(|connector| AvailableConnector {
            id: connector.id.clone(),
            name: Shown::new(&connector.name),
            about: None,
            ready: ready.contains(&connector.id),
        })
        .collect();
    all.sort_by_key(|connector| !connector.ready);
    all
}

/// What a revocation can do at the provider.
pub(super) fn reach(deps: &Deps, connector: &ConnectorId) -> UpstreamReach {
    let Some(connector) = deps.catalogue.get(connector) else {
        return UpstreamReach::None;
    };
    match (connector.revoke.how, connector.revoke.kills) {
        (RevokeHow::None, _) => UpstreamReach::None,
        (_, Some(RevokeKills::AllTokensOfUserAndClient)) => UpstreamReach::EveryAccessOfThePerson,
        _ => UpstreamReach::ThisAccess,
    }
}
