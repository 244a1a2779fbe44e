//! Keeping what the provider answered: in the database if it is there, else in the spool.

use std::{sync::Arc, time::Duration};

use crate::{
    crypto::CryptoError,
    domain::{
        ScopeSet, Time,
        connector::Connector,
        entry::{EntryDraft, EntryType},
        grant::{Grant, GrantState, ReconnectReason},
    },
    failpoints::Failpoint,
    flows::{Deps, Refusal, record, uncut::KEPT_WITHIN, upstream},
    release::seal::{self, Tokens},
    store::{Answered, Claim, ClaimAsk, KeepAsk, Lease, SecretKind, SecretRow, Selector, Tx, restated},
};

use super::{Want, ahead, ask, failed, foreign, late};

/// Keeps the answer if the lease is still ours, else hands the new tokens to the outbox. An answer without an access token is
/// kept as any other, but nobody is given anything.
pub(super) async fn keep(
    deps: &Deps,
    grant: &Grant,
    connector: &Connector,
    lease: &Lease,
    prepared: seal::Prepared,
    want: &Want,
    answer: &Tokens,
) -> Result<SecretRow, Refusal> {
    let answered = Arc::new(sealed(prepared, grant, lease, want, answer)?);
    Failpoint::RefreshSealed.reached();
    let reason = match want {
        _ if answered.is_foreign => Some("other_account"),
        Want::Narrowed(_) => Some("narrowed"),
        Want::Renewed { .. } => None,
    };
    let entered = async {
        // What cannot be drafted now is tried by itself, and spooled then.
        if let Ok(Some(ask)) = together(deps, grant, connector, &answered, reason) {
            match deps.keeps.keep(ask).await {
                Ok(true) => return Ok(Entered::Kept),
                Ok(false) => {}
                // It is tried once more by itself, whatever the others' answers met with, and kept beside the database then.
                Err(error) => {
                    tracing::debug!(grant.id = %grant.id, cause = %error, "the answer for {} is kept by itself", grant.id);
                }
            }
        }
        let entered = deps
            .store
            .retry(|| enter(deps, grant, connector, &answered, reason))
            .await?;
        if let Entered::Void = entered {
            deps.store
                .retry(|| discard(deps, grant, connector, answer))
                .await?;
        }
        Ok(entered)
    };
    // A commit that comes through after that is found when the spooled answer is entered.
    let entered = tokio::time::timeout(KEPT_WITHIN, entered).await;
    match entered.unwrap_or(Err(Refusal::StoreUnavailable(None))) {
        Ok(Entered::Kept) => answered.access.clone().ok_or(Refusal::ProviderUnavailable),
        // A narrowing that narrowed nothing is not one.
        Ok(Entered::Unproven) => Err(Refusal::NotNarrowed),
        Ok(Entered::Quarantined) => Err(Refusal::GrantNeedsReconnect(grant.id)),
        Ok(Entered::Revoked { at }) => Err(Refusal::Revoked { grant: grant.id, at }),
        Ok(Entered::Void) => Err(Refusal::ProviderUnavailable),
        Ok(Entered::Waits) => {
            spool(deps, answered).await;
            Err(Refusal::ProviderUnavailable)
        }
        // It is in the database, and only the data directory, where it would be spooled, does not know.
        Err(refusal) if refusal.is_unheard() => Err(refusal),
        // INVARIANT: whatever it was, the answer is all there is of the grant (I3).
        Err(refusal) => {
            spool(deps, answered).await;
            Err(refusal)
        }
    }
}

/// An answer that is to be kept together with others; `None` if there is more to it than to keep it.
fn together(
    deps: &Deps,
    grant: &Grant,
    connector: &Connector,
    answered: &Arc<Answered>,
    reason: Option<&str>,
) -> Result<Option<KeepAsk>, Refusal> {
    // A refresh token alone also sets a pause, which the lane does not write.
    let Some(access) = &answered.access else {
        return Ok(None);
    };
    let is_wide = answered.kind == SecretKind::AccessToken;
    let scopes = access.scopes.clone().unwrap_or_default();
    // Somebody else's, wider than consented to, not proven narrow, or the end of the token before it.
    if answered.is_foreign
        || !scopes.is_subset(&grant.scopes)
        || !is_wide && (scopes.is_empty() || connector.refresh.kills_old_access)
    {
        return Ok(None);
    }
    let now = deps.clock.now();
    let renew_at = if is_wide {
        ahead::after_renewal(grant, &connector.refresh, access.expires_at, now)
    } else {
        now
    };
    Ok(Some(KeepAsk {
        answered: Arc::clone(answered),
        renew_at,
        entry: record::open(deps, EntryType::Refresh, draft(grant, answered, reason))?,
    }))
}

/// The entry of an answer that is kept.
fn draft(grant: &Grant, answered: &Answered, reason: Option<&str>) -> EntryDraft {
    let (outcome, reason) = match answered.access {
        Some(_) => ("ok", reason),
        None if answered.is_foreign => ("failed", reason),
        None => ("failed", Some(REFRESH_TOKEN_KEPT)),
    };
    EntryDraft {
        user: Some(grant.user),
        grant: Some(grant.id),
        generation: Some(answered.next_generation()),
        connector: Some(grant.connector.clone()),
        outcome: Some(outcome.to_owned()),
        reason: reason.map(str::to_owned),
        ..EntryDraft::default()
    }
}

/// Ends the tokens of an answer that came to nothing, as far as that harms nobody. `grant` is as it was when the
/// provider was asked.
pub(super) async fn discard(
    deps: &Deps,
    grant: &Grant,
    connector: &Connector,
    answer: &Tokens,
) -> Result<(), Refusal> {
    // The one from before the provider was asked may have had its time.
    let key = deps.org_key(grant.org).await?;
    let mut tx = deps.store.write(grant.org).await?;
    let current = tx.grant(grant.org, grant.id).await?.ok_or(Refusal::NotFound)?;
    late::discard(deps, tx, grant, &current, connector, &key, answer).await
}

/// What became of an answer in the database.
#[derive(Debug)]
pub(super) enum Entered {
    /// It is the grant's now.
    Kept,
    /// What is kept of it is no narrowed token.
    Unproven,
    /// The grant is in quarantine with it.
    Quarantined,
    /// The grant had ended: it is in the outbox.
    Revoked {
        /// When.
        at: Time,
    },
    /// Nothing: a later answer or a reconnect was first.
    Void,
    /// Nothing yet: somebody else is asking with the same refresh token.
    Waits,
}

/// Writes a sealed answer, by compare-and-set on fence and generation. A later claim does not make it void, only what came of
/// that: whoever asks again with a refresh token that is spent is told that it is dead.
pub(super) async fn enter(
    deps: &Deps,
    grant: &Grant,
    connector: &Connector,
    answered: &Answered,
    reason: Option<&str>,
) -> Result<Entered, Refusal> {
    let (kind, mut access) = (&answered.kind, answered.access.clone());
    let scopes = access.as_ref().and_then(|row| row.scopes.clone());
    let scopes = scopes.unwrap_or_default();
    let mut draft = draft(grant, answered, reason);
    let foreign_keys = foreign::Keys::of(deps, answered).await?;

    let mut tx = deps.store.write(grant.org).await?;
    Failpoint::RefreshKeeping.reached();
    if let Some(row) = &mut access {
        let here = deps.clock.now();
        row.expires_at = row.expires_at.map(|end| restated(end, here, tx.now()));
    }
    let mut now_grant = tx.grant(grant.org, grant.id).await?.ok_or(Refusal::NotFound)?;
    // A database that was put back counts its fences anew: there the answer's says nothing.
    let is_behind = now_grant.generation < answered.generation;
    let mut ours = !is_behind && release_lease(&mut tx, &now_grant, answered).await?;
    Failpoint::RefreshEntering.reached();
    if !ours && is_current(&now_grant, answered) {
        ours = is_settled(deps, &mut tx, &now_grant, connector, answered).await?;
        if !ours {
            tx.commit().await?;
            return Ok(Entered::Waits);
        }
        // Whoever held the lease until just now may have moved the grant on.
        now_grant = tx.grant(grant.org, grant.id).await?.ok_or(Refusal::NotFound)?;
    }
    if !ours || !is_current(&now_grant, answered) {
        // INVARIANT: compare-and-set on generation; a later answer or a reconnect made this one void. Unless it is
        // there already: a commit may have come through though its answer did not.
        let ours_already = is_there(&mut tx, answered).await?;
        tx.commit().await?;
        return Ok(if ours_already {
            Entered::Kept
        } else {
            Entered::Void
        });
    }
    // INVARIANT: a token that is not proven narrow is never kept as a narrowed one, or the next vend would release it.
    let unproven = access.is_some() && *kind != SecretKind::AccessToken && scopes.is_empty();
    if let Some(keys) = &foreign_keys {
        // INVARIANT: the grant's own tokens are not lost for what names somebody else: they are ended with it, if ever.
        let came = access.take();
        let apart = foreign::bury(
            deps,
            &mut tx,
            keys,
            &now_grant,
            connector,
            answered,
            came.as_ref(),
        );
        // The entry of the upstream revocation names the tombstone.
        draft.correlation = Some(apart.await?.to_string());
    } else {
        if let Some(access) = access.as_ref().filter(|_| !unproven) {
            tx.put_secret(grant.org, grant.id, kind, access).await?;
        }
        if let Some(refresh) = &answered.refresh {
            tx.put_secret(grant.org, grant.id, &SecretKind::RefreshToken, refresh)
                .await?;
        }
    }
    Failpoint::RefreshStored.reached();
    let entry = record::open(deps, EntryType::Refresh, draft)?;
    if let GrantState::Revoked { at } = now_grant.state {
        // Answered after a revoke: the new tokens go to the outbox, nothing is released.
        tx.put_outbox(&upstream::outbox_row(grant, tx.now())).await?;
        tx.append_entry(grant.org, entry).await?;
        tx.commit().await?;
        return Ok(Entered::Revoked { at });
    }
    if let GrantState::NeedsReconnect {
        reason: ReconnectReason::RotationLost | ReconnectReason::RefreshTokenDead,
    } = now_grant.state
    {
        // That was said of the refresh token before this one. Whoever has it in memory is to read it anew.
        tx.advance_epoch(grant.org, &Selector::Grant(grant.id)).await?;
        now_grant.state = GrantState::Active;
    }
    now_grant.generation = answered.next_generation();
    // Wider than the person consented to, or not theirs: kept apart, neither vends nor refreshes (protocol §2).
    let apart = answered.is_foreign || !scopes.is_subset(&now_grant.scopes);
    if apart {
        tx.advance_epoch(grant.org, &Selector::Grant(grant.id)).await?;
        now_grant.state = GrantState::Quarantined {
            until: tx.now() + QUARANTINE,
        };
    }
    match &access {
        Some(access) if *kind == SecretKind::AccessToken => now_grant.access_expires_at = access.expires_at,
        // The one before it, which nothing took the place of.
        _ if connector.refresh.kills_old_access => {
            tx.expire_secret(grant.org, grant.id, &SecretKind::AccessToken)
                .await?;
            if access.is_none() {
                // Whoever has it in memory is to read it anew.
                tx.advance_epoch(grant.org, &Selector::Grant(grant.id)).await?;
            }
        }
        _ => {}
    }
    tx.update_grant(&now_grant).await?;
    Failpoint::RefreshRenewed.reached();
    tx.append_entry(grant.org, entry).await?;
    Failpoint::RefreshRecorded.reached();
    tx.commit().await?;
    Failpoint::RefreshKept.reached();
    Ok(match (apart, unproven) {
        (true, _) => Entered::Quarantined,
        (false, true) => Entered::Unproven,
        (false, false) => Entered::Kept,
    })
}

/// Ends the lease with its question answered; `false` if another claimed it meanwhile. Where nothing came that could be
/// vended the provider is left alone for a while, as after any failure; an answer that came to nothing says nothing of it.
async fn release_lease(tx: &mut Tx, now_grant: &Grant, answered: &Answered) -> Result<bool, Refusal> {
    let (org, grant, fence) = (answered.org, answered.grant, answered.fence);
    if answered.access.is_some() || !is_current(now_grant, answered) {
        return Ok(tx.release_refresh(org, grant, fence).await?);
    }
    let Some(failures) = tx.refresh_failures(org, grant, fence).await? else {
        return Ok(false);
    };
    let not_before = tx.now() + failed::pause_after(failures);
    Ok(tx.fail_refresh(org, grant, fence, false, not_before).await?)
}

/// Whether the answer is what the grant holds. One without an access token is known by its refresh token.
async fn is_there(tx: &mut Tx, answered: &Answered) -> Result<bool, Refusal> {
    let (kind, ours) = match (&answered.access, &answered.refresh) {
        (Some(access), _) => (&answered.kind, access),
        (None, Some(refresh)) => (&SecretKind::RefreshToken, refresh),
        (None, None) => return Ok(false),
    };
    let known = tx.secret(answered.org, answered.grant, kind).await?;
    Ok(known.is_some_and(|known| known.sealed == ours.sealed))
}

/// Whether the grant is as it was when the provider was asked. It is behind that only in a database that was put back, and
/// the answer is then the one that is good.
fn is_current(grant: &Grant, answered: &Answered) -> bool {
    grant.connected_epoch == answered.connected_epoch && grant.generation <= answered.generation
}

/// Settles what a later holder of the lease has left behind, unless somebody is asking now: then `false`.
async fn is_settled(
    deps: &Deps,
    tx: &mut Tx,
    grant: &Grant,
    connector: &Connector,
    answered: &Answered,
) -> Result<bool, Refusal> {
    if tx.settle_refresh(grant.org, grant.id).await? {
        return Ok(true);
    }
    if tx.is_refresh_held(grant.org, grant.id).await? {
        return Ok(false);
    }
    // INVARIANT: I4; in a database that was put back the lease may never have been claimed, and what is not there keeps nobody
    // from claiming it now. So it is claimed here, and given back.
    let ask = ClaimAsk {
        org: grant.org,
        grant: grant.id,
        generation: grant.generation,
        intent: answered.kind.to_string(),
        life: ask::life(connector),
    };
    let claimed = tx.claim_refreshes(&deps.store.replica(), &[ask]).await?.pop();
    match claimed {
        Some(Claim::Ours(lease)) => Ok(tx.release_refresh(grant.org, grant.id, lease.fence).await?),
        // Nobody claims the lease of a grant that does not vend.
        Some(Claim::Moved) => Ok(true),
        Some(Claim::Held | Claim::Cooling) | None => Ok(false),
    }
}

/// The answer as it is stored, in the database or beside it.
fn sealed(
    prepared: seal::Prepared,
    grant: &Grant,
    lease: &Lease,
    want: &Want,
    answer: &Tokens,
) -> Result<Answered, CryptoError> {
    let kind = prepared.kind().clone();
    let (access, refresh) = prepared.seal(grant, answer, granted(grant, want, answer))?;
    Ok(Answered {
        org: grant.org,
        grant: grant.id,
        fence: lease.fence,
        generation: grant.generation,
        connected_epoch: grant.connected_epoch,
        binding: grant.binding,
        kind,
        access,
        refresh,
        is_foreign: answer.is_foreign,
    })
}

fn granted(grant: &Grant, want: &Want, answer: &Tokens) -> ScopeSet {
    answer.scopes.clone().unwrap_or_else(|| match want {
        // RFC 6749 §5.1: an answer without `scope` means "as asked"; it proves nothing.
        Want::Renewed { .. } => grant.scopes.clone(),
        Want::Narrowed(asked) => asked.clone(),
    })
}

/// What came cannot be entered now, and the provider may have rotated: the answer is kept beside the database.
async fn spool(deps: &Deps, answered: Arc<Answered>) {
    let grant = answered.grant;
    match deps.spool.put(&answered).await {
        Ok(()) => {
            Failpoint::SpoolKept.reached();
            tracing::warn!(grant.id = %grant, "the answer for {grant} was spooled");
        }
        Err(error) => {
            tracing::error!(grant.id = %grant, cause = %error, "the answer for {grant} could not be kept safely and may be lost");
        }
    }
}

/// Why nothing was renewed though the grant moved on: of the answer only the refresh token could be used, and that is kept.
const REFRESH_TOKEN_KEPT: &str = "refresh_token_kept";
/// How long a grant is kept apart.
const QUARANTINE: Duration = Duration::from_secs(7 * 24 * 3600);
