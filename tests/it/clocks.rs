//! A clock that was ahead for hours and was put right: what was written meanwhile names moments that lie hours away, and
//! nothing stands still until then.

use std::time::Duration;

use postern::{
    domain::GrantId,
    flows::{refresh::doubt, upstream},
    store::{Claim, ClaimAsk, OutboxRow, Selector, UpstreamResult},
};
use serde_json::json;

use super::harness::World;

/// How far the clock was ahead.
const AHEAD: Duration = Duration::from_secs(3 * 3600);

async fn outbox(world: &World, grant: GrantId) -> OutboxRow {
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    tx.outbox(world.org, grant).await.unwrap().unwrap()
}

async fn revoke(world: &World, grant: GrantId) {
    world.revoke(Selector::Grant(grant)).await;
    upstream::fan_out(&world.deps).await.unwrap();
}

/// Two grants; one of them was ended, at its provider too, while the clock was ahead.
async fn ended_ahead(fault: Option<serde_json::Value>) -> (World, Vec<GrantId>) {
    let world = World::new().await;
    let grants = world.connect_many(2).await;
    world.later(AHEAD);
    if let Some(fault) = fault {
        world.fault(fault).await;
    }
    revoke(&world, grants[0]).await;
    upstream::drain(&world.deps).await.unwrap();
    world.clock.put_back(AHEAD);
    (world, grants)
}

#[tokio::test]
async fn turns_that_were_taken_ahead_keep_nobody_from_having_tokens_ended() {
    let (world, grants) = ended_ahead(None).await;
    revoke(&world, grants[1]).await;
    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 1);
    assert_eq!(outbox(&world, grants[1]).await.result, UpstreamResult::Revoked);
}

#[tokio::test]
async fn a_rest_that_a_provider_asked_for_ahead_is_over() {
    let busy = json!({"next": "revoke", "status": 429, "body": "slow down", "retry_after": 120, "times": 1});
    let (world, grants) = ended_ahead(Some(busy)).await;
    revoke(&world, grants[1]).await;
    assert_eq!(
        upstream::drain(&world.deps).await.unwrap(),
        2,
        "the first as well"
    );
}

#[tokio::test]
async fn what_was_queued_ahead_is_tried() {
    let world = World::new().await;
    let grants = world.connect_many(2).await;
    world.later(AHEAD);
    revoke(&world, grants[0]).await;
    world.clock.put_back(AHEAD);
    assert!(outbox(&world, grants[0]).await.due_at > world.deps.store.read(world.org).await.unwrap().now());
    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 1);
    assert_eq!(outbox(&world, grants[0]).await.result, UpstreamResult::Revoked);
}

/// A large fan-out is paced over many hours: what lies so far ahead honestly takes nobody's turn.
#[tokio::test]
async fn what_lies_far_ahead_is_tried_behind_what_is_due() {
    let world = World::new().await;
    let grants = world.connect_many(20).await;
    world.later(AHEAD);
    world.revoke(Selector::All(true)).await;
    upstream::fan_out(&world.deps).await.unwrap();
    world
        .raw_sql(&format!(
            "UPDATE outbox SET due_at = 1 WHERE grant_id = '{}'",
            grants[19]
        ))
        .await;
    world.clock.put_back(AHEAD);
    upstream::drain(&world.deps).await.unwrap();
    assert_eq!(outbox(&world, grants[19]).await.result, UpstreamResult::Revoked);
    let mut left = 0;
    for grant in grants {
        left += usize::from(outbox(&world, grant).await.result == UpstreamResult::Pending);
    }
    assert!(left > 0, "there are more than turns");
}

async fn claim(world: &World, grant: GrantId, life: Duration) -> Claim {
    let mut tx = world.deps.store.write(world.org).await.unwrap();
    let ask = ClaimAsk {
        life,
        ..world.claim_ask(grant).await
    };
    let claim = tx.claim_refreshes("other", &[ask]).await.unwrap().pop().unwrap();
    tx.commit().await.unwrap();
    claim
}

/// I4: whoever began a moment before the holder, and comes to the lease after it, finds it held.
#[tokio::test]
async fn a_lease_that_was_claimed_by_a_later_clock_is_held() {
    let (world, grant) = World::connected().await;
    let (life, moment) = (Duration::from_secs(60), Duration::from_millis(1));
    world.later(moment);
    assert!(matches!(claim(&world, grant, life).await, Claim::Ours(_)));
    world.clock.put_back(moment);
    assert!(matches!(claim(&world, grant, life).await, Claim::Held));
}

/// Asks again what is in doubt, and waits until the answer is the grant's.
async fn asks_again(world: &World, grant: GrantId) {
    let before = world.grant(grant).await.generation;
    assert_eq!(doubt::ask_again(&world.deps).await.unwrap(), 1);
    world.until_generation(grant, before + 1).await;
}

/// Its holder died while the clock was ahead. The provider takes the old refresh token for a minute only.
#[tokio::test]
async fn a_lease_that_was_claimed_ahead_is_held_by_nobody() {
    let (world, grant) = World::connected().await;
    world.later(AHEAD);
    let claimed = claim(&world, grant, Duration::from_secs(60)).await;
    assert!(matches!(claimed, Claim::Ours(_)), "{claimed:?}");
    world.clock.put_back(AHEAD);
    asks_again(&world, grant).await;
}

/// A lease that can honestly be held so long is.
#[tokio::test]
async fn a_lease_that_was_claimed_just_now_is_held() {
    let (world, grant) = World::connected().await;
    claim(&world, grant, Duration::from_secs(60)).await;
    assert_eq!(doubt::ask_again(&world.deps).await.unwrap(), 0);
    let claimed = claim(&world, grant, Duration::from_secs(60)).await;
    assert!(matches!(claimed, Claim::Held), "{claimed:?}");
}

/// A lease that ended while the clock was ahead left a doubt, which was to be left alone for a while.
#[tokio::test]
async fn a_doubt_that_was_put_off_ahead_is_asked_about() {
    let (world, grant) = World::connected().await;
    world.later(AHEAD);
    let Claim::Ours(lease) = claim(&world, grant, Duration::from_secs(10)).await else {
        panic!("nobody else holds it");
    };
    let mut tx = world.deps.store.write(world.org).await.unwrap();
    let later = tx.now() + Duration::from_secs(120);
    tx.fail_refresh(world.org, grant, lease.fence, true, later)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        doubt::ask_again(&world.deps).await.unwrap(),
        0,
        "not before it is time"
    );
    world.clock.put_back(AHEAD);
    asks_again(&world, grant).await;
}

#[tokio::test]
async fn a_doubt_that_makes_no_difference_is_forgotten_though_its_lease_was_claimed_ahead() {
    let (world, grant) = World::connected().await;
    world.later(AHEAD);
    claim(&world, grant, Duration::from_secs(60)).await;
    world.clock.put_back(AHEAD);
    revoke(&world, grant).await;
    doubt::settle(&world.deps, world.org, grant).await.unwrap();
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    assert!(!tx.is_refresh_in_doubt(world.org, grant).await.unwrap());
}
