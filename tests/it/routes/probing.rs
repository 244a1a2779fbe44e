//! What an agent learns of people who do not let it ask: nothing, however it asks (protocol §6).

use std::time::Duration;

use postern::domain::{GrantId, connector::Category};
use serde_json::{Value, json};

use super::vend::{list, refused, vend, with};
use crate::harness::{Answer, Outcome, World, connect_as, log_in};

const NOBODY: &str = "usr_01h2xcejqtf2nbrexx3vqjhp41";

fn of(user: &str) -> Value {
    json!({"connector": "acme-mail", "user": user, "tool": "messages.list", "args": {}})
}

/// All that an agent can compare of a refusal: each is an entry of its own, and a link is never the same twice.
fn told(answer: Answer) -> (u16, Value) {
    let mut body = answer.shown().json();
    let members = body.as_object_mut().unwrap();
    members.remove("entry_id");
    if let Some(link) = members.get_mut("connect") {
        *link = json!("a link");
    }
    let status = u16::try_from(body["status"].as_u64().unwrap()).unwrap();
    (status, body)
}

async fn connected(world: &World, account: &str, categories: &[Category]) -> GrantId {
    match connect_as(world, world.ada, account, categories, false).await {
        Outcome::Granted(grant) => grant,
        other => panic!("not connected: {other:?}"),
    }
}

/// Every way to ask about a person is answered as if nobody were there.
async fn tells_nothing_of_ada(world: &World, state: &str) {
    let nobody = told(vend(world, &of(NOBODY)).await);
    assert_eq!(
        (nobody.0, &nobody.1["reason"]),
        (403, &json!("not_delegated")),
        "{state}"
    );
    let ada = of(&world.ada.to_string());
    for body in [
        ada.clone(),
        with(ada.clone(), "account", json!("ada@acme.example")),
        with(ada.clone(), "account", json!("nobody@acme.example")),
        with(ada.clone(), "args", json!({"nope": 1})),
        with(ada.clone(), "decision", json!("a.b.c")),
        with(ada.clone(), "mode", json!("handle")),
    ] {
        assert_eq!(told(vend(world, &body).await), nobody, "{state}: {body}");
        for path in ["/v1/decisions", "/v1/actions"] {
            let answer = world.api().post(&world.as_agent(), path, &body).await;
            assert_eq!(answer.json()["reason"], "not_delegated", "{state}: {path} {body}");
        }
    }
}

#[tokio::test]
async fn who_has_connected_is_not_told_to_an_agent_that_may_not_ask_them() {
    let world = World::new().await;
    connected(&world, "ada@acme.example", &[]).await;
    tells_nothing_of_ada(&world, "one account").await;
    connected(&world, "other@else.example", &[]).await;
    tells_nothing_of_ada(&world, "two accounts").await;
    world
        .raw_sql("UPDATE grants SET state = 'needs_reconnect', state_reason = 'expired'")
        .await;
    world.deps.facts.forget(world.org);
    tells_nothing_of_ada(&world, "to be connected again").await;
}

#[tokio::test]
async fn a_grant_that_is_not_delegated_is_answered_alike_whatever_its_state() {
    let world = World::new().await;
    let grant = connected(&world, "ada@acme.example", &[]).await;
    let body = list(grant);
    let active = told(vend(&world, &body).await);
    assert_eq!((active.0, &active.1["reason"]), (403, &json!("not_delegated")));
    let same = async |state: &str| {
        world.deps.facts.forget(world.org);
        let bodies = [body.clone(), with(body.clone(), "args", json!({"nope": 1}))];
        for body in bodies {
            assert_eq!(told(vend(&world, &body).await), active, "{state}: {body}");
        }
    };
    same("active").await;
    world
        .raw_sql("UPDATE grants SET state = 'needs_reconnect', state_reason = 'expired'")
        .await;
    same("to be connected again").await;
    world
        .raw_sql("UPDATE grants SET state = 'quarantined', state_reason = NULL, state_at = 2000000000000000")
        .await;
    same("in quarantine").await;
    let selector = json!({"selector": {"grant": grant}, "reason": "test"});
    world
        .api()
        .post(&world.as_admin(), "/v1/revocations", &selector)
        .await;
    same("revoked").await;
    let unknown = vend(&world, &with(body.clone(), "tool", json!("messages.burn"))).await;
    assert_eq!(refused(&unknown), (400, "invalid_request".to_owned()));
}

#[tokio::test]
async fn of_two_accounts_only_the_delegated_one_is_there_for_an_agent() {
    let world = World::new().await;
    let own = connected(&world, "ada@acme.example", &[Category::Read]).await;
    connected(&world, "other@else.example", &[]).await;
    let ada = of(&world.ada.to_string());
    let chosen = vend(&world, &ada).await;
    assert_eq!(chosen.status, 200, "{}", chosen.text());
    let releases = world.entries().await;
    assert!(releases.iter().any(|entry| entry.draft.grant == Some(own)));
    let name = |account: &str| with(ada.clone(), "account", json!(account));
    let hidden = told(vend(&world, &name("other@else.example")).await);
    assert_eq!(hidden, told(vend(&world, &name("nobody@else.example")).await));
    assert_eq!(hidden.1["code"], "connection_required");
}

#[tokio::test]
async fn accounts_to_choose_from_are_the_delegated_ones() {
    let world = World::new().await;
    let first = connected(&world, "ada@acme.example", &[Category::Read]).await;
    let second = connected(&world, "ben@acme.example", &[Category::Read]).await;
    connected(&world, "other@else.example", &[]).await;
    let answer = vend(&world, &of(&world.ada.to_string())).await;
    assert_eq!(refused(&answer), (409, "account_selection_required".to_owned()));
    let accounts = answer.json()["accounts"].clone();
    let mut named: Vec<String> = accounts
        .as_array()
        .unwrap()
        .iter()
        .map(|account| account["grant"].as_str().unwrap().to_owned())
        .collect();
    named.sort();
    let mut delegated = vec![first.to_string(), second.to_string()];
    delegated.sort();
    assert_eq!(named, delegated);
}

/// The one delegation over a grant.
async fn delegation(world: &World, grant: GrantId) -> String {
    let path = format!("/v1/delegations?grant={grant}");
    let found = world.api().get(&world.as_admin(), &path).await.json();
    found["items"][0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_delegation_that_ended_lets_nobody_ask_any_more() {
    let world = World::new().await;
    let grant = connected(&world, "ada@acme.example", &[Category::Read]).await;
    let id = delegation(&world, grant).await;
    let ended = world
        .api()
        .call(
            &world.as_admin(),
            "DELETE",
            &format!("/v1/delegations/{id}"),
            None,
        )
        .await;
    assert_eq!(ended.status, 200, "{}", ended.text());
    tells_nothing_of_ada(&world, "ended").await;
    let selector = json!({"selector": {"grant": grant}, "reason": "test"});
    world
        .api()
        .post(&world.as_admin(), "/v1/revocations", &selector)
        .await;
    let answer = vend(&world, &list(grant)).await;
    assert_eq!(
        refused(&answer),
        (403, "denied".to_owned()),
        "a revocation tells nothing either"
    );
}

#[tokio::test]
async fn a_delegation_that_ran_out_lets_nobody_ask_any_more() {
    let world = World::new().await;
    let grant = connected(&world, "ada@acme.example", &[]).await;
    let ada = log_in(&world.deps, world.org, world.ada).await;
    let end = postern::domain::Time::from_unix_seconds(1_800_000_000 + 3600);
    let body = json!({"agent": world.agent.agent, "grant": grant, "categories": ["read"], "tools": [],
        "raw": false, "expires_at": end});
    let made = world.api().post(&ada, "/v1/delegations", &body).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(vend(&world, &list(grant)).await.status, 200);
    world.later(Duration::from_secs(3601));
    tells_nothing_of_ada(&world, "ran out").await;
    let answer = vend(&world, &list(grant)).await;
    assert_eq!(answer.json()["decision_id"], Value::Null, "{}", answer.text());
}

#[tokio::test]
async fn an_agent_that_was_let_ask_is_told_of_the_revocation_however_it_came() {
    for may_ask in [true, false] {
        for way in ["grant", "connector", "user", "all"] {
            let (world, grant) = World::connected().await;
            if !may_ask {
                world.apply(&json!({"org": {"agents_may_ask": false}})).await;
            }
            let named = match way {
                "grant" => json!({"grant": grant}),
                "connector" => json!({"connector": "acme-mail"}),
                "user" => json!({"user": world.ada}),
                _ => json!({"all": true}),
            };
            let body = json!({"selector": named, "reason": "test"});
            let answer = world
                .api()
                .post(&world.as_admin(), "/v1/revocations", &body)
                .await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let by_grant = vend(&world, &list(grant)).await;
            assert_eq!(refused(&by_grant), (410, "revoked".to_owned()), "{way} {may_ask}");
            // Nobody is connected any more: now it is for the org to say.
            let by_person = vend(&world, &of(&world.ada.to_string())).await;
            let expected = if may_ask {
                (409, "connection_required")
            } else {
                (403, "denied")
            };
            assert_eq!(
                refused(&by_person),
                (expected.0, expected.1.to_owned()),
                "{way} {may_ask}"
            );
        }
    }
}

#[tokio::test]
async fn who_is_delegated_is_told_to_reconnect_whatever_the_org_says_of_others() {
    let (world, grant) = World::connected().await;
    world.apply(&json!({"org": {"agents_may_ask": false}})).await;
    world
        .raw_sql("UPDATE grants SET state = 'needs_reconnect', state_reason = 'expired'")
        .await;
    world.deps.facts.forget(world.org);
    for body in [list(grant), of(&world.ada.to_string())] {
        let answer = vend(&world, &body).await;
        assert_eq!(refused(&answer), (409, "reconnect_required".to_owned()), "{body}");
    }
}
