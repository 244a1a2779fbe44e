//! The order of refusals of protocol §6: requests that are wrong in two ways at once, and which of the two is answered.

use std::time::Duration;

use postern::domain::connector::Category;
use serde_json::{Value, json};

use super::vend::{list, refused, vend, with};
use crate::harness::{Proof, World};

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
    used_key: &'static str,
}

const IN_ORDER: [Wrong; 11] = [
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

#[tokio::test]
async fn of_two_wrongs_the_one_that_stands_first_in_the_protocol_is_answered() {
    let (world, ended) = World::connected().await;
    let admin = world.as_admin();
    let body = json!({"selector": {"grant": ended}, "reason": "test"});
    world.api().post(&admin, "/v1/revocations", &body).await;
    let grant = world.connect(world.ada, &[Category::Read, Category::Write]).await;
    let spoils = Spoils {
        revoked: ended.to_string(),
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
            // Without a grant there is no connector, and without a connector no tool.
            if later.expected.0 == 404
                && ["an unknown tool", "a tool the agent is not capable of"].contains(&earlier.name)
            {
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
