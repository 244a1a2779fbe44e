//! `/v1/connect-sessions`: links by which persons connect an app, and how they end (protocol §2).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, OpenApi, ToSchema};

use super::routes;
use crate::{
    domain::{
        ConnectSessionId, GrantId, OrgId, ScopeSet, ServiceId, Time, UserId, principal::Principal,
        secret::LinkToken,
    },
    flows::{
        Deps,
        connect::{Progress, begin, complete},
        people, sight,
    },
    http::{
        Problem,
        answer::{self, to_its_end},
        caller::{Caller, wrong_principal},
        extract::{PathId, StrictJson, StrictQuery, line, read},
        openapi::{Gone, Refused},
    },
    store::{ConnectRow, ConnectStatus},
};

/// A person, by id, or by the name their host application gives them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
enum PersonRef {
    /// `usr_…`
    Id(String),
    /// With a service key: made if there is none yet.
    #[schema(value_type = ExternalPerson)]
    External(#[serde(deserialize_with = "external")] ExternalPerson),
}

/// An untagged enum hands its members on in a form of serde's own, in which an array would pass for an object again.
fn external<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<ExternalPerson, D::Error> {
    let object = serde_json::Map::deserialize(deserializer)?;
    serde_json::from_value(object.into()).map_err(serde::de::Error::custom)
}

/// A person as their host application knows them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ExternalPerson {
    /// 1 to 200 characters, never reused for another person.
    external_id: String,
}

/// What to connect.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ConnectRequest {
    /// For whom.
    user: PersonRef,
    /// At which connector.
    #[schema(example = "acme-mail")]
    connector: String,
    /// What to ask; absent: what the connector's typed actions need.
    scopes: Option<BTreeSet<String>>,
    /// Which principal of the provider to act as; this build serves the connector's usual one only.
    actor: Option<String>,
    /// The person's own name for the grant.
    label: Option<String>,
    /// The grant it renews.
    reconnect: Option<String>,
    /// Where the browser goes back to; exactly one registered for the service key.
    return_url: Option<String>,
}

/// A link to show to the person; not a login.
#[derive(Serialize, ToSchema)]
struct ConnectSession {
    /// The session.
    #[schema(value_type = String)]
    id: ConnectSessionId,
    /// The link.
    url: String,
    /// When it stops working.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Time,
}

/// Makes a link: a person for themself, a host application for the people it manages.
#[utoipa::path(
    post, path = "/v1/connect-sessions", tag = "connect", operation_id = "create_connect_session",
    request_body = ConnectRequest, security(("api_key" = []), ("session" = [])),
    responses((status = 201, description = "The link.", body = ConnectSession), Refused, Gone),
)]
async fn create(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    StrictJson(request): StrictJson<ConnectRequest>,
) -> Result<Response, Problem> {
    let wish = Wish::read(&request)?;
    let org = who.org();
    let (user, service) = person(&deps, &who, &request.user).await?;
    let ask = begin::Ask {
        user,
        connector: read("/connector", &request.connector)?,
        scopes: wish.scopes,
        label: request
            .label
            .map(|label| line("/label", label, 100))
            .transpose()?,
        reconnect: wish.reconnect,
        return_url: request.return_url,
        agent: None,
        service,
    };
    let link = to_its_end(async move { begin::create(&deps, org, ask).await }).await?;
    answer::created(&ConnectSession {
        id: link.session,
        url: link.url,
        expires_at: link.expires_at,
    })
}

/// The members that need reading before anything is looked up.
#[derive(Debug)]
struct Wish {
    scopes: Option<ScopeSet>,
    reconnect: Option<GrantId>,
}

impl Wish {
    fn read(request: &ConnectRequest) -> Result<Self, Problem> {
        if request.actor.is_some() {
            return Err(Problem::invalid(
                "/actor",
                "this build connects the connector's usual actor only",
            ));
        }
        let scopes = match &request.scopes {
            None => None,
            Some(scopes) if scopes.is_empty() => {
                return Err(Problem::invalid("/scopes", "name at least one, or leave it out"));
            }
            Some(scopes) => Some(
                ScopeSet::try_from(scopes.clone())
                    .map_err(|error| Problem::invalid("/scopes", error.to_string()))?,
            ),
        };
        let reconnect = request.reconnect.as_deref();
        Ok(Self {
            scopes,
            reconnect: reconnect.map(|id| read("/reconnect", id)).transpose()?,
        })
    }
}

/// Nobody connects in another's name: a person only themself, a service only the people it manages.
async fn person(
    deps: &Arc<Deps>,
    who: &Principal,
    named: &PersonRef,
) -> Result<(UserId, Option<ServiceId>), Problem> {
    match (who, named) {
        (Principal::User { user, .. }, PersonRef::Id(id)) => {
            let named: UserId = read("/user", id)?;
            if named == *user {
                Ok((named, None))
            } else {
                Err(Problem::not_found())
            }
        }
        (Principal::User { .. }, PersonRef::External(_)) => Err(Problem::invalid(
            "/user",
            "only a host application names people by `external_id`",
        )),
        (Principal::Service { org, service, .. }, named) => {
            let user = managed(deps, *org, *service, named).await?;
            Ok((user, Some(*service)))
        }
        (Principal::Admin { .. } | Principal::Agent { .. }, _) => Err(wrong_principal()),
    }
}

async fn managed(
    deps: &Arc<Deps>,
    org: OrgId,
    service: ServiceId,
    named: &PersonRef,
) -> Result<UserId, Problem> {
    match named {
        PersonRef::Id(id) => read("/user", id),
        PersonRef::External(person) => {
            let (deps, external_id) = (Arc::clone(deps), person.external_id.clone());
            to_its_end(async move { people::host_user(&deps, org, service, &external_id).await }).await
        }
    }
}

/// Where a connect session stands.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
struct ConnectState {
    /// The session.
    #[schema(value_type = String)]
    id: ConnectSessionId,
    /// `pending`, `awaiting_complete`, `completed`, `failed` or `expired`.
    status: &'static str,
    /// With `completed`: the grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    grant: Option<GrantId>,
    /// With `failed`: why, as a stable code.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// The person.
    #[schema(value_type = String)]
    user: UserId,
    /// When it ends by itself.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Time,
}

impl From<(ConnectRow, Progress)> for ConnectState {
    fn from((session, progress): (ConnectRow, Progress)) -> Self {
        let (status, code) = match (progress.status, progress.failure) {
            // What happens between page and provider is nobody's business but the person's.
            (
                ConnectStatus::Pending
                | ConnectStatus::Spent
                | ConnectStatus::Exchanging
                | ConnectStatus::Confirming,
                _,
            ) => ("pending", None),
            (ConnectStatus::AwaitingComplete, _) => ("awaiting_complete", None),
            (ConnectStatus::Completed, _) => ("completed", None),
            (ConnectStatus::Failed, Some(code)) if code == "expired" => ("expired", None),
            (ConnectStatus::Failed, code) => ("failed", code),
        };
        Self {
            id: progress.id,
            status,
            grant: progress.grant.filter(|_| status == "completed"),
            code,
            user: session.user,
            expires_at: session.expires_at,
        }
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct Query {
    /// Wait up to so many seconds, at most 50, for the session to come to an end.
    wait: u64,
}

/// Shows where a session stands, to those it concerns: who minted it, who asked, the person, the admin.
#[utoipa::path(
    get, path = "/v1/connect-sessions/{id}", tag = "connect", operation_id = "show_connect_session",
    params(("id" = String, Path, description = "`con_…`"), Query), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "Where it stands.", body = ConnectState), Refused),
)]
async fn show(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    PathId(id): PathId<ConnectSessionId>,
    StrictQuery(query): StrictQuery<Query>,
) -> Result<Response, Problem> {
    if query.wait > LONGEST_WAIT_S {
        return Err(Problem::invalid("?wait", format!("at most {LONGEST_WAIT_S}")));
    }
    let wait = Duration::from_secs(query.wait);
    let state = sight::connect_session(&deps, &who, id, wait).await?;
    answer::ok(&ConnectState::from(state))
}

/// Who was at the host application's browser.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Completion {
    /// The code the browser brought back.
    code: String,
    /// The person the application has logged in.
    user: PersonRef,
}

/// The grant that now lives.
#[derive(Debug, Serialize, ToSchema)]
struct Completed {
    /// The session.
    #[schema(value_type = String)]
    id: ConnectSessionId,
    /// Always `completed`.
    status: &'static str,
    /// The grant.
    #[schema(value_type = String)]
    grant: GrantId,
}

/// Activates the grant for the person the host application has logged in; any mismatch discards it.
#[utoipa::path(
    post, path = "/v1/connect-sessions/{id}/complete", tag = "connect", operation_id = "complete_connect_session",
    params(("id" = String, Path, description = "`con_…`")), request_body = Completion,
    security(("api_key" = [])),
    responses((status = 200, description = "The grant lives.", body = Completed), Refused, Gone),
)]
async fn finish(
    State(deps): State<Arc<Deps>>,
    Caller(who): Caller,
    PathId(id): PathId<ConnectSessionId>,
    StrictJson(request): StrictJson<Completion>,
) -> Result<Response, Problem> {
    let Principal::Service { org, service, .. } = who else {
        return Err(wrong_principal());
    };
    let Completion { code, user } = request;
    let user = match user {
        PersonRef::Id(id) => Some(read("/user", &id)?),
        // Nobody is made here: whoever is not known is a mismatch like any other.
        PersonRef::External(person) => {
            people::known_host_user(&deps, org, service, &person.external_id).await?
        }
    };
    // A code of another form is a mismatch like any other: it ends the session, so nobody can go on guessing.
    let code = LinkToken::new(code);
    let completed = async move { complete::complete(&deps, org, service, id, &code, user).await };
    let grant = to_its_end(completed).await?;
    answer::ok(&Completed {
        id,
        status: "completed",
        grant,
    })
}

/// Protocol §2.
const LONGEST_WAIT_S: u64 = 50;

#[derive(OpenApi)]
#[openapi(
    paths(create, show, finish),
    components(schemas(
        ConnectRequest,
        PersonRef,
        ExternalPerson,
        ConnectSession,
        ConnectState,
        Completion,
        Completed
    ))
)]
pub(in crate::http) struct Api;

routes! {
    post "/v1/connect-sessions" [User Service] => create;
    get "/v1/connect-sessions/{id}" [Admin User Service Agent] => show;
    post "/v1/connect-sessions/{id}/complete" [Service] => finish;
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{crypto::Gate, http::Code};

    fn request(member: &str, value: Value) -> Result<Wish, Problem> {
        let mut body = json!({"user": {"external_id": "4711"}, "connector": "acme-mail"});
        body[member] = value;
        let request: ConnectRequest = Gate::ARGS.from_slice(body.to_string().as_bytes()).unwrap();
        Wish::read(&request)
    }

    #[test]
    fn a_person_is_named_by_id_or_by_external_id_and_nothing_else() {
        for (user, good) in [
            (json!("usr_00000000000000000000000001"), true),
            (json!({"external_id": "4711"}), true),
            (json!({"external_id": "4711", "role": "admin"}), false),
            (json!({}), false),
            (json!(4711), false),
        ] {
            assert_eq!(
                serde_json::from_value::<PersonRef>(user.clone()).is_ok(),
                good,
                "{user}"
            );
        }
    }

    #[test]
    fn scopes_are_read_as_a_set() {
        let wish = request("scopes", json!(["mail.send", "mail.read"])).unwrap();
        assert_eq!(wish.scopes.unwrap().to_string(), "mail.read mail.send");
    }

    #[test]
    fn members_that_cannot_be_served_are_refused() {
        for (member, value) in [
            ("scopes", json!([])),
            ("scopes", json!(["a b"])),
            ("actor", json!("bot")),
            ("reconnect", json!("con_00000000000000000000000001")),
        ] {
            let code = request(member, value).unwrap_err().code();
            assert_eq!(code, Code::InvalidRequest, "{member}");
        }
    }

    fn state(status: ConnectStatus, failure: Option<&str>) -> (&'static str, bool, Option<String>) {
        let zero = Time::from_unix_seconds(0);
        let id = ConnectSessionId::from_bytes([0; 16]);
        let grant = Some(GrantId::from_bytes([1; 16]));
        let failure = failure.map(str::to_owned);
        let row = ConnectRow {
            org: OrgId::from_bytes([0; 16]),
            id,
            link_hash: [0; 32],
            user: UserId::from_bytes([0; 16]),
            connector: "acme-mail".parse().unwrap(),
            scopes: ScopeSet::default(),
            label: None,
            agent: None,
            service: None,
            return_url: None,
            reconnect: None,
            status,
            failure: failure.clone(),
            made_epoch: 1,
            created_at: zero,
            expires_at: zero,
            revoked: false,
            state_hash: None,
            browser_hash: None,
            verifier: None,
            tokens: None,
            account: None,
            granted: None,
            grant,
            code_hash: None,
            code_expires: None,
        };
        let progress = Progress {
            id,
            status,
            failure,
            grant,
        };
        let state = ConnectState::from((row, progress));
        (state.status, state.grant.is_some(), state.code)
    }

    #[test]
    fn what_happens_between_page_and_provider_shows_as_pending() {
        for status in [
            ConnectStatus::Pending,
            ConnectStatus::Spent,
            ConnectStatus::Exchanging,
            ConnectStatus::Confirming,
        ] {
            assert_eq!(state(status, None), ("pending", false, None));
        }
    }

    #[test]
    fn only_a_completed_session_names_its_grant() {
        assert_eq!(state(ConnectStatus::Completed, None), ("completed", true, None));
        assert_eq!(
            state(ConnectStatus::AwaitingComplete, None),
            ("awaiting_complete", false, None)
        );
        assert_eq!(
            state(ConnectStatus::Failed, Some("quarantined")),
            ("failed", false, Some("quarantined".to_owned()))
        );
        assert_eq!(
            state(ConnectStatus::Failed, Some("expired")),
            ("expired", false, None)
        );
    }
}
