//! The pages people see: extract, call one flow, fill a struct of `web`, answer.
//!
//! Promises: no page spends anything on GET but the callback; every form passes origin and CSRF checks before it is
//! read; nothing a person may not see is told apart from what does not exist. Must never log a path, a query or a
//! cookie: they hold one-time secrets.

mod activity;
mod admin;
mod answer;
mod asset;
mod boxes;
mod callback;
mod connect;
mod connect_failure;
mod connections;
mod connections_view;
mod entries_view;
mod failure;
mod form;
mod login;
mod revoke;
mod revoke_view;
mod session;
mod words;

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};

use super::{guard::RequestId, problem::Problem, security::Site};
use crate::flows::Deps;
use failure::Failure;
use session::Seen;

/// What every handler of a page has.
#[derive(Debug, Clone)]
struct Pages {
    deps: Arc<Deps>,
    site: Arc<Site>,
}

/// Every page, its state applied. Give [`nothing`] to the whole router as its fallback.
pub fn routes(deps: Arc<Deps>, site: Site) -> Router {
    let pages = Pages {
        deps,
        site: Arc::new(site),
    };
    Router::new()
        .route("/", get(login::home))
        .route("/login", get(login::nobody))
        .route("/login/{token}", get(login::offer).post(login::enter))
        .route("/logout", post(login::leave))
        .route("/connections", get(connections::list))
        .route("/connections/connect", post(connections::connect))
        .route("/connections/{id}", get(connections::one))
        .route("/connections/{id}/delegations", post(connections::delegate))
        .route("/connections/{id}/reconnect", post(connections::reconnect))
        .route(
            "/connections/{id}/disconnect",
            get(connections::ask_disconnect).post(connections::disconnect),
        )
        .route("/connections/{id}/disconnected", get(connections::disconnected))
        .route("/connect/{token}", get(connect::landing).post(connect::go))
        .route("/connect/{token}/continue", get(connect::onward))
        .route(
            "/connect/{token}/confirm",
            get(connect::ask_confirm).post(connect::confirm),
        )
        .route("/connect/{token}/cancel", post(connect::cancel))
        // The callback spends `state`, so HEAD must not run it.
        .route(
            "/callback/{connector}",
            get(callback::receive).head(callback::refuse),
        )
        .route("/activity", get(activity::list))
        .route("/activity/{id}", get(activity::one))
        .route("/admin/people", get(admin::people))
        .route("/admin/people/{id}/login-link", post(admin::login_link))
        .route("/admin/agents", get(admin::agents))
        .route("/admin/revoke", get(revoke::choose).post(revoke::run))
        .route("/admin/revoke/preview", post(revoke::preview))
        .route("/admin/revocations/{id}", get(revoke::receipt))
        .route("/assets/postern.css", get(asset::stylesheet))
        .route("/assets/postern.svg", get(asset::icon))
        .layer(middleware::from_fn(show_failures))
        .with_state(pages)
}

/// The answer to an address where there is nothing: a page for browsers, a problem for everybody else.
pub async fn nothing(uri: Uri, headers: HeaderMap) -> Response {
    let wants_page = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("text/html"));
    let is_api = uri.path().starts_with("/v1/") || uri.path().starts_with("/.well-known/");
    if wants_page && !is_api {
        Failure::not_found().show(None, "")
    } else {
        Problem::not_found().into_response()
    }
}

/// Renders what handlers and extractors refused with, in the frame of whoever is signed in.
async fn show_failures(mut request: Request, next: Next) -> Response {
    let seen = Seen::default();
    let support = request
        .extensions()
        .get::<RequestId>()
        .map(ToString::to_string)
        .unwrap_or_default();
    request.extensions_mut().insert(seen.clone());
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<Failure>() {
        Some(failure) => failure.show(seen.shell(), &support),
        None => response,
    }
}
