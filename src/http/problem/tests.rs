//! Problem documents, as callers see them.

use std::collections::BTreeSet;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::*;
use crate::domain::{ApprovalId, ConnectSessionId};

async fn answered(problem: Problem) -> (StatusCode, axum::http::HeaderMap, Value) {
    let (parts, body) = problem.into_response().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (
        parts.status,
        parts.headers,
        serde_json::from_slice(&bytes).unwrap(),
    )
}

#[tokio::test]
async fn codes_and_statuses_are_those_of_the_protocol() {
    let table: Vec<(u16, &str)> = Code::ALL
        .iter()
        .map(|code| (code.status().as_u16(), code.as_str()))
        .collect();
    assert_eq!(
        table,
        [
            (202, "approval_pending"),
            (400, "invalid_request"),
            (400, "invalid_args"),
            (401, "unauthenticated"),
            (403, "denied"),
            (403, "decision_rejected"),
            (404, "not_found"),
            (409, "connection_required"),
            (409, "reconnect_required"),
            (409, "account_selection_required"),
            (409, "decision_spent"),
            (409, "idempotency_conflict"),
            (409, "already_released"),
            (409, "in_progress"),
            (410, "revoked"),
            (422, "mode_unavailable"),
            (429, "rate_limited"),
            (429, "budget_exhausted"),
            (503, "key_unavailable"),
            (503, "provider_unavailable"),
            (503, "store_unavailable"),
            (503, "sealed"),
            (504, "outcome_unknown"),
            (500, "internal"),
        ]
    );
}

#[test]
fn every_code_has_a_page_of_its_own() {
    let titles: BTreeSet<&str> = Code::ALL.iter().map(|code| code.help().title).collect();
    assert_eq!(titles.len(), Code::ALL.len());
    for code in Code::ALL {
        let help = code.help();
        assert!(
            help.meaning.ends_with('.') && help.remedy.ends_with('.'),
            "{}",
            code.as_str()
        );
        assert_eq!(Code::parse(code.as_str()), Some(*code));
    }
}

#[tokio::test]
async fn a_problem_has_type_code_and_no_store() {
    let (status, headers, body) = answered(Problem::not_found()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(headers["content-type"], PROBLEM_JSON);
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(
        body,
        json!({"type": "/problems/not_found", "title": "Not found", "status": 404, "code": "not_found"})
    );
}

#[tokio::test]
async fn the_logged_cause_never_reaches_the_caller() {
    let (_, headers, body) = answered(Problem::internal("disk sda1 is full")).await;
    assert!(!body.to_string().contains("sda1"));
    assert!(
        headers
            .values()
            .all(|value| !value.as_bytes().windows(4).any(|four| four == b"sda1"))
    );
}

#[tokio::test]
async fn a_401_is_the_same_for_every_cause() {
    let plain = answered(Problem::unauthenticated()).await;
    let caused = answered(Problem::unauthenticated().caused_by("key expired")).await;
    assert_eq!(plain, caused);
    assert_eq!(plain.1["www-authenticate"], "Bearer realm=\"postern\"");
}

#[tokio::test]
async fn a_pending_approval_says_where_and_when_to_ask_again() {
    let id = ApprovalId::from_bytes([0; 16]);
    let link = ApprovalLink {
        id,
        url: "https://postern.example/approvals/x".into(),
        expires_at: Time::from_unix_seconds(0),
    };
    let (status, headers, body) = answered(Problem::approval_pending(link)).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(headers["location"], format!("/v1/approvals/{id}").as_str());
    assert_eq!(headers["retry-after"], "5");
    assert_eq!(
        body["approval"],
        json!({"id": id, "url": "https://postern.example/approvals/x", "expires_at": "1970-01-01T00:00:00.000Z"})
    );
}

#[tokio::test]
async fn a_missing_connection_carries_its_link() {
    let session = ConnectSessionId::from_bytes([0; 16]);
    let link = ConnectLink {
        session,
        url: "https://p.example/connect/t".into(),
        expires_at: Time::from_unix_seconds(1),
    };
    let (_, _, body) = answered(Problem::connection_required(Some(link))).await;
    assert_eq!(
        body["connect"],
        json!({"session": session, "url": "https://p.example/connect/t", "expires_at": "1970-01-01T00:00:01.000Z"})
    );
}

#[tokio::test]
async fn available_modes_are_listed_even_when_there_are_none() {
    let (_, _, body) = answered(Problem::mode_unavailable(ModeSet::NONE)).await;
    assert_eq!(body["modes"], json!([]));
    let (_, _, body) = answered(Problem::mode_unavailable(ModeSet::DEFAULT)).await;
    assert_eq!(body["modes"], json!(["execute", "handle"]));
}

#[tokio::test]
async fn every_503_and_429_says_when_to_come_back() {
    for problem in [
        Problem::key_unavailable(),
        Problem::provider_unavailable(),
        Problem::store_unavailable(),
        Problem::sealed(),
        Problem::rate_limited(3),
        Problem::budget_exhausted(9),
    ] {
        let (_, headers, body) = answered(problem).await;
        assert!(headers.contains_key("retry-after"), "{}", body["code"]);
    }
}

#[tokio::test]
async fn errors_point_into_the_body() {
    let (_, _, body) = answered(Problem::invalid_args(vec![FieldError::new(
        "/args/to", "missing",
    )]))
    .await;
    assert_eq!(
        body["errors"],
        json!([{"pointer": "/args/to", "message": "missing"}])
    );
}
