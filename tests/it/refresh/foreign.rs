//! Answers to a refresh that name another account than the grant's.

use std::time::Duration;

use postern::{
    crypto::SealedSecret,
    domain::{GrantId, connector::Category, grant::GrantState},
    flows::{Refusal, upstream},
    store::SecretKind,
};
use serde_json::json;

use crate::harness::World;

async fn held(world: &World, grant: GrantId, kind: SecretKind) -> SealedSecret {
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    let row = tx.secret(world.org, grant, &kind).await.unwrap();
    row.unwrap().sealed
}

/// The person's own tokens may still be good, and are all there is to be ended with the grant; what came is nobody's here.
#[tokio::test]
async fn tokens_of_another_account_are_ended_and_take_the_place_of_none() {
    let world = World::with_connector(&[
        (
            "how = \"userinfo\"\nurl = \"{origin}/userinfo\"",
            "how = \"token_response\"",
        ),
        ("kills = \"grant\"", "kills = \"token\""),
    ])
    .await;
    let names = async |sub: &str| {
        let said = json!({"sub": sub, "email": "ada@acme.example"});
        world
            .fault(json!({"next": "token", "set": said, "times": 1}))
            .await;
    };
    names("acme-7").await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    let own = async || {
        [
            held(&world, grant, SecretKind::RefreshToken).await,
            held(&world, grant, SecretKind::AccessToken).await,
        ]
    };
    let before = own().await;
    world.later(Duration::from_secs(400));
    names("acme-8").await;
    let refused = world.vend(world.read(grant)).await;
    assert!(
        matches!(refused, Err(Refusal::ReconnectRequired(_))),
        "{refused:?}"
    );
    let state = world.grant(grant).await.state;
    assert!(matches!(state, GrantState::Quarantined { .. }), "{state:?}");
    assert!(own().await == before, "its own were replaced");

    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 1);
    let came = world.seen("token").await.pop().unwrap();
    let ended: Vec<_> = world
        .seen("revoke")
        .await
        .into_iter()
        .map(|call| call["token_sha256"].clone())
        .collect();
    assert!(came["issued_refresh_sha256"].is_string());
    assert_eq!(
        ended,
        [
            came["issued_refresh_sha256"].clone(),
            came["issued_access_sha256"].clone()
        ]
    );
    // The entry of the refresh names the tombstone of what came.
    let entries = world.entries().await;
    let said = entries
        .iter()
        .find(|entry| entry.draft.reason.as_deref() == Some("other_account"))
        .unwrap();
    let apart = said.draft.correlation.as_deref().unwrap();
    let apart = world.grant(apart.parse().unwrap()).await;
    assert_eq!(apart.account.id, None);
    assert!(
        matches!(apart.state, GrantState::Revoked { .. }),
        "{:?}",
        apart.state
    );
    assert_eq!(world.secrets_of(apart.id).await, 0);
}
