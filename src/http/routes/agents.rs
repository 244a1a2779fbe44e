//! `/v1/agents`: who may ask.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::routes;
use crate::{
    domain::{AgentId, Time},
    flows::{Deps, sight},
    http::{
        Problem,
        answer::{self, Listing, Page},
        caller::Caller,
        extract::{PathId, StrictQuery},
        openapi::Refused,
    },
    store::AgentRow,
};

/// An agent.
#[derive(Debug, Serialize, ToSchema)]
struct AgentView {
    /// Its id.
    #[schema(value_type = String)]
    id: AgentId,
    /// What people call it.
    name: String,
    /// `active` or `disabled`.
    state: &'static str,
    /// When it was added.
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    /// When it was disabled.
    #[schema(value_type = Option<String>, format = DateTime)]
    disabled_at: Option<Time>,
}

impl From<AgentRow> for AgentView {
    fn from(agent: AgentRow) -> Self {
        Self {
            id: agent.id,
            name: agent.name,
            state: if agent.disabled_at.is_some() {
                "disabled"
            } else {
                "active"
            },
            created_at: agent.created_at,
            disabled_at: agent.disabled_at,
        }
    }
}

/// Lists agents; an agent sees itself.
#[utoipa::path(
    get, path = "/v1/agents", tag = "govern", operation_id = "list_agents",
    params(Listing<AgentId>), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "In the order of their ids.", body = Page<AgentView>), Refused),
)]
async fn list(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    StrictQuery(page): StrictQuery<Listing<AgentId>>,
) -> Result<Response, Problem> {
    let agents = sight::agents(&deps, &who, page.after, page.limit.rows()).await?;
    page.limit
        .answer(agents, |agent| agent.id.to_string(), AgentView::from)
}

/// Shows one agent.
#[utoipa::path(
    get, path = "/v1/agents/{id}", tag = "govern", operation_id = "show_agent",
    params(("id" = String, Path, description = "`agt_…`")), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "The agent.", body = AgentView), Refused),
)]
async fn show(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    PathId(id): PathId<AgentId>,
) -> Result<Response, Problem> {
    answer::ok(&AgentView::from(sight::agent(&deps, &who, id).await?))
}

#[derive(OpenApi)]
#[openapi(paths(list, show), components(schemas(AgentView, Page<AgentView>)))]
pub(in crate::http) struct Api;

routes! {
    get "/v1/agents" [Admin User Agent] => list;
    get "/v1/agents/{id}" [Admin User Agent] => show;
}
