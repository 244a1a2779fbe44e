//! Renewing tokens against a rotating authorization server with a grace of 60 s.

use std::{sync::Arc, time::Duration};

use postern::{
    connectors::FilteredBody,
    domain::{GrantId, connector::Category, grant::GrantState},
    flows::{
        Refusal,
        refresh::{Want, doubt, ensure},
        vend::{self, Vended},
    },
    store::{Claim, ClaimAsk},
};
use serde_json::json;
use tokio::time::timeout;

use super::harness::{World, token};

mod foreign;
mod late;
mod older;
mod pauses;

#[tokio::test]
async fn an_expired_token_is_renewed_before_the_call() {
    let (world, grant) = World::connected().await;
    world.later(Duration::from_secs(400));
    world.vend(world.read(grant)).await.unwrap();
    assert_eq!(
        world.seen("token").await.len(),
        2,
        "one for the code, one refresh"
    );
}

#[tokio::test]
async fn a_doubt_that_was_settled_meanwhile_renews_nothing() {
    let (world, grant) = World::connected().await;
    let before = world.seen("token").await.len();
    doubt::settle(&world.deps, world.org, grant).await.unwrap();
    assert_eq!(world.seen("token").await.len(), before);
}

#[tokio::test]
async fn who_comes_after_a_failure_is_given_another_chance_and_no_more() {
    let (world, grant) = World::connected().await;
    world.later(Duration::from_secs(400));
    // Nobody is told a failure that began before it came: the first one is, and the others try once more.
    world
        .fault(json!({"next": "token", "status": 429, "body": "slowly", "times": 9}))
        .await;
    let before = world.seen("token").await.len();
    let world = Arc::new(world);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let world = Arc::clone(&world);
        let ask = world.read(grant);
        tasks.spawn(async move { vend::vend(&world.deps, world.agent, ask).await });
    }
    while let Some(done) = tasks.join_next().await {
        let refused = done.unwrap();
        assert!(
            matches!(refused, Err(Refusal::ProviderUnavailable)),
            "{refused:?}"
        );
    }
    assert_eq!(
        world.seen("token").await.len(),
        before + 1,
        "the provider is left alone"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_callers_of_one_expired_grant_cause_one_refresh() {
    let (world, grant) = World::connected().await;
    world.later(Duration::from_secs(400));
    let before = world.seen("token").await.len();
    let world = Arc::new(world);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let world = Arc::clone(&world);
        let ask = world.read(grant);
        tasks.spawn(async move { vend::vend(&world.deps, world.agent, ask).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(world.seen("token").await.len(), before + 1);
}

/// A token that a vend would renew at once is the best there is, if it came just now.
#[tokio::test]
async fn sixty_four_callers_are_content_with_one_token_that_ends_soon() {
    let (world, grant) = World::connected().await;
    world.later(Duration::from_secs(400));
    world
        .fault(json!({"next": "token", "set": {"expires_in": 20}, "delay_ms": 500, "times": 64}))
        .await;
    let before = world.seen("token").await.len();
    let seen = world.grant(grant).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (deps, seen) = (Arc::clone(&world.deps), seen.clone());
        tasks.spawn(async move { ensure(&deps, &seen, Want::Renewed { than: None }).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(world.seen("token").await.len(), before + 1);
}

#[tokio::test]
async fn a_token_the_provider_killed_early_is_renewed_and_the_call_resent_once() {
    let (world, grant) = World::connected().await;
    let url = format!("{}/admin/expire", world.acme);
    super::harness::fetch("POST", &url, Some(json!({"account": "ada@acme.example"}))).await;
    world.vend(world.read(grant)).await.unwrap();
    let calls = world.seen("api").await;
    assert_eq!(
        calls
            .iter()
            .filter(|call| call["path"] == "/api/messages")
            .count(),
        2
    );
}

/// Whoever had it could not use it, because a database was gone, perhaps; nobody has to connect again for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_token_that_died_before_it_was_used_is_renewed_again() {
    let (world, grant) = World::connected().await;
    let world = Arc::new(world);
    world.vend(world.read(grant)).await.unwrap();
    let dead =
        json!({"next": "api", "delay_ms": 4_000, "status": 401, "body": "{\"error\":\"invalid_token\"}"});
    world.fault(dead).await;
    let released = world.entries().await.len();
    let vending = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.vend(world.read(grant)).await }
    });
    while world.entries().await.len() == released {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // While its call is under way, somebody else renews the token, and that one dies, too.
    let held = world.grant(grant).await;
    let than = Some(held.generation);
    ensure(&world.deps, &held, Want::Renewed { than }).await.unwrap();
    let url = format!("{}/admin/expire", world.acme);
    super::harness::fetch("POST", &url, Some(json!({"account": "ada@acme.example"}))).await;
    let refused = vending.await.unwrap();
    assert!(
        matches!(refused, Err(Refusal::ProviderUnavailable)),
        "{refused:?}"
    );
    assert_eq!(world.grant(grant).await.state, GrantState::Active);
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test]
async fn a_renewed_token_that_the_provider_echoes_does_not_reach_the_agent() {
    const RENEWED: &str = "renewed-token-0123456789abcdef";
    let (world, grant) = World::connected().await;
    world
        .fault(json!({"next": "token", "set": {"access_token": RENEWED}, "times": 1}))
        .await;
    world
        .fault(json!({"next": "api", "status": 401, "body": {"error": "invalid_token"}, "times": 1}))
        .await;
    world
        .fault(json!({"next": "api", "body": {"messages": [{"id": "1", "from": RENEWED}]}, "times": 1}))
        .await;
    let vended = world.vend(world.read(grant)).await.unwrap();
    let Vended::Executed { answer, .. } = vended else {
        panic!("{vended:?}");
    };
    let FilteredBody::Json(body) = answer.body else {
        panic!("{answer:?}");
    };
    assert_eq!(body, json!({"messages": [{"id": "1", "from": "[redacted]"}]}));
}

#[tokio::test]
async fn a_dead_refresh_token_asks_the_person_to_reconnect() {
    let (world, grant) = World::connected().await;
    let url = format!("{}/admin/disconnect", world.acme);
    super::harness::fetch("POST", &url, Some(json!({"account": "ada@acme.example"}))).await;
    world.later(Duration::from_secs(400));
    let refused = world.vend(world.read(grant)).await;
    assert!(
        matches!(refused, Err(Refusal::ReconnectRequired(_))),
        "{refused:?}"
    );
    let kept = world
        .deps
        .store
        .read(world.org)
        .await
        .unwrap()
        .grant(world.org, grant)
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(kept.state, GrantState::NeedsReconnect { .. }));
}

#[tokio::test]
async fn a_lost_answer_to_a_rotation_is_recovered_within_the_grace() {
    let (world, grant) = World::connected().await;
    world.later(Duration::from_secs(400));
    // The provider rotates and the answer is lost on the way.
    world
        .fault(json!({"next": "token", "after": true, "hang_up": true, "times": 1}))
        .await;
    assert!(matches!(
        world.vend(world.read(grant)).await,
        Err(Refusal::ProviderUnavailable)
    ));
    // The provider is left alone for a moment; the grace is far from over.
    world.later(Duration::from_secs(2));
    world.vend(world.read(grant)).await.unwrap();
}

/// The lease of a holder that asked and died: claimed, and nothing after that.
async fn claimed_by_a_dead_one(world: &World, grant: GrantId) {
    let mut tx = world.deps.store.write(world.org).await.unwrap();
    let holder = world.deps.store.replica();
    let ask = world.claim_ask(grant).await;
    let outdated = ClaimAsk {
        generation: ask.generation - 1,
        ..ask.clone()
    };
    // Twice in one batch: the second one finds it held.
    let claims = tx
        .claim_refreshes(&holder, &[outdated, ask.clone(), ask])
        .await
        .unwrap();
    assert!(
        matches!(claims[..], [Claim::Moved, Claim::Ours(_), Claim::Held]),
        "{claims:?}"
    );
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_process_that_starts_again_honours_no_lease_of_the_one_before() {
    let world = World::on_sqlite().await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    world.later(Duration::from_secs(400));
    claimed_by_a_dead_one(&world, grant).await;
    let world = world.restarted().await;
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test]
async fn the_lease_of_a_dead_replica_ends_long_before_the_grace_does() {
    let (world, grant) = World::connected().await;
    world.later(Duration::from_secs(400));
    claimed_by_a_dead_one(&world, grant).await;
    world.later(Duration::from_secs(11));
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_though_nobody_vends() {
    let (world, grant, _) = with_a_lost_answer().await;
    world.later(Duration::from_secs(2));
    assert_eq!(doubt::ask_again(&world.deps).await.unwrap(), 1);
    world.until_seen("token", 3).await;
    // Long past the grace: what was not settled then is lost now.
    world.later(Duration::from_secs(3600));
    world.vend(world.read(grant)).await.unwrap();
}

/// A grant of which the provider's last answer was lost on its way, and how often it was asked for tokens by then.
pub async fn with_a_lost_answer() -> (Arc<World>, GrantId, usize) {
    let (world, grant) = World::connected().await;
    world.later(Duration::from_secs(400));
    world
        .fault(json!({"next": "token", "after": true, "hang_up": true, "times": 1}))
        .await;
    world.vend(world.read(grant)).await.unwrap_err();
    let before = world.seen("token").await.len();
    (Arc::new(world), grant, before)
}

/// I3: whoever stands behind a crowd may wait for longer than the provider takes the old refresh token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_asked_for_again_although_every_place_is_taken() {
    let (world, grant, before) = with_a_lost_answer().await;
    let connector = world.deps.catalogue.get(&world.connector).unwrap();
    let mut places = Vec::new();
    while let Ok(place) = timeout(Duration::from_millis(100), world.deps.flights.place(connector)).await {
        places.push(place);
    }
    let waiting = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.vend(world.read(grant)).await.map(drop) })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.later(Duration::from_secs(2));
    assert_eq!(doubt::ask_again(&world.deps).await.unwrap(), 1);
    world.until_generation(grant, 2).await;
    assert_eq!(doubt::ask_again(&world.deps).await.unwrap(), 0);
    // It is told: the first look of a flight that waits is after five seconds.
    let found = timeout(Duration::from_secs(3), waiting).await;
    assert!(matches!(found, Ok(Ok(Ok(())))), "{found:?}");
    assert_eq!(world.seen("token").await.len(), before + 1);
    assert_eq!(world.grant(grant).await.state, GrantState::Active);
    assert!(places.len() > 100, "{}", places.len());
}

#[tokio::test]
async fn a_lost_rotation_past_the_grace_is_said_loudly() {
    let (world, grant, _) = with_a_lost_answer().await;
    world.later(Duration::from_secs(120));
    assert!(matches!(
        world.vend(world.read(grant)).await,
        Err(Refusal::ReconnectRequired(_))
    ));
    let entries = world.entries().await;
    assert!(
        entries
            .iter()
            .any(|entry| entry.draft.reason.as_deref() == Some("rotation_lost"))
    );
}

#[tokio::test]
async fn narrowing_keeps_the_broad_grant() {
    let (world, grant) = World::connected().await;
    world
        .vend(super::harness::token(world.read(grant)))
        .await
        .unwrap();
    world.later(Duration::from_secs(400));
    let inside = json!({"to": ["ben@acme.example"], "subject": "hi", "body": "x"});
    world
        .vend(super::harness::ask(grant, "messages.send", inside))
        .await
        .unwrap();
}

/// A narrowing that is not proven rotates the refresh token for nothing, one that is refused costs the provider a request.
#[tokio::test]
async fn a_narrowing_in_vain_is_asked_for_once_a_minute() {
    for fault in [
        json!({"next": "token", "omit": ["scope"], "times": 9}),
        json!({"next": "token", "status": 400, "body": {"error": "invalid_scope"}, "times": 9}),
    ] {
        let (world, grant) = World::connected().await;
        world.fault(fault).await;
        let before = world.seen("token").await.len();
        for (asked, wait) in [(1, 15), (1, 15), (1, 15), (1, 14), (1, 1), (2, 0)] {
            let refused = world.vend(token(world.read(grant))).await;
            assert!(matches!(refused, Err(Refusal::ModeUnavailable(_))), "{refused:?}");
            assert_eq!(world.seen("token").await.len(), before + asked);
            world.later(Duration::from_secs(wait));
        }
        assert_eq!(world.grant(grant).await.state, GrantState::Active);
    }
}

#[tokio::test]
async fn an_answer_that_takes_longer_than_the_key_may_be_held_is_kept() {
    let (world, grant) = World::connected().await;
    let world = Arc::new(world);
    world.later(Duration::from_secs(400));
    world.fault(json!({"next": "token", "delay_ms": 1500})).await;
    let vending = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.vend(world.read(grant)).await.map(drop) })
    };
    world.until_seen("token", 2).await;
    // The data key was unwrapped for 30 s.
    world.later(Duration::from_secs(61));
    vending.await.unwrap().unwrap();
    assert_eq!(world.grant(grant).await.generation, 2);
    assert_eq!(world.seen("token").await.len(), 2);
}

/// The clock went ahead, tokens came, the clock was put right: their ends lie hours away, which is no reason to refuse
/// tokens for hours.
#[tokio::test]
async fn a_token_kept_while_the_clock_was_ahead_is_had_anew() {
    let (world, grant) = World::connected().await;
    world.later(Duration::from_secs(3 * 3600));
    let ahead = world.vend(token(world.read(grant))).await.unwrap();
    assert!(matches!(ahead, Vended::Token { .. }), "{ahead:?}");
    world.clock.put_back(Duration::from_secs(3 * 3600));
    let again = world.vend(token(world.read(grant))).await.unwrap();
    let Vended::Token { expires_at, .. } = again else {
        panic!("{again:?}");
    };
    let now = postern::domain::Clock::now(&*world.clock);
    assert!(expires_at.is_some_and(|end| end.since(now) <= Duration::from_secs(300)));
}
