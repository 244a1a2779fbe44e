//! A client that its provider wants to be left alone by rests, and nobody else does; unless it tells several clients so and
//! serves nobody meanwhile: then it means whoever asks from here.

use super::*;

/// Whom the provider answers next is told to come again in two minutes.
async fn tells_the_next_to_wait(world: &World) {
    let busy = json!({"next": "revoke", "status": 429, "body": "slow down", "retry_after": 120, "times": 1});
    world.fault(busy).await;
}

#[tokio::test]
async fn a_client_that_is_told_to_wait_delays_no_other_client_of_the_provider() {
    let mut world = World::with_connector(&[("kills = \"grant\"", "kills = \"token\"")]).await;
    let fine = world.connect(world.ada, &[Category::Read]).await;
    be_client_of_acme_mail(&world, DEMO_CLIENT_ID).await;
    world.connector = acme_mail();
    let grants = [
        connect_with(&world, world.ben, "ben@acme.example").await,
        connect_with(&world, world.ben, "other@else.example").await,
    ];
    be_client_of_acme_mail(&world, "unruly").await;
    tells_the_next_to_wait(&world).await;
    world.revoke(Selector::Grant(grants[0])).await;
    upstream::fan_out(&world.deps).await.unwrap();
    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 0);
    assert_eq!(asked(&world).await.len(), 1);

    let id = world.revoke(Selector::Grant(fine)).await.id;
    let waits = world.revoke(Selector::Grant(grants[1])).await.id;
    upstream::fan_out(&world.deps).await.unwrap();
    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 1);
    assert_eq!(ended(&world, id).await, 1);
    world.later(Duration::from_secs(119));
    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 0);
    assert_eq!(
        asked(&world).await.len(),
        3,
        "the unruly one rests, also for another grant"
    );
    let row = report(&world, waits).await.remove(0);
    assert_eq!((row.result, row.attempts), (UpstreamResult::Pending, 0));

    world.later(Duration::from_secs(2));
    upstream::drain(&world.deps).await.unwrap();
    assert!(asked(&world).await.len() > 3, "and no longer than it was told");
}

/// A grant at a connector where each token ends alone, and whose grants' clients are told to wait one after the other. Where
/// `served` says so, a grant of a client that is served ends in between.
async fn told_one_after_the_other(clients: &[&str], served: Option<usize>) -> (World, GrantId) {
    let world = World::with_connector(&[("kills = \"grant\"", "kills = \"token\"")]).await;
    let mut grants = world.connect_many(clients.len() + 2).await;
    let (last, between) = (grants.pop().unwrap(), grants.pop().unwrap());
    let end = async |grant: GrantId, client: &str| {
        be_client(&world, &world.connector, client).await;
        world.revoke(Selector::Grant(grant)).await;
        upstream::fan_out(&world.deps).await.unwrap();
        upstream::drain(&world.deps).await.unwrap()
    };
    for (number, (&client, grant)) in clients.iter().zip(grants).enumerate() {
        if served == Some(number) {
            assert_eq!(end(between, DEMO_CLIENT_ID).await, 1);
        }
        tells_the_next_to_wait(&world).await;
        let before = world.seen("revoke").await.len();
        assert_eq!(end(grant, client).await, 0);
        assert_eq!(world.seen("revoke").await.len(), before + 1);
    }
    be_client(&world, &world.connector, DEMO_CLIENT_ID).await;
    (world, last)
}

#[tokio::test]
async fn a_provider_that_tells_several_clients_to_wait_and_serves_none_is_left_alone_by_all() {
    let (world, grant) = told_one_after_the_other(&["one", "two", "three"], None).await;
    let before = world.seen("revoke").await.len();
    let id = world.revoke(Selector::Grant(grant)).await.id;
    upstream::fan_out(&world.deps).await.unwrap();
    world.later(Duration::from_secs(59));
    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 0);
    assert_eq!(world.seen("revoke").await.len(), before, "nobody is asked");
    world.later(Duration::from_secs(2));
    upstream::drain(&world.deps).await.unwrap();
    assert_eq!(ended(&world, id).await, 1);
}

#[tokio::test]
async fn a_provider_that_serves_somebody_meanwhile_is_not_left_alone_by_all() {
    for (clients, served) in [
        (&["one", "two"][..], None),
        (&["one", "two", "three"][..], Some(2)),
    ] {
        let (world, grant) = told_one_after_the_other(clients, served).await;
        let id = world.revoke(Selector::Grant(grant)).await.id;
        upstream::fan_out(&world.deps).await.unwrap();
        assert_eq!(upstream::drain(&world.deps).await.unwrap(), 1, "{clients:?}");
        assert_eq!(ended(&world, id).await, 1, "{clients:?}");
    }
}
