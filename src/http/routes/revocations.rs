//! `/v1/revocations`: ending things in one action (protocol §8).

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, OpenApi, ToSchema};

use super::routes;
use crate::{
    domain::{EntryId, GrantId, RevocationId, Time, connector::ConnectorId, entry::Epoch},
    flows::{
        Deps,
        revoke::{self, Progress, Revoked},
        sight::{self, SeenRevocation},
    },
    http::{
        Problem,
        answer::{self, Limit},
        caller::Caller,
        extract::{PathId, StrictJson, StrictQuery, line, read},
        openapi::Refused,
    },
    store::{Selector, SelectorCounts, UpstreamResult, UpstreamTotals},
};

/// What to end, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RevocationRequest {
    /// Exactly one of `all: true`, `user`, `agent`, `connector`, `grant`.
    #[schema(value_type = Object, example = json!({"agent": "agt_01h2xcejqtf2nbrexx3vqjhp41"}))]
    selector: Map<String, Value>,
    /// Why, in the caller's words; needed unless `dry_run`.
    #[schema(max_length = 500)]
    reason: Option<String>,
    /// Only count.
    #[serde(default)]
    dry_run: bool,
    /// Wait for the outcome of calls already sent, at most 35 seconds.
    #[serde(default)]
    drain: bool,
}

fn selector(members: &Map<String, Value>) -> Result<Selector, Problem> {
    let wrong = |detail: &str| Problem::invalid("/selector", detail);
    let mut members = members.iter();
    let (Some((name, value)), None) = (members.next(), members.next()) else {
        return Err(wrong(
            "exactly one of `all`, `user`, `agent`, `connector`, `grant`",
        ));
    };
    let pointer = format!("/selector/{name}");
    let text = || {
        value
            .as_str()
            .ok_or_else(|| Problem::invalid(&pointer, "a text is expected"))
    };
    match name.as_str() {
        "all" if *value == Value::Bool(true) => Ok(Selector::All(true)),
        "all" => Err(Problem::invalid(pointer, "only `true` has a meaning")),
        "user" => Ok(Selector::User(read(&pointer, text()?)?)),
        "agent" => Ok(Selector::Agent(read(&pointer, text()?)?)),
        "connector" => Ok(Selector::Connector(read(&pointer, text()?)?)),
        "grant" => Ok(Selector::Grant(read(&pointer, text()?)?)),
        _ => Err(wrong("one of `all`, `user`, `agent`, `connector`, `grant`")),
    }
}

/// How much a selection covers.
#[derive(Debug, Serialize, ToSchema)]
struct Counts {
    /// Living grants.
    grants: u64,
    /// Living delegations.
    delegations: u64,
    /// Browser sessions.
    sessions: u64,
    /// Connect sessions under way.
    connects: u64,
    /// Agents.
    agents: u64,
}

impl From<SelectorCounts> for Counts {
    fn from(counts: SelectorCounts) -> Self {
        Self {
            grants: counts.grants,
            delegations: counts.delegations,
            sessions: counts.sessions,
            connects: counts.connects,
            agents: counts.agents,
        }
    }
}

/// How far it has come at the providers.
#[derive(Debug, Serialize, ToSchema)]
struct Upstream {
    /// Not yet answered for good; `null` while the grants are counted.
    pending: Option<u64>,
    /// Ended there, too.
    revoked: u64,
    /// The provider has no way to.
    unsupported: u64,
    /// No answer within seven days, or a refusal.
    unconfirmed: u64,
}

impl Upstream {
    /// `counted`: whether it is known how many grants there are.
    fn of(totals: UpstreamTotals, counted: bool) -> Self {
        Self {
            pending: counted.then_some(totals.pending),
            revoked: totals.revoked,
            unsupported: totals.unsupported,
            unconfirmed: totals.unconfirmed,
        }
    }
}

/// How far a revocation has come. All of its grants have been stopped; this is about their tombstones and providers.
#[derive(Debug, Serialize, ToSchema)]
struct ProgressView {
    /// Grants it ended; `null` while they are counted.
    total: Option<u64>,
    /// Grants that have their tombstone and their place in the queue to the provider.
    queued: u64,
    /// Grants with a final answer: every state of `upstream` but `pending`.
    done: u64,
    /// Grants without one; `null` while they are counted.
    remaining: Option<u64>,
}

impl From<&Progress> for ProgressView {
    fn from(progress: &Progress) -> Self {
        Self {
            total: progress.total,
            queued: progress.queued,
            done: progress.done(),
            remaining: progress.remaining(),
        }
    }
}

/// A dry run: what would end.
#[derive(Debug, Serialize, ToSchema)]
struct DryRun {
    /// Always true.
    dry_run: bool,
    /// What would end.
    counts: Counts,
}

/// A revocation that has taken effect.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RevocationReceipt {
    /// Its id.
    #[schema(value_type = String)]
    id: RevocationId,
    /// The epoch it began: no entry of the selection commits after it.
    #[schema(value_type = String)]
    epoch: Epoch,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    effective_at: Time,
    /// What ended; `null` if there is so much of it that it is still being counted: `GET /v1/revocations/{id}` tells it
    /// then.
    counts: Option<Counts>,
    /// Entries of calls that were sent before and have no outcome yet; `null` if the database went away before they
    /// could be read: what the revocation covers ended all the same.
    #[schema(value_type = Option<Vec<String>>)]
    in_flight: Option<Vec<EntryId>>,
    /// How far it has come at the providers.
    upstream: Upstream,
}

impl From<Revoked> for RevocationReceipt {
    fn from(revoked: Revoked) -> Self {
        Self {
            id: revoked.id,
            epoch: revoked.epoch,
            effective_at: revoked.at,
            upstream: Upstream::of(
                UpstreamTotals {
                    pending: revoked.counts.map_or(0, |counts| counts.grants),
                    ..UpstreamTotals::default()
                },
                revoked.counts.is_some(),
            ),
            counts: revoked.counts.map(Counts::from),
            in_flight: revoked.in_flight,
        }
    }
}

/// Ends a selection: an admin any, a person themself and their own grants.
#[utoipa::path(
    post, path = "/v1/revocations", tag = "revocations", operation_id = "revoke",
    request_body = RevocationRequest, security(("api_key" = []), ("session" = [])),
    responses(
        (status = 200, description = "When this is answered, nothing of the selection is released any more; \
            with `dry_run`, only counted.", body = RevocationReceipt),
        Refused,
    ),
)]
async fn create(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    StrictJson(request): StrictJson<RevocationRequest>,
) -> Result<Response, Problem> {
    let selector = selector(&request.selector)?;
    sight::may_revoke(&deps, &who, &selector).await?;
    if request.dry_run {
        let counts = revoke::dry_run(&deps, who.org(), &selector).await?;
        return answer::ok(&DryRun {
            dry_run: true,
            counts: counts.into(),
        });
    }
    let reason = request
        .reason
        .ok_or_else(|| Problem::invalid("/reason", "say why"))?;
    let ask = revoke::Ask {
        selector,
        reason: line("/reason", reason, 500)?,
        drain: request.drain,
        by: sight::id_of(&who),
    };
    answer::ok(&RevocationReceipt::from(
        revoke::run(&deps, who.org(), ask).await?,
    ))
}

/// What became of a revocation, grant by grant.
#[derive(Debug, Serialize, ToSchema)]
struct RevocationView {
    /// Its id.
    #[schema(value_type = String)]
    id: RevocationId,
    /// What was ended.
    #[schema(value_type = Object)]
    selector: Selector,
    /// Why.
    reason: String,
    /// The epoch it began.
    #[schema(value_type = Option<String>)]
    epoch: Option<Epoch>,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    effective_at: Time,
    /// What ended; `null` while it is counted, and for good if the counting process ended first or there was no room to count.
    counts: Option<Counts>,
    /// How far it has come, over all grants.
    progress: ProgressView,
    /// How far it has come at the providers, over all grants.
    upstream: Upstream,
    /// One page of its grants.
    items: Vec<RevokedGrant>,
    /// What to give as `after` for the next page.
    next: Option<String>,
}

/// One grant of a revocation.
#[derive(Debug, Serialize, ToSchema)]
struct RevokedGrant {
    /// The grant.
    #[schema(value_type = String)]
    grant: GrantId,
    /// At which connector.
    #[schema(value_type = String)]
    connector: ConnectorId,
    /// Always true: nothing is released with it any more.
    stopped: bool,
    /// `pending`, `revoked`, `unsupported` or `unconfirmed`.
    #[schema(value_type = String)]
    upstream: UpstreamResult,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct Query {
    /// At most so many grants; 100 unless said.
    #[param(value_type = Option<u64>)]
    limit: Limit,
    /// The `next` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<GrantId>,
}

/// Shows what became of a revocation.
#[utoipa::path(
    get, path = "/v1/revocations/{id}", tag = "revocations", operation_id = "show_revocation",
    params(("id" = String, Path, description = "`rev_…`"), Query), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "Grant by grant.", body = RevocationView), Refused),
)]
async fn show(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    PathId(id): PathId<RevocationId>,
    StrictQuery(query): StrictQuery<Query>,
) -> Result<Response, Problem> {
    let SeenRevocation {
        row,
        epoch,
        progress,
        grants,
    } = sight::revocation(&deps, &who, id, query.after, query.limit.rows()).await?;
    let page = query.limit.page(
        grants,
        |row| row.grant.to_string(),
        |row| RevokedGrant {
            grant: row.grant,
            connector: row.connector,
            stopped: true,
            upstream: row.result,
        },
    );
    answer::ok(&RevocationView {
        id: row.id,
        selector: row.selector,
        reason: row.reason,
        epoch,
        effective_at: row.at,
        counts: row.counts.map(Counts::from),
        progress: (&progress).into(),
        upstream: Upstream::of(progress.upstream, progress.total.is_some()),
        items: page.items,
        next: page.next,
    })
}

#[derive(OpenApi)]
#[openapi(
    paths(create, show),
    components(schemas(
        RevocationRequest,
        RevocationReceipt,
        DryRun,
        Counts,
        Upstream,
        ProgressView,
        RevocationView,
        RevokedGrant
    ))
)]
pub(in crate::http) struct Api;

routes! {
    post "/v1/revocations" [Admin User] => create;
    get "/v1/revocations/{id}" [Admin User] => show;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::Code;

    fn read_selector(value: &Value) -> Result<Selector, Problem> {
        selector(value.as_object().unwrap())
    }

    #[test]
    fn an_answer_before_the_counting_claims_no_number() {
        let revoked = |counts| Revoked {
            id: RevocationId::from_bytes([1; 16]),
            epoch: Epoch {
                incarnation: 1,
                counter: 2,
            },
            at: Time::from_unix_seconds(1_800_000_000),
            guard_wait: std::time::Duration::ZERO,
            counts,
            in_flight: None,
        };
        let answer = |counts| serde_json::to_value(RevocationReceipt::from(revoked(counts))).unwrap();
        let early = answer(None);
        let unknown = json!({"pending": null, "revoked": 0, "unsupported": 0, "unconfirmed": 0});
        assert_eq!((&early["counts"], &early["upstream"]), (&Value::Null, &unknown));
        let counted = answer(Some(SelectorCounts {
            grants: 3,
            ..SelectorCounts::default()
        }));
        assert_eq!(
            (&counted["counts"]["grants"], &counted["upstream"]["pending"]),
            (&json!(3), &json!(3))
        );
    }

    #[test]
    fn exactly_one_member_selects() {
        for (value, kind) in [
            (json!({"all": true}), "all"),
            (json!({"user": "usr_00000000000000000000000001"}), "user"),
            (json!({"agent": "agt_00000000000000000000000001"}), "agent"),
            (json!({"connector": "acme-mail"}), "connector"),
            (json!({"grant": "grt_00000000000000000000000001"}), "grant"),
        ] {
            assert_eq!(read_selector(&value).unwrap().floor().0, kind);
        }
    }

    #[test]
    fn everything_else_selects_nothing() {
        for value in [
            json!({}),
            json!({"all": false}),
            json!({"all": "true"}),
            json!({"everything": true}),
            json!({"user": "agt_00000000000000000000000001"}),
            json!({"user": null}),
            json!({"user": "usr_00000000000000000000000001", "grant": "grt_00000000000000000000000001"}),
            json!({"connector": "../x"}),
        ] {
            assert_eq!(
                read_selector(&value).unwrap_err().code(),
                Code::InvalidRequest,
                "{value}"
            );
        }
    }
}
