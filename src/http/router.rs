//! The one router: every route of the API and the pages, under the same headers, host check and deadlines.
//!
//! `server::serve` wraps what comes out of here in [`guard::protect`].

use std::{sync::Arc, time::Duration};

use axum::{Extension, Router, extract::DefaultBodyLimit};

use super::{
    guard, pages, routes,
    security::{self, Site},
};
use crate::flows::Deps;

/// How long handlers may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Usual ones.
    pub usual: Duration,
    /// Those that ask a provider: a refresh, a call and one resend, each within the egress limit.
    pub upstream: Duration,
    /// Long polls and drains.
    pub waiting: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            usual: Duration::from_secs(15),
            upstream: Duration::from_secs(120),
            waiting: Duration::from_secs(60),
        }
    }
}

/// The application: API and pages.
pub fn app(deps: Arc<Deps>, site: Site) -> Router {
    app_within(deps, site, &Options::default())
}

/// The application, with deadlines of its own.
pub fn app_within(deps: Arc<Deps>, site: Site, options: &Options) -> Router {
    let app = api(options)
        .with_state(Arc::clone(&deps))
        .merge(guard::deadline(
            pages::routes(deps, site.clone()),
            options.upstream,
        ))
        .fallback(pages::nothing)
        .method_not_allowed_fallback(pages::nothing)
        .layer(Extension(Arc::new(site.clone())));
    security::require_host(security::with_headers(app, &site), site)
}

fn api(options: &Options) -> Router<Arc<Deps>> {
    let usual = Router::new()
        .merge(routes::agents::routes())
        .merge(routes::apply::routes().layer(DefaultBodyLimit::max(APPLY_BYTES)))
        .merge(routes::audit::routes())
        .merge(routes::connectors::routes())
        .merge(routes::delegations::routes())
        .merge(routes::discovery::routes())
        .merge(routes::engines::routes())
        .merge(routes::keys::routes())
        .merge(routes::org::routes())
        .merge(routes::policies::routes())
        .merge(routes::problems::routes())
        .merge(routes::users::routes());
    let upstream = Router::new()
        .merge(routes::actions::routes())
        .merge(routes::vend::routes());
    let waiting = Router::new()
        .merge(routes::connect_sessions::routes())
        .merge(routes::grants::routes())
        .merge(routes::revocations::routes());
    #[cfg(feature = "bench")]
    let upstream = upstream.merge(routes::bench::routes());
    guard::deadline(usual, options.usual)
        .merge(guard::deadline(upstream, options.upstream))
        .merge(guard::deadline(waiting, options.waiting))
}

/// A document with its policy files inside.
const APPLY_BYTES: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::http::{openapi, routes};

    type Operation = (String, String);

    /// Routes without a table line: one page, and the probes of the other listener.
    fn beside_the_tables() -> BTreeSet<Operation> {
        ["/problems/{code}", "/healthz", "/readyz"]
            .map(|path| ("get".to_owned(), path.to_owned()))
            .into()
    }

    fn documented() -> serde_json::Value {
        serde_json::to_value(openapi::document()).unwrap()["paths"].clone()
    }

    #[test]
    fn the_document_describes_exactly_the_routes_there_are() {
        let mut routed: BTreeSet<Operation> = routes::table()
            .map(|line| (line.method.to_owned(), line.documented()))
            .collect();
        routed.extend(beside_the_tables());
        let documented: BTreeSet<Operation> = documented()
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                item.as_object()
                    .unwrap()
                    .keys()
                    .map(|method| (method.clone(), path.clone()))
            })
            .collect();
        assert_eq!(routed, documented);
    }

    #[test]
    fn every_route_file_is_mounted() {
        // Two routes for one path and method panic here, as would a malformed path.
        drop(super::api(&super::Options::default()));
    }

    #[test]
    fn a_route_demands_a_credential_in_the_document_if_it_does_in_the_table() {
        let documented = documented();
        for line in routes::table() {
            let operation = &documented[line.documented()][line.method];
            let secured = operation["security"]
                .as_array()
                .is_some_and(|list| !list.is_empty());
            assert_eq!(secured, !line.who.is_empty(), "{} {}", line.method, line.path);
        }
    }

    #[test]
    fn the_ways_to_prove_oneself_fit_the_principals_of_a_route() {
        use crate::http::caller::Who;

        let documented = documented();
        for line in routes::table() {
            let security = documented[line.documented()][line.method]["security"].to_string();
            let by_key = line.who.iter().any(|who| *who != Who::User);
            let by_session = line.who.iter().any(|who| matches!(who, Who::User | Who::Admin));
            let place = format!("{} {}", line.method, line.path);
            assert_eq!(security.contains("api_key"), by_key, "{place}");
            assert_eq!(security.contains("\"session\""), by_session, "{place}");
        }
    }

    #[test]
    fn every_route_behind_a_credential_says_how_it_refuses() {
        let documented = documented();
        for line in routes::table().filter(|line| !line.who.is_empty()) {
            let responses = &documented[line.documented()][line.method]["responses"];
            for status in ["401", "403", "503"] {
                assert!(
                    responses[status].is_object(),
                    "{} {}: {status}",
                    line.method,
                    line.path
                );
            }
        }
    }
}
