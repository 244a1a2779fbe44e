//! I9 at the flows: a grant belongs to the person who consented, in the browser that started. After each refusal the
//! provider's own log shows that no token request left.

use std::{collections::BTreeSet, time::Duration};

use postern::{
    crypto::random,
    domain::{connector::Category, grant::GrantState},
    flows::connect::{ConnectFailure, Visitor, begin, callback, confirm},
    store::Selector,
};
use serde_json::json;

use super::harness::{Outcome, World, acme_mail, connect_as};
use crate::harness::Journey;

async fn refused_before_any_token_request(
    world: &World,
    outcome: Result<(), ConnectFailure>,
    expected: fn(&ConnectFailure) -> bool,
) {
    let failure = outcome.expect_err("the callback was accepted");
    assert!(expected(&failure), "{failure:?}");
    assert!(world.seen("token").await.is_empty(), "a token request left");
}

/// Ada has gone out, and the provider has answered her consent; her browser has not come back yet.
async fn answered() -> (World, Journey, callback::Answer) {
    let world = World::new().await;
    let journey = Journey::begin(&world, world.ada, None).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    (world, journey, answer)
}

#[tokio::test]
async fn the_honest_path_makes_a_grant_of_the_right_account() {
    let (world, grant) = World::connected().await;
    let grant = world
        .deps
        .store
        .read(world.org)
        .await
        .unwrap()
        .grant(world.org, grant)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(grant.user, world.ada);
    assert_eq!(grant.account.label, "ada@acme.example");
    assert_eq!(grant.state, GrantState::Active);
}

#[tokio::test]
async fn denying_at_the_provider_ends_the_session_in_its_own_words() {
    let world = World::new().await;
    let outcome = connect_as(&world, world.ada, "ada@acme.example", &[Category::Read], true).await;
    assert!(
        matches!(outcome, Outcome::Failed(ConnectFailure::Denied)),
        "{outcome:?}"
    );
    assert!(world.seen("token").await.is_empty());
}

#[tokio::test]
async fn an_unknown_state_is_refused() {
    let (world, journey, mut answer) = answered().await;
    answer.state = Some("A".repeat(43));
    let outcome = journey.come_back(&world, answer).await;
    refused_before_any_token_request(&world, outcome, |failure| {
        matches!(failure, ConnectFailure::Security("state"))
    })
    .await;
}

#[tokio::test]
async fn another_browser_is_refused() {
    let (world, mut journey, answer) = answered().await;
    journey.cookie = random::link_token(&*world.deps.random).unwrap();
    let outcome = journey.come_back(&world, answer).await;
    refused_before_any_token_request(&world, outcome, |failure| {
        matches!(failure, ConnectFailure::WrongBrowser)
    })
    .await;
}

#[tokio::test]
async fn a_callback_without_a_cookie_is_refused() {
    let (world, journey, answer) = answered().await;
    let outcome = callback::receive(&world.deps, &acme_mail(), answer, None, journey.visitor)
        .await
        .map(drop);
    refused_before_any_token_request(&world, outcome, |failure| {
        matches!(failure, ConnectFailure::WrongBrowser)
    })
    .await;
}

#[tokio::test]
async fn another_person_is_refused() {
    let (world, mut journey, answer) = answered().await;
    journey.visitor = Visitor {
        user: Some((world.org, world.ben)),
    };
    let outcome = journey.come_back(&world, answer).await;
    refused_before_any_token_request(&world, outcome, |failure| {
        matches!(failure, ConnectFailure::WrongPerson)
    })
    .await;
}

#[tokio::test]
async fn nobody_logged_in_is_refused() {
    let (world, mut journey, answer) = answered().await;
    journey.visitor = Visitor { user: None };
    let outcome = journey.come_back(&world, answer).await;
    refused_before_any_token_request(&world, outcome, |failure| {
        matches!(failure, ConnectFailure::NotSignedIn)
    })
    .await;
}

#[tokio::test]
async fn another_connectors_callback_is_refused() {
    let (world, journey, answer) = answered().await;
    let cookie = random::parse_link_token(&postern::crypto::lookup::show_link(&journey.cookie));
    let elsewhere = "github".parse().unwrap();
    let outcome = callback::receive(&world.deps, &elsewhere, answer, cookie, journey.visitor)
        .await
        .map(drop);
    refused_before_any_token_request(&world, outcome, |failure| {
        matches!(failure, ConnectFailure::Security("context"))
    })
    .await;
}

#[tokio::test]
async fn a_wrong_issuer_is_refused() {
    let (world, journey, mut answer) = answered().await;
    answer.iss = Some("https://evil.example".to_owned());
    let outcome = journey.come_back(&world, answer).await;
    refused_before_any_token_request(&world, outcome, |failure| {
        matches!(failure, ConnectFailure::Security("iss"))
    })
    .await;
}

#[tokio::test]
async fn a_missing_issuer_is_refused_where_the_server_announces_it() {
    let (world, journey, mut answer) = answered().await;
    answer.iss = None;
    let outcome = journey.come_back(&world, answer).await;
    refused_before_any_token_request(&world, outcome, |failure| {
        matches!(failure, ConnectFailure::Security("iss"))
    })
    .await;
}

#[tokio::test]
async fn a_callback_after_ten_minutes_is_refused() {
    let (world, journey, answer) = answered().await;
    world.later(Duration::from_secs(601));
    let outcome = journey.come_back(&world, answer).await;
    refused_before_any_token_request(&world, outcome, |failure| {
        matches!(failure, ConnectFailure::Expired)
    })
    .await;
}

#[tokio::test]
async fn a_callback_works_once() {
    let (world, journey, answer) = answered().await;
    let again = callback::Answer {
        code: Some(postern::domain::secret::AuthorizationCode::new(
            "another".to_owned(),
        )),
        state: answer.state.clone(),
        error: None,
        iss: answer.iss.clone(),
    };
    journey.come_back(&world, answer).await.unwrap();
    let requests = world.seen("token").await.len();
    let outcome = journey.come_back(&world, again).await;
    assert!(matches!(outcome, Err(ConnectFailure::Used)), "{outcome:?}");
    assert_eq!(world.seen("token").await.len(), requests);
}

#[tokio::test]
async fn looking_at_a_link_does_not_spend_it() {
    let world = World::new().await;
    let ask = begin::Ask::new(world.ada, acme_mail());
    let link = begin::create(&world.deps, world.org, ask).await.unwrap();
    let token = random::parse_link_token(link.url.rsplit('/').next().unwrap()).unwrap();
    let visitor = Visitor {
        user: Some((world.org, world.ada)),
    };
    for _ in 0..3 {
        postern::flows::connect::open(&world.deps, &token, visitor)
            .await
            .unwrap();
    }
    begin::go(&world.deps, &token, visitor).await.unwrap();
    assert!(matches!(
        begin::go(&world.deps, &token, visitor).await,
        Err(ConnectFailure::Used)
    ));
}

#[tokio::test]
async fn wider_scopes_than_asked_are_quarantined() {
    let world = World::new().await;
    world
        .fault(json!({"next": "token", "widen_scope": true, "times": 1}))
        .await;
    let journey = Journey::begin(&world, world.ada, None).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    let outcome = journey.come_back(&world, answer).await;
    assert!(matches!(outcome, Err(ConnectFailure::Quarantined)), "{outcome:?}");
    let grants = world
        .deps
        .store
        .read(world.org)
        .await
        .unwrap()
        .grants_of(world.org, world.ada, None)
        .await
        .unwrap();
    assert!(matches!(
        grants.first().unwrap().state,
        GrantState::Quarantined { .. }
    ));
    let refused = world.vend(world.read(grants.first().unwrap().id)).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn connecting_again_does_not_revive_what_is_in_quarantine() {
    let world = crate::sweep::quarantined().await;
    let apart = world.grants_of(world.ada).await.first().unwrap().id;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    assert_ne!(grant, apart);
    assert!(matches!(
        world.grant(apart).await.state,
        GrantState::Quarantined { .. }
    ));
    assert_ne!(
        world.secrets_of(apart).await,
        0,
        "its tokens still have to be ended"
    );
}

#[tokio::test]
async fn discarded_tokens_are_destroyed_where_no_provider_ends_them() {
    let world = World::with_connector(&[(
        "how = \"rfc7009\"\nurl = \"{origin}/revoke\"\nkills = \"grant\"",
        "how = \"none\"",
    )])
    .await;
    let journey = Journey::begin(&world, world.ada, None).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    journey.come_back(&world, answer).await.unwrap();
    confirm::cancel(&world.deps, &journey.link, Some(&journey.cookie), journey.visitor)
        .await
        .unwrap();
    let discarded = world.grants_of(world.ada).await.first().unwrap().id;
    assert_eq!(world.secrets_of(discarded).await, 0);
}

#[tokio::test]
async fn reconnecting_with_another_account_is_refused_and_its_tokens_are_revoked() {
    let (world, grant) = World::connected().await;
    let journey = Journey::begin(&world, world.ada, Some(grant)).await;
    let answer = journey.consent(&world, "other@else.example", false).await;
    let outcome = journey.come_back(&world, answer).await;
    assert!(
        matches!(outcome, Err(ConnectFailure::WrongAccount)),
        "{outcome:?}"
    );
    postern::flows::upstream::drain(&world.deps).await.unwrap();
    assert!(
        !world.seen("revoke").await.is_empty(),
        "the tokens of the wrong account are ended upstream"
    );
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test]
async fn reconnecting_the_same_account_keeps_the_grant() {
    let (world, grant) = World::connected().await;
    let journey = Journey::begin(&world, world.ada, Some(grant)).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    assert_eq!(
        journey.finish(&world, answer, &[Category::Read]).await.unwrap(),
        grant
    );
    world.vend(world.read(grant)).await.unwrap();
}

/// The hashes of the tokens of one answer, as Acme Mail keeps them.
fn issued(answer: &serde_json::Value) -> [&serde_json::Value; 2] {
    ["issued_refresh_sha256", "issued_access_sha256"].map(|token| &answer[token])
}

async fn reconnect(world: &World, grant: postern::domain::GrantId) {
    let journey = Journey::begin(world, world.ada, Some(grant)).await;
    let answer = journey.consent(world, "ada@acme.example", false).await;
    journey.finish(world, answer, &[Category::Read]).await.unwrap();
    postern::flows::upstream::drain(&world.deps).await.unwrap();
}

#[tokio::test]
async fn the_tokens_a_reconnect_replaces_are_ended_at_the_provider() {
    let world = World::with_connector(&[("kills = \"grant\"", "kills = \"token\"")]).await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    // A narrowed token is one of them.
    world
        .vend(super::harness::token(world.read(grant)))
        .await
        .unwrap();
    let before = world.seen("token").await;
    reconnect(&world, grant).await;
    let ended = world.seen("revoke").await;
    for answer in &before {
        let [_, access] = issued(answer);
        assert!(
            ended.iter().any(|call| call["token_sha256"] == *access),
            "an access token was never ended"
        );
    }
    let [refresh, _] = issued(before.last().unwrap());
    assert!(
        ended.iter().any(|call| call["token_sha256"] == *refresh),
        "the refresh token was never ended"
    );
    world.later(Duration::from_secs(400));
    world.vend(world.read(grant)).await.unwrap();
    let said = world.entries().await;
    assert!(
        said.iter()
            .any(|entry| entry.draft.reason.as_deref() == Some("superseded"))
    );
}

#[tokio::test]
async fn the_tokens_a_reconnect_replaces_are_left_alone_where_ending_them_could_end_the_new_ones() {
    let (world, grant) = World::connected().await;
    reconnect(&world, grant).await;
    assert_eq!(world.seen("revoke").await, [] as [serde_json::Value; 0]);
    let said = world.entries().await;
    assert!(
        said.iter()
            .any(|entry| entry.draft.reason.as_deref() == Some("not_revocable_alone"))
    );
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test]
async fn cancelling_a_reconnect_ends_nothing_that_lives() {
    let (world, grant) = World::connected().await;
    let journey = Journey::begin(&world, world.ada, None).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    journey.come_back(&world, answer).await.unwrap();
    confirm::cancel(&world.deps, &journey.link, Some(&journey.cookie), journey.visitor)
        .await
        .unwrap();
    postern::flows::upstream::drain(&world.deps).await.unwrap();
    assert_eq!(world.seen("revoke").await, [] as [serde_json::Value; 0]);
    world.later(Duration::from_secs(400));
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test]
async fn another_account_of_the_same_person_is_another_grant() {
    let (world, first) = World::connected().await;
    let outcome = connect_as(&world, world.ada, "other@else.example", &[Category::Read], false).await;
    let Outcome::Granted(second) = outcome else {
        panic!("{outcome:?}")
    };
    assert_ne!(first, second);
}

/// The provider was asked to end the tokens of the one answer it gave, the refresh token first, and nothing else.
async fn both_were_ended(world: &World) {
    let answers = world.seen("token").await;
    let [answer] = &answers[..] else {
        panic!("{answers:?}")
    };
    let issued = issued(answer);
    assert!(issued.iter().all(|token| token.is_string()), "{answer}");
    let calls = world.seen("revoke").await;
    let ended: Vec<_> = calls.iter().map(|call| &call["token_sha256"]).collect();
    assert_eq!(ended, issued);
}

#[tokio::test]
async fn cancelling_at_the_confirmation_revokes_upstream() {
    let (world, journey, answer) = answered().await;
    journey.come_back(&world, answer).await.unwrap();
    confirm::cancel(&world.deps, &journey.link, Some(&journey.cookie), journey.visitor)
        .await
        .unwrap();
    postern::flows::upstream::drain(&world.deps).await.unwrap();
    both_were_ended(&world).await;
}

#[tokio::test]
async fn an_abandoned_confirmation_is_revoked_upstream() {
    let (world, journey, answer) = answered().await;
    journey.come_back(&world, answer).await.unwrap();
    world.later(Duration::from_secs(700));
    postern::flows::sweep::run(&world.deps).await.unwrap();
    postern::flows::upstream::drain(&world.deps).await.unwrap();
    both_were_ended(&world).await;
}

#[tokio::test]
async fn a_revocation_ends_a_session_under_way() {
    let (world, journey, answer) = answered().await;
    world.revoke(Selector::User(world.ada)).await;
    let outcome = journey.come_back(&world, answer).await;
    refused_before_any_token_request(&world, outcome, |failure| {
        matches!(failure, ConnectFailure::Revoked)
    })
    .await;
}

#[tokio::test]
async fn only_the_browser_that_came_back_confirms() {
    let (world, journey, answer) = answered().await;
    journey.come_back(&world, answer).await.unwrap();
    let other = random::link_token(&*world.deps.random).unwrap();
    let choice = postern::flows::choices::Choice {
        agent: world.agent.agent,
        categories: BTreeSet::new(),
        raw: false,
    };
    let outcome = confirm::confirm(
        &world.deps,
        &journey.link,
        Some(&other),
        journey.visitor,
        vec![choice],
    )
    .await;
    assert!(
        matches!(outcome, Err(ConnectFailure::WrongBrowser)),
        "{outcome:?}"
    );
}
