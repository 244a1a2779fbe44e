//! What the refusals of providers are taken for.

use serde_json::json;

use super::{
    super::errors::{classify_revoke, classify_token, safe_code},
    *,
};

#[test]
fn refusals_of_token_endpoints_are_told_apart() {
    use ErrorClass::{Config, Consent, Dead, Scope, Transient, Unknown};

    for (id, status, body, class) in [
        (
            "slack",
            200,
            json!({"ok": false, "error": "invalid_refresh_token"}),
            Dead,
        ),
        ("slack", 200, json!({"ok": false, "error": "token_revoked"}), Dead),
        (
            "slack",
            200,
            json!({"ok": false, "error": "internal_error"}),
            Transient,
        ),
        (
            "slack",
            200,
            json!({"ok": false, "error": "ratelimited"}),
            Transient,
        ),
        (
            "slack",
            200,
            json!({"ok": false, "error": "bad_client_secret"}),
            Config,
        ),
        (
            "slack",
            200,
            json!({"ok": false, "error": "never_heard_of"}),
            Unknown,
        ),
        ("slack", 200, json!({"ok": false}), Unknown),
        ("slack", 400, json!({"error": "invalid_grant"}), Dead),
        (
            "slack",
            503,
            json!({"ok": false, "error": "token_revoked"}),
            Transient,
        ),
        ("github", 200, json!({"error": "bad_refresh_token"}), Dead),
        (
            "github",
            200,
            json!({"error": "incorrect_client_credentials"}),
            Config,
        ),
        ("github", 429, json!(null), Transient),
        (
            "gmail",
            400,
            json!({"error": "invalid_grant", "error_description": "Token has been expired or revoked."}),
            Dead,
        ),
        (
            "gmail",
            400,
            json!({"error": "invalid_grant", "error_subtype": "invalid_rapt"}),
            Consent,
        ),
        ("gmail", 401, json!({"error": "invalid_client"}), Config),
        ("gmail", 401, json!({"error": "deleted_client"}), Config),
        ("gmail", 500, json!({"error": "invalid_grant"}), Transient),
        ("acme-mail", 400, json!({"error": "invalid_grant"}), Dead),
        ("acme-mail", 400, json!({"error": "invalid_scope"}), Scope),
        (
            "acme-mail",
            400,
            json!({"error": "temporarily_unavailable"}),
            Transient,
        ),
        ("acme-mail", 400, json!({"error": "consent_required"}), Consent),
        ("acme-mail", 400, json!({"error": "unauthorized_client"}), Config),
        ("acme-mail", 401, json!({"error": "invalid_token"}), Unknown),
        ("acme-mail", 404, json!(null), Unknown),
        ("acme-mail", 408, json!(null), Transient),
    ] {
        assert_eq!(
            classify_token(&connector(id), status, &body),
            class,
            "{id} {status} {body}"
        );
    }
}

#[test]
fn answers_of_the_api_say_what_became_of_the_token() {
    use ErrorClass::{Consent, Dead, Transient};

    for (id, status, body, class) in [
        ("acme-mail", 401, json!({"error": "invalid_token"}), Some(Dead)),
        (
            "acme-mail",
            403,
            json!({"error": "insufficient_scope"}),
            Some(Consent),
        ),
        ("acme-mail", 404, json!({"error": "not_found"}), None),
        ("acme-mail", 200, json!({"messages": []}), None),
        (
            "slack",
            200,
            json!({"ok": false, "error": "token_revoked"}),
            Some(Dead),
        ),
        (
            "slack",
            200,
            json!({"ok": false, "error": "missing_scope"}),
            Some(Consent),
        ),
        (
            "slack",
            200,
            json!({"ok": false, "error": "channel_not_found"}),
            None,
        ),
        ("slack", 200, json!({"ok": true}), None),
        ("slack", 429, json!(null), Some(Transient)),
        ("github", 401, json!({"message": "Bad credentials"}), Some(Dead)),
        ("github", 404, json!({"message": "Not Found"}), None),
        (
            "gmail",
            403,
            json!({"error": {"errors": [{"reason": "rateLimitExceeded"}]}}),
            Some(Transient),
        ),
        (
            "gmail",
            403,
            json!({"error": {"errors": [{"reason": "insufficientPermissions"}]}}),
            Some(Consent),
        ),
        (
            "gmail",
            403,
            json!({"error": {"errors": [{"reason": "domainPolicy"}]}}),
            None,
        ),
    ] {
        assert_eq!(
            classify_api(&connector(id), status, &body),
            class,
            "{id} {status} {body}"
        );
    }
}

#[test]
fn a_token_that_is_gone_already_needs_no_second_revocation() {
    assert_eq!(
        classify_revoke(&connector("github"), 404, &json!(null)),
        Some(ErrorClass::Dead)
    );
    assert_eq!(
        classify_revoke(
            &connector("slack"),
            200,
            &json!({"ok": false, "error": "token_revoked"})
        ),
        Some(ErrorClass::Dead)
    );
    assert_eq!(
        classify_revoke(&connector("gmail"), 400, &json!({"error": "invalid_token"})),
        Some(ErrorClass::Dead)
    );
    assert_eq!(
        classify_revoke(&connector("gmail"), 400, &json!({"error": "invalid_request"})),
        None
    );
}

#[test]
fn only_a_code_leaves_a_remote_body() {
    assert_eq!(
        safe_code(&json!({"error": "invalid_grant"})).as_deref(),
        Some("invalid_grant")
    );
    for error in [
        json!("two words"),
        json!("a\nb"),
        json!(""),
        json!("x".repeat(65)),
        json!({"a": 1}),
        json!("<b>"),
    ] {
        assert_eq!(safe_code(&json!({ "error": error })), None, "{error}");
    }
}
