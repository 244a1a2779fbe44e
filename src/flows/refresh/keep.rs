//! Keeping what the provider answered.

use std::time::Duration;

use crate::{
    crypto::OdkHandle,
    domain::{
        ScopeSet,
        connector::Connector,
        entry::{EntryDraft, EntryType},
        grant::{Grant, GrantState},
    },
    failpoints::Failpoint,
    flows::{Deps, Refusal, record, upstream},
    release::seal::{self, Tokens},
    store::{Lease, OutboxRow, SecretKind, SecretRow, UpstreamResult},
};

use super::{Want, late};

/// Keeps the answer if the lease is still ours, else hands the new tokens to the outbox.
pub(super) async fn keep(
    deps: &Deps,
    grant: &Grant,
    connector: &Connector,
    lease: &Lease,
    key: &OdkHandle,
    want: &Want,
    answer: Tokens,
) -> Result<SecretRow, Refusal> {
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

/// How long a grant wider than consented to is kept apart.
const QUARANTINE: Duration = Duration::from_secs(7 * 24 * 3600);
