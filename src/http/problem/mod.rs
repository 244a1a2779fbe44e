//! Every "no" is typed: RFC 9457 problems, `application/problem+json` (protocol §6).
//!
//! What the caller reads ([`Problem::with_detail`]) and what the operator's log says ([`Problem::caused_by`]) are two
//! fields and never meet. The cause is logged once, by [`super::guard`], under the request id.

use std::{fmt, sync::Arc};

use axum::{
    body::Body as HttpBody,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

mod code;
mod members;

pub use code::{Code, Help};
pub use members::{AccountChoice, ApprovalLink, Body, ConnectLink, FieldError, Members};

use crate::domain::{DecisionId, EntryId, GrantId, ModeSet, Time};

/// The media type of RFC 9457 §6.1.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A refusal, ready to be answered.
#[derive(Debug)]
pub struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    code: Code,
    detail: Option<String>,
    cause: Option<String>,
    retry_after_s: Option<u64>,
    location: Option<String>,
    members: Members,
}

impl Problem {
    fn of(code: Code) -> Self {
        Self::with_members(code, Members::default())
    }

    fn with_members(code: Code, members: Members) -> Self {
        Self(Box::new(Inner {
            code,
            detail: None,
            cause: None,
            retry_after_s: code.default_retry_after_s(),
            location: None,
            members,
        }))
    }

    /// 202: a human has to say yes; `location` is where to ask for the state.
    #[must_use]
    pub fn approval_pending(approval: ApprovalLink) -> Self {
        let location = format!("/v1/approvals/{}", approval.id);
        let mut problem = Self::with_members(
            Code::ApprovalPending,
            Members {
                approval: Some(approval),
                ..Members::default()
            },
        );
        problem.0.location = Some(location);
        problem
    }

    /// 400: the request is not of the agreed form.
    #[must_use]
    pub fn invalid_request(errors: Vec<FieldError>) -> Self {
        Self::with_members(
            Code::InvalidRequest,
            Members {
                errors,
                ..Members::default()
            },
        )
    }

    /// 400: one thing is wrong with the form of the request.
    #[must_use]
    pub fn invalid(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid_request(vec![FieldError::new(pointer, message)])
    }

    /// 400: the arguments do not fit the tool's schema.
    #[must_use]
    pub fn invalid_args(errors: Vec<FieldError>) -> Self {
        Self::with_members(
            Code::InvalidArgs,
            Members {
                errors,
                ..Members::default()
            },
        )
    }

    /// 401: one body for every cause (invariant I14).
    #[must_use]
    pub fn unauthenticated() -> Self {
        Self::of(Code::Unauthenticated)
    }

    /// 403: `reason` is a stable code that is safe to show to a model.
    #[must_use]
    pub fn denied(
        reason: impl Into<String>,
        model_message: Option<String>,
        decision_id: Option<DecisionId>,
    ) -> Self {
        Self::with_members(
            Code::Denied,
            Members {
                reason: Some(reason.into()),
                model_message,
                decision_id,
                ..Members::default()
            },
        )
    }

    /// 403: the presented decision does not hold; `decision_error` is one of `release`'s stable names.
    #[must_use]
    pub fn decision_rejected(decision_error: impl Into<String>) -> Self {
        Self::with_members(
            Code::DecisionRejected,
            Members {
                decision_error: Some(decision_error.into()),
                ..Members::default()
            },
        )
    }

    /// 404: one body for every cause, another tenant's ids included (invariant I5).
    #[must_use]
    pub fn not_found() -> Self {
        Self::of(Code::NotFound)
    }

    /// 409: the person has no grant for this connector.
    #[must_use]
    pub fn connection_required(connect: Option<ConnectLink>) -> Self {
        Self::with_members(
            Code::ConnectionRequired,
            Members {
                connect,
                ..Members::default()
            },
        )
    }

    /// 409: only the person can renew this grant.
    #[must_use]
    pub fn reconnect_required(connect: Option<ConnectLink>) -> Self {
        Self::with_members(
            Code::ReconnectRequired,
            Members {
                connect,
                ..Members::default()
            },
        )
    }

    /// 409: several accounts fit.
    #[must_use]
    pub fn account_selection_required(accounts: Vec<AccountChoice>) -> Self {
        Self::with_members(
            Code::AccountSelectionRequired,
            Members {
                accounts,
                ..Members::default()
            },
        )
    }

    /// 409: the decision or approval has been used by `entry`.
    #[must_use]
    pub fn decision_spent(entry: Option<EntryId>) -> Self {
        Self::with_members(
            Code::DecisionSpent,
            Members {
                entry_id: entry,
                ..Members::default()
            },
        )
    }

    /// 409: the idempotency key was used with another body.
    #[must_use]
    pub fn idempotency_conflict(entry: Option<EntryId>) -> Self {
        Self::with_members(
            Code::IdempotencyConflict,
            Members {
                entry_id: entry,
                ..Members::default()
            },
        )
    }

    /// 409: the same request was answered before, with `status`.
    #[must_use]
    pub fn already_released(entry: EntryId, status: Option<u16>) -> Self {
        Self::with_members(
            Code::AlreadyReleased,
            Members {
                entry_id: Some(entry),
                released_status: status,
                ..Members::default()
            },
        )
    }

    /// 409: the first request with this key is still running.
    #[must_use]
    pub fn in_progress(entry: Option<EntryId>) -> Self {
        Self::with_members(
            Code::InProgress,
            Members {
                entry_id: entry,
                ..Members::default()
            },
        )
    }

    /// 410: the grant has ended for good.
    #[must_use]
    pub fn revoked(grant: GrantId, at: Option<Time>) -> Self {
        Self::with_members(
            Code::Revoked,
            Members {
                grant: Some(grant),
                at,
                ..Members::default()
            },
        )
    }

    /// 422: these modes are available, the one asked for is not.
    #[must_use]
    pub fn mode_unavailable(available: ModeSet) -> Self {
        Self::with_members(
            Code::ModeUnavailable,
            Members {
                modes: Some(available.iter().collect()),
                ..Members::default()
            },
        )
    }

    /// 429: slow down.
    #[must_use]
    pub fn rate_limited(retry_after_s: u64) -> Self {
        Self::of(Code::RateLimited).retry_after(retry_after_s)
    }

    /// 429: a policy's limit is used up.
    #[must_use]
    pub fn budget_exhausted(retry_after_s: u64) -> Self {
        Self::of(Code::BudgetExhausted).retry_after(retry_after_s)
    }

    /// 503: the organisation's key cannot be used.
    #[must_use]
    pub fn key_unavailable() -> Self {
        Self::of(Code::KeyUnavailable)
    }

    /// 503: the provider cannot be reached, and nothing was released.
    #[must_use]
    pub fn provider_unavailable() -> Self {
        Self::of(Code::ProviderUnavailable)
    }

    /// 503: the database cannot be used.
    #[must_use]
    pub fn store_unavailable() -> Self {
        Self::of(Code::StoreUnavailable)
    }

    /// 503: log and database disagree until an admin recovers.
    #[must_use]
    pub fn sealed() -> Self {
        Self::of(Code::Sealed)
    }

    /// 504: it may have happened; never repeated by Postern.
    #[must_use]
    pub fn outcome_unknown(entry: Option<EntryId>) -> Self {
        Self::with_members(
            Code::OutcomeUnknown,
            Members {
                entry_id: entry,
                ..Members::default()
            },
        )
    }

    /// 500: a fault of ours. The caller sees a request id; `cause` goes to the log.
    #[must_use]
    pub fn internal(cause: impl fmt::Display) -> Self {
        Self::of(Code::Internal).caused_by(cause)
    }

    /// Names the audit entry that keeps this refusal.
    #[must_use]
    pub fn with_entry(mut self, entry: Option<EntryId>) -> Self {
        self.0.members.entry_id = entry.or(self.0.members.entry_id);
        self
    }

    /// Says what was wrong this time, to the caller.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Says why, to the operator's log only. SECURITY: pass errors of our rooms, never a remote body.
    #[must_use]
    pub fn caused_by(mut self, cause: impl fmt::Display) -> Self {
        self.0.cause = Some(cause.to_string());
        self
    }

    /// RFC 9110 §10.2.3: how many seconds to wait.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// What the operator's log should say.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    fn render(self, request_id: Option<String>) -> Response {
        let Inner {
            code,
            detail,
            retry_after_s,
            location,
            members,
            ..
        } = *self.0;
        let status = code.status();
        let body = Body {
            type_uri: code.type_uri(),
            title: code.title(),
            status: status.as_u16(),
            code: code.as_str(),
            detail,
            request_id,
            members,
        };
        let Ok(bytes) = serde_json::to_vec(&body) else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let mut response = Response::new(HttpBody::from(bytes));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(location) = location.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert(header::LOCATION, location);
        }
        if code == Code::Unauthenticated {
            // RFC 9110 §15.5.2: a 401 names a challenge; RFC 6750 §3: the same one for every cause.
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"postern\""),
            );
        }
        response
    }
}

/// What [`super::guard`] finds beside a rendered problem: enough to log it once and to give a 500 its request id.
#[derive(Debug, Clone)]
pub(in crate::http) struct Refusal {
    pub(in crate::http) code: Code,
    pub(in crate::http) cause: Option<Arc<str>>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let refusal = Refusal {
            code: self.code(),
            cause: self.cause().map(Arc::from),
        };
        let mut response = self.render(None);
        response.extensions_mut().insert(refusal);
        response
    }
}

/// The answer to a fault of ours: nothing but an id.
pub(in crate::http) fn internal_with_id(request_id: String) -> Response {
    Problem::of(Code::Internal).render(Some(request_id))
}

#[cfg(test)]
mod tests;
