//! `/admin/…`: what tests and curious people may see and break. Exists only because this is a demo on loopback.

use axum::{
    body::Bytes,
    extract::{RawQuery, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use super::{AcmeMail, accounts, answer::Answer, fault::Fault, params::Params};

/// `GET /admin/log`: every token, revocation, introspection, authorization and API request, in order of arrival.
pub(super) async fn log(State(acme): State<AcmeMail>) -> Response {
    let world = acme.world();
    as_json(&world.log.entries())
}

/// `POST /admin/reset-log`: forgets the log; numbers go on.
pub(super) async fn reset_log(State(acme): State<AcmeMail>) -> StatusCode {
    let mut world = acme.world();
    world.log.clear();
    world.revision += 1;
    StatusCode::NO_CONTENT
}

/// `POST /admin/fault`: misbehaves at the next request that fits.
pub(super) async fn fault(State(acme): State<AcmeMail>, body: Bytes) -> Result<StatusCode, Answer> {
    let fault: Fault = parse(&body)?;
    if let Some(complaint) = fault.complaint() {
        return Err(Answer::invalid_request(complaint));
    }
    acme.world().faults.add(fault);
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /admin/fault`: behaves again.
pub(super) async fn clear_faults(State(acme): State<AcmeMail>) -> StatusCode {
    acme.world().faults.clear();
    StatusCode::NO_CONTENT
}

/// `POST /admin/expire {"account"}`: its access tokens expire now.
pub(super) async fn expire(State(acme): State<AcmeMail>, body: Bytes) -> Result<Answer, Answer> {
    let account = known(&parse::<Named>(&body)?.account)?;
    let now = acme.now();
    let mut world = acme.world();
    world.revision += 1;
    let count = world.grants.expire(account, now);
    Ok(Answer::json(StatusCode::OK, json!({ "expired": count })))
}

/// `POST /admin/disconnect {"account"}`: the person removes the client in their settings here.
pub(super) async fn disconnect(State(acme): State<AcmeMail>, body: Bytes) -> Result<Answer, Answer> {
    let account = known(&parse::<Named>(&body)?.account)?;
    let mut world = acme.world();
    world.revision += 1;
    let count = world.grants.disconnect(account);
    Ok(Answer::json(StatusCode::OK, json!({ "disconnected": count })))
}

/// `GET /admin/mailbox?account=`: everything in a mailbox, drafts included, oldest first.
pub(super) async fn mailbox(
    State(acme): State<AcmeMail>,
    RawQuery(query): RawQuery,
) -> Result<Response, Answer> {
    let params = Params::parse(query.unwrap_or_default().as_bytes());
    let account = known(params.get("account").unwrap_or_default())?;
    let world = acme.world();
    Ok(as_json(&world.mailboxes.all(account)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    account: String,
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Answer> {
    // The message names a field or a position; nothing secret is ever sent here.
    serde_json::from_slice(body).map_err(|error| Answer::invalid_request(&error.to_string()))
}

fn known(email: &str) -> Result<&'static str, Answer> {
    accounts::find(email)
        .map(|account| account.email)
        .ok_or_else(|| Answer::invalid_request("there is no such account"))
}

fn as_json<T: serde::Serialize>(value: &T) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => ([(axum::http::header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
