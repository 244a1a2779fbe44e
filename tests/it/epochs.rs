//! Facts of two epochs never meet, neither in a vend nor before policy; nor do those of one epoch and of another that a
//! database which went back gave the same number.

use std::{sync::Arc, time::Duration};

use postern::{
    domain::connector::Category,
    flows::{
        Deps, Refusal, actions, apply,
        delegate::{self, Ask},
        describe, refused, revoke,
    },
    policy::OrgPermit,
    store::Selector,
};
use serde_json::json;

use super::harness::{World, ask, ending};

/// Ada lets the agent do these things and no others from now on; the epoch moves on.
async fn delegate(world: &World, grant: postern::domain::GrantId, category: Category) {
    delegate_on(&world.deps, world, grant, category).await;
}

/// The same on one replica of several.
async fn delegate_on(deps: &Deps, world: &World, grant: postern::domain::GrantId, category: Category) {
    let ask = Ask {
        agent: world.agent.agent,
        grant,
        categories: [category].into(),
        tools: [].into(),
        raw: false,
        expires_at: None,
    };
    delegate::make(deps, world.org, world.ada, ask).await.unwrap();
}

#[tokio::test]
async fn a_grant_remembered_from_an_older_epoch_than_its_agent_is_read_again() {
    let (world, grant) = World::connected().await;
    let (caller, facts) = (world.agent, &world.deps.facts);
    let agent = facts.agent(&world.deps, caller.org, caller.agent).await.unwrap();
    // The grant is remembered as it was, the agent will be read as it is.
    facts.forget(world.org);
    facts.grant(&world.deps, &agent, grant).await.unwrap();
    delegate(&world, grant, Category::Write).await;
    let refused = world.vend(world.read(grant)).await;
    assert!(
        matches!(&refused, Err(Refusal::Denied { reason, .. }) if reason == "not_delegated"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn policy_is_never_asked_with_an_agent_and_a_grant_of_two_epochs() {
    let (world, grant) = World::connected().await;
    let caller = world.agent;
    let prepared = actions::prepare(&world.deps, caller, &world.read(grant))
        .await
        .unwrap();
    delegate(&world, grant, Category::Write).await;
    world.deps.facts.forget(world.org);
    let agent = world
        .deps
        .facts
        .agent(&world.deps, caller.org, caller.agent)
        .await
        .unwrap();
    let now = world.deps.clock.now();
    let judged = agent.evaluate(&prepared, None, now, &OrgPermit::Policy);
    assert!(matches!(judged, Err(Refusal::Unsettled)), "{judged:?}");
}

#[tokio::test]
async fn a_grant_of_another_epoch_than_its_agent_is_not_looked_at() {
    let (world, grant) = World::connected().await;
    let (caller, facts) = (world.agent, &world.deps.facts);
    let agent = facts.agent(&world.deps, caller.org, caller.agent).await.unwrap();
    let held = facts.grant(&world.deps, &agent, grant).await;
    assert!(held.unwrap().is_some());
    delegate(&world, grant, Category::Write).await;
    let held = facts.grant(&world.deps, &agent, grant).await;
    assert!(matches!(held, Err(Refusal::Unsettled)), "{held:?}");
}

/// The agent's facts are remembered from before an admin let it do more, and the grant is read after that.
#[tokio::test]
async fn nothing_is_refused_on_an_agents_older_facts_because_newer_ones_of_the_grant_were_read_meanwhile() {
    let open = "permit (principal, action, resource);";
    let reads = r#"permit (principal, action in Action::"read", resource);"#;
    let world = World::with_policies(open, reads).await;
    let grant = world.connect(world.ada, &[Category::Read, Category::Write]).await;
    let (caller, facts) = (world.agent, &world.deps.facts);
    for _ in 0..2 {
        world.vend(world.read(grant)).await.unwrap();
    }
    let before = facts.agent(&world.deps, caller.org, caller.agent).await.unwrap();
    let document = toml::to_string(&json!({"policies": {"agent": [open]}})).unwrap();
    apply::apply(&world.deps, world.org, "test".to_owned(), &document)
        .await
        .unwrap();
    let held = facts.agent(&world.deps, caller.org, caller.agent).await.unwrap();
    assert!(Arc::ptr_eq(&before, &held), "it is remembered");
    facts.forget_grant(world.org, grant);
    let args = json!({"to": ["ben@acme.example"], "subject": "s", "body": "b"});
    let sent = world.vend(ask(grant, "messages.send", args)).await;
    assert!(sent.is_ok(), "{sent:?}");
}

#[tokio::test]
async fn a_refusal_holds_at_the_epoch_it_rests_on_whatever_others_have_read_since() {
    let (world, grant) = World::connected().await;
    let (caller, facts) = (world.agent, &world.deps.facts);
    let agent = facts.agent(&world.deps, caller.org, caller.agent).await.unwrap();
    let holds = async || {
        facts
            .holds(&world.deps, world.org, agent.facts.epoch)
            .await
            .unwrap()
    };
    assert!(holds().await);
    delegate(&world, grant, Category::Write).await;
    facts.forget(world.org);
    assert!(!holds().await, "nothing is remembered");
    facts.agent(&world.deps, caller.org, caller.agent).await.unwrap();
    assert!(!holds().await, "something newer is");
    let entries = world.entries().await.len();
    let reason = "not_permitted".to_owned();
    let ask = world.read(grant);
    let denied = refused::denial(&world.deps, caller, &ask, &agent, reason).await;
    assert!(denied.unwrap().is_none());
    assert_eq!(world.entries().await.len(), entries);
}

/// One replica moves the epoch on, another reads it and commits nothing, the database forgets it, and a third gives its
/// number to a revocation.
#[tokio::test]
async fn what_was_read_of_an_epoch_that_was_lost_outlives_no_revocation_of_the_same_number() {
    let world = World::on_postgres().await;
    let grant = world.connect(world.ada, &[Category::Read, Category::Write]).await;
    let (mover, revoker) = (world.replica().await.unwrap(), world.replica().await.unwrap());
    delegate_on(&mover, &world, grant, Category::Read).await;
    describe::describe(&world.deps, world.agent, &world.read(grant))
        .await
        .unwrap();
    let writer = mover.store.replica();
    for lost in [
        format!("DELETE FROM entries WHERE writer = '{writer}/cold'"),
        format!("DELETE FROM writers WHERE writer = '{writer}/cold'"),
        "UPDATE epochs SET counter = counter - 1".to_owned(),
    ] {
        world.raw_sql(&lost).await;
    }
    let agent = world.agent.agent;
    revoke::run(&revoker, world.org, ending(Selector::Agent(agent)))
        .await
        .unwrap();
    let refused = world.vend(world.read(grant)).await;
    assert!(matches!(refused, Err(Refusal::Unauthenticated)), "{refused:?}");
}

/// It lacks nothing that this process committed.
#[tokio::test]
async fn a_database_that_forgets_an_epoch_which_was_only_read_is_given_up() {
    let (world, grant) = World::connected().await;
    // Another replica moves it on.
    world.raw_sql("UPDATE epochs SET counter = counter + 1").await;
    describe::describe(&world.deps, world.agent, &world.read(grant))
        .await
        .unwrap();
    world.raw_sql("UPDATE epochs SET counter = counter - 1").await;
    let refused = world.vend(world.read(grant)).await;
    assert!(matches!(refused, Err(Refusal::Sealed)), "{refused:?}");
    assert!(world.deps.store.has_lost_entries());
}

#[tokio::test]
async fn facts_are_read_for_every_call_until_something_is_committed_at_their_epoch_and_then_once() {
    let (world, grant) = World::connected().await;
    let caller = world.agent;
    let read = async || {
        let facts = &world.deps.facts;
        let agent = facts.agent(&world.deps, caller.org, caller.agent).await.unwrap();
        let held = facts.grant(&world.deps, &agent, grant).await;
        (agent, held.unwrap().unwrap())
    };
    let are_held = async || {
        let (first, second) = (read().await, read().await);
        (Arc::ptr_eq(&first.0, &second.0), Arc::ptr_eq(&first.1, &second.1))
    };
    assert_eq!(are_held().await, (false, false));
    world.vend(world.read(grant)).await.unwrap();
    assert_eq!(are_held().await, (true, true));
    delegate(&world, grant, Category::Read).await;
    world.deps.facts.again(&world.deps, world.org, 0).await.unwrap();
    assert_eq!(are_held().await, (false, false), "another epoch");
    world.vend(world.read(grant)).await.unwrap();
    assert_eq!(are_held().await, (true, true));
}

/// The file of another replica says of the move what shows it.
#[tokio::test]
async fn an_entry_of_the_epoch_is_found_though_many_before_it_have_later_ids() {
    let (world, grant) = World::connected().await;
    let second = world.connect(world.ben, &[Category::Read, Category::Write]).await;
    let ahead = Duration::from_secs(3);
    world.later(ahead);
    for _ in 0..40 {
        world.vend(world.read(grant)).await.unwrap();
    }
    world.clock.put_back(ahead);
    let revoked = world.revoke(Selector::Grant(second)).await;
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    let last = tx.last_entry(world.org).await.unwrap();
    assert_eq!(last.map(|(epoch, _)| epoch), Some(revoked.epoch.counter));
}
