//! The token endpoint.

use super::*;

async fn redeem_with(world: &World, name: &str, value: &str) -> Got {
    let code = world.code(ADA, ALL).await;
    let mut pairs = redemption(&code);
    pairs.retain(|(key, _)| *key != name);
    pairs.push((name, value));
    world.as_client("/token", &pairs).await
}

fn refused(got: &Got) -> &'static str {
    assert_eq!(got.error(), (400, "invalid_grant".to_owned()), "{}", got.text);
    "invalid_grant"
}

#[tokio::test]
async fn a_code_buys_a_bearer_token_of_300_seconds() {
    let world = World::new();
    let code = world.code(ADA, ALL).await;
    let got = world.redeem(&code).await;
    let body = got.json();
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["expires_in"], 300);
    assert_eq!(body["scope"], ALL);
    assert_eq!(got.header(header::CACHE_CONTROL), "no-store");
}

#[tokio::test]
async fn tokens_carry_256_bits_and_are_never_the_same() {
    let world = World::new();
    let one = world.connect(ADA, ALL).await;
    let two = world.connect(ADA, ALL).await;
    assert_eq!(one.access.len(), "acme_at_".len() + 43);
    assert_ne!(one.access, two.access);
    assert_ne!(one.refresh, two.refresh);
}

#[tokio::test]
async fn a_code_without_its_verifier_buys_nothing() {
    let world = World::new();
    let code = world.code(ADA, ALL).await;
    let mut pairs = redemption(&code);
    pairs.retain(|(key, _)| *key != "code_verifier");
    let got = world.as_client("/token", &pairs).await;
    assert_eq!(got.error(), (400, "invalid_request".to_owned()));
}

#[tokio::test]
async fn a_code_with_a_wrong_verifier_buys_nothing() {
    let wrong = "another-code-verifier-of-at-least-43-characters-0";
    refused(&redeem_with(&World::new(), "code_verifier", wrong).await);
}

#[tokio::test]
async fn the_challenge_itself_is_no_verifier() {
    refused(&redeem_with(&World::new(), "code_verifier", challenge()).await);
}

#[tokio::test]
async fn a_code_at_another_redirect_uri_buys_nothing() {
    let other = "http://127.0.0.1:4000/contexts/other";
    refused(&redeem_with(&World::new(), "redirect_uri", other).await);
}

#[tokio::test]
async fn an_unknown_code_buys_nothing() {
    refused(&World::new().redeem("acme_ac_made-up").await);
}

#[tokio::test]
async fn a_code_works_for_60_seconds_and_no_longer() {
    let world = World::new();
    let (one, two) = (world.code(ADA, ALL).await, world.code(ADA, ALL).await);
    world.wait(60);
    world.redeem(&one).await.tokens();
    world.wait(1);
    refused(&world.redeem(&two).await);
}

#[tokio::test]
async fn a_code_used_twice_takes_back_its_tokens() {
    let world = World::new();
    let code = world.code(ADA, ALL).await;
    let tokens = world.redeem(&code).await.tokens();
    let renewed = world.refresh(&tokens.refresh).await.tokens();
    refused(&world.redeem(&code).await);
    for token in [tokens.access, renewed.access] {
        assert_eq!(world.userinfo(&token).await.status, StatusCode::UNAUTHORIZED);
    }
    refused(&world.refresh(&renewed.refresh).await);
}

#[tokio::test]
async fn refreshing_rotates_the_refresh_token_and_keeps_the_scope() {
    let world = World::new();
    let first = world.connect(ADA, ALL).await;
    let got = world.refresh(&first.refresh).await;
    assert_ne!(got.tokens().refresh, first.refresh);
    assert_ne!(got.tokens().access, first.access);
    assert_eq!(got.json()["scope"], ALL);
}

#[tokio::test]
async fn refreshing_leaves_older_access_tokens_alive() {
    let world = World::new();
    let first = world.connect(ADA, ALL).await;
    world.refresh(&first.refresh).await;
    assert_eq!(world.userinfo(&first.access).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_retry_within_60_seconds_gets_a_working_answer() {
    let world = World::new();
    let first = world.connect(ADA, ALL).await;
    world.refresh(&first.refresh).await.tokens();
    world.wait(60);
    let retried = world.refresh(&first.refresh).await.tokens();
    assert_eq!(world.userinfo(&retried.access).await.status, StatusCode::OK);
    world.refresh(&retried.refresh).await.tokens();
}

#[tokio::test]
async fn a_retry_leaves_the_first_answer_working_too() {
    let world = World::new();
    let first = world.connect(ADA, ALL).await;
    let answered = world.refresh(&first.refresh).await.tokens();
    world.refresh(&first.refresh).await.tokens();
    world.refresh(&answered.refresh).await.tokens();
}

#[tokio::test]
async fn retries_do_not_prolong_the_grace() {
    let world = World::new();
    let first = world.connect(ADA, ALL).await;
    world.refresh(&first.refresh).await.tokens();
    world.wait(40);
    world.refresh(&first.refresh).await.tokens();
    world.wait(21);
    refused(&world.refresh(&first.refresh).await);
}

#[tokio::test]
async fn reuse_after_the_grace_ends_the_whole_family() {
    let world = World::new();
    let first = world.connect(ADA, ALL).await;
    let second = world.refresh(&first.refresh).await.tokens();
    world.wait(61);
    refused(&world.refresh(&first.refresh).await);
    refused(&world.refresh(&second.refresh).await);
    assert_eq!(
        world.userinfo(&second.access).await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn reuse_of_a_token_two_rotations_old_ends_the_family_even_within_60_seconds() {
    let world = World::new();
    let first = world.connect(ADA, ALL).await;
    let second = world.refresh(&first.refresh).await.tokens();
    let third = world.refresh(&second.refresh).await.tokens();
    refused(&world.refresh(&first.refresh).await);
    refused(&world.refresh(&third.refresh).await);
}

#[tokio::test]
async fn reuse_in_one_family_leaves_another_of_the_same_account_alone() {
    let world = World::new();
    let (one, two) = (world.connect(ADA, ALL).await, world.connect(ADA, ALL).await);
    world.refresh(&one.refresh).await;
    world.wait(61);
    refused(&world.refresh(&one.refresh).await);
    world.refresh(&two.refresh).await.tokens();
}

#[tokio::test]
async fn a_narrower_scope_narrows_the_access_token() {
    let world = World::new();
    let first = world.connect(ADA, ALL).await;
    let got = world.narrow(&first.refresh, "mail.read").await;
    assert_eq!(got.json()["scope"], "mail.read");
    let letter = json!({"to": [BEN], "subject": "s", "body": "b"});
    let sent = world
        .api(Method::POST, "/api/messages", &got.tokens().access, Some(letter))
        .await;
    assert_eq!(sent.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn narrowing_keeps_the_broad_grant() {
    let world = World::new();
    let first = world.connect(ADA, ALL).await;
    let narrowed = world.narrow(&first.refresh, "mail.read").await.tokens();
    assert_eq!(world.refresh(&narrowed.refresh).await.json()["scope"], ALL);
}

#[tokio::test]
async fn a_wider_scope_on_refresh_is_refused_and_rotates_nothing() {
    let world = World::new();
    let first = world.connect(ADA, "mail.read").await;
    let got = world.narrow(&first.refresh, "mail.read mail.send").await;
    assert_eq!(got.error(), (400, "invalid_scope".to_owned()));
    world.wait(3_600);
    world.refresh(&first.refresh).await.tokens();
}

#[tokio::test]
async fn an_unknown_scope_on_refresh_is_refused() {
    let world = World::new();
    let first = world.connect(ADA, ALL).await;
    let got = world.narrow(&first.refresh, "mail.admin").await;
    assert_eq!(got.error(), (400, "invalid_scope".to_owned()));
}

#[tokio::test]
async fn an_access_token_is_no_refresh_token() {
    let world = World::new();
    let tokens = world.connect(ADA, ALL).await;
    refused(&world.refresh(&tokens.access).await);
}

#[tokio::test]
async fn a_client_may_send_its_secret_in_the_body() {
    let world = World::new();
    let code = world.code(ADA, ALL).await;
    let mut pairs = redemption(&code);
    pairs.extend([("client_id", "postern-dev"), ("client_secret", SECRET)]);
    world.form("/token", &pairs).await.tokens();
}

#[tokio::test]
async fn a_client_without_or_with_a_wrong_secret_gets_401_and_a_challenge() {
    let world = World::new();
    for extra in [
        vec![],
        vec![("client_id", "postern-dev")],
        vec![("client_id", "postern-dev"), ("client_secret", "wrong")],
        vec![("client_id", "someone"), ("client_secret", SECRET)],
    ] {
        let code = world.code(ADA, ALL).await;
        let mut pairs = redemption(&code);
        pairs.extend(&extra);
        let got = world.form("/token", &pairs).await;
        assert_eq!(got.error(), (401, "invalid_client".to_owned()), "{extra:?}");
        assert!(got.header(header::WWW_AUTHENTICATE).starts_with("Basic"));
    }
}

#[tokio::test]
async fn a_client_that_authenticates_twice_is_refused() {
    let world = World::new();
    let code = world.code(ADA, ALL).await;
    let mut pairs = redemption(&code);
    pairs.extend([("client_id", "postern-dev"), ("client_secret", SECRET)]);
    let got = world.as_client("/token", &pairs).await;
    assert_eq!(got.error(), (400, "invalid_request".to_owned()));
}

#[tokio::test]
async fn a_failed_authentication_does_not_spend_the_code() {
    let world = World::new();
    let code = world.code(ADA, ALL).await;
    world.form("/token", &redemption(&code)).await;
    world.redeem(&code).await.tokens();
}

#[tokio::test]
async fn a_public_client_proves_itself_by_pkce_alone() {
    let world = World::with_secret(None);
    let code = world.code(ADA, ALL).await;
    let mut pairs = redemption(&code);
    pairs.push(("client_id", "postern-dev"));
    world.form("/token", &pairs).await.tokens();
}

#[tokio::test]
async fn a_public_client_that_sends_a_secret_is_refused() {
    let world = World::with_secret(None);
    let code = world.code(ADA, ALL).await;
    assert_eq!(world.redeem(&code).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_repeated_parameter_is_refused() {
    let world = World::new();
    let code = world.code(ADA, ALL).await;
    let mut pairs = redemption(&code);
    pairs.push(("code", &code));
    let got = world.as_client("/token", &pairs).await;
    assert_eq!(got.error(), (400, "invalid_request".to_owned()));
}

#[tokio::test]
async fn another_grant_type_is_refused() {
    let got = World::new()
        .as_client("/token", &[("grant_type", "password")])
        .await;
    assert_eq!(got.error(), (400, "unsupported_grant_type".to_owned()));
}

#[tokio::test]
async fn a_body_that_is_no_form_is_refused() {
    let request = ask(Method::POST, "/token")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from("{}"))
        .unwrap();
    assert_eq!(
        World::new().send(request).await.error(),
        (400, "invalid_request".to_owned())
    );
}

#[tokio::test]
async fn a_snapshot_keeps_grants_working_and_holds_no_token() {
    let world = World::new();
    let tokens = world.connect(ADA, ALL).await;
    let renewed = world.refresh(&tokens.refresh).await.tokens();
    let snapshot = world.acme.snapshot().unwrap();
    for token in [&tokens.access, &tokens.refresh, &renewed.access, &renewed.refresh] {
        assert!(!snapshot.contains(token.as_str()));
    }
    let later = World::new();
    later.acme.restore(&snapshot).unwrap();
    assert_eq!(later.userinfo(&tokens.access).await.status, StatusCode::OK);
    later.refresh(&renewed.refresh).await.tokens();
}

#[tokio::test]
async fn a_broken_snapshot_changes_nothing() {
    let world = World::new();
    let tokens = world.connect(ADA, ALL).await;
    assert!(world.acme.restore("{}").is_err());
    assert_eq!(world.userinfo(&tokens.access).await.status, StatusCode::OK);
}
