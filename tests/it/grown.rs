//! What the growth of logs costs others and itself: over PostgreSQL a release waits for its end only, and each org grows by
//! all that mostly waits at once. And what this process signed last stands for nothing else.

use std::{sync::Arc, time::Duration};

use postern::{
    domain::entry::{EntryDraft, EntryType},
    flows::{audit, record, sequence},
};

use super::{
    harness::World,
    leases::{connected, run, until_waiting},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_does_not_wait_for_tiles_of_its_log_to_be_written() {
    let (world, grant, mut other) = connected().await;
    world.vend(world.read(grant)).await.unwrap();
    // They can be read.
    run(&mut other, "BEGIN; LOCK TABLE tiles IN SHARE MODE").await;
    let growing = tokio::spawn({
        let world = Arc::clone(&world);
        async move { sequence::run(&world.deps, world.org).await }
    });
    until_waiting(&world, 1).await;
    // Whoever waits for a lock is told after 5 s.
    let vended = tokio::time::timeout(Duration::from_secs(3), world.vend(world.read(grant))).await;
    run(&mut other, "COMMIT").await;
    vended.expect("a release waits for tiles").unwrap();
    assert!(growing.await.unwrap().unwrap() > 0);
}

#[tokio::test]
async fn a_hundred_of_each_of_several_orgs_get_their_places_at_once() {
    let world = World::on_postgres().await;
    let mut superuser = world.superuser().await;
    let orgs = world.orgs_with_logs(8).await;
    run(
        &mut superuser,
        "CREATE TABLE before AS SELECT org_id, entry_id FROM leaves",
    )
    .await;
    for org in &orgs {
        let mut tx = world.deps.store.write(*org).await.unwrap();
        for _ in 0..100 {
            let entry = record::open(&world.deps, EntryType::Admin, EntryDraft::default()).unwrap();
            tx.append_entry(*org, entry).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
    assert!(!sequence::round(&world.deps).await.unwrap());
    let (placed, transactions): (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(DISTINCT (l.org_id, l.xmin::text)) FROM leaves l
         WHERE NOT EXISTS (SELECT 1 FROM before b WHERE b.org_id = l.org_id AND b.entry_id = l.entry_id)",
    )
    .fetch_one(&mut superuser)
    .await
    .unwrap();
    assert_eq!((placed, transactions), (800, 8));
}

/// I6: who may write to the database and has no key cannot have a log go on from a head with another's signature.
#[tokio::test]
async fn a_head_that_was_just_signed_does_not_stand_for_one_with_an_older_signature() {
    let (world, grant) = World::connected().await;
    let older = audit::checkpoint(&world.deps, world.org).await.unwrap();
    world.vend(world.read(grant)).await.unwrap();
    let newer = audit::checkpoint(&world.deps, world.org).await.unwrap();
    world.vend(world.read(grant)).await.unwrap();
    let put = async |note: &str| {
        world
            .raw_sql(&format!("UPDATE logs SET checkpoint = '{note}'"))
            .await;
    };
    put(&older).await;
    let grown = sequence::run(&world.deps, world.org).await;
    assert!(grown.is_err(), "{grown:?}");
    put(&newer).await;
    assert!(sequence::run(&world.deps, world.org).await.unwrap() > 0);
}
