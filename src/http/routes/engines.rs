//! `/v1/engines`: policy engines whose signed decisions count here.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::{OpenApi, ToSchema};

use super::routes;
use crate::{
    domain::{EngineId, Time},
    flows::{Deps, engines, sight},
    http::{
        Problem,
        answer::{self, Listing, Page, to_its_end},
        caller::Admin,
        extract::{PathId, StrictQuery},
        openapi::Refused,
    },
    store::EngineRow,
};

/// A registered policy engine.
#[derive(Debug, Serialize, ToSchema)]
struct EngineView {
    /// Its id.
    #[schema(value_type = String)]
    id: EngineId,
    /// What people call it.
    name: String,
    /// The `iss` of its decisions.
    iss: String,
    /// The one algorithm its key is pinned to.
    alg: String,
    /// The name of its key.
    kid: String,
    /// Its public key (RFC 7517).
    #[schema(value_type = Object)]
    public_key_jwk: Value,
    /// The connectors it may decide about.
    connectors: Vec<String>,
    /// The tools it may decide about; `*` stands for every tool.
    tools: Vec<String>,
    /// `active` or `disabled`.
    state: &'static str,
    /// When it was registered.
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    /// When it was disabled.
    #[schema(value_type = Option<String>, format = DateTime)]
    disabled_at: Option<Time>,
}

impl From<EngineRow> for EngineView {
    fn from(engine: EngineRow) -> Self {
        Self {
            id: engine.id,
            name: engine.name,
            iss: engine.iss,
            alg: engine.alg,
            kid: engine.kid,
            public_key_jwk: engine.public_jwk,
            connectors: engine.connectors,
            tools: engine.tools,
            state: if engine.disabled_at.is_some() {
                "disabled"
            } else {
                "active"
            },
            created_at: engine.created_at,
            disabled_at: engine.disabled_at,
        }
    }
}

/// Lists engines.
#[utoipa::path(
    get, path = "/v1/engines", tag = "govern", operation_id = "list_engines",
    params(Listing<EngineId>), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "In the order of their ids.", body = Page<EngineView>), Refused),
)]
async fn list(
    State(deps): State<Arc<Deps>>,
    Admin { org, .. }: Admin,
    StrictQuery(page): StrictQuery<Listing<EngineId>>,
) -> Result<Response, Problem> {
    let engines = sight::engines(&deps, org, page.after, page.limit.rows()).await?;
    page.limit
        .answer(engines, |engine| engine.id.to_string(), EngineView::from)
}

/// Shows one engine.
#[utoipa::path(
    get, path = "/v1/engines/{id}", tag = "govern", operation_id = "show_engine",
    params(("id" = String, Path, description = "`eng_…`")), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "The engine.", body = EngineView), Refused),
)]
async fn show(
    State(deps): State<Arc<Deps>>,
    Admin { org, .. }: Admin,
    PathId(id): PathId<EngineId>,
) -> Result<Response, Problem> {
    answer::ok(&EngineView::from(sight::engine(&deps, org, id).await?))
}

/// Disables an engine: its decisions are refused at once. `apply` with its table registers it again.
#[utoipa::path(
    delete, path = "/v1/engines/{id}", tag = "govern", operation_id = "disable_engine",
    params(("id" = String, Path, description = "`eng_…`")), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "The engine, disabled.", body = EngineView), Refused),
)]
async fn disable(
    State(deps): State<Arc<Deps>>,
    Admin { org, by }: Admin,
    PathId(id): PathId<EngineId>,
) -> Result<Response, Problem> {
    let disabled = to_its_end(async move { engines::disable(&deps, org, id, by).await }).await?;
    answer::ok(&EngineView::from(disabled))
}

#[derive(OpenApi)]
#[openapi(paths(list, show, disable), components(schemas(EngineView, Page<EngineView>)))]
pub(in crate::http) struct Api;

routes! {
    get "/v1/engines" [Admin] => list;
    get "/v1/engines/{id}" [Admin] => show;
    delete "/v1/engines/{id}" [Admin] => disable;
}
