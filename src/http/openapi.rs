//! The OpenAPI document, generated from the handlers. `/openapi.json` serves it; a snapshot in the tests guards it.
//!
//! # How a route file looks (utoipa 6, axum 0.8)
//!
//! One file per noun under `http/routes/`, with three things in it:
//!
//! 1. Wire types derive `ToSchema` beside serde's derives. Our ids, times and modes do not implement it (the ground
//!    floor knows no utoipa): say `#[schema(value_type = String, example = "grt_…")]` on such fields. Query structs
//!    derive `IntoParams` with `#[into_params(parameter_in = Query)]`; a list that filters nothing takes
//!    `answer::Listing<Id>`. Every list answers through `answer::Limit`.
//! 2. Handlers carry `#[utoipa::path(…)]`. Without utoipa's `axum_extras` nothing is inferred from extractors, so the
//!    verb, `path` (in axum's own `{id}` form), `tag`, `params`, `request_body`, `responses` and `security` are written
//!    out. Refusals all say `body = Body, content_type = "application/problem+json"`; list those that can occur.
//! 3. `routes!` lists method, path, principals and handler once; it makes the file's `TABLE` and `routes()`. `Api`
//!    collects the same handlers for the document:
//!
//! ```text
//! #[utoipa::path(
//!     get, path = "/v1/grants/{id}", tag = "grants", operation_id = "show_grant",
//!     params(("id" = String, Path, description = "`grt_…`")), security(("api_key" = []), ("session" = [])),
//!     responses((status = 200, description = "The grant.", body = GrantView), Refused),
//! )]
//! async fn show(State(deps): State<Arc<Deps>>, Caller(who): Caller, PathId(id): PathId<GrantId>)
//!     -> Result<Response, Problem> { … }
//!
//! #[derive(OpenApi)]
//! #[openapi(paths(show), components(schemas(GrantView)))]
//! pub(in crate::http) struct Api;
//!
//! routes! { get "/v1/grants/{id}" [Admin User Service Agent] => show; }
//! ```
//!
//! Then four lines: the module and its `TABLE` in `routes/mod.rs`, `routes()` in the router, `Api::openapi()` in
//! [`document`]; the tests fail on a route that is in one and not in the other. Handlers may stay private to their file.
//! `Refused`, `Gone` and `VendRefused` stand for the problems a route can answer; every route but GET has its `504` by
//! itself. Long polls and drains go into the router's group with a deadline of its own.

use std::collections::BTreeMap;

use utoipa::{
    IntoResponses, Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    openapi::{
        ContentBuilder, Ref, RefOr, Response, ResponseBuilder, extensions::ExtensionsBuilder, path::Operation,
    },
};

use super::{
    cookie,
    problem::{AccountChoice, ApprovalLink, Body, ConnectLink, FieldError, Members, PROBLEM_JSON},
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
        (name = "govern", description = "Agents, users, keys, connectors, engines, policies, delegations."),
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
    for part in [
        routes::actions::Api::openapi(),
        routes::vend::Api::openapi(),
        routes::connect_sessions::Api::openapi(),
        routes::grants::Api::openapi(),
        routes::delegations::Api::openapi(),
        routes::revocations::Api::openapi(),
        routes::audit::Api::openapi(),
        routes::agents::Api::openapi(),
        routes::users::Api::openapi(),
        routes::connectors::Api::openapi(),
        routes::engines::Api::openapi(),
        routes::keys::Api::openapi(),
        routes::org::Api::openapi(),
        routes::policies::Api::openapi(),
        routes::apply::Api::openapi(),
        routes::discovery::Api::openapi(),
        routes::health::Api::openapi(),
        routes::problems::Api::openapi(),
    ] {
        document.merge(part);
    }
    name_principals(&mut document);
    name_unfinished(&mut document);
    document
}

/// Says of every route but GET that nobody may hear how it ended.
fn name_unfinished(document: &mut utoipa::openapi::OpenApi) {
    for line in routes::table().filter(|line| line.method != "get") {
        if let Some(operation) = operation(document, line) {
            let responses = &mut operation.responses.responses;
            for (status, response) in Unfinished::responses() {
                responses.entry(status).or_insert(response);
            }
        }
    }
}

/// Says of every route which principals it is for, from the same line that holds callers to it.
fn name_principals(document: &mut utoipa::openapi::OpenApi) {
    for line in routes::table() {
        let names: Vec<&str> = line.who.iter().map(|who| who.as_str()).collect();
        if let Some(operation) = operation(document, line) {
            operation.extensions = Some(ExtensionsBuilder::new().add(PRINCIPALS, names).build());
        }
    }
}

fn operation<'d>(
    document: &'d mut utoipa::openapi::OpenApi,
    line: &routes::Line,
) -> Option<&'d mut Operation> {
    let item = document.paths.paths.get_mut(&line.documented())?;
    match line.method {
        "get" => item.get.as_mut(),
        "post" => item.post.as_mut(),
        "delete" => item.delete.as_mut(),
        _ => None,
    }
}

/// The extension that names a route's principals: `admin`, `user`, `service`, `agent`.
const PRINCIPALS: &str = "x-principals";

type Responses = BTreeMap<String, RefOr<Response>>;

/// The refusals every route with a credential may answer.
pub(in crate::http) struct Refused;

impl IntoResponses for Refused {
    fn responses() -> Responses {
        problems(&[
            ("400", "The request is not of the agreed form."),
            ("401", "No valid credential."),
            ("403", "Not for this principal, or not from a page of ours."),
            ("404", "Nothing there that this caller may see."),
            (
                "503",
                "The store, a key or a provider is unavailable; nothing was released.",
            ),
        ])
    }
}

/// The refusal of what may have been done all the same.
struct Unfinished;

impl IntoResponses for Unfinished {
    fn responses() -> Responses {
        problems(&[(
            "504",
            "Not finished in time, not confirmed, or stopped by a fault; the outcome is not known.",
        )])
    }
}

/// The refusals of routes that work on one grant.
pub(in crate::http) struct Gone;

impl IntoResponses for Gone {
    fn responses() -> Responses {
        problems(&[("410", "The grant has been revoked.")])
    }
}

/// The refusals of vend, decisions and actions (protocol §6).
pub(in crate::http) struct VendRefused;

impl IntoResponses for VendRefused {
    fn responses() -> Responses {
        let mut responses = Refused::responses();
        responses.extend(problems(&[
            ("403", "Denied, or the decision brought along does not hold."),
            ("409", "Something is needed first: `code` says what."),
            ("410", "The grant has been revoked."),
            ("422", "Not by this mode."),
            ("429", "Too many requests, or a budget is used up."),
            ("504", "Sent, or stopped half-way; the outcome is not known."),
        ]));
        responses
    }
}

fn problems(list: &[(&str, &str)]) -> Responses {
    list.iter()
        .map(|(status, description)| {
            let content = ContentBuilder::new()
                .schema(Some(Ref::from_schema_name("Problem")))
                .build();
            let response = ResponseBuilder::new()
                .description(*description)
                .content(PROBLEM_JSON, content)
                .build();
            ((*status).to_owned(), RefOr::T(response))
        })
        .collect()
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
    fn the_document_is_the_one_reviewed() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
        let now = document().to_pretty_json().unwrap() + "\n";
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(path, &now).unwrap();
        }
        let reviewed = std::fs::read_to_string(path).unwrap();
        assert!(
            now == reviewed,
            "docs/openapi.json is not what the code says: run this test with UPDATE_SNAPSHOTS=1 and review the change"
        );
    }

    #[test]
    fn every_route_of_a_table_names_its_principals() {
        let document = json();
        for line in routes::table() {
            let names = &document["paths"][line.documented()][line.method]["x-principals"];
            let expected: Vec<&str> = line.who.iter().map(|who| who.as_str()).collect();
            assert_eq!(
                *names,
                serde_json::json!(expected),
                "{} {}",
                line.method,
                line.path
            );
        }
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
