//! I15: a decision is spent once. One that a call made for itself is made out to its entry, which spends it.

use std::{sync::Arc, time::Duration};

use postern::{
    domain::{
        DecisionId, EntryId, GrantId,
        connector::Category,
        decision::UnverifiedDecision,
        entry::{EntryDraft, EntryType},
    },
    flows::{Refusal, actions, decide, token, vend::Vended},
    policy::OrgPermit,
    release::{AuditReceipt, GateRefusal, Release, VerifiedDecision},
    store::{IdempotencyKey, NewEntry},
};

use serde_json::json;

use super::{
    harness::{World, database},
    leases::{connected, run, until_waiting},
};

async fn on_each_store() -> [(World, GrantId); 2] {
    [
        used(World::on_sqlite().await).await,
        used(World::on_postgres().await).await,
    ]
}

/// With a grant with which something was released: its token is there.
async fn used(world: World) -> (World, GrantId) {
    let grant = world.connect(world.ada, &[Category::Read]).await;
    world.vend(world.read(grant)).await.unwrap();
    (world, grant)
}

/// How a decision comes to the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comes {
    /// From the call that made it, made out to this entry.
    For(EntryId),
    /// From whoever brought it along, with this id.
    Along(DecisionId),
}

/// A release by such a decision, as the gate is asked for it.
async fn release(world: &World, grant: GrantId, comes: Comes) -> (VerifiedDecision, Release) {
    let (deps, ask) = (&world.deps, world.read(grant));
    let prepared = actions::prepare(deps, world.agent, &ask).await.unwrap();
    let decided = decide::evaluate(deps, &prepared, &ask, &OrgPermit::Policy).unwrap();
    let ready = token::wide(deps, &prepared).await.unwrap();
    let (verified, entry) = match comes {
        Comes::For(entry) => {
            let own = decide::sign(deps, &prepared, &ask, &decided, new_id(world), Some(entry)).unwrap();
            (decide::check_own(deps, &prepared, &ask, own, entry), entry)
        }
        Comes::Along(id) => {
            let own = decide::sign(deps, &prepared, &ask, &decided, id, None).unwrap();
            let (jws, _) = own.into_text();
            let verified = decide::check(deps, &prepared, &ask, &UnverifiedDecision(jws));
            (verified, new_entry(world))
        }
    };
    let release = Release {
        org: world.org,
        epoch: prepared.epoch(),
        secret: (grant, ready.kind, ready.row.generation),
        idempotency: Some(key(world, entry)),
        entry: NewEntry {
            id: entry,
            kind: EntryType::Release,
            draft: EntryDraft {
                agent: Some(world.agent.agent),
                ..EntryDraft::default()
            },
            sealed: None,
        },
    };
    (verified.unwrap(), release)
}

fn new_id(world: &World) -> DecisionId {
    DecisionId::new(world.deps.clock.now(), &*world.deps.random).unwrap()
}

fn new_entry(world: &World) -> EntryId {
    EntryId::new(world.deps.clock.now(), &*world.deps.random).unwrap()
}

/// A key that nobody else comes with.
fn key(world: &World, entry: EntryId) -> IdempotencyKey {
    IdempotencyKey {
        principal: world.agent.agent.to_string(),
        route: "vend",
        key: entry.to_string(),
        digest: "d".to_owned(),
        ended: None,
        keep_until: world.deps.clock.now() + Duration::from_secs(3600),
    }
}

/// Whether anything of a release was written: its entry, its key, what it spent. All or nothing.
async fn is_written(world: &World, comes: Comes, entry: EntryId) -> bool {
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    let key = key(world, entry);
    let taken = tx
        .idempotency(world.org, &key.principal, key.route, &key.key)
        .await;
    let written = tx.entry(world.org, entry).await.unwrap().is_some();
    assert_eq!(taken.unwrap().is_some(), written);
    drop(tx);
    let has_row = written && matches!(comes, Comes::Along(_));
    assert_eq!(spent_by(world, entry).await, u64::from(has_row));
    written
}

/// How many rows say that this entry spent a decision.
async fn spent_by(world: &World, entry: EntryId) -> u64 {
    let same = format!("UPDATE spent SET keep_until = keep_until WHERE entry_id = '{entry}'");
    database::raw_sql(&world.location, &same).await
}

/// What is told to who comes for an entry that is there already: it cannot happen, and is no outage.
fn is_refused(refused: &Result<AuditReceipt, GateRefusal>) -> bool {
    matches!(refused, Err(GateRefusal::Store(error)) if error.outage().is_none())
}

#[tokio::test]
async fn what_a_call_decides_for_itself_is_spent_by_its_entry_alone() {
    for (world, grant) in on_each_store().await {
        let Ok(Vended::Executed { entry, .. }) = world.vend(world.read(grant)).await else {
            panic!()
        };
        assert_eq!(spent_by(&world, entry).await, 0);
        let (decision, again) = release(&world, grant, Comes::For(entry)).await;
        let refused = world.deps.gate.release(decision, again).await;
        assert!(is_refused(&refused), "{refused:?}");
    }
}

#[tokio::test]
async fn a_decision_made_out_to_an_entry_releases_nothing_with_another() {
    for (world, grant) in on_each_store().await {
        let (decision, mut other) = release(&world, grant, Comes::For(new_entry(&world))).await;
        other.entry.id = new_entry(&world);
        let entry = other.entry.id;
        let refused = world.deps.gate.release(decision, other).await;
        assert!(matches!(refused, Err(GateRefusal::WrongEntry)), "{refused:?}");
        assert!(!is_written(&world, Comes::For(entry), entry).await);
    }
}

#[tokio::test]
async fn what_comes_for_an_entry_that_is_there_releases_nothing_and_who_is_beside_it_is_served() {
    for (world, grant) in on_each_store().await {
        for comes in [Comes::For(new_entry(&world)), Comes::Along(new_id(&world))] {
            let (decision, first) = release(&world, grant, comes).await;
            let there = first.entry.id;
            world.deps.gate.release(decision, first).await.unwrap();
            let before = Comes::For(new_entry(&world));
            let behind = Comes::Along(new_id(&world));
            let (one, first) = release(&world, grant, before).await;
            let (again, mut double) = release(&world, grant, Comes::For(there)).await;
            double.idempotency = None;
            let (other, last) = release(&world, grant, behind).await;
            let entries = [(before, first.entry.id), (behind, last.entry.id)];
            // One runtime thread: all stand in line before the lane looks.
            let gate = &world.deps.gate;
            let (served, refused, served_too) = tokio::join!(
                gate.release(one, first),
                gate.release(again, double),
                gate.release(other, last)
            );
            assert!(is_refused(&refused), "{comes:?}: {refused:?}");
            assert!(served.is_ok() && served_too.is_ok(), "{served:?} {served_too:?}");
            for (comes, entry) in entries {
                assert!(is_written(&world, comes, entry).await, "{comes:?}");
            }
        }
    }
}

#[tokio::test]
async fn of_two_that_come_for_one_entry_in_one_batch_one_releases() {
    for (world, grant) in on_each_store().await {
        let comes = Comes::For(new_entry(&world));
        let (decision, one) = release(&world, grant, comes).await;
        let (same, mut other) = release(&world, grant, comes).await;
        let entry = one.entry.id;
        // With the same key it would not come as far as its entry.
        other.idempotency = None;
        let gate = &world.deps.gate;
        let (first, second) = tokio::join!(gate.release(decision, one), gate.release(same, other));
        assert!(first.is_ok(), "{first:?}");
        assert!(is_refused(&second), "{second:?}");
        assert!(is_written(&world, comes, entry).await);
    }
}

/// The losers of those that were brought along are told as ever, whoever is beside them.
#[tokio::test]
async fn beside_what_calls_decided_themselves_one_that_was_brought_along_twice_is_told_who_spent_it() {
    for (world, grant) in on_each_store().await {
        let [along, fresh] = [Comes::Along(new_id(&world)), Comes::For(new_entry(&world))];
        let (decision, one) = release(&world, grant, along).await;
        let (own, beside) = release(&world, grant, fresh).await;
        let (same, other) = release(&world, grant, along).await;
        let winner = one.entry.id;
        let entries = [
            (along, winner, true),
            (fresh, beside.entry.id, true),
            (along, other.entry.id, false),
        ];
        let gate = &world.deps.gate;
        let (first, served, second) = tokio::join!(
            gate.release(decision, one),
            gate.release(own, beside),
            gate.release(same, other)
        );
        assert!(first.is_ok() && served.is_ok(), "{first:?} {served:?}");
        assert!(
            matches!(second, Err(GateRefusal::Spent { entry }) if entry == winner),
            "{second:?}"
        );
        for (comes, entry, written) in entries {
            assert_eq!(is_written(&world, comes, entry).await, written, "{comes:?}");
        }
    }
}

/// Entries are listed by their ids: what waited for a provider is no older than what came of that.
#[tokio::test]
async fn a_release_that_waited_for_a_renewal_is_entered_behind_it() {
    let (world, grant) = used(World::on_sqlite().await).await;
    world.later(Duration::from_secs(400));
    world
        .fault(json!({"next": "token", "delay_ms": 1500, "times": 1}))
        .await;
    let before = world.seen("token").await.len();
    let meanwhile = async {
        world.until_seen("token", before + 1).await;
        world.later(Duration::from_secs(2));
    };
    let (vended, ()) = tokio::join!(world.vend(world.read(grant)), meanwhile);
    vended.unwrap();
    let entries = world.entries().await;
    let last = |kind| {
        entries
            .iter()
            .filter(|entry| entry.kind == kind)
            .map(|entry| entry.id)
            .max()
    };
    let (renewed, released) = (
        last(EntryType::Refresh).unwrap(),
        last(EntryType::Release).unwrap(),
    );
    // UUIDv7 (RFC 9562 §5.7): milliseconds first, and within one of them no order.
    let millis = |id: EntryId| id.as_bytes()[..6].to_vec();
    assert!(millis(released) >= millis(renewed), "{released} {renewed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_apart_from_the_lane_is_spent_by_its_entry_there() {
    let (world, grant, mut changing) = connected().await;
    let lock = format!(
        "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('{}', 0))",
        world.org
    );
    run(&mut changing, &lock).await;
    let vending = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.vend(world.read(grant)).await }
    });
    until_waiting(&world, 1).await;
    run(&mut changing, "ROLLBACK").await;
    let vended: Result<Vended, Refusal> = vending.await.unwrap();
    let Ok(Vended::Executed { entry, .. }) = vended else {
        panic!("{vended:?}")
    };
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    assert!(tx.entry(world.org, entry).await.unwrap().is_some());
}
