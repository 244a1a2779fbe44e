//! Connecting an app: link → page → provider → callback → confirm (→ complete). Protocol §2, invariant I9.
//!
//! Nothing is asked of a token endpoint before every check of [`callback`] has passed, and nothing is kept before the
//! person has confirmed what came back.

pub mod around;
pub mod begin;
pub mod callback;
pub mod complete;
pub mod confirm;
pub mod discard;
mod keep;
pub mod overdue;
mod pending;
mod rule;
mod superseded;

use std::time::Duration;

use crate::{
    domain::{ConnectSessionId, OrgId, ScopeSet, Time, UserId, connector::Connector, secret::LinkToken},
    store::{ConnectRow, ConnectStatus, Contended, Keyed, OrgRow, REVOKED, UserRow},
};

use super::{Deps, Refusal};

/// Who is at the browser: a person logged in with Postern, or nobody Postern knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visitor {
    /// The logged-in person.
    pub user: Option<(OrgId, UserId)>,
}

/// Why a connect page or callback cannot go on; each has its own words and next step.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailure {
    /// No session belongs to this link or callback.
    #[error("no such connect session")]
    Unknown,
    /// Past its ten minutes.
    #[error("the link has expired")]
    Expired,
    /// A revocation ended it before the person confirmed.
    #[error("a revocation ended this")]
    Revoked,
    /// Spent before.
    #[error("the link was used")]
    Used,
    /// The person has to log in first.
    #[error("nobody is logged in")]
    NotSignedIn,
    /// Somebody else is logged in.
    #[error("another person is logged in")]
    WrongPerson,
    /// Not the browser that began.
    #[error("another browser began this")]
    WrongBrowser,
    /// `state`, `iss`, the callback's context or a parameter is not as it must be.
    #[error("a security check failed: {0}")]
    Security(&'static str),
    /// The person said no at the provider.
    #[error("denied at the provider")]
    Denied,
    /// The provider sent an error.
    #[error("the provider sent an error")]
    ProviderError,
    /// The provider does not answer usefully.
    #[error("the provider is unavailable")]
    ProviderUnavailable,
    /// More came back than was asked; kept apart.
    #[error("wider scopes than asked")]
    Quarantined,
    /// Reconnecting came back with another account.
    #[error("another account")]
    WrongAccount,
    /// The org's rule does not admit the account that came back.
    #[error("the organisation does not allow this account")]
    AccountNotAllowed,
    /// The org's ceiling came down below what was asked for.
    #[error("the organisation does not allow these scopes any more")]
    ScopesNotAllowed,
    /// The org has not configured this connector.
    #[error("the connector is not configured")]
    NotConfigured,
    /// Something of ours is unavailable.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl From<crate::store::StoreError> for ConnectFailure {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<crate::crypto::CryptoError> for ConnectFailure {
    fn from(error: crate::crypto::CryptoError) -> Self {
        Self::Refused(error.into())
    }
}

impl Contended for ConnectFailure {
    fn is_contended(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.is_contended())
    }
}

impl ConnectFailure {
    /// The stable code of a session that failed this way.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Revoked => REVOKED,
            Self::Used => "used",
            Self::NotSignedIn => "not_signed_in",
            Self::WrongPerson => "wrong_person",
            Self::WrongBrowser => "wrong_browser",
            Self::Security(_) => "security_check",
            Self::Denied => "denied",
            Self::ProviderError => "provider_error",
            Self::ProviderUnavailable => "provider_unavailable",
            Self::Quarantined => "quarantined",
            Self::WrongAccount => "wrong_account",
            Self::AccountNotAllowed => "account_not_allowed",
            Self::ScopesNotAllowed => "scopes_not_allowed",
            Self::NotConfigured => "not_configured",
            Self::Refused(_) => "unavailable",
        }
    }
}

/// A session with everything its pages show.
#[derive(Debug)]
pub struct Opened<'a> {
    /// The session.
    pub session: ConnectRow,
    /// For whom.
    pub user: UserRow,
    /// In which org.
    pub org: OrgRow,
    /// What people call the agent that asked.
    pub agent: Option<String>,
    /// At which connector.
    pub connector: &'a Connector,
}

/// Opens a session by the token of its link, for whoever is at the browser.
///
/// # Errors
/// When the link is unknown, or the visitor is not the person it was made for.
pub async fn open<'a>(
    deps: &'a Deps,
    token: &LinkToken,
    visitor: Visitor,
) -> Result<Opened<'a>, ConnectFailure> {
    let hash = deps.link_hash(token)?;
    let found = deps.store.find(Keyed::ConnectLink(&hash)).await?;
    let (org, mut tx) = found.ok_or(ConnectFailure::Unknown)?;
    let session = tx
        .connect_by_link(org, &hash)
        .await?
        .ok_or(ConnectFailure::Unknown)?;
    let user = tx
        .user(session.org, session.user)
        .await?
        .ok_or(ConnectFailure::Unknown)?;
    // SECURITY: a Postern-managed person's session opens only for that person (COSF, invariant I9).
    if user.managed_by.is_none() {
        same_person(&session, visitor)?;
    }
    let org = tx.org(session.org).await?.ok_or(ConnectFailure::Unknown)?;
    let agent = match session.agent {
        Some(agent) => tx.agent(session.org, agent).await?.map(|agent| agent.name),
        None => None,
    };
    let connector = deps
        .catalogue
        .get(&session.connector)
        .ok_or(ConnectFailure::NotConfigured)?;
    Ok(Opened {
        session,
        user,
        org,
        agent,
        connector,
    })
}

fn same_person(session: &ConnectRow, visitor: Visitor) -> Result<(), ConnectFailure> {
    match visitor.user {
        None => Err(ConnectFailure::NotSignedIn),
        Some(person) if person == (session.org, session.user) => Ok(()),
        Some(_) => Err(ConnectFailure::WrongPerson),
    }
}

fn unexpired(session: &ConnectRow, now: Time) -> Result<(), ConnectFailure> {
    if session.revoked {
        Err(ConnectFailure::Revoked)
    } else if now < session.expires_at {
        Ok(())
    } else {
        Err(ConnectFailure::Expired)
    }
}

/// What a host or an agent learns of a session.
#[derive(Debug)]
pub struct Progress {
    /// The session.
    pub id: ConnectSessionId,
    /// Where it stands; sessions past their time are failed with `expired`, those under a revocation with `revoked`.
    pub status: ConnectStatus,
    /// Why it failed.
    pub failure: Option<String>,
    /// The grant it became.
    pub grant: Option<crate::domain::GrantId>,
}

/// Where a session stands, waiting up to `wait` for it to come to an end.
///
/// # Errors
/// When there is no such session in this org.
pub async fn progress(
    deps: &Deps,
    org: OrgId,
    id: ConnectSessionId,
    wait: Duration,
) -> Result<(ConnectRow, Progress), Refusal> {
    let until = deps.clock.since_boot() + wait;
    loop {
        let session = deps
            .store
            .read(org)
            .await?
            .connect(org, id)
            .await?
            .ok_or(Refusal::NotFound)?;
        let ended = matches!(session.status, ConnectStatus::Completed | ConnectStatus::Failed);
        let expired = !ended && deps.clock.now() >= session.expires_at;
        if ended
            || expired
            || session.status == ConnectStatus::AwaitingComplete
            || deps.clock.since_boot() >= until
        {
            let progress = Progress {
                id,
                status: if expired {
                    ConnectStatus::Failed
                } else {
                    session.status
                },
                failure: if expired {
                    Some(discard::end_of(&session).to_owned())
                } else {
                    session.failure.clone()
                },
                grant: session.grant,
            };
            return Ok((session, progress));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The scopes every typed action of a connector needs, with those it always asks for.
#[must_use]
pub fn all_scopes(connector: &Connector) -> ScopeSet {
    let needed = connector.actions.iter().flat_map(|action| action.scopes.iter());
    needed
        .map(str::to_owned)
        .chain(connector.authorize.scopes_always.iter().cloned())
        .collect()
}

/// Whether a connector has this scope: its file describes it, or something of it needs it.
#[must_use]
pub fn knows(connector: &Connector, scope: &str) -> bool {
    connector.scope(scope).is_some() || all_scopes(connector).contains(scope)
}

/// How long a link lives (protocol §2).
pub const LINK_LIFE: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(250);
