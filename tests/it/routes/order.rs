//! The order of refusals of protocol §6: requests that are wrong in two ways at once, and which of the two is answered.

use std::time::Duration;

use postern::domain::{GrantId, ScopeSet, connector::Category};
use serde_json::{Value, json};

use super::vend::{decision, list, refused, vend, with};
use crate::harness::{Journey, Proof, World, connect_as};

/// One thing that can be wrong with a request, its place in the order of protocol §6, and what it is answered with.
struct Wrong {
    name: &'static str,
    place: u8,
    expected: (u16, &'static str),
    spoil: fn(&mut Value, &Spoils),
}

/// What the spoiled requests name.
struct Spoils {
    revoked: String,
    /// Somebody's grant that gives no tool what it needs.
    narrow: String,
    /// Somebody with two accounts.
    person: String,
    used_key: &'static str,
}

const IN_ORDER: [Wrong; 14] = [
    Wrong {
        name: "an unknown member",
        place: 1,
        expected: (400, "invalid_request"),
        spoil: |body, _| body["surprise"] = json!(true),
    },
    Wrong {
        name: "an unknown tool",
        place: 1,
        expected: (400, "invalid_request"),
        spoil: |body, _| body["tool"] = json!("messages.burn"),
    },
    Wrong {
        name: "a tool the agent is not capable of",
        place: 2,
        expected: (403, "denied"),
        spoil: |body, _| body["tool"] = json!("messages.delete"),
    },
    Wrong {
        name: "an unknown grant",
        place: 3,
        expected: (404, "not_found"),
        spoil: |body, _| body["grant"] = json!("grt_01h2xcejqtf2nbrexx3vqjhp41"),
    },
    Wrong {
        name: "a revoked grant",
        place: 3,
        expected: (410, "revoked"),
        spoil: |body, spoils| body["grant"] = json!(spoils.revoked),
    },
    Wrong {
        name: "an account nobody connected",
        place: 3,
        expected: (409, "connection_required"),
        spoil: |body, spoils| name_account(body, spoils, Some("nobody@else.example")),
    },
    Wrong {
        name: "a grant without the tool's scopes",
        place: 3,
        expected: (409, "reconnect_required"),
        spoil: |body, spoils| body["grant"] = json!(spoils.narrow),
    },
    Wrong {
        name: "one of two accounts",
        place: 3,
        expected: (409, "account_selection_required"),
        spoil: |body, spoils| name_account(body, spoils, None),
    },
    Wrong {
        name: "an argument the tool does not have",
        place: 4,
        expected: (400, "invalid_args"),
        spoil: |body, _| body["args"]["nope"] = json!(1),
    },
    Wrong {
        name: "an idempotency key of another body",
        place: 5,
        expected: (409, "idempotency_conflict"),
        spoil: |body, spoils| body["idempotency_key"] = json!(spoils.used_key),
    },
    Wrong {
        name: "a decision that does not hold",
        place: 6,
        expected: (403, "decision_rejected"),
        spoil: |body, _| body["decision"] = json!("a.b.c"),
    },
    Wrong {
        name: "what policy denies",
        place: 7,
        expected: (403, "denied"),
        spoil: |body, _| {
            let given = body["args"].take();
            body["tool"] = json!("messages.send");
            body["args"] = json!({"to": ["eve@else.example"], "subject": "s", "body": "b"});
            if let Some(nope) = given.get("nope") {
                body["args"]["nope"] = nope.clone();
            }
        },
    },
    Wrong {
        name: "a mode that is not to be had",
        place: 8,
        expected: (422, "mode_unavailable"),
        spoil: |body, _| body["mode"] = json!("handle"),
    },
    Wrong {
        name: "no wrong at all",
        place: 9,
        expected: (200, ""),
        spoil: |_, _| {},
    },
];

fn name_account(body: &mut Value, spoils: &Spoils, account: Option<&str>) {
    let body = body.as_object_mut().unwrap();
    body.remove("grant");
    body.insert("connector".to_owned(), json!("acme-mail"));
    body.insert("user".to_owned(), json!(spoils.person));
    if let Some(account) = account {
        body.insert("account".to_owned(), json!(account));
    }
}

/// Ben connects with the one scope that neither reading nor sending needs.
async fn narrow(world: &World) -> GrantId {
    let scopes = ScopeSet::parse("mail.write", ' ').unwrap();
    let journey = Journey::begin_with(world, world.ben, None, Some(scopes)).await;
    let answer = journey.consent(world, "ada@acme.example", false).await;
    journey.finish(world, answer, &[Category::Read]).await.unwrap()
}

#[tokio::test]
async fn of_two_wrongs_the_one_that_stands_first_in_the_protocol_is_answered() {
    let (world, ended) = World::connected().await;
    let admin = world.as_admin();
    let body = json!({"selector": {"grant": ended}, "reason": "test"});
    world.api().post(&admin, "/v1/revocations", &body).await;
    let grant = world.connect(world.ada, &[Category::Read, Category::Write]).await;
    connect_as(&world, world.ada, "other@else.example", &[Category::Read], false).await;
    let spoils = Spoils {
        revoked: ended.to_string(),
        narrow: narrow(&world).await.to_string(),
        person: world.ada.to_string(),
        used_key: "used",
    };
    let first = vend(
        &world,
        &with(
            with(list(grant), "args", json!({"limit": 4})),
            "idempotency_key",
            json!(spoils.used_key),
        ),
    )
    .await;
    assert_eq!(first.status, 200, "{}", first.text());
    let api = world.api();
    for (index, earlier) in IN_ORDER.iter().enumerate() {
        for later in &IN_ORDER[index..] {
            if earlier.place == later.place && earlier.name != later.name {
                continue;
            }
            let mut body = list(grant);
            (later.spoil)(&mut body, &spoils);
            (earlier.spoil)(&mut body, &spoils);
            let place = format!("{} with {}: {body}", earlier.name, later.name);
            let answer = api.post(&world.as_agent(), "/v1/vend", &body).await;
            let (status, code) = earlier.expected;
            assert_eq!(refused(&answer), (status, code.to_owned()), "{place}");
            let answer = api.post(&Proof::Nothing, "/v1/vend", &body).await;
            assert_eq!(refused(&answer), (401, "unauthenticated".to_owned()), "{place}");
        }
    }
}

#[tokio::test]
async fn a_mode_that_is_not_to_be_had_is_answered_before_a_provider_that_is_down() {
    let (world, grant) = World::connected().await;
    world.later(Duration::from_secs(3700));
    world
        .fault(json!({"next": "token", "status": 503, "body": "down", "times": 100}))
        .await;
    let handle = vend(&world, &with(list(grant), "mode", json!("handle"))).await;
    assert_eq!(refused(&handle), (422, "mode_unavailable".to_owned()));
    let execute = vend(&world, &list(grant)).await;
    assert_eq!(refused(&execute), (503, "provider_unavailable".to_owned()));
    assert!(execute.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn a_grant_that_is_not_there_is_told_from_one_that_is_by_no_agent_without_the_tool() {
    let (world, grant) = World::connected().await;
    for tool in ["messages.delete", "messages.burn"] {
        let ask = |grant: String| with(list(grant), "tool", json!(tool));
        let known = vend(&world, &ask(grant.to_string())).await;
        let none = vend(&world, &ask("grt_01h2xcejqtf2nbrexx3vqjhp41".to_owned())).await;
        let told = |answer: &crate::harness::Answer| {
            let mut body = answer.json();
            body.as_object_mut().unwrap().remove("entry_id");
            (answer.status, body)
        };
        assert_eq!(told(&known), told(&none), "{tool}");
    }
}

#[tokio::test]
async fn a_retry_is_answered_before_its_decision_is_looked_at() {
    let (world, grant) = World::connected().await;
    let jws = decision(&world, &list(grant)).await;
    let body = with(
        with(list(grant), "decision", json!(jws)),
        "idempotency_key",
        json!("k"),
    );
    assert_eq!(vend(&world, &body).await.status, 200);
    // The decision is spent, and later it is over.
    for wait in [0, 200] {
        world.later(Duration::from_secs(wait));
        let again = vend(&world, &body).await;
        assert_eq!(refused(&again), (409, "already_released".to_owned()));
    }
}

#[tokio::test]
async fn a_mode_that_is_not_to_be_had_is_answered_before_a_decision_that_was_spent() {
    let (world, grant) = World::connected().await;
    let jws = decision(&world, &list(grant)).await;
    let body = with(list(grant), "decision", json!(jws));
    assert_eq!(vend(&world, &body).await.status, 200);
    let handle = vend(&world, &with(body.clone(), "mode", json!("handle"))).await;
    assert_eq!(refused(&handle), (422, "mode_unavailable".to_owned()));
    let spent = vend(&world, &body).await;
    assert_eq!(refused(&spent), (409, "decision_spent".to_owned()));
}

#[tokio::test]
async fn the_eleventh_link_within_ten_minutes_is_refused() {
    let world = World::new().await;
    let body =
        json!({"connector": "acme-mail", "user": world.ada, "tool": "messages.list", "args": {"nope": 1}});
    for _ in 0..10 {
        let asked = vend(&world, &body).await;
        assert_eq!(refused(&asked), (409, "connection_required".to_owned()));
    }
    let asked = vend(&world, &body).await;
    assert_eq!(refused(&asked), (429, "rate_limited".to_owned()));
    assert!(asked.headers.contains_key("retry-after"));
    let beyond = vend(&world, &with(body, "tool", json!("messages.delete"))).await;
    assert_eq!(refused(&beyond), (403, "denied".to_owned()));
}

#[tokio::test]
async fn what_can_be_said_without_the_key_is_said_while_the_key_is_away() {
    let (world, grant) = World::connected().await;
    world
        .raw_sql("UPDATE odks SET wrapped = commitment WHERE org_id <> ''")
        .await;
    world.deps.facts.forget(world.org);
    world.later(Duration::from_secs(60));
    let handle = vend(&world, &with(list(grant), "mode", json!("handle"))).await;
    assert_eq!(refused(&handle), (422, "mode_unavailable".to_owned()));
    let execute = vend(&world, &list(grant)).await;
    assert_eq!(refused(&execute), (503, "key_unavailable".to_owned()));
    assert!(execute.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn nothing_is_answered_for_sure_while_the_store_is_away() {
    let (world, grant) = World::connected().await;
    world.deps.store.close().await;
    let answer = vend(&world, &list(grant)).await;
    assert_eq!(refused(&answer), (503, "store_unavailable".to_owned()));
    assert!(answer.headers.contains_key("retry-after"));
}
