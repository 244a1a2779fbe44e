//! Over PostgreSQL nothing waits for ever: who stands behind a lock or a slow statement is told so, has done nothing, and is
//! served when the way is free.

use std::time::{Duration, Instant};

use postern::{flows::Refusal, store::StoreError};

use super::leases::{connected, run};

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
    run(
        &mut other,
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
         CREATE TRIGGER dawdle BEFORE INSERT ON entries FOR EACH ROW EXECUTE FUNCTION dawdle()",
    )
    .await;
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
