//! What really goes over the wire, seen by a local server that answers as told.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use url::form_urlencoded;

use super::*;
use crate::{
    domain::{
        Time,
        clock::FixedClock,
        connector::{ClientAuth, NarrowHow, ScopeOnRefresh, TokenBody},
    },
    egress::EgressPolicy,
};

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// One request as the server saw it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) line: String,
    pub(super) head: String,
    pub(super) body: String,
}

impl Seen {
    pub(super) fn form(&self, name: &str) -> Option<String> {
        form_urlencoded::parse(self.body.as_bytes())
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.into_owned())
    }
}

pub(super) struct World {
    origin: String,
    egress: Egress,
    clock: FixedClock,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl World {
    pub(super) async fn answering(answers: &[(u16, Value)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let mut answers: VecDeque<_> = answers.iter().cloned().collect();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = Vec::new();
                let mut buffer = [0; 4096];
                loop {
                    let read = stream.read(&mut buffer).await.unwrap();
                    bytes.extend_from_slice(&buffer[..read]);
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else {
                        continue;
                    };
                    let length: usize = head
                        .lines()
                        .find_map(|line| line.strip_prefix("content-length: "))
                        .map_or(0, |length| length.parse().unwrap());
                    if body.len() >= length || read == 0 {
                        let line = head.lines().next().unwrap().to_owned();
                        log.lock().unwrap().push(Seen {
                            line,
                            head: head.to_owned(),
                            body: body.to_owned(),
                        });
                        break;
                    }
                }
                let (status, body) = answers.pop_front().unwrap_or((500, json!({})));
                let body = if body.is_null() {
                    String::new()
                } else {
                    body.to_string()
                };
                let answer = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nretry-after: 7\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let authority = format!("127.0.0.1:{port}");
        let mut policy = EgressPolicy::strict();
        for id in ["acme-mail", "slack", "github", "gmail"] {
            policy = policy.allow(&id.parse().unwrap(), &authority).unwrap();
        }
        Self {
            origin: format!("http://{authority}"),
            egress: Egress::new(policy).unwrap(),
            clock: FixedClock::new(Time::from_unix_seconds(1_800_000_000)),
            seen,
        }
    }

    /// A connector with every endpoint moved to the local server, paths kept.
    pub(super) fn connector(&self, id: &str) -> Connector {
        let mut connector = (*at(&self.origin, id)).clone();
        let moved = |url: &mut String| {
            let path = crate::connectors::template::split_origin(url)
                .unwrap()
                .1
                .to_owned();
            *url = format!("{}{path}", self.origin);
        };
        moved(&mut connector.server.token_url);
        connector.identity.url.as_mut().map(moved);
        connector.revoke.url.as_mut().map(moved);
        connector
    }

    pub(super) fn oauth<'a>(
        &'a self,
        connector: &'a Connector,
        secret: Option<&'a ClientSecret>,
    ) -> OAuth<'a> {
        OAuth::new(
            &self.egress,
            &self.clock,
            connector,
            Client {
                id: "client:1",
                secret,
            },
        )
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

pub(super) fn secret() -> ClientSecret {
    ClientSecret::new("s3cr+t/".to_owned())
}

fn tokens_answer() -> (u16, Value) {
    (
        200,
        json!({"access_token": "at-2", "refresh_token": "rt-2", "token_type": "Bearer", "expires_in": 300, "scope": "mail.read"}),
    )
}

async fn exchange(oauth: OAuth<'_>) -> Result<TokenSet, OAuthError> {
    let code = AuthorizationCode::new("c0de&x".to_owned());
    let verifier = CodeVerifier::new(VERIFIER.to_owned());
    oauth
        .exchange(CodeExchange {
            code: &code,
            verifier: Some(&verifier),
            redirect_uri: "https://postern.example/callback/abc",
            actor: None,
        })
        .await
}

#[tokio::test]
async fn a_code_is_exchanged_with_basic_verifier_and_redirect_uri() {
    let world = World::answering(&[tokens_answer()]).await;
    let acme = world.connector("acme-mail");
    let secret = secret();
    exchange(world.oauth(&acme, Some(&secret))).await.unwrap();
    let seen = world.seen();
    assert_eq!(seen[0].line, "POST /token HTTP/1.1");
    // RFC 6749 §2.3.1: form-encoded, then Basic. base64("client%3A1:s3cr%2Bt%2F")
    assert!(
        seen[0]
            .head
            .contains("authorization: Basic Y2xpZW50JTNBMTpzM2NyJTJCdCUyRg=="),
        "{}",
        seen[0].head
    );
    assert!(seen[0].head.contains("accept: application/json"));
    for (name, value) in [
        ("grant_type", "authorization_code"),
        ("code", "c0de&x"),
        ("code_verifier", VERIFIER),
        ("redirect_uri", "https://postern.example/callback/abc"),
    ] {
        assert_eq!(seen[0].form(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(
        (seen[0].form("client_id"), seen[0].form("client_secret")),
        (None, None)
    );
}

#[tokio::test]
async fn a_public_client_names_itself_in_the_body() {
    let world = World::answering(&[tokens_answer()]).await;
    let acme = world.connector("acme-mail");
    exchange(world.oauth(&acme, None)).await.unwrap();
    let seen = world.seen();
    assert_eq!(seen[0].form("client_id").as_deref(), Some("client:1"));
    assert!(!seen[0].head.contains("authorization"));
}

#[tokio::test]
async fn secrets_go_into_the_body_and_the_body_into_json_where_the_file_says_so() {
    let world = World::answering(&[tokens_answer(), tokens_answer()]).await;
    let mut acme = world.connector("acme-mail");
    let secret = secret();
    acme.client.auth = ClientAuth::Body;
    exchange(world.oauth(&acme, Some(&secret))).await.unwrap();
    acme.client.body = TokenBody::Json;
    acme.client.id_param = "client_key".to_owned();
    acme.client.headers.insert("X-Version".to_owned(), "7".to_owned());
    exchange(world.oauth(&acme, Some(&secret))).await.unwrap();
    let seen = world.seen();
    assert_eq!(seen[0].form("client_secret").as_deref(), Some("s3cr+t/"));
    let body: Value = serde_json::from_str(&seen[1].body).unwrap();
    assert_eq!(body["client_key"], "client:1");
    assert_eq!(body["client_secret"], "s3cr+t/");
    assert_eq!(body["grant_type"], "authorization_code");
    assert!(seen[1].head.contains("content-type: application/json") && seen[1].head.contains("x-version: 7"));
}

#[tokio::test]
async fn without_its_verifier_a_code_is_not_exchanged() {
    let world = World::answering(&[tokens_answer()]).await;
    let acme = world.connector("acme-mail");
    let code = AuthorizationCode::new("c".to_owned());
    let exchange = CodeExchange {
        code: &code,
        verifier: None,
        redirect_uri: "https://postern.example/callback/abc",
        actor: None,
    };
    let error = world.oauth(&acme, None).exchange(exchange).await.unwrap_err();
    assert!(matches!(error, OAuthError::Definition(_)));
    assert!(world.seen().is_empty());
}

#[tokio::test]
async fn a_refresh_never_sends_scope_of_its_own_accord() {
    let world = World::answering(&[tokens_answer()]).await;
    let acme = world.connector("acme-mail");
    let refresh_token = RefreshToken::new("rt-1".to_owned());
    let tokens = world
        .oauth(&acme, None)
        .refresh(&refresh_token, None, None, None)
        .await
        .unwrap();
    assert_eq!(tokens.refresh_token.unwrap().expose_secret(), "rt-2");
    let seen = world.seen();
    assert_eq!(seen[0].form("grant_type").as_deref(), Some("refresh_token"));
    assert_eq!(seen[0].form("refresh_token").as_deref(), Some("rt-1"));
    assert_eq!(seen[0].form("scope"), None);
}

#[tokio::test]
async fn a_refresh_token_that_comes_back_as_it_was_sent_is_no_new_one() {
    for (sent, is_new) in [("rt-1", true), ("rt-2", false)] {
        let (status, mut answer) = tokens_answer();
        answer["token_type"] = json!("mac");
        let world = World::answering(&[(status, answer)]).await;
        let acme = world.connector("acme-mail");
        let refresh_token = RefreshToken::new(sent.to_owned());
        let error = world
            .oauth(&acme, None)
            .refresh(&refresh_token, None, None, None)
            .await
            .unwrap_err();
        // The grant lives: what it will not use is not ended.
        if let OAuthError::Leftover { left, .. } = &error {
            assert!(left.access_token.is_none());
        }
        assert_eq!(matches!(error, OAuthError::Leftover { .. }), is_new, "{error}");
        assert!(error.is_in_doubt(), "{error}");
    }
}

#[tokio::test]
async fn fewer_scopes_are_asked_for_only_where_the_file_says_safe() {
    let world = World::answering(&[tokens_answer()]).await;
    let asked = ScopeSet::parse("mail.read", ' ').unwrap();
    let refresh_token = RefreshToken::new("rt-1".to_owned());
    let acme = world.connector("acme-mail");
    let mut refusing = Vec::new();
    for scope_on_refresh in [
        ScopeOnRefresh::Destructive,
        ScopeOnRefresh::Ignored,
        ScopeOnRefresh::Unknown,
    ] {
        let mut other = acme.clone();
        other.refresh.scope_on_refresh = scope_on_refresh;
        refusing.push(other);
    }
    let mut no_grace = acme.clone();
    no_grace.refresh.old_refresh_valid_s = 59;
    let mut no_way = acme.clone();
    no_way.narrow.how = NarrowHow::None;
    let mut no_proof = acme.clone();
    no_proof.narrow.proof = Proof::None;
    refusing.extend([no_grace, no_way, no_proof]);
    for other in &refusing {
        let outcome = world
            .oauth(other, None)
            .refresh(&refresh_token, Some(&asked), None, None)
            .await;
        assert!(matches!(outcome, Err(OAuthError::Definition(_))));
    }
    assert!(world.seen().is_empty());
    let oauth = world.oauth(&acme, None);
    let tokens = oauth
        .refresh(&refresh_token, Some(&asked), None, None)
        .await
        .unwrap();
    assert_eq!(world.seen()[0].form("scope").as_deref(), Some("mail.read"));
    assert_eq!(oauth.prove_narrowed(&tokens, &asked).await.unwrap(), Some(asked));
}

#[tokio::test]
async fn only_a_returned_scope_within_the_asked_one_proves_narrowing() {
    for (scope, proven) in [
        (json!("mail.read"), true),
        (json!("mail.read mail.send"), false),
        (json!("other"), false),
        (json!(""), false),
        (json!(null), false),
    ] {
        let (status, mut answer) = tokens_answer();
        answer["scope"] = scope.clone();
        let world = World::answering(&[(status, answer)]).await;
        let acme = world.connector("acme-mail");
        let asked = ScopeSet::parse("mail.read", ' ').unwrap();
        let oauth = world.oauth(&acme, None);
        let refresh_token = RefreshToken::new("rt-1".to_owned());
        let tokens = oauth
            .refresh(&refresh_token, Some(&asked), None, None)
            .await
            .unwrap();
        assert_eq!(
            oauth.prove_narrowed(&tokens, &asked).await.unwrap().is_some(),
            proven,
            "{scope}"
        );
    }
}

#[tokio::test]
async fn introspection_proves_by_its_own_scope() {
    for (answer, proven) in [
        (json!({"active": true, "scope": "mail.read"}), true),
        (json!({"active": true, "scope": "mail.read mail.send"}), false),
        (json!({"active": true}), false),
        (json!({"active": false, "scope": "mail.read"}), false),
        (json!({"active": "true", "scope": "mail.read"}), false),
    ] {
        let world = World::answering(&[tokens_answer(), (200, answer.clone())]).await;
        let mut acme = world.connector("acme-mail");
        acme.narrow.proof = Proof::Introspect;
        acme.narrow.introspect_url = Some(format!("{}/introspect", world.origin));
        let secret = secret();
        let oauth = world.oauth(&acme, Some(&secret));
        let asked = ScopeSet::parse("mail.read", ' ').unwrap();
        let refresh_token = RefreshToken::new("rt-1".to_owned());
        let tokens = oauth
            .refresh(&refresh_token, Some(&asked), None, None)
            .await
            .unwrap();
        assert_eq!(
            oauth.prove_narrowed(&tokens, &asked).await.unwrap().is_some(),
            proven,
            "{answer}"
        );
        let seen = world.seen();
        assert_eq!(seen[1].line, "POST /introspect HTTP/1.1");
        assert_eq!(seen[1].form("token").as_deref(), Some("at-2"));
        assert!(seen[1].head.contains("authorization: Basic"));
    }
}

#[tokio::test]
async fn the_account_is_read_with_the_new_token() {
    let world = World::answering(&[
        tokens_answer(),
        (200, json!({"sub": "a-7", "email": "ada@acme.example"})),
    ])
    .await;
    let acme = world.connector("acme-mail");
    let oauth = world.oauth(&acme, None);
    let tokens = exchange(oauth).await.unwrap();
    let account = oauth.identify(&tokens).await.unwrap().unwrap();
    assert_eq!(
        (account.id.as_deref(), account.label.as_str()),
        (Some("a-7"), "ada@acme.example")
    );
    let seen = world.seen();
    assert_eq!(seen[1].line, "GET /userinfo HTTP/1.1");
    assert!(seen[1].head.contains("authorization: Bearer at-2"));
}

#[tokio::test]
async fn an_account_that_the_provider_does_not_tell_is_an_error() {
    for (status, body) in [
        (200, json!({"email": "ada@acme.example"})),
        (401, json!({"error": "invalid_token"})),
        (200, json!(null)),
    ] {
        let world = World::answering(&[tokens_answer(), (status, body.clone())]).await;
        let acme = world.connector("acme-mail");
        let oauth = world.oauth(&acme, None);
        let tokens = exchange(oauth).await.unwrap();
        assert!(oauth.identify(&tokens).await.is_err(), "{body}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_in_doubt_and_an_unreachable_server_is_not() {
    let world = World::answering(&[(200, json!(null)), (500, json!({}))]).await;
    let acme = world.connector("acme-mail");
    let refresh_token = RefreshToken::new("rt".to_owned());
    for _ in 0..2 {
        let error = world
            .oauth(&acme, None)
            .refresh(&refresh_token, None, None, None)
            .await
            .unwrap_err();
        assert!(error.is_in_doubt(), "{error}");
    }
    let throttled = World::answering(&[(429, json!({}))]).await;
    let there = throttled.connector("acme-mail");
    let error = throttled
        .oauth(&there, None)
        .refresh(&refresh_token, None, None, None)
        .await
        .unwrap_err();
    assert!(
        !error.is_in_doubt() && error.class() == ErrorClass::Transient,
        "{error}"
    );
    let mut nowhere = acme.clone();
    nowhere.server.token_url = "http://127.0.0.1:1/token".to_owned();
    let error = world
        .oauth(&nowhere, None)
        .refresh(&refresh_token, None, None, None)
        .await
        .unwrap_err();
    assert!(
        !error.is_in_doubt() && error.class() == ErrorClass::Transient,
        "{error}"
    );
}
