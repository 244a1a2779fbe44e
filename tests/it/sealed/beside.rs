//! What replicas beside each other know of orgs, and whose word they take.

use std::{cell::Cell, collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use postern::{
    app::AppError,
    domain::connector::Category,
    flows::{Deps, Refusal, found, seal, sequence},
    store::{Selector, StoreError},
};

use super::{World, revoke, vend};
use crate::shares::crowd;

/// A replica that ends knows every org at its next starts, beside others and alone.
async fn starts_unsealed_again(world: &World, dir: &Path, replica: Arc<Deps>) {
    replica.store.close().await;
    let again = world.replica_in(dir).await.unwrap();
    assert_eq!(again.store.sealed_orgs(), 0, "beside others");
    again.store.close().await;
    world.deps.store.close().await;
    let alone = world.replica_in(dir).await.unwrap();
    assert_eq!(alone.store.sealed_orgs(), 0, "alone");
}

/// It signs one org's log, and ends before it has come to the other's.
#[tokio::test]
async fn a_replica_that_joined_others_is_no_stranger_to_any_org_when_it_starts_again() {
    let world = World::on_postgres().await;
    let second = found::found(&world.deps, "Second", "eve@second.example")
        .await
        .unwrap();
    sequence::run(&world.deps, second.org).await.unwrap();
    let dir = world.data_dir();
    let joined = world.replica_in(&dir).await.unwrap();
    let kept = joined.store.outside().unwrap().kept().unwrap();
    assert_eq!(
        kept.keys().copied().collect::<BTreeSet<_>>(),
        BTreeSet::from([world.org, second.org])
    );
    assert!(kept[&second.org].checkpoint.is_some(), "{kept:?}");
    sequence::run(&joined, world.org).await.unwrap();
    starts_unsealed_again(&world, &dir, joined).await;
}

/// Whose word is worth what: nobody's who has not compared, and nobody's beside one that has an org sealed.
#[tokio::test]
async fn the_word_of_a_replica_is_taken_only_if_nothing_is_sealed_there() {
    let world = signed_on_postgres().await;
    let sealed = async || {
        let newcomer = world.replica_in(&world.data_dir()).await.unwrap();
        let sealed = newcomer.store.is_sealed(world.org);
        newcomer.store.close().await;
        sealed
    };
    assert!(!sealed().await, "all is well");
    world.deps.store.seal(world.org);
    world.deps.store.renew_replica().await.unwrap();
    assert!(sealed().await, "beside one that is sealed");
    world.deps.store.unseal(world.org);
    world.deps.store.renew_replica().await.unwrap();
    assert!(!sealed().await, "after a recovery");

    world.raw_sql("UPDATE replicas SET word = 0").await;
    let compares = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.deps.store.renew_replica().await.unwrap();
    };
    assert!(!tokio::join!(sealed(), compares).0, "once the other has compared");
    world.raw_sql("UPDATE replicas SET word = 0").await;
    assert!(sealed().await, "the other never compares");
}

/// A world whose log is signed: a newcomer is a stranger to it.
pub(super) async fn signed_on_postgres() -> World {
    let world = World::on_postgres().await;
    sequence::run(&world.deps, world.org).await.unwrap();
    world
}

/// Starts a newcomer, and once it has said under this name that it knows nothing does something again and again until it has
/// started.
pub(super) async fn newcomer(
    world: &World,
    name: &str,
    mut meanwhile: impl AsyncFnMut(),
) -> Result<Arc<Deps>, AppError> {
    let dir = world.data_dir();
    let is_open = Cell::new(false);
    let opening = async {
        let opened = world.replica_apart(&dir).await;
        is_open.set(true);
        opened
    };
    let doing = async {
        until_said(world, name).await;
        while !is_open.get() {
            meanwhile().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::join!(opening, doing).0
}

/// Waits until the replica of this name says that it has never heard of an org.
pub(super) async fn until_said(world: &World, name: &str) {
    let mut superuser = world.superuser().await;
    for _ in 0..160 {
        let said: i64 = sqlx::query_scalar("SELECT count(*) FROM replicas WHERE name = $1 AND word = 2")
            .bind(name)
            .fetch_one(&mut superuser)
            .await
            .unwrap();
        if said > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{name} does not say it");
}

/// A standby that is promoted in the primary's place has it on a lease that has not ended.
#[tokio::test]
async fn the_word_of_a_replica_that_died_is_not_taken() {
    let world = signed_on_postgres().await;
    world.deps.store.renew_replica().await.unwrap();
    let joined = newcomer(&world, "r2", async || world.later(Duration::from_secs(5)))
        .await
        .unwrap();
    assert!(joined.store.is_sealed(world.org), "a lease that only ends");
}

/// However often it does, and whatever its clock says meanwhile.
#[tokio::test]
async fn the_word_of_a_replica_that_lives_is_taken_once_it_renews_its_lease() {
    let world = signed_on_postgres().await;
    let joined = newcomer(&world, "r2", async || {
        world.later(Duration::from_millis(1));
        world.deps.store.renew_replica().await.unwrap();
    })
    .await
    .unwrap();
    assert_eq!(joined.store.sealed_orgs(), 0);
    assert!(joined.store.known_outside(world.org).is_some());
}

/// It lives, and has not looked at the database that was put under it.
#[tokio::test]
async fn a_replica_looks_whether_anything_is_missing_before_it_says_again_that_all_is_well() {
    let world = World::on_postgres().await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    vend(&world, grant).await.unwrap();
    sequence::run(&world.deps, world.org).await.unwrap();
    world.deps.store.renew_replica().await.unwrap();
    world
        .raw_sql("UPDATE writers SET seq = seq - 1 WHERE writer = 'r1/hot'")
        .await;
    world.deps.store.renew_replica().await.unwrap();
    assert!(world.deps.store.has_lost_entries());
    let joined = world.replica_in(&world.data_dir()).await.unwrap();
    assert!(joined.store.is_sealed(world.org));
}

/// Each would wait for the other to compare first.
#[tokio::test]
async fn newcomers_that_start_together_do_not_wait_for_each_other() {
    let world = signed_on_postgres().await;
    world.raw_sql("UPDATE replicas SET word = 0").await;
    let (one, other) = (world.data_dir(), world.data_dir());
    let compares = async {
        // They have nothing to say but that.
        until_said(&world, "r2").await;
        until_said(&world, "r3").await;
        world.deps.store.renew_replica().await.unwrap();
    };
    let (one, other, ()) = tokio::join!(world.replica_in(&one), world.replica_in(&other), compares);
    for joined in [one.unwrap(), other.unwrap()] {
        assert_eq!(joined.store.sealed_orgs(), 0);
        assert!(joined.store.known_outside(world.org).is_some());
    }
}

/// Any number of them knows as little as one.
#[tokio::test]
async fn strangers_do_not_vouch_for_each_other() {
    let world = signed_on_postgres().await;
    world.raw_sql("UPDATE replicas SET word = 2").await;
    let (one, other) = (world.data_dir(), world.data_dir());
    let (one, other) = tokio::join!(world.replica_in(&one), world.replica_in(&other));
    for joined in [one.unwrap(), other.unwrap()] {
        assert!(joined.store.is_sealed(world.org));
        let kept = joined.store.outside().unwrap().kept().unwrap();
        assert_eq!(kept[&world.org].sealed.as_deref(), Some("no_outside_checkpoint"));
    }
}

/// Founded beside a replica that never signs its log.
#[tokio::test]
async fn a_replica_is_no_stranger_to_an_org_that_others_founded_while_it_ran() {
    let world = World::on_postgres().await;
    let dir = world.data_dir();
    let joined = world.replica_in(&dir).await.unwrap();
    let founded = |name: &'static str| found::found(&world.deps, name, "eve@second.example");
    let second = founded("Second").await.unwrap().org;
    sequence::run(&world.deps, second).await.unwrap();
    seal::keep_up(&joined).await.unwrap();
    assert!(joined.store.known_outside(second).is_some());
    let third = founded("Third").await.unwrap().org;
    sequence::run(&world.deps, third).await.unwrap();
    assert_eq!(joined.store.known_outside(third), None);
    // It ends before it hears of the third, and others still watch.
    starts_unsealed_again(&world, &dir, joined).await;
}

/// An older database that others have moved on from is no newest one to a replica that only watched them.
#[tokio::test]
async fn what_others_moved_and_signed_is_known_to_a_replica_that_only_ran_beside_them() {
    let world = signed_on_postgres().await;
    let dir = world.data_dir();
    let joined = world.replica_in(&dir).await.unwrap();
    let adopted = joined.store.known_outside(world.org).unwrap();
    revoke(&world, Selector::All(true)).await;
    sequence::run(&world.deps, world.org).await.unwrap();
    let stale = joined.store.known_outside(world.org).unwrap();
    assert_eq!(stale, adopted, "it has done nothing itself");
    seal::keep_up(&joined).await.unwrap();
    let followed = joined.store.known_outside(world.org).unwrap();
    assert!(
        followed.counter > adopted.counter && followed.size > adopted.size,
        "{adopted:?}, {followed:?}"
    );
    joined.store.close().await;
    world.deps.store.close().await;
    world.raw_sql("UPDATE epochs SET counter = counter - 1").await;
    let put_back = world.replica_in(&dir).await.unwrap();
    assert!(put_back.store.is_sealed(world.org));
    let found = seal::check(&put_back).await.unwrap();
    let kept = found[0].kept.as_ref().unwrap();
    let anything = ("all".to_owned(), String::new());
    assert_eq!(
        kept.moved.get(&anything),
        Some(&followed.counter),
        "what others ended is not known"
    );
}

/// Else one org that is busy for long would make strangers of all that others found meanwhile.
#[tokio::test]
async fn an_org_that_cannot_be_read_keeps_no_other_from_being_written_down() {
    let world = signed_on_postgres().await;
    let joined = world.replica_in(&world.data_dir()).await.unwrap();
    let mut orgs = Vec::new();
    for name in ["Second", "Third"] {
        orgs.push(
            found::found(&world.deps, name, "eve@second.example")
                .await
                .unwrap()
                .org,
        );
    }
    let busy = crowd(&joined, orgs[0]).await;
    let kept_up = seal::keep_up(&joined).await;
    assert!(
        matches!(kept_up, Err(Refusal::StoreUnavailable(Some(StoreError::Busy)))),
        "{kept_up:?}"
    );
    let are_known = || orgs.iter().map(|org| joined.store.known_outside(*org).is_some());
    assert_eq!(are_known().collect::<Vec<_>>(), [false, true]);
    drop(busy);
    seal::keep_up(&joined).await.unwrap();
    assert!(are_known().all(|is_known| is_known));
}
