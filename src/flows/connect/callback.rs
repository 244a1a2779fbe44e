//! Back from the provider: every check before any token request leaves, then exchange, identity, scopes.

use std::{sync::Arc, time::Duration};

use crate::{
    connectors::oauth::{self, CodeExchange, OAuth, OAuthError},
    domain::{
        ScopeSet,
        connector::{Connector, ConnectorId},
        grant::Account,
        secret::{AuthorizationCode, LinkToken},
    },
    flows::{
        Deps, Refusal,
        uncut::{ENDED_WITHIN, KEPT_WITHIN, PROVED_WITHIN},
        upstream,
    },
    release::seal::{Pending, Tokens},
    store::{ConnectRow, ConnectStatus, Keyed},
};

use super::{
    ConnectFailure, LINK_LIFE, Visitor,
    begin::open_verifier,
    discard::{self, Fate},
    pending, rule, same_person, unexpired,
};

/// The query of a callback, each parameter at most once (the reader refuses duplicates).
#[derive(Debug, Default)]
pub struct Answer {
    /// RFC 6749 §4.1.2.
    pub code: Option<AuthorizationCode>,
    /// RFC 6749 §4.1.2.
    pub state: Option<String>,
    /// RFC 6749 §4.1.2.1.
    pub error: Option<String>,
    /// RFC 9207 §2.
    pub iss: Option<String>,
}

/// Checks a callback and exchanges its code; afterwards the person confirms. Returns the token of the session's link
/// pages, by which the confirm page is found.
///
/// Runs in its own task once the checks have passed: a browser that hangs up cannot leave an exchange half done.
///
/// # Errors
/// The first check that fails; nothing has left Postern then.
pub async fn receive(
    deps: &Arc<Deps>,
    context: &ConnectorId,
    answer: Answer,
    cookie: Option<LinkToken>,
    visitor: Visitor,
) -> Result<ConnectRow, ConnectFailure> {
    let session = check(deps, context, &answer, cookie.as_ref(), visitor).await?;
    if let Some(error) = &answer.error {
        let failure = if error == "access_denied" {
            ConnectFailure::Denied
        } else {
            ConnectFailure::ProviderError
        };
        discard::fail(deps, session, ConnectStatus::Spent, failure.code()).await?;
        return Err(failure);
    }
    let code = answer.code.ok_or(ConnectFailure::Security("code"))?;
    let held = deps.uncut.begin().ok_or(ConnectFailure::ProviderUnavailable)?;
    let deps = Arc::clone(deps);
    tokio::spawn(async move {
        let _held = held;
        exchange(&deps, session, &code).await
    })
    .await
    .unwrap_or(Err(ConnectFailure::Refused(Refusal::OutcomeUnknown {
        entry: None,
    })))
}

/// Every check of protocol §2 that stands before the token request.
async fn check(
    deps: &Deps,
    context: &ConnectorId,
    answer: &Answer,
    cookie: Option<&LinkToken>,
    visitor: Visitor,
) -> Result<ConnectRow, ConnectFailure> {
    let state = answer.state.as_deref().ok_or(ConnectFailure::Security("state"))?;
    let hash = deps.state_hash(state)?;
    // RFC 6749 §10.12: `state` is known …
    let unknown = ConnectFailure::Security("state");
    let Some((org, mut tx)) = deps.store.find(Keyed::ConnectState(&hash)).await? else {
        return Err(unknown);
    };
    let session = tx.connect_by_state(org, &hash).await?.ok_or(unknown)?;
    let user = tx
        .user(session.org, session.user)
        .await?
        .ok_or(ConnectFailure::Unknown)?;
    drop(tx);
    // … comes back to the browser that began …
    let browser = session.browser_hash.ok_or(ConnectFailure::WrongBrowser)?;
    let cookie = cookie.ok_or(ConnectFailure::WrongBrowser)?;
    if deps.browser_hash(cookie)? != browser {
        return Err(ConnectFailure::WrongBrowser);
    }
    // … in the hands of the same person …
    if user.managed_by.is_none() {
        same_person(&session, visitor)?;
    }
    // … at this connector's own redirect URI (RFC 9700 §4.4: mix-up) …
    if session.connector != *context {
        return Err(ConnectFailure::Security("context"));
    }
    // … unspent and in time.
    if session.revoked {
        return Err(ConnectFailure::Revoked);
    }
    if session.status != ConnectStatus::Spent {
        return Err(ConnectFailure::Used);
    }
    unexpired(&session, deps.clock.now())?;
    let connector = deps.catalogue.get(context).ok_or(ConnectFailure::NotConfigured)?;
    // RFC 9207 §2.4: the issuer must be the one that was asked; where it is announced it must be there.
    oauth::check_issuer(connector, answer.iss.as_deref()).map_err(|_| ConnectFailure::Security("iss"))?;
    Ok(session)
}

async fn exchange(
    deps: &Deps,
    session: ConnectRow,
    code: &AuthorizationCode,
) -> Result<ConnectRow, ConnectFailure> {
    // The key first: a code is never exchanged for tokens that could not be sealed.
    deps.org_key(session.org).await?;
    let verifier = open_verifier(deps, &session).await?;
    let client = upstream::client(deps, session.org, &session.connector)
        .await
        .map_err(ConnectFailure::Refused)?;
    let connector = deps
        .catalogue
        .get(&session.connector)
        .ok_or(ConnectFailure::NotConfigured)?;
    // INVARIANT: `state` is spent before the token request; a second callback finds nothing to spend.
    let (session, company) = deps.store.retry(|| spend(deps, &session, connector)).await?;

    let redirect_uri = deps.redirect_uri(&session.connector);
    let actor = oauth::actor(connector, None).map_err(|_| ConnectFailure::NotConfigured)?;
    let exchange = CodeExchange {
        code,
        verifier: oauth::uses_pkce(connector).then_some(&verifier),
        redirect_uri: &redirect_uri,
        actor,
    };
    let oauth = client.oauth(deps, connector);
    let set = match oauth.exchange(exchange).await {
        Ok(set) => set,
        Err(failure) => {
            tracing::warn!(connect.id = %session.id, connector.id = %session.connector, cause = %failure,
                "the code of {} was not exchanged", session.id);
            match failure {
                OAuthError::Leftover { left, .. } => {
                    end(deps, &oauth, session, company, &Tokens::from(*left)).await?;
                }
                _ => {
                    discard::fail(
                        deps,
                        session,
                        ConnectStatus::Exchanging,
                        ConnectFailure::ProviderError.code(),
                    )
                    .await?
                }
            }
            return Err(ConnectFailure::ProviderUnavailable);
        }
    };
    let identified = tokio::time::timeout(PROVED_WITHIN, oauth.identify(&set)).await;
    let account = match identified.unwrap_or(Err(OAuthError::Unusable("it did not come in time"))) {
        Ok(account) => Some(account.unwrap_or_else(|| Account {
            id: None,
            label: connector.name.clone(),
            email: None,
            tenant: None,
        })),
        Err(failure) => {
            tracing::warn!(connect.id = %session.id, connector.id = %session.connector, cause = %failure,
                "the account behind {} could not be told", session.id);
            None
        }
    };
    let came = Came {
        connector,
        account,
        waits: Pending {
            tokens: Tokens::from(set),
            choices: Vec::new(),
        },
    };
    let kept = deps.store.retry(|| keep(deps, &session, &came));
    let kept = tokio::time::timeout(KEPT_WITHIN, kept).await;
    let kept = kept.unwrap_or(Err(Refusal::StoreUnavailable(None).into()));
    // INVARIANT: an answer is kept, handed to the outbox or ended here and now; it is never just forgotten.
    if let Err(ConnectFailure::Refused(cause)) = &kept {
        if let Some(there) = kept_after_all(deps, &session).await {
            return Ok(there);
        }
        tracing::warn!(connect.id = %session.id, connector.id = %session.connector, cause = %cause,
            "the tokens of {} were not kept", session.id);
        let ended = discard::at_once(&oauth, &session, company.is_spared, &came.waits.tokens);
        let _given_up = tokio::time::timeout(ENDED_WITHIN, ended).await;
    }
    kept
}

/// Ends what is left of an answer that nobody can confirm: in the outbox or, where that is out of reach, here and now.
async fn end(
    deps: &Deps,
    oauth: &OAuth<'_>,
    session: ConnectRow,
    company: Company,
    left: &Tokens,
) -> Result<(), Refusal> {
    let (fate, alone) = match left.access_token {
        Some(_) => (Fate::RevokeUnread, company.is_none),
        None => (Fate::Revoke, company.is_spared),
    };
    let queued = discard::grant(
        deps,
        session.clone(),
        ConnectStatus::Exchanging,
        left,
        fate,
        ConnectFailure::ProviderError.code(),
    );
    let queued = tokio::time::timeout(KEPT_WITHIN, queued).await;
    let Err(cause) = queued.unwrap_or(Err(Refusal::StoreUnavailable(None))) else {
        return Ok(());
    };
    let ended = discard::at_once(oauth, &session, alone, left);
    let _given_up = tokio::time::timeout(ENDED_WITHIN, ended).await;
    Err(cause)
}

/// Who lives beside a session's tokens before they come.
#[derive(Debug, Clone, Copy)]
struct Company {
    /// Nobody who could be of the same account.
    is_none: bool,
    /// Nobody whom ending its tokens could end.
    is_spared: bool,
}

/// Spends the session's `state`. Returns the session as the exchange goes on with it, and who lives beside what comes.
async fn spend(
    deps: &Deps,
    session: &ConnectRow,
    connector: &Connector,
) -> Result<(ConnectRow, Company), ConnectFailure> {
    let mut session = session.clone();
    session.status = ConnectStatus::Exchanging;
    let mut tx = deps.store.write(session.org).await?;
    // Back in time is in time: the end of the link does not end what is on its way here.
    session.expires_at = session.expires_at.max(tx.now() + EXCHANGE);
    let is_none = !discard::lives_beside(deps, &mut tx, &session, connector).await?;
    let company = Company {
        is_none,
        is_spared: is_none || !upstream::ends_more_than_the_token(connector),
    };
    if !tx.move_connect(ConnectStatus::Spent, &session).await? {
        return Err(ConnectFailure::Used);
    }
    tx.commit().await?;
    session.verifier = None;
    Ok((session, company))
}

/// The session, if what came back waits in it to be confirmed: a commit may have come through though its answer did not.
async fn kept_after_all(deps: &Deps, session: &ConnectRow) -> Option<ConnectRow> {
    let look = async {
        let mut tx = deps.store.read(session.org).await?;
        tx.connect(session.org, session.id).await
    };
    let there = tokio::time::timeout(LOOK_WITHIN, look).await.ok()?.ok()??;
    (there.status == ConnectStatus::Confirming).then_some(there)
}

/// What came back from the provider.
struct Came<'a> {
    connector: &'a Connector,
    /// Whose it is; `None` if the provider did not tell.
    account: Option<Account>,
    waits: Pending,
}

/// Keeps what came back sealed until the person confirms, or hands to the outbox what may not be kept. After a refusal of ours
/// neither was done, unless the commit's answer was lost or came too late.
async fn keep(deps: &Deps, session: &ConnectRow, came: &Came<'_>) -> Result<ConnectRow, ConnectFailure> {
    let mut session = session.clone();
    let answer = &came.waits.tokens;
    // RFC 6749 §3.3: an answer without `scope` means exactly what was asked.
    let granted = answer.scopes.clone().unwrap_or_else(|| session.scopes.clone());
    match judge(deps, &session, came, &granted).await {
        Ok(()) => {}
        Err(refused @ ConnectFailure::Refused(_)) => return Err(refused),
        Err(failure) => {
            let (fate, code) = match (&failure, &came.account) {
                (ConnectFailure::Quarantined, Some(account)) => {
                    let account = account.clone();
                    (Fate::Quarantine { account, granted }, failure.code())
                }
                (_, None) => (Fate::Revoke, ConnectFailure::ProviderError.code()),
                (_, Some(account)) => {
                    // Kept so that the person reads which account it was.
                    session.account = Some(account.clone());
                    (Fate::Revoke, failure.code())
                }
            };
            discard::grant(deps, session, ConnectStatus::Exchanging, answer, fate, code).await?;
            return Err(failure);
        }
    }
    // The key from before the exchange may have had its time.
    let key = deps.org_key(session.org).await?;
    pending::keep(&key, &mut session, &came.waits)?;
    session.account.clone_from(&came.account);
    session.granted = Some(granted);
    session.status = ConnectStatus::Confirming;
    session.expires_at = deps.clock.now() + LINK_LIFE;
    let mut tx = deps.store.write(session.org).await?;
    if tx.move_connect(ConnectStatus::Exchanging, &session).await? {
        tx.commit().await?;
        return Ok(session);
    }
    drop(tx);
    // The exchange took longer than anybody waits for one.
    let failure = ConnectFailure::Expired;
    discard::tokens(deps, session, ConnectStatus::Exchanging, answer, failure.code()).await?;
    Err(failure)
}

/// Compares what came back with what was asked and what the org allows.
async fn judge(
    deps: &Deps,
    session: &ConnectRow,
    came: &Came<'_>,
    granted: &ScopeSet,
) -> Result<(), ConnectFailure> {
    let account = came.account.as_ref().ok_or(ConnectFailure::ProviderUnavailable)?;
    let mut tx = deps.store.read(session.org).await?;
    if let Some(reconnect) = session.reconnect {
        let grant = tx
            .grant(session.org, reconnect)
            .await?
            .ok_or(ConnectFailure::Unknown)?;
        if grant.account.id.is_none() || grant.account.id != account.id {
            return Err(ConnectFailure::WrongAccount);
        }
    }
    let rules = rule::of(&mut tx, session).await?;
    // The account first: what is wider is kept apart for days, but not of an account that may not be here at all.
    rule::admits(&rules, account)?;
    if !granted.is_subset(&session.scopes) {
        return Err(ConnectFailure::Quarantined);
    }
    rule::allows(&rules, came.connector, granted)
}

/// What was asked and did not come back.
#[must_use]
pub fn missing(session: &ConnectRow) -> ScopeSet {
    session
        .granted
        .as_ref()
        .map(|granted| session.scopes.difference(granted))
        .unwrap_or_default()
}

/// How long it may take to look whether a commit came through.
const LOOK_WITHIN: Duration = Duration::from_secs(3);
/// Longer than the exchange and the question whose account it is take together.
const EXCHANGE: Duration = Duration::from_secs(120);
