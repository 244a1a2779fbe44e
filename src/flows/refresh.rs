//! Renewing and narrowing tokens: one flight per grant in the process, one lease in the database, the intent durable
//! before the provider is asked, the key unwrapped before that, the answer kept only if nobody else was faster,
//! and beside the database if that is gone.

use std::{sync::Arc, time::Duration};

use crate::{
    crypto::digest,
    domain::{
        ScopeSet, Time,
        grant::{Grant, GrantState, ReconnectReason},
    },
    failpoints::Failpoint,
    release::seal::Prepared,
    store::{Claim, ClaimAsk, SecretKind, SecretRow},
};

use super::{Deps, Refusal};

pub mod ahead;
mod ask;
pub mod doubt;
mod failed;
mod flights;
mod keep;
mod late;
pub mod spooled;

pub use failed::give_up;
pub use flights::Flights;

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
    let mut place = None;
    for _attempt in 0..ATTEMPTS {
        if deps.spool.holds(seen.id) {
            // INVARIANT: the provider is not asked again while its last answer waits to be entered.
            spooled::drain_grant(deps, seen.id).await?;
        }
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
        let connector = deps.catalogue.get(&grant.connector).ok_or(Refusal::NotFound)?;
        if place.is_none() {
            // What was read may be old by the time it is this one's turn to ask.
            place = Some(deps.flights.turn(connector).await);
            continue;
        }
        let Some(refresh_token) = refresh_token else {
            failed::set_reconnect(deps, &grant, ReconnectReason::Expired).await?;
            return Err(Refusal::GrantNeedsReconnect(grant.id));
        };
        Failpoint::RefreshBegun.reached();
        // The key first: a provider is never asked to rotate what we could then not seal.
        let key = deps.key_of(grant.org, refresh_token.sealed.odk).await?;
        let prepared = Prepared::new(&deps.org_key(grant.org).await?, &grant, want.kind())?;
        Failpoint::RefreshUnwrapped.reached();
        let ask = ClaimAsk {
            grant: grant.id,
            generation: grant.generation,
            intent: want.kind().to_string(),
            life: ask::life(connector),
        };
        let claim = deps.claims.claim(grant.org, ask).await?;
        let lease = match claim {
            Claim::Ours(lease) => lease,
            Claim::Cooling => return Err(Refusal::ProviderUnavailable),
            Claim::Moved => continue,
            Claim::Held => {
                // Another replica is asking: its answer will be ours.
                tokio::time::sleep(POLL).await;
                continue;
            }
        };
        Failpoint::RefreshClaimed.reached();
        let work = async {
            match ask::ask(deps, &grant, connector, &lease, &key, &refresh_token, want).await {
                Ok(answer) => {
                    Failpoint::RefreshAnswered.reached();
                    keep::keep(deps, &grant, connector, &lease, prepared, want, &answer).await
                }
                Err(failure) => failed::failed(deps, &grant, connector, &lease, &failure).await,
            }
        };
        return ask::holding(deps, &grant, connector, &lease, work).await;
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

/// A token that ends sooner than this is renewed first.
const SOON: Duration = Duration::from_secs(30);
/// How long to wait for a sibling's answer before looking again.
const POLL: Duration = Duration::from_millis(200);
/// How often to look before giving up.
const ATTEMPTS: usize = 150;
