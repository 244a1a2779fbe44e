//! An org that the file outside knows and the database has not at all: it was founded after the copy was made.

use postern::flows::found;

use super::*;

async fn founded(world: &World) {
    // Entries of one moment have no order: it has the newest one.
    world.later(Duration::from_secs(1));
    let second = found::found(&world.deps, "Second", "eve@second.example")
        .await
        .unwrap();
    sequence::run(&world.deps, second.org).await.unwrap();
}

/// As the workers and the prober look.
async fn is_well(deps: &Deps, sealed: usize) {
    deps.store.renew_replica().await.unwrap();
    deps.store.look_for_lost_entries().await.unwrap();
    assert!(!deps.store.has_lost_entries());
    assert_eq!(deps.store.sealed_orgs(), sealed);
}

#[tokio::test]
async fn an_org_that_was_founded_after_the_backup_ends_no_start_and_no_recovery() {
    let (world, grant) = World::connected().await;
    signed(&world).await;
    let copy = copied(&world).await;
    world.revoke(Selector::Grant(grant)).await;
    signed(&world).await;
    founded(&world).await;
    let world = put_back(world, &copy).await;
    is_well(&world.deps, 1).await;
    assert!(world.deps.store.holds_back(world.org));
    assert_eq!(recovered(&world.deps).await.ends, [Selector::Grant(grant)]);
    is_well(&world.deps, 0).await;
    let refused = vend(&world, &world.deps, grant).await;
    assert!(matches!(refused, Err(Refusal::Revoked { .. })), "{refused:?}");
    if !world.deps.store.is_alone() {
        let newcomer = world.replica().await.unwrap();
        is_well(&newcomer, 0).await;
    }
    let world = world.restarted().await;
    is_well(&world.deps, 0).await;
}

/// It was there when the replica started.
#[tokio::test]
async fn an_org_that_is_gone_while_a_replica_only_watches_is_missed() {
    let (world, _, _, joined) = joined().await;
    let copy = copied(&world).await;
    founded(&world).await;
    seal::keep_up(&joined).await.unwrap();
    is_well(&joined, 0).await;
    world.stopped().await;
    restore(&world, &copy).await;
    renewed(&joined).await;
    assert!(joined.store.has_lost_entries());
}
