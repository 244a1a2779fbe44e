//! One file per noun; `openapi.rs` shows how such a file looks.
//!
//! A file lists its routes once, in `routes!`: method, path, the principals they are for, handler. From that line come
//! the router, the check of who is calling and what the API document says about it, so that none can drift.

use crate::http::caller::Who;

pub mod actions;
pub mod agents;
pub mod apply;
pub mod audit;
#[cfg(feature = "bench")]
pub(in crate::http) mod bench;
pub mod connect_sessions;
pub mod connectors;
pub mod delegations;
pub mod discovery;
pub mod engines;
pub mod grants;
pub mod health;
pub mod keys;
pub mod org;
pub mod policies;
pub mod problems;
pub mod revocations;
pub mod users;
pub mod vend;

/// One route as its table says it.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Lower-case.
    pub method: &'static str,
    /// With `{id}` for a parameter, `{*id}` for one that holds slashes.
    pub path: &'static str,
    /// Whom it is for; empty: everybody, unauthenticated.
    pub who: &'static [Who],
}

impl Line {
    /// The path as the document writes it: OpenAPI knows one form of parameters.
    #[must_use]
    pub fn documented(&self) -> String {
        self.path.replace("{*", "{")
    }
}

/// Makes `TABLE` and `routes()` of a file from one list.
macro_rules! routes {
    ($($method:ident $path:literal [$($who:ident)*] => $handler:ident;)*) => {
        /// The routes of this file, as the document and the tests read them.
        pub(in crate::http) const TABLE: &[$crate::http::routes::Line] = &[$($crate::http::routes::Line {
            method: stringify!($method),
            path: $path,
            who: &[$($crate::http::caller::Who::$who),*],
        }),*];

        /// The routes of this file.
        pub(in crate::http) fn routes() -> ::axum::Router<::std::sync::Arc<$crate::flows::Deps>> {
            ::axum::Router::new()$(.route(
                $path,
                ::axum::routing::$method($handler).layer(::axum::Extension($crate::http::caller::Allowed(
                    &[$($crate::http::caller::Who::$who),*],
                ))),
            ))*
        }
    };
}
pub(in crate::http) use routes;

/// Every route that is made from a table.
pub(in crate::http) fn table() -> impl Iterator<Item = &'static Line> {
    [
        actions::TABLE,
        agents::TABLE,
        apply::TABLE,
        audit::TABLE,
        connect_sessions::TABLE,
        connectors::TABLE,
        delegations::TABLE,
        discovery::TABLE,
        engines::TABLE,
        grants::TABLE,
        keys::TABLE,
        org::TABLE,
        policies::TABLE,
        revocations::TABLE,
        users::TABLE,
        vend::TABLE,
    ]
    .into_iter()
    .flatten()
}
