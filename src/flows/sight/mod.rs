//! What a principal may see. What it may not is not found, whoever it belongs to (protocol §6, invariant I5).

mod log;
mod people;
mod rules;

pub use log::{entries, entry};
pub use people::{agent, agents, user, users};
pub use rules::{Settings, configured, engine, engines, key, keys, policies, policy, settings};

use std::time::Duration;

use crate::{
    domain::{
        ConnectSessionId, DelegationId, GrantId, RevocationId,
        delegation::Delegation,
        entry::Epoch,
        grant::{Grant, GrantState},
        principal::{Principal, Role},
    },
    store::{
        ConnectRow, DelegationFilter, GrantFilter, OutboxRow, RevocationRow, Selector, Tx, UpstreamResult,
    },
};

use super::{
    Deps, Refusal,
    connect::{self, Progress},
    revoke,
};

/// A grant with what became of its revocation at the provider.
#[derive(Debug)]
pub struct SeenGrant {
    /// The grant.
    pub grant: Grant,
    /// Only for ended grants.
    pub upstream: Option<UpstreamResult>,
}

/// A revocation with how far it has come.
#[derive(Debug)]
pub struct SeenRevocation {
    /// The revocation.
    pub row: RevocationRow,
    /// The epoch it began.
    pub epoch: Option<Epoch>,
    /// How far it has come.
    pub progress: revoke::Progress,
    /// One page of its grants.
    pub grants: Vec<OutboxRow>,
}

/// Whether the caller administers the org.
#[must_use]
pub fn is_admin(who: &Principal) -> bool {
    matches!(
        who,
        Principal::Admin { .. }
            | Principal::User {
                role: Role::Admin,
                ..
            }
    )
}

/// Grants the caller may see.
///
/// # Errors
/// When the database is unavailable.
pub async fn grants(
    deps: &Deps,
    who: &Principal,
    mut filter: GrantFilter,
) -> Result<Vec<SeenGrant>, Refusal> {
    match who {
        _ if is_admin(who) => {}
        Principal::User { user, .. } => match narrowed(filter.user, *user) {
            Some(user) => filter.user = Some(user),
            None => return Ok(Vec::new()),
        },
        Principal::Service { service, .. } => filter.service = Some(*service),
        Principal::Agent { agent, .. } => filter.agent = Some(*agent),
        Principal::Admin { .. } => {}
    }
    let mut tx = deps.store.read(who.org()).await?;
    let grants = tx.grants_seen(who.org(), &filter).await?;
    let mut seen = Vec::with_capacity(grants.len());
    for grant in grants {
        seen.push(with_upstream(&mut tx, grant).await?);
    }
    Ok(seen)
}

/// One grant, if the caller may see it.
///
/// # Errors
/// When there is none the caller may see.
pub async fn grant(deps: &Deps, who: &Principal, id: GrantId) -> Result<SeenGrant, Refusal> {
    let mut tx = deps.store.read(who.org()).await?;
    let grant = visible_grant(&mut tx, who, id).await?;
    with_upstream(&mut tx, grant).await
}

/// One grant the caller owns or administers.
///
/// # Errors
/// When there is none.
pub async fn own_grant(deps: &Deps, who: &Principal, id: GrantId) -> Result<Grant, Refusal> {
    let grant = deps
        .store
        .read(who.org())
        .await?
        .grant(who.org(), id)
        .await?
        .ok_or(Refusal::NotFound)?;
    match who {
        _ if is_admin(who) => Ok(grant),
        Principal::User { user, .. } if *user == grant.user => Ok(grant),
        _ => Err(Refusal::NotFound),
    }
}

async fn visible_grant(tx: &mut Tx, who: &Principal, id: GrantId) -> Result<Grant, Refusal> {
    let org = who.org();
    let grant = tx.grant(org, id).await?.ok_or(Refusal::NotFound)?;
    let seen = match who {
        _ if is_admin(who) => true,
        Principal::User { user, .. } => *user == grant.user,
        Principal::Service { service, .. } => tx
            .user(org, grant.user)
            .await?
            .is_some_and(|user| user.managed_by == Some(*service)),
        Principal::Agent { agent, .. } => {
            let now = tx.now();
            let delegations = tx.delegations_of(org, id, Some(*agent)).await?;
            delegations.iter().any(|delegation| delegation.is_live(now))
        }
        Principal::Admin { .. } => true,
    };
    if seen { Ok(grant) } else { Err(Refusal::NotFound) }
}

async fn with_upstream(tx: &mut Tx, grant: Grant) -> Result<SeenGrant, Refusal> {
    let upstream = match grant.state {
        // No tombstone yet: the fan-out will ask the provider.
        GrantState::Revoked { .. } => Some(
            tx.outbox(grant.org, grant.id)
                .await?
                .map_or(UpstreamResult::Pending, |row| row.result),
        ),
        _ => None,
    };
    Ok(SeenGrant { grant, upstream })
}

/// Delegations the caller may see.
///
/// # Errors
/// When the database is unavailable.
pub async fn delegations(
    deps: &Deps,
    who: &Principal,
    mut filter: DelegationFilter,
) -> Result<Vec<Delegation>, Refusal> {
    match who {
        _ if is_admin(who) => {}
        Principal::User { user, .. } => match narrowed(filter.user, *user) {
            Some(user) => filter.user = Some(user),
            None => return Ok(Vec::new()),
        },
        Principal::Agent { agent, .. } => match narrowed(filter.agent, *agent) {
            Some(agent) => filter.agent = Some(agent),
            None => return Ok(Vec::new()),
        },
        Principal::Service { .. } | Principal::Admin { .. } => return Ok(Vec::new()),
    }
    Ok(deps
        .store
        .read(who.org())
        .await?
        .delegations_seen(who.org(), &filter)
        .await?)
}

/// One delegation, if the caller may see it.
///
/// # Errors
/// When there is none the caller may see.
pub async fn delegation(deps: &Deps, who: &Principal, id: DelegationId) -> Result<Delegation, Refusal> {
    let delegation = deps
        .store
        .read(who.org())
        .await?
        .delegation(who.org(), id)
        .await?
        .ok_or(Refusal::NotFound)?;
    let seen = match who {
        _ if is_admin(who) => true,
        Principal::User { user, .. } => *user == delegation.user,
        Principal::Agent { agent, .. } => *agent == delegation.agent,
        Principal::Service { .. } | Principal::Admin { .. } => false,
    };
    if seen {
        Ok(delegation)
    } else {
        Err(Refusal::NotFound)
    }
}

/// Where a connect session stands, for those it concerns: who minted it, who asked, the person, the admin.
///
/// # Errors
/// When there is none the caller may see.
pub async fn connect_session(
    deps: &Deps,
    who: &Principal,
    id: ConnectSessionId,
    wait: Duration,
) -> Result<(ConnectRow, Progress), Refusal> {
    let org = who.org();
    let session = deps
        .store
        .read(org)
        .await?
        .connect(org, id)
        .await?
        .ok_or(Refusal::NotFound)?;
    let seen = match who {
        _ if is_admin(who) => true,
        Principal::User { user, .. } => *user == session.user,
        Principal::Service { service, .. } => session.service == Some(*service),
        Principal::Agent { agent, .. } => session.agent == Some(*agent),
        Principal::Admin { .. } => true,
    };
    if !seen {
        return Err(Refusal::NotFound);
    }
    connect::progress(deps, org, id, wait).await
}

/// A revocation, for the admin and for the person whose things it ended.
///
/// # Errors
/// When there is none the caller may see.
pub async fn revocation(
    deps: &Deps,
    who: &Principal,
    id: RevocationId,
    after: Option<GrantId>,
    limit: u64,
) -> Result<SeenRevocation, Refusal> {
    let org = who.org();
    let (row, grants) = revoke::report(deps, org, id, after, limit).await?;
    may_revoke(deps, who, &row.selector)
        .await
        .map_err(|refusal| match refusal {
            Refusal::Denied { .. } => Refusal::NotFound,
            other => other,
        })?;
    let mut tx = deps.store.read(org).await?;
    let progress = revoke::progress(&mut tx, org, &row).await?;
    let epoch = revoke::entry(&mut tx, org, id).await?.map(|entry| entry.epoch);
    Ok(SeenRevocation {
        row,
        epoch,
        progress,
        grants,
    })
}

/// Whether the caller may end this selection: an admin any, a person themself and their own grants.
///
/// # Errors
/// [`Refusal::Denied`] for selections only admins may name, [`Refusal::NotFound`] for what is not the person's own.
pub async fn may_revoke(deps: &Deps, who: &Principal, selector: &Selector) -> Result<(), Refusal> {
    match (who, selector) {
        _ if is_admin(who) => Ok(()),
        (Principal::User { user, .. }, Selector::User(target)) if user == target => Ok(()),
        (Principal::User { .. }, Selector::User(_)) => Err(Refusal::NotFound),
        (Principal::User { .. }, Selector::Grant(grant)) => own_grant(deps, who, *grant).await.map(drop),
        _ => Err(Refusal::denied(WRONG_PRINCIPAL)),
    }
}

/// What was asked for, if it is the caller's own; the caller's own if nothing was.
fn narrowed<T: PartialEq + Copy>(asked: Option<T>, own: T) -> Option<T> {
    match asked {
        Some(asked) if asked != own => None,
        _ => Some(own),
    }
}

/// An id of the caller, for entries.
#[must_use]
pub fn id_of(who: &Principal) -> String {
    match who {
        Principal::User { user, .. } => user.to_string(),
        Principal::Admin { key, .. } => key.to_string(),
        Principal::Service { service, .. } => service.to_string(),
        Principal::Agent { agent, .. } => agent.to_string(),
    }
}

/// The reason of a denial that is about who calls, not about what is asked.
pub const WRONG_PRINCIPAL: &str = "wrong_principal";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AgentId, KeyId, OrgId, UserId};

    fn org() -> OrgId {
        OrgId::from_bytes([1; 16])
    }

    #[test]
    fn only_admin_keys_and_admin_persons_administer() {
        let user = UserId::from_bytes([2; 16]);
        let key = KeyId::from_bytes([3; 16]);
        let person = |role| Principal::User {
            org: org(),
            user,
            role,
        };
        assert!(is_admin(&Principal::Admin { org: org(), key }));
        assert!(is_admin(&person(Role::Admin)));
        assert!(!is_admin(&person(Role::Member)));
        assert!(!is_admin(&Principal::Agent {
            org: org(),
            agent: AgentId::from_bytes([4; 16]),
            key
        }));
    }

    #[test]
    fn a_filter_for_another_yields_nothing() {
        assert_eq!(narrowed(Some(1), 2), None);
        assert_eq!(narrowed(Some(2), 2), Some(2));
        assert_eq!(narrowed(None, 2), Some(2));
    }
}
