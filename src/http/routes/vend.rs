//! `/v1/vend`: the one answer that may carry a provider's token, and the only file of this room that may read one.

use std::{collections::BTreeMap, sync::Arc};

use axum::{extract::State, response::Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::{OpenApi, ToSchema};

use super::{actions::ActionRequest, routes};
use crate::{
    connectors::FilteredBody,
    domain::{EntryId, ScopeSet, Time},
    flows::{
        Deps, Refusal,
        vend::{self, Vended},
    },
    http::{Problem, answer, caller::GatedAgent, extract::DigestedJson, openapi::VendRefused},
};

/// What a vend released.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "mode", rename_all = "lowercase")]
enum VendAnswer<'a> {
    /// Postern made the call; the agent holds nothing.
    Execute {
        /// The provider's status.
        status: u16,
        /// The headers that pass, by lower-case name.
        headers: &'a BTreeMap<String, String>,
        /// The filtered body: JSON as it is, other text as a string, null when there is none to show.
        #[schema(value_type = Object)]
        body: Value,
        /// Why `body` is null although the provider sent one: `too_large` or `binary`.
        #[serde(skip_serializing_if = "Option::is_none")]
        body_omitted: Option<&'static str>,
        /// The decision it rests on.
        decision_id: &'a str,
        /// The entry that precedes it.
        #[schema(value_type = String)]
        entry_id: EntryId,
    },
    /// A token left.
    Token {
        /// The provider's access token.
        access_token: &'a str,
        /// RFC 6750.
        token_type: &'static str,
        /// When it ends, if the provider said so.
        #[schema(value_type = Option<String>, format = DateTime)]
        expires_at: Option<Time>,
        /// What it can do.
        #[schema(value_type = Vec<String>)]
        scopes: &'a ScopeSet,
        /// `provider`: really narrowed; `none`: as wide as the grant.
        narrowed: &'static str,
        /// The decision it rests on.
        decision_id: &'a str,
        /// The entry that precedes it.
        #[schema(value_type = String)]
        entry_id: EntryId,
    },
}

/// Releases one action against a signed allow decision for exactly it.
#[utoipa::path(
    post, path = "/v1/vend", tag = "actions", operation_id = "vend",
    request_body = ActionRequest, security(("api_key" = [])),
    responses((status = 200, description = "What was released.", body = VendAnswer<'static>), VendRefused),
)]
async fn vend_action(
    State(deps): State<Arc<Deps>>,
    GatedAgent(caller): GatedAgent,
    request: DigestedJson<ActionRequest>,
) -> Result<Response, Problem> {
    let ask = request.ask()?;
    let vended = vend::vend(&deps, caller, ask)
        .await
        .map_err(Refusal::without_release)?;
    show(&vended)
}

fn show(vended: &Vended) -> Result<Response, Problem> {
    match vended {
        Vended::Executed {
            answer: filtered,
            decision,
            entry,
        } => {
            let (body, body_omitted) = match &filtered.body {
                FilteredBody::Empty => (Value::Null, None),
                FilteredBody::Json(value) => (value.clone(), None),
                FilteredBody::Text(text) => (Value::String(text.clone()), None),
                FilteredBody::TooLarge => (Value::Null, Some("too_large")),
                FilteredBody::Binary => (Value::Null, Some("binary")),
            };
            answer::ok(&VendAnswer::Execute {
                status: filtered.status,
                headers: &filtered.headers,
                body,
                body_omitted,
                decision_id: decision,
                entry_id: *entry,
            })
        }
        Vended::Token {
            token,
            expires_at,
            scopes,
            narrowed,
            decision,
            entry,
        } => answer::ok(&VendAnswer::Token {
            // SECURITY: a receipt preceded this; the answer is `no-store` and is kept nowhere.
            access_token: token.expose_secret(),
            token_type: "Bearer",
            expires_at: *expires_at,
            scopes,
            narrowed: if *narrowed { "provider" } else { "none" },
            decision_id: decision,
            entry_id: *entry,
        }),
    }
}

#[derive(OpenApi)]
#[openapi(paths(vend_action), components(schemas(VendAnswer<'static>)))]
pub(in crate::http) struct Api;

routes! {
    post "/v1/vend" [Agent] => vend_action;
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::json;

    use super::*;
    use crate::{connectors::FilteredResponse, domain::secret::AccessToken};

    async fn shown(vended: Vended) -> (Option<String>, Value) {
        let response = show(&vended).unwrap();
        let cache = response.headers().get("cache-control").cloned();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (
            cache.map(|value| value.to_str().unwrap().to_owned()),
            serde_json::from_slice(&bytes).unwrap(),
        )
    }

    fn token(narrowed: bool) -> Vended {
        Vended::Token {
            token: AccessToken::new("tok".to_owned()),
            expires_at: Some(Time::from_unix_seconds(0)),
            scopes: ScopeSet::parse("mail.read", ' ').unwrap(),
            narrowed,
            decision: "dec_x".to_owned(),
            entry: EntryId::from_bytes([0; 16]),
        }
    }

    fn executed(body: FilteredBody) -> Vended {
        Vended::Executed {
            answer: FilteredResponse {
                status: 200,
                success: true,
                headers: BTreeMap::from([("content-type".to_owned(), "application/json".to_owned())]),
                body,
            },
            decision: "dec_x".to_owned(),
            entry: EntryId::from_bytes([0; 16]),
        }
    }

    #[tokio::test]
    async fn a_narrowed_token_is_answered_as_the_protocol_says() {
        let (cache, body) = shown(token(true)).await;
        assert_eq!(cache.as_deref(), Some("no-store"));
        assert_eq!(
            body,
            json!({
                "mode": "token", "access_token": "tok", "token_type": "Bearer",
                "expires_at": "1970-01-01T00:00:00.000Z", "scopes": ["mail.read"], "narrowed": "provider",
                "decision_id": "dec_x", "entry_id": "ent_00000000000000000000000000"
            })
        );
    }

    #[tokio::test]
    async fn a_raw_token_is_labelled_as_not_narrowed() {
        assert_eq!(shown(token(false)).await.1["narrowed"], "none");
    }

    #[tokio::test]
    async fn a_call_is_answered_with_what_came_back() {
        let (cache, body) = shown(executed(FilteredBody::Json(json!({"id": 1})))).await;
        assert_eq!(cache.as_deref(), Some("no-store"));
        assert_eq!(
            body,
            json!({
                "mode": "execute", "status": 200, "headers": {"content-type": "application/json"},
                "body": {"id": 1}, "decision_id": "dec_x", "entry_id": "ent_00000000000000000000000000"
            })
        );
    }

    #[tokio::test]
    async fn a_body_that_is_not_kept_says_so() {
        assert_eq!(
            shown(executed(FilteredBody::TooLarge)).await.1["body_omitted"],
            "too_large"
        );
        assert_eq!(
            shown(executed(FilteredBody::Binary)).await.1["body_omitted"],
            "binary"
        );
        assert_eq!(shown(executed(FilteredBody::Empty)).await.1["body"], Value::Null);
    }
}
