//! A registered engine: its allow stands in for the organisation's permit, within its ceiling, and for nothing else.

mod ending;
mod engine;
mod registering;

use postern::{
    crypto::{digest::base64url_decode, jose},
    domain::{GrantId, connector::Category},
};
use serde_json::{Value, json};

use crate::harness::{Answer, ISSUER, World};

use engine::{ENGINE, Key, engine};

/// No permit at all: only an engine can allow anything.
const NO_PERMIT: &str = r#"
@id("recipients-inside-company")
@reason("recipient_outside_company")
forbid (principal, action == Action::"acme-mail:messages.send", resource)
unless { resource.owner has domain && [resource.owner.domain].containsAll(context.args.to.domains) };
"#;

/// A deployment whose only way to a permit is this engine.
async fn world_with(key: &Key, connectors: &[&str], tools: &[&str]) -> (World, GrantId) {
    let world = World::with_policies(NO_PERMIT, postern::policy::demo::AGENT).await;
    let grant = world
        .connect(
            world.ada,
            &[Category::Read, Category::Write, Category::Destructive],
        )
        .await;
    world
        .apply(&json!({"engine": [engine("House", key, "house-1", connectors, tools)]}))
        .await;
    (world, grant)
}

fn list(grant: GrantId) -> Value {
    json!({"grant": grant, "tool": "messages.list", "args": {"limit": 3}})
}

fn send(grant: GrantId, to: &str) -> Value {
    json!({"grant": grant, "tool": "messages.send", "args": {"to": [to], "subject": "s", "body": "b"}})
}

/// The claims of an allow for this request, made as an engine makes them: from `/v1/actions`.
async fn allow(world: &World, request: &Value, jti: &str) -> Value {
    let described = world.api().post(&world.as_agent(), "/v1/actions", request).await;
    assert_eq!(described.status, 200, "{}", described.text());
    let described = described.json();
    let action = &described["action"];
    let now = world.deps.clock.now().unix_seconds();
    json!({
        "iss": ENGINE, "aud": format!("{ISSUER}/orgs/{}", world.org), "iat": now, "exp": now + 60, "jti": jti, "ver": 1,
        "org": action["org"], "sub": action["user"], "act": {"sub": action["agent"]}, "grant": action["grant"],
        "tool": action["tool"], "action_hash": described["action_hash"], "outcome": "allow",
        "policy": {"id": "house", "version": "7", "digest": format!("sha256:{}", "0".repeat(64))},
    })
}

async fn present(world: &World, request: &Value, jws: String) -> Answer {
    let mut body = request.clone();
    body["decision"] = json!(jws);
    world.api().post(&world.as_agent(), "/v1/vend", &body).await
}

fn rejected(answer: &Answer) -> String {
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "decision_rejected"),
        "{}",
        answer.text()
    );
    answer.json()["decision_error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_engines_allow_stands_in_for_the_permit_of_the_organisation() {
    for key in [Key::ed25519(7), Key::p256(7)] {
        let (world, grant) = world_with(&key, &["acme-mail"], &["*"]).await;
        let request = list(grant);
        let without = world.api().post(&world.as_agent(), "/v1/vend", &request).await;
        assert_eq!(without.status, 403, "{}", without.text());
        let claims = allow(&world, &request, "one").await;
        let answer = present(&world, &request, key.sign(&claims)).await;
        assert_eq!(answer.status, 200, "{}: {}", key.alg(), answer.text());
    }
}

#[tokio::test]
async fn the_entry_of_such_a_release_names_the_engine_and_its_decision() {
    let key = Key::ed25519(7);
    let (world, grant) = world_with(&key, &["acme-mail"], &["*"]).await;
    let request = list(grant);
    let claims = allow(&world, &request, "evidence-4711").await;
    let answer = present(&world, &request, key.sign(&claims)).await.json();
    let entries = world.entries().await;
    let entry = entries
        .iter()
        .find(|entry| json!(entry.id) == answer["entry_id"])
        .unwrap();
    let decision = entry.draft.decision.as_ref().unwrap();
    assert_eq!(
        (decision.iss.as_str(), decision.jti.as_str()),
        (ENGINE, "evidence-4711")
    );
}

#[tokio::test]
async fn a_forbid_of_the_organisation_denies_what_an_engine_allows() {
    let key = Key::ed25519(7);
    let (world, grant) = world_with(&key, &["acme-mail"], &["*"]).await;
    let request = send(grant, "eve@else.example");
    let claims = allow(&world, &request, "one").await;
    let answer = present(&world, &request, key.sign(&claims)).await;
    assert_eq!(
        (answer.status, answer.json()["reason"].as_str().unwrap()),
        (403, "recipient_outside_company")
    );
}

#[tokio::test]
async fn what_the_person_did_not_delegate_is_denied_although_an_engine_allows_it() {
    let key = Key::ed25519(7);
    let world = World::with_policies(NO_PERMIT, postern::policy::demo::AGENT).await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    world
        .apply(&json!({"engine": [engine("House", &key, "house-1", &["acme-mail"], &["*"])]}))
        .await;
    let request = send(grant, "ben@acme.example");
    let claims = allow(&world, &request, "one").await;
    let answer = present(&world, &request, key.sign(&claims)).await;
    assert_eq!(
        (answer.status, answer.json()["reason"].as_str().unwrap()),
        (403, "not_delegated")
    );
}

#[tokio::test]
async fn what_the_agent_is_not_capable_of_is_denied_although_an_engine_allows_it() {
    let key = Key::ed25519(7);
    let (world, grant) = world_with(&key, &["acme-mail"], &["*"]).await;
    let delete = json!({"grant": grant, "tool": "messages.delete", "args": {"id": "msg-ada-1"}});
    let mut claims = allow(&world, &list(grant), "one").await;
    claims["tool"] = json!("messages.delete");
    let answer = present(&world, &delete, key.sign(&claims)).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "denied"));
}

#[tokio::test]
async fn a_decision_holds_with_the_context_it_was_made_for_and_with_no_other() {
    let key = Key::ed25519(7);
    let (world, grant) = world_with(&key, &["acme-mail"], &["*"]).await;
    let ticket = json!({"ticket": "T-1", "note": null});
    // RFC 8785 orders members; the digest is of that form, whatever order they came in.
    let digest = |context: &Value| {
        let canonical = serde_jcs::to_string(context).unwrap();
        let sha256 = postern::crypto::digest::sha256(canonical.as_bytes());
        format!("sha256:{}", postern::crypto::digest::hex(&sha256))
    };
    let other = json!({"ticket": "T-2", "note": null});
    let cases = [
        (None, None, true),
        (Some(&ticket), Some(&ticket), true),
        (Some(&ticket), Some(&other), false),
        (Some(&ticket), None, false),
        (None, Some(&ticket), false),
    ];
    for (index, (decided, sent, holds)) in cases.into_iter().enumerate() {
        let mut request = list(grant);
        let mut claims = allow(&world, &request, &format!("context-{index}")).await;
        if let Some(context) = decided {
            claims["context_digest"] = json!(digest(context));
        }
        if let Some(context) = sent {
            request["context"] = context.clone();
        }
        let answer = present(&world, &request, key.sign(&claims)).await;
        if holds {
            assert_eq!(answer.status, 200, "{index}: {}", answer.text());
        } else {
            assert_eq!(rejected(&answer), "wrong_context", "{index}");
        }
    }
    let mut claims = allow(&world, &list(grant), "twisted").await;
    claims["context_digest"] = json!(digest(&other).to_uppercase());
    let mut request = list(grant);
    request["context"] = other;
    let answer = present(&world, &request, key.sign(&claims)).await;
    assert_eq!(rejected(&answer), "wrong_context", "a digest has one spelling");
}

#[tokio::test]
async fn a_decision_of_posterns_own_holds_with_its_context_only() {
    let (world, grant) = World::connected().await;
    let ticket = json!({"ticket": "T-1"});
    let with = |context: Option<&Value>| {
        let mut request = list(grant);
        if let Some(context) = context {
            request["context"] = context.clone();
        }
        request
    };
    for (decided, sent, holds) in [
        (None, None, true),
        (Some(&ticket), Some(&ticket), true),
        (Some(&ticket), None, false),
        (None, Some(&ticket), false),
    ] {
        let decision = world
            .api()
            .post(&world.as_agent(), "/v1/decisions", &with(decided))
            .await;
        let jws = decision.json()["decision"].as_str().unwrap().to_owned();
        let answer = present(&world, &with(sent), jws).await;
        if holds {
            assert_eq!(answer.status, 200, "{}", answer.text());
        } else {
            assert_eq!(rejected(&answer), "wrong_context", "{decided:?} {sent:?}");
        }
    }
}

#[tokio::test]
async fn an_engine_decides_nothing_outside_its_ceiling() {
    let key = Key::ed25519(7);
    for (connectors, tools) in [(&["acme-mail"][..], &["messages.get"][..]), (&["slack"], &["*"])] {
        let (world, grant) = world_with(&key, connectors, tools).await;
        let request = list(grant);
        let claims = allow(&world, &request, "one").await;
        let answer = present(&world, &request, key.sign(&claims)).await;
        assert_eq!(rejected(&answer), "outside_ceiling", "{connectors:?} {tools:?}");
    }
}

#[tokio::test]
async fn a_decision_of_an_engine_releases_once() {
    let key = Key::p256(7);
    let (world, grant) = world_with(&key, &["acme-mail"], &["*"]).await;
    let request = list(grant);
    let jws = key.sign(&allow(&world, &request, "one").await);
    let first = present(&world, &request, jws.clone()).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let again = present(&world, &request, jws).await;
    assert_eq!((again.status, again.code().as_str()), (409, "decision_spent"));
    assert_eq!(again.json()["entry_id"], first.json()["entry_id"]);
}

#[tokio::test]
async fn another_signature_over_the_same_decision_releases_nothing_more() {
    let key = Key::ed25519(7);
    let (world, grant) = world_with(&key, &["acme-mail"], &["*"]).await;
    let request = list(grant);
    let mut claims = allow(&world, &request, "one").await;
    assert_eq!(present(&world, &request, key.sign(&claims)).await.status, 200);
    claims["exp"] = json!(claims["exp"].as_i64().unwrap() - 1);
    let again = present(&world, &request, key.sign(&claims)).await;
    assert_eq!((again.status, again.code().as_str()), (409, "decision_spent"));
}

#[tokio::test]
async fn the_constraints_of_an_engine_only_narrow() {
    let key = Key::ed25519(7);
    let (world, grant) = world_with(&key, &["acme-mail"], &["*"]).await;
    let request = list(grant);
    for (modes, status) in [
        (json!(["execute"]), 200),
        (json!(["token"]), 422),
        (json!([]), 422),
    ] {
        let mut claims = allow(&world, &request, &modes.to_string()).await;
        claims["constraints"] = json!({"modes": modes});
        let mut body = request.clone();
        body["mode"] = json!("execute");
        let answer = present(&world, &body, key.sign(&claims)).await;
        assert_eq!(answer.status, status, "{modes}: {}", answer.text());
    }
}

#[tokio::test]
async fn the_scopes_of_an_engine_narrow_a_call_made_by_postern_too() {
    let key = Key::ed25519(7);
    let (world, grant) = world_with(&key, &["acme-mail"], &["*"]).await;
    let request = list(grant);
    for (scopes, status) in [
        (json!(["mail.read", "mail.send"]), 200),
        (json!(["mail.send"]), 403),
        (json!([]), 403),
    ] {
        let mut claims = allow(&world, &request, &scopes.to_string()).await;
        claims["constraints"] = json!({"scopes": scopes});
        let before = world.seen("api").await.len();
        let answer = present(&world, &request, key.sign(&claims)).await;
        assert_eq!(answer.status, status, "{scopes}: {}", answer.text());
        if status == 403 {
            assert_eq!(rejected(&answer), "unmet_constraint", "{scopes}");
            assert_eq!(world.seen("api").await.len(), before, "{scopes}");
        }
    }
}

#[tokio::test]
async fn an_engine_cannot_open_a_mode_that_person_and_agent_do_not_give() {
    let key = Key::ed25519(7);
    let (world, grant) = world_with(&key, &["acme-mail"], &["*"]).await;
    let mut body = send(grant, "ben@acme.example");
    body["mode"] = json!("token");
    let mut claims = allow(&world, &body, "one").await;
    claims["constraints"] = json!({"modes": ["execute", "handle", "token", "raw"]});
    let answer = present(&world, &body, key.sign(&claims)).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (422, "mode_unavailable"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn a_deny_or_an_escalation_of_an_engine_releases_nothing() {
    let key = Key::ed25519(7);
    let (world, grant) = world_with(&key, &["acme-mail"], &["*"]).await;
    let request = list(grant);
    for outcome in ["deny", "escalate"] {
        let mut claims = allow(&world, &request, outcome).await;
        claims["outcome"] = json!(outcome);
        let answer = present(&world, &request, key.sign(&claims)).await;
        assert_eq!(rejected(&answer), "not_allow", "{outcome}");
    }
}
