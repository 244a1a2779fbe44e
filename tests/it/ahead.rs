//! Renewing before anybody waits: what is in use, and what would die of idleness.

use std::time::Duration;

use postern::{domain::connector::Category, flows::refresh::ahead};

use super::harness::World;

#[tokio::test]
async fn a_token_in_use_is_renewed_before_anybody_waits_for_it() {
    let (world, grant) = World::connected().await;
    world.vend(world.read(grant)).await.unwrap();
    // Just connected: it is looked at, and its time set.
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 1);
    assert_eq!(
        ahead::look(&world.deps).await.unwrap(),
        0,
        "its time has not come"
    );
    let before = world.seen("token").await.len();
    // Acme Mail's tokens live 300 s; the last 30 s a vend would renew it itself.
    world.later(Duration::from_secs(265));
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 1);
    world.until_seen("token", before + 1).await;
    world.until_generation(grant, 2).await;
    world.later(Duration::from_secs(100));
    world.vend(world.read(grant)).await.unwrap();
    assert_eq!(
        world.seen("token").await.len(),
        before + 1,
        "the vend found it renewed"
    );
}

#[tokio::test]
async fn a_token_nobody_uses_is_left_to_end() {
    let (world, _) = World::connected().await;
    ahead::look(&world.deps).await.unwrap();
    let before = world.seen("token").await.len();
    for _ in 0..100 {
        world.later(Duration::from_secs(60));
        ahead::look(&world.deps).await.unwrap();
    }
    assert_eq!(world.seen("token").await.len(), before);
}

#[tokio::test]
async fn a_grant_that_would_die_of_idleness_is_kept_alive() {
    let world = World::with_connector(&[("rotates = true", "rotates = true\nidle_days = 30")]).await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    // Connecting lets it be looked at; a renewal says itself when that is to be.
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 1, "its token ends first");
    for generation in 2..6 {
        assert_eq!(ahead::look(&world.deps).await.unwrap(), 0, "nothing is due yet");
        world.later(days(1));
        assert_eq!(ahead::look(&world.deps).await.unwrap(), 1, "and nobody used it");
        world.later(days(13));
        assert_eq!(
            ahead::look(&world.deps).await.unwrap(),
            0,
            "not half the time has passed"
        );
        world.later(days(9));
        assert_eq!(ahead::look(&world.deps).await.unwrap(), 1);
        world.until_generation(grant, generation).await;
    }
    // 92 days.
    world.vend(world.read(grant)).await.unwrap();
}

/// A silent provider fills the room that a replica has for it; the rest is left as it is, to those who have some.
#[tokio::test]
async fn a_replica_without_room_leaves_what_is_due_to_another() {
    let world = World::on_postgres().await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    world.vend(world.read(grant)).await.unwrap();
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 1, "its time is set");
    let other = world.replica().await.unwrap();
    let connector = world.deps.catalogue.get(&"acme-mail".parse().unwrap()).unwrap();
    let mut rooms: Vec<_> = std::iter::from_fn(|| world.deps.flights.take_room(connector)).collect();
    world.later(Duration::from_secs(265));
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 0);
    assert_eq!(ahead::look(&other).await.unwrap(), 1);
    world.until_generation(grant, 2).await;
    // And with room for one it looks at one.
    rooms.pop();
    let more = world.connect(world.ben, &[Category::Read]).await;
    assert_ne!(more, grant);
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 1);
}

fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 3600)
}
