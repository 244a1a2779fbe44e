//! Who is calling: an API key becomes the principal it belongs to (protocol §1).
//!
//! Whatever is wrong with a key, the refusal is the same (invariant I14).

use crate::{
    domain::{
        principal::{KeyKind, KeyOwner, Principal},
        secret::{ApiKey, LinkToken},
    },
    store::Keyed,
};

use super::{Deps, Refusal, actions::Caller, login};

/// The principal a key belongs to.
///
/// # Errors
/// [`Refusal::Unauthenticated`] when the key is unknown, revoked, of another kind than its prefix claims, or its agent
/// is disabled.
pub async fn by_key(deps: &Deps, claimed: KeyKind, key: &ApiKey) -> Result<Principal, Refusal> {
    // SECURITY: keys are looked up by keyed hash, so no comparison of secrets can be timed.
    let hash = deps.lookup.api_key(key)?;
    let found = deps.store.find(Keyed::ApiKey(&hash)).await?;
    let (org, mut tx) = found.ok_or(Refusal::Unauthenticated)?;
    let row = tx.api_key(org, &hash).await?.ok_or(Refusal::Unauthenticated)?;
    if row.revoked_at.is_some() || row.owner.kind() != claimed {
        return Err(Refusal::Unauthenticated);
    }
    let key = row.id;
    match row.owner {
        KeyOwner::Admin => Ok(Principal::Admin { org, key }),
        KeyOwner::Service(service) => Ok(Principal::Service { org, service, key }),
        KeyOwner::Agent(agent) => {
            let known = tx.agent(org, agent).await?.ok_or(Refusal::Unauthenticated)?;
            if known.disabled_at.is_some() {
                return Err(Refusal::Unauthenticated);
            }
            Ok(Principal::Agent { org, agent, key })
        }
    }
}

/// The agent a key belongs to, from memory if it came before.
///
/// SECURITY: for calls only that go on to the agent's facts, which hold its living keys, and then pass the gate, which
/// holds those facts to the org's epoch: a key that was revoked since is refused there, whatever is remembered here.
///
/// # Errors
/// [`Refusal::Unauthenticated`] as [`by_key`]; [`Refusal::RateLimited`] while the gate would not let it in, before
/// anything costly is done for it.
pub async fn remembered_agent(deps: &Deps, key: &ApiKey) -> Result<Caller, Refusal> {
    let hash = deps.lookup.api_key(key)?;
    let caller = match deps.facts.caller(&hash) {
        Some(caller) => caller,
        None => {
            let Principal::Agent { org, agent, key } = by_key(deps, KeyKind::Agent, key).await? else {
                return Err(Refusal::Unauthenticated);
            };
            let caller = Caller { org, agent, key };
            deps.facts.keep_caller(hash, caller);
            caller
        }
    };
    deps.gate.has_room(caller.org, caller.agent)?;
    Ok(caller)
}

/// The person whose browser session a cookie is.
///
/// # Errors
/// [`Refusal::Unauthenticated`] when it is nobody's.
pub async fn by_session(deps: &Deps, session: &LinkToken) -> Result<Principal, Refusal> {
    let (org, user) = login::who(deps, session).await?.ok_or(Refusal::Unauthenticated)?;
    Ok(Principal::User {
        org: org.id,
        user: user.id,
        role: user.role,
    })
}
