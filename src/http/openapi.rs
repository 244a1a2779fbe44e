//! The OpenAPI document, generated from the handlers. `/openapi.json` serves it; a snapshot in the tests guards it.
//!
//! # How a route file looks (utoipa 6, axum 0.8)
//!
//! One file per noun under `http/routes/`, with three things in it:
//!
//! 1. Wire types derive `ToSchema` beside serde's derives. Our ids, times and modes do not implement it (the ground
//!    floor knows no utoipa): say `#[schema(value_type = String, example = "grt_…")]` on such fields. Query structs
//!    derive `IntoParams` with `#[into_params(parameter_in = Query)]`.
//! 2. Handlers carry `#[utoipa::path(…)]`. Without utoipa's `axum_extras` nothing is inferred from extractors, so the
//!    verb, `path` (in axum's own `{id}` form), `tag`, `params`, `request_body`, `responses` and `security` are written
//!    out. Refusals all say `body = Body, content_type = "application/problem+json"`; list those that can occur.
//! 3. `routes()` returns the axum router of the file, and `Api` collects the same handlers for the document:
//!
//! ```text
//! #[utoipa::path(
//!     get, path = "/v1/grants/{id}", tag = "grants",
//!     params(("id" = String, Path, description = "`grt_…`")),
//!     security(("api_key" = []), ("session" = [])),
//!     responses(
//!         (status = 200, description = "The grant.", body = GrantView),
//!         (status = 401, description = "No valid credential.", body = Body, content_type = "application/problem+json"),
//!         (status = 404, description = "Not found.", body = Body, content_type = "application/problem+json"),
//!     ),
//! )]
//! async fn show(State(deps): State<Deps>, caller: Caller, PathId(id): PathId<GrantId>) -> Result<Json, Problem> { … }
//!
//! #[derive(OpenApi)]
//! #[openapi(paths(show), components(schemas(GrantView)))]
//! pub(in crate::http) struct Api;
//!
//! pub(in crate::http) fn routes() -> Router<Deps> { Router::new().route("/v1/grants/{id}", get(show)) }
//! ```
//!
//! Then two lines: merge `routes()` in the router, and merge `Api::openapi()` in [`document`]. Handlers named in
//! `paths(…)` may stay private to their file. Long polls and drains go through `guard::deadline` with a time of their own.

use utoipa::{
    Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{
    cookie,
    problem::{AccountChoice, ApprovalLink, Body, ConnectLink, FieldError, Members},
    routes,
};

/// The name of the scheme "API key as bearer" in `security(…)`.
pub const API_KEY: &str = "api_key";
/// The name of the scheme "browser session" in `security(…)`.
pub const SESSION: &str = "session";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Postern",
        description = "Lets an AI agent act in a person's apps only against a signed allow decision for the exact action.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "actions", description = "What an agent wants to do: actions, decisions, vend."),
        (name = "connect", description = "How a person connects an app."),
        (name = "grants", description = "What people have connected."),
        (name = "approvals", description = "A human's yes to one action."),
        (name = "revocations", description = "Ending grants in one action."),
        (name = "audit", description = "Who did what as whom, verifiably."),
        (name = "govern", description = "Agents, users, connectors, engines, policies, delegations."),
        (name = "discovery", description = "Keys and metadata for other programs."),
        (name = "operations", description = "Health of this replica and what its answers mean."),
    ),
    components(schemas(Body, Members, ApprovalLink, ConnectLink, AccountChoice, FieldError)),
    modifiers(&SecuritySchemes),
)]
struct Base;

struct SecuritySchemes;

impl Modify for SecuritySchemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(
            API_KEY,
            SecurityScheme::Http(
                HttpBuilder::new()
                    .scheme(HttpAuthScheme::Bearer)
                    .bearer_format("psa_… | pss_… | psd_…")
                    .description(Some(
                        "An API key of an agent, a host application or an administrator.",
                    ))
                    .build(),
            ),
        );
        components.add_security_scheme(
            SESSION,
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(
                cookie::SESSION.name(true),
                "A person's browser session.".to_owned(),
            ))),
        );
    }
}

/// The document of everything this build serves.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = Base::openapi();
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    for part in [routes::health::Api::openapi(), routes::problems::Api::openapi()] {
        document.merge(part);
    }
    document
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn json() -> Value {
        serde_json::from_str(&document().to_json().unwrap()).unwrap()
    }

    #[test]
    fn the_document_serialises_with_its_own_version() {
        let document = json();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    }

    #[test]
    fn both_ways_to_prove_oneself_are_described() {
        let schemes = &json()["components"]["securitySchemes"];
        assert_eq!(schemes["api_key"]["scheme"], "bearer");
        assert_eq!(schemes["session"]["name"], "__Host-postern_session");
    }

    #[test]
    fn the_problem_schema_names_its_members() {
        let document = json();
        let text = document["components"]["schemas"]["Problem"].to_string();
        assert!(
            text.contains("\"code\"") && text.contains("ProblemMembers"),
            "{text}"
        );
        assert!(
            document["components"]["schemas"]["ProblemMembers"]["properties"]["decision_error"].is_object()
        );
    }

    #[test]
    fn every_reference_resolves() {
        let document = json();
        let mut references = Vec::new();
        collect(&document, &mut references);
        assert!(!references.is_empty());
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn every_path_has_a_known_tag() {
        let document = json();
        let tags: Vec<&str> = document["tags"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tag| tag["name"].as_str().unwrap())
            .collect();
        for (path, item) in document["paths"].as_object().unwrap() {
            for operation in item.as_object().unwrap().values() {
                let tag = operation["tags"][0].as_str().unwrap();
                assert!(tags.contains(&tag), "{path}: {tag}");
            }
        }
    }

    fn collect(value: &Value, references: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    match (name.as_str(), member) {
                        ("$ref", Value::String(reference)) => references.push(reference.clone()),
                        _ => collect(member, references),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
            _ => {}
        }
    }
}
