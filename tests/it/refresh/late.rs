//! Answers to a refresh that come after the person connected again.

use std::{sync::Arc, time::Duration};

use postern::{
    domain::{GrantId, connector::Category},
    flows::{Refusal, upstream},
};
use serde_json::json;

use crate::harness::{Journey, World};

/// A refresh is under way; the person reconnects; only then the provider answers. Returns what it handed out.
async fn answered_after_a_reconnect(world: World, grant: GrantId) -> (Arc<World>, serde_json::Value) {
    let world = Arc::new(world);
    world.later(Duration::from_secs(400));
    world.fault(json!({"next": "token", "delay_ms": 4000})).await;
    let vending = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.vend(world.read(grant)).await.map(drop) })
    };
    world.until_seen("token", 2).await;
    let journey = Journey::begin(&world, world.ada, Some(grant)).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    journey.finish(&world, answer, &[Category::Read]).await.unwrap();
    assert!(!vending.is_finished());
    let refused = vending.await.unwrap();
    assert!(
        matches!(refused, Err(Refusal::ProviderUnavailable)),
        "{refused:?}"
    );
    upstream::drain(&world.deps).await.unwrap();
    let calls = world.seen("token").await;
    let refreshed = |call: &serde_json::Value| call["grant_type"] == "refresh_token";
    let late = calls.into_iter().find(refreshed).unwrap();
    (world, late)
}

fn ended(calls: &[serde_json::Value], late: &serde_json::Value, token: &str) -> bool {
    assert!(late[token].is_string());
    calls.iter().any(|call| call["token_sha256"] == late[token])
}

#[tokio::test]
async fn tokens_that_come_after_a_reconnect_are_ended_at_the_provider() {
    let world = World::with_connector(&[("kills = \"grant\"", "kills = \"token\"")]).await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    let (world, late) = answered_after_a_reconnect(world, grant).await;
    let calls = world.seen("revoke").await;
    for token in ["issued_refresh_sha256", "issued_access_sha256"] {
        assert!(ended(&calls, &late, token), "{token} was never ended");
    }
    assert_eq!(
        calls.len(),
        4,
        "those that the reconnect replaced, and nothing else"
    );
    let said = world.entries().await;
    assert!(
        said.iter()
            .any(|entry| entry.draft.reason.as_deref() == Some("came_too_late"))
    );
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test]
async fn tokens_that_come_after_a_reconnect_are_left_alone_where_ending_them_could_end_the_new_grant() {
    let (world, grant) = World::connected().await;
    let (world, _) = answered_after_a_reconnect(world, grant).await;
    assert_eq!(world.seen("revoke").await, [] as [serde_json::Value; 0]);
    let said = world.entries().await;
    assert!(
        said.iter()
            .any(|entry| entry.draft.reason.as_deref() == Some("not_revocable_alone"))
    );
    world.vend(world.read(grant)).await.unwrap();
}
