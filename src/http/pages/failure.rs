//! What a page refuses with: a status, the words of `web`, and a cause for the operator's log.
//!
//! Handlers and extractors return it; `show_failures` renders it, because only there both the frame of the signed-in
//! person and the request id are known.

use std::fmt;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{answer, connect_failure::NotConnected, session};
use crate::{
    flows::Refusal,
    http::Problem,
    web::{
        Shell, Shown,
        pages::{
            connect_failure::ConnectFailurePage,
            error::{ErrorKind, ErrorPage},
            login::{LoginRefusal, LoginRefusedPage, NotSignedInPage},
        },
    },
};

/// A page that says no.
#[derive(Debug, Clone)]
pub(super) struct Failure(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    status: StatusCode,
    page: Page,
    cause: Option<String>,
}

#[derive(Debug, Clone)]
enum Page {
    NotSignedIn,
    BadRequest,
    StaleForm,
    Forbidden,
    NotFound,
    TooMany,
    Internal,
    Unavailable,
    Unknown,
    Login(LoginRefusal),
    Connect(NotConnected),
}

impl Failure {
    fn new(status: StatusCode, page: Page) -> Self {
        Self(Box::new(Inner {
            status,
            page,
            cause: None,
        }))
    }

    /// Nobody is signed in.
    pub(super) fn not_signed_in() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, Page::NotSignedIn)
    }

    /// The request could not be read.
    pub(super) fn bad_request(cause: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Page::BadRequest).caused_by(cause)
    }

    /// The form did not come from a page of ours, or that page is too old.
    pub(super) fn stale_form(problem: &Problem) -> Self {
        Self::new(StatusCode::FORBIDDEN, Page::StaleForm).caused_by(problem.cause().unwrap_or("a stale form"))
    }

    /// The person's role does not see this.
    pub(super) fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, Page::Forbidden)
    }

    /// There is nothing here, or it belongs to somebody else.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, Page::NotFound)
    }

    /// A fault of ours.
    pub(super) fn internal(cause: impl fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Page::Internal).caused_by(cause)
    }

    /// A fault of ours that came as a problem.
    pub(super) fn internal_problem(problem: Problem) -> Self {
        Self::internal(problem.cause().unwrap_or("a problem where none can be"))
    }

    /// A login link that signs nobody in.
    pub(super) fn login(why: LoginRefusal) -> Self {
        let status = match why {
            LoginRefusal::LinkGone => StatusCode::GONE,
            LoginRefusal::AnotherPerson => StatusCode::FORBIDDEN,
        };
        Self::new(status, Page::Login(why))
    }

    /// A connection that was not made.
    pub(super) fn connect(status: StatusCode, page: NotConnected) -> Self {
        Self::new(status, Page::Connect(page))
    }

    /// Says why, to the operator's log only. SECURITY: pass errors of our rooms, never a remote text.
    pub(super) fn caused_by(mut self, cause: impl fmt::Display) -> Self {
        self.0.cause = Some(cause.to_string());
        self
    }

    /// The page itself.
    pub(super) fn show(self, shell: Option<Shell>, support: &str) -> Response {
        let Inner { status, page, cause } = *self.0;
        log(status, cause.as_deref());
        let shell = match shell.or_else(session::empty_shell) {
            Some(shell) => shell,
            None => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        };
        let support = Shown::new(support);
        let error = |kind| {
            answer::page_with(
                status,
                &ErrorPage {
                    shell: shell.clone(),
                    kind,
                },
            )
        };
        let shown = match page {
            Page::NotSignedIn => answer::page_with(status, &NotSignedInPage { shell }),
            Page::Login(why) => answer::page_with(status, &LoginRefusedPage { shell, why }),
            Page::Connect(page) => {
                let page = ConnectFailurePage {
                    shell,
                    connector: page.connector,
                    failure: page.failure.with_support(support),
                    next: page.next,
                };
                answer::page_with(status, &page)
            }
            Page::BadRequest => error(ErrorKind::BadRequest),
            Page::StaleForm => error(ErrorKind::StaleForm),
            Page::Forbidden => error(ErrorKind::Forbidden),
            Page::NotFound => error(ErrorKind::NotFound),
            Page::TooMany => error(ErrorKind::TooMany),
            Page::Internal => error(ErrorKind::Internal { support }),
            Page::Unavailable => error(ErrorKind::Unavailable),
            Page::Unknown => error(ErrorKind::Unknown),
        };
        let mut response = shown.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response());
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 §15.5.2: a 401 names a challenge; browsers ask nobody for a password because of this one.
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Cookie realm=\"postern\""),
            );
        }
        response
    }
}

fn log(status: StatusCode, cause: Option<&str>) {
    let code = status.as_u16();
    match (cause, status.is_server_error()) {
        (Some(cause), true) => tracing::error!(http.status = code, cause, "a page answered {code}: {cause}"),
        (Some(cause), false) => tracing::info!(http.status = code, cause, "a page answered {code}: {cause}"),
        (None, true) => tracing::warn!(http.status = code, "a page answered {code}"),
        (None, false) => tracing::debug!(http.status = code, "a page answered {code}"),
    }
}

impl IntoResponse for Failure {
    /// Only a carrier: `show_failures` takes the failure out and renders it.
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let (status, page) = match &refusal {
            Refusal::InvalidRequest(_) | Refusal::InvalidArgs(_) => {
                (StatusCode::BAD_REQUEST, Page::BadRequest)
            }
            Refusal::Unauthenticated => (StatusCode::UNAUTHORIZED, Page::NotSignedIn),
            Refusal::Denied { .. } => (StatusCode::FORBIDDEN, Page::Forbidden),
            Refusal::NotFound => (StatusCode::NOT_FOUND, Page::NotFound),
            Refusal::Revoked { .. } => (StatusCode::GONE, Page::NotFound),
            Refusal::RateLimited(_) => (StatusCode::TOO_MANY_REQUESTS, Page::TooMany),
            Refusal::OutcomeUnknown { .. } => (StatusCode::GATEWAY_TIMEOUT, Page::Unknown),
            Refusal::StoreUnavailable(Some(error)) if error.is_undecided() => {
                (StatusCode::GATEWAY_TIMEOUT, Page::Unknown)
            }
            Refusal::KeyUnavailable
            | Refusal::ProviderUnavailable
            | Refusal::Sealed
            | Refusal::StoreUnavailable(_)
            | Refusal::Unsettled
            | Refusal::TooLate => (StatusCode::SERVICE_UNAVAILABLE, Page::Unavailable),
            Refusal::DecisionRejected(_)
            | Refusal::ConnectionRequired(_)
            | Refusal::ReconnectRequired(_)
            | Refusal::GrantNeedsReconnect(_)
            | Refusal::NotNarrowed
            | Refusal::AccountSelectionRequired(_)
            | Refusal::DecisionSpent { .. }
            | Refusal::IdempotencyConflict { .. }
            | Refusal::AlreadyReleased { .. }
            | Refusal::InProgress { .. }
            | Refusal::ModeUnavailable(_)
            | Refusal::Broken => (StatusCode::INTERNAL_SERVER_ERROR, Page::Internal),
        };
        let cause = match &refusal {
            Refusal::StoreUnavailable(Some(error)) => error.to_string(),
            other => other.to_string(),
        };
        Self::new(status, page).caused_by(cause)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::store::StoreError;

    async fn shown(refusal: Refusal) -> (u16, String) {
        let (parts, body) = Failure::from(refusal).show(None, "req_1").into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (parts.status.as_u16(), text)
    }

    #[tokio::test]
    async fn a_page_says_that_nothing_was_changed_only_where_that_is_known() {
        let lost = || Arc::new(sqlx::Error::WorkerCrashed);
        let store = |error| Refusal::StoreUnavailable(Some(error));
        let (status, page) = shown(store(StoreError::Unavailable(lost()))).await;
        assert_eq!(status, 503);
        assert!(page.contains("Nothing was changed"), "{page}");
        for refusal in [
            store(StoreError::Undecided(lost())),
            Refusal::OutcomeUnknown { entry: None },
        ] {
            let (status, page) = shown(refusal).await;
            assert_eq!(status, 504);
            assert!(page.contains("It may have been done"), "{page}");
            assert!(
                !page.contains("Nothing was changed") && !page.contains("it was not"),
                "{page}"
            );
        }
    }
}
