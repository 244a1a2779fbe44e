//! `/v1/org`: what the org has laid down about itself and its connectors. `/v1/apply` changes it.

use std::{collections::BTreeSet, sync::Arc};

use axum::{extract::State, response::Response};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::routes;
use crate::{
    domain::{
        OrgId, ScopeSet,
        connector::ConnectorId,
        rules::{AccountRule, ConnectorRules},
    },
    flows::{
        Deps,
        sight::{self, Settings},
    },
    http::{Problem, answer, caller::Admin, openapi::Refused},
    store::ConnectorClientRow,
};

/// The organisation's own settings.
#[derive(Debug, Serialize, ToSchema)]
struct OrgView {
    /// Its id.
    #[schema(value_type = String)]
    id: OrgId,
    /// What people call it.
    name: String,
    /// Whether agents may ask people who have not connected yet to connect.
    agents_may_ask: bool,
    /// The connectors it has a client at, in the order of their ids.
    connectors: Vec<OrgConnector>,
}

/// What the organisation has laid down about one connector.
#[derive(Debug, Serialize, ToSchema)]
struct OrgConnector {
    /// The connector.
    #[schema(value_type = String)]
    id: ConnectorId,
    /// The organisation's client there.
    client_id: String,
    /// Whether that client has a secret.
    has_secret: bool,
    /// The most that may be asked of people, besides what the connector always asks for; null: every scope.
    #[schema(value_type = Option<Vec<String>>)]
    scopes: Option<ScopeSet>,
    /// Whose accounts may be connected; null: anybody's.
    accounts: Option<AccountsView>,
}

/// Whose accounts may be connected: every list that is not null must hold the account's own.
#[derive(Debug, Serialize, ToSchema)]
struct AccountsView {
    /// The domains of their e-mail addresses.
    domains: Option<BTreeSet<String>>,
    /// The provider's ids of their tenants.
    tenants: Option<BTreeSet<String>>,
}

impl From<Settings> for OrgView {
    fn from(settings: Settings) -> Self {
        Self {
            id: settings.org.id,
            name: settings.org.name,
            agents_may_ask: settings.org.agents_may_ask,
            connectors: settings.connectors.into_iter().map(OrgConnector::from).collect(),
        }
    }
}

impl From<(ConnectorClientRow, ConnectorRules)> for OrgConnector {
    fn from((client, rules): (ConnectorClientRow, ConnectorRules)) -> Self {
        let any = rules.accounts.is_empty();
        let AccountRule { domains, tenants } = rules.accounts;
        Self {
            id: client.connector,
            client_id: client.client_id,
            has_secret: client.secret.is_some(),
            scopes: rules.scopes,
            accounts: (!any).then_some(AccountsView { domains, tenants }),
        }
    }
}

/// Shows the organisation's settings.
#[utoipa::path(
    get, path = "/v1/org", tag = "govern", operation_id = "show_org",
    security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "The caller's organisation.", body = OrgView), Refused),
)]
async fn show(State(deps): State<Arc<Deps>>, Admin { org, .. }: Admin) -> Result<Response, Problem> {
    answer::ok(&OrgView::from(sight::settings(&deps, org).await?))
}

#[derive(OpenApi)]
#[openapi(paths(show), components(schemas(OrgView, OrgConnector, AccountsView)))]
pub(in crate::http) struct Api;

routes! {
    get "/v1/org" [Admin] => show;
}
