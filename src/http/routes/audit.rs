//! `/v1/audit`: who did what as whom, and the signed log that proves it (protocol §9).

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, OpenApi, ToSchema};

use super::routes;
use crate::{
    domain::{AgentId, EntryId, UserId, connector::ConnectorId, entry::Entry},
    flows::{Deps, audit, record::Details, sight},
    http::{
        Problem,
        answer::{self, Limit, Page, to_its_end},
        caller::{Admin, Caller},
        extract::{PathId, StrictQuery},
        openapi::Refused,
    },
    store::EntryFilter,
};

/// One entry: its hashed members, and what was sealed beside it while its key can be had.
#[derive(Debug, Serialize, ToSchema)]
struct EntryView {
    /// The members of the entry, as hashed.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    entry: Entry,
    /// Its place in the org's log, once it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_index: Option<u64>,
    /// What was sealed beside it; null if there is nothing or it was shredded.
    details: Option<DetailsView>,
}

/// What was sealed beside an entry.
#[derive(Debug, Serialize, ToSchema)]
struct DetailsView {
    /// The arguments of the action.
    #[schema(value_type = Option<Object>)]
    args: Option<Value>,
    /// The person's name at that time.
    user: Option<String>,
    /// The agent's name at that time.
    agent: Option<String>,
    /// The account's name at that time.
    account: Option<String>,
    /// What else a reader needs.
    #[schema(value_type = Option<Object>)]
    note: Option<Value>,
}

impl EntryView {
    fn new(entry: Entry, details: Option<Details>, log_index: Option<u64>) -> Self {
        Self {
            entry,
            log_index,
            // The salt stays inside: with it, hashes of accounts could be tried out.
            details: details.map(|details| DetailsView {
                args: details.args,
                user: details.names.user,
                agent: details.names.agent,
                account: details.names.account,
                note: details.note,
            }),
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
    /// The `next` of the page before: only older entries.
    #[param(value_type = Option<String>)]
    after: Option<EntryId>,
    /// About this person.
    #[param(value_type = Option<String>)]
    user: Option<UserId>,
    /// By this agent.
    #[param(value_type = Option<String>)]
    agent: Option<AgentId>,
    /// `human` or `agent`: who acted.
    #[param(value_type = Option<String>)]
    kind: Option<ActorKind>,
    /// At this connector.
    #[param(value_type = Option<String>)]
    connector: Option<ConnectorId>,
    /// With this outcome.
    outcome: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ActorKind {
    Human,
    Agent,
}

/// Lists entries, newest first: an admin sees all, a person and an agent those about themself.
#[utoipa::path(
    get, path = "/v1/audit/entries", tag = "audit", operation_id = "list_entries",
    params(Query), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "Newest first.", body = Page<EntryView>), Refused),
)]
async fn list(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    StrictQuery(query): StrictQuery<Query>,
) -> Result<Response, Problem> {
    let filter = EntryFilter {
        after: query.after,
        user: query.user,
        agent: query.agent,
        by_agent: query.kind.map(|kind| kind == ActorKind::Agent),
        connector: query.connector,
        outcome: query.outcome,
        limit: query.limit.rows(),
    };
    let entries = sight::entries(&deps, &who, filter).await?;
    query.limit.answer(
        entries,
        |(entry, _)| entry.id.to_string(),
        |(entry, details)| EntryView::new(entry, details, None),
    )
}

/// Shows one entry.
#[utoipa::path(
    get, path = "/v1/audit/entries/{id}", tag = "audit", operation_id = "show_entry",
    params(("id" = String, Path, description = "`ent_…`")), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "The entry.", body = EntryView), Refused),
)]
async fn show(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    PathId(id): PathId<EntryId>,
) -> Result<Response, Problem> {
    let (log_index, entry, details) = sight::entry(&deps, &who, id).await?;
    answer::ok(&EntryView::new(entry, details, log_index))
}

/// The signed head of the org's log, as a C2SP signed note.
#[utoipa::path(
    get, path = "/v1/audit/checkpoint", tag = "audit", operation_id = "checkpoint",
    security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "The note.", content_type = "text/plain", body = String), Refused),
)]
async fn checkpoint(State(deps): State<Arc<Deps>>, Admin { org, .. }: Admin) -> Result<Response, Problem> {
    let note = to_its_end(async move { audit::checkpoint(&deps, org).await }).await?;
    Ok(answer::text(note))
}

/// The public key of the org's log, as a C2SP verifier key.
#[utoipa::path(
    get, path = "/v1/audit/key", tag = "audit", operation_id = "checkpoint_key",
    security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "The key.", content_type = "text/plain", body = String), Refused),
)]
async fn key(State(deps): State<Arc<Deps>>, Caller(who): Caller) -> Result<Response, Problem> {
    Ok(answer::text(audit::verifier_key(&deps, who.org())?))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct LogQuery {
    /// The first index wanted.
    start: u64,
    /// At most so many; 100 unless said.
    #[param(value_type = Option<u64>)]
    limit: Limit,
}

/// One page of the log, for exports.
#[derive(Debug, Serialize, ToSchema)]
struct LogPage {
    /// The entries in the order of the log.
    entries: Vec<LogEntry>,
    /// The `start` of the next page; absent on the last one.
    next: Option<u64>,
}

/// One entry as it was hashed.
#[derive(Debug, Serialize, ToSchema)]
struct LogEntry {
    /// Its place.
    index: u64,
    /// The canonical JSON (RFC 8785), to the byte.
    entry: String,
}

fn log_page(mut rows: Vec<(u64, String)>, limit: Limit) -> LogPage {
    let next = rows.get(limit.shown()).map(|(index, _)| *index);
    rows.truncate(limit.shown());
    LogPage {
        entries: rows
            .into_iter()
            .map(|(index, entry)| LogEntry { index, entry })
            .collect(),
        next,
    }
}

/// Reads the log in its own order. Ask for the checkpoint first: it says how far the log is signed.
#[utoipa::path(
    get, path = "/v1/audit/log", tag = "audit", operation_id = "read_log",
    params(LogQuery), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "A page of the log.", body = LogPage), Refused),
)]
async fn log(
    State(deps): State<Arc<Deps>>,
    Admin { org, .. }: Admin,
    StrictQuery(query): StrictQuery<LogQuery>,
) -> Result<Response, Problem> {
    let rows = audit::log_page(&deps, org, query.start, query.limit.rows()).await?;
    answer::ok(&log_page(rows, query.limit))
}

#[derive(OpenApi)]
#[openapi(
    paths(list, show, checkpoint, key, log),
    components(schemas(EntryView, DetailsView, LogPage, LogEntry, Page<EntryView>))
)]
pub(in crate::http) struct Api;

routes! {
    get "/v1/audit/entries" [Admin User Agent] => list;
    get "/v1/audit/entries/{id}" [Admin User Agent] => show;
    get "/v1/audit/checkpoint" [Admin] => checkpoint;
    get "/v1/audit/key" [Admin User Service Agent] => key;
    get "/v1/audit/log" [Admin] => log;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::query;

    #[test]
    fn the_kind_of_actor_is_human_or_agent() {
        let kind = |text| query::parse::<Query>(text).map(|query| query.kind);
        assert_eq!(kind("kind=human").unwrap(), Some(ActorKind::Human));
        assert_eq!(kind("kind=agent").unwrap(), Some(ActorKind::Agent));
        assert!(kind("kind=Agent").is_err());
    }

    #[test]
    fn a_page_of_the_log_names_where_the_next_begins() {
        let rows = |count: u64| (5..5 + count).map(|index| (index, String::new())).collect();
        let two = Limit::try_from(2).unwrap();
        assert_eq!(log_page(rows(3), two).next, Some(7));
        assert_eq!(log_page(rows(2), two).next, None);
        assert_eq!(log_page(rows(3), two).entries.len(), 2);
    }

    #[test]
    fn the_salt_of_an_entry_is_never_shown() {
        let view = DetailsView {
            args: None,
            user: None,
            agent: None,
            account: None,
            note: None,
        };
        let shown = serde_json::to_value(view).unwrap();
        assert!(shown.get("salt").is_none());
    }
}
