//! What a refusal or a lost answer means for a grant: nothing, a pause, or that its person has to connect again.

use std::time::Duration;

use crate::{
    connectors::{ErrorClass, oauth::OAuthError},
    domain::{
        GrantId, Time,
        connector::Connector,
        entry::{EntryDraft, EntryType},
        grant::{Grant, GrantState, ReconnectReason},
    },
    failpoints::Failpoint,
    flows::{Deps, Refusal, record},
    store::{LONGEST_COOLDOWN, Lease, Selector},
};

use super::{Want, left::Left};

/// Says what a failure means for the grant, as far as it means anything; what it means for whoever asked. Nothing if somebody
/// else has asked since, who says what becomes of the grant.
pub(super) async fn failed(
    deps: &Deps,
    grant: &Grant,
    connector: &Connector,
    lease: &Lease,
    want: &Want,
    failure: &OAuthError,
    left: Option<Left>,
) -> Result<Option<Refusal>, Refusal> {
    Failpoint::RefreshRefused.reached();
    if failure.came_too_late() {
        // Nobody was asked, so nothing is known to be wrong with anybody.
        deps.store.retry(|| give_back(deps, grant, lease, left)).await?;
        return Ok(Some(Refusal::ProviderUnavailable));
    }
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
        deps.store
            .retry(|| set_failed(deps, grant, connector, lease, failure, left))
            .await?;
        Failpoint::RefreshFailed.reached();
        return Ok(Some(match (want, class) {
            // Nothing is wrong with the provider: it does not narrow to these scopes.
            (Want::Narrowed(_), ErrorClass::Scope) => Refusal::NotNarrowed,
            _ => Refusal::ProviderUnavailable,
        }));
    };
    // INVARIANT: a dead refresh token is believed only if it is still ours: a sibling may have rotated it.
    let is_ours = deps
        .store
        .retry(|| set_reconnect_if_unchanged(deps, grant, reason, Some(lease.fence)))
        .await?;
    Ok(is_ours.then_some(Refusal::GrantNeedsReconnect(grant.id)))
}

/// Gives the lease back as it was taken.
async fn give_back(deps: &Deps, grant: &Grant, lease: &Lease, left: Option<Left>) -> Result<(), Refusal> {
    let mut tx = deps.store.write(grant.org).await?;
    tx.give_back_refresh(grant.org, grant.id, lease.fence, lease.in_doubt.is_some())
        .await?;
    if let Some(left) = left {
        left.stays(&mut tx, grant, lease.fence).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// The provider gave nothing and may give it another time.
async fn set_failed(
    deps: &Deps,
    grant: &Grant,
    connector: &Connector,
    lease: &Lease,
    failure: &OAuthError,
    left: Option<Left>,
) -> Result<(), Refusal> {
    let draft = EntryDraft {
        user: Some(grant.user),
        grant: Some(grant.id),
        connector: Some(grant.connector.clone()),
        outcome: Some("failed".to_owned()),
        reason: Some(format!("{:?}", failure.class()).to_lowercase()),
        ..EntryDraft::default()
    };
    let entry = record::open(deps, EntryType::Refresh, draft)?;
    let mut tx = deps.store.write(grant.org).await?;
    // Sent and not answered stays in doubt; refused outright is answered.
    let in_doubt = failure.is_in_doubt() || lease.in_doubt.is_some();
    let grace = connector.refresh.grace().filter(|_| in_doubt);
    let not_before = tx.now() + pause(lease.failures, failure, grace);
    tx.fail_refresh(grant.org, grant.id, lease.fence, in_doubt, not_before)
        .await?;
    // Whoever asked first may still have the answer.
    if let Some(left) = left {
        left.stays(&mut tx, grant, lease.fence).await?;
    }
    Failpoint::RefreshPausing.reached();
    tx.append_entry(grant.org, entry).await?;
    Failpoint::RefreshFailing.reached();
    tx.commit().await?;
    Ok(())
}

/// The provider takes the refresh token, and calls dead what came of it: the fresh token of `generation`. `false` if that is not
/// the grant's any more: it was renewed or connected again meanwhile, has ended or needs its person already.
///
/// # Errors
/// When the database is unavailable.
pub async fn give_up(deps: &Deps, seen: &Grant, generation: u64) -> Result<bool, Refusal> {
    let current = read_again(deps, seen).await?;
    if current.connected_epoch != seen.connected_epoch || current.generation != generation {
        return Ok(false);
    }
    let reason = ReconnectReason::ConsentRequired;
    deps.store
        .retry(|| set_reconnect_if_unchanged(deps, &current, reason, None))
        .await
}

/// The connector is not what the person consented to any more. `false` if the grant has changed since it was seen: it was
/// connected again, has ended or needs its person already.
///
/// # Errors
/// When the database is unavailable.
pub(in crate::flows) async fn binding_changed(deps: &Deps, seen: &Grant) -> Result<bool, Refusal> {
    let current = read_again(deps, seen).await?;
    if deps.binding(&current.connector) == Some(current.binding) {
        return Ok(false);
    }
    let reason = ReconnectReason::BindingChanged;
    deps.store
        .retry(|| set_reconnect_if_unchanged(deps, &current, reason, None))
        .await
}

async fn read_again(deps: &Deps, seen: &Grant) -> Result<Grant, Refusal> {
    let mut tx = deps.store.read(seen.org).await?;
    tx.grant(seen.org, seen.id).await?.ok_or(Refusal::NotFound)
}

/// The connector is again what the person consented to: nothing of what was said of the grant holds any more.
///
/// # Errors
/// When the database is unavailable.
pub(in crate::flows) async fn binding_restored(deps: &Deps, seen: &Grant) -> Result<(), Refusal> {
    deps.store.retry(|| restore(deps, seen)).await
}

async fn restore(deps: &Deps, seen: &Grant) -> Result<(), Refusal> {
    let entry = record::open(
        deps,
        EntryType::Refresh,
        draft(seen, "active", "binding_restored"),
    )?;
    let mut tx = deps.store.write(seen.org).await?;
    let mut grant = tx.grant(seen.org, seen.id).await?.ok_or(Refusal::NotFound)?;
    if says_binding_changed(&grant) && deps.binding(&grant.connector) == Some(grant.binding) {
        // Whoever has it in memory reads it anew.
        tx.advance_epoch(seen.org, &Selector::Grant(seen.id)).await?;
        grant.state = GrantState::Active;
        tx.update_grant(&grant).await?;
        tx.append_entry(seen.org, entry).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Whether the grant waits for its person because its connector is another than was consented to.
pub(in crate::flows) fn says_binding_changed(grant: &Grant) -> bool {
    let reason = ReconnectReason::BindingChanged;
    grant.state == GrantState::NeedsReconnect { reason }
}

fn draft(grant: &Grant, outcome: &str, reason: &str) -> EntryDraft {
    EntryDraft {
        user: Some(grant.user),
        grant: Some(grant.id),
        connector: Some(grant.connector.clone()),
        outcome: Some(outcome.to_owned()),
        reason: Some(reason.to_owned()),
        ..EntryDraft::default()
    }
}

pub(super) async fn set_reconnect(
    deps: &Deps,
    grant: &Grant,
    reason: ReconnectReason,
) -> Result<(), Refusal> {
    deps.store
        .retry(|| set_reconnect_if_unchanged(deps, grant, reason, None))
        .await
        .map(drop)
}

/// Whether it was said of the grant as it is: nobody renewed or ended it meanwhile.
async fn set_reconnect_if_unchanged(
    deps: &Deps,
    grant: &Grant,
    reason: ReconnectReason,
    fence: Option<i64>,
) -> Result<bool, Refusal> {
    let entry = record::open(
        deps,
        EntryType::Refresh,
        draft(grant, "needs_reconnect", reason.as_str()),
    )?;
    let mut tx = deps.store.write(grant.org).await?;
    let mut now_grant = tx.grant(grant.org, grant.id).await?.ok_or(Refusal::NotFound)?;
    if let Some(fence) = fence {
        if !tx.release_refresh(grant.org, grant.id, fence).await? {
            // Whoever asked since says what becomes of the grant.
            tx.commit().await?;
            return Ok(false);
        }
        Failpoint::RefreshYielded.reached();
    }
    if now_grant.generation != grant.generation || now_grant.state != GrantState::Active {
        tx.commit().await?;
        return Ok(false);
    }
    // An allow becomes a deny: the epoch moves on.
    tx.advance_epoch(grant.org, &Selector::Grant(grant.id)).await?;
    Failpoint::RefreshEnding.reached();
    now_grant.state = GrantState::NeedsReconnect { reason };
    tx.update_grant(&now_grant).await?;
    Failpoint::RefreshEnded.reached();
    tx.append_entry(grant.org, entry).await?;
    Failpoint::RefreshGivingUp.reached();
    tx.commit().await?;
    Failpoint::RefreshGivenUp.reached();
    Ok(true)
}

/// Why nothing came of a flight, for whoever was on board.
#[derive(Debug, Clone, Copy)]
pub(super) enum Failed {
    NotFound,
    NeedsReconnect(GrantId),
    Revoked { grant: GrantId, at: Time },
    NotNarrowed,
    KeyUnavailable,
    ProviderUnavailable,
    Sealed,
    StoreUnavailable,
}

impl From<&Refusal> for Failed {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::NotFound => Self::NotFound,
            Refusal::GrantNeedsReconnect(grant) => Self::NeedsReconnect(*grant),
            Refusal::Revoked { grant, at } => Self::Revoked {
                grant: *grant,
                at: *at,
            },
            Refusal::NotNarrowed => Self::NotNarrowed,
            Refusal::KeyUnavailable => Self::KeyUnavailable,
            Refusal::ProviderUnavailable => Self::ProviderUnavailable,
            Refusal::Sealed => Self::Sealed,
            // Whatever else it was: nothing is known to be wrong with the grant.
            _ => Self::StoreUnavailable,
        }
    }
}

impl From<Failed> for Refusal {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::NotFound => Self::NotFound,
            Failed::NeedsReconnect(grant) => Self::GrantNeedsReconnect(grant),
            Failed::Revoked { grant, at } => Self::Revoked { grant, at },
            Failed::NotNarrowed => Self::NotNarrowed,
            Failed::KeyUnavailable => Self::KeyUnavailable,
            Failed::ProviderUnavailable => Self::ProviderUnavailable,
            Failed::Sealed => Self::Sealed,
            Failed::StoreUnavailable => Self::StoreUnavailable(None),
        }
    }
}

/// How long the provider is left alone about this grant: doubling, and at least as long as it asks for. While the answer is
/// lost and the old refresh token still good, it is asked a few times all the same (I3).
fn pause(failures: u64, failure: &OAuthError, grace: Option<Duration>) -> Duration {
    // A request for scopes it does not give says nothing about the provider or the next request.
    if failure.class() == ErrorClass::Scope {
        return Duration::ZERO;
    }
    let longest = match grace.filter(|_| failures < TRIES_IN_GRACE) {
        // What is put off for longer counts as past.
        Some(grace) => (grace / 3).min(LONGEST_COOLDOWN),
        None => LONGEST_COOLDOWN,
    };
    let asked = failure.retry_after().unwrap_or_default().min(longest);
    pause_after(failures).max(asked)
}

/// Our own pause after so many failures in a row, whatever the provider asks for.
pub(super) fn pause_after(failures: u64) -> Duration {
    let doublings = u32::try_from(failures.min(8)).unwrap_or(8);
    (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
}

/// Short: where the old refresh token is taken for 60 s, a lost answer gets six tries in that time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// So often at most the provider is asked sooner than it wishes.
const TRIES_IN_GRACE: u64 = 6;
/// What one's own doubling never exceeds.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_rotation_is_asked_for_in_time_whatever_pause_the_provider_wishes() {
        let busy = |retry_after| OAuthError::Refused {
            class: ErrorClass::Transient,
            status: 503,
            code: None,
            retry_after,
        };
        let wishes = busy(Some(Duration::from_secs(120)));
        let grace = Some(Duration::from_secs(60));
        assert_eq!(pause(0, &wishes, grace), Duration::from_secs(20));
        assert_eq!(pause(0, &wishes, None), Duration::from_secs(120));
        assert_eq!(pause(6, &wishes, grace), Duration::from_secs(120));
        assert_eq!(pause(0, &busy(None), grace), FIRST_PAUSE);
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(pause(0, &busy(Some(day)), Some(day)), LONGEST_COOLDOWN);
    }
}
