//! The way to a provider and the callback from it.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

use super::*;
use crate::{crypto::digest::sha256, domain::connector::Pkce};

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

fn build(
    connector: &Connector,
    scopes: &str,
    actor_name: Option<&str>,
) -> (String, BTreeMap<String, String>) {
    let verifier = CodeVerifier::new(VERIFIER.to_owned());
    let url = authorize_url(
        connector,
        &Authorization {
            client_id: "client 1",
            redirect_uri: "https://postern.example/callback/abc",
            state: "st&te",
            verifier: &verifier,
            scopes: &ScopeSet::parse(scopes, ' ').unwrap(),
            actor: actor(connector, actor_name).unwrap(),
        },
    )
    .unwrap();
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let map: BTreeMap<String, String> = pairs.iter().cloned().collect();
    assert_eq!(map.len(), pairs.len(), "a parameter is sent twice: {url}");
    (url.as_str().split('?').next().unwrap().to_owned(), map)
}

#[test]
fn a_standard_request_has_pkce_state_and_the_exact_redirect_uri() {
    let (base, pairs) = build(&connector("acme-mail"), "mail.read mail.send", None);
    assert_eq!(base, "http://127.0.0.1:4701/authorize");
    // RFC 7636 appendix B.
    assert_eq!(
        pairs["code_challenge"],
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    );
    assert_eq!(
        pairs["code_challenge"],
        BASE64_URL_SAFE_NO_PAD.encode(sha256(VERIFIER.as_bytes()))
    );
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "client 1"),
        ("state", "st&te"),
        ("redirect_uri", "https://postern.example/callback/abc"),
        ("scope", "mail.read mail.send"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(pairs[name], value, "{name}");
    }
    assert_eq!(pairs.len(), 7);
}

#[test]
fn google_is_asked_for_offline_access_and_the_account() {
    let (_, pairs) = build(
        &connector("gmail"),
        "https://www.googleapis.com/auth/gmail.readonly",
        None,
    );
    assert_eq!(
        (pairs["access_type"].as_str(), pairs["prompt"].as_str()),
        ("offline", "consent")
    );
    assert!(pairs["scope"].contains("openid") && pairs["scope"].contains("gmail.readonly"));
    assert!(!pairs.contains_key("include_granted_scopes"));
}

#[test]
fn slack_is_asked_for_one_principal_with_commas_and_without_pkce() {
    let slack = connector("slack");
    let (_, user) = build(&slack, "chat:write users:read", None);
    assert_eq!(user["user_scope"], "chat:write,users:read");
    assert!(!user.contains_key("scope") && !user.contains_key("code_challenge"));
    let (_, bot) = build(&slack, "chat:write users:read", Some("bot"));
    assert_eq!(bot["scope"], "chat:write,users:read");
    assert!(!bot.contains_key("user_scope"));
}

#[test]
fn other_names_for_the_client_id_and_scope_are_a_matter_of_the_file() {
    let mut odd = (*connector("acme-mail")).clone();
    odd.client.id_param = "client_key".to_owned();
    odd.authorize.scope_param = "permissions".to_owned();
    odd.authorize.scope_separator = '+';
    let (_, pairs) = build(&odd, "a b", None);
    assert_eq!(
        (pairs["client_key"].as_str(), pairs["permissions"].as_str()),
        ("client 1", "a+b")
    );
    assert!(!pairs.contains_key("client_id") && !pairs.contains_key("scope"));
}

#[test]
fn a_weak_verifier_makes_no_url() {
    let acme = connector("acme-mail");
    for text in [
        "",
        "short",
        &"a".repeat(42),
        &"a".repeat(129),
        &format!("{} ", "a".repeat(43)),
    ] {
        let verifier = CodeVerifier::new(text.to_owned());
        let outcome = authorize_url(
            &acme,
            &Authorization {
                client_id: "c",
                redirect_uri: "https://postern.example/callback/x",
                state: "s",
                verifier: &verifier,
                scopes: &ScopeSet::default(),
                actor: None,
            },
        );
        assert_eq!(outcome.unwrap_err(), AuthorizeError::Unusable, "{text}");
    }
}

#[test]
fn unknown_actors_are_refused() {
    assert_eq!(
        actor(&connector("slack"), Some("admin")),
        Err(AuthorizeError::UnknownActor)
    );
    assert_eq!(
        actor(&connector("gmail"), Some("user")),
        Err(AuthorizeError::UnknownActor)
    );
    assert_eq!(actor(&connector("gmail"), None), Ok(None));
}

#[test]
fn the_issuer_of_a_callback_is_compared_as_it_stands() {
    let acme = connector("acme-mail");
    assert_eq!(check_issuer(&acme, Some(ORIGIN)), Ok(()));
    for iss in [
        None,
        Some(""),
        Some("http://127.0.0.1:4701/"),
        Some("https://evil.example"),
    ] {
        assert_eq!(
            check_issuer(&acme, iss),
            Err(AuthorizeError::WrongIssuer),
            "{iss:?}"
        );
    }
    // Google need not send it, but if it does it must be Google's.
    let gmail = connector("gmail");
    assert_eq!(check_issuer(&gmail, None), Ok(()));
    assert_eq!(
        check_issuer(&gmail, Some("https://evil.example")),
        Err(AuthorizeError::WrongIssuer)
    );
    // Slack's file names none: an answer that carries one cannot be believed (RFC 9207 §2.4).
    assert_eq!(check_issuer(&connector("slack"), None), Ok(()));
    assert_eq!(
        check_issuer(&connector("slack"), Some("https://slack.com")),
        Err(AuthorizeError::WrongIssuer)
    );
}

#[test]
fn pkce_is_left_out_only_where_the_file_says_that_it_does_harm() {
    for id in ["acme-mail", "gmail", "github"] {
        assert!(uses_pkce(&connector(id)), "{id}");
    }
    assert_eq!(connector("slack").client.pkce, Pkce::Refuse);
}
