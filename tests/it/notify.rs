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
    domain::{
        GrantId, OrgId, Time,
        connector::Category,
        grant::{GrantState, ReconnectReason},
    },
    egress::{Webhook, operator_client},
    flows::{Deps, Refusal, notify, refresh::ahead, upstream},
    store::Selector,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

use super::{
    harness::{Journey, World},
    shared::loopback,
};

mod asked;
mod turns;

/// The example of the Standard Webhooks reference libraries.
const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What a receiver got, and what it answers.
struct Receiver {
    url: String,
    got: Mutex<Vec<(HeaderMap, Bytes)>>,
    status: AtomicU16,
    /// For how long it asks to be left alone in its next answer.
    after: Mutex<Option<&'static str>>,
    /// The org whose messages hang.
    held: watch::Sender<Option<OrgId>>,
}

impl Receiver {
    /// Starts one and lets the world know it.
    async fn of(world: &mut World) -> Arc<Self> {
        let (listener, origin) = loopback::listen().await;
        let receiver = Arc::new(Self {
            url: format!("{origin}/in"),
            got: Mutex::default(),
            status: AtomicU16::new(204),
            after: Mutex::default(),
            held: watch::Sender::new(None),
        });
        let there = Arc::clone(&receiver);
        let take = move |headers: HeaderMap, body: Bytes| async move {
            let status = there.status.load(Ordering::SeqCst);
            let org = org_of(&body);
            there.got.lock().unwrap().push((headers, body));
            let mut held = there.held.subscribe();
            held.wait_for(|held| *held != Some(org)).await.unwrap();
            let after = there.after.lock().unwrap().take();
            let said = after.map(|after| [("retry-after", after)]);
            (StatusCode::from_u16(status).unwrap(), said, ())
        };
        tokio::spawn(loopback::serve(listener, Router::new().route("/in", post(take))));
        receiver.is_told_by(&mut world.deps).await;
        receiver
    }

    /// Lets a replica know it.
    async fn is_told_by(&self, deps: &mut Arc<Deps>) {
        let key = WebhookKey::parse(&format!("whsec_{SECRET}")).unwrap();
        let webhook = Webhook::new(self.url.parse().unwrap(), key, operator_client().unwrap());
        let deps = Arc::get_mut(deps).expect("nobody else holds the replica's parts");
        deps.webhook = Some(Arc::new(webhook));
        deps.store.tell_changes(true).await.unwrap();
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

fn org_of(body: &[u8]) -> OrgId {
    let body: Value = serde_json::from_slice(body).unwrap();
    body["data"]["org"].as_str().unwrap().parse().unwrap()
}

/// The provider ends Ada's grant, and Postern finds out.
pub async fn found_dead(world: &World, grant: GrantId) {
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

/// What was written down while the clock was ahead by hours does not wait for these hours when it is put right.
#[tokio::test]
async fn a_change_that_was_noted_ahead_of_time_is_told_at_once() {
    let (mut world, grant) = World::connected().await;
    let receiver = Receiver::of(&mut world).await;
    let ahead = Duration::from_secs(3 * 3600);
    world.later(ahead);
    found_dead(&world, grant).await;
    world.clock.put_back(ahead);
    assert_eq!(notify::tell(&world.deps).await.unwrap(), 1);
    assert_eq!(receiver.messages().len(), 1);
}

/// Nor does what a receiver failed to take then: it is told again as if the clock had been right.
#[tokio::test]
async fn a_message_that_failed_ahead_of_time_is_told_again_soon() {
    let (mut world, grant) = World::connected().await;
    let receiver = Receiver::of(&mut world).await;
    receiver.answers(500);
    let ahead = Duration::from_secs(3 * 3600);
    world.later(ahead);
    found_dead(&world, grant).await;
    assert_eq!(notify::tell(&world.deps).await.unwrap(), 0);
    world.clock.put_back(ahead);
    receiver.answers(204);
    world.later(Duration::from_secs(151));
    assert_eq!(notify::tell(&world.deps).await.unwrap(), 1);
    assert_eq!(receiver.messages().len(), 2);
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
pub async fn reconnect(world: &World, grant: GrantId) {
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

/// Who is moved back has nothing to be asked of anybody for.
#[tokio::test]
async fn a_connector_that_is_moved_back_needs_nobodys_consent_again() {
    let (mut world, grant, listener) = moved_elsewhere().await;
    world.vend(world.read(grant)).await.unwrap_err();
    assert_ne!(world.grant(grant).await.state, GrantState::Active);
    let elsewhere = format!("http://{}/token", listener.local_addr().unwrap());
    let (there, file) = (
        format!("{}/token", world.acme),
        format!("connectors/{}.toml", world.connector),
    );
    world = world
        .restarted_after(|dir| {
            let file = dir.join(file);
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(text.contains(&elsewhere), "{text}");
            std::fs::write(file, text.replace(&elsewhere, &there)).unwrap();
        })
        .await;
    let receiver = Receiver::of(&mut world).await;
    world.vend(world.read(grant)).await.unwrap();
    assert_eq!(world.grant(grant).await.state, GrantState::Active);
    assert_eq!(notify::tell(&world.deps).await.unwrap(), 1);
    assert_eq!(receiver.messages()[0].1["data"]["state"], "active");
}

/// A grant in use, started again with a connector whose tokens come from somewhere else; who listens there answers nothing.
pub async fn moved_elsewhere() -> (World, GrantId, TcpListener) {
    let world = World::with_connector(&[]).await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    world.vend(world.read(grant)).await.unwrap();
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 1, "its time is set");
    let (listener, origin) = loopback::listen().await;
    let before = format!("token_url = \"{}/token\"", world.acme);
    let after = format!("token_url = \"{origin}/token\"");
    let file = format!("connectors/{}.toml", world.connector);
    let world = world
        .restarted_after(|dir| {
            let file = dir.join(file);
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(text.contains(&before), "{text}");
            std::fs::write(file, text.replace(&before, &after)).unwrap();
            std::fs::write(dir.join("elsewhere"), origin.trim_start_matches("http://")).unwrap();
        })
        .await;
    (world, grant, listener)
}

/// The grant needs its person, and that is told once; nobody was asked for tokens, here or there.
async fn needs_consent(
    world: &World,
    grant: GrantId,
    receiver: &Receiver,
    asked: usize,
    listener: &TcpListener,
) {
    let state = GrantState::NeedsReconnect {
        reason: ReconnectReason::BindingChanged,
    };
    for _ in 0..1000 {
        if world.grant(grant).await.state != GrantState::Active {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.grant(grant).await.state, state);
    assert_eq!(notify::tell(&world.deps).await.unwrap(), 1);
    assert_eq!(notify::tell(&world.deps).await.unwrap(), 0);
    let [(_, body)] = &receiver.messages()[..] else {
        panic!("{:?}", receiver.messages());
    };
    assert_eq!(
        (&body["data"]["state"], &body["data"]["reason"]),
        (&json!("needs_reconnect"), &json!("binding_changed"))
    );
    assert_eq!(world.seen("token").await.len(), asked);
    let came = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(came.is_err(), "{came:?}");
}

/// Nobody consented to where the refresh token would go.
#[tokio::test]
async fn a_grant_whose_connector_moved_elsewhere_is_not_renewed_and_that_is_told() {
    let (mut world, grant, listener) = moved_elsewhere().await;
    let receiver = Receiver::of(&mut world).await;
    let asked = world.seen("token").await.len();
    world.later(Duration::from_secs(265));
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 1);
    needs_consent(&world, grant, &receiver, asked, &listener).await;
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 0, "nor is it looked at");
}

#[tokio::test]
async fn the_first_vend_after_a_connector_moved_elsewhere_is_what_tells() {
    let (mut world, grant, listener) = moved_elsewhere().await;
    let receiver = Receiver::of(&mut world).await;
    let asked = world.seen("token").await.len();
    for vends in 1..=2 {
        let refused = world.vend(world.read(grant)).await;
        assert!(
            matches!(refused, Err(Refusal::ReconnectRequired(_))),
            "{refused:?}"
        );
        let mut tx = world.deps.store.read(world.org).await.unwrap();
        let links = tx
            .connects_asked_since(
                world.org,
                world.ada,
                world.agent.agent,
                Time::from_unix_seconds(0),
            )
            .await;
        assert_eq!(links.unwrap(), vends, "a link for each refusal");
    }
    needs_consent(&world, grant, &receiver, asked, &listener).await;
    let entries = world.entries().await;
    let said = entries
        .iter()
        .filter(|entry| entry.draft.reason.as_deref() == Some("binding_changed"));
    assert_eq!(said.count(), 1);
}
