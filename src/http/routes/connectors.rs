//! `/v1/connectors`: the apps of this deployment, their tools and what they need.

use std::{collections::BTreeMap, sync::Arc};

use axum::{extract::State, response::Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{OpenApi, ToSchema};

use super::routes;
use crate::{
    domain::{
        ScopeSet,
        connector::{
            ActionDefinition, ArgSpec, Category, ClientType, Connector, ConnectorId, Evidence, HTTP_REQUEST,
            ScopeInfo,
        },
    },
    flows::{Deps, sight},
    http::{
        Problem,
        answer::{self, Listing, Page},
        caller::Caller,
        extract::{PathId, StrictQuery},
        openapi::Refused,
    },
};

/// A connector: one third-party app.
#[derive(Debug, Serialize, ToSchema)]
struct ConnectorView {
    /// Its id.
    #[schema(value_type = String)]
    id: ConnectorId,
    /// What people read.
    name: String,
    /// Whether the org has a client there, so that people can connect it.
    configured: bool,
    /// Whether it is configured without the client secret its authorization server demands.
    secret_missing: bool,
    /// What the definition's claims rest on: `documented`, `emulator-verified` or `live-verified`.
    #[schema(value_type = String)]
    evidence: Evidence,
    /// The day the definition was compared with the provider's documentation.
    verified_on: String,
    /// The provider's page on its OAuth.
    docs_url: Option<String>,
    /// Where people see and end connected apps at the provider.
    manage_url: Option<String>,
    /// Its scopes in plain words.
    #[schema(value_type = Vec<Object>)]
    scopes: Vec<ScopeInfo>,
    /// Its tools.
    tools: Vec<ToolView>,
}

/// One tool of a connector.
#[derive(Debug, Serialize, ToSchema)]
struct ToolView {
    /// Its name.
    name: String,
    /// What people read.
    title: String,
    /// `read`, `write`, `destructive` or `admin`; null for `http.request`.
    #[schema(value_type = Option<String>)]
    category: Option<Category>,
    /// The scopes one call needs.
    #[schema(value_type = Vec<String>)]
    scopes: ScopeSet,
    /// Its arguments by name; no others are accepted.
    #[schema(value_type = Object)]
    args: Value,
}

impl ConnectorView {
    fn new(connector: &Connector, client: Option<ClientType>) -> Self {
        let mut tools: Vec<ToolView> = connector.actions.iter().map(ToolView::from).collect();
        if connector.api.origin.is_some() {
            tools.push(ToolView::http_request());
        }
        Self {
            id: connector.id.clone(),
            name: connector.name.clone(),
            configured: client.is_some(),
            secret_missing: client.is_some_and(|client| connector.client.turn_away(client)),
            evidence: connector.status,
            verified_on: connector.verified_on.clone(),
            docs_url: connector.docs_url.clone(),
            manage_url: connector.manage_url.clone(),
            scopes: connector.scopes.clone(),
            tools,
        }
    }
}

impl From<&ActionDefinition> for ToolView {
    fn from(action: &ActionDefinition) -> Self {
        Self {
            name: action.name.clone(),
            title: action.title.clone(),
            category: Some(action.category),
            scopes: action.scopes.clone(),
            args: args(&action.args),
        }
    }
}

impl ToolView {
    /// Protocol §3: callers never supply headers, hosts or origins.
    fn http_request() -> Self {
        Self {
            name: HTTP_REQUEST.to_owned(),
            title: "One request to the connector's own API".to_owned(),
            category: None,
            scopes: ScopeSet::default(),
            args: json!({
                "method": {"type": "string", "required": true},
                "path": {"type": "string", "required": true},
                "query": {"type": "array", "required": false, "items": {"type": "array", "items": {"type": "string"}}},
                "content_type": {"type": "string", "required": false},
                "body": {"type": "string", "required": false},
                "body_b64": {"type": "string", "required": false},
            }),
        }
    }
}

fn args(specs: &BTreeMap<String, ArgSpec>) -> Value {
    serde_json::to_value(specs).unwrap_or_else(|_| json!({}))
}

/// Lists connectors.
#[utoipa::path(
    get, path = "/v1/connectors", tag = "govern", operation_id = "list_connectors",
    params(Listing<ConnectorId>), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "In the order of their ids.", body = Page<ConnectorView>), Refused),
)]
async fn list(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    StrictQuery(page): StrictQuery<Listing<ConnectorId>>,
) -> Result<Response, Problem> {
    let configured = sight::configured(&deps, who.org()).await?;
    let most = usize::try_from(page.limit.rows()).unwrap_or(usize::MAX);
    let found = deps
        .catalogue
        .iter()
        .filter(|connector| page.after.as_ref().is_none_or(|after| connector.id > *after))
        .take(most)
        .collect();
    page.limit.answer(
        found,
        |connector| connector.id.to_string(),
        |connector| ConnectorView::new(connector, configured.get(&connector.id).copied()),
    )
}

/// Shows one connector.
#[utoipa::path(
    get, path = "/v1/connectors/{id}", tag = "govern", operation_id = "show_connector",
    params(("id" = String, Path, description = "As `acme-mail`.")), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "The connector.", body = ConnectorView), Refused),
)]
async fn show(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    PathId(id): PathId<ConnectorId>,
) -> Result<Response, Problem> {
    let connector = deps.catalogue.get(&id).ok_or_else(Problem::not_found)?;
    let configured = sight::configured(&deps, who.org()).await?;
    answer::ok(&ConnectorView::new(connector, configured.get(&id).copied()))
}

#[derive(OpenApi)]
#[openapi(paths(list, show), components(schemas(ConnectorView, ToolView, Page<ConnectorView>)))]
pub(in crate::http) struct Api;

routes! {
    get "/v1/connectors" [Admin User Service Agent] => list;
    get "/v1/connectors/{id}" [Admin User Service Agent] => show;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::{Catalogue, Options};

    fn view(id: &str) -> Value {
        view_for(id, ClientType::Confidential)
    }

    fn view_for(id: &str, client: ClientType) -> Value {
        let catalogue = Catalogue::load(&Options {
            acme_mail_origin: Some("http://127.0.0.1:9999"),
            ..Options::default()
        })
        .unwrap();
        let connector = catalogue.get(&id.parse().unwrap()).unwrap();
        serde_json::to_value(ConnectorView::new(connector, Some(client))).unwrap()
    }

    #[test]
    fn tools_are_shown_with_category_scopes_and_arguments() {
        let view = view("acme-mail");
        let tools = view["tools"].as_array().unwrap();
        let send = tools.iter().find(|tool| tool["name"] == "messages.send").unwrap();
        assert_eq!(send["category"], "write");
        assert_eq!(send["scopes"], json!(["mail.send"]));
        assert_eq!(send["args"]["to"]["items"]["format"], "email");
    }

    #[test]
    fn the_generic_tool_has_no_category() {
        let view = view("acme-mail");
        let tools = view["tools"].as_array().unwrap();
        let generic = tools.iter().find(|tool| tool["name"] == HTTP_REQUEST).unwrap();
        assert_eq!(generic["category"], Value::Null);
    }

    #[test]
    fn a_secret_is_missing_where_nothing_stands_in_for_it() {
        for (id, client, missing) in [
            ("github", ClientType::Public, true),
            ("github", ClientType::Confidential, false),
            ("acme-mail", ClientType::Public, false),
        ] {
            assert_eq!(view_for(id, client)["secret_missing"], missing, "{id} {client:?}");
        }
    }
}
