//! I15: the same key gives the same outcome, at most one release.

use std::sync::Arc;

use postern::flows::{Refusal, actions::Ask, vend};
use serde_json::json;

use super::harness::{World, ask};

fn keyed(ask: Ask, key: &str, digest: &str) -> Ask {
    Ask {
        idempotency: Some((key.to_owned(), digest.to_owned())),
        ..ask
    }
}

#[tokio::test]
async fn a_retry_after_a_release_releases_nothing() {
    let (world, grant) = World::connected().await;
    let Ok(vend::Vended::Executed { entry, .. }) = world.vend(keyed(world.read(grant), "k", "d")).await
    else {
        panic!()
    };
    let before = world.seen("api").await.len();
    let refused = world.vend(keyed(world.read(grant), "k", "d")).await;
    assert!(
        matches!(&refused, Err(Refusal::AlreadyReleased { entry: first, status: 200 }) if *first == entry),
        "{refused:?}"
    );
    assert_eq!(world.seen("api").await.len(), before);
}

#[tokio::test]
async fn the_same_key_with_another_body_is_a_conflict() {
    let (world, grant) = World::connected().await;
    world.vend(keyed(world.read(grant), "k", "d")).await.unwrap();
    assert!(matches!(
        world.vend(keyed(world.read(grant), "k", "other")).await,
        Err(Refusal::IdempotencyConflict { .. })
    ));
}

#[tokio::test]
async fn a_denial_is_the_same_denial_again() {
    let (world, grant) = World::connected().await;
    let outside = || {
        ask(
            grant,
            "messages.send",
            json!({"to": ["eve@else.example"], "subject": "s", "body": "b"}),
        )
    };
    let Err(Refusal::Denied { reason, entry, .. }) = world.vend(keyed(outside(), "k", "d")).await else {
        panic!()
    };
    let Err(Refusal::Denied {
        reason: again,
        entry: kept,
        ..
    }) = world.vend(keyed(outside(), "k", "d")).await
    else {
        panic!()
    };
    assert_eq!((reason, entry), (again, kept));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_calls_with_one_key_release_once() {
    let (world, grant) = World::connected().await;
    let before = world.seen("api").await.len();
    let world = Arc::new(world);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let world = Arc::clone(&world);
        let ask = keyed(world.read(grant), "same", "d");
        tasks.spawn(async move { vend::vend(&world.deps, world.agent, ask).await });
    }
    let mut released = 0;
    while let Some(done) = tasks.join_next().await {
        match done.unwrap() {
            Ok(_) => released += 1,
            Err(Refusal::InProgress { .. } | Refusal::AlreadyReleased { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(released, 1);
    assert_eq!(world.seen("api").await.len(), before + 1);
}
