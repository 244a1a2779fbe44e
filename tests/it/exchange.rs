//! Tokens between the provider's answer and their session: what comes for one that has ended, or when there is nowhere to
//! keep it, does not live on at the provider with nobody who knows of it.

use std::time::{Duration, Instant};

use postern::{
    domain::{
        connector::Category,
        entry::EntryType,
        grant::{Grant, GrantState},
    },
    flows::{connect::ConnectFailure, sweep, upstream},
};
use serde_json::{Value, json};

use super::harness::{Journey, World};

/// Ada's browser comes back two seconds before her link ends, her provider takes its time to say whose account it is, and
/// meanwhile something happens.
async fn meanwhile(
    world: &World,
    happens: impl AsyncFnOnce(&World),
) -> (Journey, Result<(), ConnectFailure>) {
    let journey = Journey::begin(world, world.ada, None).await;
    world.later(Duration::from_secs(598));
    let answer = journey.consent(world, "ada@acme.example", false).await;
    let before = world.seen("token").await.len();
    world
        .fault(json!({"next": "api", "path": "/userinfo", "delay_ms": 3000, "times": 1}))
        .await;
    let happening = async {
        world.until_seen("token", before + 1).await;
        happens(world).await;
    };
    let (outcome, ()) = tokio::join!(journey.come_back(world, answer), happening);
    (journey, outcome)
}

/// Nobody waits for an exchange as long as this.
async fn given_up(world: &World) {
    world.later(Duration::from_secs(122));
    assert_eq!(sweep::run(&world.deps).await.unwrap(), 1);
}

/// Whether the provider was asked to end both tokens of its last answer, the refresh token first.
async fn ended(world: &World) -> bool {
    let issued = world.seen("token").await.pop().unwrap();
    let asked = world.seen("revoke").await;
    let asked: Vec<_> = asked.iter().map(|call| &call["token_sha256"]).collect();
    assert!(issued["issued_refresh_sha256"].is_string(), "{issued}");
    asked == [&issued["issued_refresh_sha256"], &issued["issued_access_sha256"]]
}

#[tokio::test]
async fn a_link_that_ends_during_the_exchange_still_connects() {
    let world = World::new().await;
    let (journey, outcome) = meanwhile(&world, async |world| {
        world.later(Duration::from_secs(3));
        sweep::run(&world.deps).await.unwrap();
    })
    .await;
    outcome.unwrap();
    journey.confirm(&world, &[Category::Read]).await.unwrap();
}

#[tokio::test]
async fn tokens_that_come_after_their_session_was_ended_are_ended_at_the_provider() {
    let world = World::new().await;
    let (_, outcome) = meanwhile(&world, given_up).await;
    assert!(matches!(outcome, Err(ConnectFailure::Expired)), "{outcome:?}");
    upstream::drain(&world.deps).await.unwrap();
    assert!(ended(&world).await, "they live on at the provider");
    let said = world.entries().await;
    assert!(
        said.iter()
            .any(|entry| entry.kind == EntryType::UpstreamRevoke && entry.draft.grant.is_some())
    );
}

#[tokio::test]
async fn wider_tokens_that_come_after_their_session_was_ended_are_kept_apart_all_the_same() {
    let world = World::new().await;
    world
        .fault(json!({"next": "token", "widen_scope": true, "times": 1}))
        .await;
    let (_, outcome) = meanwhile(&world, given_up).await;
    assert!(matches!(outcome, Err(ConnectFailure::Quarantined)), "{outcome:?}");
    let apart = world.grants_of(world.ada).await.pop().unwrap().id;
    assert_eq!(world.secrets_of(apart).await, 2, "they still have to be ended");
}

#[tokio::test]
async fn tokens_that_come_while_the_database_is_gone_are_ended_at_the_provider_at_once() {
    let world = World::new().await;
    let (_, outcome) = meanwhile(&world, async |world| world.stopped().await).await;
    assert!(matches!(outcome, Err(ConnectFailure::Refused(_))), "{outcome:?}");
    assert!(ended(&world).await, "they live on at the provider");
}

#[tokio::test]
async fn tokens_that_can_be_kept_nowhere_are_left_alone_where_ending_them_could_end_a_grant_that_lives() {
    let (world, _) = World::connected().await;
    let (_, outcome) = meanwhile(&world, async |world| world.stopped().await).await;
    assert!(matches!(outcome, Err(ConnectFailure::Refused(_))), "{outcome:?}");
    assert_eq!(world.seen("revoke").await, [] as [Value; 0]);
}

/// A person connects; what comes is changed so that it cannot be used.
async fn come_back_in_vain(world: &World, change: Value, meanwhile: impl AsyncFnOnce(&World)) {
    let journey = Journey::begin(world, world.ada, None).await;
    let answer = journey.consent(world, "ada@acme.example", false).await;
    let before = world.seen("token").await.len();
    let mut fault = json!({"next": "token", "delay_ms": 2000, "times": 1});
    fault
        .as_object_mut()
        .unwrap()
        .extend(change.as_object().unwrap().clone());
    world.fault(fault).await;
    let happening = async {
        world.until_seen("token", before + 1).await;
        meanwhile(world).await;
    };
    let (outcome, ()) = tokio::join!(journey.come_back(world, answer), happening);
    assert!(
        matches!(
            outcome,
            Err(ConnectFailure::ProviderUnavailable | ConnectFailure::Refused(_))
        ),
        "{outcome:?}"
    );
}

/// Whether the provider was asked to end this token of its last answer, and nothing else.
async fn ended_alone(world: &World, token: &str) -> bool {
    let issued = world.seen("token").await.pop().unwrap();
    let asked = world.seen("revoke").await;
    issued[token].is_string() && asked.len() == 1 && asked[0]["token_sha256"] == issued[token]
}

/// Changes of an answer, and which of its tokens is left to be ended.
fn unusable() -> [(Value, &'static str); 3] {
    [
        (json!({"omit": ["access_token"]}), "issued_refresh_sha256"),
        (
            json!({"set": {"token_type": "mac"}, "omit": ["refresh_token"]}),
            "issued_access_sha256",
        ),
        (
            json!({"set": {"scope": [7]}, "omit": ["refresh_token"]}),
            "issued_access_sha256",
        ),
    ]
}

#[tokio::test]
async fn the_token_of_an_answer_that_cannot_be_used_is_ended_at_the_provider() {
    for (change, token) in unusable() {
        let world = World::new().await;
        come_back_in_vain(&world, change.clone(), async |_| ()).await;
        let grants = world.grants_of(world.ada).await;
        let is_over = |grant: &Grant| matches!(grant.state, GrantState::Revoked { .. });
        assert!(grants.iter().all(is_over), "{grants:?}");
        upstream::drain(&world.deps).await.unwrap();
        assert!(
            ended_alone(&world, token).await,
            "{change}: it lives on at the provider"
        );
    }
}

#[tokio::test]
async fn both_tokens_of_an_answer_that_cannot_be_used_are_ended_at_the_provider() {
    let world = World::new().await;
    come_back_in_vain(&world, json!({"set": {"token_type": "mac"}}), async |_| ()).await;
    upstream::drain(&world.deps).await.unwrap();
    assert!(ended(&world).await, "they live on at the provider");
}

#[tokio::test]
async fn the_token_of_an_answer_that_cannot_be_used_is_ended_at_once_where_it_can_be_queued_nowhere() {
    for (change, token) in unusable() {
        let world = World::new().await;
        come_back_in_vain(&world, change.clone(), async |world| world.stopped().await).await;
        assert!(
            ended_alone(&world, token).await,
            "{change}: it lives on at the provider"
        );
    }
}

/// A provider may give the token of a grant that lives once more.
#[tokio::test]
async fn an_access_token_that_cannot_be_used_is_left_alone_where_it_may_be_that_of_a_grant_that_lives() {
    for stopped in [false, true] {
        let world = World::with_connector(&[("kills = \"grant\"", "kills = \"token\"")]).await;
        world.connect(world.ada, &[Category::Read]).await;
        let change = json!({"set": {"token_type": "mac"}, "omit": ["refresh_token"]});
        let meanwhile = async |world: &World| {
            if stopped {
                world.stopped().await;
            }
        };
        come_back_in_vain(&world, change, meanwhile).await;
        if !stopped {
            upstream::drain(&world.deps).await.unwrap();
        }
        assert_eq!(world.seen("revoke").await, [] as [Value; 0], "{stopped}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_an_account_that_is_not_told_in_time_are_ended_at_the_provider() {
    let world = World::new().await;
    let journey = Journey::begin(&world, world.ada, None).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    world
        .fault(json!({"next": "api", "path": "/userinfo", "delay_ms": 20_000, "times": 1}))
        .await;
    let begun = Instant::now();
    let outcome = journey.come_back(&world, answer).await;
    assert!(
        matches!(outcome, Err(ConnectFailure::ProviderUnavailable)),
        "{outcome:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(18));
    upstream::drain(&world.deps).await.unwrap();
    assert!(ended(&world).await, "they live on at the provider");
}
