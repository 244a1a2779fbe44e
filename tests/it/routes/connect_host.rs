//! Host applications: the link, the way back, and the completion that alone brings a grant to life (protocol §2).

mod again;

use std::{collections::BTreeSet, time::Duration};

use postern::{
    crypto::{lookup, random},
    domain::{GrantId, connector::Category, grant::Grant},
    flows::{
        choices::Choice,
        connect::{
            Visitor, begin,
            confirm::{self, Back, Confirmed},
        },
        sweep, upstream,
    },
};
use serde_json::{Value, json};

use crate::{
    hangups,
    harness::{Answer, Journey, Proof, World},
};

const RETURN: &str = "https://host.example/done";

async fn ask(world: &World, body: &Value) -> Answer {
    world
        .api()
        .post(&world.as_service(), "/v1/connect-sessions", body)
        .await
}

/// A link for the host's person 4711, taken through the provider and confirmed.
struct Arrived {
    session: String,
    code: String,
}

async fn travel(world: &World, url: &str) -> Confirmed {
    let link = random::parse_link_token(url.rsplit('/').next().unwrap()).unwrap();
    // Nobody Postern knows is at this browser.
    let visitor = Visitor { user: None };
    let cookie = begin::go(&world.deps, &link, visitor).await.unwrap();
    let journey = Journey {
        link,
        cookie,
        visitor,
    };
    let consent = journey.consent(world, "ada@acme.example", false).await;
    journey.come_back(world, consent).await.unwrap();
    let choice = Choice {
        agent: world.agent.agent,
        categories: BTreeSet::from([Category::Read]),
        raw: false,
    };
    confirm::confirm(
        &world.deps,
        &journey.link,
        Some(&journey.cookie),
        visitor,
        vec![choice],
    )
    .await
    .unwrap()
}

fn back(confirmed: Confirmed) -> Option<Back> {
    match confirmed {
        Confirmed::Connected(_) => None,
        Confirmed::Waiting(back) => back,
    }
}

async fn arrive(world: &World) -> Arrived {
    arrive_with(world, json!({})).await
}

async fn arrive_with(world: &World, more: Value) -> Arrived {
    let mut body = json!({"user": {"external_id": "4711"}, "connector": "acme-mail", "return_url": RETURN});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let made = ask(world, &body).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let confirmed = travel(world, made.json()["url"].as_str().unwrap()).await;
    let back = back(confirmed).unwrap();
    assert_eq!(back.return_url, RETURN);
    Arrived {
        session: made.json()["id"].as_str().unwrap().to_owned(),
        code: lookup::show_link(&back.code),
    }
}

async fn complete(world: &World, proof: &Proof, session: &str, code: &str, user: Value) -> Answer {
    let path = format!("/v1/connect-sessions/{session}/complete");
    world
        .api()
        .post(proof, &path, &json!({"code": code, "user": user}))
        .await
}

async fn right(world: &World, arrived: &Arrived) -> Answer {
    let user = json!({"external_id": "4711"});
    complete(world, &world.as_service(), &arrived.session, &arrived.code, user).await
}

async fn state(world: &World, session: &str) -> Value {
    let path = format!("/v1/connect-sessions/{session}");
    world.api().get(&world.as_service(), &path).await.json()
}

/// What the agent gets for the person of a session.
async fn vend(world: &World, session: &str) -> Answer {
    let user = state(world, session).await["user"].clone();
    let body = json!({"connector": "acme-mail", "user": user, "tool": "messages.list", "args": {}});
    world.api().post(&world.as_agent(), "/v1/vend", &body).await
}

/// The grant of person 4711, alive.
async fn living(world: &World) -> GrantId {
    let arrived = arrive(world).await;
    let done = right(world, &arrived).await;
    assert_eq!(done.status, 200, "{}", done.text());
    done.json()["grant"].as_str().unwrap().parse().unwrap()
}

/// Ten minutes go by and everything overdue is ended, here and at the provider.
async fn silence(world: &World) {
    world.later(Duration::from_secs(601));
    sweep::run(&world.deps).await.unwrap();
    upstream::drain(&world.deps).await.unwrap();
}

/// How often the person's mail was touched; asking who they are is not that.
async fn calls(world: &World) -> usize {
    let seen = world.seen("api").await;
    seen.iter()
        .filter(|entry| entry["path"].as_str().unwrap().starts_with("/api/"))
        .count()
}

/// The tokens are gone for good, here and at the provider, and nothing came of them.
async fn discarded(world: &World, arrived: &Arrived) {
    let state = state(world, &arrived.session).await;
    assert_eq!(state["status"], "failed", "{state}");
    upstream::drain(&world.deps).await.unwrap();
    assert!(
        !world.seen("revoke").await.is_empty(),
        "the provider was not told"
    );
    let refused = vend(world, &arrived.session).await;
    assert_eq!(refused.code(), "connection_required", "{}", refused.text());
    assert_eq!(calls(world).await, 0);
    let late = right(world, arrived).await;
    assert_eq!(late.status, 400, "{}", late.text());
}

#[tokio::test]
async fn the_right_code_for_the_right_person_brings_the_grant_to_life() {
    let world = World::new().await;
    let arrived = arrive(&world).await;
    let done = right(&world, &arrived).await;
    assert_eq!(done.status, 200, "{}", done.text());
    let done = done.json();
    assert_eq!(
        (&done["id"], &done["status"]),
        (&json!(arrived.session), &json!("completed"))
    );
    assert!(done["grant"].as_str().unwrap().starts_with("grt_"), "{done}");
    assert_eq!(vend(&world, &arrived.session).await.status, 200);
}

#[tokio::test]
async fn what_waits_for_its_completion_gives_nothing_and_is_no_grant() {
    let world = World::new().await;
    let arrived = arrive(&world).await;
    let waiting = state(&world, &arrived.session).await;
    assert_eq!(
        (&waiting["status"], waiting.get("grant")),
        (&json!("awaiting_complete"), None)
    );
    let refused = vend(&world, &arrived.session).await;
    assert_eq!(refused.code(), "connection_required", "{}", refused.text());
    for proof in [world.as_agent(), world.as_admin(), world.as_service()] {
        let listed = world.api().get(&proof, "/v1/grants").await.json();
        assert_eq!(listed["items"], json!([]));
    }
    assert_eq!(calls(&world).await, 0);
}

#[tokio::test]
async fn the_service_reads_the_state_of_the_grant_it_completed() {
    let world = World::new().await;
    let grant = living(&world).await;
    let path = format!("/v1/grants/{grant}");
    let seen = world.api().get(&world.as_service(), &path).await;
    assert_eq!((seen.status, &seen.json()["state"]), (200, &json!("active")));
    let listed = world.api().get(&world.as_service(), "/v1/grants").await.json();
    assert_eq!(listed["items"][0]["id"], json!(grant), "{listed}");
}

#[tokio::test]
async fn a_wrong_code_discards_the_grant_and_its_tokens_upstream() {
    let world = World::new().await;
    let arrived = arrive(&world).await;
    let wrong = complete(
        &world,
        &world.as_service(),
        &arrived.session,
        &"A".repeat(43),
        json!({"external_id": "4711"}),
    )
    .await;
    assert_eq!(wrong.status, 400, "{}", wrong.text());
    discarded(&world, &arrived).await;
}

#[tokio::test]
async fn a_code_of_another_form_discards_the_grant_and_its_tokens_upstream() {
    for code in [
        "x".to_owned(),
        "é".to_owned(),
        String::new(),
        "A".repeat(300),
        "a\nb".to_owned(),
    ] {
        let world = World::new().await;
        let arrived = arrive(&world).await;
        let user = json!({"external_id": "4711"});
        let wrong = complete(&world, &world.as_service(), &arrived.session, &code, user).await;
        assert_eq!(wrong.status, 400, "{code:?}: {}", wrong.text());
        discarded(&world, &arrived).await;
    }
}

#[tokio::test]
async fn another_person_of_the_same_host_discards_the_grant_and_its_tokens_upstream() {
    let world = World::new().await;
    ask(
        &world,
        &json!({"user": {"external_id": "other"}, "connector": "acme-mail"}),
    )
    .await;
    let arrived = arrive(&world).await;
    let wrong = complete(
        &world,
        &world.as_service(),
        &arrived.session,
        &arrived.code,
        json!({"external_id": "other"}),
    )
    .await;
    assert_eq!(wrong.status, 400, "{}", wrong.text());
    discarded(&world, &arrived).await;
}

#[tokio::test]
async fn completing_for_somebody_nobody_knows_discards_the_grant_and_makes_no_person() {
    let world = World::new().await;
    let arrived = arrive(&world).await;
    let before = world.api().get(&world.as_service(), "/v1/users").await.json();
    let wrong = complete(
        &world,
        &world.as_service(),
        &arrived.session,
        &arrived.code,
        json!({"external_id": "never seen"}),
    )
    .await;
    assert_eq!(wrong.status, 400, "{}", wrong.text());
    discarded(&world, &arrived).await;
    assert_eq!(
        world.api().get(&world.as_service(), "/v1/users").await.json(),
        before
    );
}

#[tokio::test]
async fn a_code_that_is_a_minute_old_discards_the_grant_and_its_tokens_upstream() {
    let world = World::new().await;
    let arrived = arrive(&world).await;
    world.later(Duration::from_secs(60));
    let late = right(&world, &arrived).await;
    assert_eq!(late.status, 400, "{}", late.text());
    discarded(&world, &arrived).await;
}

#[tokio::test]
async fn ten_minutes_of_silence_discard_the_grant_and_its_tokens_upstream() {
    let world = World::new().await;
    let arrived = arrive(&world).await;
    silence(&world).await;
    assert!(!world.seen("revoke").await.is_empty());
    let late = right(&world, &arrived).await;
    assert_eq!(late.status, 400, "{}", late.text());
    assert_eq!(vend(&world, &arrived.session).await.code(), "connection_required");
}

#[tokio::test]
async fn another_service_neither_completes_nor_harms_a_session() {
    let world = World::new().await;
    let applied = world
        .apply(&json!({"service": [{"name": "Other host", "return_urls": [RETURN]}]}))
        .await;
    let other = Proof::Key(applied["keys"][0]["key"].as_str().unwrap().to_owned());
    let arrived = arrive(&world).await;
    let user = state(&world, &arrived.session).await["user"].clone();
    for user in [json!({"external_id": "4711"}), user] {
        let refused = complete(&world, &other, &arrived.session, &arrived.code, user).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (404, "not_found"),
            "{}",
            refused.text()
        );
    }
    assert_eq!(right(&world, &arrived).await.status, 200);
}

#[tokio::test]
async fn a_code_completes_once() {
    let world = World::new().await;
    let arrived = arrive(&world).await;
    assert_eq!(right(&world, &arrived).await.status, 200);
    assert_eq!(right(&world, &arrived).await.status, 400);
    assert_eq!(
        vend(&world, &arrived.session).await.status,
        200,
        "the second call ends nothing"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_dropped_after_any_poll_is_done_once_when_it_is_asked_for_again() {
    let world = World::new().await;
    for polls in 0.. {
        let arrived = arrive(&world).await;
        let done = hangups::dropped_after(right(&world, &arrived), polls).await;
        let again = right(&world, &arrived).await;
        // It was done already, or is being done.
        assert!([200, 400].contains(&again.status), "{polls}: {}", again.text());
        hangups::until("completed", async || {
            let state = state(&world, &arrived.session).await;
            assert_ne!(state["status"], "failed", "{polls}: {state}");
            (state["status"] == "completed").then_some(())
        })
        .await;
        assert_eq!(vend(&world, &arrived.session).await.status, 200, "{polls}");
        if let Some(done) = done {
            assert_eq!((done.status, again.status), (200, 400), "{polls}");
            if polls >= hangups::AT_LEAST {
                break;
            }
        }
    }
    hangups::nothing_stays_open(&world).await;
}

#[tokio::test]
async fn the_way_back_is_exactly_one_that_was_registered() {
    let world = World::new().await;
    for url in [
        "https://host.example/done/",
        "https://host.example/done?x=1",
        "https://host.example/done#x",
        "https://host.example/",
        "https://HOST.example/done",
        "https://host.example:443/done",
        "http://host.example/done",
        "https://host.example/done/../done",
        "https://host.example.evil.example/done",
        "https://evil.example/https://host.example/done",
        "",
    ] {
        let body = json!({"user": {"external_id": "4711"}, "connector": "acme-mail", "return_url": url});
        let refused = ask(&world, &body).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (400, "invalid_request"),
            "{url}"
        );
        assert_eq!(refused.json()["errors"][0]["pointer"], "/return_url", "{url}");
    }
}

#[tokio::test]
async fn a_return_address_of_another_service_is_not_registered_for_this_one() {
    let world = World::new().await;
    let theirs = "https://other.example/done";
    world
        .apply(&json!({"service": [{"name": "Other host", "return_urls": [theirs]}]}))
        .await;
    let body = json!({"user": {"external_id": "4711"}, "connector": "acme-mail", "return_url": theirs});
    assert_eq!(ask(&world, &body).await.status, 400);
}

#[tokio::test]
async fn a_service_makes_no_link_for_a_person_it_does_not_manage() {
    let world = World::new().await;
    let body = json!({"user": world.ada, "connector": "acme-mail"});
    let refused = ask(&world, &body).await;
    assert_eq!((refused.status, refused.code().as_str()), (404, "not_found"));
}

#[tokio::test]
async fn the_same_name_at_two_services_is_two_people() {
    let world = World::new().await;
    let applied = world
        .apply(&json!({"service": [{"name": "Other host", "return_urls": []}]}))
        .await;
    let other = Proof::Key(applied["keys"][0]["key"].as_str().unwrap().to_owned());
    let body = json!({"user": {"external_id": "4711"}, "connector": "acme-mail"});
    let person = async |proof: &Proof| {
        let made = world
            .api()
            .post(proof, "/v1/connect-sessions", &body)
            .await
            .json();
        let path = format!("/v1/connect-sessions/{}", made["id"].as_str().unwrap());
        world.api().get(proof, &path).await.json()["user"].clone()
    };
    let ours = person(&world.as_service()).await;
    assert_eq!(ours, person(&world.as_service()).await);
    assert_ne!(ours, person(&other).await);
}

#[tokio::test]
async fn a_link_an_agent_obtained_never_comes_to_life_by_the_page_alone() {
    let world = World::new().await;
    let made = ask(
        &world,
        &json!({"user": {"external_id": "4711"}, "connector": "acme-mail"}),
    )
    .await
    .json();
    let person = state(&world, made["id"].as_str().unwrap()).await["user"].clone();
    let body = json!({"connector": "acme-mail", "user": person, "tool": "messages.list", "args": {}});
    let asked = world.api().post(&world.as_agent(), "/v1/vend", &body).await;
    assert_eq!(asked.code(), "connection_required", "{}", asked.text());
    let confirmed = travel(&world, asked.json()["connect"]["url"].as_str().unwrap()).await;
    assert!(back(confirmed).is_none());
    let asked = world.api().post(&world.as_agent(), "/v1/vend", &body).await;
    assert_eq!(asked.code(), "connection_required", "{}", asked.text());
    silence(&world).await;
    assert!(!world.seen("revoke").await.is_empty());
    assert_eq!(calls(&world).await, 0);
}
