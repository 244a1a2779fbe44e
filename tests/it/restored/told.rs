//! What replicas tell each other of a database, and how long it holds.

use postern::store::{Listening, Word};

use super::*;

async fn others_word(deps: &Deps) -> Option<Word> {
    deps.store.others_word(&mut Listening::default()).await.unwrap()
}

/// The replica with this directory, sealed by what its file remembers alone, stops nobody else.
async fn stops_nobody_else(world: &World, grant: GrantId, dir: &Path) -> Arc<Deps> {
    let again = world.replica_in(dir).await.unwrap();
    assert!(again.store.is_sealed(world.org));
    again.store.renew_replica().await.unwrap();
    world.deps.store.renew_replica().await.unwrap();
    vend(world, &world.deps, grant).await.unwrap();
    // Nor does anybody take its word that all is well.
    assert_eq!(others_word(&world.deps).await, Some(Word::Torn));
    again
}

/// As after a look at a copy on another server: what was found there says nothing of this database.
#[tokio::test]
async fn what_was_found_over_another_database_stops_no_other_replica() {
    let (world, grant, dir, joined) = joined().await;
    remembers_older(&world, &joined).await;
    joined.store.close().await;
    let again = stops_nobody_else(&world, grant, &dir).await;
    let plan = recovered(&again).await;
    assert_eq!((plan.why, plan.ends.len()), ("older_database", 0), "{plan:?}");
}

#[tokio::test]
async fn a_database_that_was_swapped_and_swapped_back_stops_no_other_replica() {
    let (world, grant, dir, joined) = joined().await;
    vend(&world, &joined, grant).await.unwrap();
    let writer = format!("{}/hot", joined.store.replica());
    for (change, is_back) in [("- 1", false), ("+ 1", true)] {
        world
            .raw_sql(&format!(
                "UPDATE writers SET seq = seq {change} WHERE writer = '{writer}'"
            ))
            .await;
        if !is_back {
            joined.store.look_for_lost_entries().await.unwrap_err();
        }
    }
    joined.store.close().await;
    // What it said goes with its lease, for whoever starts after that.
    world.later(Duration::from_secs(60));
    let world = world.restarted().await;
    let again = stops_nobody_else(&world, grant, &dir).await;
    assert_eq!(plan(&again).await.why, "lost_entries");
}

/// The file had not heard of it when the process found out.
#[tokio::test]
async fn a_release_that_is_missing_is_named_by_whoever_finds_out() {
    let (world, grant) = World::connected().await;
    world.vend(world.read(grant)).await.unwrap();
    for sql in [
        "DELETE FROM entries WHERE writer = 'r1/hot'
         AND writer_seq = (SELECT max(writer_seq) FROM entries WHERE writer = 'r1/hot')",
        "UPDATE writers SET seq = seq - 1 WHERE writer = 'r1/hot'",
    ] {
        world.raw_sql(sql).await;
    }
    world.deps.store.look_for_lost_entries().await.unwrap_err();
    let world = world.restarted().await;
    let plans = plans(&world, Vouch::No).await;
    assert_eq!((plans.len(), plans[0].why), (1, "older_database"), "{plans:?}");
}

#[tokio::test]
async fn what_was_told_before_a_recovery_holds_until_it_is_taken_back() {
    let (world, grant, _, joined) = joined().await;
    let copy = copied(&world).await;
    world.revoke(Selector::Grant(grant)).await;
    let world = put_back(world, &copy).await;
    renewed(&joined).await;
    assert!(joined.store.is_sealed(world.org));
    recovered(&world.deps).await;
    // Met before whoever recovered has taken back what it said.
    let name = world.deps.store.replica();
    let says = |what: &str| format!("UPDATE replicas SET {what} WHERE name = '{name}'");
    world.raw_sql(&says("word = 3")).await;
    unbroken(async || seal::keep_up(&joined).await).await.unwrap();
    assert!(joined.store.is_sealed(world.org));
    // One that dies before that has not recovered everything.
    world.raw_sql(&says("expires_at = 0")).await;
    renewed(&joined).await;
    assert!(joined.store.is_sealed(world.org));
    world.deps.store.renew_replica().await.unwrap();
    renewed(&joined).await;
    assert_eq!(joined.store.sealed_orgs(), 0);
    let refused = vend(&world, &joined, grant).await;
    assert!(matches!(refused, Err(Refusal::Revoked { .. })), "{refused:?}");
}

/// Also where its file remembers that something was missing before.
#[tokio::test]
async fn what_one_replica_alone_knows_stops_whoever_recovered_without_it() {
    let (world, grant, dir, joined) = joined().await;
    let copy = copied_before_the_last_of(&world, &joined, grant).await;
    world.revoke(Selector::Grant(grant)).await;
    remembers_older(&world, &world.deps).await;
    world.stopped().await;
    restore(&world, &copy).await;
    let joined = world.replica_in(&dir).await.unwrap();
    recovered(&joined).await;
    assert!(!is_revoked(&joined, world.org, grant).await);
    let _again = world.replica_in(world.dir.path()).await.unwrap();
    assert_eq!(others_word(&joined).await, Some(Word::Bad));
    renewed(&joined).await;
    assert!(joined.store.is_sealed(world.org));
}

/// Both replicas know all that the copy has.
async fn copied_with_two_grants() -> (World, GrantId, GrantId, Arc<Deps>, Vec<u8>) {
    let (world, first, _, joined) = joined().await;
    let second = world.connect(world.ben, &BOTH).await;
    signed(&world).await;
    seal::keep_up(&joined).await.unwrap();
    let copy = copied(&world).await;
    (world, first, second, joined, copy)
}

/// An older database, whose log others have let grow beyond what one replica signed of the one that is gone. That one has
/// signed and ended something since, of which `joined` has heard nothing.
async fn grown_again(world: &World, first: GrantId, second: GrantId, copy: &[u8], joined: &Arc<Deps>) {
    world.revoke(Selector::Grant(first)).await;
    signed(world).await;
    world.deps.store.close().await;
    restore(world, copy).await;
    for _ in 0..4 {
        let ask = harness::ending(Selector::Grant(second));
        unbroken(async || revoke::run(joined, world.org, ask.clone()).await)
            .await
            .unwrap();
    }
    sequence::run(joined, world.org).await.unwrap();
}

#[tokio::test]
async fn an_older_database_whose_log_has_grown_again_is_told_to_whoever_let_it_grow() {
    let (world, first, second, joined, copy) = copied_with_two_grants().await;
    grown_again(&world, first, second, &copy, &joined).await;
    // Nothing of it is missing to this one.
    renewed(&joined).await;
    assert_eq!(joined.store.sealed_orgs(), 0);
    let again = world.replica_in(world.dir.path()).await.unwrap();
    assert_eq!(plan(&again).await.why, "other_history");
    renewed(&joined).await;
    assert!(joined.store.is_sealed(world.org));
}

/// It signed nothing of it, and wrote nothing that is missing.
#[tokio::test]
async fn whoever_heard_of_a_log_that_is_gone_gives_up_the_database_that_grew_in_its_place() {
    let (world, first, second, joined, copy) = copied_with_two_grants().await;
    let heard = world.replica_in(&world.data_dir()).await.unwrap();
    world.revoke(Selector::Grant(first)).await;
    signed(&world).await;
    seal::keep_up(&heard).await.unwrap();
    grown_again(&world, first, second, &copy, &joined).await;
    let given_up = unbroken(async || seal::keep_up(&heard).await).await;
    assert!(heard.store.has_lost_entries(), "{given_up:?}");
}
