//! What commits in the gate's lane and what commits apart from it are two writers of the log: each misses what the other has
//! written, as a standby that is promoted without it shows.

use std::sync::Arc;

use postern::{
    domain::{GrantId, decision::UnverifiedDecision},
    flows::{Refusal, actions::Ask, decide, vend::Vended},
};
use sqlx::PgConnection;

use super::{World, vend};
use crate::leases::{connected, run, until_waiting};

/// An ask with a decision that is brought along.
async fn decided(world: &World, grant: GrantId) -> Ask {
    let ask = world.read(grant);
    let answer = decide::decide(&world.deps, world.agent, &ask).await.unwrap();
    Ask {
        decision: Some(UnverifiedDecision(answer.jws)),
        ..ask
    }
}

/// Vends while somebody is changing the org: it waits apart from the lane and commits there.
async fn vend_apart(world: &Arc<World>, changing: &mut PgConnection, ask: Ask) -> Result<Vended, Refusal> {
    let lock = format!(
        "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('{}', 0))",
        world.org
    );
    run(changing, &lock).await;
    let vending = tokio::spawn({
        let world = Arc::clone(world);
        async move { world.vend(ask).await }
    });
    until_waiting(world, 1).await;
    run(changing, "ROLLBACK").await;
    vending.await.unwrap()
}

/// Takes away whatever this process has written in one of the two.
async fn forget(world: &World, lane: &str) {
    let writer = format!("{}/{lane}", world.deps.store.replica());
    for table in ["entries", "writers"] {
        let all = format!("DELETE FROM {table} WHERE writer = '{writer}'");
        world.raw_sql(&all).await;
    }
}

fn is_given_up(world: &World, again: &Result<Vended, Refusal>) {
    assert!(matches!(again, Err(Refusal::Sealed)), "{again:?}");
    assert!(world.deps.store.has_lost_entries());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_spent_in_the_lane_and_forgotten_is_not_spent_anew_apart_from_it() {
    let (world, grant, mut changing) = connected().await;
    let ask = decided(&world, grant).await;
    world.vend(ask.clone()).await.unwrap();
    forget(&world, "hot").await;
    world.raw_sql("DELETE FROM spent").await;
    let again = vend_apart(&world, &mut changing, ask).await;
    is_given_up(&world, &again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_spent_apart_from_the_lane_and_forgotten_is_not_spent_anew_in_it() {
    let (world, grant, mut changing) = connected().await;
    let ask = decided(&world, grant).await;
    vend_apart(&world, &mut changing, ask.clone()).await.unwrap();
    forget(&world, "cold").await;
    world.raw_sql("DELETE FROM spent").await;
    let again = world.vend(ask).await;
    is_given_up(&world, &again);
}

#[tokio::test]
async fn nothing_is_released_over_a_database_that_forgot_what_was_written_beside_the_lane() {
    let (world, grant) = World::connected().await;
    vend(&world, grant).await.unwrap();
    forget(&world, "cold").await;
    let again = vend(&world, grant).await;
    is_given_up(&world, &again);
}
