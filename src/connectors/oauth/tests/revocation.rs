//! How each provider is asked to end a token, and when it is believed.

use std::time::Duration;

use serde_json::json;

use super::{
    wire::{World, secret},
    *,
};
use crate::domain::connector::RevokeAccepts;

#[tokio::test]
async fn revocation_by_rfc_7009_names_token_and_kind() {
    let world = World::answering(&[(200, json!(null)), (200, json!(null))]).await;
    let acme = world.connector("acme-mail");
    let (refresh, access, secret) = (
        RefreshToken::new("rt".to_owned()),
        AccessToken::new("at".to_owned()),
        secret(),
    );
    let oauth = world.oauth(&acme, Some(&secret));
    assert_eq!(
        oauth.revoke(TokenToEnd::Refresh(&refresh)).await,
        RevokeOutcome::Revoked
    );
    assert_eq!(
        world.oauth(&acme, None).revoke(TokenToEnd::Access(&access)).await,
        RevokeOutcome::Revoked
    );
    let seen = world.seen();
    assert_eq!(seen[0].line, "POST /revoke HTTP/1.1");
    assert_eq!(seen[0].form("token").as_deref(), Some("rt"));
    assert_eq!(seen[0].form("token_type_hint").as_deref(), Some("refresh_token"));
    assert!(seen[0].head.contains("authorization: Basic"));
    assert_eq!(seen[1].form("token_type_hint").as_deref(), Some("access_token"));
    assert_eq!(seen[1].form("client_id").as_deref(), Some("client:1"));
}

#[tokio::test]
async fn google_wants_no_client_to_revoke() {
    let world = World::answering(&[(200, json!({})), (400, json!({"error": "invalid_token"}))]).await;
    let gmail = world.connector("gmail");
    let (refresh, secret) = (RefreshToken::new("rt".to_owned()), secret());
    for _ in 0..2 {
        let outcome = world
            .oauth(&gmail, Some(&secret))
            .revoke(TokenToEnd::Refresh(&refresh))
            .await;
        assert_eq!(outcome, RevokeOutcome::Revoked);
    }
    let seen = world.seen();
    assert!(!seen[0].head.contains("authorization"));
    assert_eq!(
        (seen[0].form("client_id"), seen[0].form("client_secret")),
        (None, None)
    );
}

#[tokio::test]
async fn github_and_slack_are_called_their_own_way_with_access_tokens_only() {
    let world = World::answering(&[
        (204, json!(null)),
        (404, json!({})),
        (200, json!({"ok": true, "revoked": true})),
        (200, json!({"ok": false, "error": "token_revoked"})),
    ])
    .await;
    let (refresh, access, secret) = (
        RefreshToken::new("rt".to_owned()),
        AccessToken::new("at".to_owned()),
        secret(),
    );
    for id in ["github", "slack"] {
        let connector = world.connector(id);
        assert_eq!(connector.revoke.accepts, Some(RevokeAccepts::Access));
        let oauth = world.oauth(&connector, Some(&secret));
        assert_eq!(
            oauth.revoke(TokenToEnd::Refresh(&refresh)).await,
            RevokeOutcome::Unsupported
        );
        for _ in 0..2 {
            assert_eq!(
                oauth.revoke(TokenToEnd::Access(&access)).await,
                RevokeOutcome::Revoked
            );
        }
    }
    let seen = world.seen();
    assert_eq!(seen.len(), 4);
    assert_eq!(seen[0].line, "DELETE /applications/client%3A1/grant HTTP/1.1");
    assert_eq!(seen[0].body, "{\"access_token\":\"at\"}");
    assert!(seen[0].head.contains("authorization: Basic"));
    assert_eq!(seen[2].line, "POST /api/auth.revoke HTTP/1.1");
    assert!(seen[2].head.contains("authorization: Bearer at"));
    assert!(!seen[2].body.contains("at"));
}

#[tokio::test]
async fn a_revocation_is_believed_only_when_the_provider_says_so() {
    let later = RevokeOutcome::Retry {
        after: Some(Duration::from_secs(7)),
    };
    for (status, body, outcome) in [
        (503, json!(null), later.clone()),
        (429, json!(null), later.clone()),
        // The operator's to mend, and no word about the token.
        (401, json!({"error": "invalid_client"}), later),
        (
            400,
            json!({"error": "unsupported_token_type"}),
            RevokeOutcome::Unsupported,
        ),
        (
            400,
            json!({"error": "not_yours"}),
            RevokeOutcome::Refused {
                code: Some("not_yours".to_owned()),
            },
        ),
    ] {
        let world = World::answering(&[(status, body)]).await;
        let acme = world.connector("acme-mail");
        let token = RefreshToken::new("rt".to_owned());
        assert_eq!(
            world.oauth(&acme, None).revoke(TokenToEnd::Refresh(&token)).await,
            outcome,
            "{status}"
        );
    }
    // Slack says yes with a status that means nothing.
    let world = World::answering(&[(200, json!({"ok": false, "error": "fatal_error"}))]).await;
    let slack = world.connector("slack");
    let token = AccessToken::new("at".to_owned());
    assert!(matches!(
        world.oauth(&slack, None).revoke(TokenToEnd::Access(&token)).await,
        RevokeOutcome::Retry { .. }
    ));
}

#[tokio::test]
async fn what_answers_without_a_code_in_the_endpoints_place_has_not_refused() {
    for (status, body) in [
        (302, json!(null)),
        (400, json!({"message": "no"})),
        (401, json!(null)),
        (403, json!("<html>")),
        (404, json!({})),
    ] {
        let world = World::answering(&[(status, body)]).await;
        let acme = world.connector("acme-mail");
        let token = RefreshToken::new("rt".to_owned());
        assert_eq!(
            world.oauth(&acme, None).revoke(TokenToEnd::Refresh(&token)).await,
            RevokeOutcome::Unclear {
                after: Some(Duration::from_secs(7)),
            },
            "{status}"
        );
    }
    // A success that the file does not take for one is the endpoint's own.
    let world = World::answering(&[(200, json!({"ok": false}))]).await;
    let slack = world.connector("slack");
    let token = AccessToken::new("at".to_owned());
    assert_eq!(
        world.oauth(&slack, None).revoke(TokenToEnd::Access(&token)).await,
        RevokeOutcome::Refused { code: None }
    );
}
