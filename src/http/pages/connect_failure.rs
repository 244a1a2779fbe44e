//! Every way a connection can fail, as its page: status, words, and where to go from here.

use axum::http::StatusCode;

use super::{failure::Failure, session::Visitor, words};
use crate::{
    domain::{grant::GrantState, secret::LinkToken},
    flows::{
        Deps,
        connect::{
            self, ConnectFailure, Opened,
            around::{self, Around},
        },
    },
    web::{
        Shown, When,
        pages::connect_failure::{ConnectFailure as Words, NextStep},
        parts::Permissions,
    },
};

/// What the page of a connection that was not made shows, besides its frame.
#[derive(Debug, Clone)]
pub(super) struct NotConnected {
    /// The connector's name, if it may be told.
    pub(super) connector: Option<Shown>,
    /// What happened.
    pub(super) failure: Happened,
    /// Where to go from here.
    pub(super) next: NextStep,
}

/// What happened; the support number is known only where the page is rendered.
#[derive(Debug, Clone)]
pub(super) enum Happened {
    /// In words of its own.
    Said(Box<Words>),
    /// A security check failed.
    SecurityCheck,
}

impl Happened {
    /// The words, with the number to give an admin.
    pub(super) fn with_support(self, support: Shown) -> Words {
        match self {
            Self::Said(words) => *words,
            Self::SecurityCheck => Words::SecurityCheck { support },
        }
    }
}

/// Where on the way it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Before the provider.
    Link,
    /// Back from the provider, with its error code if it sent one.
    Callback,
    /// On the confirm page.
    Confirm,
}

/// A check of a callback that failed before its session was looked for.
pub(super) fn security(visitor: &Visitor, cause: &'static str) -> Failure {
    let page = NotConnected {
        connector: None,
        failure: Happened::SecurityCheck,
        next: home_or_nothing(visitor),
    };
    Failure::connect(StatusCode::BAD_REQUEST, page).caused_by(cause)
}

/// The page for a failure. SECURITY: session, person and connector are named only to whom the link's pages open.
pub(super) async fn explain(
    deps: &Deps,
    failure: ConnectFailure,
    stage: Stage,
    link: Option<&LinkToken>,
    visitor: &Visitor,
    provider_error: Option<&str>,
) -> Failure {
    let cause = failure.to_string();
    let failure = match failure {
        ConnectFailure::Refused(refusal) => return refusal.into(),
        ConnectFailure::Unknown => return Failure::not_found().caused_by(cause),
        failure => failure,
    };
    let opened = match link {
        Some(link) => connect::open(deps, link, visitor.to_flow()).await.ok(),
        None => None,
    };
    let around = match &opened {
        Some(opened) => around::look(deps, opened).await.ok(),
        None => None,
    };
    let known = opened.as_ref().zip(around.as_ref());
    let (status, happened) = words_for(deps, &failure, stage, known, provider_error);
    let page = NotConnected {
        connector: opened.as_ref().map(|opened| Shown::new(&opened.connector.name)),
        failure: happened,
        next: next_step(&failure, known, visitor),
    };
    Failure::connect(status, page).caused_by(cause)
}

type Known<'a, 'd> = Option<(&'a Opened<'d>, &'a Around)>;

fn words_for(
    deps: &Deps,
    failure: &ConnectFailure,
    stage: Stage,
    known: Known<'_, '_>,
    provider_error: Option<&str>,
) -> (StatusCode, Happened) {
    let (status, words) = match failure {
        ConnectFailure::Expired if stage == Stage::Confirm => (StatusCode::GONE, Words::CompletionExpired),
        ConnectFailure::Expired => (StatusCode::GONE, Words::LinkExpired),
        ConnectFailure::Revoked => (StatusCode::GONE, Words::Revoked),
        ConnectFailure::Used => (StatusCode::GONE, Words::LinkUsed),
        ConnectFailure::NotSignedIn => (StatusCode::FORBIDDEN, Words::NotSignedIn),
        ConnectFailure::WrongPerson => (StatusCode::FORBIDDEN, Words::AnotherPerson),
        ConnectFailure::WrongBrowser => (StatusCode::FORBIDDEN, Words::AnotherBrowser),
        ConnectFailure::Denied => (StatusCode::FORBIDDEN, Words::Denied),
        ConnectFailure::ProviderError => (
            StatusCode::BAD_GATEWAY,
            Words::ProviderError {
                code: Shown::new(provider_error.unwrap_or("no code")),
            },
        ),
        ConnectFailure::ProviderUnavailable => (StatusCode::SERVICE_UNAVAILABLE, Words::ProviderUnavailable),
        ConnectFailure::Quarantined => (StatusCode::FORBIDDEN, wider(deps, known)),
        ConnectFailure::WrongAccount => (StatusCode::FORBIDDEN, wrong_account(known)),
        ConnectFailure::AccountNotAllowed => (StatusCode::FORBIDDEN, not_allowed(known)),
        ConnectFailure::NotConfigured | ConnectFailure::ScopesNotAllowed => {
            (StatusCode::FORBIDDEN, Words::NotPermitted)
        }
        ConnectFailure::Security(_) | ConnectFailure::Unknown | ConnectFailure::Refused(_) => {
            return (StatusCode::BAD_REQUEST, Happened::SecurityCheck);
        }
    };
    (status, Happened::Said(Box::new(words)))
}

fn wider(deps: &Deps, known: Known<'_, '_>) -> Words {
    let now = deps.clock.now();
    let kept = known.and_then(|(opened, around)| around.became.as_ref().map(|grant| (opened, grant)));
    match kept {
        Some((opened, grant)) => Words::WiderScopes {
            extra: words::permissions(
                Some(opened.connector),
                &grant.scopes.difference(&opened.session.scopes),
            ),
            until: match grant.state {
                GrantState::Quarantined { until } => When::new(until, now),
                _ => When::new(now, now),
            },
        },
        None => Words::WiderScopes {
            extra: Permissions::default(),
            until: When::new(now, now),
        },
    }
}

fn wrong_account(known: Known<'_, '_>) -> Words {
    let expected = known
        .and_then(|(_, around)| around.renews.as_ref())
        .map(words::account);
    let got = known
        .and_then(|(opened, _)| opened.session.account.as_ref())
        .map(|account| Shown::new(&account.label));
    Words::WrongAccount {
        expected: expected.unwrap_or_else(|| Shown::new("the account of before")),
        got: got.unwrap_or_else(|| Shown::new("another account")),
    }
}

fn not_allowed(known: Known<'_, '_>) -> Words {
    let account = known.and_then(|(opened, _)| opened.session.account.as_ref());
    Words::AccountNotAllowed {
        account: account.map(|account| Shown::new(&account.label)),
    }
}

fn next_step(failure: &ConnectFailure, known: Known<'_, '_>, visitor: &Visitor) -> NextStep {
    match failure {
        ConnectFailure::NotSignedIn => return NextStep::Nothing,
        ConnectFailure::WrongPerson if visitor.0.is_some() => return NextStep::SignOut,
        ConnectFailure::NotConfigured | ConnectFailure::ScopesNotAllowed => return home_or_nothing(visitor),
        _ => {}
    }
    let Some((opened, around)) = known else {
        return home_or_nothing(visitor);
    };
    if let Some(host) = &around.host {
        return NextStep::BackTo(Shown::new(host));
    }
    let held = around.became.as_ref();
    if let Some(held) = held.filter(|grant| matches!(grant.state, GrantState::Quarantined { .. })) {
        return NextStep::ReconnectAgain(held.id);
    }
    match (&around.renews, &opened.agent) {
        (Some(grant), _) if opened.session.reconnect == Some(grant.id) => NextStep::ReconnectAgain(grant.id),
        (_, Some(agent)) => NextStep::BackTo(Shown::new(agent)),
        _ => NextStep::ConnectAgain(opened.session.connector.clone()),
    }
}

fn home_or_nothing(visitor: &Visitor) -> NextStep {
    if visitor.0.is_some() {
        NextStep::Connections
    } else {
        NextStep::Nothing
    }
}
