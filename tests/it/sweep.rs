//! What time does by itself, against what people do at the same moment.

use std::{sync::Arc, time::Duration};

use postern::{
    domain::grant::GrantState,
    flows::{sweep, upstream},
};
use serde_json::json;

use super::harness::{Journey, World};

/// A world in which Ada's provider gave more than it was asked for.
async fn quarantined() -> World {
    let world = World::new().await;
    world
        .fault(json!({"next": "token", "widen_scope": true, "times": 1}))
        .await;
    let journey = Journey::begin(&world, world.ada, None).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    journey.come_back(&world, answer).await.unwrap_err();
    world
}

#[tokio::test]
async fn a_quarantine_that_nobody_ends_is_ended_at_the_provider_after_seven_days() {
    let world = quarantined().await;
    let issued = world.seen("token").await.pop().unwrap();
    let grant = world.grants_of(world.ada).await.pop().unwrap().id;
    let days_later = async |days: u64| {
        world.later(Duration::from_secs(days * 24 * 3600));
        sweep::run(&world.deps).await.unwrap();
        upstream::drain(&world.deps).await.unwrap();
        world.seen("revoke").await
    };
    assert_eq!(days_later(6).await, [] as [serde_json::Value; 0]);
    assert!(matches!(
        world.grant(grant).await.state,
        GrantState::Quarantined { .. }
    ));
    let ended = days_later(2).await;
    for token in ["issued_refresh_sha256", "issued_access_sha256"] {
        assert!(issued[token].is_string(), "{issued}");
        assert!(
            ended.iter().any(|call| call["token_sha256"] == issued[token]),
            "{token} was never ended: {ended:?}"
        );
    }
    assert!(matches!(
        world.grant(grant).await.state,
        GrantState::Revoked { .. }
    ));
    assert_eq!(world.secrets_of(grant).await, 0);
}

/// The sweeper has seen that the quarantine is over and waits for the database; meanwhile the person reconnects.
#[tokio::test]
async fn a_grant_reconnected_at_the_last_moment_is_not_buried() {
    let world = quarantined().await;
    let mut grant = world.grants_of(world.ada).await.pop().unwrap();
    world.later(Duration::from_secs(8 * 24 * 3600));

    let mut tx = world.deps.store.write(world.org).await.unwrap();
    let sweeping = {
        let deps = Arc::clone(&world.deps);
        tokio::spawn(async move { sweep::run(&deps).await })
    };
    // It reads without waiting and then waits for this transaction.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!sweeping.is_finished());
    grant.state = GrantState::Active;
    tx.update_grant(&grant).await.unwrap();
    tx.commit().await.unwrap();
    sweeping.await.unwrap().unwrap();
    assert_eq!(world.grant(grant.id).await.state, GrantState::Active);
}
