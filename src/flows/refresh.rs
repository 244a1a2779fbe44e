//! Renewing and narrowing tokens: one flight per grant in the process, one lease in the database, the intent durable
//! before the provider is asked, the key unwrapped before that, the answer kept only if nobody else was faster.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    connectors::{
        ErrorClass,
        oauth::{self, OAuthError},
    },
    crypto::{OdkHandle, digest},
    domain::{
        GrantId, ScopeSet, Time,
        connector::Connector,
        entry::{EntryDraft, EntryType},
        grant::{Grant, GrantState, ReconnectReason},
    },
    failpoints::Failpoint,
    release::{
        open,
        seal::{self, Tokens},
    },
    store::{Lease, OutboxRow, SecretKind, SecretRow, UpstreamResult},
};

use super::{Deps, Refusal, record, upstream};

mod late;

/// One refresh per grant at a time in this process; others wait for it and then find its result.
#[derive(Debug, Default)]
pub struct Flights(Mutex<HashMap<GrantId, Arc<tokio::sync::Mutex<()>>>>);

impl Flights {
    fn of(&self, grant: GrantId) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody waits on a flight that only the map still holds.
        flights.retain(|_, flight| Arc::strong_count(flight) > 1);
        Arc::clone(flights.entry(grant).or_default())
    }
}

/// What is wanted of the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// A new access token as wide as the grant, because the one of this generation is dead or ends soon.
    Renewed {
        /// The generation of the token that will not do.
        than: Option<u64>,
    },
    /// An access token with these scopes and no more.
    Narrowed(ScopeSet),
}

impl Want {
    /// Which secret the answer becomes.
    #[must_use]
    pub fn kind(&self) -> SecretKind {
        match self {
            Self::Renewed { .. } => SecretKind::AccessToken,
            Self::Narrowed(scopes) => {
                SecretKind::Narrowed(digest::base64url(&digest::sha256(scopes.join(' ').as_bytes())))
            }
        }
    }
}

/// Sees to it that the grant has a token that will do for a while, and returns it sealed.
///
/// Runs in its own task: a caller that hangs up cannot cancel a rotation half-way.
///
/// # Errors
/// When the provider, the key service or the database refuses; the grant then says so itself.
pub async fn ensure(deps: &Arc<Deps>, grant: &Grant, want: Want) -> Result<SecretRow, Refusal> {
    let (deps, grant) = (Arc::clone(deps), grant.clone());
    tokio::spawn(async move { fly(&deps, &grant, &want).await })
        .await
        .unwrap_or(Err(Refusal::ProviderUnavailable))
}

async fn fly(deps: &Deps, seen: &Grant, want: &Want) -> Result<SecretRow, Refusal> {
    let flight = deps.flights.of(seen.id);
    let _landed = flight.lock().await;
    for _attempt in 0..ATTEMPTS {
        // Read again under the lock: whoever flew before us may have brought what we want.
        let mut tx = deps.store.read(seen.org).await?;
        let grant = tx.grant(seen.org, seen.id).await?.ok_or(Refusal::NotFound)?;
        let current = tx.secret(seen.org, seen.id, &want.kind()).await?;
        let refresh_token = tx.secret(seen.org, seen.id, &SecretKind::RefreshToken).await?;
        let now = tx.now();
        drop(tx);
        standing(&grant)?;
        if let Some(current) = current.filter(|current| will_do(current, want, now)) {
            return Ok(current);
        }
        let Some(refresh_token) = refresh_token else {
            set_reconnect(deps, &grant, ReconnectReason::Expired).await?;
            return Err(Refusal::GrantNeedsReconnect(grant.id));
        };
        // The key first: a provider is never asked to rotate what we could then not seal.
        let key = deps.key_of(grant.org, refresh_token.sealed.odk).await?;
        let seal_key = deps.org_key(grant.org).await?;
        let connector = deps.catalogue.get(&grant.connector).ok_or(Refusal::NotFound)?;
        let mut tx = deps.store.write(grant.org).await?;
        let lease = tx
            .claim_refresh(
                grant.org,
                grant.id,
                &deps.store.replica(),
                &want.kind().to_string(),
                LEASE,
            )
            .await?;
        tx.commit().await?;
        let Some(lease) = lease else {
            // Another replica is asking: its answer will be ours.
            tokio::time::sleep(POLL).await;
            continue;
        };
        Failpoint::RefreshClaimed.reached();
        let flown = ask(deps, &grant, connector, &lease, &key, &refresh_token, want).await;
        Failpoint::RefreshAnswered.reached();
        return settle(deps, &grant, connector, &lease, &seal_key, want, flown).await;
    }
    Err(Refusal::ProviderUnavailable)
}

/// Whether a refresh may be asked for at all.
fn standing(grant: &Grant) -> Result<(), Refusal> {
    match grant.state {
        GrantState::Active => Ok(()),
        GrantState::Revoked { at } => Err(Refusal::Revoked { grant: grant.id, at }),
        _ => Err(Refusal::GrantNeedsReconnect(grant.id)),
    }
}

fn will_do(current: &SecretRow, want: &Want, now: Time) -> bool {
    let newer = match want {
        Want::Renewed { than } => than.is_none_or(|than| current.generation > than),
        Want::Narrowed(asked) => current
            .scopes
            .as_ref()
            .is_some_and(|scopes| !scopes.is_empty() && scopes.is_subset(asked)),
    };
    newer && current.expires_at.is_none_or(|end| end > now + SOON)
}

async fn ask(
    deps: &Deps,
    grant: &Grant,
    connector: &Connector,
    lease: &Lease,
    key: &OdkHandle,
    refresh_token: &SecretRow,
    want: &Want,
) -> Result<Tokens, OAuthError> {
    let token = open::refresh_token(lease, key, grant, refresh_token)
        .map_err(|_| OAuthError::Definition("the sealed refresh token does not open"))?;
    let client = upstream::client(deps, grant.org, &grant.connector)
        .await
        .map_err(|_| OAuthError::Definition("the organisation's client cannot be had"))?;
    let actor = oauth::actor(connector, None).map_err(|_| OAuthError::Definition("no such actor"))?;
    let oauth = client.oauth(deps, connector);
    let scopes = match want {
        Want::Renewed { .. } => None,
        Want::Narrowed(scopes) => Some(scopes),
    };
    let set = oauth.refresh(&token, scopes, actor).await?;
    let proven = match scopes {
        // A narrowing counts only as far as the provider proves it (protocol §5).
        Some(asked) => Some(
            oauth
                .prove_narrowed(&set, asked)
                .await
                .ok()
                .flatten()
                .unwrap_or_default(),
        ),
        None => set.scopes.clone(),
    };
    Ok(Tokens {
        scopes: proven,
        ..Tokens::from(set)
    })
}

/// Keeps the answer if the lease is still ours, else hands the new tokens to the outbox.
async fn settle(
    deps: &Deps,
    grant: &Grant,
    connector: &Connector,
    lease: &Lease,
    key: &OdkHandle,
    want: &Want,
    flown: Result<Tokens, OAuthError>,
) -> Result<SecretRow, Refusal> {
    let answer = match flown {
        Ok(answer) => answer,
        Err(failure) => return fail(deps, grant, connector, lease, &failure).await,
    };
    let scopes = granted(grant, want, &answer);
    let generation = grant.generation + 1;
    let kind = want.kind();
    let access = seal::access_token(
        key,
        grant,
        &kind,
        generation,
        &answer.access_token,
        Some(scopes.clone()),
        answer.expires_at,
    )?;
    let refresh = match &answer.refresh_token {
        Some(token) => Some(seal::refresh_token(key, grant, generation, token)?),
        None => None,
    };
    let draft = EntryDraft {
        user: Some(grant.user),
        grant: Some(grant.id),
        generation: Some(generation),
        connector: Some(grant.connector.clone()),
        outcome: Some("ok".to_owned()),
        reason: matches!(want, Want::Narrowed(_)).then(|| "narrowed".to_owned()),
        ..EntryDraft::default()
    };
    let entry = record::open(deps, EntryType::Refresh, draft)?;

    let mut tx = deps.store.write(grant.org).await?;
    let mut now_grant = tx.grant(grant.org, grant.id).await?.ok_or(Refusal::NotFound)?;
    let ours = tx.release_refresh(grant.org, grant.id, lease.fence).await?;
    if !ours || now_grant.generation != grant.generation {
        // INVARIANT: compare-and-set on generation; a later claim or a reconnect made this answer void.
        late::discard(deps, tx, grant, &now_grant, connector, key, &answer).await?;
        return Err(Refusal::ProviderUnavailable);
    }
    // INVARIANT: a token that is not proven narrow is never kept as a narrowed one, or the next vend would release it.
    let unproven = matches!(want, Want::Narrowed(_)) && scopes.is_empty();
    if !unproven {
        tx.put_secret(grant.org, grant.id, &kind, &access).await?;
    }
    if let Some(refresh) = &refresh {
        tx.put_secret(grant.org, grant.id, &SecretKind::RefreshToken, refresh)
            .await?;
    }
    if let GrantState::Revoked { at } = now_grant.state {
        // Answered after a revoke: the new tokens go to the outbox, nothing is released.
        let outbox = OutboxRow {
            org: grant.org,
            grant: grant.id,
            revocation: None,
            connector: grant.connector.clone(),
            due_at: tx.now(),
            give_up_at: tx.now() + upstream::GIVE_UP,
            attempts: 0,
            result: UpstreamResult::Pending,
        };
        tx.put_outbox(&outbox).await?;
        tx.append_entry(grant.org, entry).await?;
        tx.commit().await?;
        return Err(Refusal::Revoked { grant: grant.id, at });
    }
    now_grant.generation = generation;
    // Wider than the person consented to: kept apart, neither vends nor refreshes (protocol §2).
    let wider = !scopes.is_subset(&now_grant.scopes);
    if wider {
        tx.advance_epoch(grant.org).await?;
        now_grant.state = GrantState::Quarantined {
            until: tx.now() + QUARANTINE,
        };
    }
    if kind == SecretKind::AccessToken {
        now_grant.access_expires_at = answer.expires_at;
    } else if connector.refresh.kills_old_access {
        tx.expire_secret(grant.org, grant.id, &SecretKind::AccessToken)
            .await?;
    }
    tx.update_grant(&now_grant).await?;
    tx.append_entry(grant.org, entry).await?;
    tx.commit().await?;
    Failpoint::RefreshKept.reached();
    match want {
        _ if wider => Err(Refusal::GrantNeedsReconnect(grant.id)),
        // A narrowing that narrowed nothing is not one.
        Want::Narrowed(_) if unproven => Err(Refusal::NotNarrowed),
        _ => Ok(access),
    }
}

fn granted(grant: &Grant, want: &Want, answer: &Tokens) -> ScopeSet {
    answer.scopes.clone().unwrap_or_else(|| match want {
        // RFC 6749 §5.1: an answer without `scope` means "as asked"; it proves nothing.
        Want::Renewed { .. } => grant.scopes.clone(),
        Want::Narrowed(asked) => asked.clone(),
    })
}

async fn fail(
    deps: &Deps,
    grant: &Grant,
    connector: &Connector,
    lease: &Lease,
    failure: &OAuthError,
) -> Result<SecretRow, Refusal> {
    let class = failure.class();
    let reason = match class {
        // An earlier answer was lost and the provider rotated: the grant is lost, and that is said (I3). Asking again
        // costs nothing: had it not rotated, the old token would have worked.
        ErrorClass::Dead if lease.in_doubt.is_some() && connector.refresh.rotates => {
            Some(ReconnectReason::RotationLost)
        }
        ErrorClass::Dead => Some(ReconnectReason::RefreshTokenDead),
        ErrorClass::Consent => Some(ReconnectReason::ConsentRequired),
        ErrorClass::Config | ErrorClass::Transient | ErrorClass::Scope | ErrorClass::Unknown => None,
    };
    tracing::warn!(grant.id = %grant.id, connector.id = %grant.connector, class = ?class, cause = %failure,
        "the provider did not renew the token of {}", grant.id);
    let Some(reason) = reason else {
        let draft = EntryDraft {
            user: Some(grant.user),
            grant: Some(grant.id),
            connector: Some(grant.connector.clone()),
            outcome: Some("failed".to_owned()),
            reason: Some(format!("{class:?}").to_lowercase()),
            ..EntryDraft::default()
        };
        let entry = record::open(deps, EntryType::Refresh, draft)?;
        let mut tx = deps.store.write(grant.org).await?;
        // Sent and not answered stays in doubt; refused outright is answered.
        if failure.is_in_doubt() || lease.in_doubt.is_some() {
            tx.leave_in_doubt(grant.org, grant.id, lease.fence).await?;
        } else {
            tx.release_refresh(grant.org, grant.id, lease.fence).await?;
        }
        tx.append_entry(grant.org, entry).await?;
        tx.commit().await?;
        return Err(Refusal::ProviderUnavailable);
    };
    // INVARIANT: a dead refresh token is believed only if it is still ours: a sibling may have rotated it.
    set_reconnect_if_unchanged(deps, grant, reason, Some(lease.fence)).await?;
    Err(Refusal::GrantNeedsReconnect(grant.id))
}

/// The provider calls even a fresh token dead.
///
/// # Errors
/// When the database is unavailable.
pub async fn give_up(deps: &Deps, grant: &Grant) -> Result<(), Refusal> {
    let current = deps
        .store
        .read(grant.org)
        .await?
        .grant(grant.org, grant.id)
        .await?
        .ok_or(Refusal::NotFound)?;
    set_reconnect(deps, &current, ReconnectReason::RefreshTokenDead).await
}

async fn set_reconnect(deps: &Deps, grant: &Grant, reason: ReconnectReason) -> Result<(), Refusal> {
    set_reconnect_if_unchanged(deps, grant, reason, None).await
}

async fn set_reconnect_if_unchanged(
    deps: &Deps,
    grant: &Grant,
    reason: ReconnectReason,
    fence: Option<i64>,
) -> Result<(), Refusal> {
    let draft = EntryDraft {
        user: Some(grant.user),
        grant: Some(grant.id),
        connector: Some(grant.connector.clone()),
        outcome: Some("needs_reconnect".to_owned()),
        reason: Some(reason.as_str().to_owned()),
        ..EntryDraft::default()
    };
    let entry = record::open(deps, EntryType::Refresh, draft)?;
    let mut tx = deps.store.write(grant.org).await?;
    let mut now_grant = tx.grant(grant.org, grant.id).await?.ok_or(Refusal::NotFound)?;
    if let Some(fence) = fence {
        tx.release_refresh(grant.org, grant.id, fence).await?;
    }
    if now_grant.generation != grant.generation || now_grant.state != GrantState::Active {
        return Ok(tx.commit().await?);
    }
    // An allow becomes a deny: the epoch moves on.
    tx.advance_epoch(grant.org).await?;
    now_grant.state = GrantState::NeedsReconnect { reason };
    tx.update_grant(&now_grant).await?;
    tx.append_entry(grant.org, entry).await?;
    tx.commit().await?;
    Ok(())
}

/// How long a grant wider than consented to is kept apart.
const QUARANTINE: Duration = Duration::from_secs(7 * 24 * 3600);
/// A token that ends sooner than this is renewed first.
const SOON: Duration = Duration::from_secs(30);
/// How long a lease may be held: longer than the slowest provider is waited for.
const LEASE: Duration = Duration::from_secs(60);
/// How long to wait for a sibling's answer before looking again.
const POLL: Duration = Duration::from_millis(200);
/// How often to look before giving up.
const ATTEMPTS: usize = 150;
