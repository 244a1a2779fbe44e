//! Policies of one's own, from the admin's document to the answer of `/v1/vend`: three layers, and each only closes.

use std::{sync::Arc, time::Duration};

use postern::{
    domain::{GrantId, Mode, connector::Category, entry::EntryType},
    flows::{actions::Caller, apply, found},
};
use serde_json::{Value, json};

use super::harness::{Answer, World, agent_with, log_in};

/// Allows everything that needs no permit of its own.
const OPEN: &str = "permit (principal, action, resource);";
const NAMED: &str = r#"permit (principal, action == Action::"acme-mail:http.request", resource);"#;

/// A world with these policies, and what Ada lets the agent do in it.
async fn ruled(org: &str, agent: &str, delegated: &[Category]) -> (World, GrantId) {
    let world = World::with_policies(org, agent).await;
    let grant = world.connect(world.ada, delegated).await;
    (world, grant)
}

fn list(grant: GrantId) -> Value {
    json!({"grant": grant, "tool": "messages.list", "args": {"limit": 3}})
}

fn list_token(grant: GrantId) -> Value {
    json!({"grant": grant, "tool": "messages.list", "args": {"limit": 3}, "mode": "token"})
}

fn generic(grant: GrantId, path: &str) -> Value {
    json!({"grant": grant, "tool": "http.request", "args": {"method": "GET", "path": path}})
}

async fn vend(world: &World, body: &Value) -> Answer {
    world.api().post(&world.as_agent(), "/v1/vend", body).await
}

/// The reason of a denial at which the provider saw nothing.
async fn denied(world: &World, body: &Value) -> String {
    let before = world.seen("api").await.len();
    let answer = vend(world, body).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "denied"),
        "{}",
        answer.text()
    );
    assert_eq!(world.seen("api").await.len(), before);
    answer.json()["reason"].as_str().unwrap().to_owned()
}

/// The modes that were left when a token was not to be had.
async fn no_token(world: &World, grant: GrantId) -> Value {
    let answer = vend(world, &list_token(grant)).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (422, "mode_unavailable"),
        "{}",
        answer.text()
    );
    answer.json()["modes"].clone()
}

async fn released(world: &World, body: &Value) -> Value {
    let answer = vend(world, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Ada delegates anew in her own session.
async fn delegate(world: &World, grant: GrantId, what: Value) {
    let ada = log_in(&world.deps, world.org, world.ada).await;
    let mut body = json!({"agent": world.agent.agent, "grant": grant});
    body.as_object_mut()
        .unwrap()
        .extend(what.as_object().unwrap().clone());
    let answer = world.api().post(&ada, "/v1/delegations", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
}

#[tokio::test]
async fn what_all_three_layers_allow_is_executed() {
    let (world, grant) = ruled(OPEN, OPEN, &[Category::Read]).await;
    assert_eq!(released(&world, &list(grant)).await["mode"], "execute");
}

#[tokio::test]
async fn without_policies_everything_is_denied() {
    let (world, grant) = ruled("", "", &Category::ALL).await;
    assert_eq!(denied(&world, &list(grant)).await, "not_permitted");
}

#[tokio::test]
async fn an_agent_without_a_permit_is_denied_what_the_organisation_allows() {
    let agent = r#"permit (principal, action in Action::"write", resource);"#;
    let (world, grant) = ruled(OPEN, agent, &Category::ALL).await;
    assert_eq!(denied(&world, &list(grant)).await, "not_permitted");
}

#[tokio::test]
async fn an_organisation_without_a_permit_denies_what_the_agent_is_built_for() {
    let org = r#"permit (principal, action in Action::"write", resource);"#;
    let (world, grant) = ruled(org, OPEN, &Category::ALL).await;
    assert_eq!(denied(&world, &list(grant)).await, "not_permitted");
}

#[tokio::test]
async fn a_delegation_of_another_category_denies_what_organisation_and_agent_allow() {
    let (world, grant) = ruled(OPEN, OPEN, &[Category::Write]).await;
    assert_eq!(denied(&world, &list(grant)).await, "not_delegated");
}

const ASKS_A_HUMAN: &str = r#"
    permit (principal, action, resource);
    @escalate("user") @reason("needs_a_yes")
    forbid (principal, action in Action::"read", resource) unless { context.approvals.contains("user") };"#;

#[tokio::test]
async fn a_forbid_that_an_approval_would_lift_denies_with_approval_required() {
    let (world, grant) = ruled(ASKS_A_HUMAN, OPEN, &[Category::Read]).await;
    assert_eq!(denied(&world, &list(grant)).await, "approval_required");
}

#[tokio::test]
async fn a_forbid_that_an_approval_would_lift_is_an_escalate_of_decisions() {
    let (world, grant) = ruled(ASKS_A_HUMAN, OPEN, &[Category::Read]).await;
    let asked = world.api();
    let asked = asked.post(&world.as_agent(), "/v1/decisions", &list(grant)).await;
    assert_eq!(
        (asked.status, &asked.json()["outcome"]),
        (200, &json!("escalate"))
    );
}

/// Nobody is asked in vain.
#[tokio::test]
async fn a_forbid_that_nobody_lifts_wins_over_one_that_an_approval_would() {
    let org =
        format!(r#"{ASKS_A_HUMAN} @reason("never") forbid (principal, action in Action::"read", resource);"#);
    let (world, grant) = ruled(&org, OPEN, &[Category::Read]).await;
    assert_eq!(denied(&world, &list(grant)).await, "never");
}

#[tokio::test]
async fn a_permit_with_a_budget_denies_in_any_layer() {
    let limited = r#"@limit("20/h") permit (principal, action, resource);"#;
    for (org, agent) in [(limited, OPEN), (OPEN, limited)] {
        let (world, grant) = ruled(org, agent, &[Category::Read]).await;
        assert_eq!(denied(&world, &list(grant)).await, "budget_unsupported");
    }
}

/// Plain Cedar skips a policy that fails, which would open what this one closes.
#[tokio::test]
async fn a_forbid_that_cannot_be_evaluated_denies() {
    let overflows = r"
        permit (principal, action, resource);
        forbid (principal, action, resource) when { context.time.unix_s * 9223372036854775807 > 0 };";
    let (world, grant) = ruled(overflows, OPEN, &[Category::Read]).await;
    assert_eq!(denied(&world, &list(grant)).await, "policy_error");
}

fn tokens(annotations: &str) -> String {
    format!("{annotations} permit (principal, action, resource);")
}

#[tokio::test]
async fn a_token_is_to_be_had_where_both_files_say_so() {
    let says_so = tokens(r#"@modes("token")"#);
    let (world, grant) = ruled(&says_so, &says_so, &[Category::Read]).await;
    let body = released(&world, &list_token(grant)).await;
    assert_eq!(
        (&body["mode"], &body["narrowed"]),
        (&json!("token"), &json!("provider"))
    );
}

#[tokio::test]
async fn a_token_is_not_to_be_had_where_one_file_is_silent() {
    let says_so = tokens(r#"@modes("execute,token")"#);
    for (org, agent) in [(says_so.as_str(), OPEN), (OPEN, says_so.as_str())] {
        let (world, grant) = ruled(org, agent, &[Category::Read]).await;
        assert_eq!(no_token(&world, grant).await, json!(["execute"]));
    }
}

#[tokio::test]
async fn a_token_that_lives_as_long_as_max_ttl_is_released() {
    let five_minutes = tokens(r#"@modes("execute,token") @max_ttl("5m")"#);
    let (world, grant) = ruled(&five_minutes, &five_minutes, &[Category::Read]).await;
    released(&world, &list_token(grant)).await;
}

/// Acme Mail's tokens live five minutes, and a token that has left cannot be called back.
#[tokio::test]
async fn a_token_that_outlives_the_max_ttl_of_any_layer_is_unavailable() {
    let wide = tokens(r#"@modes("execute,token") @max_ttl("1h")"#);
    let short = tokens(r#"@modes("execute,token") @max_ttl("299")"#);
    for (org, agent) in [(&short, &wide), (&wide, &short)] {
        let (world, grant) = ruled(org, agent, &[Category::Read]).await;
        assert_eq!(no_token(&world, grant).await, json!(["execute"]));
    }
}

async fn raw_only() -> (World, GrantId) {
    let raw = tokens(r#"@modes("raw")"#);
    ruled(&raw, &raw, &[Category::Read]).await
}

#[tokio::test]
async fn no_raw_token_is_released_without_the_persons_own_yes() {
    let (world, grant) = raw_only().await;
    assert_eq!(no_token(&world, grant).await, json!([]));
}

#[tokio::test]
async fn a_raw_token_is_labelled_as_what_it_is() {
    let (world, grant) = raw_only().await;
    delegate(&world, grant, json!({"categories": ["read"], "raw": true})).await;
    let body = released(&world, &list_token(grant)).await;
    assert_eq!(body["narrowed"], "none");
    assert_eq!(body["scopes"], json!(world.grant(grant).await.scopes));
    let entries = world.entries().await;
    let release = entries.iter().find(|entry| entry.kind == EntryType::Release);
    assert_eq!(release.unwrap().draft.mode, Some(Mode::Raw));
}

#[tokio::test]
async fn a_raw_token_is_not_to_be_had_where_only_the_person_says_so() {
    let (world, grant) = ruled(OPEN, OPEN, &[Category::Read]).await;
    delegate(&world, grant, json!({"categories": ["read"], "raw": true})).await;
    assert_eq!(no_token(&world, grant).await, json!(["execute"]));
}

/// The same, and of all tools Ada lets the agent use the generic one only.
async fn generic_delegated(org: &str, agent: &str) -> (World, GrantId) {
    let (world, grant) = ruled(org, agent, &Category::ALL).await;
    delegate(
        &world,
        grant,
        json!({"categories": [], "tools": ["http.request"]}),
    )
    .await;
    (world, grant)
}

#[tokio::test]
async fn the_generic_tool_is_called_where_every_layer_names_it() {
    let (world, grant) = generic_delegated(NAMED, NAMED).await;
    let body = released(&world, &generic(grant, "/api/labels")).await;
    // Acme Mail has no labels: it was asked, and said so.
    assert_eq!((&body["mode"], &body["status"]), (&json!("execute"), &json!(404)));
}

#[tokio::test]
async fn an_open_permit_does_not_permit_the_generic_tool() {
    for (org, agent) in [(OPEN, NAMED), (NAMED, OPEN)] {
        let (world, grant) = generic_delegated(org, agent).await;
        assert_eq!(
            denied(&world, &generic(grant, "/api/labels")).await,
            "not_permitted"
        );
    }
}

#[tokio::test]
async fn a_delegation_of_every_category_does_not_delegate_the_generic_tool() {
    let (world, grant) = ruled(NAMED, NAMED, &Category::ALL).await;
    assert_eq!(
        denied(&world, &generic(grant, "/api/labels")).await,
        "not_delegated"
    );
}

#[tokio::test]
async fn the_generic_tool_is_refused_on_the_path_of_a_typed_action() {
    let (world, grant) = generic_delegated(NAMED, NAMED).await;
    let before = world.seen("api").await.len();
    for path in ["/api/messages", "/api/messages/msg-ada-1", "/api/drafts"] {
        let answer = vend(&world, &generic(grant, path)).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_args"));
        assert_eq!(answer.json()["errors"][0]["pointer"], "/args/path", "{path}");
    }
    assert_eq!(world.seen("api").await.len(), before);
}

/// One more org, with these policies for its one agent.
async fn org_with(world: &World, name: &str, policies: &[String]) -> Caller {
    let founded = found::found(&world.deps, name, "eve@other.example")
        .await
        .unwrap();
    let document = toml::to_string(&json!({
        "agent": [{"name": "Mail Assistant"}],
        "policies": {"org": [OPEN], "agent": policies},
    }))
    .unwrap();
    let applied = apply::apply(&world.deps, founded.org, "test".to_owned(), &document)
        .await
        .unwrap();
    agent_with(&world.deps, &applied.keys[0].key).await
}

/// What is remembered of an agent is small, its org's policies need not be: 50 times their texts.
#[tokio::test]
async fn policies_that_are_given_up_are_not_kept_by_what_is_remembered_of_agents() {
    let world = World::new().await;
    // Of three such orgs two are held.
    let long = vec![format!("{OPEN}\n//{}", "x".repeat(60_000)); 15];
    let (mut callers, mut sets) = (Vec::new(), Vec::new());
    for name in ["Alpha", "Beta", "Gamma"] {
        let caller = org_with(&world, name, &long).await;
        let view = world
            .deps
            .facts
            .agent(&world.deps, caller.org, caller.agent)
            .await;
        sets.push(Arc::downgrade(view.unwrap().policies.as_ref().unwrap()));
        callers.push(caller);
    }
    // It is taken apart a moment later.
    let given_up = async {
        while sets[0].strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    let given_up = tokio::time::timeout(Duration::from_secs(10), given_up).await;
    assert!(given_up.is_ok(), "somebody keeps them");
    assert!(sets[1..].iter().all(|set| set.strong_count() > 0));
    let caller = callers[0];
    let again = world
        .deps
        .facts
        .agent(&world.deps, caller.org, caller.agent)
        .await;
    assert!(again.unwrap().policies.is_some());
}
