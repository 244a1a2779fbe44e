//! The operator's webhook is told where a grant stands whenever that changes.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Bytes, http::HeaderMap, http::StatusCode, routing::post};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use postern::{
    crypto::webhook::WebhookKey,
    domain::{GrantId, connector::Category},
    egress::{Webhook, operator_client},
    flows::{notify, upstream},
    store::Selector,
};
use serde_json::{Value, json};

use super::{
    harness::{Journey, World},
    shared::loopback,
};

/// The example of the Standard Webhooks reference libraries.
const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What a receiver got, and what it answers.
struct Receiver {
    got: Mutex<Vec<(HeaderMap, Bytes)>>,
    status: AtomicU16,
}

impl Receiver {
    /// Starts one and lets the world know it.
    async fn of(world: &mut World) -> Arc<Self> {
        let receiver = Arc::new(Self {
            got: Mutex::default(),
            status: AtomicU16::new(204),
        });
        let (listener, origin) = loopback::listen().await;
        let url = format!("{origin}/in");
        let there = Arc::clone(&receiver);
        let take = move |headers: HeaderMap, body: Bytes| async move {
            there.got.lock().unwrap().push((headers, body));
            StatusCode::from_u16(there.status.load(Ordering::SeqCst)).unwrap()
        };
        tokio::spawn(loopback::serve(listener, Router::new().route("/in", post(take))));
        let key = WebhookKey::parse(&format!("whsec_{SECRET}")).unwrap();
        let webhook = Webhook::new(url.parse().unwrap(), key, operator_client().unwrap());
        let deps = Arc::get_mut(&mut world.deps).expect("nobody else holds the world's parts");
        deps.webhook = Some(Arc::new(webhook));
        deps.store.tell_changes(true).await.unwrap();
        receiver
    }

    fn answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// The messages so far: id and body, their signatures checked.
    fn messages(&self) -> Vec<(String, Value)> {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &BASE64_STANDARD.decode(SECRET).unwrap());
        let got = self.got.lock().unwrap();
        got.iter()
            .map(|(headers, body)| {
                let header = |name: &str| headers[name].to_str().unwrap().to_owned();
                let (id, time) = (header("webhook-id"), header("webhook-timestamp"));
                let signature = header("webhook-signature");
                let signature = BASE64_STANDARD
                    .decode(signature.strip_prefix("v1,").unwrap())
                    .unwrap();
                let signed = [id.as_bytes(), b".", time.as_bytes(), b".", body].concat();
                ring::hmac::verify(&key, &signed, &signature).unwrap();
                (id, serde_json::from_slice(body).unwrap())
            })
            .collect()
    }
}

/// The provider ends Ada's grant, and Postern finds out.
async fn found_dead(world: &World, grant: GrantId) {
    let url = format!("{}/admin/disconnect", world.acme);
    super::harness::fetch("POST", &url, Some(json!({"account": "ada@acme.example"}))).await;
    world.later(Duration::from_secs(400));
    world.vend(world.read(grant)).await.unwrap_err();
}

#[tokio::test]
async fn a_grant_that_has_to_be_connected_again_is_told_signed_and_once() {
    let (mut world, grant) = World::connected().await;
    let receiver = Receiver::of(&mut world).await;
    found_dead(&world, grant).await;
    assert_eq!(notify::tell(&world.deps).await.unwrap(), 1);
    assert_eq!(notify::tell(&world.deps).await.unwrap(), 0);
    let [(id, body)] = &receiver.messages()[..] else {
        panic!("{:?}", receiver.messages());
    };
    assert_eq!(*id, format!("{grant}.1"));
    assert_eq!(body["type"], "grant.state_changed");
    assert!(body["timestamp"].is_string(), "{body}");
    assert_eq!(
        body["data"],
        json!({
            "org": world.org, "grant": grant, "user": world.ada, "connector": "acme-mail",
            "state": "needs_reconnect", "reason": "refresh_token_dead",
        })
    );
}

#[tokio::test]
async fn a_receiver_that_fails_is_told_later_what_holds_then() {
    let (mut world, grant) = World::connected().await;
    let receiver = Receiver::of(&mut world).await;
    receiver.answers(500);
    found_dead(&world, grant).await;
    assert_eq!(notify::tell(&world.deps).await.unwrap(), 0);
    assert_eq!(
        notify::tell(&world.deps).await.unwrap(),
        0,
        "it is left alone for a while"
    );
    receiver.answers(200);
    world.later(Duration::from_secs(151));
    assert_eq!(notify::tell(&world.deps).await.unwrap(), 1);
    let messages = receiver.messages();
    assert_eq!(messages.len(), 2);
    assert_eq!(
        messages[0], messages[1],
        "the same message, so that it can be told apart"
    );
}

#[tokio::test]
async fn the_end_of_a_grant_is_told_once_it_is_worked_off() {
    let (mut world, grant) = World::connected().await;
    let receiver = Receiver::of(&mut world).await;
    world.revoke(Selector::Grant(grant)).await;
    upstream::fan_out(&world.deps).await.unwrap();
    assert_eq!(notify::tell(&world.deps).await.unwrap(), 1);
    assert_eq!(receiver.messages()[0].1["data"]["state"], "revoked");
}

/// Ada connects the same account again.
async fn reconnect(world: &World, grant: GrantId) {
    let journey = Journey::begin(world, world.ada, Some(grant)).await;
    let answer = journey.consent(world, "ada@acme.example", false).await;
    let again = journey.finish(world, answer, &[Category::Read]).await.unwrap();
    assert_eq!(again, grant);
}

#[tokio::test]
async fn every_state_a_grant_comes_to_is_told_under_a_number_that_grows() {
    let (mut world, grant) = World::connected().await;
    let receiver = Receiver::of(&mut world).await;
    let told = async |world: &World| {
        assert_eq!(notify::tell(&world.deps).await.unwrap(), 1);
        assert_eq!(notify::tell(&world.deps).await.unwrap(), 0);
    };
    found_dead(&world, grant).await;
    told(&world).await;
    reconnect(&world, grant).await;
    told(&world).await;
    // More than she consented to: it is kept apart.
    world.later(Duration::from_secs(400));
    world
        .fault(json!({"next": "token", "widen_scope": true, "times": 1}))
        .await;
    world.vend(world.read(grant)).await.unwrap_err();
    told(&world).await;
    reconnect(&world, grant).await;
    told(&world).await;
    world.revoke(Selector::Grant(grant)).await;
    upstream::fan_out(&world.deps).await.unwrap();
    told(&world).await;

    let messages = receiver.messages();
    let got: Vec<_> = messages
        .iter()
        .map(|(id, body)| (id.clone(), &body["data"]["state"], &body["data"]["reason"]))
        .collect();
    let (dead, none) = (json!("refresh_token_dead"), Value::Null);
    let states = ["needs_reconnect", "active", "quarantined", "active", "revoked"].map(|state| json!(state));
    let expected: Vec<_> = (1..)
        .zip(&states)
        .map(|(number, state)| {
            let reason = if number == 1 { &dead } else { &none };
            (format!("{grant}.{number}"), state, reason)
        })
        .collect();
    assert_eq!(got, expected);
}

#[tokio::test]
async fn without_a_receiver_nothing_is_kept_for_one() {
    let (mut world, grant) = World::connected().await;
    found_dead(&world, grant).await;
    let receiver = Receiver::of(&mut world).await;
    assert_eq!(notify::tell(&world.deps).await.unwrap(), 0);
    assert_eq!(receiver.messages(), []);
}
