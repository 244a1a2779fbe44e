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
    // One agent may have 128 waiting, and as many more as went into one batch before: 64 at most.
    for _ in 0..300 - 128 - 64 {
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
        match answer {
            Ok(_) => served += 1,
            Err(Refusal::RateLimited(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!((128..=128 + 64).contains(&served), "{served} were served");
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hangs_up_while_waiting_gives_the_place_to_somebody_else() {
    let (world, grant) = World::connected().await;
    world.vend(world.read(grant)).await.unwrap();
    let caller = world.agent;
    let prepared = actions::prepare(&world.deps, caller, &world.read(grant))
        .await
        .unwrap();
    let change = changing(&world).await;
    let stated = || {
        let draft = EntryDraft {
            agent: Some(caller.agent),
            ..EntryDraft::default()
        };
        let entry = NewEntry {
            id: EntryId::new(world.deps.clock.now(), &*world.deps.random).unwrap(),
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
    // The first goes to the database and waits for the change there; the others wait in their queue.
    let mut waiting = Vec::new();
    while world.deps.gate.has_room(caller.org, caller.agent).is_ok() {
        let mut one = stated();
        assert!(looked_at(&mut one).await.is_pending());
        waiting.push(one);
        assert!(waiting.len() < 1000, "the queue has no end");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    waiting.pop();
    assert!(world.deps.gate.has_room(caller.org, caller.agent).is_ok());
    waiting.push(stated());
    assert!(looked_at(waiting.last_mut().unwrap()).await.is_pending());
    assert!(world.deps.gate.has_room(caller.org, caller.agent).is_err());
    drop(change);
    let kept = waiting.len();
    for one in waiting {
        one.await.unwrap();
    }
    assert!(kept >= 128, "{kept}");
}

/// Looks at a future once.
async fn looked_at<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await
}
