//! The gate under contention (I1, I15): a decision is spent once, whoever comes at the same time.

use std::sync::Arc;

use postern::{
    domain::decision::{Outcome, UnverifiedDecision},
    flows::{Refusal, decide, vend},
};

use super::harness::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_decision_presented_by_128_concurrent_vends_releases_exactly_once() {
    let (world, grant) = World::connected().await;
    let answer = decide::decide(&world.deps, world.agent, &world.read(grant))
        .await
        .unwrap();
    assert_eq!(answer.outcome, Outcome::Allow);
    let before = world.seen("api").await.len();
    let world = Arc::new(world);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..128 {
        let world = Arc::clone(&world);
        let mut ask = world.read(grant);
        ask.decision = Some(UnverifiedDecision(answer.jws.clone()));
        tasks.spawn(async move { vend::vend(&world.deps, world.agent, ask).await });
    }
    let (mut released, mut spent) = (0, 0);
    while let Some(done) = tasks.join_next().await {
        match done.unwrap() {
            Ok(_) => released += 1,
            Err(Refusal::DecisionSpent { .. }) => spent += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((released, spent), (1, 127));
    assert_eq!(world.seen("api").await.len(), before + 1);
}

#[tokio::test]
async fn a_loser_is_told_which_entry_spent_the_decision() {
    let (world, grant) = World::connected().await;
    let answer = decide::decide(&world.deps, world.agent, &world.read(grant))
        .await
        .unwrap();
    let mut ask = world.read(grant);
    ask.decision = Some(UnverifiedDecision(answer.jws));
    let Ok(vend::Vended::Executed { entry: winner, .. }) = world.vend(ask.clone()).await else {
        panic!()
    };
    let Err(Refusal::DecisionSpent { entry }) = world.vend(ask).await else {
        panic!()
    };
    assert_eq!(entry, winner);
}
