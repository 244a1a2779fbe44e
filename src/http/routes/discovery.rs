//! What other programs need to know, for everybody: the API document and the keys that sign decisions.

use std::sync::{Arc, LazyLock};

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::routes;
use crate::{
    flows::Deps,
    http::{Problem, openapi},
};

static DOCUMENT: LazyLock<Option<String>> = LazyLock::new(|| openapi::document().to_json().ok());

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "discovery", operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1.", content_type = "application/json", body = Object)),
)]
async fn document() -> Result<Response, Problem> {
    let text = DOCUMENT
        .as_deref()
        .ok_or_else(|| Problem::internal("the API document does not serialise"))?;
    Ok(public(text.to_owned(), "application/json"))
}

/// The keys that sign Postern's own decisions, as a JWKS (RFC 7517 §5).
#[utoipa::path(
    get, path = "/.well-known/postern/decision-keys", tag = "discovery", operation_id = "decision_keys",
    responses((status = 200, description = "The keys.", content_type = "application/jwk-set+json", body = Object)),
)]
async fn decision_keys(State(deps): State<Arc<Deps>>) -> Response {
    let keys = jwks(deps.notary.public().to_jwk());
    public(keys.to_string(), "application/jwk-set+json")
}

fn jwks(key: Value) -> Value {
    json!({"keys": [key]})
}

fn public(text: String, media_type: &'static str) -> Response {
    (
        [
            (header::CONTENT_TYPE, media_type),
            (header::CACHE_CONTROL, "public, max-age=300"),
        ],
        text,
    )
        .into_response()
}

#[derive(OpenApi)]
#[openapi(paths(document, decision_keys))]
pub(in crate::http) struct Api;

routes! {
    get "/openapi.json" [] => document;
    get "/.well-known/postern/decision-keys" [] => decision_keys;
}
