//! `apply`: one document, one meaning; a plan that says what will and what will not be done.

use postern::store::Selector;
use serde_json::{Value, json};

use super::harness::{Answer, World};

async fn apply(world: &World, document: &Value, dry_run: bool) -> Answer {
    let body = json!({"toml": toml::to_string(document).unwrap(), "dry_run": dry_run});
    world.api().post(&world.as_admin(), "/v1/apply", &body).await
}

/// Plan and deed refuse alike, and point at the same place.
async fn refused_at(world: &World, document: &Value, pointer: &str) {
    for dry_run in [true, false] {
        let answer = apply(world, document, dry_run).await;
        assert_eq!(answer.status, 400, "{pointer}: {}", answer.text());
        assert_eq!(
            answer.json()["errors"][0]["pointer"],
            pointer,
            "{}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn two_tables_of_one_name_are_refused_in_plan_and_deed() {
    let world = World::new().await;
    let engine = json!({"name": "E", "iss": "https://e.example", "alg": "EdDSA", "connectors": [], "tools": [],
        "public_key_jwk": {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "e"}});
    let service = json!({"name": "S", "return_urls": []});
    for (document, pointer) in [
        (
            json!({"agent": [{"name": "A"}, {"name": "B"}, {"name": "A"}]}),
            "/agent/2/name",
        ),
        (json!({"service": [service, service]}), "/service/1/name"),
        (json!({"engine": [engine, engine]}), "/engine/1/name"),
        (
            json!({"person": [{"email": "cy@acme.example", "role": "member"}, {"email": "Cy@ACME.example", "role": "admin"}]}),
            "/person/1/email",
        ),
    ] {
        refused_at(&world, &document, pointer).await;
    }
}

#[tokio::test]
async fn a_name_that_is_not_read_as_it_is_written_is_refused() {
    let world = World::new().await;
    let engine = json!({"iss": "https://e.example", "alg": "EdDSA", "connectors": [], "tools": [],
        "public_key_jwk": {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "e"}});
    for name in [" ", "A\u{202e}B", "A\u{2067}B", "A\u{200b}", "A\nB", "A\u{1b}[1m"] {
        for (table, rest) in [
            ("agent", json!({})),
            ("service", json!({"return_urls": []})),
            ("engine", engine.clone()),
        ] {
            let mut hidden = rest;
            hidden["name"] = json!(name);
            let mut plain = hidden.clone();
            plain["name"] = json!("Mail Assistant");
            let document = json!({table: [plain, hidden]});
            refused_at(&world, &document, &format!("/{table}/1/name")).await;
        }
    }
}

#[tokio::test]
async fn an_address_an_issuer_or_a_return_address_that_reads_as_another_is_refused() {
    let world = World::new().await;
    for email in [
        "ada@acme.example\r\nBcc: eve@else.example",
        "ada@acme..example",
        "ada@acme.example,eve@else.example",
    ] {
        let document = json!({"person": [{"email": email, "role": "member"}]});
        refused_at(&world, &document, "/person").await;
    }
    for iss in [
        "",
        "https://e.example\n",
        "https://e\u{202e}.example",
        &"x".repeat(513),
    ] {
        let engine = json!({"name": "E", "iss": iss, "alg": "EdDSA", "connectors": [], "tools": [],
            "public_key_jwk": {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "e"}});
        refused_at(&world, &json!({"engine": [engine]}), "/engine/0/iss").await;
    }
    for url in [
        "https://host.example\\@evil.example/",
        "https://host.example/\r\nX: y",
        "https://h\u{f6}st.example/",
        "https://host.example/a b",
    ] {
        let document = json!({"service": [{"name": "S", "return_urls": [url]}]});
        refused_at(&world, &document, "/service/return_urls").await;
    }
}

#[tokio::test]
async fn a_client_without_a_usable_id_or_secret_is_refused() {
    let world = World::new().await;
    for id in ["", "a\nb", "\u{202e}"] {
        let document = json!({"connector": {"acme-mail": {"client_id": id}}});
        refused_at(&world, &document, "/connector/acme-mail/client_id").await;
    }
    let document = json!({"connector": {"acme-mail": {"client_id": "x", "client_secret": ""}}});
    refused_at(&world, &document, "/toml").await;
}

#[tokio::test]
async fn a_revoked_agent_that_a_document_still_names_is_a_warning() {
    let world = World::new().await;
    let document = json!({"agent": [{"name": "Mail Assistant"}]});
    let before = apply(&world, &document, true).await.json();
    assert_eq!(
        (&before["changes"], &before["warnings"]),
        (&json!([]), &json!([]))
    );
    world.revoke(Selector::Agent(world.agent.agent)).await;
    for dry_run in [true, false] {
        let after = apply(&world, &document, dry_run).await.json();
        assert_eq!(after["changes"], json!([]));
        assert_eq!(after["warnings"][0]["name"], "Mail Assistant", "{after}");
    }
}

#[tokio::test]
async fn a_policy_layer_that_is_not_named_is_kept() {
    let (world, grant) = World::connected().await;
    let text = format!("{}\n// the same, with a remark\n", postern::policy::demo::ORG);
    let document = json!({"policies": {"org": [text]}});
    let plan = apply(&world, &document, true).await.json();
    assert_eq!(
        plan["changes"][0]["detail"],
        "version 2: 1 for the organisation, 1 kept for agents"
    );
    assert_eq!(apply(&world, &document, false).await.status, 200);
    world.vend(world.read(grant)).await.unwrap();
    assert_eq!(apply(&world, &document, true).await.json()["changes"], json!([]));
    let emptied = json!({"policies": {"agent": []}});
    assert_eq!(apply(&world, &emptied, false).await.status, 200);
    assert!(world.vend(world.read(grant)).await.is_err());
}
