//! Whose keys count: those registered here, living, each for its own algorithm and in its own engine's name.

use super::*;

#[tokio::test]
async fn an_engine_of_another_organisation_decides_nothing_here() {
    let key = Key::ed25519(7);
    let world = World::with_policies(NO_PERMIT, postern::policy::demo::AGENT).await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    let neighbours = world.neighbours().await;
    let body = json!({"toml": toml::to_string(&json!({"engine": [engine("House", &key, "house-1", &["acme-mail"], &["*"])]})).unwrap()});
    let registered = world.api().post(&neighbours[0].proof, "/v1/apply", &body).await;
    assert_eq!(registered.status, 200, "{}", registered.text());
    let request = list(grant);
    let claims = allow(&world, &request, "one").await;
    let answer = present(&world, &request, key.sign(&claims)).await;
    assert_eq!(rejected(&answer), "unknown_key");
}

#[tokio::test]
async fn posterns_issuer_cannot_be_registered_as_an_engines() {
    let key = Key::ed25519(7);
    let world = World::new().await;
    let mut engine = engine("House", &key, "house-1", &["acme-mail"], &["*"]);
    engine["iss"] = json!(ISSUER);
    let body = json!({"toml": toml::to_string(&json!({"engine": [engine]})).unwrap()});
    let answer = world.api().post(&world.as_admin(), "/v1/apply", &body).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "invalid_request"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn posterns_own_key_cannot_be_registered_as_an_engines() {
    let world = World::new().await;
    let keys = world
        .api()
        .get(
            &crate::harness::Proof::Nothing,
            "/.well-known/postern/decision-keys",
        )
        .await
        .json();
    let notary = keys["keys"][0].clone();
    let jwk = json!({"kty": notary["kty"], "crv": notary["crv"], "x": notary["x"], "kid": notary["kid"]});
    let taken_name = Key::ed25519(7).jwk(notary["kid"].as_str().unwrap());
    for jwk in [jwk, taken_name] {
        let engine = json!({"name": "Twin", "iss": ENGINE, "alg": "EdDSA", "public_key_jwk": jwk, "connectors": ["acme-mail"], "tools": ["*"]});
        let body = json!({"toml": toml::to_string(&json!({"engine": [engine]})).unwrap()});
        let answer = world.api().post(&world.as_admin(), "/v1/apply", &body).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
}

#[tokio::test]
async fn two_engines_never_share_a_key_or_the_name_of_one() {
    let key = Key::ed25519(7);
    let world = World::new().await;
    let (first, twin) = (
        engine("House", &key, "house-1", &["acme-mail"], &["*"]),
        engine("Twin", &Key::p256(7), "house-1", &["acme-mail"], &["*"]),
    );
    let apply = async |engines: &Value| {
        let body = json!({"toml": toml::to_string(&json!({"engine": engines})).unwrap()});
        world.api().post(&world.as_admin(), "/v1/apply", &body).await
    };
    let together = apply(&json!([first, twin])).await;
    assert_eq!(together.status, 400, "{}", together.text());
    assert_eq!(apply(&json!([first])).await.status, 200);
    let later = apply(&json!([twin])).await;
    assert_eq!(later.status, 400, "{}", later.text());
    assert_eq!(
        apply(&json!([first])).await.status,
        200,
        "the same again is no twin"
    );
}

#[tokio::test]
async fn a_disabled_engine_decides_nothing() {
    let key = Key::ed25519(7);
    let (world, grant) = world_with(&key, &["acme-mail"], &["*"]).await;
    let request = list(grant);
    let claims = allow(&world, &request, "one").await;
    let mut tx = world.deps.store.write(world.org).await.unwrap();
    let engines = tx.engines(world.org).await.unwrap();
    tx.advance_epoch(world.org, &postern::store::Selector::All(true))
        .await
        .unwrap();
    tx.disable_engine(world.org, engines[0].id).await.unwrap();
    tx.commit().await.unwrap();
    let answer = present(&world, &request, key.sign(&claims)).await;
    assert_eq!(rejected(&answer), "unknown_key");
}

#[tokio::test]
async fn a_key_nobody_registered_decides_nothing() {
    let key = Key::ed25519(7);
    let (world, grant) = world_with(&key, &["acme-mail"], &["*"]).await;
    let request = list(grant);
    let claims = allow(&world, &request, "one").await;
    let other = Key::ed25519(8);
    let answer = present(&world, &request, other.sign_as("EdDSA", "house-2", &claims)).await;
    assert_eq!(rejected(&answer), "unknown_key");
    let answer = present(&world, &request, other.sign(&claims)).await;
    assert_eq!(rejected(&answer), "bad_signature");
}

#[tokio::test]
async fn a_key_is_good_for_its_own_algorithm_only() {
    for (key, other) in [(Key::ed25519(7), "ES256"), (Key::p256(7), "EdDSA")] {
        let (world, grant) = world_with(&key, &["acme-mail"], &["*"]).await;
        let request = list(grant);
        let claims = allow(&world, &request, "one").await;
        let answer = present(&world, &request, key.sign_as(other, "house-1", &claims)).await;
        assert_eq!(rejected(&answer), "wrong_algorithm");
        for unknown in ["none", "HS256", "RS256", "eddsa"] {
            let answer = present(&world, &request, key.sign_as(unknown, "house-1", &claims)).await;
            assert!(
                ["wrong_algorithm", "malformed"].contains(&rejected(&answer).as_str()),
                "{unknown}"
            );
        }
    }
}

#[tokio::test]
async fn an_engine_does_not_speak_in_posterns_name_nor_in_another_engines() {
    let key = Key::ed25519(7);
    let (world, grant) = world_with(&key, &["acme-mail"], &["*"]).await;
    let request = list(grant);
    for iss in [ISSUER, "https://other.example"] {
        let mut claims = allow(&world, &request, "one").await;
        claims["iss"] = json!(iss);
        let answer = present(&world, &request, key.sign(&claims)).await;
        assert_eq!(rejected(&answer), "wrong_issuer", "{iss}");
    }
}
