//! Over a database that went back nothing is asked of a provider.

use std::time::Duration;

use postern::{
    flows::{
        Refusal,
        refresh::{Want, ensure},
    },
    store::StoreError,
};

use crate::harness::World;

/// A provider may end a grant whose refresh token comes twice: it is not asked first and the database looked at then.
#[tokio::test]
async fn nothing_is_asked_for_over_a_database_that_went_back_under_the_process() {
    let lost = [
        ("writers SET seq = seq", "WHERE writer = 'r1/cold'"),
        ("writers SET seq = seq", "WHERE writer = 'r1/hot'"),
        ("epochs SET counter = counter", ""),
    ];
    for (what, whose) in lost {
        let (world, grant) = World::connected().await;
        world.later(Duration::from_secs(400));
        world.vend(world.read(grant)).await.unwrap();
        let before = world.seen("token").await.len();
        world.raw_sql(&format!("UPDATE {what} - 1 {whose}")).await;
        world.later(Duration::from_secs(400));
        let refused = world.vend(world.read(grant)).await;
        assert!(matches!(refused, Err(Refusal::Sealed)), "{what}: {refused:?}");
        assert!(world.deps.store.has_lost_entries(), "{what}");
        // What is lost stays lost, also where the number is made up for.
        world.raw_sql(&format!("UPDATE {what} + 1 {whose}")).await;
        let claimed = world.deps.claims.claim(world.claim_ask(grant).await).await;
        assert!(matches!(claimed, Err(StoreError::Lost)), "{what}: {claimed:?}");
        assert_eq!(world.seen("token").await.len(), before, "{what}");
    }
}

#[tokio::test]
async fn nothing_is_asked_with_what_is_older_than_what_was_read_before() {
    let (world, grant) = World::connected().await;
    world.later(Duration::from_secs(400));
    world.vend(world.read(grant)).await.unwrap();
    let held = world.grant(grant).await;
    let before = world.seen("token").await.len();
    world
        .raw_sql("UPDATE grants SET generation = generation - 1")
        .await;
    let than = Some(held.generation);
    let asked = ensure(&world.deps, &held, Want::Renewed { than }).await;
    assert!(matches!(asked, Err(Refusal::Sealed)), "{asked:?}");
    assert!(world.deps.store.has_lost_entries());
    assert_eq!(world.seen("token").await.len(), before);
}
