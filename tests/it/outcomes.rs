//! A call whose answer never came: said to be unknown, kept as unknown, and never repeated.

mod generic;

use std::{sync::Arc, time::Duration};

use postern::{
    domain::{
        EntryId, GrantId,
        connector::Category,
        entry::{Entry, EntryType},
        grant::{GrantState, ReconnectReason},
    },
    flows::{Refusal, actions::Ask, sweep},
    store::Selector,
};
use serde_json::{Value, json};

use super::harness::{Answer, Journey, World};

/// Each way in which Acme Mail, having got the request, gives no answer.
fn losses() -> [Value; 2] {
    [
        json!({"next": "api", "hang_up": true}),
        json!({"next": "api", "hang_up": true, "after": true}),
    ]
}

async fn send_mail(world: &World, grant: GrantId) -> Answer {
    let args = json!({"to": ["ben@acme.example"], "subject": "s", "body": "b"});
    let body = json!({"grant": grant, "tool": "messages.send", "args": args, "idempotency_key": "k"});
    world.api().post(&world.as_agent(), "/v1/vend", &body).await
}

fn unknown(answer: &Answer) -> EntryId {
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (504, "outcome_unknown"),
        "{}",
        answer.text()
    );
    answer.json()["entry_id"].as_str().unwrap().parse().unwrap()
}

/// What the log says became of a release: outcome and reason.
async fn outcomes(world: &World, release: EntryId) -> Vec<(String, Option<String>)> {
    let said = |entry: Entry| (entry.draft.outcome.unwrap(), entry.draft.reason);
    world
        .entries()
        .await
        .into_iter()
        .filter(|entry| entry.kind == EntryType::Outcome)
        .filter(|entry| entry.draft.correlation == Some(release.to_string()))
        .map(said)
        .collect()
}

async fn release(world: &World) -> EntryId {
    let entries = world.entries().await;
    let release = entries.iter().find(|entry| entry.kind == EntryType::Release);
    release.unwrap().id
}

#[tokio::test]
async fn a_call_that_is_never_answered_is_unknown_to_its_caller_and_in_the_log() {
    for loss in losses() {
        let (world, grant) = World::connected().await;
        world.fault(loss.clone()).await;
        let entry = unknown(&send_mail(&world, grant).await);
        assert_eq!(entry, release(&world).await, "{loss}");
        assert_eq!(
            outcomes(&world, entry).await,
            [("unknown".to_owned(), None)],
            "{loss}"
        );
    }
}

#[tokio::test]
async fn a_call_that_is_never_answered_is_not_repeated() {
    for loss in losses() {
        let (world, grant) = World::connected().await;
        let before = world.seen("api").await.len();
        world.fault(loss.clone()).await;
        unknown(&send_mail(&world, grant).await);
        assert_eq!(world.seen("api").await.len(), before + 1, "{loss}");
    }
}

#[tokio::test]
async fn the_key_of_a_call_that_is_never_answered_gives_the_same_unknown_again() {
    for loss in losses() {
        let (world, grant) = World::connected().await;
        world.fault(loss.clone()).await;
        let first = unknown(&send_mail(&world, grant).await);
        let before = world.seen("api").await.len();
        assert_eq!(unknown(&send_mail(&world, grant).await), first, "{loss}");
        assert_eq!(world.seen("api").await.len(), before, "{loss}");
    }
}

/// The provider called the first token dead, which is an answer; to the call with the second it gave none.
#[tokio::test]
async fn a_resend_that_is_never_answered_is_unknown() {
    let (world, grant) = World::connected().await;
    let before = world.seen("api").await.len();
    world
        .fault(json!({"next": "api", "status": 401, "body": {"error": "invalid_token"}}))
        .await;
    world.fault(json!({"next": "api", "hang_up": true})).await;
    let entry = unknown(&send_mail(&world, grant).await);
    assert_eq!(outcomes(&world, entry).await, [("unknown".to_owned(), None)]);
    assert_eq!(world.seen("api").await.len(), before + 2);
}

/// The provider calls the token of a call dead.
fn dead(delay_ms: u64) -> Value {
    json!({"next": "api", "delay_ms": delay_ms, "status": 401, "body": {"error": "invalid_token"}})
}

/// What is said of the token of before says nothing of the connection that took its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resend_that_is_refused_after_a_reconnect_leaves_the_new_connection_alone() {
    let (world, grant) = World::connected().await;
    let world = Arc::new(world);
    let before = world.seen("api").await.len();
    world.fault(dead(0)).await;
    world.fault(dead(4000)).await;
    let vending = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.vend(world.read(grant)).await })
    };
    world.until_seen("api", before + 2).await;
    let journey = Journey::begin(&world, world.ada, Some(grant)).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    journey.finish(&world, answer, &[Category::Read]).await.unwrap();
    let made = world.grant(grant).await;
    assert!(!vending.is_finished(), "it was refused before that");
    let refused = vending.await.unwrap();
    assert!(
        matches!(refused, Err(Refusal::ProviderUnavailable)),
        "{refused:?}"
    );
    let now = world.grant(grant).await;
    assert_eq!((now.state, now.generation), (GrantState::Active, made.generation));
    world.vend(world.read(grant)).await.unwrap();
}

/// The provider took the refresh token just now: that one is not dead.
#[tokio::test]
async fn a_fresh_token_that_is_refused_needs_its_person_and_says_nothing_of_the_refresh_token() {
    let (world, grant) = World::connected().await;
    world.fault(dead(0)).await;
    world.fault(dead(0)).await;
    let refused = world.vend(world.read(grant)).await;
    assert!(
        matches!(refused, Err(Refusal::ReconnectRequired(_))),
        "{refused:?}"
    );
    let reason = ReconnectReason::ConsentRequired;
    assert_eq!(
        world.grant(grant).await.state,
        GrantState::NeedsReconnect { reason }
    );
}

#[tokio::test]
async fn an_answer_that_is_an_error_is_known() {
    let (world, grant) = World::connected().await;
    world
        .fault(json!({"next": "api", "status": 503, "body": "down"}))
        .await;
    let answer = send_mail(&world, grant).await;
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!(503)));
    assert_eq!(
        outcomes(&world, release(&world).await).await,
        [("failed".to_owned(), Some("http_503".to_owned()))]
    );
}

/// A call that Acme Mail has and will not answer while the test runs: nobody writes its outcome.
async fn under_way() -> (Arc<World>, GrantId, EntryId) {
    let (world, grant) = World::connected().await;
    let world = Arc::new(world);
    let before = world.seen("api").await.len();
    world.fault(json!({"next": "api", "delay_ms": 120_000})).await;
    {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.vend(keyed(&world, grant)).await });
    }
    world.until_seen("api", before + 1).await;
    let release = release(&world).await;
    (world, grant, release)
}

fn keyed(world: &World, grant: GrantId) -> Ask {
    Ask {
        idempotency: Some(("k".to_owned(), "d".to_owned())),
        ..world.read(grant)
    }
}

#[tokio::test]
async fn a_release_without_an_outcome_is_unknown_after_five_minutes() {
    let (world, _, release) = under_way().await;
    world.later(Duration::from_secs(299));
    sweep::run(&world.deps).await.unwrap();
    assert_eq!(outcomes(&world, release).await, [], "it may still be answered");
    world.later(Duration::from_secs(2));
    sweep::run(&world.deps).await.unwrap();
    sweep::run(&world.deps).await.unwrap();
    assert_eq!(
        outcomes(&world, release).await,
        [("unknown".to_owned(), Some("not_recorded".to_owned()))]
    );
}

#[tokio::test]
async fn the_key_of_a_call_without_an_outcome_is_in_progress_and_then_unknown() {
    let (world, grant, release) = under_way().await;
    let first = world.vend(keyed(&world, grant)).await;
    assert!(
        matches!(&first, Err(Refusal::InProgress { entry }) if *entry == release),
        "{first:?}"
    );
    world.later(Duration::from_secs(301));
    sweep::run(&world.deps).await.unwrap();
    let then = world.vend(keyed(&world, grant)).await;
    assert!(
        matches!(&then, Err(Refusal::OutcomeUnknown { entry: Some(entry) }) if *entry == release),
        "{then:?}"
    );
}

#[tokio::test]
async fn a_revocation_lists_the_call_under_way_until_it_is_unknown() {
    let (world, grant, release) = under_way().await;
    let in_flight = async || world.revoke(Selector::Grant(grant)).await.in_flight.unwrap();
    assert_eq!(in_flight().await, [release]);
    world.later(Duration::from_secs(301));
    sweep::run(&world.deps).await.unwrap();
    assert_eq!(in_flight().await, []);
}

/// There are more of others' than are read at a time, and they were sent later.
#[tokio::test]
async fn a_call_under_way_is_listed_however_many_others_are() {
    let (world, grant, release) = under_way().await;
    let id = |kind: &str| {
        format!(
            "'{kind}_' || substr('{}', 1, 26 - length(CAST(n AS TEXT))) || n",
            "0".repeat(26)
        )
    };
    let (other, others) = (id("ent"), id("grt"));
    world
        .raw_sql(&format!(
            "INSERT INTO entries (org_id, id, epoch, ts, writer, writer_seq, kind, mode, bytes)
             WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1500)
             SELECT e.org_id, {other}, e.epoch, e.ts + n, 'x/hot', n, e.kind, e.mode,
               replace(replace(e.bytes, e.id, {other}), '{grant}', {others})
             FROM numbers, entries e WHERE e.id = '{release}'"
        ))
        .await;
    let left = world.revoke(Selector::Grant(grant)).await.in_flight.unwrap();
    assert_eq!(left, [release]);
    let left = world.revoke(Selector::All(true)).await.in_flight.unwrap();
    assert_eq!(left.len(), 1501);
}
