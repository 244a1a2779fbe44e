//! The moment a grant comes to life: tokens, delegations, epoch and entry in one transaction through the guard.

use crate::{
    crypto::OdkHandle,
    domain::{
        GrantId,
        entry::{EntryDraft, EntryType},
        grant::{Grant, GrantState},
    },
    flows::{Deps, Refusal, choices, record},
    release::seal::{self, Pending},
    store::{ConnectRow, ConnectStatus, NewEntry, SecretKind, Selector, Tx},
};

use super::{
    ConnectFailure,
    discard::{self, draft},
    rule,
    superseded::{self, Keys},
    unexpired,
};

/// Makes the grant of a session or renews the one it is about, and completes the session.
///
/// # Errors
/// When the session has moved on or is over, what it would renew is over, or something of ours is unavailable.
pub(super) async fn grant(
    deps: &Deps,
    session: &ConnectRow,
    pending: &Pending,
) -> Result<GrantId, ConnectFailure> {
    deps.store.retry(|| keep(deps, session, pending)).await
}

async fn keep(deps: &Deps, session: &ConnectRow, pending: &Pending) -> Result<GrantId, ConnectFailure> {
    let mut session = session.clone();
    let from = session.status;
    let Pending {
        tokens: answer,
        choices,
    } = pending;
    // An answer without one never comes to wait for a yes.
    let token = answer
        .access_token
        .as_ref()
        .ok_or(ConnectFailure::ProviderUnavailable)?;
    let account = session.account.clone().ok_or(ConnectFailure::Used)?;
    let granted = session.granted.clone().ok_or(ConnectFailure::Used)?;
    let connector = deps
        .catalogue
        .get(&session.connector)
        .ok_or(ConnectFailure::NotConfigured)?;
    let binding = deps
        .binding(&session.connector)
        .ok_or(ConnectFailure::NotConfigured)?;
    let key = deps.org_key(session.org).await?;
    let mut tx = deps.store.read(session.org).await?;
    let held = existing(&mut tx, &session).await?;
    drop(tx);
    let keys = Keys::of(deps, held.as_ref()).await?;

    let mut tx = deps.store.write(session.org).await?;
    let now = tx.now();
    // Through the guard: a revocation that covered the session ended it, and a later one covers the grant.
    let epoch = tx
        .advance_epoch(session.org, &Selector::User(session.user))
        .await?;
    let current = tx
        .connect(session.org, session.id)
        .await?
        .ok_or(ConnectFailure::Unknown)?;
    unexpired(&current, now)?;
    // The org may have changed its rules since the account came back.
    let rules = rule::of(&mut tx, &session).await?;
    let held_to = rule::admits(&rules, &account).and_then(|()| rule::allows(&rules, connector, &granted));
    if let Err(failure) = held_to {
        drop(tx);
        discard::tokens(deps, session, from, answer, failure.code()).await?;
        return Err(failure);
    }
    let renewed = existing(&mut tx, &session).await?;
    let before = renewed.as_ref();
    let grant = Grant {
        id: match before {
            Some(grant) => grant.id,
            None => GrantId::new(now, &*deps.random).map_err(Refusal::from)?,
        },
        org: session.org,
        user: session.user,
        connector: session.connector.clone(),
        account,
        label: session
            .label
            .clone()
            .or_else(|| before.and_then(|grant| grant.label.clone())),
        scopes: granted,
        state: GrantState::Active,
        connected_epoch: epoch.counter,
        generation: before.map_or(1, |grant| grant.generation + 1),
        binding,
        access_expires_at: answer.expires_at,
        has_refresh_token: answer.refresh_token.is_some(),
        connected_at: before.map_or(now, |grant| grant.connected_at),
        last_used_at: None,
    };
    let retired = match before {
        Some(before) => {
            let retired = superseded::retire(deps, &mut tx, before, connector, &keys, &key).await?;
            tx.update_grant(&grant).await?;
            tx.begin_refreshes_anew(grant.org, grant.id).await?;
            retired
        }
        None => {
            tx.insert_grant(&grant).await?;
            None
        }
    };
    let access = seal::access_token(
        &key,
        &grant,
        &SecretKind::AccessToken,
        grant.generation,
        token,
        Some(grant.scopes.clone()),
        answer.expires_at,
    );
    tx.put_secret(
        grant.org,
        grant.id,
        &SecretKind::AccessToken,
        &access.map_err(Refusal::from)?,
    )
    .await?;
    if let Some(token) = &answer.refresh_token {
        let refresh = seal::refresh_token(&key, &grant, grant.generation, token).map_err(Refusal::from)?;
        tx.put_secret(grant.org, grant.id, &SecretKind::RefreshToken, &refresh)
            .await?;
    }
    for choice in choices {
        choices::put(deps, &mut tx, &grant, epoch, choice).await?;
    }
    session.status = ConnectStatus::Completed;
    session.tokens = None;
    session.code_hash = None;
    session.grant = Some(grant.id);
    if !tx.move_connect(from, &session).await? {
        return Err(ConnectFailure::Used);
    }
    let reason = if renewed.is_some() { "reconnected" } else { "" };
    let mut draft = draft(&session, Some(grant.id), "ok", reason);
    draft.generation = Some(grant.generation);
    let entry = entry(deps, &key, &session, draft)?;
    if let Some(retired) = retired {
        tx.append_entry(grant.org, retired).await?;
    }
    tx.append_entry(grant.org, entry).await?;
    tx.commit().await?;
    Ok(grant.id)
}

/// The living grant a session renews: the one named, or the person's own for the same account.
pub(super) async fn existing(tx: &mut Tx, session: &ConnectRow) -> Result<Option<Grant>, ConnectFailure> {
    if let Some(id) = session.reconnect {
        let grant = tx.grant(session.org, id).await?.ok_or(ConnectFailure::Unknown)?;
        return match grant.state {
            // A revoked grant never comes back (protocol §2).
            GrantState::Revoked { .. } => Err(ConnectFailure::Used),
            _ => Ok(Some(grant)),
        };
    }
    let Some(account) = session.account.as_ref().and_then(|account| account.id.as_ref()) else {
        return Ok(None);
    };
    // One in quarantine runs its course: its tokens are wider than consented to and end at the provider.
    Ok(tx
        .living_grant_of(session.org, session.user, &session.connector, account)
        .await?)
}

/// An entry about a session, with the account it came back with sealed beside it.
///
/// # Errors
/// When the generator fails.
pub(super) fn entry(
    deps: &Deps,
    key: &OdkHandle,
    session: &ConnectRow,
    draft: EntryDraft,
) -> Result<NewEntry, Refusal> {
    let account = session.account.as_ref();
    let details = record::Details {
        names: record::Names {
            account: account.map(|account| account.label.clone()),
            ..record::Names::default()
        },
        ..record::Details::default()
    };
    let hashed = record::Hashed {
        action: None,
        account: account.and_then(|account| account.id.as_deref()),
    };
    record::sealed(
        deps,
        key,
        session.org,
        EntryType::Connect,
        draft,
        &hashed,
        details,
    )
}
