//! Answers to a refresh of which only the new refresh token can be used. The one before it may be spent, so the new one is
//! kept, and asked with next.

use std::time::Duration;

use postern::{
    crypto::SealedSecret,
    domain::{
        GrantId,
        connector::Category,
        entry::EntryType,
        grant::{Grant, GrantState},
    },
    flows::{Refusal, refresh::doubt, vend::Vended},
    store::SecretKind,
};
use serde_json::{Value, json};

use super::{
    harness::{World, fetch, token},
    spool::is_in_doubt,
};

/// Ada connects an Acme Mail that takes each refresh token once, and says so. Narrowing needs a grace.
async fn strict() -> (World, GrantId) {
    let world = World::with_connector(&[
        ("old_refresh_valid_s = 60", "old_refresh_valid_s = 0"),
        (
            "how = \"refresh_scope\"\nproof = \"returned_scope\"",
            "how = \"none\"",
        ),
    ])
    .await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    (world, grant)
}

/// The refresh token that the grant holds.
async fn held(world: &World, grant: GrantId) -> SealedSecret {
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    let row = tx.secret(world.org, grant, &SecretKind::RefreshToken).await;
    row.unwrap().unwrap().sealed
}

/// Refused as if nothing had come.
async fn assert_refused(world: &World, grant: GrantId) {
    let refused = world.vend(world.read(grant)).await;
    assert!(
        matches!(refused, Err(Refusal::ProviderUnavailable)),
        "{refused:?}"
    );
}

/// Whether each refresh was asked for with the refresh token of the answer before it, and none was refused.
fn follow_each_other(calls: &[Value]) -> bool {
    let follows = |pair: &[Value]| pair[1]["token_sha256"] == pair[0]["issued_refresh_sha256"];
    calls.windows(2).all(follows) && calls.iter().all(|call| call["error"].is_null())
}

#[tokio::test]
async fn a_refresh_token_that_came_without_an_access_token_is_kept_and_asked_with_next() {
    let (world, grant) = strict().await;
    world.later(Duration::from_secs(400));
    let (before, first) = (world.grant(grant).await, held(&world, grant).await);
    world
        .fault(json!({"next": "token", "omit": ["access_token"], "times": 1}))
        .await;
    assert_refused(&world, grant).await;
    let kept = Grant {
        generation: before.generation + 1,
        ..before.clone()
    };
    assert_eq!(world.grant(grant).await, kept);
    assert!(held(&world, grant).await != first);
    // The question is answered, and the provider is left alone for a moment.
    assert!(!is_in_doubt(&world, grant).await);
    assert_eq!(doubt::ask_again(&world.deps).await.unwrap(), 0);
    assert_refused(&world, grant).await;
    assert_eq!(world.seen("token").await.len(), 2, "the code and one refresh");

    world.later(Duration::from_secs(2));
    world.vend(world.read(grant)).await.unwrap();
    let calls = world.seen("token").await;
    assert_eq!(calls.len(), 3);
    assert!(follow_each_other(&calls), "{calls:#?}");
    assert_eq!(world.grant(grant).await.generation, before.generation + 2);
}

#[tokio::test]
async fn the_entry_of_a_refresh_token_that_was_kept_alone_says_so() {
    let (world, grant) = strict().await;
    world.later(Duration::from_secs(400));
    world
        .fault(json!({"next": "token", "set": {"token_type": "mac"}, "times": 1}))
        .await;
    assert_refused(&world, grant).await;
    let entries = world.entries().await;
    let said: Vec<_> = entries
        .iter()
        .filter(|entry| entry.kind == EntryType::Refresh)
        .map(|entry| {
            let draft = &entry.draft;
            (
                draft.outcome.as_deref(),
                draft.reason.as_deref(),
                draft.generation,
            )
        })
        .collect();
    assert_eq!(said, [(Some("failed"), Some("refresh_token_kept"), Some(2))]);
}

#[tokio::test]
async fn a_provider_that_gives_nothing_else_is_left_alone_for_longer_and_longer() {
    let (world, grant) = strict().await;
    world.later(Duration::from_secs(400));
    world
        .fault(json!({"next": "token", "omit": ["access_token"], "times": 100}))
        .await;
    let before = world.seen("token").await.len();
    for _ in 0..120 {
        assert_refused(&world, grant).await;
        world.later(Duration::from_secs(1));
    }
    assert_eq!(
        world.seen("token").await.len() - before,
        7,
        "at 0, 1, 3, 7, 15, 31 and 63 s"
    );
    fetch("DELETE", &format!("{}/admin/fault", world.acme), None).await;
    world.later(Duration::from_secs(10));
    world.vend(world.read(grant)).await.unwrap();
    let calls = world.seen("token").await;
    assert_eq!(calls.len() - before, 8);
    assert!(follow_each_other(&calls), "{calls:#?}");
}

/// A lost answer, and then one with a refresh token in it: that one settles the doubt.
#[tokio::test]
async fn a_refresh_token_that_came_alone_settles_an_earlier_doubt() {
    let (world, grant) = World::connected().await;
    world.later(Duration::from_secs(400));
    world
        .fault(json!({"next": "token", "after": true, "hang_up": true, "times": 1}))
        .await;
    assert_refused(&world, grant).await;
    assert!(is_in_doubt(&world, grant).await);
    world
        .fault(json!({"next": "token", "omit": ["access_token"], "times": 1}))
        .await;
    world.later(Duration::from_secs(2));
    assert_refused(&world, grant).await;
    assert!(!is_in_doubt(&world, grant).await);
    // Long past the grace of the first one.
    world.later(Duration::from_secs(3600));
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test]
async fn a_narrowing_that_brought_a_refresh_token_alone_is_not_taken_for_one_in_vain() {
    let (world, grant) = World::connected().await;
    let first = held(&world, grant).await;
    world
        .fault(json!({"next": "token", "omit": ["access_token"], "times": 1}))
        .await;
    let refused = world.vend(token(world.read(grant))).await;
    assert!(
        matches!(refused, Err(Refusal::ProviderUnavailable)),
        "{refused:?}"
    );
    assert!(held(&world, grant).await != first);
    // The wide token is as good as before.
    world.vend(world.read(grant)).await.unwrap();
    world.later(Duration::from_secs(2));
    let vended = world.vend(token(world.read(grant))).await.unwrap();
    assert!(matches!(vended, Vended::Token { .. }), "{vended:?}");
    let calls = world.seen("token").await;
    assert!(calls.len() == 3 && follow_each_other(&calls), "{calls:#?}");
}

#[tokio::test]
async fn a_refresh_token_beside_another_accounts_name_is_kept_apart() {
    let by_answer = "how = \"token_response\"";
    let world =
        World::with_connector(&[("how = \"userinfo\"\nurl = \"{origin}/userinfo\"", by_answer)]).await;
    let names = async |sub: &str, left_out: Value| {
        let said = json!({"sub": sub, "email": "ada@acme.example"});
        world
            .fault(json!({"next": "token", "set": said, "omit": left_out, "times": 1}))
            .await;
    };
    names("acme-7", json!([])).await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    let (before, first) = (world.grant(grant).await, held(&world, grant).await);
    world.later(Duration::from_secs(400));
    names("acme-7", json!(["access_token"])).await;
    assert_refused(&world, grant).await;
    let after = world.grant(grant).await;
    assert_eq!(
        (after.state, after.generation),
        (GrantState::Active, before.generation + 1)
    );
    assert!(held(&world, grant).await != first);

    world.later(Duration::from_secs(2));
    names("acme-8", json!(["access_token"])).await;
    let refused = world.vend(world.read(grant)).await;
    assert!(
        matches!(refused, Err(Refusal::ReconnectRequired(_))),
        "{refused:?}"
    );
    let state = world.grant(grant).await.state;
    assert!(matches!(state, GrantState::Quarantined { .. }), "{state:?}");
}
