//! The real router, asked as programs and browsers ask it.

use std::sync::Arc;

use axum::{Router, body::Body};
use http::{HeaderMap, Request, header};
use http_body_util::BodyExt as _;
use postern::{
    crypto::{OsRandomness, lookup::show_api_key},
    domain::{OrgId, UserId},
    flows::{Deps, apply, found, login},
    http::{
        cookie,
        guard::{self, RequestIds},
        router,
        security::Site,
        server::Limits,
    },
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{ISSUER, World};

/// The API of a deployment, without the listener.
pub struct Api(Router);

/// How a request proves who sends it.
#[derive(Debug, Clone)]
pub enum Proof {
    Nothing,
    Key(String),
    Session(String),
    /// This `Authorization` header, whatever it is.
    Authorization(String),
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The code of a problem; empty for other answers.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Everything a caller can compare: all but the id of the request.
    pub fn shown(mut self) -> Self {
        assert!(self.headers.remove(guard::X_REQUEST_ID).is_some());
        self
    }
}

impl Api {
    /// As `server::serve` would serve it.
    pub fn of(deps: &Arc<Deps>) -> Self {
        let site = Site::new(&ISSUER.parse().unwrap()).unwrap();
        let ids = RequestIds::new(&OsRandomness::new()).unwrap();
        let app = router::app(Arc::clone(deps), site);
        Self(guard::protect(app, &Limits::default(), ids))
    }

    pub async fn get(&self, proof: &Proof, path: &str) -> Answer {
        self.call(proof, "GET", path, None).await
    }

    pub async fn post(&self, proof: &Proof, path: &str, body: &Value) -> Answer {
        self.call(proof, "POST", path, Some(body)).await
    }

    pub async fn call(&self, proof: &Proof, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let bytes = body.map(|body| body.to_string().into_bytes());
        let kind = bytes.is_some().then_some("application/json");
        self.raw(proof, method, path, kind, bytes.unwrap_or_default())
            .await
    }

    pub async fn raw(
        &self,
        proof: &Proof,
        method: &str,
        path: &str,
        content_type: Option<&str>,
        body: Vec<u8>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, ISSUER.trim_start_matches("http://"));
        if let Some(kind) = content_type {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        request = match proof {
            Proof::Nothing => request,
            Proof::Key(key) => request.header(header::AUTHORIZATION, format!("Bearer {key}")),
            Proof::Authorization(value) => request.header(header::AUTHORIZATION, value),
            Proof::Session(session) => request
                .header(
                    header::COOKIE,
                    format!("{}={session}", cookie::SESSION.name(false)),
                )
                .header(header::ORIGIN, ISSUER)
                .header("sec-fetch-site", "same-origin"),
        };
        self.ask(request.body(Body::from(body)).unwrap()).await
    }

    /// A page, as a browser navigates to it with the session and one more cookie.
    pub async fn browse(&self, session: &Proof, cookie: &str, path: &str) -> Answer {
        let Proof::Session(session) = session else {
            panic!("a browser has a session, no key")
        };
        let request = Request::builder()
            .uri(path)
            .header(header::HOST, ISSUER.trim_start_matches("http://"))
            .header(
                header::COOKIE,
                format!("{}={session}; {cookie}", cookie::SESSION.name(false)),
            );
        self.ask(request.body(Body::empty()).unwrap()).await
    }

    /// A browser that carries the session, sent by a page of somebody else.
    pub async fn cross_site(
        &self,
        session: &str,
        method: &str,
        path: &str,
        body: Option<(&str, String)>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, ISSUER.trim_start_matches("http://"))
            .header(
                header::COOKIE,
                format!("{}={session}", cookie::SESSION.name(false)),
            )
            .header(header::ORIGIN, "https://evil.example")
            .header("sec-fetch-site", "cross-site");
        let body = body.map_or_else(Body::empty, |(kind, body)| {
            if let Some(headers) = request.headers_mut() {
                headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
            }
            Body::from(body)
        });
        self.ask(request.body(body).unwrap()).await
    }

    async fn ask(&self, request: Request<Body>) -> Answer {
        let response = self.0.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.into_body().collect().await.unwrap().to_bytes().to_vec();
        Answer {
            status,
            headers,
            body,
        }
    }
}

/// One principal of each kind.
#[derive(Debug, Clone)]
pub struct Member {
    pub name: &'static str,
    /// What the API document may call it.
    pub is: &'static [&'static str],
    pub proof: Proof,
}

fn members(admin_key: &str, admin: Proof, member: Proof, service_key: &str, agent_key: &str) -> Vec<Member> {
    let one = |name, is, proof| Member { name, is, proof };
    let key = |text: &str| Proof::Key(text.to_owned());
    vec![
        one("admin key", &["admin"], key(admin_key)),
        one("admin session", &["admin", "user"], admin),
        one("member session", &["user"], member),
        one("service", &["service"], key(service_key)),
        one("agent", &["agent"], key(agent_key)),
    ]
}

/// A browser session of a person, as its cookie's value.
pub async fn log_in(deps: &Deps, org: OrgId, user: UserId) -> Proof {
    let link = login::make_link(deps, org, user, "test".to_owned())
        .await
        .unwrap();
    let token = postern::crypto::random::parse_link_token(link.url.rsplit('/').next().unwrap()).unwrap();
    let session = login::enter(deps, &token).await.unwrap();
    Proof::Session(postern::crypto::lookup::show_link(&session))
}

impl World {
    pub fn api(&self) -> Api {
        Api::of(&self.deps)
    }

    pub fn as_agent(&self) -> Proof {
        Proof::Key(self.agent_key.clone())
    }

    pub fn as_admin(&self) -> Proof {
        Proof::Key(self.admin_key.clone())
    }

    pub fn as_service(&self) -> Proof {
        Proof::Key(self.service_key.clone())
    }

    /// One principal of each kind of the demo organisation.
    pub async fn members(&self) -> Vec<Member> {
        let ada = log_in(&self.deps, self.org, self.ada).await;
        let ben = log_in(&self.deps, self.org, self.ben).await;
        members(&self.admin_key, ada, ben, &self.service_key, &self.agent_key)
    }

    /// One principal of each kind of another organisation on the same deployment.
    pub async fn neighbours(&self) -> Vec<Member> {
        let founded = found::found(&self.deps, "Other", "eve@other.example")
            .await
            .unwrap();
        let document = toml::to_string(&json!({
            "agent": [{"name": "Mail Assistant"}],
            "person": [{"email": "mallory@other.example", "role": "member"}],
            "service": [{"name": "Host", "return_urls": ["https://host.example/done"]}],
            "connector": {"acme-mail": {"client_id": postern::dev::acme_mail::DEMO_CLIENT_ID}},
            "policies": {"org": [postern::policy::demo::ORG], "agent": [postern::policy::demo::AGENT]},
        }))
        .unwrap();
        let applied = apply::apply(&self.deps, founded.org, "test".to_owned(), &document)
            .await
            .unwrap();
        let key = |kind: &str| show_api_key(&applied.keys.iter().find(|key| key.kind == kind).unwrap().key);
        let mallory = self
            .deps
            .store
            .read(founded.org)
            .await
            .unwrap()
            .user_by_email(founded.org, "mallory@other.example")
            .await
            .unwrap()
            .unwrap();
        let eve = log_in(&self.deps, founded.org, founded.admin).await;
        let mallory = log_in(&self.deps, founded.org, mallory.id).await;
        members(
            &show_api_key(&founded.admin_key),
            eve,
            mallory,
            &key("service"),
            &key("agent"),
        )
    }

    /// Applies more of a document, as the admin does; the answer holds the new keys.
    pub async fn apply(&self, document: &Value) -> Value {
        let body = json!({"toml": toml::to_string(document).unwrap()});
        let answer = self.api().post(&self.as_admin(), "/v1/apply", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }
}
