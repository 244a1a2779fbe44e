//! Which token a release uses, made sure of before the gate: fresh, and for `token` really narrowed.

use std::{sync::Arc, time::Duration};

use crate::{
    crypto::OdkHandle,
    domain::{Mode, ModeSet, ScopeSet, Time},
    store::{SecretKind, SecretRow},
};

use super::{
    Deps, Refusal,
    actions::Prepared,
    refresh::{self, Want},
};

/// A token that will do, sealed, with the key it opens under.
#[derive(Debug)]
pub struct Ready {
    /// Which secret.
    pub kind: SecretKind,
    /// As read; the gate reads it again.
    pub row: SecretRow,
    /// Its key, unwrapped before the gate so that no key service is asked inside it.
    pub key: OdkHandle,
    /// Whether the provider narrowed it.
    pub narrowed: bool,
}

/// The modes that the connector and the grant leave of what policy and person allow.
#[must_use]
pub fn available(prepared: &Prepared, allowed: ModeSet, reads_args: bool) -> ModeSet {
    // Handles come with the egress proxy; until then no release of that kind exists.
    let mut modes = allowed.without(Mode::Handle);
    // A token escapes argument policy (protocol §5).
    if reads_args {
        return modes.without(Mode::Token).without(Mode::Raw);
    }
    if !narrows(prepared) {
        modes = modes.without(Mode::Token);
    }
    modes
}

/// Whether the provider can narrow a token to what this action needs.
fn narrows(prepared: &Prepared) -> bool {
    prepared.connector.narrows_by_refresh()
        && prepared.grant.facts.grant.has_refresh_token
        && !prepared.scopes.is_empty()
        && prepared.scopes.is_subset(&prepared.grant.facts.grant.scopes)
}

/// An access token as wide as the grant, for Postern's own call or the raw rung.
///
/// # Errors
/// When none can be had.
pub async fn wide(deps: &Arc<Deps>, prepared: &Prepared) -> Result<Ready, Refusal> {
    ready(deps, prepared, Want::Renewed { than: None }, false).await
}

/// An access token with the action's scopes and no more.
///
/// # Errors
/// When none can be had, or the provider did not prove it.
pub async fn narrowed(deps: &Arc<Deps>, prepared: &Prepared, scopes: ScopeSet) -> Result<Ready, Refusal> {
    ready(deps, prepared, Want::Narrowed(scopes), true).await
}

async fn ready(deps: &Arc<Deps>, prepared: &Prepared, want: Want, narrowed: bool) -> Result<Ready, Refusal> {
    let grant = &prepared.grant.facts.grant;
    let kind = want.kind();
    let soon = deps.clock.now() + SPARE;
    let row = match prepared
        .grant
        .token(&kind)
        .filter(|row| row.expires_at.is_none_or(|end| end > soon))
    {
        Some(row) => row,
        None => {
            let row = refresh::ensure(deps, grant, want).await?.row;
            prepared.grant.keep_token(&kind, row.clone());
            row
        }
    };
    let current = &prepared.agent.facts.odk;
    let key = if row.sealed.odk == current.id {
        // A data key's row is never changed but by moving it under another KEK: the one among the facts will do.
        deps.unwrapped(current).await?
    } else {
        deps.key_of(grant.org, row.sealed.odk).await?
    };
    Ok(Ready {
        kind,
        row,
        key,
        narrowed,
    })
}

/// Whether a token was kept while the clock stood ahead of now, and is forgotten therefore: its end is as wrong as the
/// clock was.
///
/// # Errors
/// When the database is unavailable.
pub async fn forgot_from_ahead(deps: &Deps, prepared: &Prepared, ready: &Ready) -> Result<bool, Refusal> {
    let grant = &prepared.grant.facts.grant;
    let mut tx = deps.store.read(grant.org).await?;
    let made_at = tx.secret_made_at(grant.org, grant.id, &ready.kind).await?;
    if made_at.is_none_or(|at| at <= tx.now()) {
        return Ok(false);
    }
    drop(tx);
    deps.store
        .retry(|| async {
            let mut tx = deps.store.write(grant.org).await?;
            tx.expire_secret(grant.org, grant.id, &ready.kind).await?;
            let ended = SecretRow {
                expires_at: Some(tx.now()),
                ..ready.row.clone()
            };
            tx.commit().await?;
            prepared.grant.keep_token(&ready.kind, ended);
            Ok(true)
        })
        .await
}

/// Whether a token ends within what is allowed: Postern cannot call a released token back (protocol §5).
#[must_use]
pub fn fits(expires_at: Option<Time>, now: Time, most: Duration) -> bool {
    expires_at.is_some_and(|end| end.since(now) <= most)
}

/// Life a token must have left to be used.
const SPARE: Duration = Duration::from_secs(30);
