//! What is wrong with the rows of one log keeps no other from being witnessed, and nobody from starting.

use postern::{audit::witness::WitnessError, store::StoreError};

use super::*;

#[tokio::test]
async fn logs_whose_own_rows_cannot_be_read_hold_up_no_other() {
    let (world, _) = World::connected().await;
    let server = Witness::start().await;
    let orgs = world.orgs_with_logs(8).await;
    for org in &orgs {
        server.knows_log(&world, *org);
    }
    let port = server.port();
    assert_eq!(witness::round(&world.deps, &port).await.unwrap(), 8);
    let whole = orgs[3];
    world
        .raw_sql(&format!(
            "UPDATE sink_cursors SET next_index = CASE WHEN org_id = '{whole}' THEN 1 ELSE -1 END"
        ))
        .await;
    let before = server.asked.load(Ordering::Relaxed);
    let ended = witness::round(&world.deps, &port).await;
    assert!(
        matches!(
            ended,
            Err(Refusal::StoreUnavailable(Some(StoreError::Inconsistent { .. })))
        ),
        "{ended:?}"
    );
    // With what it was said to have, and with what it said.
    assert_eq!(server.asked.load(Ordering::Relaxed) - before, 2);
    let mut tx = world.deps.store.read(whole).await.unwrap();
    let size = tx.log_head(whole).await.unwrap().unwrap().size;
    let cursor = tx.sink_cursor(whole, &format!("witness:{NAME}")).await;
    assert_eq!(cursor.unwrap(), size);
}

#[tokio::test]
async fn a_log_without_its_tiles_is_shown_to_nobody_and_keeps_nobody_from_starting() {
    let (server, world, _) = started().await;
    server.is_named_by(&world);
    let port = server.port();
    assert_eq!(witness::round(&world.deps, &port).await.unwrap(), 1);
    world.raw_sql("DELETE FROM tiles").await;
    world.raw_sql("UPDATE sink_cursors SET next_index = 1").await;
    let before = server.asked.load(Ordering::Relaxed);
    let ended = witness::show(&world.deps, &port, world.org).await;
    assert!(
        matches!(ended, Err(witness::Failed::Witness(WitnessError::Unproved))),
        "{ended:?}"
    );
    let world = world.restarted().await;
    assert!(world.deps.store.is_sealed(world.org));
    assert_eq!(server.asked.load(Ordering::Relaxed), before);
}
