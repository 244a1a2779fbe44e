//! Acme Mail through its router: each promise of the module, one test.

mod admin;
mod api;
mod authorize;
mod revoke;
mod token;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use url::{Url, form_urlencoded};

use super::{AcmeMail, Client, Options, RedirectUri};
use crate::{
    crypto::digest::{base64url, sha256},
    domain::{Randomness, RandomnessUnavailable, Time, clock::FixedClock},
};

const ISSUER: &str = "http://127.0.0.1:4001";
const HOST: &str = "127.0.0.1:4001";
const CALLBACK: &str = "http://127.0.0.1:4000/callback/acme-mail";
const VERIFIER: &str = "a-code-verifier-of-at-least-43-characters-0123456789";
const SECRET: &str = "s3cret/+ with a space";
const ADA: &str = "ada@acme.example";
const BEN: &str = "ben@acme.example";
const ALL: &str = "mail.read mail.send mail.write";

/// Different every time, the same in every run.
#[derive(Debug, Default)]
struct Counted(AtomicU64);

impl Randomness for Counted {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomnessUnavailable> {
        for chunk in bytes.chunks_mut(32) {
            let block = sha256(&self.0.fetch_add(1, Ordering::SeqCst).to_be_bytes());
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
        Ok(())
    }
}

/// A provider, its clock, and a client that knows how to talk to it.
struct World {
    acme: AcmeMail,
    clock: Arc<FixedClock>,
}

/// A whole answer.
#[derive(Debug)]
struct Got {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

/// The two tokens of a token response.
#[derive(Debug, Clone)]
struct Tokens {
    access: String,
    refresh: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn error(&self) -> (u16, String) {
        let code = self.json()["error"].as_str().unwrap_or_default().to_owned();
        (self.status.as_u16(), code)
    }

    /// A parameter of the redirect back to the client.
    fn param(&self, name: &str) -> Option<String> {
        let url = Url::parse(self.header(header::LOCATION)).expect("a redirect");
        url.query_pairs()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    fn tokens(&self) -> Tokens {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        let body = self.json();
        Tokens {
            access: body["access_token"].as_str().unwrap().to_owned(),
            refresh: body["refresh_token"].as_str().unwrap().to_owned(),
        }
    }
}

impl World {
    fn new() -> Self {
        Self::with_secret(Some(SECRET))
    }

    fn with_secret(secret: Option<&str>) -> Self {
        let clock = Arc::new(FixedClock::new(Time::from_unix_seconds(1_790_000_000)));
        let acme = AcmeMail::new(Options {
            clock: clock.clone(),
            random: Arc::new(Counted::default()),
            issuer: ISSUER.to_owned(),
            client: Client {
                id: super::DEMO_CLIENT_ID.to_owned(),
                name: "Postern".to_owned(),
                secret: secret.map(str::to_owned),
                redirect_uris: vec![
                    RedirectUri::Exact(CALLBACK.to_owned()),
                    RedirectUri::OneSegmentUnder("http://127.0.0.1:4000/contexts/".to_owned()),
                ],
            },
        });
        Self { acme, clock }
    }

    fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    async fn send(&self, request: Request<Body>) -> Got {
        let response = self.acme.router().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Got {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    async fn get(&self, path: &str) -> Got {
        self.send(ask(Method::GET, path).body(Body::empty()).unwrap())
            .await
    }

    async fn form(&self, path: &str, pairs: &[(&str, &str)]) -> Got {
        self.send(form(path, pairs)).await
    }

    /// A form to an OAuth endpoint, with `client_secret_basic`.
    async fn as_client(&self, path: &str, pairs: &[(&str, &str)]) -> Got {
        let mut request = form(path, pairs);
        request
            .headers_mut()
            .insert(header::AUTHORIZATION, basic(super::DEMO_CLIENT_ID, SECRET));
        self.send(request).await
    }

    async fn api(&self, method: Method, path: &str, token: &str, body: Option<Value>) -> Got {
        let request = ask(method, path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())));
        self.send(request.unwrap()).await
    }

    async fn admin(&self, path: &str, body: Value) -> Got {
        let request = ask(Method::POST, path).body(Body::from(body.to_string()));
        self.send(request.unwrap()).await
    }

    async fn log(&self) -> Vec<Value> {
        serde_json::from_str(&self.get("/admin/log").await.text).unwrap()
    }

    /// Allows everything asked for on the consent page.
    async fn allow(&self, account: &str, scope: &str) -> Got {
        let boxes: Vec<String> = scope.split(' ').map(|name| format!("scope.{name}")).collect();
        let mut pairs = asking(scope);
        pairs.extend([("account", account), ("decision", "allow")]);
        pairs.extend(boxes.iter().map(|name| (name.as_str(), "on")));
        self.form("/authorize", &pairs).await
    }

    async fn code(&self, account: &str, scope: &str) -> String {
        self.allow(account, scope).await.param("code").expect("a code")
    }

    async fn redeem(&self, code: &str) -> Got {
        self.as_client("/token", &redemption(code)).await
    }

    async fn connect(&self, account: &str, scope: &str) -> Tokens {
        let code = self.code(account, scope).await;
        self.redeem(&code).await.tokens()
    }

    async fn refresh(&self, token: &str) -> Got {
        let pairs = [("grant_type", "refresh_token"), ("refresh_token", token)];
        self.as_client("/token", &pairs).await
    }

    async fn narrow(&self, token: &str, scope: &str) -> Got {
        let pairs = [
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("scope", scope),
        ];
        self.as_client("/token", &pairs).await
    }

    async fn introspect(&self, token: &str) -> Value {
        self.as_client("/introspect", &[("token", token)]).await.json()
    }

    async fn is_active(&self, token: &str) -> bool {
        self.introspect(token).await["active"] == json!(true)
    }

    async fn userinfo(&self, token: &str) -> Got {
        self.api(Method::GET, "/userinfo", token, None).await
    }
}

fn ask(method: Method, path: &str) -> axum::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, HOST)
}

fn encoded(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

fn form(path: &str, pairs: &[(&str, &str)]) -> Request<Body> {
    ask(Method::POST, path)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(encoded(pairs)))
        .unwrap()
}

fn basic(id: &str, secret: &str) -> header::HeaderValue {
    let part = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = STANDARD.encode(format!("{}:{}", part(id), part(secret)));
    format!("Basic {pair}").parse().unwrap()
}

fn challenge() -> &'static str {
    static CHALLENGE: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    CHALLENGE.get_or_init(|| base64url(&sha256(VERIFIER.as_bytes())))
}

/// A good authorization request.
fn asking(scope: &str) -> Vec<(&str, &str)> {
    vec![
        ("response_type", "code"),
        ("client_id", super::DEMO_CLIENT_ID),
        ("redirect_uri", CALLBACK),
        ("scope", scope),
        ("state", "a state & more"),
        ("code_challenge", challenge()),
        ("code_challenge_method", "S256"),
    ]
}

/// A good request without `name`.
fn asking_without(name: &str) -> Vec<(&'static str, &'static str)> {
    asking(ALL).into_iter().filter(|(key, _)| *key != name).collect()
}

/// A good request with `name` changed.
fn asking_with<'a>(name: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut pairs: Vec<(&str, &str)> = asking_without(name);
    pairs.push((name, value));
    pairs
}

fn redemption(code: &str) -> Vec<(&str, &str)> {
    vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", CALLBACK),
        ("code_verifier", VERIFIER),
    ]
}
