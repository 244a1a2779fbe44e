//! Answers to a refresh of which only the new refresh token can be used. The one before it may be spent, so the new one is
//! kept, and asked with next.

use std::{sync::Arc, time::Duration};

use postern::{
    crypto::SealedSecret,
    domain::{
        GrantId,
        connector::Category,
        entry::EntryType,
        grant::{Grant, GrantState},
    },
    flows::{
        Refusal,
        refresh::{Want, doubt, ensure, spooled},
        upstream,
        vend::{self, Vended},
    },
    store::{Claim, ClaimAsk, SecretKind, Selector, UpstreamResult},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{
    harness::{World, fetch, token},
    spool::{files, is_in_doubt},
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

/// A vend whose access token has ended. The provider has rotated, and its answer, without an access token, is under way.
async fn under_way(world: &World, grant: GrantId) -> JoinHandle<Result<Vended, Refusal>> {
    world.later(Duration::from_secs(400));
    let before = world.seen("token").await.len();
    world
        .fault(json!({
            "next": "token", "after": true, "delay_ms": 2000, "omit": ["access_token"], "times": 1,
        }))
        .await;
    let (deps, agent, ask) = (Arc::clone(&world.deps), world.agent, world.read(grant));
    let vending = tokio::spawn(async move { vend::vend(&deps, agent, ask).await });
    world.until_seen("token", before + 1).await;
    vending
}

/// The provider takes no refresh token twice: what came is all there is of the grant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_that_comes_alone_while_another_has_the_lease_is_spooled_and_not_lost() {
    let (world, grant) = strict().await;
    let (before, first) = (world.grant(grant).await, held(&world, grant).await);
    let vending = under_way(&world, grant).await;
    // Its holder is taken for dead, and another replica claims the lease.
    world.later(Duration::from_secs(61));
    let mut tx = world.deps.store.write(world.org).await.unwrap();
    let ask = ClaimAsk {
        life: Duration::from_secs(60),
        ..world.claim_ask(grant).await
    };
    let claims = tx.claim_refreshes("r2", &[ask]).await.unwrap();
    tx.commit().await.unwrap();
    assert!(matches!(claims[..], [Claim::Ours(_)]), "{claims:?}");
    let refused = vending.await.unwrap();
    assert!(
        matches!(refused, Err(Refusal::ProviderUnavailable)),
        "{refused:?}"
    );
    assert_eq!(spooled::drain(&world.deps).await, 0);
    assert_eq!(files(&world).len(), 1);
    assert_eq!(world.grant(grant).await, before, "nothing is decided yet");
    assert!(held(&world, grant).await == first);

    // That one died before it asked. The provider is left alone for no longer than after a first failure.
    world.later(Duration::from_secs(61));
    assert_eq!(spooled::drain(&world.deps).await, 1);
    assert!(held(&world, grant).await != first);
    world.later(Duration::from_secs(2));
    world.vend(world.read(grant)).await.unwrap();
    let calls = world.seen("token").await;
    assert!(calls.len() == 3 && follow_each_other(&calls), "{calls:#?}");
    let after = world.grant(grant).await;
    assert_eq!(
        (after.state, after.generation),
        (GrantState::Active, before.generation + 2)
    );
    assert!(files(&world).is_empty() && !is_in_doubt(&world, grant).await);
}

/// The sibling asked with the same refresh token, which the provider takes again for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_that_comes_alone_after_a_siblings_answer_replaces_pauses_and_ends_nothing() {
    let world = World::on_postgres().await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    let sibling = world.replica().await.unwrap();
    let late = under_way(&world, grant).await;
    // As if its holder had stood still for as long as a lease lives.
    world.raw_sql("UPDATE refresh_leases SET expires_at = 0").await;
    vend::vend(&sibling, world.agent, world.read(grant))
        .await
        .unwrap();
    let (generation, kept) = (world.grant(grant).await.generation, held(&world, grant).await);
    assert!(!late.is_finished(), "it was not late");
    let refused = late.await.unwrap();
    assert!(
        matches!(refused, Err(Refusal::ProviderUnavailable)),
        "{refused:?}"
    );
    let now = world.grant(grant).await;
    assert_eq!((&now.state, now.generation), (&GrantState::Active, generation));
    assert!(held(&world, grant).await == kept);
    assert!(!world.deps.spool.holds(grant) && !is_in_doubt(&world, grant).await);
    upstream::drain(&world.deps).await.unwrap();
    assert_eq!(world.seen("revoke").await.len(), 0, "it would end the grant");

    let want = Want::Renewed {
        than: Some(generation),
    };
    ensure(&sibling, &now, want).await.unwrap();
    let calls = world.seen("token").await;
    assert_eq!(calls.len(), 4, "the code, the late one, the sibling's, and this");
    assert!(follow_each_other(&calls[2..]), "{calls:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_that_comes_alone_after_a_revocation_is_ended_at_the_provider() {
    // Whether or not the tokens from before have been ended by then.
    for is_told_before in [false, true] {
        let (world, grant) = strict().await;
        let vending = under_way(&world, grant).await;
        world.revoke(Selector::Grant(grant)).await;
        let result = async || {
            let mut tx = world.deps.store.read(world.org).await.unwrap();
            let waiting = tx.outbox(world.org, grant).await.unwrap();
            waiting.map(|row| row.result)
        };
        if is_told_before {
            upstream::fan_out(&world.deps).await.unwrap();
            upstream::drain(&world.deps).await.unwrap();
            assert_eq!(result().await, Some(UpstreamResult::Revoked));
            assert!(!vending.is_finished(), "it came before that");
        }
        let refused = vending.await.unwrap();
        assert!(matches!(refused, Err(Refusal::Revoked { .. })), "{refused:?}");
        assert_eq!(result().await, Some(UpstreamResult::Pending));

        upstream::fan_out(&world.deps).await.unwrap();
        upstream::drain(&world.deps).await.unwrap();
        assert_eq!(result().await, Some(UpstreamResult::Revoked));
        let came = world.seen("token").await.pop().unwrap();
        let ended = world.seen("revoke").await;
        assert!(came["issued_refresh_sha256"].is_string());
        assert!(
            ended
                .iter()
                .any(|call| call["token_sha256"] == came["issued_refresh_sha256"]),
            "{ended:#?}"
        );
        assert_eq!(world.secrets_of(grant).await, 0);
        assert!(files(&world).is_empty());
    }
}
