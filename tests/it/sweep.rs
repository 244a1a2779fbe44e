//! What time does by itself, against what people do at the same moment.

use std::{sync::Arc, time::Duration};

use postern::{domain::grant::GrantState, flows::sweep};
use serde_json::json;

use super::harness::{Journey, World};

/// The sweeper has seen that the quarantine is over and waits for the database; meanwhile the person reconnects.
#[tokio::test]
async fn a_grant_reconnected_at_the_last_moment_is_not_buried() {
    let world = World::new().await;
    world
        .fault(json!({"next": "token", "widen_scope": true, "times": 1}))
        .await;
    let journey = Journey::begin(&world, world.ada, None).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    journey.come_back(&world, answer).await.unwrap_err();
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
