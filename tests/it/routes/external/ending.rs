//! What a revocation, or the end of an engine, does to the decisions that were made before it.

use super::*;

/// How much earlier or later than a revocation a decision says it was made, in seconds, and whether it then is stale if
/// it is Postern's own and if it is an engine's.
const STALE: [(i64, bool, bool); 4] = [
    (-1, true, true),
    (0, false, true),
    (29, false, true),
    (30, false, false),
];

#[tokio::test]
async fn a_decision_made_before_a_revocation_that_covers_it_is_stale() {
    for selector in ["all", "user", "connector", "grant", "agent"] {
        let key = Key::ed25519(7);
        let (world, ended) = World::connected().await;
        world
            .apply(&json!({"engine": [engine("House", &key, "house-1", &["acme-mail"], &["*"])]}))
            .await;
        let named = match selector {
            "all" => json!(true),
            "user" => json!(world.ada),
            "connector" => json!("acme-mail"),
            "grant" => json!(ended),
            _ => json!(world.agent.agent),
        };
        let mut body = json!({"selector": {}, "reason": "test"});
        body["selector"][selector] = named;
        let revoked = world
            .api()
            .post(&world.as_admin(), "/v1/revocations", &body)
            .await;
        assert_eq!(revoked.status, 200, "{}", revoked.text());
        let at = world.deps.clock.now().unix_seconds();
        if selector == "agent" {
            // It is disabled: nothing is ever decided for it again.
            let refused = present(&world, &list(ended), "a.b.c".to_owned()).await;
            assert_eq!(refused.status, 401, "{}", refused.text());
            continue;
        }
        // What is connected after that is covered by the same selection, but for `grant`: that was another one.
        let request = list(world.connect(world.ada, &[Category::Read]).await);
        for (offset, own, engines) in STALE {
            let mut claims = own_claims(&world, &request).await;
            claims["iat"] = json!(at + offset);
            claims["exp"] = json!(at + offset + 60);
            let payload = serde_json::to_vec(&claims).unwrap();
            let signed = jose::sign("action-decision+jwt", &world.deps.notary, &payload).unwrap();
            judged(
                &world,
                &request,
                signed,
                own && selector != "grant",
                selector,
                offset,
            )
            .await;

            let mut claims = allow(&world, &request, &format!("{selector} {offset}")).await;
            claims["iat"] = json!(at + offset);
            claims["exp"] = json!(at + offset + 60);
            let signed = key.sign(&claims);
            judged(
                &world,
                &request,
                signed,
                engines && selector != "grant",
                selector,
                offset,
            )
            .await;
        }
    }
}

async fn own_claims(world: &World, request: &Value) -> Value {
    let decided = world
        .api()
        .post(&world.as_agent(), "/v1/decisions", request)
        .await;
    assert_eq!(decided.status, 200, "{}", decided.text());
    let jws = decided.json()["decision"].as_str().unwrap().to_owned();
    let payload = base64url_decode(jws.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

async fn judged(world: &World, request: &Value, jws: String, stale: bool, selector: &str, offset: i64) {
    let answer = present(world, request, jws).await;
    let place = format!("{selector} {offset:+}: {}", answer.text());
    if stale {
        assert_eq!(answer.status, 403, "{place}");
        assert_eq!(rejected(&answer), "stale", "{place}");
    } else {
        assert_eq!(answer.status, 200, "{place}");
    }
}

/// Disables the only engine there is.
async fn disable(world: &World) -> Answer {
    let api = world.api();
    let engines = api.get(&world.as_admin(), "/v1/engines").await.json();
    let path = format!("/v1/engines/{}", engines["items"][0]["id"].as_str().unwrap());
    api.call(&world.as_admin(), "DELETE", &path, None).await
}

#[tokio::test]
async fn a_disabled_engine_decides_nothing_more_and_the_log_says_who_did_it() {
    let key = Key::ed25519(7);
    let (world, grant) = world_with(&key, &["acme-mail"], &["*"]).await;
    let request = list(grant);
    let jws = key.sign(&allow(&world, &request, "one").await);
    let disabled = disable(&world).await;
    assert_eq!(disabled.status, 200, "{}", disabled.text());
    assert_eq!(disabled.json()["state"], "disabled");
    assert_eq!(
        rejected(&present(&world, &request, jws.clone()).await),
        "unknown_key"
    );
    world.later(std::time::Duration::from_secs(1));
    assert_eq!(
        disable(&world).await.json(),
        disabled.json(),
        "again changes nothing"
    );
    let entries = world.entries().await;
    let mut about = entries
        .iter()
        .filter(|entry| entry.draft.outcome.as_deref() == Some("engine_disabled"));
    let entry = about.next().unwrap();
    assert!(about.next().is_none());
    assert_eq!(entry.draft.correlation.as_deref(), disabled.json()["id"].as_str());
    assert!(entry.draft.on_behalf[0].starts_with("key_"));
    world
        .apply(&json!({"engine": [engine("House", &key, "house-1", &["acme-mail"], &["*"])]}))
        .await;
    let answer = present(&world, &request, jws).await;
    assert_eq!(answer.status, 200, "registered again: {}", answer.text());
}

#[tokio::test]
async fn a_decision_verified_on_facts_from_before_its_engine_was_disabled_releases_nothing() {
    let key = Key::ed25519(7);
    let (world, grant) = world_with(&key, &["acme-mail"], &["*"]).await;
    let request = list(grant);
    // Two decisions; with the first the facts come into memory, the engine's key among them.
    let first = key.sign(&allow(&world, &request, "one").await);
    let second = key.sign(&allow(&world, &request, "two").await);
    assert_eq!(present(&world, &request, first).await.status, 200);
    let calls = world.seen("api").await.len();
    assert_eq!(disable(&world).await.status, 200);
    assert_eq!(rejected(&present(&world, &request, second).await), "unknown_key");
    assert_eq!(world.seen("api").await.len(), calls, "nothing left");
}

#[tokio::test]
async fn a_decision_of_an_engine_that_older_facts_do_not_know_counts() {
    let key = Key::ed25519(7);
    let world = World::with_policies(NO_PERMIT, postern::policy::demo::AGENT).await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    let request = list(grant);
    let jws = key.sign(&allow(&world, &request, "one").await);
    let without = world.api().post(&world.as_agent(), "/v1/vend", &request).await;
    assert_eq!(without.status, 403, "{}", without.text());
    world
        .apply(&json!({"engine": [engine("House", &key, "house-1", &["acme-mail"], &["*"])]}))
        .await;
    let answer = present(&world, &request, jws).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}
