//! The gate under contention (I1, I15): a decision is spent once, whoever comes at the same time.

use std::{pin::Pin, sync::Arc, task::Poll, time::Duration};

use postern::{
    domain::{
        EntryId,
        decision::{Outcome, UnverifiedDecision},
        entry::{EntryDraft, EntryType},
    },
    flows::{Refusal, actions, decide, vend},
    release::Statement,
    store::{NewEntry, Selector, Tx},
};
use serde_json::json;

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

/// Somebody changes the org; until that is dropped, none of its releases commit.
async fn changing(world: &World) -> Tx {
    let mut tx = world.deps.store.write(world.org).await.unwrap();
    tx.advance_epoch(world.org, &Selector::All(true)).await.unwrap();
    tx
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_floods_is_refused_at_once_and_what_was_let_in_is_served() {
    let (world, grant) = World::connected().await;
    world.vend(world.read(grant)).await.unwrap();
    let world = Arc::new(world);
    let change = changing(&world).await;
    let (told, mut answers) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..300 {
        let (world, told) = (Arc::clone(&world), told.clone());
        tokio::spawn(async move { told.send(world.vend(world.read(grant)).await).unwrap() });
    }
    drop(told);
    // One agent may have 128 inside.
    for _ in 0..300 - 128 {
        let refused = answers.recv().await.unwrap();
        assert!(matches!(refused, Err(Refusal::RateLimited(_))), "{refused:?}");
    }
    // Over HTTP it is refused before its body is looked at.
    let api = world.api();
    let answer = api
        .post(&world.as_agent(), "/v1/vend", &json!({"nonsense": 1}))
        .await;
    assert_eq!((answer.status, answer.code()), (429, "rate_limited".to_owned()));
    assert_eq!(answer.headers["retry-after"], "1");
    drop(change);
    let mut served = 0;
    while let Some(answer) = answers.recv().await {
        answer.unwrap();
        served += 1;
    }
    assert_eq!(served, 128);
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hangs_up_while_waiting_leaves_no_entry_and_keeps_nobody() {
    let (world, grant) = World::connected().await;
    world.vend(world.read(grant)).await.unwrap();
    let caller = world.agent;
    let prepared = actions::prepare(&world.deps, caller, &world.read(grant))
        .await
        .unwrap();
    let change = changing(&world).await;
    let stated = |id| {
        let draft = EntryDraft {
            agent: Some(caller.agent),
            ..EntryDraft::default()
        };
        let entry = NewEntry {
            id,
            kind: EntryType::Decision,
            draft,
            sealed: None,
        };
        Box::pin(world.deps.gate.state(Statement {
            org: caller.org,
            epoch: prepared.epoch(),
            idempotency: None,
            entry,
        }))
    };
    // The first go to the database and wait for the change there, the last waits in the queue meanwhile.
    let ids: Vec<_> = (0..9)
        .map(|_| EntryId::new(world.deps.clock.now(), &*world.deps.random).unwrap())
        .collect();
    let mut waiting = Vec::new();
    for id in &ids {
        let mut one = stated(*id);
        assert!(looked_at(&mut one).await.is_pending());
        waiting.push(one);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(waiting.pop());
    drop(change);
    for one in waiting {
        one.await.unwrap();
    }
    let kept = world.entries().await;
    let kept: Vec<_> = ids
        .iter()
        .map(|id| kept.iter().any(|entry| entry.id == *id))
        .collect();
    assert_eq!(kept, [[true; 8].as_slice(), &[false]].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_the_provider_keeps_nobody_out() {
    let (world, grant) = World::connected().await;
    world.later(Duration::from_secs(400));
    world
        .fault(json!({"next": "token", "delay_ms": 3_000, "times": 1}))
        .await;
    let before = world.seen("token").await.len();
    let world = Arc::new(world);
    let mut tasks = tokio::task::JoinSet::new();
    // Three times as many as one agent may have inside.
    for _ in 0..4 {
        for _ in 0..96 {
            let world = Arc::clone(&world);
            tasks.spawn(async move { world.vend(world.read(grant)).await });
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(world.seen("token").await.len(), before + 1);
}

/// Looks at a future once.
async fn looked_at<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await
}
