//! The person confirms account and delegation; only then is there a grant, or the host application is asked.

use std::sync::Arc;

use crate::{
    crypto,
    domain::{GrantId, secret::LinkToken},
    flows::{Deps, Refusal},
    release::seal::Pending,
    store::{ConnectRow, ConnectStatus},
};

use super::{
    ConnectFailure, LINK_LIFE, Opened, Visitor,
    discard::{self, draft},
    keep, open, pending, unexpired,
};

pub use crate::flows::choices::Choice;

/// How a confirmation ended.
#[derive(Debug)]
pub enum Confirmed {
    /// There is a grant.
    Connected(GrantId),
    /// A host-managed person: there is a grant when the host application has said who was at its browser. Where the
    /// browser goes back to, and with which code; without a return address it never comes to that.
    Waiting(Option<Back>),
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

/// Keeps the grant with its delegations and its entry, or what waits for the host application.
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
    tokio::spawn(async move { settle(&deps, session, choices).await })
        .await
        .unwrap_or(Err(ConnectFailure::Refused(Refusal::OutcomeUnknown {
            entry: None,
        })))
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
    let answer = pending::open(deps, &session).await?.tokens;
    if discard::tokens(deps, session, ConnectStatus::Confirming, &answer, "cancelled").await? {
        Ok(())
    } else {
        Err(ConnectFailure::Used)
    }
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

async fn settle(deps: &Deps, session: ConnectRow, choices: Vec<Choice>) -> Result<Confirmed, ConnectFailure> {
    let mut pending = pending::open(deps, &session).await?;
    pending.choices = choices;
    match session.service {
        None => keep::grant(deps, &session, &pending)
            .await
            .map(Confirmed::Connected),
        Some(_) => deps
            .store
            .retry(|| hold(deps, &session, &pending))
            .await
            .map(Confirmed::Waiting),
    }
}

/// Keeps what the person confirmed in its session: there is no grant before the host application has answered, and a
/// grant that would be renewed stays as it is until then.
async fn hold(deps: &Deps, session: &ConnectRow, pending: &Pending) -> Result<Option<Back>, ConnectFailure> {
    let mut session = session.clone();
    let key = deps.org_key(session.org).await?;
    pending::keep(&key, &mut session, pending)?;
    let code = crypto::random::link_token(&*deps.random).map_err(Refusal::from)?;
    let mut tx = deps.store.write(session.org).await?;
    let now = tx.now();
    // A revocation that covered the session ended it.
    let current = tx
        .connect(session.org, session.id)
        .await?
        .ok_or(ConnectFailure::Unknown)?;
    unexpired(&current, now)?;
    keep::existing(&mut tx, &session).await?;
    session.status = ConnectStatus::AwaitingComplete;
    session.expires_at = now + LINK_LIFE;
    let back = match &session.return_url {
        Some(return_url) => {
            session.code_hash = Some(deps.code_hash(&code)?);
            session.code_expires = Some(now + CODE_LIFE);
            Some(Back {
                session: session.id,
                return_url: return_url.clone(),
                code,
            })
        }
        None => None,
    };
    let entry = keep::entry(
        deps,
        &key,
        &session,
        draft(&session, None, "awaiting_complete", ""),
    )?;
    if !tx.move_connect(ConnectStatus::Confirming, &session).await? {
        return Err(ConnectFailure::Used);
    }
    tx.append_entry(session.org, entry).await?;
    tx.commit().await?;
    Ok(back)
}

/// How long a completion code lives (protocol §2).
const CODE_LIFE: std::time::Duration = std::time::Duration::from_secs(60);
