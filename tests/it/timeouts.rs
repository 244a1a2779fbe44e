//! Nothing waits for ever: who stands behind a lock or a slow statement is told so, has done nothing, and is served when the
//! way is free. So is a crowd, all together: its batch is not tried one by one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use postern::{
    domain::GrantId,
    flows::Refusal,
    store::{Location, StoreError},
};
use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions};
use tokio::task::JoinSet;

use super::{
    harness::World,
    leases::{connected, run},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_a_lock_is_told_after_five_seconds() {
    let (world, grant, mut other) = connected().await;
    run(&mut other, "BEGIN; LOCK TABLE grants IN ACCESS EXCLUSIVE MODE").await;
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    let begun = Instant::now();
    let waited = tx.grant(world.org, grant).await;
    assert!(matches!(waited, Err(StoreError::Conflict)), "{waited:?}");
    let took = begun.elapsed();
    assert!(
        took > Duration::from_secs(4) && took < Duration::from_secs(9),
        "{took:?}"
    );
    drop(tx);
    run(&mut other, "COMMIT").await;
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_takes_too_long_is_ended_and_leaves_nothing_behind() {
    let (world, grant, mut other) = connected().await;
    let before = world.entries().await.len();
    run(&mut other, DAWDLE).await;
    let begun = Instant::now();
    let refused = world.vend(world.read(grant)).await;
    assert!(
        matches!(refused, Err(Refusal::StoreUnavailable(_))),
        "{refused:?}"
    );
    let took = begun.elapsed();
    assert!(
        took > Duration::from_secs(9) && took < Duration::from_secs(30),
        "{took:?}"
    );
    run(&mut other, "DROP TRIGGER dawdle ON entries").await;
    assert_eq!(world.entries().await.len(), before);
    world.vend(world.read(grant)).await.unwrap();
}

/// Many calls at once, all of which are told within this time that nothing was released.
async fn many_are_refused(world: &Arc<World>, grant: GrantId, within: Duration) {
    let (entries, calls) = (world.entries().await.len(), world.seen("api").await.len());
    let mut vends = JoinSet::new();
    for _ in 0..16 {
        let world = Arc::clone(world);
        vends.spawn(async move { world.vend(world.read(grant)).await });
    }
    let told = tokio::time::timeout(within, vends.join_all()).await;
    for refused in told.expect("not all are told in time") {
        assert!(
            matches!(
                refused,
                Err(Refusal::StoreUnavailable(Some(StoreError::Unavailable(_))))
            ),
            "{refused:?}"
        );
    }
    assert_eq!(world.entries().await.len(), entries);
    assert_eq!(world.seen("api").await.len(), calls);
}

/// As over a disk that stands still. Each by itself would take as long again, behind all before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_whose_statements_take_too_long_is_told_together() {
    let (world, grant, mut other) = connected().await;
    run(&mut other, DAWDLE).await;
    many_are_refused(&world, grant, Duration::from_secs(30)).await;
    run(&mut other, "DROP TRIGGER dawdle ON entries").await;
    world.vend(world.read(grant)).await.unwrap();
}

/// As another program does that works on the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_before_a_file_that_somebody_else_writes_to_is_told_together() {
    let (world, grant) = World::connected_on_sqlite().await;
    let world = Arc::new(world);
    let Location::Sqlite(path) = &world.location else {
        panic!()
    };
    let mut other = SqliteConnectOptions::new()
        .filename(path)
        .connect()
        .await
        .unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();
    // Two batches wait one after the other, five seconds each: the first call's, and that of all others.
    many_are_refused(&world, grant, Duration::from_secs(20)).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    world.vend(world.read(grant)).await.unwrap();
}

/// From here on an entry takes a minute.
const DAWDLE: &str = "
    CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
    CREATE TRIGGER dawdle BEFORE INSERT ON entries FOR EACH ROW EXECUTE FUNCTION dawdle()";
