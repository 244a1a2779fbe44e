//! A database that went back while replicas were cut off, stood still, or only watched; and what they say of it to others.

use postern::store::REPLICA_LEASE;

use super::*;

/// Takes from the database the last entry of the replica's writer of this lane, as a standby that lacks it does.
async fn lose_last(world: &World, replica: &Deps, lane: &str) {
    let writer = format!("{}/{lane}", replica.store.replica());
    for sql in [
        format!(
            "DELETE FROM entries WHERE writer = '{writer}'
             AND writer_seq = (SELECT max(writer_seq) FROM entries WHERE writer = '{writer}')"
        ),
        format!("UPDATE writers SET seq = seq - 1 WHERE writer = '{writer}'"),
    ] {
        world.raw_sql(&sql).await;
    }
}

/// A replica that takes this one's name, whose lease has ended.
async fn successor(world: &World, replica: &Deps) -> Arc<Deps> {
    let name = replica.store.replica();
    world
        .raw_sql(&format!(
            "UPDATE replicas SET expires_at = 0 WHERE name = '{name}'"
        ))
        .await;
    let successor = world.replica().await.unwrap();
    assert_eq!(successor.store.replica(), name);
    successor
}

/// Time goes on for longer than a lease lasts; all but one renew theirs.
async fn a_lease_later(world: &World, others: &[&Arc<Deps>]) {
    world.later(REPLICA_LEASE + Duration::from_secs(5));
    for other in others {
        other.store.renew_replica().await.unwrap();
    }
}

/// A replica was cut off, and its last release is lost; another one took its name and brought the number to beyond that.
async fn overtaken() -> (World, GrantId, Arc<Deps>, Arc<Deps>) {
    let (world, grant, _, joined) = joined().await;
    vend(&world, &joined, grant).await.unwrap();
    lose_last(&world, &joined, "hot").await;
    let successor = successor(&world, &joined).await;
    for _ in 0..3 {
        vend(&world, &successor, grant).await.unwrap();
    }
    (world, grant, joined, successor)
}

#[tokio::test]
async fn numbers_that_another_replica_caught_up_with_under_the_same_name_hide_no_entry() {
    let (world, _, joined, successor) = overtaken().await;
    let looked = joined.store.look_for_lost_entries().await;
    assert!(matches!(looked, Err(StoreError::Lost)), "{looked:?}");
    for deps in [&world.deps, &successor] {
        deps.store.look_for_lost_entries().await.unwrap();
    }
}

/// It has no worker that would have looked in between.
#[tokio::test]
async fn a_replica_that_was_cut_off_for_longer_than_its_lease_looks_before_it_releases() {
    let (world, grant, joined, successor) = overtaken().await;
    a_lease_later(&world, &[&world.deps, &successor]).await;
    let refused = vend(&world, &joined, grant).await;
    assert!(matches!(refused, Err(Refusal::Sealed)), "{refused:?}");
    assert!(joined.store.has_lost_entries());
    world.deps.store.renew_replica().await.unwrap();
    assert!(world.deps.store.is_sealed(world.org));
}

/// It is done all the same, and says nothing of what was written before.
#[tokio::test]
async fn a_revocation_by_a_replica_that_was_cut_off_hides_nothing_that_was_lost() {
    let (world, grant, _, joined) = joined().await;
    let second = world.connect(world.ben, &BOTH).await;
    let revoked = async |deps: &Arc<Deps>| {
        let ask = harness::ending(Selector::Grant(second));
        revoke::run(deps, world.org, ask).await.unwrap()
    };
    revoked(&joined).await;
    lose_last(&world, &joined, "cold").await;
    let successor = successor(&world, &joined).await;
    for _ in 0..3 {
        revoked(&successor).await;
    }
    a_lease_later(&world, &[&world.deps, &successor]).await;
    revoked(&joined).await;
    let refused = vend(&world, &joined, grant).await;
    assert!(matches!(refused, Err(Refusal::Sealed)), "{refused:?}");
    assert!(joined.store.has_lost_entries());
}

#[tokio::test]
async fn a_replica_whose_name_was_taken_over_in_good_order_goes_on_under_another_one() {
    let (world, grant, _, joined) = joined().await;
    vend(&world, &joined, grant).await.unwrap();
    let before = joined.store.replica();
    let successor = successor(&world, &joined).await;
    for _ in 0..3 {
        vend(&world, &successor, grant).await.unwrap();
    }
    a_lease_later(&world, &[&world.deps, &successor]).await;
    vend(&world, &joined, grant).await.unwrap();
    assert_ne!(joined.store.replica(), before);
    for deps in [&world.deps, &joined, &successor] {
        deps.store.renew_replica().await.unwrap();
        assert_eq!(deps.store.sealed_orgs(), 0);
    }
}

/// Whoever found out has gone, and what it said has ended with its lease.
#[tokio::test]
async fn a_replica_that_was_told_vouches_to_no_newcomer() {
    let (world, grant, _, joined) = joined().await;
    let copy = copied(&world).await;
    world.revoke(Selector::Grant(grant)).await;
    let world = put_back(world, &copy).await;
    renewed(&joined).await;
    assert!(joined.store.is_sealed(world.org) && !joined.store.holds_back(world.org));
    world
        .raw_sql("UPDATE replicas SET expires_at = 0 WHERE word = 3")
        .await;
    let newcomer = world.replica().await.unwrap();
    assert!(newcomer.store.holds_back(world.org));
    // It vouches again once a recovery is met.
    newcomer.store.close().await;
    recovered(&world.deps).await;
    unbroken(async || seal::keep_up(&joined).await).await.unwrap();
    for deps in [&world.deps, &joined] {
        renewed(deps).await;
    }
    let newcomer = world.replica().await.unwrap();
    assert_eq!(newcomer.store.sealed_orgs(), 0);
    let refused = vend(&world, &newcomer, grant).await;
    assert!(matches!(refused, Err(Refusal::Revoked { .. })), "{refused:?}");
}

/// Nothing is missing that it wrote itself, and what others do it reads less often than it renews its word.
#[tokio::test]
async fn a_replica_that_only_watched_vouches_for_no_database_without_what_it_has_heard_of() {
    let (world, grant, _, joined) = joined().await;
    let copy = copied(&world).await;
    world.revoke(Selector::Grant(grant)).await;
    seal::keep_up(&joined).await.unwrap();
    world.stopped().await;
    restore(&world, &copy).await;
    renewed(&joined).await;
    assert!(joined.store.has_lost_entries());
    let newcomer = world.replica().await.unwrap();
    assert!(newcomer.store.holds_back(world.org));
}

/// What it has heard of is missing because that recovery gave it up.
#[tokio::test]
async fn a_replica_that_only_watched_and_wakes_after_a_recovery_compares_first() {
    let (world, grant, _, joined) = joined().await;
    let copy = copied(&world).await;
    // Entries of one moment have no order.
    world.later(Duration::from_secs(1));
    vend(&world, &world.deps, grant).await.unwrap();
    signed(&world).await;
    seal::keep_up(&joined).await.unwrap();
    let world = put_back(world, &copy).await;
    assert_eq!(recovered(&world.deps).await.ends, []);
    renewed(&joined).await;
    assert!(!joined.store.has_lost_entries() && joined.store.is_unsettled(world.org));
    unbroken(async || seal::keep_up(&joined).await).await.unwrap();
    vend(&world, &joined, grant).await.unwrap();
    renewed(&joined).await;
    assert!(!joined.store.has_lost_entries() && joined.store.sealed_orgs() == 0);
}

#[tokio::test]
async fn what_was_found_is_said_at_the_end_though_the_name_is_lost() {
    let (world, grant, _, joined) = joined().await;
    vend(&world, &joined, grant).await.unwrap();
    lose_last(&world, &joined, "hot").await;
    joined.store.look_for_lost_entries().await.unwrap_err();
    world.raw_sql("DELETE FROM replicas").await;
    joined.store.close().await;
    world.deps.store.renew_replica().await.unwrap();
    assert!(world.deps.store.is_sealed(world.org));
}

#[tokio::test]
async fn what_was_found_while_a_replica_stood_still_is_heard_when_it_goes_on() {
    let (world, grant, _, joined) = joined().await;
    vend(&world, &joined, grant).await.unwrap();
    lose_last(&world, &joined, "hot").await;
    joined.store.renew_replica().await.unwrap();
    joined.store.close().await;
    world.later(REPLICA_LEASE * 3);
    let refused = vend(&world, &world.deps, grant).await;
    assert!(matches!(refused, Err(Refusal::Sealed)), "{refused:?}");
    assert!(!world.deps.store.has_lost_entries());
}

/// Nobody would have it for as long as the clock was wrong.
#[tokio::test]
async fn a_name_that_was_taken_by_a_clock_that_was_ahead_is_free() {
    let (world, _, _, joined) = joined().await;
    let name = joined.store.replica();
    drop(joined);
    world
        .raw_sql(&format!(
            "UPDATE replicas SET expires_at = expires_at + 3600000000 WHERE name = '{name}'"
        ))
        .await;
    let next = world.replica().await.unwrap();
    assert_eq!(next.store.replica(), name);
}

/// Whoever died before it compared is not waited for until its lease ends by a clock that was ahead.
#[tokio::test]
async fn a_lease_that_was_taken_by_a_clock_that_was_ahead_keeps_nobody_from_going_on_after_a_recovery() {
    let (world, grant, _, joined) = joined().await;
    let copy = copied(&world).await;
    world.revoke(Selector::Grant(grant)).await;
    let world = put_back(world, &copy).await;
    renewed(&joined).await;
    assert!(joined.store.is_sealed(world.org));
    recovered(&world.deps).await;
    let ahead = world.deps.clock.now().unix_micros() + 3_600_000_000;
    world
        .raw_sql(&format!(
            "INSERT INTO replicas (name, token, expires_at, word) VALUES ('r9', decode(repeat('00', 16), 'hex'), {ahead}, 0)"
        ))
        .await;
    unbroken(async || seal::keep_up(&joined).await).await.unwrap();
    assert_eq!(joined.store.sealed_orgs(), 0);
}
