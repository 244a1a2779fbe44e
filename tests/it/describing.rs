//! `/v1/actions` costs what a decision costs: whoever describes is let in as whoever vends.

use std::iter;

use postern::flows::{Refusal, describe};

use super::harness::World;

#[tokio::test]
async fn who_describes_needs_a_place_and_leaves_it() {
    let (world, grant) = World::connected().await;
    let (caller, gate) = (world.agent, &world.deps.gate);
    let describe = async || describe::describe(&world.deps, caller, &world.read(grant)).await;
    let places: Vec<_> = iter::from_fn(|| gate.enter(caller.org, caller.agent).ok()).collect();
    let refused = describe().await;
    assert!(matches!(refused, Err(Refusal::RateLimited(_))), "{refused:?}");
    let count = places.len();
    drop(places);
    for _ in 0..=count {
        describe().await.unwrap();
    }
}
