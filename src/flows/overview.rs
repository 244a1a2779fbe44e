//! A person's own connections, as one snapshot shows them.

use std::collections::BTreeSet;

use crate::{
    domain::{
        AgentId, GrantId, OrgId, RevocationId, Time, UserId,
        connector::ConnectorId,
        delegation::Delegation,
        entry::{Entry, EntryType},
        grant::{Grant, GrantState},
    },
    store::{AgentRow, EntryFilter, Tx, UpstreamResult},
};

use super::{
    Deps, Refusal, audit,
    telling::{self, Told},
};

/// A grant with what its person wants to know of it.
#[derive(Debug)]
pub struct Connection {
    /// The grant.
    pub grant: Grant,
    /// What became of it at the provider; only for ended grants.
    pub upstream: Option<UpstreamResult>,
    /// The revocation that ended it.
    pub revocation: Option<RevocationId>,
    /// What agents may do with it, by their names.
    pub delegations: Vec<(String, Delegation)>,
    /// When an agent last used it.
    pub last_use: Option<LastUse>,
}

/// The last use of a grant.
#[derive(Debug, Clone)]
pub struct LastUse {
    /// When.
    pub at: Time,
    /// By whom, if that is not long ago.
    pub agent: Option<String>,
    /// For what.
    pub tool: Option<String>,
}

/// Everything a person has connected, and what they could.
#[derive(Debug)]
pub struct Connections {
    /// Newest first; of those that ended, the latest few.
    pub items: Vec<Connection>,
    /// The connectors the org has a client for.
    pub ready: BTreeSet<ConnectorId>,
}

/// One connection with the agents of the org.
#[derive(Debug)]
pub struct Detail {
    /// The connection.
    pub connection: Connection,
    /// The agents that are not disabled.
    pub agents: Vec<AgentRow>,
    /// The newest entries about it.
    pub recent: Vec<Told>,
}

/// What a person has connected.
///
/// # Errors
/// When the database is unavailable.
pub async fn connections(deps: &Deps, org: OrgId, user: UserId) -> Result<Connections, Refusal> {
    let mut tx = deps.store.read(org).await?;
    let mut grants = tx.grants_of(org, user, None).await?;
    let mut ended = 0;
    grants.retain(|grant| {
        if matches!(grant.state, GrantState::Revoked { .. }) {
            ended += 1;
        }
        !matches!(grant.state, GrantState::Revoked { .. }) || ended <= MOST_ENDED
    });
    let agents = tx.agents(org, None, MOST_AGENTS).await?;
    let uses = latest(&mut tx, org, user, None).await?;
    let mut items = Vec::with_capacity(grants.len());
    for grant in grants {
        items.push(seen(&mut tx, grant, &agents, &uses).await?);
    }
    let rules = tx.connector_rules(org).await?;
    let ready = rules.into_iter().filter(|(_, rules)| rules.allow_connecting());
    Ok(Connections {
        items,
        ready: ready.map(|(connector, _)| connector).collect(),
    })
}

/// One connection of a person.
///
/// # Errors
/// When there is none, or it is another's: the answer is the same.
pub async fn connection(deps: &Deps, org: OrgId, user: UserId, id: GrantId) -> Result<Detail, Refusal> {
    let mut tx = deps.store.read(org).await?;
    let grant = owned(&mut tx, org, user, id).await?;
    let mut agents = tx.agents(org, None, MOST_AGENTS).await?;
    let uses = latest(&mut tx, org, user, Some(&grant.connector)).await?;
    let connection = seen(&mut tx, grant, &agents, &uses).await?;
    drop(tx);
    agents.retain(|agent| agent.disabled_at.is_none());
    let filter = EntryFilter {
        user: Some(user),
        connector: Some(connection.grant.connector.clone()),
        among: Some(MADE_LAST),
        limit: LOOK_BACK,
        ..EntryFilter::default()
    };
    let mut entries = audit::entries(deps, org, &filter).await?;
    entries.retain(|(entry, _)| entry.draft.grant == Some(id));
    entries.truncate(MOST_RECENT);
    Ok(Detail {
        connection,
        agents,
        recent: telling::tell(deps, org, entries).await?,
    })
}

/// A grant of this person.
///
/// # Errors
/// When there is none, or it is another's: the answer is the same.
pub async fn own_grant(deps: &Deps, org: OrgId, user: UserId, id: GrantId) -> Result<Connection, Refusal> {
    let mut tx = deps.store.read(org).await?;
    let grant = owned(&mut tx, org, user, id).await?;
    seen(&mut tx, grant, &[], &[]).await
}

async fn owned(tx: &mut Tx, org: OrgId, user: UserId, id: GrantId) -> Result<Grant, Refusal> {
    let grant = tx.grant(org, id).await?.ok_or(Refusal::NotFound)?;
    if grant.user == user {
        Ok(grant)
    } else {
        Err(Refusal::NotFound)
    }
}

async fn seen(tx: &mut Tx, grant: Grant, agents: &[AgentRow], uses: &[Entry]) -> Result<Connection, Refusal> {
    let (mut upstream, mut revocation) = (None, None);
    let mut delegations = Vec::new();
    if matches!(grant.state, GrantState::Revoked { .. }) {
        let row = tx.outbox(grant.org, grant.id).await?;
        // No place in the outbox yet: the fan-out will ask the provider.
        upstream = Some(row.as_ref().map_or(UpstreamResult::Pending, |row| row.result));
        revocation = row.and_then(|row| row.revocation);
    } else {
        let now = tx.now();
        for delegation in tx.delegations_of(grant.org, grant.id, None).await? {
            if delegation.is_live(now)
                && let Some(agent) = active(agents, delegation.agent)
            {
                delegations.push((agent.name.clone(), delegation));
            }
        }
    }
    let used = uses.iter().find(|entry| entry.draft.grant == Some(grant.id));
    let last_use = match used {
        Some(entry) => Some(LastUse {
            at: entry.ts,
            agent: entry
                .draft
                .agent
                .and_then(|id| agents.iter().find(|agent| agent.id == id))
                .map(|agent| agent.name.clone()),
            tool: entry.draft.tool.clone(),
        }),
        None => grant.last_used_at.map(|at| LastUse {
            at,
            agent: None,
            tool: None,
        }),
    };
    Ok(Connection {
        grant,
        upstream,
        revocation,
        delegations,
        last_use,
    })
}

fn active(agents: &[AgentRow], id: AgentId) -> Option<&AgentRow> {
    agents
        .iter()
        .find(|agent| agent.id == id && agent.disabled_at.is_none())
}

/// The latest releases of a person's grants, newest first.
async fn latest(
    tx: &mut Tx,
    org: OrgId,
    user: UserId,
    connector: Option<&ConnectorId>,
) -> Result<Vec<Entry>, Refusal> {
    let filter = EntryFilter {
        user: Some(user),
        by_agent: Some(true),
        connector: connector.cloned(),
        among: Some(MADE_LAST),
        limit: LOOK_BACK,
        ..EntryFilter::default()
    };
    let rows = tx.entries(org, &filter).await?;
    Ok(rows
        .iter()
        .filter_map(|row| serde_json::from_str::<Entry>(&row.bytes).ok())
        .filter(|entry| entry.kind == EntryType::Release)
        .collect())
}

/// Ended connections on one page.
const MOST_ENDED: usize = 10;
/// Entries on the page of one connection.
const MOST_RECENT: usize = 10;
/// Entries looked through for them.
const LOOK_BACK: u64 = 200;
/// A page that people need looks no further back than this, however much the org does.
pub(super) const MADE_LAST: u64 = 50_000;
const MOST_AGENTS: u64 = 100;
