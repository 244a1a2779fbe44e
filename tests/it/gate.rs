//! The gate under contention (I1, I15): a decision is spent once, whoever comes at the same time.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use postern::{
    domain::{
        Clock, EntryId, Time,
        clock::FixedClock,
        decision::{Outcome, UnverifiedDecision},
        entry::{EntryDraft, EntryType, Epoch},
    },
    flows::{Refusal, actions, decide, found, vend},
    release::{Gate, GateRefusal, Statement},
    store::{Location, NewEntry},
};
use serde_json::json;
use sqlx::Connection as _;
use tokio::time::timeout;

use super::harness::{World, database};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_decision_presented_by_64_concurrent_vends_releases_exactly_once() {
    let (world, grant) = World::connected().await;
    let answer = decide::decide(&world.deps, world.agent, &world.read(grant))
        .await
        .unwrap();
    assert_eq!(answer.outcome, Outcome::Allow);
    let before = world.seen("api").await.len();
    let world = Arc::new(world);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
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
    assert_eq!((released, spent), (1, 63));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_floods_is_refused_at_once_and_what_was_let_in_is_served() {
    let (world, grant) = World::connected().await;
    world.vend(world.read(grant)).await.unwrap();
    let world = Arc::new(world);
    let change = world.changing().await;
    let (told, mut answers) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..300 {
        let (world, told) = (Arc::clone(&world), told.clone());
        tokio::spawn(async move { told.send(world.vend(world.read(grant)).await).unwrap() });
    }
    drop(told);
    // One agent may have 64 inside.
    for _ in 0..300 - 64 {
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
    change.given_up().await;
    let mut served = 0;
    while let Some(answer) = answers.recv().await {
        answer.unwrap();
        served += 1;
    }
    assert_eq!(served, 64);
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
    let change = world.changing().await;
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
    change.given_up().await;
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
    world.vend(world.read(grant)).await.unwrap();
    world.later(Duration::from_secs(400));
    world
        .fault(json!({"next": "token", "delay_ms": 10_000, "times": 1}))
        .await;
    let before = world.seen("token").await.len();
    let world = Arc::new(world);
    let (gate, caller) = (&world.deps.gate, world.agent);
    let mut tasks = tokio::task::JoinSet::new();
    // Three times as many as one agent may have inside.
    for _ in 0..3 * 64 {
        // Those before have theirs until they wait.
        while gate.has_room(caller.org, caller.agent).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut one = Box::pin({
            let world = Arc::clone(&world);
            async move { world.vend(world.read(grant)).await }
        });
        let looked = looked_at(&mut one).await;
        assert!(looked.is_pending(), "it is let in at once: {looked:?}");
        tasks.spawn(one);
    }
    let served = tasks.try_join_next();
    assert!(served.is_none(), "they were let in while all waited: {served:?}");
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(world.seen("token").await.len(), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_has_to_wait_keeps_no_other_org_waiting_on_postgres() {
    let world = World::on_postgres().await;
    let other = found::found(&world.deps, "Other", "eve@other.example")
        .await
        .unwrap()
        .org;
    let told = |org| {
        let deps = Arc::clone(&world.deps);
        let entry = NewEntry {
            id: EntryId::new(deps.clock.now(), &*deps.random).unwrap(),
            kind: EntryType::Decision,
            draft: EntryDraft::default(),
            sealed: None,
        };
        async move { deps.gate.follow_up(org, entry).await }
    };
    told(world.org).await.unwrap();
    let Location::Postgres(settings) = &world.location else {
        panic!()
    };
    // Somebody holds the end of a chain of the first org's.
    let mut owner = database::superuser(&database::name_of(settings)).await;
    let mut held = owner.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM writers WHERE org_id = $1 FOR UPDATE")
        .bind(world.org.to_string())
        .execute(&mut *held)
        .await
        .unwrap();
    let waits = tokio::spawn(told(world.org));
    let mut watcher = database::superuser(&database::name_of(settings)).await;
    loop {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(&mut watcher)
        .await
        .unwrap();
        if waiting > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    told(other).await.unwrap();
    assert!(!waits.is_finished(), "the first org's is still in its batch");
    held.rollback().await.unwrap();
    waits.await.unwrap().unwrap();
}

/// Looks at a future once.
async fn looked_at<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await
}

/// Stands in for a fault of the gate's own: it panics once, in a batch.
#[derive(Debug)]
struct Faulty(Arc<FixedClock>, AtomicBool);

impl Clock for Faulty {
    fn now(&self) -> Time {
        self.0.now()
    }

    fn since_boot(&self) -> Duration {
        assert!(self.1.swap(true, Ordering::SeqCst), "told to break");
        self.0.since_boot()
    }
}

#[tokio::test]
async fn a_batch_that_panics_is_answered_and_the_gate_serves_the_next_one() {
    let world = World::new().await;
    let clock = Faulty(Arc::clone(&world.clock), AtomicBool::new(false));
    let gate = Gate::start(world.deps.store.clone(), Arc::new(clock));
    let first = timeout(Duration::from_secs(60), gate.follow_up(world.org, entry(&world))).await;
    assert!(matches!(first, Ok(Err(GateRefusal::Closed))), "{first:?}");
    let next = timeout(Duration::from_secs(60), gate.follow_up(world.org, entry(&world))).await;
    assert!(matches!(next, Ok(Ok(_))), "{next:?}");
}

fn entry(world: &World) -> NewEntry {
    NewEntry {
        id: EntryId::new(world.clock.now(), &*world.deps.random).unwrap(),
        kind: EntryType::Decision,
        draft: EntryDraft::default(),
        sealed: None,
    }
}

/// What the guard puts out writes nothing, whoever else is in its batch.
#[tokio::test]
async fn stale_facts_write_nothing_beside_fresh_ones_in_the_same_batch() {
    let world = World::new().await;
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    let fresh = tx.epoch(world.org).await.unwrap().unwrap();
    drop(tx);
    let stale = Epoch {
        counter: fresh.counter - 1,
        ..fresh
    };
    let state = |epoch| {
        let statement = Statement {
            org: world.org,
            epoch,
            idempotency: None,
            entry: entry(&world),
        };
        (statement.entry.id, world.deps.gate.state(statement))
    };
    for _ in 0..2 {
        // One runtime thread: all three stand in line before the lane looks.
        let (first, second, third) = (state(fresh), state(stale), state(fresh));
        let done = tokio::join!(first.1, second.1, third.1);
        assert!(
            matches!(done, (Ok(one), Err(GateRefusal::Stale), Ok(other)) if one == other),
            "{done:?}"
        );
        let mut tx = world.deps.store.read(world.org).await.unwrap();
        for (id, written) in [(first.0, true), (second.0, false), (third.0, true)] {
            assert_eq!(tx.entry(world.org, id).await.unwrap().is_some(), written);
        }
    }
}
