//! I3 over an orderly stop: what a provider was asked is waited for, though nobody else waits for it.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{browser::Browser, provider::Rotation, rotation::settled, server::Server};

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_nobody_waits_for_outlives_an_orderly_stop() {
    let mut server = Server::connected(Rotation::Strict).await;
    server.expire().await;
    // The provider rotates at once and says so 2 s later; whoever is gone by then has lost the grant.
    server
        .fault(json!({"next": "token", "after": true, "delay_ms": 2000, "times": 1}))
        .await;
    let caller = tokio::spawn(server.read());
    until_asked(&server, 2).await;
    caller.abort();

    server.ask_to_stop();
    assert!(server.until_dead().await.success());
    server.start_again().await;

    let (status, answer) = settled(&server, "after a stop").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        server.refreshes().await,
        1,
        "the token that came is kept, and is good"
    );
    let entries = server.entries().await;
    let kept = entries.iter().filter(|entry| entry["type"] == "refresh");
    assert_eq!(kept.count(), 1, "{entries:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_of_a_code_that_nobody_waits_for_outlives_an_orderly_stop() {
    let mut server = Server::connected(Rotation::Strict).await;
    server
        .fault(json!({"next": "token", "after": true, "delay_ms": 2000, "times": 1}))
        .await;
    let mut browser = Browser::default();
    let login = server.login_url().await;
    let consenting = browser
        .up_to_consent(&login, &server.url, &server.acme, "ada@acme.example")
        .await;
    let allow = [("decision", "allow")];
    tokio::select! {
        page = browser.submit(&consenting, "/authorize", &allow) => panic!("answered before: {page:?}"),
        () = until_asked(&server, 2) => {}
    }

    server.ask_to_stop();
    assert!(server.until_dead().await.success());
    assert_eq!(
        server.connects_to_confirm().await,
        1,
        "the tokens that came are kept, sealed"
    );
}

/// Waits until the provider has received so many questions for tokens; the first one was of the first connect.
async fn until_asked(server: &Server, times: usize) {
    let begun = Instant::now();
    while server.seen("token").await < times {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody asks");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
