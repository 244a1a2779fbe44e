//! Route × tenant, generated from the API document: I5 over every operation with an id, every list and every body.

use std::collections::BTreeSet;

use postern::domain::connector::Category;
use serde_json::{Value, json};

use super::matrix::{Operation, absent, guarded};
use crate::harness::{Api, Proof, World, log_in};

/// What the demo organisation owns: one of everything that has an id.
struct Ours {
    world: World,
    ids: Vec<(&'static str, String)>,
}

impl Ours {
    async fn new() -> Self {
        let (world, ended) = World::connected().await;
        let (api, admin) = (world.api(), world.as_admin());
        let revoked = api
            .post(
                &admin,
                "/v1/revocations",
                &json!({"selector": {"grant": ended}, "reason": "test"}),
            )
            .await;
        assert_eq!(revoked.status, 200, "{}", revoked.text());
        let grant = world.connect(world.ada, &[Category::Read, Category::Write]).await;
        let engine = json!({
            "name": "House", "iss": "https://engine.example", "alg": "EdDSA", "connectors": ["acme-mail"],
            "tools": ["*"],
            "public_key_jwk": {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        });
        let policies = json!({"org": [postern::policy::demo::ORG, "// second"], "agent": [postern::policy::demo::AGENT]});
        world
            .apply(&json!({"engine": [engine], "policies": policies}))
            .await;
        let session = api
            .post(
                &world.as_service(),
                "/v1/connect-sessions",
                &json!({"user": {"external_id": "4711"}, "connector": "acme-mail"}),
            )
            .await;
        assert_eq!(session.status, 201, "{}", session.text());
        world.vend(world.read(grant)).await.unwrap();
        let first = async |path: &str| {
            let answer = api.get(&admin, path).await;
            answer.json()["items"][0]["id"]
                .as_str()
                .unwrap_or_else(|| panic!("{path}: {}", answer.text()))
                .to_owned()
        };
        let ids = vec![
            ("agents", first("/v1/agents").await),
            ("audit", first("/v1/audit/entries").await),
            (
                "connect-sessions",
                session.json()["id"].as_str().unwrap().to_owned(),
            ),
            (
                "delegations",
                first(&format!("/v1/delegations?grant={grant}")).await,
            ),
            ("engines", first("/v1/engines").await),
            ("grants", grant.to_string()),
            ("keys", first("/v1/keys").await),
            ("policies", "2".to_owned()),
            ("revocations", revoked.json()["id"].as_str().unwrap().to_owned()),
            ("users", world.ada.to_string()),
        ];
        Self { world, ids }
    }

    /// `None` for connectors: they are the deployment's, the same for every tenant. And for tiles: their path is a place
    /// in the caller's own log, whoever calls.
    fn id_for(&self, operation: &Operation) -> Option<&str> {
        let noun = operation.path.split('/').nth(2).unwrap();
        if noun == "connectors" || operation.path == "/v1/audit/tile/{id}" {
            return None;
        }
        let found = self.ids.iter().find(|(known, _)| *known == noun);
        Some(
            &found
                .unwrap_or_else(|| panic!("{noun}: a new noun: make one in `Ours`"))
                .1,
        )
    }

    fn id(&self, noun: &str) -> &str {
        &self.ids.iter().find(|(known, _)| *known == noun).unwrap().1
    }

    /// A body that would do something if the id were the caller's own.
    fn body_for(operation: &Operation) -> Option<Value> {
        match (operation.has_body, operation.path.as_str()) {
            (false, _) => None,
            (true, "/v1/connect-sessions/{id}/complete") => {
                Some(json!({"code": "A".repeat(43), "user": "usr_01h2xcejqtf2nbrexx3vqjhp41"}))
            }
            (true, path) => panic!("{path}: a new operation with an id and a body: give it a body that fits"),
        }
    }
}

#[tokio::test]
async fn our_ids_are_found_by_ourselves() {
    let ours = Ours::new().await;
    let (api, members) = (ours.world.api(), ours.world.members().await);
    for operation in guarded()
        .iter()
        .filter(|operation| operation.has_id() && operation.method == "GET")
    {
        let Some(id) = ours.id_for(operation) else {
            continue;
        };
        let admin = members.iter().find(|member| operation.is_for(member)).unwrap();
        let answer = api.get(&admin.proof, &operation.with_id(id)).await;
        assert_eq!(answer.status, 200, "{}: {}", operation.place(), answer.text());
    }
}

#[tokio::test]
async fn another_tenants_ids_are_answered_as_ids_of_nothing() {
    let ours = Ours::new().await;
    let (api, neighbours) = (ours.world.api(), ours.world.neighbours().await);
    let mut asked = 0;
    for operation in guarded().iter().filter(|operation| operation.has_id()) {
        let Some(id) = ours.id_for(operation) else {
            continue;
        };
        let body = Ours::body_for(operation);
        for member in neighbours.iter().filter(|member| operation.is_for(member)) {
            let ask = async |id: &str| {
                api.call(
                    &member.proof,
                    &operation.method,
                    &operation.with_id(id),
                    body.as_ref(),
                )
                .await
                .shown()
            };
            let (theirs, nothing) = (ask(id).await, ask(&absent(operation)).await);
            assert_eq!(theirs.status, 404, "{} as {}", operation.place(), member.name);
            assert_eq!(theirs, nothing, "{} as {}", operation.place(), member.name);
            asked += 1;
        }
    }
    assert!(asked >= 25, "only {asked} questions: the matrix is too small");
    let grant = ours.world.read(ours.id("grants").parse().unwrap());
    ours.world.vend(grant).await.unwrap();
}

#[tokio::test]
async fn another_tenants_ids_in_a_body_are_answered_as_ids_of_nothing() {
    let ours = Ours::new().await;
    let (api, neighbours) = (ours.world.api(), ours.world.neighbours().await);
    let one = |name: &str| {
        neighbours
            .iter()
            .find(|member| member.name == name)
            .unwrap()
            .proof
            .clone()
    };
    let (grant, user, agent) = (ours.id("grants"), ours.id("users"), ours.id("agents"));
    let absent = |prefix: &str| format!("{prefix}_01h2xcejqtf2nbrexx3vqjhp41");
    let act = |grant: &str| json!({"grant": grant, "tool": "messages.list", "args": {}});
    let at =
        |user: &str| json!({"connector": "acme-mail", "user": user, "tool": "messages.list", "args": {}});
    let delegate = |agent: &str, grant: &str| json!({"agent": agent, "grant": grant, "categories": ["read"]});
    let connect = |user: &str| json!({"user": user, "connector": "acme-mail"});
    let mut questions = Vec::new();
    for path in ["/v1/vend", "/v1/decisions", "/v1/actions"] {
        questions.push(("agent", path, act(grant), act(&absent("grt"))));
        questions.push(("agent", path, at(user), at(&absent("usr"))));
    }
    for who in ["admin session", "member session"] {
        questions.push((
            who,
            "/v1/delegations",
            delegate(agent, grant),
            delegate(&absent("agt"), &absent("grt")),
        ));
        questions.push((
            who,
            "/v1/connect-sessions",
            connect(user),
            connect(&absent("usr")),
        ));
    }
    questions.push((
        "service",
        "/v1/connect-sessions",
        connect(user),
        connect(&absent("usr")),
    ));
    for who in ["admin key", "admin session"] {
        for (member, id, none) in [
            ("grant", grant, absent("grt")),
            ("user", user, absent("usr")),
            ("agent", agent, absent("agt")),
        ] {
            for dry_run in [false, true] {
                let body = |id: &str| json!({"selector": {member: id}, "reason": "test", "dry_run": dry_run});
                questions.push((who, "/v1/revocations", body(id), body(&none)));
            }
        }
    }
    for (who, path, foreign, nothing) in questions {
        let proof = one(who);
        let ask = async |body: &Value| {
            let answer = api.post(&proof, path, body).await.shown();
            // Each refusal is an entry of its own.
            let mut told = answer.json();
            told.as_object_mut().unwrap().remove("entry_id");
            (answer.status, told)
        };
        let answer = ask(&foreign).await;
        // Of people who do not let it ask, an agent is told that and nothing else, not whether they exist.
        let expected = if who == "agent" && foreign.get("user").is_some() {
            403
        } else {
            404
        };
        assert_eq!(answer.0, expected, "{path} as {who}: {foreign}");
        assert_eq!(answer, ask(&nothing).await, "{path} as {who}: {foreign}");
    }
    let grant = ours.world.read(grant.parse().unwrap());
    ours.world.vend(grant).await.unwrap();
}

#[tokio::test]
async fn no_list_of_another_tenant_holds_anything_of_ours() {
    let ours = Ours::new().await;
    let (api, neighbours) = (ours.world.api(), ours.world.neighbours().await);
    let admin = ours.world.as_admin();
    let mut markers: Vec<String> = ours
        .ids
        .iter()
        .filter(|(noun, _)| *noun != "policies")
        .map(|(_, id)| id.clone())
        .collect();
    markers.push(ours.world.org.to_string());
    markers.push("@acme.example".to_owned());
    let mut seen_by_us = BTreeSet::new();
    for operation in guarded()
        .iter()
        .filter(|operation| operation.method == "GET" && !operation.has_id())
    {
        let mut paths = vec![operation.path.clone()];
        for (noun, parameter) in [("users", "user"), ("agents", "agent"), ("grants", "grant")] {
            if operation.query.iter().any(|name| name == parameter) {
                paths.push(format!("{}?{parameter}={}", operation.path, ours.id(noun)));
            }
        }
        for path in paths {
            let own = api.get(&admin, &path).await;
            if own.status == 200 {
                let text = own.text();
                seen_by_us.extend(
                    markers
                        .iter()
                        .filter(|marker| text.contains(marker.as_str()))
                        .cloned(),
                );
            }
            for member in neighbours.iter().filter(|member| operation.is_for(member)) {
                let answer = api.get(&member.proof, &path).await;
                assert_eq!(answer.status, 200, "{path} as {}", member.name);
                let text = answer.text();
                for marker in &markers {
                    assert!(!text.contains(marker), "{path} as {}: {marker}", member.name);
                }
            }
        }
    }
    for noun in [
        "agents",
        "audit",
        "delegations",
        "engines",
        "grants",
        "keys",
        "users",
    ] {
        assert!(
            seen_by_us.contains(ours.id(noun)),
            "the control failed: our own lists lack {noun}"
        );
    }
}

#[tokio::test]
async fn a_person_an_agent_and_a_service_see_only_what_is_theirs() {
    let ours = Ours::new().await;
    let (world, api) = (&ours.world, ours.world.api());
    let applied = world
        .apply(
            &json!({"agent": [{"name": "Stranger"}], "service": [{"name": "Other host", "return_urls": []}]}),
        )
        .await;
    let key = |kind: &str| {
        let keys = applied["keys"].as_array().unwrap();
        let found = keys.iter().find(|key| key["kind"] == kind).unwrap();
        Proof::Key(found["key"].as_str().unwrap().to_owned())
    };
    let ben = log_in(&world.deps, world.org, world.ben).await;
    let members = [
        ("user", ben),
        ("agent", key("agent")),
        ("service", key("service")),
    ];
    for operation in guarded()
        .iter()
        .filter(|operation| operation.has_id() && operation.method == "GET")
    {
        let noun = operation.path.split('/').nth(2).unwrap();
        // An agent is no secret inside its org.
        if ["agents", "connectors"].contains(&noun) {
            continue;
        }
        for (name, proof) in &members {
            if !operation
                .principals
                .iter()
                .flatten()
                .any(|principal| principal == name)
            {
                continue;
            }
            let ask = async |id: &str| api.get(proof, &operation.with_id(id)).await.shown();
            let (others, nothing) = (
                ask(ours.id_for(operation).unwrap()).await,
                ask(&absent(operation)).await,
            );
            assert_eq!(others.status, 404, "{} as {name}", operation.place());
            assert_eq!(others, nothing, "{} as {name}", operation.place());
        }
    }
    for (name, proof) in &members {
        for path in ["/v1/grants", "/v1/delegations"] {
            let answer = api.get(proof, path).await;
            if answer.status == 200 {
                assert_eq!(answer.json()["items"], json!([]), "{path} as {name}");
            }
        }
    }
}

#[tokio::test]
async fn a_person_an_agent_and_a_service_do_see_what_is_theirs() {
    let ours = Ours::new().await;
    let (world, api) = (&ours.world, ours.world.api());
    let grant = ours.id("grants");
    let ada = log_in(&world.deps, world.org, world.ada).await;
    for (name, proof) in [
        ("admin", world.as_admin()),
        ("user", ada),
        ("agent", world.as_agent()),
    ] {
        for (path, id) in [("/v1/grants", grant), ("/v1/delegations", ours.id("delegations"))] {
            let answer = api.get(&proof, path).await;
            let items = answer.json()["items"].as_array().cloned().unwrap();
            assert!(
                items.iter().any(|item| item["id"] == id),
                "{path} as {name}: {}",
                answer.text()
            );
        }
    }
    let people = api.get(&world.as_service(), "/v1/users").await.json();
    assert_eq!(people["items"].as_array().unwrap().len(), 1, "{people}");
}

#[tokio::test]
async fn an_agents_list_of_grants_ends_with_its_delegation() {
    let ours = Ours::new().await;
    let (world, api) = (&ours.world, ours.world.api());
    let path = format!("/v1/delegations/{}", ours.id("delegations"));
    let ada = log_in(&world.deps, world.org, world.ada).await;
    let ended = api.call(&ada, "DELETE", &path, None).await;
    assert!(ended.status < 300, "{}", ended.text());
    let left = api.get(&world.as_agent(), "/v1/grants").await;
    assert!(!left.text().contains(ours.id("grants")), "{}", left.text());
    let path = format!("/v1/grants/{}", ours.id("grants"));
    assert_eq!(api.get(&world.as_agent(), &path).await.status, 404);
}

/// The same 128 bits in a form that is not the canonical one, and ids of another kind.
fn misspelt(id: &str) -> Vec<String> {
    let (prefix, suffix) = id.rsplit_once('_').unwrap();
    let other = if prefix == "usr" { "grt" } else { "usr" };
    vec![
        format!("{other}_{suffix}"),
        id.to_uppercase(),
        format!("{prefix}_8{}", &suffix[1..]),
        format!("{prefix}_{}", &suffix[1..]),
        format!("{id}0"),
        format!("{prefix}-{suffix}"),
        suffix.to_owned(),
        format!("{id}%00"),
        format!("%20{id}"),
    ]
}

#[tokio::test]
async fn an_id_in_another_form_is_not_found_in_a_path() {
    let ours = Ours::new().await;
    let (api, members) = (ours.world.api(), ours.world.members().await);
    for operation in guarded().iter().filter(|operation| operation.has_id()) {
        let Some(id) = ours.id_for(operation).filter(|id| id.contains('_')) else {
            continue;
        };
        let member = members.iter().find(|member| operation.is_for(member)).unwrap();
        let body = Ours::body_for(operation);
        for spelt in misspelt(id) {
            let path = operation.with_id(&spelt);
            let answer = api
                .call(&member.proof, &operation.method, &path, body.as_ref())
                .await;
            assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn an_id_in_another_form_is_invalid_in_a_body() {
    let ours = Ours::new().await;
    let api: Api = ours.world.api();
    let (agent, admin) = (ours.world.as_agent(), ours.world.as_admin());
    for spelt in misspelt(ours.id("grants")) {
        let body = json!({"grant": spelt, "tool": "messages.list", "args": {}});
        let answer = api.post(&agent, "/v1/vend", &body).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "invalid_request"),
            "{spelt}"
        );
        assert_eq!(answer.json()["errors"][0]["pointer"], "/grant", "{spelt}");
        let body = json!({"selector": {"grant": spelt}, "reason": "test"});
        let answer = api.post(&admin, "/v1/revocations", &body).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "invalid_request"),
            "{spelt}"
        );
    }
}
