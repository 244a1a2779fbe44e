//! `/v1/audit`: who did what as whom, and the signed log that proves it (protocol §9).

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, OpenApi, ToSchema};

use super::routes;
use crate::{
    audit::tiles::TilePath,
    domain::{AgentId, EntryId, UserId, connector::ConnectorId, entry::Entry, text::LONGEST_NAME},
    flows::{Deps, audit, record::Details, sight},
    http::{
        Problem,
        answer::{self, Limit, Page, to_its_end},
        caller::{Admin, Caller},
        extract::{self, PathId, StrictQuery},
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
        // PostgreSQL takes no NUL in a text, where SQLite finds nothing.
        outcome: query
            .outcome
            .map(|outcome| extract::line("?outcome", outcome, LONGEST_NAME))
            .transpose()?,
        among: None,
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

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct CheckpointQuery {
    /// `true`: the last head that the witness has cosigned, instead of the newest; 404 while there is none.
    cosigned: bool,
}

/// The signed head of the org's log, as a C2SP signed note.
#[utoipa::path(
    get, path = "/v1/audit/checkpoint", tag = "audit", operation_id = "checkpoint",
    params(CheckpointQuery), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "The note.", content_type = "text/plain", body = String), Refused),
)]
async fn checkpoint(
    State(deps): State<Arc<Deps>>,
    Admin { org, .. }: Admin,
    StrictQuery(query): StrictQuery<CheckpointQuery>,
) -> Result<Response, Problem> {
    let note = if query.cosigned {
        audit::cosigned_checkpoint(&deps, org).await?
    } else {
        to_its_end(async move { audit::checkpoint(&deps, org).await }).await?
    };
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
    /// The leaf hash that was signed for this place, base64. An entry that hashes to another was changed or moved.
    leaf: Option<String>,
}

fn log_page(mut rows: Vec<(u64, String)>, start: u64, leaves: &[[u8; 32]], limit: Limit) -> LogPage {
    let next = rows.get(limit.shown()).map(|(index, _)| *index);
    rows.truncate(limit.shown());
    LogPage {
        entries: rows
            .into_iter()
            .map(|(index, entry)| {
                let place = index.checked_sub(start).and_then(|at| usize::try_from(at).ok());
                let leaf = place.and_then(|at| leaves.get(at));
                LogEntry {
                    index,
                    entry,
                    leaf: leaf.map(|leaf| STANDARD.encode(leaf)),
                }
            })
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
    let leaves = audit::signed_leaves(&deps, org, query.start, query.limit.rows()).await?;
    answer::ok(&log_page(rows, query.start, &leaves, query.limit))
}

/// That an entry is in the log (RFC 9162 §2.1.3).
#[derive(Debug, Serialize, ToSchema)]
struct InclusionView {
    /// The entry's place.
    index: u64,
    /// How many entries the log of the checkpoint has.
    size: u64,
    /// SHA-256 of 0x00 and the entry's bytes, base64.
    leaf: String,
    /// The proof, base64.
    hashes: Vec<String>,
    /// The signed head of that log.
    checkpoint: String,
}

/// Proves that an entry is in the log that was signed.
#[utoipa::path(
    get, path = "/v1/audit/entries/{id}/proof", tag = "audit", operation_id = "prove_entry",
    params(("id" = String, Path, description = "`ent_…`")), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "The proof.", body = InclusionView), Refused),
)]
async fn proof(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    PathId(id): PathId<EntryId>,
) -> Result<Response, Problem> {
    sight::entry(&deps, &who, id).await?;
    let proof = to_its_end(async move { audit::inclusion(&deps, who.org(), id).await }).await?;
    answer::ok(&InclusionView {
        index: proof.index,
        size: proof.size,
        leaf: STANDARD.encode(proof.leaf),
        hashes: in_base64(&proof.hashes),
        checkpoint: proof.checkpoint,
    })
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct ConsistencyQuery {
    /// The earlier size.
    from: u64,
    /// The later size; the signed one unless said.
    to: Option<u64>,
}

/// That one size of the log is the beginning of a later one (RFC 9162 §2.1.4).
#[derive(Debug, Serialize, ToSchema)]
struct ConsistencyView {
    /// The earlier size.
    from: u64,
    /// The later size.
    to: u64,
    /// The proof, base64.
    hashes: Vec<String>,
    /// The signed head.
    checkpoint: String,
}

/// Proves that the log only grew between two sizes.
#[utoipa::path(
    get, path = "/v1/audit/consistency", tag = "audit", operation_id = "prove_growth",
    params(ConsistencyQuery), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "The proof.", body = ConsistencyView), Refused),
)]
async fn consistency(
    State(deps): State<Arc<Deps>>,
    Admin { org, .. }: Admin,
    StrictQuery(ConsistencyQuery { from, to }): StrictQuery<ConsistencyQuery>,
) -> Result<Response, Problem> {
    let proof = to_its_end(async move { audit::consistency(&deps, org, from, to).await }).await?;
    answer::ok(&ConsistencyView {
        from: proof.first,
        to: proof.second,
        hashes: in_base64(&proof.hashes),
        checkpoint: proof.checkpoint,
    })
}

fn in_base64(hashes: &[[u8; 32]]) -> Vec<String> {
    hashes.iter().map(|hash| STANDARD.encode(hash)).collect()
}

/// A hash tile or an entry bundle (C2SP tlog-tiles; the log's prefix is `/v1/audit`).
#[utoipa::path(
    get, path = "/v1/audit/tile/{id}", tag = "audit", operation_id = "tile",
    params(("id" = String, Path, description = "`<L>/<N>` or `entries/<N>`, partial ones with `.p/<W>`; slashes stay as they are")),
    security(("api_key" = []), ("session" = [])),
    responses(
        (status = 200, description = "Hashes side by side, or each entry behind its length.",
         content_type = "application/octet-stream", body = [u8]),
        Refused
    ),
)]
async fn tile(
    State(deps): State<Arc<Deps>>,
    Admin { org, .. }: Admin,
    Path(path): Path<String>,
) -> Result<Response, Problem> {
    // A path of another form names nothing: as much is said of a tile that is not there yet.
    let path: TilePath = path.parse().map_err(|_| Problem::not_found())?;
    Ok(answer::immutable(audit::tile(&deps, org, path).await?))
}

#[derive(OpenApi)]
#[openapi(
    paths(list, show, proof, checkpoint, consistency, tile, key, log),
    components(schemas(
        EntryView, DetailsView, InclusionView, ConsistencyView, LogPage, LogEntry, Page<EntryView>
    ))
)]
pub(in crate::http) struct Api;

routes! {
    get "/v1/audit/entries" [Admin User Agent] => list;
    get "/v1/audit/entries/{id}" [Admin User Agent] => show;
    get "/v1/audit/entries/{id}/proof" [Admin User] => proof;
    get "/v1/audit/checkpoint" [Admin] => checkpoint;
    get "/v1/audit/consistency" [Admin] => consistency;
    get "/v1/audit/tile/{*id}" [Admin] => tile;
    get "/v1/audit/key" [Admin User Service Agent] => key;
    get "/v1/audit/log" [Admin] => log;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{
            OrgId, Time,
            entry::{EntryDraft, EntryType, Epoch},
        },
        flows::record::Names,
        http::query,
    };

    fn entry() -> Entry {
        Entry {
            schema: 1,
            id: EntryId::from_bytes([1; 16]),
            org: OrgId::from_bytes([2; 16]),
            epoch: Epoch {
                incarnation: 1,
                counter: 1,
            },
            ts: Time::from_unix_seconds(0),
            writer: "r1/hot".to_owned(),
            writer_seq: 1,
            prev: "0".repeat(64),
            kind: EntryType::Connect,
            draft: EntryDraft::default(),
        }
    }

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
        let page = |count| log_page(rows(count), 5, &[[0; 32]], two);
        assert_eq!(page(3).next, Some(7));
        assert_eq!(page(2).next, None);
        assert_eq!(page(3).entries.len(), 2);
        assert!(page(3).entries[0].leaf.is_some() && page(3).entries[1].leaf.is_none());
    }

    #[test]
    fn the_salt_of_an_entry_is_never_shown() {
        let details = Details {
            salt: "the-salt".to_owned(),
            names: Names {
                account: Some("ada@acme.example".to_owned()),
                ..Names::default()
            },
            ..Details::default()
        };
        let shown = serde_json::to_string(&EntryView::new(entry(), Some(details), Some(7))).unwrap();
        assert!(shown.contains("ada@acme.example"), "{shown}");
        assert!(!shown.contains("salt"), "{shown}");
    }
}
