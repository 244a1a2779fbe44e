//! `/v1/actions` and `/v1/decisions`: the question of a vend without its release. The body of all three is read here.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{OpenApi, ToSchema};

use super::routes;
use crate::{
    crypto::{Gate, digest},
    domain::{
        Action, DecisionId, EntryId, Mode, Time,
        connector::Category,
        decision::{Outcome, UnverifiedDecision},
    },
    flows::{
        Deps, Refusal,
        actions::{Ask, Target},
        decide, describe,
    },
    http::{
        Problem,
        answer::{self, to_its_end},
        caller::Agent,
        extract::{DigestedJson, line, read},
        openapi::VendRefused,
    },
};

/// What an agent wants to do: the body of vend, decisions and actions.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ActionRequest {
    /// With this grant; or name `connector` and `user`.
    #[schema(example = "grt_01h2xcejqtf2nbrexx3vqjhp41")]
    grant: Option<String>,
    /// At this connector, with the person's own grant.
    #[schema(example = "acme-mail")]
    connector: Option<String>,
    /// Whose.
    #[schema(example = "usr_01h2xcejqtf2nbrexx3vqjhp41")]
    user: Option<String>,
    /// Which of several accounts: the provider's id, the account's name, or the grant's label.
    account: Option<String>,
    /// The tool.
    #[schema(example = "messages.send")]
    tool: String,
    /// Its arguments.
    #[schema(value_type = Object)]
    args: Value,
    /// `execute`, `handle` or `token`; absent: the best there is.
    mode: Option<String>,
    /// How long a released token is needed, seconds.
    #[schema(minimum = 1)]
    ttl_s: Option<u64>,
    /// A decision signed elsewhere, as compact JWS.
    decision: Option<String>,
    /// What the caller claims, for policy under `context.claimed`; an object of at most 4 KiB.
    #[schema(value_type = Option<Object>)]
    context: Option<Value>,
    /// The caller's own name for its run; evidence only.
    run: Option<String>,
    /// The same key gives the same outcome for 24 hours; used by vend.
    #[schema(max_length = 128)]
    idempotency_key: Option<String>,
}

impl DigestedJson<ActionRequest> {
    /// The question in the words of the flows.
    ///
    /// # Errors
    /// 400 with a pointer to what is not as the protocol says.
    pub(super) fn ask(self) -> Result<Ask, Problem> {
        let Self { body, raw } = self;
        let target = match (body.grant, body.connector, body.user, body.account) {
            (Some(grant), None, None, None) => Target::Grant(read("/grant", &grant)?),
            (None, Some(connector), Some(user), account) => Target::Account {
                connector: read("/connector", &connector)?,
                user: read("/user", &user)?,
                account: account.map(|text| line("/account", text, 512)).transpose()?,
            },
            _ => {
                return Err(Problem::invalid(
                    "",
                    "name either `grant`, or `connector` and `user` (and `account`)",
                ));
            }
        };
        if body.ttl_s == Some(0) {
            return Err(Problem::invalid("/ttl_s", "at least 1"));
        }
        let key = body.idempotency_key.map(|key| line("/idempotency_key", key, 128));
        Ok(Ask {
            target,
            tool: line("/tool", body.tool, 200)?,
            args: body.args,
            mode: body.mode.as_deref().map(mode).transpose()?,
            ttl_s: body.ttl_s,
            decision: body.decision.map(UnverifiedDecision),
            context: body.context.map(context).transpose()?,
            run: body.run.map(|run| line("/run", run, 128)).transpose()?,
            idempotency: key
                .transpose()?
                .map(|key| (key, digest::hex(&digest::sha256(&raw)))),
        })
    }
}

/// `raw` is not asked for by name: it is what `token` may turn out to be, labelled (protocol §5).
fn mode(text: &str) -> Result<Mode, Problem> {
    [Mode::Execute, Mode::Handle, Mode::Token]
        .into_iter()
        .find(|mode| mode.as_str() == text)
        .ok_or_else(|| Problem::invalid("/mode", "one of `execute`, `handle`, `token`"))
}

/// The caller's context has a narrower gate than args: 4 KiB, no fractions (protocol §5).
fn context(value: Value) -> Result<Value, Problem> {
    if !value.is_object() {
        return Err(Problem::invalid("/context", "an object is expected"));
    }
    Gate::CONTEXT
        .check(value.to_string().as_bytes())
        .map_err(|error| {
            let pointer = error.pointer.as_deref().unwrap_or("");
            Problem::invalid(format!("/context{pointer}"), error.to_string())
        })
}

/// An action as an external signer needs it.
#[derive(Debug, Serialize, ToSchema)]
struct DescribedAction {
    /// The action, all members (protocol §3).
    #[schema(value_type = Object)]
    action: Action,
    /// Its canonical JSON (RFC 8785).
    canonical: String,
    /// base64url of the SHA-256 of those bytes.
    action_hash: String,
    /// One line on what it would do.
    summary: String,
    /// `read`, `write`, `destructive` or `admin`; null for `http.request`.
    #[schema(value_type = Option<String>)]
    category: Option<Category>,
    /// The modes a vend could use now.
    #[schema(value_type = Vec<String>)]
    modes: Vec<Mode>,
}

/// Shows the exact action without asking for it; nothing is decided or kept.
#[utoipa::path(
    post, path = "/v1/actions", tag = "actions", operation_id = "describe_action",
    request_body = ActionRequest, security(("api_key" = [])),
    responses((status = 200, description = "The action and its hash.", body = DescribedAction), VendRefused),
)]
async fn describe_action(
    State(deps): State<Arc<Deps>>,
    Agent(caller): Agent,
    request: DigestedJson<ActionRequest>,
) -> Result<Response, Problem> {
    let ask = request.ask()?;
    let describing = async move {
        let described = describe::describe(&deps, caller, &ask).await;
        described.map_err(Refusal::without_release)
    };
    let described = to_its_end(describing).await?;
    answer::ok(&DescribedAction {
        action: described.action,
        canonical: described.canonical,
        action_hash: described.action_hash,
        summary: described.summary,
        category: described.category,
        modes: described.modes.iter().collect(),
    })
}

/// A signed answer.
#[derive(Debug, Serialize, ToSchema)]
struct DecisionAnswer {
    /// Its id.
    #[schema(value_type = String)]
    decision_id: DecisionId,
    /// `allow`, `deny` or `escalate`.
    #[schema(value_type = String)]
    outcome: Outcome,
    /// The decision as compact JWS; only `allow` releases.
    decision: String,
    /// base64url of the action's SHA-256.
    action_hash: String,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Time,
    /// Stable and safe to show to a model.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// A sentence that is safe to show to a model.
    #[serde(skip_serializing_if = "Option::is_none")]
    model_message: Option<String>,
    /// The entry that keeps it.
    #[schema(value_type = String)]
    entry_id: EntryId,
}

/// Decides without releasing; a deny is an answer here.
#[utoipa::path(
    post, path = "/v1/decisions", tag = "actions", operation_id = "decide",
    request_body = ActionRequest, security(("api_key" = [])),
    responses((status = 200, description = "The signed answer.", body = DecisionAnswer), VendRefused),
)]
async fn decide_action(
    State(deps): State<Arc<Deps>>,
    Agent(caller): Agent,
    request: DigestedJson<ActionRequest>,
) -> Result<Response, Problem> {
    let ask = request.ask()?;
    let deciding = async move {
        let decided = decide::decide(&deps, caller, &ask).await;
        decided.map_err(Refusal::without_release)
    };
    let decided = to_its_end(deciding).await?;
    answer::ok(&DecisionAnswer {
        decision_id: decided.id,
        outcome: decided.outcome,
        decision: decided.jws,
        action_hash: decided.action_hash,
        expires_at: decided.expires_at,
        reason: decided.reason,
        model_message: decided.message,
        entry_id: decided.entry,
    })
}

#[derive(OpenApi)]
#[openapi(
    paths(describe_action, decide_action),
    components(schemas(ActionRequest, DescribedAction, DecisionAnswer))
)]
pub(in crate::http) struct Api;

routes! {
    post "/v1/actions" [Agent] => describe_action;
    post "/v1/decisions" [Agent] => decide_action;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::Code;

    fn ask(body: Value) -> Result<Ask, Problem> {
        let body = Gate::ARGS.from_slice(body.to_string().as_bytes()).unwrap();
        DigestedJson {
            body,
            raw: "as it came".into(),
        }
        .ask()
    }

    fn with(member: &str, value: Value) -> Value {
        let mut body = json!({"grant": "grt_00000000000000000000000001", "tool": "t", "args": {}});
        body[member] = value;
        body
    }

    #[test]
    fn a_grant_or_a_person_at_a_connector_is_named() {
        let by_grant = ask(with("ttl_s", json!(60))).unwrap();
        assert!(matches!(by_grant.target, Target::Grant(_)));
        let by_person = ask(json!({
            "connector": "acme-mail", "user": "usr_00000000000000000000000001", "account": "ada@acme.example",
            "tool": "t", "args": {}
        }))
        .unwrap();
        assert!(matches!(
            by_person.target,
            Target::Account { account: Some(_), .. }
        ));
    }

    #[test]
    fn both_or_neither_is_refused() {
        for body in [
            json!({"tool": "t", "args": {}}),
            json!({"connector": "acme-mail", "tool": "t", "args": {}}),
            json!({"user": "usr_00000000000000000000000001", "tool": "t", "args": {}}),
            with("connector", json!("acme-mail")),
            with("user", json!("usr_00000000000000000000000001")),
            with("account", json!("ada")),
        ] {
            assert_eq!(
                ask(body.clone()).unwrap_err().code(),
                Code::InvalidRequest,
                "{body}"
            );
        }
    }

    #[test]
    fn the_raw_rung_is_not_a_mode_to_ask_for() {
        for (text, good) in [
            ("execute", true),
            ("handle", true),
            ("token", true),
            ("raw", false),
            ("Execute", false),
        ] {
            assert_eq!(ask(with("mode", json!(text))).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn an_idempotency_key_comes_with_the_digest_of_the_body() {
        let ask = ask(with("idempotency_key", json!("k"))).unwrap();
        let sha256 = digest::hex(&digest::sha256(b"as it came"));
        assert_eq!(ask.idempotency, Some(("k".to_owned(), sha256)));
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        for (member, value) in [
            ("idempotency_key", json!("")),
            ("idempotency_key", json!("k".repeat(129))),
            ("idempotency_key", json!("a\nb")),
            ("ttl_s", json!(0)),
            ("context", json!([])),
            ("context", json!({"x": 1.5})),
            ("context", json!({"x": "y".repeat(4096)})),
            ("grant", json!("usr_00000000000000000000000001")),
            ("tool", json!("")),
            ("run", json!("")),
        ] {
            let code = ask(with(member, value.clone())).unwrap_err().code();
            assert_eq!(code, Code::InvalidRequest, "{member}: {value}");
        }
    }

    #[test]
    fn args_may_hold_fractions() {
        assert_eq!(
            ask(with("args", json!({"x": 1.5}))).unwrap().args,
            json!({"x": 1.5})
        );
    }
}
