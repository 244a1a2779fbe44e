//! The generic tool. Nobody knows whether what is behind any address takes a person's token at all: that it was refused there is
//! an answer, and ends no connection.

use std::{sync::Arc, time::Duration};

use postern::{
    domain::{GrantId, connector::Category, grant::GrantState},
    flows::refresh::{Want, ensure},
};
use serde_json::{Value, json};

use super::{dead, outcomes, release};
use crate::harness::{Answer, World, log_in};

async fn world() -> World {
    let policy = r#"permit (principal, action == Action::"acme-mail:http.request", resource);"#;
    World::with_policies(policy, policy).await
}

/// Ada connects Acme Mail and lets the agent call any address there.
async fn connect(world: &World) -> GrantId {
    let grant = world.connect(world.ada, &[Category::Read]).await;
    let ada = log_in(&world.deps, world.org, world.ada).await;
    let delegation = json!({
        "agent": world.agent.agent, "grant": grant, "categories": [], "tools": ["http.request"],
    });
    let answer = world.api().post(&ada, "/v1/delegations", &delegation).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    grant
}

fn body(grant: GrantId) -> Value {
    let args = json!({"method": "GET", "path": "/api/labels"});
    json!({"grant": grant, "tool": "http.request", "args": args})
}

async fn call(world: &World, grant: GrantId) -> Answer {
    world
        .api()
        .post(&world.as_agent(), "/v1/vend", &body(grant))
        .await
}

/// What the provider said is what the agent is told.
fn assert_answered(answer: &Answer) {
    assert_eq!(
        (answer.status, &answer.json()["status"]),
        (200, &json!(401)),
        "{}",
        answer.text()
    );
}

/// How often Acme Mail was called and how often it was asked for tokens.
async fn seen(world: &World) -> (usize, usize) {
    (world.seen("api").await.len(), world.seen("token").await.len())
}

#[tokio::test]
async fn a_fresh_token_that_is_refused_to_the_generic_tool_is_an_answer_and_ends_nothing() {
    let world = world().await;
    let grant = connect(&world).await;
    let before = world.seen("api").await.len();
    world.fault(dead(0)).await;
    world.fault(dead(0)).await;
    assert_answered(&call(&world, grant).await);
    assert_eq!(world.seen("api").await.len(), before + 2);
    assert_eq!(world.grant(grant).await.state, GrantState::Active);
    assert_eq!(
        outcomes(&world, release(&world).await).await,
        [("failed".to_owned(), Some("http_401".to_owned()))]
    );
    // And is not asked about with one fresh token after the other.
    let tokens = world.seen("token").await.len();
    world.fault(dead(0)).await;
    assert_answered(&call(&world, grant).await);
    assert_eq!(world.seen("token").await.len(), tokens);
}

/// GitHub and Slack may give tokens that do not end, and no refresh token with them.
#[tokio::test]
async fn a_grant_without_a_refresh_token_is_not_ended_by_what_an_address_answers() {
    let world = world().await;
    world
        .fault(json!({"next": "token", "grant_type": "authorization_code", "omit": ["refresh_token"]}))
        .await;
    let grant = connect(&world).await;
    assert!(!world.grant(grant).await.has_refresh_token);
    let (calls, tokens) = seen(&world).await;
    world.fault(dead(0)).await;
    assert_answered(&call(&world, grant).await);
    assert_eq!(seen(&world).await, (calls + 1, tokens));
    assert_eq!(world.grant(grant).await.state, GrantState::Active);
    assert_eq!(
        outcomes(&world, release(&world).await).await,
        [("failed".to_owned(), Some("http_401".to_owned()))]
    );
}

/// Another replica, called at the same address, was faster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_somebody_else_renewed_and_that_is_refused_is_an_answer_too() {
    let world = Arc::new(world().await);
    let grant = connect(&world).await;
    let (calls, tokens) = seen(&world).await;
    world.fault(dead(4000)).await;
    world.fault(dead(0)).await;
    let calling = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { call(&world, grant).await })
    };
    world.until_seen("api", calls + 1).await;
    let held = world.grant(grant).await;
    let than = Some(held.generation);
    ensure(&world.deps, &held, Want::Renewed { than }).await.unwrap();
    assert!(!calling.is_finished(), "it was answered before that");
    assert_answered(&calling.await.unwrap());
    assert_eq!(seen(&world).await, (calls + 2, tokens + 1));
    // Nor is it asked about with one more.
    world.fault(dead(0)).await;
    assert_answered(&call(&world, grant).await);
    assert_eq!(seen(&world).await, (calls + 3, tokens + 1));
    assert_eq!(world.grant(grant).await.state, GrantState::Active);
}

/// The token may have been dead: with another one the address may have answered otherwise.
#[tokio::test]
async fn a_call_whose_token_could_not_be_renewed_is_to_be_made_again() {
    let world = world().await;
    let grant = connect(&world).await;
    let (calls, tokens) = seen(&world).await;
    world.fault(dead(0)).await;
    world.fault(json!({"next": "token", "status": 503})).await;
    let refused = call(&world, grant).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (503, "provider_unavailable")
    );
    assert_eq!(seen(&world).await, (calls + 1, tokens + 1));
    assert_eq!(
        outcomes(&world, release(&world).await).await,
        [("failed".to_owned(), Some("http_401".to_owned()))]
    );
    world.later(Duration::from_secs(60));
    let answer = call(&world, grant).await;
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!(404)));
    assert_eq!(world.grant(grant).await.state, GrantState::Active);
}

/// Whoever takes long to refuse a token would have it renewed at each call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_token_that_came_too_late_to_be_sent_is_the_next_calls() {
    let world = Arc::new(world().await);
    let grant = connect(&world).await;
    let (calls, tokens) = seen(&world).await;
    world.fault(dead(0)).await;
    world
        .fault(json!({"next": "token", "delay_ms": 2500, "after": true}))
        .await;
    let calling = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { call(&world, grant).await })
    };
    world.until_seen("token", tokens + 1).await;
    // A receipt lives for five seconds.
    world.later(Duration::from_secs(6));
    assert_answered(&calling.await.unwrap());
    assert_eq!(seen(&world).await, (calls + 1, tokens + 1));
    world.fault(dead(0)).await;
    assert_answered(&call(&world, grant).await);
    assert_eq!(seen(&world).await, (calls + 2, tokens + 1));
    assert_eq!(world.grant(grant).await.generation, 2);
}
