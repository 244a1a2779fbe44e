//! `/v1/keys`: the API keys of an organisation. A key's text is in the answer that makes it, and in no other.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};

use super::routes;
use crate::{
    crypto::lookup,
    domain::{
        KeyId, Time,
        principal::{KeyKind, KeyOwner},
    },
    flows::{Deps, keys, sight},
    http::{
        Problem,
        answer::{self, Listing, Page, to_its_end},
        caller::{Admin, Caller},
        extract::{PathId, StrictJson, StrictQuery, read},
        openapi::Refused,
    },
    store::ApiKeyRow,
};

/// An API key, without the key.
#[derive(Debug, Serialize, ToSchema)]
struct KeyView {
    /// Its id.
    #[schema(value_type = String)]
    id: KeyId,
    /// `admin`, `service` or `agent`.
    #[schema(value_type = String)]
    kind: KeyKind,
    /// The application or agent it speaks for; null for admin keys.
    owner: Option<String>,
    /// `active` or `revoked`.
    state: &'static str,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    /// When it was revoked.
    #[schema(value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Time>,
}

impl From<ApiKeyRow> for KeyView {
    fn from(key: ApiKeyRow) -> Self {
        Self {
            id: key.id,
            kind: key.owner.kind(),
            owner: key.owner.id(),
            state: if key.revoked_at.is_some() {
                "revoked"
            } else {
                "active"
            },
            created_at: key.created_at,
            revoked_at: key.revoked_at,
        }
    }
}

/// Lists keys, revoked ones too.
#[utoipa::path(
    get, path = "/v1/keys", tag = "govern", operation_id = "list_keys",
    params(Listing<KeyId>), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "In the order of their ids.", body = Page<KeyView>), Refused),
)]
async fn list(
    State(deps): State<Arc<Deps>>,
    Admin { org, .. }: Admin,
    StrictQuery(page): StrictQuery<Listing<KeyId>>,
) -> Result<Response, Problem> {
    let keys = sight::keys(&deps, org, page.after, page.limit.rows()).await?;
    page.limit.answer(keys, |key| key.id.to_string(), KeyView::from)
}

/// Shows one key.
#[utoipa::path(
    get, path = "/v1/keys/{id}", tag = "govern", operation_id = "show_key",
    params(("id" = String, Path, description = "`key_…`")), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "The key, without its text.", body = KeyView), Refused),
)]
async fn show(
    State(deps): State<Arc<Deps>>,
    Admin { org, .. }: Admin,
    PathId(id): PathId<KeyId>,
) -> Result<Response, Problem> {
    answer::ok(&KeyView::from(sight::key(&deps, org, id).await?))
}

/// Whom a key is to speak for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct KeyRequest {
    /// `admin`, `service` or `agent`.
    #[schema(value_type = String)]
    kind: KeyKind,
    /// `svc_…` or `agt_…`; absent for an admin key.
    owner: Option<String>,
}

impl KeyRequest {
    fn owner(self) -> Result<KeyOwner, Problem> {
        let needed = || Problem::invalid("/owner", "a key of this kind speaks for one application or agent");
        match (self.kind, self.owner) {
            (KeyKind::Admin, None) => Ok(KeyOwner::Admin),
            (KeyKind::Admin, Some(_)) => Err(Problem::invalid("/owner", "an admin key is nobody's own")),
            (KeyKind::Service, owner) => read("/owner", &owner.ok_or_else(needed)?).map(KeyOwner::Service),
            (KeyKind::Agent, owner) => read("/owner", &owner.ok_or_else(needed)?).map(KeyOwner::Agent),
        }
    }
}

/// A key just made.
#[derive(Serialize, ToSchema)]
struct MintedKey {
    /// What the other routes show of it.
    #[serde(flatten)]
    shown: KeyView,
    /// The key. It is shown this once.
    key: String,
}

/// Makes a key; the other keys of the same owner go on working until they are revoked.
#[utoipa::path(
    post, path = "/v1/keys", tag = "govern", operation_id = "create_key",
    request_body = KeyRequest, security(("api_key" = []), ("session" = [])),
    responses((status = 201, description = "The key, with its text.", body = MintedKey), Refused),
)]
async fn create(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    StrictJson(request): StrictJson<KeyRequest>,
) -> Result<Response, Problem> {
    let owner = request.owner()?;
    let made = to_its_end(async move { keys::make(&deps, &who, owner).await }).await?;
    answer::created(&MintedKey {
        shown: made.row.into(),
        key: lookup::show_api_key(&made.key),
    })
}

/// Revokes a key, the caller's own too: calls with it are refused at once.
#[utoipa::path(
    delete, path = "/v1/keys/{id}", tag = "govern", operation_id = "revoke_key",
    params(("id" = String, Path, description = "`key_…`")), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "The key, revoked.", body = KeyView), Refused),
)]
async fn revoke(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    PathId(id): PathId<KeyId>,
) -> Result<Response, Problem> {
    let revoked = to_its_end(async move { keys::revoke(&deps, &who, id).await }).await?;
    answer::ok(&KeyView::from(revoked))
}

#[derive(OpenApi)]
#[openapi(
    paths(list, show, create, revoke),
    components(schemas(KeyView, KeyRequest, MintedKey, Page<KeyView>))
)]
pub(in crate::http) struct Api;

routes! {
    get "/v1/keys" [Admin] => list;
    post "/v1/keys" [Admin] => create;
    get "/v1/keys/{id}" [Admin] => show;
    delete "/v1/keys/{id}" [Admin] => revoke;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Code;

    const AGENT: &str = "agt_00000000000000000000000001";
    const SERVICE: &str = "svc_00000000000000000000000001";

    fn owner(kind: KeyKind, owner: Option<&str>) -> Result<KeyOwner, Problem> {
        KeyRequest {
            kind,
            owner: owner.map(ToOwned::to_owned),
        }
        .owner()
    }

    #[test]
    fn a_key_speaks_for_an_owner_of_its_kind() {
        assert_eq!(owner(KeyKind::Admin, None).unwrap(), KeyOwner::Admin);
        let agent = KeyOwner::Agent(AGENT.parse().unwrap());
        assert_eq!(owner(KeyKind::Agent, Some(AGENT)).unwrap(), agent);
        let service = KeyOwner::Service(SERVICE.parse().unwrap());
        assert_eq!(owner(KeyKind::Service, Some(SERVICE)).unwrap(), service);
    }

    #[test]
    fn another_owner_or_none_is_refused() {
        for (kind, id) in [
            (KeyKind::Admin, Some(AGENT)),
            (KeyKind::Agent, None),
            (KeyKind::Agent, Some(SERVICE)),
            (KeyKind::Service, None),
            (KeyKind::Service, Some(AGENT)),
            (KeyKind::Service, Some("x")),
        ] {
            let problem = owner(kind, id).unwrap_err();
            assert_eq!(problem.code(), Code::InvalidRequest, "{kind:?} {id:?}");
        }
    }
}
