//! Answers of token endpoints, standard and peculiar.

use http::{HeaderMap, HeaderValue, header};
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    super::answer::{Origin, read},
    *,
};
use crate::domain::Time;

const NOW: Time = Time::from_unix_seconds(1_800_000_000);

fn response(status: u16, kind: &'static str, body: &str) -> InboundResponse {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    InboundResponse {
        status,
        headers,
        body: Zeroizing::new(body.as_bytes().to_vec()),
        truncated: false,
    }
}

fn read_json(connector: &Connector, status: u16, body: &Value) -> Result<TokenSet, OAuthError> {
    read(
        connector,
        Origin::Code(None),
        &response(status, "application/json", &body.to_string()),
        NOW,
    )
}

fn standard(more: Value) -> Value {
    let mut body = json!({"access_token": "at-1", "token_type": "Bearer", "refresh_token": "rt-1"});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

fn class(outcome: Result<TokenSet, OAuthError>) -> ErrorClass {
    match outcome.unwrap_err() {
        OAuthError::Refused { class, .. } => class,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_standard_answer_is_read() {
    let body = standard(json!({"expires_in": 300, "scope": "mail.read mail.send", "sub": "7"}));
    let tokens = read_json(&connector("acme-mail"), 200, &body).unwrap();
    assert_eq!(tokens.access_token.expose_secret(), "at-1");
    assert_eq!(tokens.refresh_token.as_ref().unwrap().expose_secret(), "rt-1");
    assert_eq!(tokens.scopes.as_ref().unwrap().to_string(), "mail.read mail.send");
    assert_eq!(tokens.expires_at, Some(Time::from_unix_seconds(1_800_000_300)));
    assert_eq!(tokens.facts.get("sub"), Some(&json!("7")));
}

#[test]
fn a_201_is_a_success_too() {
    assert!(read_json(&connector("acme-mail"), 201, &standard(json!({}))).is_ok());
}

#[test]
fn an_answer_without_scope_is_not_one_with_no_scope() {
    let acme = connector("acme-mail");
    let asked = ScopeSet::parse("mail.read", ' ').unwrap();
    let silent = read_json(&acme, 200, &standard(json!({}))).unwrap();
    assert_eq!(silent.scopes, None);
    assert_eq!(silent.granted(&asked), asked);
    let none = read_json(&acme, 200, &standard(json!({"scope": ""}))).unwrap();
    assert_eq!(none.scopes, Some(ScopeSet::default()));
    assert!(none.granted(&asked).is_empty());
}

#[test]
fn slack_gives_the_user_token_to_the_user_and_the_bot_token_to_the_bot() {
    let slack = connector("slack");
    let body = json!({
        "ok": true, "access_token": "xoxb-bot", "token_type": "bot", "scope": "chat:write,users:read",
        "team": {"id": "T1", "name": "Acme"},
        "authed_user": {"id": "U1", "scope": "channels:read", "access_token": "xoxp-user", "token_type": "user",
                        "refresh_token": "xoxe-user", "expires_in": 43200}
    });
    let answer = response(200, "application/json; charset=utf-8", &body.to_string());
    let user = read(&slack, Origin::Code(actor(&slack, None).unwrap()), &answer, NOW).unwrap();
    assert_eq!(user.access_token.expose_secret(), "xoxp-user");
    assert_eq!(user.refresh_token.as_ref().unwrap().expose_secret(), "xoxe-user");
    assert_eq!(user.scopes.as_ref().unwrap().to_string(), "channels:read");
    let bot = read(
        &slack,
        Origin::Code(actor(&slack, Some("bot")).unwrap()),
        &answer,
        NOW,
    )
    .unwrap();
    assert_eq!(bot.access_token.expose_secret(), "xoxb-bot");
    assert_eq!(bot.scopes.as_ref().unwrap().to_string(), "chat:write users:read");
    assert_eq!(bot.expires_at, None);
    for tokens in [user, bot] {
        let facts = tokens.facts.to_string();
        assert!(!facts.contains("xox"), "{facts}");
        assert!(facts.contains("T1"));
    }
}

#[test]
fn slack_without_the_users_token_is_no_answer_for_the_user() {
    let slack = connector("slack");
    let body =
        json!({"ok": true, "access_token": "xoxb-bot", "token_type": "bot", "authed_user": {"id": "U1"}});
    let answer = response(200, "application/json", &body.to_string());
    let error = read(&slack, Origin::Code(actor(&slack, None).unwrap()), &answer, NOW).unwrap_err();
    assert!(matches!(error, OAuthError::Unusable(_)), "{error}");
}

#[test]
fn slack_may_answer_a_users_refresh_at_the_top() {
    let slack = connector("slack");
    let user = actor(&slack, Some("user")).unwrap();
    for body in [
        json!({"ok": true, "access_token": "new", "refresh_token": "r2", "token_type": "user", "expires_in": 43200}),
        json!({"ok": true, "authed_user": {"access_token": "new", "refresh_token": "r2", "token_type": "user"}}),
    ] {
        let answer = response(200, "application/json", &body.to_string());
        let tokens = read(&slack, Origin::Refresh(user), &answer, NOW).unwrap();
        assert_eq!(tokens.access_token.expose_secret(), "new");
        assert_eq!(tokens.refresh_token.unwrap().expose_secret(), "r2");
    }
}

#[test]
fn slack_and_github_refuse_with_status_200() {
    let slack = json!({"ok": false, "error": "invalid_refresh_token"});
    assert_eq!(
        class(read_json(&connector("slack"), 200, &slack)),
        ErrorClass::Dead
    );
    // Not `ok`, whatever else is there.
    let odd = json!({"ok": false, "access_token": "x", "authed_user": {"access_token": "y"}});
    assert_eq!(
        class(read_json(&connector("slack"), 200, &odd)),
        ErrorClass::Unknown
    );
    let github =
        json!({"error": "bad_refresh_token", "error_description": "The refresh token is incorrect."});
    assert_eq!(
        class(read_json(&connector("github"), 200, &github)),
        ErrorClass::Dead
    );
}

#[test]
fn github_answers_with_commas_and_sometimes_with_a_form() {
    let github = connector("github");
    let body = json!({"access_token": "gho_1", "scope": "repo,read:user", "token_type": "bearer"});
    let tokens = read_json(&github, 200, &body).unwrap();
    assert_eq!(tokens.scopes.unwrap().to_string(), "read:user repo");
    assert_eq!((tokens.expires_at, tokens.refresh_token.is_none()), (None, true));
    let form = "application/x-www-form-urlencoded; charset=utf-8";
    let body = "access_token=gho_1&expires_in=28800&refresh_token=ghr_1&scope=&token_type=bearer";
    let tokens = read(&github, Origin::Code(None), &response(200, form, body), NOW).unwrap();
    assert_eq!(tokens.refresh_token.unwrap().expose_secret(), "ghr_1");
    assert_eq!(tokens.expires_at, Some(Time::from_unix_seconds(1_800_028_800)));
    let error = "error=bad_refresh_token&error_description=The+refresh+token+is+incorrect";
    assert_eq!(
        class(read(
            &github,
            Origin::Code(None),
            &response(200, form, error),
            NOW
        )),
        ErrorClass::Dead
    );
}

#[test]
fn lives_are_read_in_every_shape_providers_use() {
    let acme = connector("acme-mail");
    let end = |more: Value| {
        read_json(&acme, 200, &standard(more))
            .unwrap()
            .expires_at
            .map(Time::unix_seconds)
    };
    for (more, seconds) in [
        (json!({"expires_in": 60}), Some(1_800_000_060)),
        (json!({"expires_in": "60"}), Some(1_800_000_060)),
        (json!({"expires_in": 60.9}), Some(1_800_000_060)),
        (json!({"expires_in": 0}), Some(1_800_000_000)),
        (json!({"expires_in": -5}), Some(1_800_000_000)),
        (json!({"expires_in": 1e300}), Some(1_800_000_000 + 315_360_000)),
        (json!({"expires_at": "2027-01-15T08:01:00Z"}), Some(1_800_000_060)),
        (json!({"expires_at": 1_800_000_060}), Some(1_800_000_060)),
        (json!({"expires_at": 1_800_000_060_000_i64}), Some(1_800_000_060)),
        (json!({"expires_at": "1800000060"}), Some(1_800_000_060)),
        (json!({"expires_in": "soon"}), None),
        (json!({"expires_in": null}), None),
        (json!({}), None),
    ] {
        assert_eq!(end(more.clone()), seconds, "{more}");
    }
    let mut silent = (*acme).clone();
    silent.token.expires_default_s = Some(3600);
    let tokens = read_json(&silent, 200, &standard(json!({}))).unwrap();
    assert_eq!(tokens.expires_at, Some(Time::from_unix_seconds(1_800_003_600)));
}

#[test]
fn an_envelope_and_other_names_are_a_matter_of_the_file() {
    let mut odd = (*connector("acme-mail")).clone();
    odd.token.root = "data".to_owned();
    odd.token.fields.access = "accessToken".to_owned();
    odd.token.fields.refresh = "refreshToken".to_owned();
    let body = json!({"data": {"accessToken": "a", "refreshToken": "r", "scope": ["x", "y"]}, "user": {"accessToken": "z"}});
    let tokens = read_json(&odd, 200, &body).unwrap();
    assert_eq!(tokens.access_token.expose_secret(), "a");
    assert_eq!(tokens.scopes.unwrap().to_string(), "x y");
    assert_eq!(
        tokens.facts,
        json!({"data": {"accessToken": null, "refreshToken": null, "scope": ["x", "y"]}, "user": {"accessToken": null}})
    );
}

#[test]
fn unusable_answers_are_told_apart_from_refusals_and_leave_the_grant_in_doubt() {
    let acme = connector("acme-mail");
    for body in [
        json!({}),
        json!({"access_token": ""}),
        json!({"access_token": 7}),
        json!({"access_token": null}),
        standard(json!({"refresh_token": "a\nb", "access_token": null})),
        standard(json!({"refresh_token": 7, "access_token": null})),
        standard(json!({"error": "odd"})),
        standard(json!({"error": "odd", "access_token": null})),
    ] {
        let error = read_json(&acme, 200, &body).unwrap_err();
        assert!(
            matches!(error, OAuthError::Unusable(_)) && error.is_in_doubt(),
            "{body}: {error}"
        );
    }
    for (kind, body) in [
        ("application/json", "[]"),
        ("application/json", ""),
        ("application/json", "{"),
        ("text/html", "<html>access_token=x"),
    ] {
        let error = read(&acme, Origin::Code(None), &response(200, kind, body), NOW).unwrap_err();
        assert!(matches!(error, OAuthError::Unusable(_)), "{body}: {error}");
    }
    let mut cut = response(200, "application/json", "{}");
    cut.truncated = true;
    assert!(matches!(
        read(&acme, Origin::Code(None), &cut, NOW),
        Err(OAuthError::Unusable(_))
    ));
}

#[test]
fn the_tokens_of_an_unusable_answer_are_told() {
    let acme = connector("acme-mail");
    for more in [
        json!({"access_token": ""}),
        json!({"access_token": 7}),
        json!({"access_token": null}),
        json!({"access_token": "a\r\nHost: evil"}),
        json!({"access_token": "ä"}),
        json!({"access_token": "x".repeat(17_000)}),
        json!({"token_type": "mac"}),
        json!({"token_type": "DPoP"}),
        json!({"scope": 7}),
        json!({"scope": [7]}),
        json!({"scope": "a\"b"}),
    ] {
        let error = read_json(&acme, 200, &standard(more.clone())).unwrap_err();
        assert!(
            error.is_in_doubt() && error.class() == ErrorClass::Transient,
            "{more}: {error}"
        );
        let OAuthError::Leftover { left, .. } = &error else {
            panic!("{more}: {error}");
        };
        let refresh_token = left.refresh_token.as_ref().unwrap();
        assert_eq!(refresh_token.expose_secret(), "rt-1", "{more}");
        let access_token = left.access_token.as_ref();
        let is_token = more.get("access_token").is_none();
        assert_eq!(
            access_token.map(|token| token.expose_secret()),
            is_token.then_some("at-1"),
            "{more}"
        );
        let facts = left.facts.to_string();
        assert!(!facts.contains("rt-1") && !facts.contains("at-1"), "{facts}");
        // And where no refresh token comes.
        let mut alone = standard(more.clone());
        alone["refresh_token"].take();
        match read_json(&acme, 200, &alone).unwrap_err() {
            OAuthError::Leftover { left, .. } => {
                assert!(is_token && left.access_token.is_some(), "{more}");
                assert!(left.refresh_token.is_none(), "{more}");
            }
            error => assert!(!is_token, "{more}: {error}"),
        }
    }
    let error = read_json(&acme, 200, &standard(json!({"refresh_token": "a\nb"}))).unwrap_err();
    assert!(
        matches!(&error, OAuthError::Leftover { left, .. } if left.access_token.is_some() && left.refresh_token.is_none()),
        "{error}"
    );
    // A provider that says no gave nothing, whatever stands beside it.
    let slack = json!({"ok": false, "error": "internal_error", "refresh_token": "rt-1"});
    let refused = read_json(&connector("slack"), 200, &slack);
    assert_eq!(class(refused), ErrorClass::Transient);
}

#[test]
fn a_users_refresh_token_is_found_where_it_is_though_no_access_token_shows_the_place() {
    let slack = connector("slack");
    let user = actor(&slack, Some("user")).unwrap();
    let told = |body: Value| {
        let answer = response(200, "application/json", &body.to_string());
        match read(&slack, Origin::Refresh(user), &answer, NOW).unwrap_err() {
            OAuthError::Leftover { left, .. } => {
                left.refresh_token.map(|token| token.expose_secret().to_owned())
            }
            _ => None,
        }
    };
    let there = json!({"ok": true, "authed_user": {"refresh_token": "r2", "token_type": "user"}});
    assert_eq!(told(there).as_deref(), Some("r2"));
    assert_eq!(
        told(json!({"ok": true, "refresh_token": "r2"})).as_deref(),
        Some("r2")
    );
    assert_eq!(told(json!({"ok": true, "authed_user": {}})), None);
}

#[test]
fn a_status_alone_is_enough_to_refuse() {
    let acme = connector("acme-mail");
    for (status, wanted) in [
        (502, ErrorClass::Transient),
        (429, ErrorClass::Transient),
        (400, ErrorClass::Unknown),
        (302, ErrorClass::Unknown),
    ] {
        let answer = response(status, "text/html", "<html>");
        assert_eq!(
            class(read(&acme, Origin::Code(None), &answer, NOW)),
            wanted,
            "{status}"
        );
    }
}

#[test]
fn errors_and_debug_output_hold_no_secret_and_no_remote_text() {
    let acme = connector("acme-mail");
    let tokens = read_json(
        &acme,
        200,
        &standard(json!({"access_token": "canary-a", "refresh_token": "canary-r", "name": "canary-n"})),
    )
    .unwrap();
    let refused = read_json(
        &acme,
        400,
        &json!({"error": "canary \u{1b}[31m", "error_description": "canary"}),
    )
    .unwrap_err();
    let unusable = read_json(&acme, 200, &json!({"access_token": "canary\n"})).unwrap_err();
    let leftover = read_json(
        &acme,
        200,
        &standard(json!({"access_token": "canary\n", "refresh_token": "canary-r", "name": "canary-n"})),
    )
    .unwrap_err();
    let shown = format!("{tokens:?} {refused} {refused:?} {unusable} {unusable:?} {leftover} {leftover:?}");
    assert!(!shown.contains("canary"), "{shown}");
}
