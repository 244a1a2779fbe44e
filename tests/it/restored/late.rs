//! A replica whose lease may be over when it is about to write.

use postern::store::REPLICA_LEASE;

use super::*;
use crate::leases::{run, until_waiting};

/// Its lease ends while it waits for its turn among the writers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_began_to_wait_in_time_and_begins_late_is_begun_anew() {
    let (world, _, _, joined) = joined().await;
    let mut changing = world.superuser().await;
    let org = world.org;
    let lock = format!("BEGIN; SELECT 1 FROM orgs WHERE org_id = '{org}' FOR UPDATE");
    run(&mut changing, &lock).await;
    let passing = async {
        until_waiting(&world, 1).await;
        world.later(REPLICA_LEASE);
        run(&mut changing, "ROLLBACK").await;
    };
    let (begun, ()) = tokio::join!(joined.store.write(org), passing);
    let begun = begun.map(drop);
    assert!(matches!(begun, Err(StoreError::Conflict)), "{begun:?}");
    // First it looks whether anything is missing.
    drop(joined.store.write(org).await.unwrap());
}

#[tokio::test]
async fn one_renewal_is_enough_for_all_who_are_late_at_one_moment() {
    let (world, _, _, joined) = joined().await;
    let mut counting = world.superuser().await;
    let counted = "CREATE TABLE public.renewals (name TEXT);
         CREATE FUNCTION public.renewal() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
         BEGIN INSERT INTO public.renewals VALUES (NEW.name); RETURN NULL; END $$;
         CREATE TRIGGER renewal AFTER UPDATE ON replicas FOR EACH ROW EXECUTE FUNCTION public.renewal()";
    run(&mut counting, counted).await;
    world.later(REPLICA_LEASE);
    let write = async || {
        let tx = joined.store.write(world.org).await.unwrap();
        tx.commit().await.unwrap();
    };
    tokio::join!(write(), write(), write(), write());
    let renewals: i64 = sqlx::query_scalar("SELECT count(*) FROM public.renewals")
        .fetch_one(&mut counting)
        .await
        .unwrap();
    assert_eq!(renewals, 1);
}

/// What it waited for is no part of a receipt's life.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_waits_for_a_renewal_for_longer_than_a_receipt_lives_leaves() {
    let (world, grant, _, joined) = joined().await;
    let mut renewing = world.superuser().await;
    run(
        &mut renewing,
        "BEGIN; SELECT 1 FROM meta WHERE name = 'writer' FOR UPDATE",
    )
    .await;
    world.later(REPLICA_LEASE);
    let passing = async {
        until_waiting(&world, 1).await;
        world.later(Duration::from_secs(6));
        run(&mut renewing, "ROLLBACK").await;
    };
    let vending = vend::vend(&joined, world.agent, world.read(grant));
    let (released, ()) = tokio::join!(vending, passing);
    released.unwrap();
}

/// Others would take the replica for dead, and it would write nothing any more.
#[tokio::test]
async fn a_row_that_cannot_be_read_keeps_no_replica_from_renewing() {
    let (world, grant, _, joined) = joined().await;
    let (other, others) = world.another_org("Other").await;
    seal::keep_up(&joined).await.unwrap();
    vend(&world, &joined, grant).await.unwrap();
    let (writer, org) = (joined.store.replica(), world.org);
    let unreadable =
        format!("UPDATE writers SET seq = -1 WHERE writer = '{writer}/hot' AND org_id = '{org}'");
    world.raw_sql(&unreadable).await;
    let looked = joined.store.look_for_lost_entries().await;
    assert!(
        matches!(looked, Err(StoreError::Inconsistent { .. })),
        "{looked:?}"
    );
    world.later(REPLICA_LEASE);
    vend::vend(&joined, other, world.read(others)).await.unwrap();
    assert!(!joined.store.has_lost_entries());
}
