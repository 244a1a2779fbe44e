//! Renewing and narrowing tokens: one flight per grant in the process, one lease in the database, the intent durable
//! before the provider is asked, the key unwrapped before that, the answer kept only if nobody else was faster,
//! and beside the database if that is gone.

use std::{sync::Arc, time::Duration};

use crate::{
    connectors::oauth::OAuthError,
    crypto::digest,
    domain::{
        ScopeSet, Time,
        connector::Connector,
        grant::{Grant, GrantState, ReconnectReason},
    },
    egress::BeginBy,
    failpoints::Failpoint,
    release::seal::Prepared,
    store::{Claim, ClaimAsk, Look, SecretKind, SecretRow},
};

use super::{Deps, Refusal, upstream};

pub mod ahead;
mod ask;
pub mod doubt;
mod failed;
mod flights;
mod foreign;
mod keep;
mod late;
mod left;
pub mod spooled;

pub use failed::give_up;
pub(super) use failed::{binding_changed, binding_restored, says_binding_changed};
pub use flights::{Flights, Obtained, Turn};

use failed::Failed;
use flights::{Line, Pilot, Seat};
use spooled::Drained;

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
/// Whoever wants the same of a grant meanwhile waits for the one flight there is, at the cost of a wait. That runs in a
/// task of its own: a caller that hangs up cannot cancel a rotation half-way.
///
/// # Errors
/// When the provider, the key service or the database refuses; the grant then says so itself.
pub async fn ensure(deps: &Arc<Deps>, grant: &Grant, want: Want) -> Result<Obtained, Refusal> {
    let kind = want.kind();
    let mut is_later = false;
    loop {
        let flight = match deps.flights.board(grant.id, &kind) {
            Seat::Pilot(pilot) => return piloted(deps, grant, want, pilot).await,
            Seat::Passenger(flight) => flight,
        };
        let is_ours = flight.kind == kind;
        match flight.landed().await {
            // What the provider gave just now is the best there is, however soon it ends: to ask for another would bring
            // no better one (I4).
            Some(Ok(token))
                if is_ours
                    && is_newer(&token.row, &want)
                    && (token.is_fresh || lasts(&token.row, deps.clock.now())) =>
            {
                return Ok(token);
            }
            // What made an earlier flight fail than this caller's first own chance may have been mended since.
            Some(Err(failed)) if is_ours && is_later => return Err(failed.into()),
            _ => {}
        }
        is_later = true;
    }
}

async fn piloted(deps: &Arc<Deps>, grant: &Grant, want: Want, pilot: Pilot) -> Result<Obtained, Refusal> {
    let (deps, grant) = (Arc::clone(deps), grant.clone());
    tokio::spawn(async move {
        let landed = fly(&deps, &grant, &want).await;
        pilot.land(landed.as_ref().map(Obtained::clone).map_err(Failed::from));
        Failpoint::RefreshLanded.reached();
        landed
    })
    .await
    .unwrap_or(Err(Refusal::Broken))
}

async fn fly(deps: &Deps, seen: &Grant, want: &Want) -> Result<Obtained, Refusal> {
    let connector = deps.catalogue.get(&seen.connector).ok_or(Refusal::NotFound)?;
    let since_boot = || deps.clock.since_boot();
    let narrowing = || (seen.id, seen.connected_epoch, want.kind());
    if deps.flights.narrows_in_vain(&narrowing(), since_boot()) {
        // Another replica may have done better.
        return match look(deps, seen, want).await? {
            Found::Token(token) => Ok(token),
            Found::Nothing(_) => Err(Refusal::NotNarrowed),
        };
    }
    let line = Line::Common;
    let place = deps.flights.place(connector);
    let obtained = match until_turn(deps, seen, want, place).await? {
        Waited::Token(token) => Ok(token),
        // Boxed: whoever waits in the crowd takes up tens of kilobytes less.
        Waited::Turn(place) => Box::pin(with_a_place(deps, seen, want, connector, line, place)).await,
    };
    if let Err(Refusal::NotNarrowed) = obtained {
        deps.flights.narrowed_in_vain(narrowing(), since_boot());
    }
    obtained
}

/// What waiting for a place or a call came to.
enum Waited {
    /// It is this one's turn.
    Turn(Turn),
    /// Somebody else got a token that will do.
    Token(Obtained),
}

/// Waits for a turn. In a crowd it is enough to look when there is one; but a provider that does not answer must not keep
/// anybody from a token that is there already.
async fn until_turn(
    deps: &Deps,
    seen: &Grant,
    want: &Want,
    turn: impl Future<Output = Turn>,
) -> Result<Waited, Refusal> {
    tokio::select! {
        biased;
        turn = turn => Ok(Waited::Turn(turn)),
        token = look_on(deps, seen, want) => token.map(Waited::Token),
    }
}

/// Looks now and then, without a turn, until there is a token that will do; at once when there is news of the grant. It may
/// be dropped at any moment.
async fn look_on(deps: &Deps, seen: &Grant, want: &Want) -> Result<Obtained, Refusal> {
    let (mut pause, mut is_held) = (CROWD, false);
    let news = deps.flights.news(seen.id);
    loop {
        tokio::select! {
            () = tokio::time::sleep(if is_held { POLL } else { pause }) => {}
            () = news.notified() => {}
        }
        let _permit = deps.flights.onlooker().await;
        is_held = match look(deps, seen, want).await {
            Ok(Found::Token(token)) => return Ok(token),
            Ok(Found::Nothing(look)) => look.is_held,
            // It needs no database before it has a place.
            Err(Refusal::StoreUnavailable(_)) => false,
            Err(refusal) => return Err(refusal),
        };
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

/// What is found before the provider is asked.
enum Found {
    /// A token that will do.
    Token(Obtained),
    /// None.
    Nothing(Box<Look>),
}

async fn look(deps: &Deps, seen: &Grant, want: &Want) -> Result<Found, Refusal> {
    let look = deps.looks.look(seen.org, seen.id, want.kind()).await?;
    let mut look = look.ok_or(Refusal::NotFound)?;
    // SECURITY: a database that has forgotten a renewal holds a refresh token that was asked with already.
    if look.grant.generation < seen.generation {
        return Err(deps
            .store
            .found_older(seen.org, &"it has forgotten a renewal")
            .into());
    }
    standing(&look.grant)?;
    let now = look.now;
    Ok(
        match look.current.take_if(|current| will_do(current, want, now)) {
            Some(row) => Found::Token(Obtained { row, is_fresh: false }),
            None => Found::Nothing(Box::new(look)),
        },
    )
}

async fn with_a_place(
    deps: &Deps,
    seen: &Grant,
    want: &Want,
    connector: &Connector,
    line: Line,
    place: Turn,
) -> Result<Obtained, Refusal> {
    let (mut place, mut call) = (Some(place), None);
    // Doubts are not of a flight, which they may be beside.
    let asks_itself = |is_so| {
        if line == Line::Common {
            deps.flights.set_asking(seen.id, is_so);
        }
    };
    Failpoint::RefreshPlaced.reached();
    for _attempt in 0..ATTEMPTS {
        // SECURITY: what a database knows that is older than it should be may have been asked for already, and a provider can
        // end a grant whose refresh token comes twice.
        if deps.store.is_sealed(seen.org) {
            return Err(Refusal::Sealed);
        }
        // INVARIANT: the provider is not asked again while its last answer waits to be entered.
        let waits = deps.spool.holds(seen.id)
            && Box::pin(spooled::drain_grant(deps, seen.id)).await? == Drained::Waits;
        let look = match look(deps, seen, want).await? {
            Found::Token(token) => return Ok(token),
            Found::Nothing(look) => look,
        };
        let grant = &look.grant;
        if look.is_held || waits {
            // Another replica is asking: its answer will be ours. Whoever waits for that needs no place.
            (place, call) = (None, None);
            asks_itself(false);
            tokio::time::sleep(POLL).await;
            continue;
        }
        // SECURITY: the person consented to these endpoints and no others (crypto §2).
        if deps.binding(&grant.connector) != Some(grant.binding) {
            if failed::binding_changed(deps, grant).await? {
                return Err(Refusal::GrantNeedsReconnect(grant.id));
            }
            continue;
        }
        let since = deps.clock.since_boot();
        let is_old = || deps.clock.since_boot().saturating_sub(since) > FRESH;
        if place.is_none() {
            let turn = deps.flights.place_in(line, connector);
            match until_turn(deps, seen, want, turn).await? {
                Waited::Turn(own) => place = Some(own),
                Waited::Token(token) => return Ok(token),
            }
            if is_old() {
                continue;
            }
        }
        // INVARIANT: I3; what may have been answered to somebody who has no database is not asked again when that could cost
        // the answer.
        let left = if look.is_left {
            Box::pin(left::left(deps, grant, connector)).await?
        } else {
            None
        };
        let Some(refresh_token) = &look.refresh_token else {
            failed::set_reconnect(deps, grant, ReconnectReason::Expired).await?;
            return Err(Refusal::GrantNeedsReconnect(grant.id));
        };
        Failpoint::RefreshBegun.reached();
        // The key first: a provider is never asked to rotate what we could then not seal.
        let key = deps.unwrapped(look.org.odk(refresh_token.sealed.odk)?).await?;
        let sealing = deps.unwrapped(look.org.current_odk()?).await?;
        let prepared = Prepared::new(&sealing, grant, want.kind())?;
        Failpoint::RefreshUnwrapped.reached();
        if call.is_none() {
            let turn = deps.flights.call_in(line, connector);
            match until_turn(deps, seen, want, turn).await? {
                Waited::Turn(own) => call = Some(own),
                Waited::Token(token) => return Ok(token),
            }
            asks_itself(true);
            Failpoint::RefreshCalling.reached();
            if is_old() {
                continue;
            }
        }
        let client = match upstream::client_among(deps, grant.org, &grant.connector, &look.org).await {
            Err(Refusal::NotFound) => None,
            found => Some(found?),
        };
        let ask = ClaimAsk {
            org: grant.org,
            grant: grant.id,
            generation: grant.generation,
            intent: want.kind().to_string(),
            life: ask::life(connector),
        };
        // INVARIANT: whoever may have asked the provider is waited for; nobody asks when that wait has begun.
        let _held = deps.uncut.begin().ok_or(Refusal::ProviderUnavailable)?;
        // INVARIANT: whoever stood still for longer than a lease lives asks nobody: another one has the answer by then, and a
        // provider may end a grant whose refresh token comes twice.
        let latest = deps.clock.since_boot() + ask.life;
        let latest = left.map_or(latest, |left| latest.min(left.begin_by));
        let begin_by = BeginBy::new(Arc::clone(&deps.clock), latest);
        let lease = match deps.claims.claim(ask).await? {
            Claim::Ours(lease) => lease,
            Claim::Cooling => return Err(Refusal::ProviderUnavailable),
            Claim::Moved => continue,
            Claim::Held => {
                (place, call) = (None, None);
                asks_itself(false);
                tokio::time::sleep(POLL).await;
                continue;
            }
        };
        Failpoint::RefreshClaimed.reached();
        let work = async {
            let asked = match &client {
                Some(client) => match ask::opened(&lease, &key, grant, refresh_token) {
                    Ok(token) => {
                        let oauth = client.oauth(deps, connector);
                        ask::ask(&oauth, grant, connector, &token, want, begin_by).await
                    }
                    Err(failure) => Err(failure),
                },
                None => Err(OAuthError::Definition("the organisation has no client")),
            };
            // What comes after it is no call.
            drop(call);
            match asked {
                Ok(answer) => {
                    Failpoint::RefreshAnswered.reached();
                    let kept = keep::keep(deps, grant, connector, &lease, prepared, want, &answer);
                    kept.await.map(|row| Obtained { row, is_fresh: true })
                }
                Err(failure) => {
                    let failed = failed::failed(deps, grant, connector, &lease, want, &failure, left);
                    match failed.await? {
                        Some(refusal) => Err(refusal),
                        None => match self::look(deps, grant, want).await? {
                            Found::Token(token) => Ok(token),
                            Found::Nothing(_) => Err(Refusal::ProviderUnavailable),
                        },
                    }
                }
            }
        };
        return ask::holding(deps, grant, connector, &lease, work).await;
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
    is_newer(current, want) && lasts(current, now)
}

/// Whether it is what was wanted, however soon it ends.
fn is_newer(current: &SecretRow, want: &Want) -> bool {
    match want {
        Want::Renewed { than } => than.is_none_or(|than| current.generation > than),
        Want::Narrowed(asked) => current
            .scopes
            .as_ref()
            .is_some_and(|scopes| !scopes.is_empty() && scopes.is_subset(asked)),
    }
}

fn lasts(current: &SecretRow, now: Time) -> bool {
    current.expires_at.is_none_or(|end| end > now + SOON)
}

/// A token that ends sooner than this is renewed first.
const SOON: Duration = Duration::from_secs(30);
/// Whoever waited longer for a turn looks again before asking: what was read may be old by then.
const FRESH: Duration = Duration::from_secs(1);
/// Whoever has no place by then looks without one, and then less and less often.
const CROWD: Duration = Duration::from_secs(5);
/// The longest time between two such looks.
const LONGEST_PAUSE: Duration = Duration::from_secs(40);
/// How long to wait for a sibling's answer before looking again.
const POLL: Duration = Duration::from_millis(200);
/// How often to look before giving up.
const ATTEMPTS: usize = 150;
