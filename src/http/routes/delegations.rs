//! `/v1/delegations`: what persons let agents do. Made only in the person's own session.

use std::{collections::BTreeSet, sync::Arc};

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, OpenApi, ToSchema};

use super::routes;
use crate::{
    domain::{
        AgentId, DelegationId, GrantId, Time, UserId, connector::Category, delegation::Delegation,
        principal::Principal,
    },
    flows::{Deps, delegate, sight},
    http::{
        Problem,
        answer::{self, Limit, Page, to_its_end},
        caller::{Caller, Person},
        extract::{PathId, StrictJson, StrictQuery, read},
        openapi::{Gone, Refused},
    },
    store::DelegationFilter,
};

/// What a person lets an agent do with a grant.
#[derive(Debug, Serialize, ToSchema)]
struct DelegationView {
    /// Its id.
    #[schema(value_type = String)]
    id: DelegationId,
    /// Whose.
    #[schema(value_type = String)]
    user: UserId,
    /// For which agent.
    #[schema(value_type = String)]
    agent: AgentId,
    /// Over which grant.
    #[schema(value_type = String)]
    grant: GrantId,
    /// `read`, `write`, `destructive`, `admin`.
    #[schema(value_type = Vec<String>)]
    categories: BTreeSet<Category>,
    /// Only these tools; empty: all of the categories.
    tools: BTreeSet<String>,
    /// Whether a raw token may be released.
    raw: bool,
    /// When it ends by itself.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Time>,
    /// When it was ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    ended_at: Option<Time>,
}

impl From<Delegation> for DelegationView {
    fn from(delegation: Delegation) -> Self {
        Self {
            id: delegation.id,
            user: delegation.user,
            agent: delegation.agent,
            grant: delegation.grant,
            categories: delegation.categories,
            tools: delegation.tools,
            raw: delegation.raw,
            expires_at: delegation.expires_at,
            ended_at: delegation.ended_at,
        }
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct Query {
    /// At most so many; 100 unless said.
    #[param(value_type = Option<u64>)]
    limit: Limit,
    /// The `next` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<DelegationId>,
    /// Only this person's.
    #[param(value_type = Option<String>)]
    user: Option<UserId>,
    /// Only for this agent.
    #[param(value_type = Option<String>)]
    agent: Option<AgentId>,
    /// Only over this grant.
    #[param(value_type = Option<String>)]
    grant: Option<GrantId>,
}

/// Lists delegations: a person's own, an agent's own, an admin's all.
#[utoipa::path(
    get, path = "/v1/delegations", tag = "govern", operation_id = "list_delegations",
    params(Query), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "In the order of their ids.", body = Page<DelegationView>), Refused),
)]
async fn list(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    StrictQuery(query): StrictQuery<Query>,
) -> Result<Response, Problem> {
    let filter = DelegationFilter {
        user: query.user,
        agent: query.agent,
        grant: query.grant,
        after: query.after,
        limit: query.limit.rows(),
    };
    let found = sight::delegations(&deps, &who, filter).await?;
    query.limit.answer(
        found,
        |delegation| delegation.id.to_string(),
        DelegationView::from,
    )
}

/// Shows one delegation.
#[utoipa::path(
    get, path = "/v1/delegations/{id}", tag = "govern", operation_id = "show_delegation",
    params(("id" = String, Path, description = "`dlg_…`")), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "The delegation.", body = DelegationView), Refused),
)]
async fn show(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    PathId(id): PathId<DelegationId>,
) -> Result<Response, Problem> {
    answer::ok(&DelegationView::from(sight::delegation(&deps, &who, id).await?))
}

/// What to allow.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DelegationRequest {
    /// To which agent.
    agent: String,
    /// With which grant of the person's own.
    grant: String,
    /// `read`, `write`, `destructive`, `admin`.
    categories: BTreeSet<String>,
    /// Only these tools of those categories; empty: all of them.
    #[serde(default)]
    tools: BTreeSet<String>,
    /// Whether a raw token may be released.
    #[serde(default)]
    raw: bool,
    /// When it ends by itself.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<String>,
}

impl DelegationRequest {
    fn ask(self) -> Result<delegate::Ask, Problem> {
        let categories = self.categories.iter().map(|name| read("/categories", name));
        let expires_at = self.expires_at.map(|text| {
            Time::parse_rfc3339(&text).ok_or_else(|| Problem::invalid("/expires_at", "an RFC 3339 time"))
        });
        Ok(delegate::Ask {
            agent: read("/agent", &self.agent)?,
            grant: read("/grant", &self.grant)?,
            categories: categories.collect::<Result<_, _>>()?,
            tools: self.tools,
            raw: self.raw,
            expires_at: expires_at.transpose()?,
        })
    }
}

/// Lets an agent act with a grant, in the person's own session; an earlier delegation for both ends with it.
#[utoipa::path(
    post, path = "/v1/delegations", tag = "govern", operation_id = "create_delegation",
    request_body = DelegationRequest, security(("session" = [])),
    responses((status = 201, description = "The delegation.", body = DelegationView), Refused, Gone),
)]
async fn create(
    State(deps): State<Arc<Deps>>,
    Person { org, user, .. }: Person,
    StrictJson(request): StrictJson<DelegationRequest>,
) -> Result<Response, Problem> {
    let ask = request.ask()?;
    let made = to_its_end(async move { delegate::make(&deps, org, user, ask).await }).await?;
    answer::created(&DelegationView::from(made))
}

/// Ends a delegation; its person or an admin may.
#[utoipa::path(
    delete, path = "/v1/delegations/{id}", tag = "govern", operation_id = "end_delegation",
    params(("id" = String, Path, description = "`dlg_…`")), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "The delegation, ended.", body = DelegationView), Refused),
)]
async fn end(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    PathId(id): PathId<DelegationId>,
) -> Result<Response, Problem> {
    let (org, by) = (who.org(), sight::id_of(&who));
    let owner = match who {
        _ if sight::is_admin(&who) => None,
        Principal::User { user, .. } => Some(user),
        _ => return Err(Problem::not_found()),
    };
    let ended = to_its_end(async move { delegate::end(&deps, org, id, owner, by).await }).await?;
    answer::ok(&DelegationView::from(ended))
}

#[derive(OpenApi)]
#[openapi(
    paths(list, show, create, end),
    components(schemas(DelegationView, DelegationRequest, Page<DelegationView>))
)]
pub(in crate::http) struct Api;

routes! {
    get "/v1/delegations" [Admin User Agent] => list;
    post "/v1/delegations" [User] => create;
    get "/v1/delegations/{id}" [Admin User Agent] => show;
    delete "/v1/delegations/{id}" [Admin User] => end;
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::http::Code;

    fn ask(member: &str, value: Value) -> Result<delegate::Ask, Problem> {
        let mut body = json!({
            "agent": "agt_00000000000000000000000001", "grant": "grt_00000000000000000000000001",
            "categories": ["read", "write"]
        });
        body[member] = value;
        serde_json::from_value::<DelegationRequest>(body).unwrap().ask()
    }

    #[test]
    fn a_delegation_is_read_with_careful_defaults() {
        let ask = ask("expires_at", json!("2030-01-01T00:00:00Z")).unwrap();
        assert_eq!(ask.categories, BTreeSet::from([Category::Read, Category::Write]));
        assert!(ask.tools.is_empty() && !ask.raw);
        assert_eq!(ask.expires_at, Time::parse_rfc3339("2030-01-01T00:00:00Z"));
    }

    #[test]
    fn members_of_another_form_are_refused() {
        for (member, value) in [
            ("categories", json!(["everything"])),
            ("expires_at", json!("tomorrow")),
            ("agent", json!("usr_00000000000000000000000001")),
            ("grant", json!("x")),
        ] {
            let code = ask(member, value).unwrap_err().code();
            assert_eq!(code, Code::InvalidRequest, "{member}");
        }
    }
}
