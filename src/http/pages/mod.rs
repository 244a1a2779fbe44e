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
    routing,
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

/// Whom a page answers; everybody else gets one answer, whatever the address holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Everybody: it says nothing about anybody.
    Everybody,
    /// Whoever has the one-time link, unless somebody else than the link's person is signed in.
    Link,
    /// The browser that a provider sends back.
    Provider,
    /// A person signed in, about what is theirs.
    Person,
    /// An admin signed in, about their org.
    Admin,
}

/// One page's route as the table says it.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Lower-case.
    pub method: &'static str,
    /// With `{name}` for a parameter.
    pub path: &'static str,
    /// Whom it answers. The handler's extractors see to it; the tests hold them to this.
    pub audience: Audience,
}

/// Makes `TABLE` and the router from one list.
macro_rules! pages {
    ($($method:ident $path:literal $audience:ident => $handler:path;)*) => {
        /// Every page there is.
        pub const TABLE: &[Line] = &[$(Line {
            method: stringify!($method),
            path: $path,
            audience: Audience::$audience,
        }),*];

        fn table() -> Router<Pages> {
            Router::new()$(.route($path, routing::$method($handler)))*
        }
    };
}

pages! {
    get "/" Everybody => login::home;
    get "/login" Everybody => login::nobody;
    get "/login/{token}" Link => login::offer;
    post "/login/{token}" Link => login::enter;
    post "/logout" Person => login::leave;
    get "/connections" Person => connections::list;
    post "/connections/connect" Person => connections::connect;
    get "/connections/{id}" Person => connections::one;
    post "/connections/{id}/delegations" Person => connections::delegate;
    post "/connections/{id}/reconnect" Person => connections::reconnect;
    get "/connections/{id}/disconnect" Person => connections::ask_disconnect;
    post "/connections/{id}/disconnect" Person => connections::disconnect;
    get "/connections/{id}/disconnected" Person => connections::disconnected;
    get "/connect/{token}" Link => connect::landing;
    post "/connect/{token}" Link => connect::go;
    get "/connect/{token}/continue" Link => connect::onward;
    get "/connect/{token}/confirm" Link => connect::ask_confirm;
    post "/connect/{token}/confirm" Link => connect::confirm;
    post "/connect/{token}/cancel" Link => connect::cancel;
    get "/callback/{connector}" Provider => callback::receive;
    // The callback spends `state`, so HEAD must not run it.
    head "/callback/{connector}" Provider => callback::refuse;
    get "/activity" Person => activity::list;
    get "/activity/{id}" Person => activity::one;
    get "/admin/people" Admin => admin::people;
    post "/admin/people/{id}/login-link" Admin => admin::login_link;
    get "/admin/agents" Admin => admin::agents;
    get "/admin/revoke" Admin => revoke::choose;
    post "/admin/revoke" Admin => revoke::run;
    post "/admin/revoke/preview" Admin => revoke::preview;
    get "/admin/revocations/{id}" Admin => revoke::receipt;
    get "/assets/postern.css" Everybody => asset::stylesheet;
    get "/assets/postern.svg" Everybody => asset::icon;
}

/// Every page, its state applied. Give [`nothing`] to the whole router as its fallback.
pub fn routes(deps: Arc<Deps>, site: Site) -> Router {
    let pages = Pages {
        deps,
        site: Arc::new(site),
    };
    table()
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
