//! Readiness: a replica that cannot write releases nothing, and says so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use postern::{app::ready::Prober, flows::vend};

use super::harness::{World, database};

#[tokio::test]
async fn a_disk_without_room_is_an_obstacle_until_there_is_room_again() {
    let world = World::on_sqlite().await;
    let mut prober = Prober::new(Arc::clone(&world.deps));
    assert!(prober.obstacles().await.is_empty());
    let full = "CREATE TRIGGER full BEFORE UPDATE ON meta BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END";
    database::raw_sql(&world.location, full).await;
    world.later(Duration::from_secs(11));
    for _ in 0..2 {
        assert_eq!(prober.obstacles().await, ["store"]);
    }
    database::raw_sql(&world.location, "DROP TRIGGER full").await;
    assert!(prober.obstacles().await.is_empty());
}

/// Readiness reads how far a writer has come while that writer goes on: what it read may be old, and says nothing then.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_at_work_is_never_taken_for_one_that_lost_entries() {
    let (world, grant) = World::connected().await;
    let done = Arc::new(AtomicBool::new(false));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (deps, agent, ask, done) = (
            Arc::clone(&world.deps),
            world.agent,
            world.read(grant),
            Arc::clone(&done),
        );
        tasks.spawn(async move {
            while !done.load(Ordering::Relaxed) {
                vend::vend(&deps, agent, ask.clone()).await.unwrap();
            }
        });
    }
    for _ in 0..400 {
        world.deps.store.look_for_lost_entries().await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    assert!(!world.deps.store.has_lost_entries());
}

#[tokio::test]
async fn a_key_file_that_is_taken_away_is_an_obstacle_until_it_is_back() {
    let world = World::new().await;
    let mut prober = Prober::new(Arc::clone(&world.deps));
    assert!(prober.obstacles().await.is_empty());
    let (kek, away) = (world.dir.path().join("kek"), world.dir.path().join("away"));
    std::fs::rename(&kek, &away).unwrap();
    assert_eq!(prober.obstacles().await, ["keys"]);
    std::fs::rename(&away, &kek).unwrap();
    assert!(prober.obstacles().await.is_empty());
}
