//! I15: a decision is spent once, also one that a call made for itself, which PostgreSQL spends together with its entry.

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
    store::{IdempotencyKey, Location, NewEntry},
};

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

/// Who has the text of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Had {
    /// The call that made it, alone.
    Here,
    /// Whoever brought it along.
    Elsewhere,
}

/// A release by a decision of this id, as the gate is asked for it.
async fn release(world: &World, grant: GrantId, id: DecisionId, had: Had) -> (VerifiedDecision, Release) {
    let (deps, ask) = (&world.deps, world.read(grant));
    let prepared = actions::prepare(deps, world.agent, &ask).await.unwrap();
    let decided = decide::evaluate(deps, &prepared, &ask, &OrgPermit::Policy).unwrap();
    let ready = token::wide(deps, &prepared).await.unwrap();
    let own = decide::sign(deps, &prepared, &ask, &decided, id).unwrap();
    let verified = match had {
        Had::Here => decide::check_own(deps, &prepared, &ask, own),
        Had::Elsewhere => {
            let (jws, _) = own.into_text();
            decide::check(deps, &prepared, &ask, &UnverifiedDecision(jws))
        }
    };
    let entry = EntryId::new(decided.at, &*deps.random).unwrap();
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
async fn is_written(world: &World, entry: EntryId) -> bool {
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    let key = key(world, entry);
    let taken = tx
        .idempotency(world.org, &key.principal, key.route, &key.key)
        .await;
    let written = tx.entry(world.org, entry).await.unwrap().is_some();
    assert_eq!(taken.unwrap().is_some(), written);
    drop(tx);
    assert_eq!(spent_by(world, entry).await, u64::from(written));
    written
}

/// How many decisions were spent by this entry.
async fn spent_by(world: &World, entry: EntryId) -> u64 {
    let same = format!("UPDATE spent SET keep_until = keep_until WHERE entry_id = '{entry}'");
    database::raw_sql(&world.location, &same).await
}

/// What is told to who comes with a fresh decision that was spent all the same. PostgreSQL says no more than that it is there.
fn is_refused(world: &World, refused: &Result<AuditReceipt, GateRefusal>, winner: EntryId) -> bool {
    match (&world.location, refused) {
        (Location::Sqlite(_), Err(GateRefusal::Spent { entry })) => *entry == winner,
        (Location::Postgres(_), Err(GateRefusal::Store(error))) => error.outage().is_none(),
        _ => false,
    }
}

#[tokio::test]
async fn what_a_call_decides_for_itself_is_spent_by_its_entry() {
    for (world, grant) in on_each_store().await {
        let Ok(Vended::Executed { entry, .. }) = world.vend(world.read(grant)).await else {
            panic!()
        };
        assert_eq!(spent_by(&world, entry).await, 1);
    }
}

/// Nobody can have its text; were it otherwise, it would be of no use.
#[tokio::test]
async fn the_text_of_a_decision_that_was_spent_where_it_was_made_releases_nothing() {
    for (world, grant) in on_each_store().await {
        let id = new_id(&world);
        let (decision, winner) = release(&world, grant, id, Had::Here).await;
        let entry = winner.entry.id;
        world.deps.gate.release(decision, winner).await.unwrap();
        let (decision, loser) = release(&world, grant, id, Had::Elsewhere).await;
        let lost = loser.entry.id;
        let refused = world.deps.gate.release(decision, loser).await;
        assert!(
            matches!(refused, Err(GateRefusal::Spent { entry: spender }) if spender == entry),
            "{refused:?}"
        );
        assert!(!is_written(&world, lost).await);
        assert!(is_written(&world, entry).await);
    }
}

#[tokio::test]
async fn a_fresh_decision_that_was_spent_all_the_same_releases_nothing_and_who_is_beside_it_is_served() {
    for (world, grant) in on_each_store().await {
        for had in [Had::Here, Had::Elsewhere] {
            let id = new_id(&world);
            let (decision, first) = release(&world, grant, id, had).await;
            let winner = first.entry.id;
            world.deps.gate.release(decision, first).await.unwrap();
            let (one, before) = release(&world, grant, new_id(&world), Had::Here).await;
            let (again, double) = release(&world, grant, id, Had::Here).await;
            let (other, behind) = release(&world, grant, new_id(&world), Had::Elsewhere).await;
            let entries = [before.entry.id, double.entry.id, behind.entry.id];
            // One runtime thread: all stand in line before the lane looks.
            let gate = &world.deps.gate;
            let (served, refused, served_too) = tokio::join!(
                gate.release(one, before),
                gate.release(again, double),
                gate.release(other, behind)
            );
            assert!(is_refused(&world, &refused, winner), "{had:?}: {refused:?}");
            assert!(served.is_ok() && served_too.is_ok(), "{served:?} {served_too:?}");
            for (entry, written) in entries.into_iter().zip([true, false, true]) {
                assert_eq!(is_written(&world, entry).await, written, "{had:?}");
            }
        }
    }
}

#[tokio::test]
async fn of_two_fresh_decisions_of_one_id_in_one_batch_one_releases() {
    for (world, grant) in on_each_store().await {
        let id = new_id(&world);
        let (decision, one) = release(&world, grant, id, Had::Here).await;
        let (same, other) = release(&world, grant, id, Had::Here).await;
        let entries = [one.entry.id, other.entry.id];
        let gate = &world.deps.gate;
        let (first, second) = tokio::join!(gate.release(decision, one), gate.release(same, other));
        assert!(first.is_ok(), "{first:?}");
        assert!(is_refused(&world, &second, entries[0]), "{second:?}");
        assert!(is_written(&world, entries[0]).await);
        assert!(!is_written(&world, entries[1]).await);
    }
}

/// The losers of those that were brought along are told as ever, whoever is beside them.
#[tokio::test]
async fn beside_fresh_decisions_one_that_was_brought_along_twice_is_told_who_spent_it() {
    for (world, grant) in on_each_store().await {
        let id = new_id(&world);
        let (decision, one) = release(&world, grant, id, Had::Elsewhere).await;
        let (fresh, beside) = release(&world, grant, new_id(&world), Had::Here).await;
        let (same, other) = release(&world, grant, id, Had::Elsewhere).await;
        let entries = [one.entry.id, beside.entry.id, other.entry.id];
        let gate = &world.deps.gate;
        let (first, served, second) = tokio::join!(
            gate.release(decision, one),
            gate.release(fresh, beside),
            gate.release(same, other)
        );
        assert!(first.is_ok() && served.is_ok(), "{first:?} {served:?}");
        assert!(
            matches!(second, Err(GateRefusal::Spent { entry }) if entry == entries[0]),
            "{second:?}"
        );
        for (entry, written) in entries.into_iter().zip([true, true, false]) {
            assert_eq!(is_written(&world, entry).await, written);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_apart_from_the_lane_spends_its_decision_there() {
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
    assert_eq!(spent_by(&world, entry).await, 1);
}
