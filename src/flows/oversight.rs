//! What admins see of their org: people, agents, and what became of a revocation. No secret, nobody's content.

use crate::{
    domain::{
        AgentId, GrantId, OrgId, RevocationId, Time, UserId,
        entry::{Entry, EntryType},
        grant::{Grant, GrantState},
    },
    store::{AgentRow, EntryFilter, OutboxRow, RevocationRow, ServiceRow, Tx, UserRow},
};

use super::{
    Deps, Refusal,
    overview::MADE_LAST,
    revoke::{self, Progress},
    telling,
};

/// A person as admins see them.
#[derive(Debug)]
pub struct PersonSeen {
    /// The person.
    pub user: UserRow,
    /// How many living grants.
    pub grants: u64,
    /// The host application that manages them.
    pub host: Option<String>,
}

/// An agent as admins see it.
#[derive(Debug)]
pub struct AgentSeen {
    /// The agent.
    pub agent: AgentRow,
    /// How many living delegations.
    pub delegations: u64,
    /// When it last asked for anything.
    pub last_asked: Option<Time>,
}

/// Some of a list, and where it goes on.
#[derive(Debug)]
pub struct Part<T, Id> {
    /// In the order of their ids.
    pub items: Vec<T>,
    /// The last of these, if there are more.
    pub next: Option<Id>,
}

/// What there is to name in a revocation or a filter.
#[derive(Debug)]
pub struct Roster {
    /// The people.
    pub people: Vec<UserRow>,
    /// The agents, disabled ones too.
    pub agents: Vec<AgentRow>,
    /// The living grants, app by app.
    pub grants: Vec<Grant>,
    /// Whether there are more of any of these.
    pub more: bool,
}

/// A revocation and how far it has come.
#[derive(Debug)]
pub struct Receipt {
    /// The revocation.
    pub row: RevocationRow,
    /// Who did it, by name.
    pub by: Option<String>,
    /// Calls sent before it, without an outcome yet.
    pub in_flight: u64,
    /// The first of its grants, each with its person and what the provider said.
    pub grants: Vec<(Option<UserRow>, Option<Grant>, OutboxRow)>,
    /// How far it has come.
    pub progress: Progress,
}

/// The people of the org whose ids come after `after`.
///
/// # Errors
/// When the database is unavailable.
pub async fn people(
    deps: &Deps,
    org: OrgId,
    after: Option<UserId>,
) -> Result<Part<PersonSeen, UserId>, Refusal> {
    let mut tx = deps.store.read(org).await?;
    let counts = tx.living_grants_per_user(org).await?;
    let services = tx.services(org).await?;
    let mut users = tx.users(org, after, PAGE + 1).await?;
    let more = cut(&mut users, PAGE);
    Ok(Part {
        next: users.last().filter(|_| more).map(|last| last.id),
        items: users
            .into_iter()
            .map(|user| PersonSeen {
                grants: counts.get(&user.id).copied().unwrap_or_default(),
                host: host(&services, &user),
                user,
            })
            .collect(),
    })
}

/// The agents of the org whose ids come after `after`.
///
/// # Errors
/// When the database is unavailable.
pub async fn agents(
    deps: &Deps,
    org: OrgId,
    after: Option<AgentId>,
) -> Result<Part<AgentSeen, AgentId>, Refusal> {
    let mut tx = deps.store.read(org).await?;
    let counts = tx.living_delegations_per_agent(org).await?;
    let mut agents = tx.agents(org, after, PAGE + 1).await?;
    let more = cut(&mut agents, PAGE);
    let next = agents.last().filter(|_| more).map(|last| last.id);
    let mut items = Vec::with_capacity(agents.len());
    for agent in agents {
        items.push(AgentSeen {
            delegations: counts.get(&agent.id).copied().unwrap_or_default(),
            last_asked: last_asked(&mut tx, org, &agent).await?,
            agent,
        });
    }
    Ok(Part { items, next })
}

/// One person of the org.
///
/// # Errors
/// When there is no such person.
pub async fn person(deps: &Deps, org: OrgId, id: UserId) -> Result<UserRow, Refusal> {
    let person = deps.store.read(org).await?.user(org, id).await?;
    person.ok_or(Refusal::NotFound)
}

/// One agent of the org.
///
/// # Errors
/// When there is no such agent.
pub async fn agent(deps: &Deps, org: OrgId, id: AgentId) -> Result<AgentRow, Refusal> {
    let agent = deps.store.read(org).await?.agent(org, id).await?;
    agent.ok_or(Refusal::NotFound)
}

/// One grant of the org, and whose it is.
///
/// # Errors
/// When there is no such grant.
pub async fn grant(deps: &Deps, org: OrgId, id: GrantId) -> Result<(Grant, UserRow), Refusal> {
    let mut tx = deps.store.read(org).await?;
    let grant = tx.grant(org, id).await?.ok_or(Refusal::NotFound)?;
    let user = tx.user(org, grant.user).await?.ok_or(Refusal::NotFound)?;
    Ok((grant, user))
}

/// What there is to name.
///
/// # Errors
/// When the database is unavailable.
pub async fn roster(deps: &Deps, org: OrgId) -> Result<Roster, Refusal> {
    let mut tx = deps.store.read(org).await?;
    let mut grants = tx.unburied_grants(org, MOST + 1).await?;
    let mut people = tx.users(org, None, MOST + 1).await?;
    let mut agents = tx.agents(org, None, MOST + 1).await?;
    let more = [
        cut(&mut grants, MOST),
        cut(&mut people, MOST),
        cut(&mut agents, MOST),
    ];
    grants.retain(|grant| !matches!(grant.state, GrantState::Revoked { .. }));
    Ok(Roster {
        people,
        agents,
        grants,
        more: more.contains(&true),
    })
}

/// Leaves at most so many rows; whether there were more.
fn cut<T>(rows: &mut Vec<T>, most: u64) -> bool {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let more = rows.len() > most;
    rows.truncate(most);
    more
}

/// What became of a revocation.
///
/// # Errors
/// When there is no such revocation in this org.
pub async fn receipt(deps: &Deps, org: OrgId, id: RevocationId) -> Result<Receipt, Refusal> {
    let (row, first) = revoke::report(deps, org, id, None, PAGE).await?;
    let mut tx = deps.store.read(org).await?;
    let mut grants = Vec::with_capacity(first.len());
    for outbox in first {
        let grant = tx.grant(org, outbox.grant).await?;
        let user = match &grant {
            Some(grant) => tx.user(org, grant.user).await?,
            None => None,
        };
        grants.push((user, grant, outbox));
    }
    let progress = revoke::progress(&mut tx, org, &row).await?;
    let entry = revoke::entry(&mut tx, org, id).await?;
    drop(tx);
    let by = entry.and_then(|entry| entry.draft.on_behalf.into_iter().next());
    let by = match by {
        Some(id) => Some(telling::actor(deps, org, &id).await?),
        None => None,
    };
    Ok(Receipt {
        in_flight: revoke::still_in_flight(deps, org, &row).await?,
        row,
        by,
        grants,
        progress,
    })
}

async fn last_asked(tx: &mut Tx, org: OrgId, agent: &AgentRow) -> Result<Option<Time>, Refusal> {
    let filter = EntryFilter {
        agent: Some(agent.id),
        by_agent: Some(true),
        among: Some(MADE_LAST),
        limit: ASKED,
        ..EntryFilter::default()
    };
    let rows = tx.entries(org, &filter).await?;
    Ok(rows
        .iter()
        .filter_map(|row| serde_json::from_str::<Entry>(&row.bytes).ok())
        .find(|entry| matches!(entry.kind, EntryType::Release | EntryType::Decision))
        .map(|entry| entry.ts))
}

fn host(services: &[ServiceRow], user: &UserRow) -> Option<String> {
    let id = user.managed_by?;
    let name = services.iter().find(|service| service.id == id);
    Some(name.map_or_else(|| id.to_string(), |service| service.name.clone()))
}

/// Rows of a list to choose from.
const MOST: u64 = 500;
/// Rows of a page.
const PAGE: u64 = 100;
/// Entries looked through for the last question.
const ASKED: u64 = 20;
