//! A writer's start and its orderly stop are entries; a process that dies leaves a start without a stop.

use postern::{
    domain::entry::{Entry, EntryType},
    store::Selector,
};

use super::{audit::verifies, harness::World};

/// What each writer said of itself, in the order of its numbers.
async fn said(world: &World, writer: &str) -> Vec<(u64, String)> {
    let mut entries = world.entries().await;
    entries.retain(|entry| entry.kind == EntryType::Writer && entry.writer == writer);
    let mut said: Vec<_> = entries
        .into_iter()
        .map(|entry| (entry.writer_seq, entry.draft.outcome.unwrap()))
        .collect();
    said.sort_unstable();
    said
}

fn words(said: &[(u64, String)]) -> Vec<&str> {
    said.iter().map(|(_, outcome)| outcome.as_str()).collect()
}

#[tokio::test]
async fn every_writer_says_when_it_starts_and_when_it_stops() {
    let (world, grant) = World::connected().await;
    world.vend(world.read(grant)).await.unwrap();
    for writer in ["r1/hot", "r1/cold"] {
        assert_eq!(
            said(&world, writer).await,
            [(1, "started".to_owned())],
            "{writer}"
        );
    }
    world.deps.store.close().await;
    let world = world.restarted().await;
    world.vend(world.read(grant)).await.unwrap();
    let hot = said(&world, "r1/hot").await;
    assert_eq!(words(&hot), ["started", "stopped", "started"]);
    assert_eq!(hot[1].0 + 1, hot[2].0, "nothing lies between stop and start");
    assert_eq!(words(&said(&world, "r1/cold").await), ["started", "stopped"]);
    assert!(verifies(&world).await);
}

#[tokio::test]
async fn a_process_that_died_left_no_stop() {
    let (world, grant) = World::connected_on_sqlite().await;
    world.vend(world.read(grant)).await.unwrap();
    let world = world.restarted().await;
    world.vend(world.read(grant)).await.unwrap();
    assert_eq!(words(&said(&world, "r1/hot").await), ["started", "started"]);
    assert!(verifies(&world).await);
}

#[tokio::test]
async fn a_revocation_is_the_first_entry_of_its_epoch_even_right_after_a_start() {
    let (world, grant) = World::connected().await;
    let world = world.restarted().await;
    world.revoke(Selector::Grant(grant)).await;
    let entries = world.entries().await;
    let revocation: &Entry = entries
        .iter()
        .find(|entry| entry.kind == EntryType::Revoke)
        .unwrap();
    let start = entries
        .iter()
        .find(|entry| entry.writer == revocation.writer && entry.writer_seq + 1 == revocation.writer_seq)
        .unwrap();
    assert_eq!(start.kind, EntryType::Writer);
    assert_eq!(start.epoch.counter + 1, revocation.epoch.counter);
    assert!(verifies(&world).await);
}
