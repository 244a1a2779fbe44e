//! How long a replica that knows nothing listens to others, and to whom, before it takes nobody's word.

use std::time::Duration;

use postern::store::{Listening, Word};

use super::beside::{newcomer, signed_on_postgres, until_said};
use crate::leases::run;

/// Whoever is the first to find the database again finds nobody, and takes the name of somebody who lives.
#[tokio::test]
async fn replicas_whose_leases_ended_in_an_outage_are_waited_for() {
    let world = signed_on_postgres().await;
    world.later(Duration::from_secs(60));
    let joined = newcomer(&world, "r1", async || {
        world.later(Duration::from_millis(1));
        world.deps.store.renew_replica().await.unwrap();
    })
    .await
    .unwrap();
    assert_eq!(joined.store.sealed_orgs(), 0);
    assert!(joined.store.known_outside(world.org).is_some());
    assert_ne!(joined.store.replica(), world.deps.store.replica());
}

/// It says that the org is sealed until a moment after the newcomer has begun to listen.
#[tokio::test]
async fn a_replica_that_is_being_recovered_is_waited_for() {
    let world = signed_on_postgres().await;
    world.deps.store.seal(world.org);
    world.deps.store.renew_replica().await.unwrap();
    let joined = newcomer(&world, "r2", async || {
        world.deps.store.unseal(world.org);
        world.later(Duration::from_millis(1));
        world.deps.store.renew_replica().await.unwrap();
    })
    .await
    .unwrap();
    assert_eq!(joined.store.sealed_orgs(), 0);
}

/// Its word is heard once it has one.
#[tokio::test]
async fn one_that_compares_for_long_seals_nobody_beside_one_that_knows_the_database() {
    let world = signed_on_postgres().await;
    let slow = world.replica().await.unwrap();
    let says = |word: u8| format!("UPDATE replicas SET word = {word} WHERE name = 'r2'");
    world.raw_sql(&says(0)).await;
    let joined = world.replica().await.unwrap();
    assert_eq!(joined.store.sealed_orgs(), 0);
    assert!(joined.store.known_outside(world.org).is_some());
    world.raw_sql(&says(3)).await;
    joined.store.renew_replica().await.unwrap();
    assert!(joined.store.is_sealed(world.org));
    drop(slow);
}

/// With very many orgs that takes long, and others that start would wait for it.
#[tokio::test]
async fn a_replica_that_knows_nothing_says_so_before_it_looks_at_every_org() {
    let world = signed_on_postgres().await;
    let mut superuser = world.superuser().await;
    run(&mut superuser, "BEGIN; LOCK TABLE logs IN ACCESS EXCLUSIVE MODE").await;
    let said = async {
        until_said(&world, "r2").await;
        run(&mut superuser, "ROLLBACK").await;
    };
    let (joined, ()) = tokio::join!(world.replica(), said);
    assert_eq!(joined.unwrap().store.sealed_orgs(), 0);
}

#[tokio::test]
async fn a_lease_that_a_clock_gave_which_was_ahead_says_nothing() {
    let world = signed_on_postgres().await;
    let other = world.replica().await.unwrap();
    let said = async || {
        let said = world.deps.store.others_word(&mut Listening::default()).await;
        said.unwrap()
    };
    world
        .raw_sql("UPDATE replicas SET word = 4 WHERE name = 'r2'")
        .await;
    assert_eq!(said().await, Some(Word::Torn));
    world
        .raw_sql("UPDATE replicas SET expires_at = expires_at + 3600000000 WHERE name = 'r2'")
        .await;
    assert_eq!(said().await, None);
    // What a dead one has found stands, whatever its clock.
    world
        .raw_sql("UPDATE replicas SET word = 3 WHERE name = 'r2'")
        .await;
    assert_eq!(said().await, Some(Word::Bad));
    other.store.renew_replica().await.unwrap();
    assert_eq!(said().await, Some(Word::Unsaid), "not renewed since");
}
