//! What a provider is not asked costs nothing of its pace, and connectors of one host take turns at it.

use super::*;
use crate::harness::ending;

/// As at Slack and GitHub. The file says nothing of a pace, so it is ten requests a second.
#[tokio::test]
async fn a_token_that_the_provider_does_not_take_costs_nothing_of_its_pace() {
    let access_only = "accepts = \"access\"\nkills = \"grant\"";
    let world = World::with_connector(&[("kills = \"grant\"", access_only)]).await;
    let grants = world.connect_many(20).await;
    let id = world.revoke(Selector::All(true)).await.id;
    upstream::fan_out(&world.deps).await.unwrap();
    for half_seconds in 0..=4 {
        upstream::drain(&world.deps).await.unwrap();
        let requests = world.seen("revoke").await.len();
        assert!(
            requests <= 10 + 5 * half_seconds,
            "{requests} after {half_seconds}"
        );
        world.later(Duration::from_millis(500));
    }
    assert_eq!(ended(&world, id).await, grants.len());
    let asked = asked(&world).await;
    assert!(
        asked.len() == grants.len() && asked.values().all(|times| *times == 1),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_large_fan_out_at_one_connector_leaves_turns_to_another_of_the_same_host() {
    let slowly = "kills = \"token\"\nper_second = 4";
    let mut world = World::with_connector(&[("kills = \"grant\"", slowly)]).await;
    be_client_of_acme_mail(&world, DEMO_CLIENT_ID).await;
    let one = connect_with(&world, world.ben, "ben@acme.example").await;
    world.connector = acme_mail();
    let model = connect_with(&world, world.ada, "ada@acme.example").await;
    world.seed(model, 99).await;
    let all = world.revoke(Selector::Connector(acme_mail())).await.id;
    upstream::fan_out(&world.deps).await.unwrap();
    // Every one of them is due before the other is.
    world.later(Duration::from_secs(60));
    let id = world.revoke(Selector::Grant(one)).await.id;
    upstream::fan_out(&world.deps).await.unwrap();
    for _ in 0..3 {
        upstream::drain(&world.deps).await.unwrap();
        world.later(Duration::from_millis(500));
    }
    let waiting = report(&world, all).await;
    let waiting = waiting.iter().filter(|row| row.result == UpstreamResult::Pending);
    assert!(waiting.count() > 80, "there was no queue");
    assert_eq!(ended(&world, id).await, 1);
}

/// All of the large one was due long before, and it takes every turn there is for many seconds.
#[tokio::test]
async fn a_large_revocation_of_one_org_leaves_turns_to_another_org() {
    let world = World::new().await;
    let model = world.connect(world.ada, &[Category::Read]).await;
    world.seed(model, 99).await;
    let (other, grant) = world.another_org("Another").await;
    let all = world.revoke(Selector::All(true)).await.id;
    upstream::fan_out(&world.deps).await.unwrap();
    world.later(Duration::from_secs(60));
    let ask = ending(Selector::Grant(grant));
    let small = revoke::run(&world.deps, other.org, ask).await.unwrap().id;
    upstream::fan_out(&world.deps).await.unwrap();
    upstream::drain(&world.deps).await.unwrap();
    let waiting = report(&world, all).await;
    let waiting = waiting.iter().filter(|row| row.result == UpstreamResult::Pending);
    assert!(waiting.count() > 80, "there was no queue");
    let report = revoke::report(&world.deps, other.org, small, None, 10)
        .await
        .unwrap();
    let results: Vec<_> = report.1.iter().map(|row| row.result).collect();
    assert_eq!(results, [UpstreamResult::Revoked]);
}
