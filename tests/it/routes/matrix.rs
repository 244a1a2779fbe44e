//! Route × role, generated from the API document: I14 over every operation there is.

use postern::{
    crypto::{OsRandomness, api_key, lookup},
    domain::principal::KeyKind,
    http::openapi,
};
use serde_json::{Value, json};

use crate::harness::{Answer, Member, Proof, World, log_in};

/// One operation of the document.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) method: String,
    pub(super) path: String,
    /// `None`: the document names nobody, not even everybody.
    pub(super) principals: Option<Vec<String>>,
    pub(super) has_body: bool,
    pub(super) query: Vec<String>,
}

impl Operation {
    pub(super) fn place(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub(super) fn is_for(&self, member: &Member) -> bool {
        let principals = self.principals.as_deref().unwrap_or_default();
        member
            .is
            .iter()
            .any(|name| principals.iter().any(|known| known == name))
    }

    pub(super) fn with_id(&self, id: &str) -> String {
        self.path.replace("{id}", id)
    }

    pub(super) fn has_id(&self) -> bool {
        self.path.contains("{id}")
    }

    fn empty_body(&self) -> Option<Value> {
        self.has_body.then(|| json!({}))
    }
}

fn operations() -> Vec<Operation> {
    let document: Value = serde_json::from_str(&openapi::document().to_json().unwrap()).unwrap();
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let names = |list: &Value| -> Vec<String> {
                let list = list.as_array().cloned().unwrap_or_default();
                list.iter()
                    .map(|name| name.as_str().unwrap().to_owned())
                    .collect()
            };
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            found.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                principals: operation["x-principals"]
                    .is_array()
                    .then(|| names(&operation["x-principals"])),
                has_body: operation["requestBody"].is_object(),
                query: parameters
                    .iter()
                    .filter(|parameter| parameter["in"] == "query")
                    .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
                    .collect(),
            });
        }
    }
    assert!(
        found.len() >= 30,
        "only {} operations: the document was not read",
        found.len()
    );
    found
}

/// Those behind a credential.
pub(super) fn guarded() -> Vec<Operation> {
    let guarded: Vec<Operation> = operations()
        .into_iter()
        .filter(|operation| {
            operation
                .principals
                .as_ref()
                .is_some_and(|names| !names.is_empty())
        })
        .collect();
    assert!(guarded.len() >= 25, "only {} guarded operations", guarded.len());
    guarded
}

/// The only operations that ask nobody who they are. The probes answer on the other listener.
const OPEN: [(&str, &str, u16); 5] = [
    ("GET", "/.well-known/postern/decision-keys", 200),
    ("GET", "/healthz", 404),
    ("GET", "/openapi.json", 200),
    ("GET", "/problems/{code}", 200),
    ("GET", "/readyz", 404),
];

/// An id of the right kind that nothing has.
pub(super) fn absent(operation: &Operation) -> String {
    let suffix = "01h2xcejqtf2nbrexx3vqjhp41";
    match operation.path.split('/').nth(2).unwrap() {
        "agents" => format!("agt_{suffix}"),
        "audit" => format!("ent_{suffix}"),
        "connect-sessions" => format!("con_{suffix}"),
        "connectors" => "no-such-app".to_owned(),
        "delegations" => format!("dlg_{suffix}"),
        "engines" => format!("eng_{suffix}"),
        "grants" => format!("grt_{suffix}"),
        "keys" => format!("key_{suffix}"),
        "policies" => "4711".to_owned(),
        "revocations" => format!("rev_{suffix}"),
        "users" => format!("usr_{suffix}"),
        other => panic!("{other}: say what an id of this new noun looks like"),
    }
}

#[test]
fn every_operation_names_its_principals_or_is_known_to_be_open() {
    for operation in operations() {
        let open = OPEN.iter().any(|(method, path, _)| {
            (*method, *path) == (operation.method.as_str(), operation.path.as_str())
        });
        let named = operation
            .principals
            .as_ref()
            .is_some_and(|names| !names.is_empty());
        assert!(
            open != named,
            "{}: principals {:?}, open {open}",
            operation.place(),
            operation.principals
        );
        for name in operation.principals.iter().flatten() {
            assert!(
                ["admin", "user", "service", "agent"].contains(&name.as_str()),
                "{name}"
            );
        }
    }
}

#[tokio::test]
async fn an_open_operation_needs_no_credential() {
    let world = World::new().await;
    let api = world.api();
    for (method, path, status) in OPEN {
        let path = path.replace("{code}", "denied");
        let answer = api.call(&Proof::Nothing, method, &path, None).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    }
}

/// Everything that is not a living credential.
async fn strangers(world: &World) -> Vec<(&'static str, Proof)> {
    let unknown = |kind| {
        let key = api_key::mint(kind, &OsRandomness::new()).unwrap();
        Proof::Key(lookup::show_api_key(&key))
    };
    let relabelled = format!("psd{}", &world.agent_key[3..]);
    let mut cut = world.admin_key.clone();
    cut.pop();
    // A second agent that is disabled, a key that is revoked, a session that has ended.
    let applied = world.apply(&json!({"agent": [{"name": "Retired"}]})).await;
    let retired = applied["keys"][0].clone();
    let body = json!({"selector": {"agent": retired["id"]}, "reason": "test"});
    let answer = world
        .api()
        .post(&world.as_admin(), "/v1/revocations", &body)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let applied = world
        .apply(&json!({"service": [{"name": "Closed", "return_urls": []}]}))
        .await;
    let closed = applied["keys"][0].clone();
    let (api, admin) = (world.api(), world.as_admin());
    let keys = api.get(&admin, "/v1/keys").await.json();
    let keys = keys["items"].as_array().unwrap();
    let id = &keys.iter().find(|key| key["owner"] == closed["id"]).unwrap()["id"];
    let path = format!("/v1/keys/{}", id.as_str().unwrap());
    assert_eq!(api.call(&admin, "DELETE", &path, None).await.status, 200);
    let ended = log_in(&world.deps, world.org, world.ben).await;
    world
        .raw_sql("UPDATE sessions SET expires_at = created_at WHERE user_id IN (SELECT id FROM users WHERE email = 'ben@acme.example')")
        .await;
    let key = |value: &Value| Proof::Key(value["key"].as_str().unwrap().to_owned());
    let header = |text: &str| Proof::Authorization(text.to_owned());
    vec![
        ("nothing", Proof::Nothing),
        ("an empty header", header("")),
        ("another scheme", header("Basic cHNkOng=")),
        ("no key of ours", header("Bearer abc")),
        ("a key cut short", Proof::Key(cut)),
        (
            "an agent's key that claims to be an admin's",
            Proof::Key(relabelled),
        ),
        ("an unknown admin key", unknown(KeyKind::Admin)),
        ("an unknown service key", unknown(KeyKind::Service)),
        ("an unknown agent key", unknown(KeyKind::Agent)),
        ("the key of a disabled agent", key(&retired)),
        ("a revoked key", key(&closed)),
        ("no session of ours", Proof::Session("x".to_owned())),
        ("an unknown session", Proof::Session("A".repeat(43))),
        ("a session that has ended", ended),
    ]
}

#[tokio::test]
async fn whoever_proves_nothing_gets_one_answer_from_every_operation() {
    let world = World::new().await;
    let (api, strangers) = (world.api(), strangers(&world).await);
    let mut first: Option<Answer> = None;
    for operation in guarded() {
        let path = operation.with_id("no-id-at-all");
        for (name, proof) in &strangers {
            let answer = api
                .call(proof, &operation.method, &path, operation.empty_body().as_ref())
                .await
                .shown();
            assert_eq!(
                answer.status,
                401,
                "{} with {name}: {}",
                operation.place(),
                answer.text()
            );
            let first = first.get_or_insert_with(|| answer.clone());
            assert_eq!(&answer, first, "{} with {name}", operation.place());
        }
    }
}

#[tokio::test]
async fn a_principal_an_operation_does_not_name_gets_one_answer_from_every_operation() {
    let world = World::new().await;
    let api = world.api();
    let mut first: Option<Answer> = None;
    let mut refused = 0;
    for operation in guarded() {
        let path = operation.with_id("no-id-at-all");
        for member in world.members().await {
            if operation.is_for(&member) {
                continue;
            }
            let answer = api
                .call(
                    &member.proof,
                    &operation.method,
                    &path,
                    operation.empty_body().as_ref(),
                )
                .await
                .shown();
            assert_eq!(answer.status, 403, "{} as {}", operation.place(), member.name);
            assert_eq!(answer.json()["reason"], "wrong_principal");
            let first = first.get_or_insert_with(|| answer.clone());
            assert_eq!(&answer, first, "{} as {}", operation.place(), member.name);
            refused += 1;
        }
    }
    assert!(refused > 40, "only {refused} refusals: the matrix is too small");
}

#[tokio::test]
async fn a_principal_an_operation_names_is_let_in() {
    let world = World::new().await;
    let (api, members) = (world.api(), world.members().await);
    for operation in guarded() {
        let path = if operation.has_id() {
            operation.with_id(&absent(&operation))
        } else {
            operation.path.clone()
        };
        let expected = match (operation.has_body, operation.has_id()) {
            (true, _) => (400, "invalid_request"),
            (false, true) => (404, "not_found"),
            (false, false) => (200, ""),
        };
        for member in members.iter().filter(|member| operation.is_for(member)) {
            let answer = api
                .call(
                    &member.proof,
                    &operation.method,
                    &path,
                    operation.empty_body().as_ref(),
                )
                .await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                expected,
                "{} as {}: {}",
                operation.place(),
                member.name,
                answer.text()
            );
        }
    }
}

#[tokio::test]
async fn a_change_by_session_from_another_origin_is_refused_before_anything_is_read() {
    let world = World::new().await;
    let api = world.api();
    let Proof::Session(session) = log_in(&world.deps, world.org, world.ada).await else {
        panic!()
    };
    for operation in guarded().iter().filter(|operation| operation.method != "GET") {
        let path = operation.with_id("no-id-at-all");
        let answer = api.cross_site(&session, &operation.method, &path, None).await;
        assert_eq!(answer.status, 403, "{}", operation.place());
        assert_eq!(
            answer.json()["reason"],
            "cross_site_request",
            "{}",
            operation.place()
        );
    }
}
