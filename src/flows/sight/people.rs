//! Who is in the org, as one principal may see it: persons and agents.

use crate::{
    domain::{AgentId, UserId, principal::Principal},
    flows::{Deps, Refusal},
    store::{AgentRow, UserRow},
};

use super::is_admin;

/// Persons the caller may see.
///
/// # Errors
/// When the database is unavailable.
pub async fn users(
    deps: &Deps,
    who: &Principal,
    after: Option<UserId>,
    limit: u64,
) -> Result<Vec<UserRow>, Refusal> {
    let org = who.org();
    let mut tx = deps.store.read(org).await?;
    match who {
        _ if is_admin(who) => Ok(tx.users(org, after, limit).await?),
        Principal::User { user, .. } if after.is_none_or(|after| after < *user) => {
            Ok(tx.user(org, *user).await?.into_iter().collect())
        }
        Principal::Service { service, .. } => Ok(tx.users_managed_by(org, *service, after, limit).await?),
        Principal::User { .. } | Principal::Agent { .. } | Principal::Admin { .. } => Ok(Vec::new()),
    }
}

/// One person, if the caller may see them.
///
/// # Errors
/// When there is none the caller may see.
pub async fn user(deps: &Deps, who: &Principal, id: UserId) -> Result<UserRow, Refusal> {
    let person = deps
        .store
        .read(who.org())
        .await?
        .user(who.org(), id)
        .await?
        .ok_or(Refusal::NotFound)?;
    let seen = match who {
        _ if is_admin(who) => true,
        Principal::User { user, .. } => *user == id,
        Principal::Service { service, .. } => person.managed_by == Some(*service),
        Principal::Agent { .. } | Principal::Admin { .. } => false,
    };
    if seen { Ok(person) } else { Err(Refusal::NotFound) }
}

/// Agents the caller may see; an agent sees itself.
///
/// # Errors
/// When the database is unavailable.
pub async fn agents(
    deps: &Deps,
    who: &Principal,
    after: Option<AgentId>,
    limit: u64,
) -> Result<Vec<AgentRow>, Refusal> {
    let org = who.org();
    let mut tx = deps.store.read(org).await?;
    match who {
        Principal::Agent { agent, .. } if after.is_none_or(|after| after < *agent) => {
            Ok(tx.agent(org, *agent).await?.into_iter().collect())
        }
        Principal::Agent { .. } | Principal::Service { .. } => Ok(Vec::new()),
        Principal::User { .. } | Principal::Admin { .. } => Ok(tx.agents(org, after, limit).await?),
    }
}

/// One agent, if the caller may see it.
///
/// # Errors
/// When there is none the caller may see.
pub async fn agent(deps: &Deps, who: &Principal, id: AgentId) -> Result<AgentRow, Refusal> {
    let seen = match who {
        Principal::Agent { agent, .. } => *agent == id,
        Principal::Service { .. } => false,
        Principal::User { .. } | Principal::Admin { .. } => true,
    };
    if !seen {
        return Err(Refusal::NotFound);
    }
    let agent = deps.store.read(who.org()).await?.agent(who.org(), id).await?;
    agent.ok_or(Refusal::NotFound)
}
