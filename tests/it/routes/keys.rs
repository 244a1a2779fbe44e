//! `/v1/keys`: a key is made, listed without its text, and revoked; a revoked one is refused at once, also in flight.

use postern::{
    domain::{
        KeyId,
        entry::{Entry, EntryType},
        principal::KeyKind,
    },
    flows::{Refusal, actions::Caller, decide, vend},
};
use serde_json::{Value, json};

use super::vend::list;
use crate::harness::{Answer, Proof, World, log_in};

async fn make(world: &World, body: &Value) -> Answer {
    world.api().post(&world.as_admin(), "/v1/keys", body).await
}

/// A further key of the demo agent: its id and its proof.
async fn second_key(world: &World) -> (String, Proof) {
    let made = make(world, &json!({"kind": "agent", "owner": world.agent.agent})).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    let text = |member: &str| made[member].as_str().unwrap().to_owned();
    (text("id"), Proof::Key(text("key")))
}

async fn revoke(world: &World, proof: &Proof, id: &str) -> Answer {
    let path = format!("/v1/keys/{id}");
    world.api().call(proof, "DELETE", &path, None).await
}

async fn listed(world: &World) -> Vec<Value> {
    let answer = world.api().get(&world.as_admin(), "/v1/keys").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["items"].as_array().unwrap().clone()
}

async fn of_outcome(world: &World, outcome: &str) -> Vec<Entry> {
    let entries = world.entries().await;
    entries
        .into_iter()
        .filter(|entry| entry.draft.outcome.as_deref() == Some(outcome))
        .collect()
}

#[tokio::test]
async fn keys_are_listed_in_pages_without_their_text() {
    let world = World::new().await;
    let keys = listed(&world).await;
    let mut kinds: Vec<&str> = keys.iter().map(|key| key["kind"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["admin", "agent", "service"]);
    for key in &keys {
        let owned = key["kind"] != "admin";
        assert_eq!(key["owner"].is_string(), owned, "{key}");
        assert_eq!(
            (&key["state"], &key["revoked_at"]),
            (&json!("active"), &Value::Null)
        );
        let mut members: Vec<&str> = key.as_object().unwrap().keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(
            members,
            ["created_at", "id", "kind", "owner", "revoked_at", "state"]
        );
        let path = format!("/v1/keys/{}", key["id"].as_str().unwrap());
        let shown = world.api().get(&world.as_admin(), &path).await;
        assert_eq!(&shown.json(), key);
    }
    let first = world
        .api()
        .get(&world.as_admin(), "/v1/keys?limit=2")
        .await
        .json();
    assert_eq!(first["items"], json!(keys[..2]));
    let next = format!("/v1/keys?limit=2&after={}", first["next"].as_str().unwrap());
    let second = world.api().get(&world.as_admin(), &next).await.json();
    assert_eq!(
        (&second["items"], &second["next"]),
        (&json!(keys[2..]), &Value::Null)
    );
}

#[tokio::test]
async fn a_new_key_is_shown_once_and_works_at_once() {
    let (world, grant) = World::connected().await;
    // The facts read before do not know the new key.
    world.vend(world.read(grant)).await.unwrap();
    let made = make(&world, &json!({"kind": "agent", "owner": world.agent.agent})).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(made.headers["cache-control"], "no-store");
    let body = made.json();
    let text = body["key"].as_str().unwrap().to_owned();
    let (kind, _) = postern::crypto::api_key::parse(&text).unwrap();
    assert_eq!(kind, KeyKind::Agent);
    let answer = world
        .api()
        .post(&Proof::Key(text.clone()), "/v1/vend", &list(grant))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let shown = json!(listed(&world).await).to_string();
    assert!(shown.contains(body["id"].as_str().unwrap()) && !shown.contains(&text));
    let entries = of_outcome(&world, "key_created").await;
    let [entry] = entries.as_slice() else {
        panic!("{entries:?}")
    };
    assert_eq!(entry.kind, EntryType::Admin);
    assert_eq!(entry.draft.agent, Some(world.agent.agent));
    assert_eq!(entry.draft.correlation.as_deref(), body["id"].as_str());
    assert!(entry.draft.on_behalf[0].starts_with("key_"), "{entry:?}");
}

#[tokio::test]
async fn a_key_can_be_made_for_an_admin_and_for_a_service() {
    let world = World::new().await;
    let service = listed(&world).await;
    let service = service.iter().find(|key| key["kind"] == "service").unwrap();
    for (body, path) in [
        (json!({"kind": "admin"}), "/v1/keys"),
        (json!({"kind": "service", "owner": service["owner"]}), "/v1/users"),
    ] {
        let made = make(&world, &body).await;
        assert_eq!(made.status, 201, "{}", made.text());
        assert_eq!(made.json()["kind"], body["kind"]);
        let key = Proof::Key(made.json()["key"].as_str().unwrap().to_owned());
        let answer = world.api().get(&key, path).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let ada = log_in(&world.deps, world.org, world.ada).await;
    let by_session = world
        .api()
        .post(&ada, "/v1/keys", &json!({"kind": "admin"}))
        .await;
    assert_eq!(by_session.status, 201, "{}", by_session.text());
}

#[tokio::test]
async fn a_key_for_nobody_or_for_another_tenants_is_not_made() {
    let world = World::new().await;
    let neighbours = world.neighbours().await;
    let eve = &neighbours
        .iter()
        .find(|member| member.name == "admin key")
        .unwrap()
        .proof;
    let before = listed(&world).await.len();
    let agent = world.agent.agent;
    for (body, status) in [
        (json!({"kind": "admin", "owner": agent}), 400),
        (json!({"kind": "agent"}), 400),
        (json!({"kind": "user"}), 400),
        (json!({"kind": "service", "owner": agent}), 400),
        (json!({"kind": "agent", "owner": agent, "name": "x"}), 400),
        (
            json!({"kind": "agent", "owner": "agt_01h2xcejqtf2nbrexx3vqjhp41"}),
            404,
        ),
        (
            json!({"kind": "service", "owner": "svc_01h2xcejqtf2nbrexx3vqjhp41"}),
            404,
        ),
    ] {
        let answer = make(&world, &body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
    }
    for owner in listed(&world).await {
        if owner["kind"] != "admin" {
            let body = json!({"kind": owner["kind"], "owner": owner["owner"]});
            let answer = world.api().post(eve, "/v1/keys", &body).await;
            assert_eq!(answer.status, 404, "{body}: {}", answer.text());
        }
    }
    let ended = json!({"selector": {"agent": agent}, "reason": "test"});
    let ended = world
        .api()
        .post(&world.as_admin(), "/v1/revocations", &ended)
        .await;
    assert_eq!(ended.status, 200, "{}", ended.text());
    let answer = make(&world, &json!({"kind": "agent", "owner": agent})).await;
    assert_eq!(answer.status, 400, "a disabled agent: {}", answer.text());
    assert_eq!(listed(&world).await.len(), before);
    assert!(of_outcome(&world, "key_created").await.is_empty());
}

#[tokio::test]
async fn a_revoked_key_is_refused_as_an_unknown_one_and_its_agent_goes_on() {
    let (world, grant) = World::connected().await;
    let (id, leaked) = second_key(&world).await;
    let unknown = Proof::Key(format!("psa_{}", "0".repeat(49)));
    let vend = async |proof: &Proof| world.api().post(proof, "/v1/vend", &list(grant)).await;
    assert_eq!(vend(&leaked).await.status, 200);
    let revoked = revoke(&world, &world.as_admin(), &id).await;
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    assert_eq!(revoked.json()["state"], "revoked");
    assert!(revoked.json()["revoked_at"].is_string());
    let refused = vend(&leaked).await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.shown(), vend(&unknown).await.shown());
    assert_eq!(vend(&world.as_agent()).await.status, 200, "the agent's other key");
    let entries = of_outcome(&world, "key_revoked").await;
    let [entry] = entries.as_slice() else {
        panic!("{entries:?}")
    };
    assert_eq!(entry.kind, EntryType::Admin);
    assert_eq!(entry.draft.agent, Some(world.agent.agent));
    assert_eq!(entry.draft.correlation.as_deref(), Some(id.as_str()));
}

#[tokio::test]
async fn revoking_a_key_again_changes_nothing() {
    let world = World::new().await;
    let (id, _) = second_key(&world).await;
    let first = revoke(&world, &world.as_admin(), &id).await;
    world.later(std::time::Duration::from_secs(60));
    let again = revoke(&world, &world.as_admin(), &id).await;
    assert_eq!((first.status, again.status), (200, 200));
    assert_eq!(first.json(), again.json());
    assert_eq!(of_outcome(&world, "key_revoked").await.len(), 1);
}

#[tokio::test]
async fn an_admin_key_may_revoke_itself() {
    let world = World::new().await;
    let made = make(&world, &json!({"kind": "admin"})).await.json();
    let own = Proof::Key(made["key"].as_str().unwrap().to_owned());
    let id = made["id"].as_str().unwrap();
    assert_eq!(revoke(&world, &own, id).await.status, 200);
    assert_eq!(revoke(&world, &own, id).await.status, 401);
    assert_eq!(of_outcome(&world, "key_revoked").await[0].draft.on_behalf, [id]);
}

#[tokio::test]
async fn a_call_let_in_by_a_key_that_is_revoked_meanwhile_releases_nothing() {
    let (world, grant) = World::connected().await;
    let (id, _) = second_key(&world).await;
    // What `authenticate` hands on: the call is past the door, and the facts it will use are in memory.
    let caller = Caller {
        key: id.parse::<KeyId>().unwrap(),
        ..world.agent
    };
    vend::vend(&world.deps, caller, world.read(grant)).await.unwrap();
    let calls = world.seen("api").await.len();
    assert_eq!(revoke(&world, &world.as_admin(), &id).await.status, 200);
    let entries = world.entries().await.len();
    let vended = vend::vend(&world.deps, caller, world.read(grant)).await;
    assert!(matches!(vended, Err(Refusal::Unauthenticated)), "{vended:?}");
    let decided = decide::decide(&world.deps, caller, &world.read(grant)).await;
    assert!(matches!(decided, Err(Refusal::Unauthenticated)), "{decided:?}");
    assert_eq!(world.seen("api").await.len(), calls, "nothing left");
    assert_eq!(world.entries().await.len(), entries);
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test]
async fn a_call_let_in_by_an_admin_key_that_is_revoked_meanwhile_makes_no_successor() {
    use postern::{domain::principal::KeyOwner, domain::principal::Principal, flows::keys};

    let world = World::new().await;
    let made = make(&world, &json!({"kind": "admin"})).await.json();
    let id = made["id"].as_str().unwrap();
    let let_in = Principal::Admin {
        org: world.org,
        key: id.parse().unwrap(),
    };
    assert_eq!(revoke(&world, &world.as_admin(), id).await.status, 200);
    let before = listed(&world).await.len();
    let made = keys::make(&world.deps, &let_in, KeyOwner::Admin).await;
    assert!(matches!(made, Err(Refusal::Unauthenticated)), "{made:?}");
    let other = world.agent.key;
    let revoked = keys::revoke(&world.deps, &let_in, other).await;
    assert!(matches!(revoked, Err(Refusal::Unauthenticated)), "{revoked:?}");
    assert_eq!(listed(&world).await.len(), before);
    assert_eq!(world.api().get(&world.as_agent(), "/v1/grants").await.status, 200);
}
