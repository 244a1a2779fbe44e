//! Facts of two epochs never meet, neither in a vend nor before policy.

use postern::{
    domain::connector::Category,
    flows::{
        Refusal, actions,
        delegate::{self, Ask},
    },
    policy::OrgPermit,
};

use super::harness::World;

/// Ada lets the agent do these things and no others from now on; the epoch moves on.
async fn delegate(world: &World, grant: postern::domain::GrantId, category: Category) {
    let ask = Ask {
        agent: world.agent.agent,
        grant,
        categories: [category].into(),
        tools: [].into(),
        raw: false,
        expires_at: None,
    };
    delegate::make(&world.deps, world.org, world.ada, ask)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_grant_remembered_from_an_older_epoch_than_its_agent_is_read_again() {
    let (world, grant) = World::connected().await;
    world.deps.facts.forget(world.org);
    // The grant is remembered as it was, the agent will be read as it is.
    let caller = world.agent;
    world
        .deps
        .facts
        .grant(&world.deps, caller.org, caller.agent, grant)
        .await
        .unwrap();
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
