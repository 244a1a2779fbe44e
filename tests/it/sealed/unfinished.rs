//! Recoveries, and what follows one or a restart, that fail half-way or find what cannot be ended.

use std::time::Duration;

use postern::{
    crypto::OsRandomness,
    domain::{Clock as _, EntryId, connector::Category},
    flows::{
        recover::{self, Unfinished, Vouch},
        seal, sequence, sweep, vend,
    },
    store::{REPLICA_LEASE, Word},
};
use sqlx::PgConnection;

use super::{World, database};
use crate::{restored::plan_without_a_loss, vanished};

/// The admin key that goes with it has been shown by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_that_nobody_confirmed_says_that_it_may_be_done() {
    let (world, link, ..) = vanished::connected().await;
    sequence::run(&world.deps, world.org).await.unwrap();
    let plan = plan_without_a_loss(&world).await;
    link.break_off_after("; COMMIT");
    let ended = recover::run(&world.deps, &plan, "test").await;
    assert!(!link.is_to_break(), "{ended:?}");
    assert!(matches!(ended, Err(Unfinished::Unconfirmed(_))), "{ended:?}");
    // It is sealed here until somebody has looked, and then there is nothing to recover.
    assert!(world.deps.store.is_sealed(world.org));
    let found = seal::check(&world.deps).await.unwrap();
    assert!(found.is_empty(), "{found:?}");
    let entries = world.entries().await;
    let recoveries = entries
        .iter()
        .filter(|entry| entry.draft.outcome.as_deref() == Some("recovered"));
    assert_eq!(recoveries.count(), 1);
}

/// How many replicas, dead or alive, say that the database is an older one.
async fn know_better(connection: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM replicas WHERE word = 3")
        .fetch_one(connection)
        .await
        .unwrap()
}

/// Nobody but whoever recovers takes it back, and there is nothing to recover any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_before_a_recovery_that_nobody_confirmed_is_taken_back_by_the_next_one() {
    let (world, link, _, mut superuser) = vanished::connected().await;
    sequence::run(&world.deps, world.org).await.unwrap();
    let joined = world.replica().await.unwrap();
    let plan = plan_without_a_loss(&world).await;
    world.deps.store.seal_as(world.org, Word::Bad);
    for deps in [&world.deps, &joined] {
        deps.store.renew_replica().await.unwrap();
    }
    assert!(joined.store.is_sealed(world.org));
    link.break_off_after("; COMMIT");
    let ended = recover::run(&world.deps, &plan, "test").await;
    assert!(matches!(ended, Err(Unfinished::Unconfirmed(_))), "{ended:?}");
    world.stopped().await;

    let again = world.replica_in(world.dir.path()).await.unwrap();
    let found = seal::check_for_recovery(&again).await.unwrap();
    let plans = recover::planned(&again, &found, Vouch::No).await.unwrap();
    assert_eq!((plans.len(), know_better(&mut superuser).await), (0, 1));
    recover::all(&again, &plans, "test").await.unwrap();
    assert_eq!(know_better(&mut superuser).await, 0);
    // Until then it might live, and say it again.
    world.later(REPLICA_LEASE * 2);
    seal::keep_up(&joined).await.unwrap();
    assert_eq!(joined.store.sealed_orgs(), 0);
}

/// What was read before the recovery would be taken for more than the database has.
#[tokio::test]
async fn a_recovery_elsewhere_is_gone_on_from_though_the_lease_cannot_be_renewed() {
    let world = World::on_postgres().await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    sequence::run(&world.deps, world.org).await.unwrap();
    let joined = world.replica().await.unwrap();
    let vend = async || vend::vend(&joined, world.agent, world.read(grant)).await;
    vend().await.unwrap();
    let plan = plan_without_a_loss(&world).await;
    recover::run(&world.deps, &plan, "test").await.unwrap();
    for (from, to) in [("replicas", "elsewhere"), ("elsewhere", "replicas")] {
        let sql = format!("ALTER TABLE {from} RENAME TO {to}");
        database::raw_sql(&world.location, &sql).await;
        seal::keep_up(&joined).await.unwrap();
    }
    vend().await.unwrap();
    assert!(!joined.store.has_lost_entries());
}

/// It would be found again for ever, and nobody would be served.
#[tokio::test]
async fn a_start_ends_what_it_can_where_an_open_call_has_no_entry() {
    let world = World::on_sqlite().await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    world.vend(world.read(grant)).await.unwrap();
    world
        .raw_sql("INSERT INTO open_calls SELECT org_id, id, ts FROM entries WHERE kind = 'release'")
        .await;
    let missing = EntryId::new(world.clock.now(), &OsRandomness::new()).unwrap();
    let open = format!("INSERT INTO open_calls SELECT org_id, '{missing}', ts FROM entries LIMIT 1");
    world.raw_sql(&open).await;
    tokio::time::timeout(Duration::from_secs(20), sweep::earlier_life(&world.deps))
        .await
        .expect("it looks for ever")
        .unwrap();
    assert_eq!(database::counts(&world.location).await["open_calls"], 1);
}
