//! `/v1/users`: the people of an organisation, and their login links.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::routes;
use crate::{
    domain::{ServiceId, Time, UserId, principal::Role},
    flows::{Deps, login, sight},
    http::{
        Problem,
        answer::{self, Listing, Page, to_its_end},
        caller::{Admin, Caller},
        extract::{PathId, StrictQuery},
        openapi::Refused,
    },
    store::UserRow,
};

/// A person.
#[derive(Debug, Serialize, ToSchema)]
struct UserView {
    /// Their id.
    #[schema(value_type = String)]
    id: UserId,
    /// Their address; null for people of a host application.
    email: Option<String>,
    /// `member` or `admin`.
    #[schema(value_type = String)]
    role: Role,
    /// The host application that manages them; null: Postern's own login.
    #[schema(value_type = Option<String>)]
    managed_by: Option<ServiceId>,
    /// What that application calls them.
    external_id: Option<String>,
    /// When they were added.
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
}

impl From<UserRow> for UserView {
    fn from(user: UserRow) -> Self {
        Self {
            id: user.id,
            email: user.email,
            role: user.role,
            managed_by: user.managed_by,
            external_id: user.external_id,
            created_at: user.created_at,
        }
    }
}

/// Lists people: an admin sees all, a host application those it manages, a person themself.
#[utoipa::path(
    get, path = "/v1/users", tag = "govern", operation_id = "list_users",
    params(Listing<UserId>), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "In the order of their ids.", body = Page<UserView>), Refused),
)]
async fn list(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    StrictQuery(page): StrictQuery<Listing<UserId>>,
) -> Result<Response, Problem> {
    let users = sight::users(&deps, &who, page.after, page.limit.rows()).await?;
    page.limit
        .answer(users, |user| user.id.to_string(), UserView::from)
}

/// Shows one person.
#[utoipa::path(
    get, path = "/v1/users/{id}", tag = "govern", operation_id = "show_user",
    params(("id" = String, Path, description = "`usr_…`")), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "The person.", body = UserView), Refused),
)]
async fn show(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    PathId(id): PathId<UserId>,
) -> Result<Response, Problem> {
    answer::ok(&UserView::from(sight::user(&deps, &who, id).await?))
}

/// A one-time login link.
#[derive(Serialize, ToSchema)]
struct LoginLink {
    /// The link; it belongs to the person's own address.
    url: String,
    /// When it stops working.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Time,
}

/// Makes a one-time login link for a person; they see the entry.
#[utoipa::path(
    post, path = "/v1/users/{id}/login-links", tag = "govern", operation_id = "create_login_link",
    params(("id" = String, Path, description = "`usr_…`")), security(("api_key" = []), ("session" = [])),
    responses((status = 201, description = "The link.", body = LoginLink), Refused),
)]
async fn create_login_link(
    State(deps): State<Arc<Deps>>,
    Admin { org, by }: Admin,
    PathId(id): PathId<UserId>,
) -> Result<Response, Problem> {
    let link = to_its_end(async move { login::make_link(&deps, org, id, by).await }).await?;
    answer::created(&LoginLink {
        url: link.url,
        expires_at: link.expires_at,
    })
}

#[derive(OpenApi)]
#[openapi(
    paths(list, show, create_login_link),
    components(schemas(UserView, LoginLink, Page<UserView>))
)]
pub(in crate::http) struct Api;

routes! {
    get "/v1/users" [Admin User Service] => list;
    get "/v1/users/{id}" [Admin User Service] => show;
    post "/v1/users/{id}/login-links" [Admin] => create_login_link;
}
