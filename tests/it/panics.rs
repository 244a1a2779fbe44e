//! A fault of Postern's own in the middle of a flow: whoever asked is told no more than is known.

use postern::{
    domain::{connector::Category, entry::EntryType},
    flows::{
        Refusal,
        connect::ConnectFailure,
        refresh::{self, Want},
    },
};
use serde_json::{Value, json};

use super::harness::{
    Journey, World,
    breakable::{break_next, broke},
};

#[tokio::test]
async fn a_vend_that_panics_has_an_unknown_outcome_and_promises_nothing() {
    let (world, grant) = World::connected().await;
    let api = world.api();
    let body = json!({"grant": grant, "tool": "messages.list", "args": {}});
    break_next(&world);
    let answer = api.post(&world.as_agent(), "/v1/vend", &body).await;
    assert!(broke(&world), "{}", answer.text());
    assert_eq!((answer.status, answer.code().as_str()), (504, "outcome_unknown"));
    assert_eq!(
        answer.json().get("entry_id").unwrap_or(&Value::Null),
        &Value::Null
    );
    assert!(
        !answer.text().contains("othing was released"),
        "{}",
        answer.text()
    );
    let answer = api.post(&world.as_agent(), "/v1/vend", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn a_refresh_that_panics_is_an_internal_fault_and_the_next_one_flies() {
    let (world, grant) = World::connected().await;
    let seen = world.grant(grant).await;
    break_next(&world);
    let want = || Want::Renewed {
        than: Some(seen.generation),
    };
    let failed = refresh::ensure(&world.deps, &seen, want()).await;
    assert!(broke(&world), "{failed:?}");
    assert!(matches!(failed, Err(Refusal::Broken)), "{failed:?}");
    refresh::ensure(&world.deps, &seen, want()).await.unwrap();
}

#[tokio::test]
async fn a_confirmation_or_an_exchange_that_panics_has_an_unknown_outcome() {
    let world = World::new().await;
    let unknown = |failure: &ConnectFailure| {
        matches!(
            failure,
            ConnectFailure::Refused(Refusal::OutcomeUnknown { entry: None })
        )
    };
    let journey = Journey::begin(&world, world.ada, None).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    break_next(&world);
    let failure = journey.come_back(&world, answer).await.unwrap_err();
    assert!(broke(&world) && unknown(&failure), "{failure:?}");

    let journey = Journey::begin(&world, world.ada, None).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    journey.come_back(&world, answer).await.unwrap();
    break_next(&world);
    let failure = journey.confirm(&world, &[Category::Read]).await.unwrap_err();
    assert!(broke(&world) && unknown(&failure), "{failure:?}");
    let connects = world.entries().await;
    assert!(connects.iter().all(|entry| entry.kind != EntryType::Connect));
    journey.confirm(&world, &[Category::Read]).await.unwrap();
}
