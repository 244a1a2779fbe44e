//! `/v1/apply`: brings the org in line with one TOML document; shows the plan first if asked.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};

use super::routes;
use crate::{
    crypto::lookup::show_api_key,
    flows::{Deps, apply},
    http::{
        Problem,
        answer::{self, to_its_end},
        caller::Admin,
        extract::StrictJson,
        openapi::Refused,
    },
};

/// What the org should be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ApplyRequest {
    /// The document.
    toml: String,
    /// Only show the plan.
    #[serde(default)]
    dry_run: bool,
}

/// What would be or was changed.
#[derive(Debug, Serialize, ToSchema)]
struct ApplyAnswer {
    /// Whether this is only a plan.
    dry_run: bool,
    /// One line per thing that differs; empty: nothing to change.
    changes: Vec<ChangeView>,
    /// What the document names and apply leaves as it is.
    warnings: Vec<WarningView>,
    /// Keys just minted, shown this once.
    keys: Vec<NewKeyView>,
}

/// One thing that differs.
#[derive(Debug, Serialize, ToSchema)]
struct ChangeView {
    /// `create` or `update`.
    change: &'static str,
    /// What it is.
    kind: &'static str,
    /// Which one.
    name: String,
    /// What about it.
    detail: String,
}

/// Something the document asks for that apply does not do.
#[derive(Debug, Serialize, ToSchema)]
struct WarningView {
    /// What it is.
    kind: &'static str,
    /// Which one.
    name: String,
    /// Why it stays as it is, and what to do instead.
    detail: String,
}

/// A key just minted.
#[derive(Serialize, ToSchema)]
struct NewKeyView {
    /// `agent` or `service`.
    kind: &'static str,
    /// Whose.
    name: String,
    /// Its owner's id.
    id: String,
    /// The key.
    key: String,
}

impl std::fmt::Debug for NewKeyView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKeyView")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

fn changes(changes: Vec<apply::Change>) -> Vec<ChangeView> {
    changes
        .into_iter()
        .map(|change| ChangeView {
            change: change.change,
            kind: change.kind,
            name: change.name,
            detail: change.detail,
        })
        .collect()
}

fn warnings(warnings: Vec<apply::Warning>) -> Vec<WarningView> {
    warnings
        .into_iter()
        .map(|warning| WarningView {
            kind: warning.kind,
            name: warning.name,
            detail: warning.detail,
        })
        .collect()
}

/// Brings the org in line with a document, all of it or nothing.
#[utoipa::path(
    post, path = "/v1/apply", tag = "govern", operation_id = "apply",
    request_body = ApplyRequest, security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "The plan, or what was done.", body = ApplyAnswer), Refused),
)]
async fn apply_document(
    State(deps): State<Arc<Deps>>,
    Admin { org, by }: Admin,
    StrictJson(request): StrictJson<ApplyRequest>,
) -> Result<Response, Problem> {
    if request.dry_run {
        let plan = apply::plan(&deps, org, &request.toml).await?;
        return answer::ok(&ApplyAnswer {
            dry_run: true,
            changes: changes(plan.changes),
            warnings: warnings(plan.warnings),
            keys: Vec::new(),
        });
    }
    let applied = to_its_end(async move { apply::apply(&deps, org, by, &request.toml).await }).await?;
    let keys = applied.keys.into_iter().map(|key| NewKeyView {
        kind: key.kind,
        name: key.name,
        id: key.id,
        key: show_api_key(&key.key),
    });
    answer::ok(&ApplyAnswer {
        dry_run: false,
        keys: keys.collect(),
        changes: changes(applied.changes),
        warnings: warnings(applied.warnings),
    })
}

#[derive(OpenApi)]
#[openapi(
    paths(apply_document),
    components(schemas(ApplyRequest, ApplyAnswer, ChangeView, WarningView, NewKeyView))
)]
pub(in crate::http) struct Api;

routes! {
    post "/v1/apply" [Admin] => apply_document;
}
