//! `/v1/vend`, `/v1/decisions` and `/v1/actions` over HTTP: what comes back, what is refused, and in which order.

use std::time::Duration;

use postern::{
    crypto::{digest, random},
    domain::connector::Category,
    flows::connect::{Visitor, begin},
};
use serde_json::{Value, json};

use crate::harness::{Answer, Journey, Outcome, Proof, World, connect_as, log_in};

pub(super) fn list(grant: impl ToString) -> Value {
    json!({"grant": grant.to_string(), "tool": "messages.list", "args": {"limit": 3}})
}

fn outside(grant: impl ToString) -> Value {
    let args = json!({"to": ["eve@else.example"], "subject": "s", "body": "b"});
    json!({"grant": grant.to_string(), "tool": "messages.send", "args": args})
}

pub(super) fn with(mut body: Value, member: &str, value: Value) -> Value {
    body[member] = value;
    body
}

pub(super) async fn vend(world: &World, body: &Value) -> Answer {
    world.api().post(&world.as_agent(), "/v1/vend", body).await
}

pub(super) fn refused(answer: &Answer) -> (u16, String) {
    (answer.status, answer.code())
}

pub(super) async fn decision(world: &World, body: &Value) -> String {
    let answer = world.api().post(&world.as_agent(), "/v1/decisions", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["decision"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_execution_answers_with_what_the_provider_said() {
    let (world, grant) = World::connected().await;
    let answer = vend(&world, &list(grant)).await;
    let body = answer.json();
    assert_eq!(answer.status, 200, "{body}");
    assert_eq!(
        (body["mode"].as_str(), body["status"].as_u64()),
        (Some("execute"), Some(200))
    );
    assert!(body["body"].is_object() && body["headers"].is_object());
    assert!(body["decision_id"].as_str().unwrap().starts_with("dec_"));
    assert!(body["entry_id"].as_str().unwrap().starts_with("ent_"));
}

#[tokio::test]
async fn a_token_is_answered_narrowed_and_is_never_stored_on_the_way() {
    let (world, grant) = World::connected().await;
    let answer = vend(&world, &with(list(grant), "mode", json!("token"))).await;
    let body = answer.json();
    assert_eq!(answer.status, 200, "{body}");
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(
        (&body["mode"], &body["narrowed"], &body["scopes"]),
        (&json!("token"), &json!("provider"), &json!(["mail.read"]))
    );
    assert!(body["access_token"].as_str().unwrap().starts_with("acme_at_"));
    assert!(body.get("refresh_token").is_none());
}

#[tokio::test]
async fn a_decision_is_given_once_and_releases_once() {
    let (world, grant) = World::connected().await;
    let jws = decision(&world, &list(grant)).await;
    let body = with(list(grant), "decision", json!(jws));
    let first = vend(&world, &body).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let second = vend(&world, &body).await;
    assert_eq!(refused(&second), (409, "decision_spent".to_owned()));
    assert_eq!(second.json()["entry_id"], first.json()["entry_id"]);
}

#[tokio::test]
async fn a_deny_is_an_answer_of_decisions_and_a_refusal_of_vend() {
    let (world, grant) = World::connected().await;
    let asked = world
        .api()
        .post(&world.as_agent(), "/v1/decisions", &outside(grant))
        .await;
    assert_eq!((asked.status, &asked.json()["outcome"]), (200, &json!("deny")));
    assert_eq!(asked.json()["reason"], "recipient_outside_company");
    let vended = vend(&world, &outside(grant)).await;
    assert_eq!(refused(&vended), (403, "denied".to_owned()));
    assert_eq!(vended.json()["reason"], "recipient_outside_company");
    assert!(vended.json()["decision_id"].as_str().unwrap().starts_with("dec_"));
}

#[tokio::test]
async fn describing_an_action_gives_what_its_decision_is_about_and_leaves_no_trace() {
    let (world, grant) = World::connected().await;
    let (entries, calls) = (world.entries().await.len(), world.seen("api").await.len());
    let answer = world
        .api()
        .post(&world.as_agent(), "/v1/actions", &list(grant))
        .await;
    let body = answer.json();
    assert_eq!(answer.status, 200, "{body}");
    let canonical = body["canonical"].as_str().unwrap();
    assert_eq!(
        body["action_hash"],
        digest::base64url(&digest::sha256(canonical.as_bytes()))
    );
    assert_eq!(serde_json::from_str::<Value>(canonical).unwrap(), body["action"]);
    // An implementation that is not ours canonicalises to the same bytes.
    assert_eq!(serde_jcs::to_string(&body["action"]).unwrap(), canonical);
    assert_eq!(
        (world.entries().await.len(), world.seen("api").await.len()),
        (entries, calls)
    );
}

#[tokio::test]
async fn a_body_the_strict_gate_does_not_know_is_refused_without_a_trace() {
    let (world, grant) = World::connected().await;
    let (api, agent) = (world.api(), world.as_agent());
    let args = |args: &str| format!(r#"{{"grant":"{grant}","tool":"messages.list","args":{args}}}"#);
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    let cases: Vec<(&str, String)> = vec![
        ("a member twice", args(r#"{"limit":3,"limit":3}"#)),
        ("a member twice by escapes", args(r#"{"limit":3,"l\u0069mit":3}"#)),
        ("2^53", args(r#"{"limit":9007199254740992}"#)),
        ("-2^53", args(r#"{"limit":-9007199254740992}"#)),
        ("a lone high surrogate", args(r#"{"q":"\ud800"}"#)),
        ("a lone low surrogate", args(r#"{"q":"\udc00x"}"#)),
        ("too deep", args(&format!(r#"{{"q":{deep}}}"#))),
        (
            "too long",
            args(&format!(r#"{{"q":"{}"}}"#, "a".repeat(64 * 1024))),
        ),
        ("two values", format!("{} 1", args("{}"))),
        ("a byte order mark", format!("\u{feff}{}", args("{}"))),
        ("a comment", format!("{}//", args("{}"))),
        ("not a number", args(r#"{"limit":NaN}"#)),
        (
            "an unknown member",
            format!(r#"{{"headers":{{}},{}"#, &args("{}")[1..]),
        ),
        (
            "a fraction of a second",
            format!(r#"{{"ttl_s":1.5,{}"#, &args("{}")[1..]),
        ),
        (
            "seconds with a point",
            format!(r#"{{"ttl_s":60.0,{}"#, &args("{}")[1..]),
        ),
        (
            "seconds with an exponent",
            format!(r#"{{"ttl_s":6e1,{}"#, &args("{}")[1..]),
        ),
        ("no value", String::new()),
    ];
    let entries = world.entries().await.len();
    for path in ["/v1/vend", "/v1/decisions", "/v1/actions"] {
        for (name, body) in &cases {
            let body = body.clone().into_bytes();
            let answer = api
                .raw(&agent, "POST", path, Some("application/json"), body)
                .await;
            assert_eq!(
                refused(&answer),
                (400, "invalid_request".to_owned()),
                "{path}: {name}"
            );
        }
        let bytes = b"{\"grant\":\"\xff\"}".to_vec();
        let answer = api
            .raw(&agent, "POST", path, Some("application/json"), bytes)
            .await;
        assert_eq!(answer.status, 400, "{path}: not UTF-8");
    }
    assert_eq!(world.entries().await.len(), entries);
}

#[tokio::test]
async fn an_integer_written_as_a_fraction_does_not_fit_the_tool() {
    let (world, grant) = World::connected().await;
    for number in ["3.0", "3.5", "3e0"] {
        let body = format!(r#"{{"grant":"{grant}","tool":"messages.list","args":{{"limit":{number}}}}}"#);
        let answer = world
            .api()
            .raw(
                &world.as_agent(),
                "POST",
                "/v1/vend",
                Some("application/json"),
                body.into_bytes(),
            )
            .await;
        assert_eq!(refused(&answer), (400, "invalid_args".to_owned()), "{number}");
        assert_eq!(answer.json()["errors"][0]["pointer"], "/args/limit");
    }
}

#[tokio::test]
async fn another_content_type_is_refused() {
    let (world, grant) = World::connected().await;
    for kind in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("application/json; charset=latin1"),
    ] {
        let body = list(grant).to_string().into_bytes();
        let answer = world
            .api()
            .raw(&world.as_agent(), "POST", "/v1/vend", kind, body)
            .await;
        assert_eq!(refused(&answer), (400, "invalid_request".to_owned()), "{kind:?}");
    }
}

#[tokio::test]
async fn a_person_who_does_not_let_agents_ask_is_never_told_about() {
    let (world, _) = World::connected().await;
    world.raw_sql("UPDATE orgs SET agents_may_ask = 0").await;
    world.deps.facts.forget(world.org);
    let asked = |user: String| json!({"connector": "acme-mail", "user": user, "tool": "messages.list", "args": {"nope": 1}});
    // Each refusal is an entry of its own; nothing else may differ.
    let told = async |user: String| {
        let mut answer = vend(&world, &asked(user)).await.shown();
        assert_eq!(refused(&answer), (403, "denied".to_owned()));
        let mut body = answer.json();
        assert!(body.as_object_mut().unwrap().remove("entry_id").is_some());
        answer.body = body.to_string().into_bytes();
        answer
    };
    let ben = told(world.ben.to_string()).await;
    assert_eq!(ben, told("usr_01h2xcejqtf2nbrexx3vqjhp41".to_owned()).await);
}

#[tokio::test]
async fn the_link_of_connection_required_connects_and_the_same_request_then_succeeds() {
    let world = World::new().await;
    let body = json!({"connector": "acme-mail", "user": world.ben, "tool": "messages.list", "args": {}});
    let answer = vend(&world, &body).await;
    assert_eq!(refused(&answer), (409, "connection_required".to_owned()));
    let connect = answer.json()["connect"].clone();
    assert!(connect["session"].as_str().unwrap().starts_with("con_"));
    let url = connect["url"].as_str().unwrap();
    assert!(
        url.starts_with("http://127.0.0.1:8700/connect/") && !url.contains(&world.ben.to_string()),
        "{url}"
    );
    let link = random::parse_link_token(url.rsplit('/').next().unwrap()).unwrap();
    let visitor = Visitor {
        user: Some((world.org, world.ben)),
    };
    let cookie = begin::go(&world.deps, &link, visitor).await.unwrap();
    let journey = Journey {
        link,
        cookie,
        visitor,
    };
    let consent = journey.consent(&world, "ben@acme.example", false).await;
    journey.finish(&world, consent, &[Category::Read]).await.unwrap();
    let answer = vend(&world, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn the_link_of_connection_required_asks_for_the_scopes_of_the_tool_alone() {
    let world = World::new().await;
    let body = json!({"connector": "acme-mail", "user": world.ben, "tool": "messages.list", "args": {}});
    let answer = vend(&world, &body).await;
    let url = answer.json()["connect"]["url"].as_str().unwrap().to_owned();
    let link = random::parse_link_token(url.rsplit('/').next().unwrap()).unwrap();
    let visitor = Visitor {
        user: Some((world.org, world.ben)),
    };
    begin::go(&world.deps, &link, visitor).await.unwrap();
    let provider = begin::provider_url(&world.deps, &link, visitor).await.unwrap();
    let provider = url::Url::parse(&provider).unwrap();
    let scope = provider.query_pairs().find(|(name, _)| name == "scope").unwrap();
    assert_eq!(scope.1, "mail.read");
}

#[tokio::test]
async fn links_for_one_person_are_limited() {
    let world = World::new().await;
    let body = json!({"connector": "acme-mail", "user": world.ben, "tool": "messages.list", "args": {}});
    for _ in 0..10 {
        assert_eq!(vend(&world, &body).await.status, 409);
    }
    let answer = vend(&world, &body).await;
    assert_eq!(refused(&answer), (429, "rate_limited".to_owned()));
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn several_accounts_are_named_for_the_caller_to_choose() {
    let (world, first) = World::connected().await;
    let Outcome::Granted(second) =
        connect_as(&world, world.ada, "ben@acme.example", &[Category::Read], false).await
    else {
        panic!()
    };
    let body = json!({"connector": "acme-mail", "user": world.ada, "tool": "messages.list", "args": {}});
    let answer = vend(&world, &body).await;
    assert_eq!(refused(&answer), (409, "account_selection_required".to_owned()));
    let named: Vec<Value> = answer.json()["accounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["grant"].clone())
        .collect();
    assert!(named.contains(&json!(first)) && named.contains(&json!(second)));
    let chosen = vend(&world, &with(body, "account", json!("ben@acme.example"))).await;
    assert_eq!(chosen.status, 200, "{}", chosen.text());
}

#[tokio::test]
async fn a_retry_is_told_the_entry_and_the_status_of_the_first_call() {
    let (world, grant) = World::connected().await;
    let body = with(list(grant), "idempotency_key", json!("once"));
    let first = vend(&world, &body).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let retry = vend(&world, &body).await;
    assert_eq!(refused(&retry), (409, "already_released".to_owned()));
    // `status` is RFC 9457's own member and says 409; the first call's is beside it.
    let told = retry.json();
    assert_eq!(
        (&told["status"], &told["released_status"], &told["entry_id"]),
        (&json!(409), &json!(200), &first.json()["entry_id"])
    );
}

#[tokio::test]
async fn an_idempotency_key_belongs_to_the_bytes_of_its_body() {
    let (world, grant) = World::connected().await;
    let body = with(list(grant), "idempotency_key", json!("bytes"));
    let first = vend(&world, &body).await;
    let spaced = format!("{body} ").into_bytes();
    let answer = world
        .api()
        .raw(
            &world.as_agent(),
            "POST",
            "/v1/vend",
            Some("application/json"),
            spaced,
        )
        .await;
    assert_eq!(refused(&answer), (409, "idempotency_conflict".to_owned()));
    assert_eq!(answer.json()["entry_id"], first.json()["entry_id"]);
}

#[tokio::test]
async fn an_idempotency_key_belongs_to_its_agent() {
    let (world, grant) = World::connected().await;
    let applied = world.apply(&json!({"agent": [{"name": "Second"}]})).await;
    let second = Proof::Key(applied["keys"][0]["key"].as_str().unwrap().to_owned());
    let body = with(list(grant), "idempotency_key", json!("mine"));
    assert_eq!(vend(&world, &body).await.status, 200);
    let other = world.api().post(&second, "/v1/vend", &body).await;
    assert_eq!(refused(&other), (403, "denied".to_owned()));
    assert_eq!(other.json()["reason"], "not_delegated");
}

#[tokio::test]
async fn a_decision_that_does_not_hold_is_named_by_its_flaw() {
    let (world, grant) = World::connected().await;
    let Outcome::Granted(other) =
        connect_as(&world, world.ada, "ben@acme.example", &[Category::Read], false).await
    else {
        panic!()
    };
    let honest = decision(&world, &list(grant)).await;
    let parts: Vec<&str> = honest.split('.').collect();
    let other_type = json!({"alg": "EdDSA", "kid": world.deps.notary.kid(), "typ": "jwt"}).to_string();
    let other_type = format!(
        "{}.{}.{}",
        digest::base64url(other_type.as_bytes()),
        parts[1],
        parts[2]
    );
    let header = json!({"alg": "EdDSA", "kid": "nobody", "typ": "action-decision+jwt"}).to_string();
    let unknown = format!(
        "{}.{}.{}",
        digest::base64url(header.as_bytes()),
        parts[1],
        parts[2]
    );
    let forged = format!("{}.{}.{}", parts[0], parts[1], "A".repeat(86));
    let cases = [
        ("malformed", list(grant), "garbage".to_owned()),
        ("too_large", list(grant), "A".repeat(16 * 1024 + 1)),
        ("wrong_type", list(grant), other_type),
        ("unknown_key", list(grant), unknown),
        ("bad_signature", list(grant), forged),
        ("wrong_grant", list(other), honest.clone()),
        (
            "wrong_action",
            with(list(grant), "args", json!({"limit": 4})),
            honest.clone(),
        ),
        (
            "not_allow",
            outside(grant),
            decision(&world, &outside(grant)).await,
        ),
    ];
    for (error, body, jws) in cases {
        let answer = vend(&world, &with(body, "decision", json!(jws))).await;
        assert_eq!(
            refused(&answer),
            (403, "decision_rejected".to_owned()),
            "{error}: {}",
            answer.text()
        );
        assert_eq!(answer.json()["decision_error"], error);
    }
    let applied = world.apply(&json!({"agent": [{"name": "Second"}]})).await;
    let second = Proof::Key(applied["keys"][0]["key"].as_str().unwrap().to_owned());
    let ada = log_in(&world.deps, world.org, world.ada).await;
    let delegation = json!({"agent": applied["keys"][0]["id"], "grant": grant, "categories": ["read"]});
    let made = world.api().post(&ada, "/v1/delegations", &delegation).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let body = with(list(grant), "decision", json!(honest));
    let answer = world.api().post(&second, "/v1/vend", &body).await;
    assert_eq!(
        answer.json()["decision_error"],
        "wrong_agent",
        "{}",
        answer.text()
    );
    world.later(Duration::from_secs(91));
    let answer = vend(&world, &body).await;
    assert_eq!(answer.json()["decision_error"], "expired");
}

#[tokio::test]
async fn every_answer_of_an_operation_that_may_carry_a_token_is_never_cached() {
    let (world, grant) = World::connected().await;
    for body in [list(grant), outside(grant), json!({})] {
        let answer = vend(&world, &body).await;
        assert_eq!(answer.headers["cache-control"], "no-store", "{body}");
    }
}

#[tokio::test]
async fn a_mode_that_older_facts_do_not_know_is_available_at_once() {
    use postern::policy::demo;

    let narrow = demo::ORG.replace("@modes(\"execute,handle,token\")\n", "");
    let world = World::with_policies(&narrow, demo::AGENT).await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    let ask = with(list(grant), "mode", json!("token"));
    let before = vend(&world, &ask).await;
    assert_eq!(refused(&before), (422, "mode_unavailable".to_owned()));
    world
        .apply(&json!({"policies": {"org": [demo::ORG], "agent": [demo::AGENT]}}))
        .await;
    let after = vend(&world, &ask).await;
    assert_eq!(after.status, 200, "{}", after.text());
}
