//! I15: the same key gives the same outcome, at most one release.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use postern::{
    domain::{EntryId, GrantId},
    flows::{Refusal, actions::Ask, sweep, vend},
    release::gate::RECEIPT_LIFE,
};
use serde_json::json;

use super::harness::{World, ask, database, token};

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
async fn a_release_may_still_become_a_refusal_and_a_refusal_stays_one() {
    let (world, grant) = World::connected().await;
    let Ok(vend::Vended::Executed { entry, .. }) = world.vend(keyed(world.read(grant), "k", "d")).await
    else {
        panic!()
    };
    // The second is the word of a release that was tried again for so long that the refusal overtook it.
    for (status, code) in [(503, "store_unavailable"), (200, "released")] {
        let mut tx = world.deps.store.write(world.org).await.unwrap();
        tx.finish_idempotency(world.org, entry, status, code)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let refused = world.vend(keyed(world.read(grant), "k", "d")).await;
        assert!(
            matches!(&refused, Err(Refusal::AlreadyReleased { entry: first, status: 503 }) if *first == entry),
            "{refused:?}"
        );
    }
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

fn outside(grant: GrantId) -> Ask {
    let args = json!({"to": ["eve@else.example"], "subject": "s", "body": "b"});
    keyed(ask(grant, "messages.send", args), "k", "d")
}

/// Everything a denial tells.
fn told(denied: Result<vend::Vended, Refusal>) -> (String, Option<String>, Option<String>, Option<EntryId>) {
    match denied {
        Err(Refusal::Denied {
            reason,
            message,
            decision,
            entry,
        }) => (reason, message, decision, entry),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_denial_is_the_same_denial_again() {
    let (world, grant) = World::connected().await;
    let first = told(world.vend(outside(grant)).await);
    assert!(first.1.is_some(), "the policy has words for the model");
    assert_eq!(told(world.vend(outside(grant)).await), first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_denials_with_one_key_are_one_denial() {
    let (world, grant) = World::connected().await;
    let world = Arc::new(world);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let world = Arc::clone(&world);
        tasks.spawn(async move { told(world.vend(outside(grant)).await) });
    }
    let mut denials = HashSet::new();
    while let Some(done) = tasks.join_next().await {
        denials.insert(done.unwrap());
    }
    assert_eq!(denials.len(), 1, "{denials:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_concurrent_calls_with_two_bodies_one_body_only_is_in_conflict() {
    let (world, grant) = World::connected().await;
    let world = Arc::new(world);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..32 {
        let world = Arc::clone(&world);
        let body = ["one", "two"][number % 2];
        tasks.spawn(async move { (body, world.vend(keyed(world.read(grant), "same", body)).await) });
    }
    let (mut winner, mut conflicts) = (None, HashSet::new());
    let mut others = HashSet::new();
    while let Some(done) = tasks.join_next().await {
        match done.unwrap() {
            (body, Ok(_)) => assert_eq!(winner.replace(body), None),
            (body, Err(Refusal::IdempotencyConflict { .. })) => drop(conflicts.insert(body)),
            (body, Err(Refusal::InProgress { .. } | Refusal::AlreadyReleased { .. })) => {
                others.insert(body);
            }
            (_, Err(other)) => panic!("{other:?}"),
        }
    }
    let winner = winner.expect("one was released");
    assert!(!conflicts.contains(winner) && conflicts.len() == 1);
    assert!(others.iter().all(|body| *body == winner), "{others:?}");
}

#[tokio::test]
async fn what_is_recorded_is_the_status_that_was_answered() {
    let (world, grant) = World::connected().await;
    // The provider calls the token dead, and then nobody renews it.
    let dead = json!({"next": "api", "status": 401, "body": "{\"error\":\"invalid_token\"}", "times": 1});
    world.fault(dead).await;
    world
        .fault(json!({"next": "token", "status": 503, "body": "down", "times": 1}))
        .await;
    let refused = world.vend(keyed(world.read(grant), "k", "d")).await;
    assert!(
        matches!(refused, Err(Refusal::ProviderUnavailable)),
        "{refused:?}"
    );
    let again = world.vend(keyed(world.read(grant), "k", "d")).await;
    assert!(
        matches!(again, Err(Refusal::AlreadyReleased { status: 503, .. })),
        "{again:?}"
    );
}

/// The database fails between a release and what is written of it.
#[tokio::test]
async fn a_key_that_cannot_be_finished_is_finished_when_the_database_is_whole_again() {
    let (world, grant) = World::connected().await;
    let world = Arc::new(world);
    let before = world.seen("api").await.len();
    world.fault(json!({"next": "api", "delay_ms": 1_000})).await;
    let vending = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.vend(keyed(world.read(grant), "k", "d")).await })
    };
    world.until_seen("api", before + 1).await;
    database::raw_sql(
        &world.location,
        "ALTER TABLE idempotency RENAME COLUMN code TO away",
    )
    .await;
    vending.await.unwrap().unwrap();
    database::raw_sql(
        &world.location,
        "ALTER TABLE idempotency RENAME COLUMN away TO code",
    )
    .await;
    let whole = Instant::now();
    loop {
        match world.vend(keyed(world.read(grant), "k", "d")).await {
            Err(Refusal::AlreadyReleased { status: 200, .. }) => return,
            Err(Refusal::InProgress { .. }) if whole.elapsed() < Duration::from_secs(30) => {}
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A process that died between a token's commit and what is written at its key leaves nothing but the key.
#[tokio::test]
async fn a_key_that_nobody_finishes_is_in_progress_for_seven_minutes_and_then_unknown() {
    let (world, grant) = World::connected().await;
    let again = async || world.vend(keyed(token(world.read(grant)), "k", "d")).await;
    let Ok(vend::Vended::Token { entry, .. }) = again().await else {
        panic!()
    };
    world
        .raw_sql("UPDATE idempotency SET status = NULL, code = NULL")
        .await;
    world.later(Duration::from_secs(419));
    sweep::run(&world.deps).await.unwrap();
    let first = again().await;
    assert!(
        matches!(&first, Err(Refusal::InProgress { entry: first }) if *first == entry),
        "{first:?}"
    );
    world.later(Duration::from_secs(2));
    sweep::run(&world.deps).await.unwrap();
    let then = again().await;
    assert!(
        matches!(&then, Err(Refusal::OutcomeUnknown { entry: Some(first) }) if *first == entry),
        "{then:?}"
    );
}

/// The sweeper saw a key without an end, and then it was finished.
#[tokio::test]
async fn a_key_that_is_finished_at_the_last_moment_is_not_given_up() {
    let (world, grant) = World::connected().await;
    let Ok(vend::Vended::Executed { entry, .. }) = world.vend(keyed(world.read(grant), "k", "d")).await
    else {
        panic!()
    };
    let mut tx = world.deps.store.write(world.org).await.unwrap();
    assert!(!tx.give_up_idempotency(world.org, entry).await.unwrap());
    tx.commit().await.unwrap();
    let again = world.vend(keyed(world.read(grant), "k", "d")).await;
    assert!(
        matches!(&again, Err(Refusal::AlreadyReleased { entry: first, status: 200 }) if *first == entry),
        "{again:?}"
    );
}

/// The process is stopped somewhere between a token's commit and its answer; whatever was answered is what is kept.
#[tokio::test]
async fn a_token_that_was_dropped_is_recorded_as_dropped() {
    let (world, grant) = World::connected().await;
    let world = Arc::new(world);
    world.vend(token(world.read(grant))).await.unwrap();
    for round in 0..200 {
        let key = format!("k{round}");
        let stopped = world.deps.store.write(world.org).await.unwrap();
        let vending = {
            let (world, key) = (Arc::clone(&world), key.clone());
            tokio::spawn(async move { world.vend(keyed(token(world.read(grant)), &key, "d")).await })
        };
        // It waits at the gate for the one writer, or is on its way there.
        tokio::time::sleep(Duration::from_millis(20)).await;
        world.later(RECEIPT_LIFE);
        drop(stopped);
        let first = vending.await.unwrap();
        let again = world.vend(keyed(token(world.read(grant)), &key, "d")).await;
        let (left, kept) = match (first, again) {
            (Ok(_), Err(Refusal::AlreadyReleased { status, .. })) => (true, status),
            (Err(Refusal::TooLate), Err(Refusal::AlreadyReleased { status, .. })) => (false, status),
            other => panic!("{other:?}"),
        };
        assert_eq!(kept, if left { 200 } else { 503 });
        if !left {
            return;
        }
    }
    panic!("no receipt ever died");
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
