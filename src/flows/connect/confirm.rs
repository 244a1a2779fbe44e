//! The person confirms account and delegation; only then is there a grant.

use std::sync::Arc;

use crate::{
    domain::{
        GrantId,
        entry::EntryType,
        grant::{Grant, GrantState},
        secret::LinkToken,
    },
    flows::{Deps, Refusal, choices, record},
    release::seal,
    store::{ConnectRow, ConnectStatus, SecretKind, Selector},
};

use super::{
    ConnectFailure, LINK_LIFE, Opened, Visitor,
    begin::place,
    callback::PENDING,
    discard::{self, draft},
    open, unexpired,
};

pub use crate::flows::choices::Choice;

/// How a confirmation ended.
#[derive(Debug)]
pub struct Confirmed {
    /// The grant.
    pub grant: GrantId,
    /// For host-managed persons: where the browser goes back to, and with which code.
    pub back: Option<Back>,
}

/// The way back to the host application.
#[derive(Debug)]
pub struct Back {
    /// The session.
    pub session: crate::domain::ConnectSessionId,
    /// The registered address.
    pub return_url: String,
    /// 256 bit, 60 s, once (protocol §2).
    pub code: LinkToken,
}

/// Opens the confirm page.
///
/// # Errors
/// When the session is not waiting for this visitor's confirmation.
pub async fn page<'a>(
    deps: &'a Deps,
    token: &LinkToken,
    browser: Option<&LinkToken>,
    visitor: Visitor,
) -> Result<Opened<'a>, ConnectFailure> {
    let opened = open(deps, token, visitor).await?;
    unexpired(&opened.session, deps.clock.now())?;
    if opened.session.status != ConnectStatus::Confirming {
        return Err(ConnectFailure::Used);
    }
    same_browser(deps, &opened.session, browser)?;
    Ok(opened)
}

/// Keeps the grant with its delegations and its entry, in one transaction through the guard.
///
/// # Errors
/// When the session is not waiting for this visitor's confirmation, or something of ours is unavailable.
pub async fn confirm(
    deps: &Arc<Deps>,
    token: &LinkToken,
    browser: Option<&LinkToken>,
    visitor: Visitor,
    choices: Vec<Choice>,
) -> Result<Confirmed, ConnectFailure> {
    let session = page(deps, token, browser, visitor).await?.session;
    let deps = Arc::clone(deps);
    tokio::spawn(async move { keep(&deps, session, choices).await })
        .await
        .unwrap_or(Err(ConnectFailure::Refused(Refusal::StoreUnavailable(None))))
}

/// The person says no: the tokens go to the outbox.
///
/// # Errors
/// When the session is not waiting for this visitor's confirmation, or something of ours is unavailable.
pub async fn cancel(
    deps: &Deps,
    token: &LinkToken,
    browser: Option<&LinkToken>,
    visitor: Visitor,
) -> Result<(), ConnectFailure> {
    let session = page(deps, token, browser, visitor).await?.session;
    let sealed = session.tokens.clone().ok_or(ConnectFailure::Used)?;
    let key = deps.key_of(session.org, sealed.odk).await?;
    let row = session.id.to_string();
    let answer = seal::open_pending(&key, &place(&session, &row, PENDING), &sealed)
        .map_err(|_| Refusal::KeyUnavailable)?;
    Ok(discard::tokens(deps, session, ConnectStatus::Confirming, &answer, "cancelled").await?)
}

/// Host-managed sessions have no login: the browser that came back is told by its cookie.
fn same_browser(
    deps: &Deps,
    session: &ConnectRow,
    browser: Option<&LinkToken>,
) -> Result<(), ConnectFailure> {
    match (session.browser_hash, browser) {
        (Some(hash), Some(browser)) if deps.browser_hash(browser)? == hash => Ok(()),
        _ => Err(ConnectFailure::WrongBrowser),
    }
}

async fn keep(
    deps: &Deps,
    mut session: ConnectRow,
    choices: Vec<Choice>,
) -> Result<Confirmed, ConnectFailure> {
    let sealed = session.tokens.take().ok_or(ConnectFailure::Used)?;
    let opening = deps.key_of(session.org, sealed.odk).await?;
    let key = deps.org_key(session.org).await?;
    let row = session.id.to_string();
    let answer = seal::open_pending(&opening, &place(&session, &row, PENDING), &sealed)
        .map_err(|_| Refusal::KeyUnavailable)?;
    let account = session.account.clone().ok_or(ConnectFailure::Used)?;
    let granted = session.granted.clone().ok_or(ConnectFailure::Used)?;
    let binding = deps
        .binding(&session.connector)
        .ok_or(ConnectFailure::NotConfigured)?;

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
    let state = match session.service {
        None => GrantState::Active,
        Some(_) => GrantState::AwaitingComplete {
            until: now + LINK_LIFE,
        },
    };
    let renewed = existing(&mut tx, &session, account.id.as_deref()).await?;
    let grant = Grant {
        id: match &renewed {
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
            .or_else(|| renewed.as_ref().and_then(|grant| grant.label.clone())),
        scopes: granted,
        state,
        connected_epoch: epoch.counter,
        generation: renewed.as_ref().map_or(1, |grant| grant.generation + 1),
        binding,
        access_expires_at: answer.expires_at,
        has_refresh_token: answer.refresh_token.is_some(),
        connected_at: renewed.as_ref().map_or(now, |grant| grant.connected_at),
        last_used_at: None,
    };
    if renewed.is_some() {
        tx.shred_secrets(grant.org, grant.id).await?;
        tx.update_grant(&grant).await?;
    } else {
        tx.insert_grant(&grant).await?;
    }
    let scopes = Some(grant.scopes.clone());
    let access = seal::access_token(
        &key,
        &grant,
        &SecretKind::AccessToken,
        grant.generation,
        &answer.access_token,
        scopes,
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
    for choice in &choices {
        choices::put(deps, &mut tx, &grant, epoch, choice).await?;
    }
    let back = match (&session.service, &session.return_url) {
        (Some(_), Some(return_url)) => {
            let code = crate::crypto::random::link_token(&*deps.random).map_err(Refusal::from)?;
            session.code_hash = Some(deps.code_hash(&code)?);
            session.code_expires = Some(now + CODE_LIFE);
            Some(Back {
                session: session.id,
                return_url: return_url.clone(),
                code,
            })
        }
        _ => None,
    };
    session.status = if session.service.is_some() {
        ConnectStatus::AwaitingComplete
    } else {
        ConnectStatus::Completed
    };
    session.expires_at = now + LINK_LIFE;
    session.grant = Some(grant.id);
    if !tx.move_connect(ConnectStatus::Confirming, &session).await? {
        return Err(ConnectFailure::Used);
    }
    let outcome = if session.service.is_some() {
        "awaiting_complete"
    } else {
        "ok"
    };
    let mut draft = draft(
        &session,
        Some(grant.id),
        outcome,
        if renewed.is_some() { "reconnected" } else { "" },
    );
    draft.generation = Some(grant.generation);
    let details = record::Details {
        names: record::Names {
            account: Some(grant.account.label.clone()),
            ..record::Names::default()
        },
        ..record::Details::default()
    };
    let hashed = record::Hashed {
        action: None,
        account: grant.account.id.as_deref(),
    };
    let entry = record::sealed(deps, &key, grant.org, EntryType::Connect, draft, &hashed, details)?;
    tx.append_entry(grant.org, entry).await?;
    tx.commit().await?;
    Ok(Confirmed {
        grant: grant.id,
        back,
    })
}

/// The living grant this connection renews: the one named, or the person's own for the same account.
pub(super) async fn existing(
    tx: &mut crate::store::Tx,
    session: &ConnectRow,
    account: Option<&str>,
) -> Result<Option<Grant>, ConnectFailure> {
    if let Some(id) = session.reconnect {
        let grant = tx.grant(session.org, id).await?.ok_or(ConnectFailure::Unknown)?;
        return match grant.state {
            // A revoked grant never comes back (protocol §2).
            GrantState::Revoked { .. } => Err(ConnectFailure::Used),
            _ => Ok(Some(grant)),
        };
    }
    let Some(account) = account else { return Ok(None) };
    let grants = tx
        .grants_of(session.org, session.user, Some(&session.connector))
        .await?;
    Ok(grants.into_iter().find(|grant| {
        grant.account.id.as_deref() == Some(account)
            // One in quarantine runs its course: its tokens are wider than consented to and end at the provider.
            && !matches!(grant.state, GrantState::Revoked { .. } | GrantState::Quarantined { .. })
    }))
}

/// How long a completion code lives (protocol §2).
const CODE_LIFE: std::time::Duration = std::time::Duration::from_secs(60);
