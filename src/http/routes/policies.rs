//! `/v1/policies`: the versions of the org's Cedar policies; the last one is in force.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::routes;
use crate::{
    flows::{Deps, sight},
    http::{
        Problem,
        answer::{self, Listing, Page},
        caller::Admin,
        extract::{PathId, StrictQuery},
        openapi::Refused,
    },
    store::{PolicyRow, PolicyText},
};

/// One version of the org's policies.
#[derive(Debug, Serialize, ToSchema)]
struct PolicyView {
    /// Counts from 1; it is the id.
    id: u64,
    /// `sha256:` and hex over the texts, as decisions and entries name it.
    digest: String,
    /// The organisation's set.
    org: Vec<PolicyFile>,
    /// The agents' set.
    agent: Vec<PolicyFile>,
}

/// One policy file.
#[derive(Debug, Serialize, ToSchema)]
struct PolicyFile {
    /// Its name.
    name: String,
    /// Its Cedar text.
    text: String,
}

impl From<PolicyRow> for PolicyView {
    fn from(row: PolicyRow) -> Self {
        let files = |texts: Vec<PolicyText>| {
            texts
                .into_iter()
                .map(|PolicyText { name, text }| PolicyFile { name, text })
                .collect()
        };
        Self {
            id: row.version,
            digest: row.digest,
            org: files(row.org),
            agent: files(row.agent),
        }
    }
}

/// Lists the versions, oldest first.
#[utoipa::path(
    get, path = "/v1/policies", tag = "govern", operation_id = "list_policies",
    params(Listing<u64>), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "Oldest first; the last one is in force.", body = Page<PolicyView>), Refused),
)]
async fn list(
    State(deps): State<Arc<Deps>>,
    Admin { org, .. }: Admin,
    StrictQuery(page): StrictQuery<Listing<u64>>,
) -> Result<Response, Problem> {
    let versions = sight::policies(&deps, org, page.after, page.limit.rows()).await?;
    page.limit
        .answer(versions, |row| row.version.to_string(), PolicyView::from)
}

/// Shows one version.
#[utoipa::path(
    get, path = "/v1/policies/{id}", tag = "govern", operation_id = "show_policies",
    params(("id" = u64, Path, description = "The version.")), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "The version.", body = PolicyView), Refused),
)]
async fn show(
    State(deps): State<Arc<Deps>>,
    Admin { org, .. }: Admin,
    PathId(version): PathId<u64>,
) -> Result<Response, Problem> {
    answer::ok(&PolicyView::from(sight::policy(&deps, org, version).await?))
}

#[derive(OpenApi)]
#[openapi(paths(list, show), components(schemas(PolicyView, PolicyFile, Page<PolicyView>)))]
pub(in crate::http) struct Api;

routes! {
    get "/v1/policies" [Admin] => list;
    get "/v1/policies/{id}" [Admin] => show;
}
