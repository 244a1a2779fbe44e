//! `/v1/grants`: what people have connected. Never a secret of theirs.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, OpenApi, ToSchema};

use super::{revocations::RevocationReceipt, routes};
use crate::{
    domain::{GrantId, ScopeSet, Time, UserId, connector::ConnectorId, grant::GrantState},
    flows::{
        Deps, Refusal, revoke,
        sight::{self, SeenGrant},
    },
    http::{
        Problem,
        answer::{self, Limit, Page},
        caller::Caller,
        extract::{PathId, StrictQuery},
        openapi::{Gone, Refused},
    },
    store::{GrantFilter, Selector, UpstreamResult},
};

/// A grant: one person's stored authorization at one connector account.
#[derive(Debug, Serialize, ToSchema)]
struct GrantView {
    /// Its id.
    #[schema(value_type = String)]
    id: GrantId,
    /// Whose.
    #[schema(value_type = String)]
    user: UserId,
    /// At which connector.
    #[schema(value_type = String)]
    connector: ConnectorId,
    /// The account at the provider.
    account: AccountView,
    /// The person's own name for it.
    label: Option<String>,
    /// What the provider granted.
    #[schema(value_type = Vec<String>)]
    scopes: ScopeSet,
    /// `active`, `needs_reconnect`, `quarantined` or `revoked`.
    state: &'static str,
    /// Why it needs to be connected again.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// When the person connected it first.
    #[schema(value_type = String, format = DateTime)]
    connected_at: Time,
    /// When it last served a release, to the minute.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Time>,
    /// When the access token ends; it is renewed as needed.
    #[schema(value_type = Option<String>, format = DateTime)]
    access_expires_at: Option<Time>,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Time>,
    /// What the provider said to its revocation: `pending`, `revoked`, `unsupported` or `unconfirmed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    upstream: Option<UpstreamResult>,
}

/// The account behind a grant.
#[derive(Debug, Serialize, ToSchema)]
struct AccountView {
    /// What people read.
    label: String,
    /// The workspace or organisation it is in, at the provider.
    tenant: Option<String>,
}

impl From<SeenGrant> for GrantView {
    fn from(seen: SeenGrant) -> Self {
        let SeenGrant { grant, upstream } = seen;
        Self {
            id: grant.id,
            user: grant.user,
            connector: grant.connector,
            account: AccountView {
                label: grant.account.label,
                tenant: grant.account.tenant,
            },
            label: grant.label,
            scopes: grant.scopes,
            state: grant.state.as_str(),
            reason: match grant.state {
                GrantState::NeedsReconnect { reason } => Some(reason.as_str()),
                _ => None,
            },
            connected_at: grant.connected_at,
            last_used_at: grant.last_used_at,
            access_expires_at: grant.access_expires_at,
            revoked_at: match grant.state {
                GrantState::Revoked { at } => Some(at),
                _ => None,
            },
            upstream,
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
    after: Option<GrantId>,
    /// Only this person's.
    #[param(value_type = Option<String>)]
    user: Option<UserId>,
    /// Only at this connector.
    #[param(value_type = Option<String>)]
    connector: Option<ConnectorId>,
}

/// Lists grants: a person's own, an admin's all, a host application's of its people, an agent's delegated ones.
#[utoipa::path(
    get, path = "/v1/grants", tag = "grants", operation_id = "list_grants",
    params(Query), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "Grants in the order of their ids.", body = Page<GrantView>), Refused),
)]
async fn list(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    StrictQuery(query): StrictQuery<Query>,
) -> Result<Response, Problem> {
    let filter = GrantFilter {
        user: query.user,
        connector: query.connector,
        after: query.after,
        limit: query.limit.rows(),
        ..GrantFilter::default()
    };
    let grants = sight::grants(&deps, &who, filter).await?;
    query
        .limit
        .answer(grants, |seen| seen.grant.id.to_string(), GrantView::from)
}

/// Shows one grant.
#[utoipa::path(
    get, path = "/v1/grants/{id}", tag = "grants", operation_id = "show_grant",
    params(("id" = String, Path, description = "`grt_…`")), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "The grant.", body = GrantView), Refused),
)]
async fn show(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    PathId(id): PathId<GrantId>,
) -> Result<Response, Problem> {
    answer::ok(&GrantView::from(sight::grant(&deps, &who, id).await?))
}

/// Ends one grant, as a revocation of it does; its owner may, too.
#[utoipa::path(
    delete, path = "/v1/grants/{id}", tag = "grants", operation_id = "disconnect_grant",
    params(("id" = String, Path, description = "`grt_…`")), security(("api_key" = []), ("session" = [])),
    responses(
        (status = 200, description = "Nothing is released with it any more.", body = RevocationReceipt), Refused, Gone
    ),
)]
async fn disconnect(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    PathId(id): PathId<GrantId>,
) -> Result<Response, Problem> {
    let grant = sight::own_grant(&deps, &who, id).await?;
    if let GrantState::Revoked { at } = grant.state {
        return Err(Refusal::Revoked { grant: id, at }.into());
    }
    let ask = revoke::Ask {
        selector: Selector::Grant(id),
        reason: "disconnected".to_owned(),
        drain: false,
        by: sight::id_of(&who),
    };
    let revoked = revoke::run(&deps, who.org(), ask).await?;
    answer::ok(&RevocationReceipt::from(revoked))
}

#[derive(OpenApi)]
#[openapi(
    paths(list, show, disconnect),
    components(schemas(GrantView, AccountView, Page<GrantView>))
)]
pub(in crate::http) struct Api;

routes! {
    get "/v1/grants" [Admin User Service Agent] => list;
    get "/v1/grants/{id}" [Admin User Service Agent] => show;
    delete "/v1/grants/{id}" [Admin User] => disconnect;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{
        OrgId,
        grant::{Account, Grant, ReconnectReason},
    };

    fn shown(state: GrantState, upstream: Option<UpstreamResult>) -> serde_json::Value {
        let grant = Grant {
            id: GrantId::from_bytes([0; 16]),
            org: OrgId::from_bytes([0; 16]),
            user: UserId::from_bytes([0; 16]),
            connector: "acme-mail".parse().unwrap(),
            account: Account {
                id: Some("4711".to_owned()),
                label: "ada@acme.example".to_owned(),
                email: None,
                tenant: None,
            },
            label: None,
            scopes: ScopeSet::parse("mail.read", ' ').unwrap(),
            state,
            connected_epoch: 1,
            generation: 1,
            binding: [0; 32],
            access_expires_at: None,
            has_refresh_token: true,
            connected_at: Time::from_unix_seconds(0),
            last_used_at: None,
        };
        serde_json::to_value(GrantView::from(SeenGrant { grant, upstream })).unwrap()
    }

    #[test]
    fn a_grant_is_shown_without_what_is_internal() {
        assert_eq!(
            shown(GrantState::Active, None),
            json!({
                "id": "grt_00000000000000000000000000", "user": "usr_00000000000000000000000000",
                "connector": "acme-mail", "account": {"label": "ada@acme.example", "tenant": null}, "label": null,
                "scopes": ["mail.read"], "state": "active", "connected_at": "1970-01-01T00:00:00.000Z",
                "last_used_at": null, "access_expires_at": null
            })
        );
    }

    #[test]
    fn a_grant_that_is_over_or_in_need_says_why() {
        let reconnect = shown(
            GrantState::NeedsReconnect {
                reason: ReconnectReason::RotationLost,
            },
            None,
        );
        assert_eq!(reconnect["reason"], "rotation_lost");
        let at = Time::from_unix_seconds(1);
        let revoked = shown(GrantState::Revoked { at }, Some(UpstreamResult::Unsupported));
        assert_eq!(revoked["revoked_at"], "1970-01-01T00:00:01.000Z");
        assert_eq!(revoked["upstream"], "unsupported");
    }
}
