//! A route that does nothing: what a request costs before any work. Measurement builds only; `postern serve` refuses
//! those.

use std::sync::Arc;

use axum::{Extension, Router, body::Bytes, response::Response, routing::post};
use serde::Serialize;

use crate::{
    flows::Deps,
    http::{
        Problem, answer,
        caller::{Allowed, GatedAgent, Who},
    },
};

#[derive(Serialize)]
struct Nothing {}

/// Takes the same body as a vend from the same caller, and throws it away.
async fn authenticated(GatedAgent(_): GatedAgent, body: Bytes) -> Result<Response, Problem> {
    drop(body);
    answer::ok(&Nothing {})
}

/// The same without asking who calls.
async fn bare(body: Bytes) -> Result<Response, Problem> {
    drop(body);
    answer::ok(&Nothing {})
}

pub(in crate::http) fn routes() -> Router<Arc<Deps>> {
    Router::new()
        .route(
            "/bench/noop",
            post(authenticated).layer(Extension(Allowed(&[Who::Agent]))),
        )
        .route("/bench/bare", post(bare))
}
