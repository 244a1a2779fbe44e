//! How long a provider that gives nothing is left alone.

use std::time::Duration;

use postern::{
    domain::grant::{GrantState, ReconnectReason},
    flows::Refusal,
    store::{Claim, Lease},
};
use serde_json::json;

use super::with_a_lost_answer;
use crate::harness::World;

#[tokio::test]
async fn a_provider_that_is_down_damages_nothing() {
    let (world, grant) = World::connected().await;
    world.later(Duration::from_secs(400));
    world
        .fault(json!({"next": "token", "status": 503, "body": "down", "times": 1}))
        .await;
    assert!(matches!(
        world.vend(world.read(grant)).await,
        Err(Refusal::ProviderUnavailable)
    ));
    world.later(Duration::from_secs(61));
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test]
async fn a_provider_that_fails_is_left_alone_for_longer_and_longer() {
    let (world, grant) = World::connected().await;
    world.later(Duration::from_secs(400));
    world
        .fault(json!({"next": "token", "status": 503, "body": "down", "times": 100}))
        .await;
    let before = world.seen("token").await.len();
    for _ in 0..120 {
        world.vend(world.read(grant)).await.unwrap_err();
        world.later(Duration::from_secs(1));
    }
    assert_eq!(
        world.seen("token").await.len() - before,
        7,
        "at 0, 1, 3, 7, 15, 31 and 63 s"
    );
}

#[tokio::test]
async fn a_provider_that_names_a_time_is_not_asked_before_it() {
    let (world, grant) = World::connected().await;
    world.later(Duration::from_secs(400));
    world
        .fault(json!({"next": "token", "status": 429, "body": "slow down", "retry_after": 90, "times": 1}))
        .await;
    world.vend(world.read(grant)).await.unwrap_err();
    world.later(Duration::from_secs(89));
    world.vend(world.read(grant)).await.unwrap_err();
    world.later(Duration::from_secs(2));
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test]
async fn a_provider_that_throttles_does_not_settle_an_earlier_doubt() {
    // First the provider rotates and its answer is lost; then it answers that it did nothing.
    let (world, grant, _) = with_a_lost_answer().await;
    world
        .fault(json!({"next": "token", "status": 429, "body": "slow down", "times": 1}))
        .await;
    world.later(Duration::from_secs(2));
    world.vend(world.read(grant)).await.unwrap_err();
    world.later(Duration::from_secs(120));
    world.vend(world.read(grant)).await.unwrap_err();
    assert_eq!(
        world.grant(grant).await.state,
        GrantState::NeedsReconnect {
            reason: ReconnectReason::RotationLost
        }
    );
}

/// A failure while the clock was ahead is no reason to leave the provider alone until then.
#[tokio::test]
async fn a_pause_kept_while_the_clock_was_ahead_is_over_when_it_is_put_right() {
    let (world, grant) = World::connected().await;
    world.later(Duration::from_secs(3 * 3600));
    world
        .fault(json!({"next": "token", "status": 503, "times": 1}))
        .await;
    let failed = world.vend(world.read(grant)).await;
    assert!(matches!(failed, Err(Refusal::ProviderUnavailable)), "{failed:?}");
    world.clock.put_back(Duration::from_secs(3 * 3600 - 400));
    world.vend(world.read(grant)).await.unwrap();
}

/// The answer of an earlier asker is entered while the provider wants to be left alone, which it told a later one.
#[tokio::test]
async fn an_earlier_answer_takes_back_no_pause_that_the_provider_asked_for() {
    let (world, grant) = World::connected().await;
    let ask = world.claim_ask(grant).await;
    let claimed = async || -> Claim {
        let mut tx = world.deps.store.write(world.org).await.unwrap();
        let claims = tx.claim_refreshes("r1", std::slice::from_ref(&ask)).await;
        tx.commit().await.unwrap();
        claims.unwrap().remove(0)
    };
    let ours = |claim: Claim| -> Lease {
        match claim {
            Claim::Ours(lease) => lease,
            other => panic!("{other:?}"),
        }
    };
    let earlier = ours(claimed().await);
    world.later(Duration::from_secs(11));
    let later = ours(claimed().await);
    assert!(later.fence > earlier.fence);
    let mut tx = world.deps.store.write(world.org).await.unwrap();
    let not_before = tx.now() + Duration::from_secs(90);
    assert!(
        tx.fail_refresh(world.org, grant, later.fence, false, not_before)
            .await
            .unwrap()
    );
    assert!(tx.settle_refresh(world.org, grant).await.unwrap());
    tx.commit().await.unwrap();
    for (wait, is_cooling) in [(0, true), (89, true), (2, false)] {
        world.later(Duration::from_secs(wait));
        let claim = claimed().await;
        assert_eq!(matches!(claim, Claim::Cooling), is_cooling, "{wait}: {claim:?}");
    }
}
