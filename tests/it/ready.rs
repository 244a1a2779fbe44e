//! Readiness: a replica that cannot write releases nothing, and says so.

use std::{sync::Arc, time::Duration};

use postern::app::ready::Prober;

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
