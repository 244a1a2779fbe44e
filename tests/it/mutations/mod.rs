//! I1: what is released is what was decided. Every member of a request, every claim of a decision and every member of
//! its header is changed in many ways, and nothing leaves.

mod engine;
mod own;
mod request;

use ed25519_dalek::{Signer as _, SigningKey};
use postern::{
    crypto::{
        digest::{base64url, hex, sha256},
        lookup::show_api_key,
    },
    domain::{GrantId, ScopeSet, connector::Category},
    flows::{
        apply,
        connect::{
            begin,
            confirm::{self, Confirmed},
        },
        found,
    },
};
use serde_json::{Value, json};

use crate::harness::{ISSUER, Journey, Proof, World};

/// No permit at all: only an engine can allow anything.
const NO_PERMIT: &str = "";
const ENGINE: &str = "https://engine.example";
/// How many are sent before Acme Mail's log is looked at.
const AT_ONCE: usize = 20;
const JSON: Option<&str> = Some("application/json");

/// A request that an engine's decision lets through as it is.
struct Honest {
    world: World,
    key: SigningKey,
    grant: GrantId,
    request: Value,
    claims: Value,
}

/// Ids that exist, of somebody else.
struct Foreign {
    org: String,
    user: String,
    agent: String,
    grant: String,
    agent_key: String,
}

/// One request that differs from the honest one in one place.
struct Mutation {
    what: String,
    proof: Proof,
    content_type: Option<&'static str>,
    body: Vec<u8>,
}

impl Honest {
    async fn new() -> Self {
        let world = World::with_policies(NO_PERMIT, postern::policy::demo::AGENT).await;
        let grant = world
            .connect(
                world.ada,
                &[Category::Read, Category::Write, Category::Destructive],
            )
            .await;
        let key = SigningKey::from_bytes(&[7; 32]);
        let jwk = json!({
            "kty": "OKP", "crv": "Ed25519", "x": base64url(key.verifying_key().as_bytes()), "kid": "house-1",
        });
        let engine = json!({
            "name": "House", "iss": ENGINE, "alg": "EdDSA", "public_key_jwk": jwk, "connectors": ["acme-mail"],
            "tools": ["*"],
        });
        world.apply(&json!({"engine": [engine]})).await;
        let request = json!({
            "grant": grant, "tool": "messages.list", "args": {"q": "Lunch", "limit": 3}, "mode": "execute",
            "ttl_s": 60, "context": {"ticket": "T-1"}, "run": "run-1",
        });
        let described = world
            .api()
            .post(&world.as_agent(), "/v1/actions", &request)
            .await
            .json();
        let action = &described["action"];
        let now = world.deps.clock.now().unix_seconds();
        let context = serde_jcs::to_string(&request["context"]).unwrap();
        let context = format!("sha256:{}", hex(&sha256(context.as_bytes())));
        let claims = json!({
            "iss": ENGINE, "aud": format!("{ISSUER}/orgs/{}", world.org), "iat": now, "exp": now + 60, "jti": "one",
            "ver": 1, "org": action["org"], "sub": action["user"], "act": {"sub": action["agent"]},
            "grant": action["grant"], "tool": action["tool"], "action_hash": described["action_hash"],
            "outcome": "allow", "context_digest": context,
            "constraints": {"modes": ["execute"], "scopes": ["mail.read"], "max_ttl_s": 60},
            "policy": {"id": "house", "version": "7", "digest": format!("sha256:{}", "0".repeat(64))},
        });
        Self {
            world,
            key,
            grant,
            request,
            claims,
        }
    }

    fn header() -> Value {
        json!({"typ": "action-decision+jwt", "alg": "EdDSA", "kid": "house-1"})
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    fn sign_text(&self, header: &str, claims: &str) -> String {
        let input = format!(
            "{}.{}",
            base64url(header.as_bytes()),
            base64url(claims.as_bytes())
        );
        let signature = self.key.sign(input.as_bytes()).to_bytes();
        format!("{input}.{}", base64url(&signature))
    }

    /// The honest request with this decision.
    fn with(&self, decision: &str) -> Value {
        let mut body = self.request.clone();
        body["decision"] = json!(decision);
        body
    }

    fn mutation(&self, what: String, body: &Value) -> Mutation {
        Mutation {
            what,
            proof: self.world.as_agent(),
            content_type: JSON,
            body: body.to_string().into_bytes(),
        }
    }

    async fn is_released(&self, body: &Value) {
        let answer = self
            .world
            .api()
            .post(&self.world.as_agent(), "/v1/vend", body)
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Every mutation is refused and leaves no trace at Acme Mail, while the same thing unchanged is released before and
    /// after: with another decision, and with the very one that the mutations carried.
    async fn release_nothing_but_what_is_unchanged(&self, mutations: &[Mutation], codes: &[&str]) {
        let mut other = self.claims.clone();
        other["jti"] = json!("before");
        self.is_released(&self.with(&self.sign(&Self::header(), &other)))
            .await;
        release_nothing(&self.world, mutations, codes).await;
        self.is_released(&self.with(&self.sign(&Self::header(), &self.claims)))
            .await;
    }
}

/// Every mutation is refused, with one of these codes and without a token, and leaves no trace at Acme Mail.
async fn release_nothing(world: &World, mutations: &[Mutation], codes: &[&str]) {
    let api = world.api();
    let before = seen(world).await;
    let mut released = Vec::new();
    for some in mutations.chunks(AT_ONCE) {
        for mutation in some {
            let body = mutation.body.clone();
            let answer = api
                .raw(&mutation.proof, "POST", "/v1/vend", mutation.content_type, body)
                .await;
            let known = codes.contains(&answer.code().as_str());
            if answer.status < 400 || !known || answer.text().contains("acme_") {
                released.push(format!("{}: {} {}", mutation.what, answer.status, answer.text()));
            }
        }
        assert!(released.is_empty(), "{released:#?}");
        let what: Vec<&str> = some.iter().map(|mutation| mutation.what.as_str()).collect();
        assert_eq!(seen(world).await, before, "one of {what:#?}");
    }
}

/// How many requests Acme Mail saw: to its API and for tokens.
async fn seen(world: &World) -> (usize, usize) {
    (world.seen("api").await.len(), world.seen("token").await.len())
}

/// Another organisation of the same deployment, with a grant of its own.
async fn foreign(world: &World) -> Foreign {
    let founded = found::found(&world.deps, "Other", "eve@other.example")
        .await
        .unwrap();
    let document = toml::to_string(&json!({
        "agent": [{"name": "Mail Assistant"}],
        "connector": {"acme-mail": {"client_id": postern::dev::acme_mail::DEMO_CLIENT_ID}},
    }))
    .unwrap();
    let applied = apply::apply(&world.deps, founded.org, "test".to_owned(), &document)
        .await
        .unwrap();
    let ask = begin::Ask {
        scopes: Some(ScopeSet::parse("mail.read", ' ').unwrap()),
        ..begin::Ask::new(founded.admin, world.connector.clone())
    };
    let journey = Journey::begin_in(&world.deps, founded.org, ask).await;
    let answer = journey.consent(world, "ben@acme.example", false).await;
    journey.come_back(world, answer).await.unwrap();
    let confirmed = confirm::confirm(
        &world.deps,
        &journey.link,
        Some(&journey.cookie),
        journey.visitor,
        Vec::new(),
    )
    .await
    .unwrap();
    let Confirmed::Connected(grant) = confirmed else {
        panic!("not connected")
    };
    let admin = Proof::Key(show_api_key(&founded.admin_key));
    let agents = world.api().get(&admin, "/v1/agents").await.json();
    Foreign {
        org: founded.org.to_string(),
        user: founded.admin.to_string(),
        agent: agents["items"][0]["id"].as_str().unwrap().to_owned(),
        grant: grant.to_string(),
        agent_key: show_api_key(&applied.keys[0].key),
    }
}

/// The document with another value at this place, or without one.
fn changed(document: &Value, pointer: &str, value: Option<Value>) -> Value {
    let mut document = document.clone();
    let (parent, member) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => parent.insert(member.to_owned(), value),
        None => parent.remove(member),
    };
    document
}

/// What any value can be turned into: another type, and for text and numbers another value that looks like it.
fn others(value: &Value) -> Vec<Value> {
    let mut others = vec![json!(true), json!([value]), json!({"is": value})];
    match value {
        Value::String(text) => {
            let other_case = if text.to_uppercase() == *text {
                text.to_lowercase()
            } else {
                text.to_uppercase()
            };
            let mut shorter = text.clone();
            shorter.pop();
            others.extend([
                json!(7),
                json!(""),
                json!(other_case),
                json!(shorter),
                json!(format!("{text}x")),
                json!(format!("{text} ")),
                json!(format!(" {text}")),
                json!(format!("{text}\n")),
                json!(format!("{text}\0")),
                json!(format!("{text}{}", "x".repeat(600))),
            ]);
        }
        Value::Number(number) => {
            let number = number.as_i64().unwrap();
            others.extend([
                json!(number.to_string()),
                json!(""),
                json!(f64::from(i32::try_from(number).unwrap()) + 0.5),
                json!(-number),
                json!(1_u64 << 53),
            ]);
        }
        _ => others.extend([json!(7), json!("text"), json!([])]),
    }
    others
}

/// Each place of a document in every other way, and the ways that are particular to some places.
fn changes(document: &Value, required: &[&str], particular: &[(&str, Vec<Value>)]) -> Vec<(String, Value)> {
    let mut changes = Vec::new();
    let mut change = |pointer: &str, value: Option<Value>| {
        let what = value.as_ref().map_or("missing".to_owned(), Value::to_string);
        let what: String = what.chars().take(80).collect();
        let changed = changed(document, pointer, value);
        // What is empty already cannot be made empty.
        if changed != *document {
            changes.push((format!("{pointer} = {what}"), changed));
        }
    };
    for pointer in required {
        change(pointer, None);
        change(pointer, Some(Value::Null));
        for other in others(document.pointer(pointer).unwrap()) {
            change(pointer, Some(other));
        }
    }
    for (pointer, values) in particular {
        for value in values {
            change(pointer, Some(value.clone()));
        }
    }
    changes
}

/// An id of another kind with the same bytes.
fn as_kind(id: impl ToString, kind: &str) -> Value {
    let id = id.to_string();
    json!(format!("{kind}_{}", id.split_once('_').unwrap().1))
}
