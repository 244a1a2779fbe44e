//! A refusal of the flows as the problem the caller reads (protocol §6). One arm per variant: a new one must be placed.

use std::{error::Error, fmt::Write as _, time::Duration};

use super::problem::{AccountChoice, ConnectLink, FieldError, Problem};
use crate::{
    domain::ModeSet,
    flows::{self, Fault, Refusal, connect::ConnectFailure},
    store::StoreError,
};

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::InvalidRequest(faults) => Self::invalid_request(errors(faults)),
            Refusal::InvalidArgs(faults) => Self::invalid_args(errors(faults)),
            Refusal::Unauthenticated => Self::unauthenticated(),
            Refusal::Denied {
                reason,
                message,
                decision,
                entry,
            } => {
                // An engine's `jti` need not be an id of ours; the entry names it.
                let decision = decision.and_then(|jti| jti.parse().ok());
                Self::denied(reason, message, decision).with_entry(entry)
            }
            Refusal::DecisionRejected(error) => Self::decision_rejected(error.to_string()),
            Refusal::NotFound => Self::not_found(),
            Refusal::ConnectionRequired(link) => Self::connection_required(Some(shown(link))),
            Refusal::ReconnectRequired(link) => Self::reconnect_required(Some(shown(link))),
            Refusal::GrantNeedsReconnect(grant) => {
                Self::reconnect_required(None).caused_by(format_args!("{grant} got no link"))
            }
            Refusal::NotNarrowed => Self::mode_unavailable(ModeSet::NONE),
            Refusal::AccountSelectionRequired(accounts) => {
                let accounts = accounts.into_iter().map(|choice| AccountChoice {
                    grant: choice.grant,
                    account: choice.label,
                });
                Self::account_selection_required(accounts.collect())
            }
            Refusal::DecisionSpent { entry } => Self::decision_spent(Some(entry)),
            Refusal::IdempotencyConflict { entry } => Self::idempotency_conflict(Some(entry)),
            Refusal::AlreadyReleased { entry, status } => Self::already_released(entry, Some(status)),
            Refusal::InProgress { entry } => Self::in_progress(Some(entry)),
            Refusal::Revoked { grant, at } => Self::revoked(grant, Some(at)),
            Refusal::ModeUnavailable(modes) => Self::mode_unavailable(modes),
            Refusal::RateLimited(wait) => Self::rate_limited(whole_seconds(wait)),
            Refusal::KeyUnavailable => Self::key_unavailable(),
            Refusal::ProviderUnavailable => Self::provider_unavailable(),
            Refusal::Sealed => Self::sealed(),
            Refusal::StoreUnavailable(None) => Self::store_unavailable(),
            Refusal::StoreUnavailable(Some(error)) if error.is_undecided() => Self::outcome_unknown(None)
                .with_detail(UNCONFIRMED)
                .caused_by(chain(&error)),
            Refusal::StoreUnavailable(Some(error @ StoreError::Busy)) => Self::store_unavailable()
                .with_detail("the organisation has as many connections as it may; nothing was done")
                .caused_by(chain(&error)),
            Refusal::StoreUnavailable(Some(error)) => Self::store_unavailable().caused_by(chain(&error)),
            Refusal::Unsettled => Self::store_unavailable()
                .with_detail(
                    "the organisation's rules changed each time they were read; nothing was released",
                )
                .retry_after(1)
                .caused_by("the epoch moved on at every try"),
            // The log keeps the cause with the entry: this process stood still, or the commit took its time.
            Refusal::TooLate => Self::store_unavailable()
                .with_detail(
                    "too long passed between the entry of this release and its sending; nothing was released",
                )
                .retry_after(1),
            Refusal::OutcomeUnknown { entry: Some(entry) } => Self::outcome_unknown(Some(entry)),
            Refusal::OutcomeUnknown { entry: None } => Self::outcome_unknown(None)
                .with_detail("a fault of this service stopped it half-way: it may have been carried out")
                .caused_by("a flow stopped unexpectedly"),
            Refusal::Broken => Self::internal("a flow stopped unexpectedly"),
        }
    }
}

impl From<ConnectFailure> for Problem {
    fn from(failure: ConnectFailure) -> Self {
        let code = failure.code();
        match failure {
            ConnectFailure::Refused(refusal) => refusal.into(),
            ConnectFailure::Unknown => Self::not_found(),
            ConnectFailure::NotSignedIn => Self::unauthenticated(),
            ConnectFailure::Expired
            | ConnectFailure::Revoked
            | ConnectFailure::Used
            | ConnectFailure::NotConfigured => Self::invalid("", failure.to_string()),
            ConnectFailure::ProviderError | ConnectFailure::ProviderUnavailable => {
                Self::provider_unavailable()
            }
            ConnectFailure::WrongPerson
            | ConnectFailure::WrongBrowser
            | ConnectFailure::Security(_)
            | ConnectFailure::Denied
            | ConnectFailure::Quarantined
            | ConnectFailure::AccountNotAllowed
            | ConnectFailure::ScopesNotAllowed
            | ConnectFailure::WrongAccount => Self::denied(code, None, None).caused_by(failure),
        }
    }
}

fn errors(faults: Vec<Fault>) -> Vec<FieldError> {
    faults
        .into_iter()
        .map(|fault| FieldError::new(fault.pointer, fault.detail))
        .collect()
}

fn shown(link: flows::ConnectLink) -> ConnectLink {
    ConnectLink {
        session: link.session,
        url: link.url,
        expires_at: link.expires_at,
    }
}

/// RFC 9110 §10.2.3 counts whole seconds: rounded up, never zero.
fn whole_seconds(wait: Duration) -> u64 {
    let started = u64::from(wait.subsec_nanos() > 0);
    wait.as_secs().saturating_add(started).max(1)
}

/// An error with its causes, for the operator's log.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _infallible = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// Of a commit whose answer never came, or of which the file outside the database has not heard.
const UNCONFIRMED: &str =
    "it is not confirmed: it may have been done, or be done yet; to revoke again is safe";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::response::IntoResponse as _;
    use http_body_util::BodyExt as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        domain::{EntryId, GrantId, Mode, Time},
        flows::{AccountChoice as Choice, idempotency},
        http::Code,
        release::DecisionError,
    };

    fn entry() -> EntryId {
        EntryId::from_bytes([1; 16])
    }

    fn grant() -> GrantId {
        GrantId::from_bytes([2; 16])
    }

    fn link() -> flows::ConnectLink {
        flows::ConnectLink {
            session: crate::domain::ConnectSessionId::from_bytes([3; 16]),
            url: "https://postern.example/connect/x".to_owned(),
            expires_at: Time::from_unix_seconds(0),
        }
    }

    fn denied(decision: &str) -> Refusal {
        Refusal::Denied {
            reason: "recipient_outside_company".to_owned(),
            message: Some("ask first".to_owned()),
            decision: Some(decision.to_owned()),
            entry: Some(entry()),
        }
    }

    async fn body(problem: Problem) -> Value {
        let bytes = problem
            .into_response()
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn every_refusal_has_its_code() {
        for (refusal, code) in [
            (Refusal::invalid("/tool", "no"), Code::InvalidRequest),
            (Refusal::InvalidArgs(Vec::new()), Code::InvalidArgs),
            (Refusal::Unauthenticated, Code::Unauthenticated),
            (Refusal::denied("x"), Code::Denied),
            (
                Refusal::DecisionRejected(DecisionError::Stale),
                Code::DecisionRejected,
            ),
            (Refusal::NotFound, Code::NotFound),
            (Refusal::ConnectionRequired(link()), Code::ConnectionRequired),
            (Refusal::ReconnectRequired(link()), Code::ReconnectRequired),
            (Refusal::GrantNeedsReconnect(grant()), Code::ReconnectRequired),
            (Refusal::NotNarrowed, Code::ModeUnavailable),
            (
                Refusal::AccountSelectionRequired(Vec::new()),
                Code::AccountSelectionRequired,
            ),
            (Refusal::DecisionSpent { entry: entry() }, Code::DecisionSpent),
            (
                Refusal::IdempotencyConflict { entry: entry() },
                Code::IdempotencyConflict,
            ),
            (
                Refusal::AlreadyReleased {
                    entry: entry(),
                    status: 200,
                },
                Code::AlreadyReleased,
            ),
            (Refusal::InProgress { entry: entry() }, Code::InProgress),
            (
                Refusal::Revoked {
                    grant: grant(),
                    at: Time::from_unix_seconds(0),
                },
                Code::Revoked,
            ),
            (Refusal::ModeUnavailable(ModeSet::NONE), Code::ModeUnavailable),
            (Refusal::RateLimited(Duration::ZERO), Code::RateLimited),
            (Refusal::KeyUnavailable, Code::KeyUnavailable),
            (Refusal::ProviderUnavailable, Code::ProviderUnavailable),
            (Refusal::Sealed, Code::Sealed),
            (Refusal::StoreUnavailable(None), Code::StoreUnavailable),
            (Refusal::Unsettled, Code::StoreUnavailable),
            (Refusal::TooLate, Code::StoreUnavailable),
            (
                Refusal::OutcomeUnknown { entry: Some(entry()) },
                Code::OutcomeUnknown,
            ),
            (Refusal::OutcomeUnknown { entry: None }, Code::OutcomeUnknown),
            (Refusal::Broken, Code::Internal),
        ] {
            let recorded = idempotency::ended(&refusal);
            assert_eq!(Problem::from(refusal).code(), code);
            assert_eq!(recorded, (code.status().as_u16(), code.as_str()));
        }
    }

    #[tokio::test]
    async fn a_denial_names_reason_message_decision_and_entry() {
        let decision = "dec_00000000000000000000000001";
        let body = body(denied(decision).into()).await;
        assert_eq!(body["reason"], "recipient_outside_company");
        assert_eq!(body["model_message"], "ask first");
        assert_eq!(body["decision_id"], decision);
        assert_eq!(body["entry_id"], entry().to_string());
    }

    #[tokio::test]
    async fn a_denial_by_an_engine_with_its_own_ids_names_none() {
        assert_eq!(body(denied("engine-7").into()).await["decision_id"], Value::Null);
    }

    #[tokio::test]
    async fn a_rejected_decision_says_why_by_its_stable_name() {
        let problem = Problem::from(Refusal::DecisionRejected(DecisionError::WrongAction));
        assert_eq!(body(problem).await["decision_error"], "wrong_action");
    }

    #[tokio::test]
    async fn links_accounts_and_modes_come_through() {
        let required = body(Refusal::ConnectionRequired(link()).into()).await;
        assert_eq!(required["connect"]["url"], "https://postern.example/connect/x");
        let choice = Choice {
            grant: grant(),
            connector: "acme-mail".parse().unwrap(),
            label: "ada@acme.example".to_owned(),
        };
        let selection = body(Refusal::AccountSelectionRequired(vec![choice]).into()).await;
        assert_eq!(
            selection["accounts"],
            json!([{"grant": grant().to_string(), "account": "ada@acme.example"}])
        );
        let modes = ModeSet::NONE.with(Mode::Execute);
        let unavailable = body(Refusal::ModeUnavailable(modes).into()).await;
        assert_eq!(unavailable["modes"], json!(["execute"]));
    }

    #[test]
    fn the_cause_of_a_store_failure_is_for_the_log_only() {
        let problem = Problem::from(Refusal::StoreUnavailable(Some(StoreError::Inconsistent {
            table: "grants",
        })));
        assert_eq!(problem.cause(), Some("an inconsistent row in grants"));
    }

    #[tokio::test]
    async fn what_the_database_has_not_confirmed_may_have_been_done_but_is_no_release() {
        let undecided = || {
            let lost = Arc::new(sqlx::Error::WorkerCrashed);
            Refusal::StoreUnavailable(Some(StoreError::Undecided(lost)))
        };
        let problem = Problem::from(undecided());
        assert_eq!(problem.code(), Code::OutcomeUnknown);
        assert!(problem.cause().unwrap().contains("not confirmed"));
        let detail = body(problem).await["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("may have been done"), "{detail}");
        let released = Problem::from(undecided().without_release());
        assert_eq!(released.code(), Code::StoreUnavailable);
    }

    #[tokio::test]
    async fn what_came_too_late_says_so_and_when_to_come_again() {
        let response = Problem::from(Refusal::TooLate).into_response();
        assert_eq!(response.headers()["retry-after"], "1");
        let body = body(Refusal::TooLate.into()).await;
        let detail = body["detail"].as_str().unwrap();
        assert!(detail.contains("nothing was released"), "{detail}");
    }

    #[test]
    fn waiting_is_rounded_up_to_a_whole_second() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1001)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(600)), 600);
    }

    #[test]
    fn a_failed_connection_is_never_a_fault_of_ours_unless_it_is() {
        for (failure, code) in [
            (ConnectFailure::Unknown, Code::NotFound),
            (ConnectFailure::NotSignedIn, Code::Unauthenticated),
            (ConnectFailure::Expired, Code::InvalidRequest),
            (ConnectFailure::Revoked, Code::InvalidRequest),
            (ConnectFailure::Used, Code::InvalidRequest),
            (ConnectFailure::NotConfigured, Code::InvalidRequest),
            (ConnectFailure::WrongPerson, Code::Denied),
            (ConnectFailure::WrongBrowser, Code::Denied),
            (ConnectFailure::Security("iss"), Code::Denied),
            (ConnectFailure::Denied, Code::Denied),
            (ConnectFailure::Quarantined, Code::Denied),
            (ConnectFailure::WrongAccount, Code::Denied),
            (ConnectFailure::AccountNotAllowed, Code::Denied),
            (ConnectFailure::ScopesNotAllowed, Code::Denied),
            (ConnectFailure::ProviderError, Code::ProviderUnavailable),
            (
                ConnectFailure::Refused(Refusal::KeyUnavailable),
                Code::KeyUnavailable,
            ),
        ] {
            assert_eq!(Problem::from(failure).code(), code);
        }
    }
}
