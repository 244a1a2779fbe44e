//! I2: a process that was stopped after its entry was durable releases nothing when it goes on too late, and says so.

use postern::failpoints::Failpoint;
use serde_json::{Value, json};

use crate::process::{Dev, LONGER_THAN_A_RECEIPT};

/// The process is stopped at `place` while it answers a vend, and goes on after a receipt has died.
async fn stopped_too_long(place: Failpoint, more: Value) -> (Dev, u16, Value) {
    let dev = Dev::start();
    dev.connect().await;
    // What the vend needs is there and warm, so that nothing but the release itself calls Acme Mail.
    let (status, answer) = dev.read(&more).await;
    assert_eq!(status, 200, "{answer}");
    let before = dev.seen("api").await;
    dev.order(place, "stop");
    let vending = tokio::spawn(dev.read(&more));
    let dev = tokio::task::spawn_blocking(move || {
        dev.wait_until_stopped();
        std::thread::sleep(LONGER_THAN_A_RECEIPT);
        dev.go_on();
        dev
    })
    .await
    .unwrap();
    let (status, answer) = vending.await.unwrap();
    assert_eq!(dev.seen("api").await, before, "something was sent");
    (dev, status, answer)
}

/// A refusal with nothing of a token in it, a release entry, and the entry that says it was dropped.
async fn nothing_was_released(dev: &Dev, status: u16, answer: &Value, refused_as: &str) {
    // Not a word of keys: none is missing. Asked again, it is made.
    let code = answer["code"].as_str().unwrap();
    assert_eq!((status, code), (503, refused_as), "{answer}");
    assert!(answer["access_token"].is_null());
    let entries = dev.entries().await;
    let release = entries.iter().find(|entry| entry["type"] == "release").unwrap();
    let dropped = entries.iter().find(|entry| entry["type"] == "dropped").unwrap();
    assert_eq!(dropped["correlation"], release["id"], "{entries:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_between_commit_and_opening_an_execute_releases_nothing() {
    let (dev, status, answer) = stopped_too_long(Failpoint::GateCommitted, json!({})).await;
    nothing_was_released(&dev, status, &answer, "store_unavailable").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_between_opening_and_sending_an_execute_releases_nothing() {
    let (dev, status, answer) = stopped_too_long(Failpoint::ExecuteOpened, json!({})).await;
    nothing_was_released(&dev, status, &answer, "provider_unavailable").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_between_commit_and_opening_a_token_releases_nothing() {
    let (dev, status, answer) = stopped_too_long(Failpoint::GateCommitted, json!({"mode": "token"})).await;
    nothing_was_released(&dev, status, &answer, "store_unavailable").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_between_opening_a_token_and_answering_releases_nothing() {
    let (dev, status, answer) = stopped_too_long(Failpoint::TokenOpened, json!({"mode": "token"})).await;
    nothing_was_released(&dev, status, &answer, "store_unavailable").await;
}
