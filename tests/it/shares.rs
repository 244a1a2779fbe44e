//! No org takes the others' connections, whatever it does with its own; and who ends something waits for nobody's.

use std::{
    future::{Future, poll_fn},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use postern::{
    domain::OrgId,
    flows::{Deps, Refusal, revoke},
    store::{Selector, StoreError, Tx},
};
use tokio::{task::JoinSet, time::timeout};

use super::{
    harness::{World, ending},
    leases::{connected, run, until_waiting},
};

/// What comes of it before anybody in its way would be told that they waited too long.
async fn at_once<T>(work: impl Future<Output = T>) -> T {
    let done = timeout(Duration::from_secs(3), work).await;
    done.expect("it waits for others")
}

/// What people do with connections, and workers.
async fn are_served(deps: &Deps, org: OrgId) {
    let mut tx = deps.store.read(org).await.unwrap();
    tx.epoch(org).await.unwrap().unwrap();
    drop(tx);
    deps.store.write(org).await.unwrap().commit().await.unwrap();
    deps.store.due().await.unwrap().orgs(None, 1).await.unwrap();
    deps.store.meta("room").await.unwrap();
}

/// Takes all that an org gets of the connections to read, until it is told that it has its share.
pub(crate) async fn crowd(deps: &Deps, org: OrgId) -> Vec<Tx> {
    let mut held = Vec::new();
    loop {
        match deps.store.read(org).await {
            Ok(tx) => held.push(tx),
            Err(StoreError::Busy) => return held,
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_org_that_has_its_share_is_told_to_come_again_and_no_other_is() {
    let (world, _) = World::connected().await;
    let (other, _) = world.another_org("Other").await;
    let crowd = crowd(&world.deps, world.org).await;
    let api = world.api();
    let refused = api.get(&world.as_admin(), "/v1/audit/entries").await;
    assert_eq!(
        (refused.status, refused.code()),
        (503, "store_unavailable".to_owned())
    );
    assert_eq!(refused.headers["retry-after"], "5");
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("as many connections as it may"), "{detail}");
    at_once(are_served(&world.deps, other.org)).await;
    // Whose log this process wrote to last: it is looked there whether anything is missing.
    at_once(world.deps.store.renew_replica()).await.unwrap();
    drop(crowd);
    at_once(are_served(&world.deps, world.org)).await;
    assert_eq!(api.get(&world.as_admin(), "/v1/audit/entries").await.status, 200);
}

/// A lock stands for a million grants, which take as long to count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_dry_runs_of_one_org_is_in_nobodys_way() {
    let (world, grant, mut owner) = connected().await;
    let (other, _) = world.another_org("Other").await;
    run(&mut owner, "BEGIN; LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE").await;
    let mut crowd = JoinSet::new();
    for _ in 0..64 {
        let world = Arc::clone(&world);
        crowd.spawn(async move { revoke::dry_run(&world.deps, world.org, &Selector::All(true)).await });
    }
    until_waiting(&world, 4).await;
    at_once(are_served(&world.deps, other.org)).await;
    at_once(are_served(&world.deps, world.org)).await;
    let ask = ending(Selector::Grant(grant));
    at_once(revoke::run(&world.deps, world.org, ask)).await.unwrap();
    run(&mut owner, "ROLLBACK").await;
    crowd.join_all().await;
    let left = revoke::dry_run(&world.deps, world.org, &Selector::All(true)).await;
    assert_eq!(left.unwrap().grants, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_writers_and_revocations_in_one_orgs_line_is_in_no_others_way() {
    let (world, _, mut owner) = connected().await;
    let (other, theirs) = world.another_org("Other").await;
    let hold = format!(
        "BEGIN; SELECT 1 FROM orgs WHERE org_id = '{}' FOR UPDATE",
        world.org
    );
    run(&mut owner, &hold).await;
    let mut crowd = JoinSet::new();
    for number in 0..24 {
        let world = Arc::clone(&world);
        crowd.spawn(async move {
            loop {
                match stand_in_line(&world, number % 2 == 0).await {
                    // Told to come again after five seconds, it does.
                    Err(Refusal::StoreUnavailable(Some(StoreError::Busy | StoreError::Conflict))) => {}
                    done => return done,
                }
            }
        });
    }
    until_waiting(&world, 8).await;
    at_once(are_served(&world.deps, other.org)).await;
    let ask = ending(Selector::Grant(theirs));
    at_once(revoke::run(&world.deps, other.org, ask)).await.unwrap();
    run(&mut owner, "ROLLBACK").await;
    let done = timeout(Duration::from_secs(60), crowd.join_all()).await;
    for done in done.expect("the way is free, and some are not served") {
        done.unwrap();
    }
}

/// Writes to the world's org, or ends something in it.
async fn stand_in_line(world: &World, writes: bool) -> Result<(), Refusal> {
    if writes {
        let tx = world.deps.store.write(world.org).await?;
        return Ok(tx.commit().await?);
    }
    let ask = ending(Selector::User(world.ada));
    revoke::run(&world.deps, world.org, ask).await.map(drop)
}

/// There is one connection that writes, and a line before it. None of those who stand in it goes on by itself here.
#[tokio::test]
async fn a_revocation_stands_in_no_line_of_writers_on_sqlite() {
    let (world, grant) = World::connected_on_sqlite().await;
    let store = &world.deps.store;
    let held = store.write(world.org).await.unwrap();
    let mut crowd: Vec<_> = (0..32).map(|_| Box::pin(store.write(world.org))).collect();
    for one in &mut crowd {
        let waits = poll_fn(|context| Poll::Ready(one.as_mut().poll(context).is_pending())).await;
        assert!(waits);
    }
    drop(held);
    let ask = ending(Selector::Grant(grant));
    at_once(revoke::run(&world.deps, world.org, ask)).await.unwrap();
    drop(crowd);
    at_once(are_served(&world.deps, world.org)).await;
}

#[tokio::test]
async fn whoever_counts_for_long_leaves_room_for_everything_else() {
    let (world, grant) = World::connected().await;
    let (other, _) = world.another_org("Other").await;
    let store = &world.deps.store;
    let mut counting = Vec::new();
    while let Some(tx) = store.read_for_long_now(world.org).await.unwrap() {
        counting.push(tx);
    }
    assert!(!counting.is_empty());
    let theirs = store.read_for_long_now(other.org).await.unwrap();
    assert!(theirs.is_some(), "others may count as well");
    drop(theirs);
    for org in [other.org, world.org] {
        at_once(are_served(&world.deps, org)).await;
    }
    let ask = ending(Selector::Grant(grant));
    let revoked = at_once(revoke::run(&world.deps, world.org, ask)).await.unwrap();
    assert!(revoked.counts.is_none(), "it waits for no room to count");
    drop(counting);
    let left = at_once(revoke::dry_run(&world.deps, world.org, &Selector::All(true))).await;
    assert_eq!(left.unwrap().grants, 0);
}
