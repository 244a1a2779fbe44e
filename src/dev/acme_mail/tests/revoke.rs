//! Revocation and introspection.

use super::*;

async fn revoke(world: &World, token: &str) -> StatusCode {
    world.as_client("/revoke", &[("token", token)]).await.status
}

#[tokio::test]
async fn revoking_a_refresh_token_ends_its_family() {
    let world = World::new();
    let first = world.connect(ADA, ALL).await;
    let second = world.refresh(&first.refresh).await.tokens();
    assert_eq!(revoke(&world, &second.refresh).await, StatusCode::OK);
    for token in [&first.access, &second.access, &second.refresh] {
        assert!(!world.is_active(token).await);
    }
    assert_eq!(world.refresh(&second.refresh).await.error().1, "invalid_grant");
}

#[tokio::test]
async fn revoking_a_rotated_refresh_token_ends_its_family_too() {
    let world = World::new();
    let first = world.connect(ADA, ALL).await;
    let second = world.refresh(&first.refresh).await.tokens();
    revoke(&world, &first.refresh).await;
    assert!(!world.is_active(&second.access).await);
}

#[tokio::test]
async fn revoking_an_access_token_ends_only_that_one() {
    let world = World::new();
    let first = world.connect(ADA, ALL).await;
    let second = world.refresh(&first.refresh).await.tokens();
    assert_eq!(revoke(&world, &first.access).await, StatusCode::OK);
    assert!(!world.is_active(&first.access).await);
    assert!(world.is_active(&second.access).await);
    world.refresh(&second.refresh).await.tokens();
}

#[tokio::test]
async fn revoking_what_is_not_known_is_200() {
    assert_eq!(revoke(&World::new(), "never-seen").await, StatusCode::OK);
}

#[tokio::test]
async fn a_wrong_token_type_hint_changes_nothing() {
    let world = World::new();
    let tokens = world.connect(ADA, ALL).await;
    let pairs = [
        ("token", tokens.refresh.as_str()),
        ("token_type_hint", "access_token"),
    ];
    world.as_client("/revoke", &pairs).await;
    assert!(!world.is_active(&tokens.access).await);
}

#[tokio::test]
async fn revoking_needs_the_client_and_a_token() {
    let world = World::new();
    let tokens = world.connect(ADA, ALL).await;
    let unproven = world.form("/revoke", &[("token", &tokens.refresh)]).await;
    assert_eq!(unproven.error(), (401, "invalid_client".to_owned()));
    assert!(world.is_active(&tokens.refresh).await);
    let empty = world.as_client("/revoke", &[]).await;
    assert_eq!(empty.error(), (400, "invalid_request".to_owned()));
}

#[tokio::test]
async fn a_public_client_may_revoke_by_its_id() {
    let world = World::with_secret(None);
    let code = world.code(ADA, ALL).await;
    let mut pairs = redemption(&code);
    pairs.push(("client_id", "postern-dev"));
    let tokens = world.form("/token", &pairs).await.tokens();
    let pairs = [("token", tokens.refresh.as_str()), ("client_id", "postern-dev")];
    assert_eq!(world.form("/revoke", &pairs).await.status, StatusCode::OK);
    assert_eq!(
        world.userinfo(&tokens.access).await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn introspection_describes_a_living_access_token() {
    let world = World::new();
    let tokens = world.connect(ADA, "mail.read").await;
    let body = world.introspect(&tokens.access).await;
    assert_eq!(body["active"], true);
    assert_eq!(body["scope"], "mail.read");
    assert_eq!(body["username"], ADA);
    assert_eq!(body["exp"], 1_790_000_300);
    assert_eq!(body["iss"], ISSUER);
}

#[tokio::test]
async fn introspection_says_only_inactive_of_anything_else() {
    let world = World::new();
    let tokens = world.connect(ADA, ALL).await;
    world.wait(300);
    for token in [tokens.access.as_str(), "never-seen"] {
        assert_eq!(world.introspect(token).await, json!({ "active": false }));
    }
}

#[tokio::test]
async fn introspection_of_a_rotated_refresh_token_turns_inactive_after_the_grace() {
    let world = World::new();
    let tokens = world.connect(ADA, ALL).await;
    world.refresh(&tokens.refresh).await;
    assert!(world.is_active(&tokens.refresh).await);
    world.wait(61);
    assert!(!world.is_active(&tokens.refresh).await);
}

#[tokio::test]
async fn introspection_refuses_who_is_not_the_client() {
    let world = World::new();
    let tokens = world.connect(ADA, ALL).await;
    let got = world.form("/introspect", &[("token", &tokens.access)]).await;
    assert_eq!(got.error(), (401, "invalid_client".to_owned()));
}

#[tokio::test]
async fn introspection_refuses_a_public_client() {
    let pairs = [("token", "any"), ("client_id", "postern-dev")];
    let got = World::with_secret(None).form("/introspect", &pairs).await;
    assert_eq!(got.status, StatusCode::UNAUTHORIZED);
}
