//! What people read of a grant on their pages is what the database has: each state a grant comes to, from what brought it
//! there to the word and the reason shown.

use std::time::Duration;

use postern::{
    domain::{GrantId, grant::GrantState},
    flows::upstream,
    store::Selector,
};
use serde_json::json;

use super::{
    harness::{Proof, World, log_in},
    notify::{found_dead, moved_elsewhere, reconnect},
};

/// The word and the reason that Ada reads of her one grant: on its own page, and the same in the list of all.
async fn shown(world: &World, grant: GrantId) -> (String, String) {
    let ada = log_in(&world.deps, world.org, world.ada).await;
    let own = page(world, &ada, &format!("/connections/{grant}")).await;
    let list = page(world, &ada, "/connections").await;
    let (word, why) = (badge(&own), between(&own, "<p class=\"card-status\">", "</p>"));
    assert_eq!(badge(&list), word, "{list}");
    // In the list, what works needs no reason.
    assert_eq!(list.contains(&why), word != "Active", "{list}");
    (word, why)
}

async fn page(world: &World, person: &Proof, path: &str) -> String {
    let answer = world.api().get(person, path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.text()
}

/// The word of the first badge, behind its icon.
fn badge(page: &str) -> String {
    let badge = between(page, "<span class=\"badge ", "</span>");
    badge.rsplit('>').next().unwrap().to_owned()
}

fn between(page: &str, begin: &str, end: &str) -> String {
    let rest = page
        .split_once(begin)
        .unwrap_or_else(|| panic!("no {begin}: {page}"))
        .1;
    rest.split_once(end).unwrap().0.trim().to_owned()
}

/// Ada reads this word, and a reason that begins like this.
async fn reads(world: &World, grant: GrantId, word: &str, why: &str) {
    let shown = shown(world, grant).await;
    assert_eq!(shown.0, word);
    assert!(shown.1.starts_with(why), "{}", shown.1);
}

async fn works(world: &World, grant: GrantId) {
    assert_eq!(world.grant(grant).await.state, GrantState::Active);
    let why = "Agents you allow can use this connection, each time only after an allow decision.";
    reads(world, grant, "Active", why).await;
}

#[tokio::test]
async fn every_state_a_grant_comes_to_is_what_its_person_reads() {
    let (world, grant) = World::connected().await;
    works(&world, grant).await;
    found_dead(&world, grant).await;
    let dead = "The app ended this access. Reconnect to give it again.";
    reads(&world, grant, "Needs reconnect", dead).await;
    reconnect(&world, grant).await;
    works(&world, grant).await;

    // More than she consented to.
    world.later(Duration::from_secs(400));
    let wider = json!({"next": "token", "widen_scope": true, "times": 1});
    world.fault(wider).await;
    world.vend(world.read(grant)).await.unwrap_err();
    let apart = "The app granted more than was asked for, so nothing uses this connection.";
    reads(&world, grant, "Quarantined", apart).await;
    reconnect(&world, grant).await;
    works(&world, grant).await;

    world.revoke(Selector::Grant(grant)).await;
    let ended = async |said: &str| {
        let (word, why) = shown(&world, grant).await;
        assert_eq!(word, "Revoked");
        assert!(why.starts_with("Ended ") && why.ends_with(said), "{why}");
    };
    ended("The app has been asked to end it too and has not answered yet.").await;
    upstream::fan_out(&world.deps).await.unwrap();
    upstream::drain(&world.deps).await.unwrap();
    ended("the app confirmed that it ended it too.").await;
}

#[tokio::test]
async fn who_has_to_consent_again_reads_that() {
    let (world, grant) = World::connected().await;
    world.later(Duration::from_secs(400));
    let asks = json!({"next": "token", "status": 400, "body": {"error": "consent_required"}, "times": 1});
    world.fault(asks).await;
    world.vend(world.read(grant)).await.unwrap_err();
    let why = "The app wants to hear your consent again.";
    reads(&world, grant, "Needs reconnect", why).await;
}

#[tokio::test]
async fn a_renewal_whose_answer_was_lost_is_told_as_that() {
    let (world, grant) = World::connected().await;
    world.later(Duration::from_secs(400));
    let lost = json!({"next": "token", "after": true, "hang_up": true, "times": 1});
    world.fault(lost).await;
    world.vend(world.read(grant)).await.unwrap_err();
    // Nothing is known yet: it may be had still.
    works(&world, grant).await;
    world.later(Duration::from_secs(120));
    world.vend(world.read(grant)).await.unwrap_err();
    let why = "The app renewed this access, but its answer was lost on the way. Reconnect to give it again.";
    reads(&world, grant, "Needs reconnect", why).await;
}

#[tokio::test]
async fn an_app_that_moved_elsewhere_is_told_as_that() {
    let (world, grant, _elsewhere) = moved_elsewhere().await;
    world.vend(world.read(grant)).await.unwrap_err();
    let why = "The addresses of this app have changed since you agreed. Look at them and agree again.";
    reads(&world, grant, "Needs reconnect", why).await;
}

#[tokio::test]
async fn an_access_that_nothing_can_renew_is_told_as_that() {
    let (world, grant) = World::connected().await;
    // As from a provider that gives no refresh token.
    world
        .raw_sql("DELETE FROM secrets WHERE kind = 'refresh_token'")
        .await;
    world.later(Duration::from_secs(400));
    world.vend(world.read(grant)).await.unwrap_err();
    let why = "This access has ended, and the app gave no way to renew it.";
    reads(&world, grant, "Needs reconnect", why).await;
}
