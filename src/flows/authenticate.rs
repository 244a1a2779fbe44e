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

use super::{Deps, Refusal, login};

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
