//! A refusal that no decision keeps is an entry all the same, and a flood of them does not fill the log.

use std::time::Duration;

use postern::{
    domain::{
        EntryId, GrantId,
        decision::UnverifiedDecision,
        entry::{Entry, EntryType},
    },
    flows::{Refusal, actions::Ask, sweep},
    store::EntryFilter,
};
use serde_json::json;

use super::harness::{World, ask};

/// The demo agent has no capability for this.
fn beyond(grant: GrantId) -> Ask {
    ask(grant, "messages.delete", json!({"id": "msg-ada-1"}))
}

async fn denied(world: &World, ask: Ask) -> Option<EntryId> {
    match world.vend(ask).await {
        Err(Refusal::Denied {
            decision: None,
            entry,
            ..
        }) => entry,
        other => panic!("{other:?}"),
    }
}

async fn decisions(world: &World) -> Vec<Entry> {
    let mut entries = world.entries().await;
    entries.retain(|entry| entry.kind == EntryType::Decision);
    entries
}

#[tokio::test]
async fn what_an_agent_may_not_ask_is_an_entry_of_what_it_named_alone() {
    let (world, grant) = World::connected().await;
    for named in [grant, GrantId::from_bytes([7; 16])] {
        let id = denied(&world, beyond(named)).await.unwrap();
        let kept = decisions(&world).await;
        let draft = &kept.iter().find(|entry| entry.id == id).unwrap().draft;
        assert_eq!(draft.agent, Some(world.agent.agent));
        assert_eq!(draft.grant, Some(named));
        assert_eq!(draft.tool.as_deref(), Some("messages.delete"));
        assert_eq!(
            (draft.outcome.as_deref(), draft.reason.as_deref()),
            (Some("deny"), Some("not_permitted"))
        );
        // The agent may read this entry: it must not tell a known grant from none.
        assert_eq!((draft.user, &draft.connector), (None, &None));
    }
}

#[tokio::test]
async fn a_decision_that_does_not_hold_is_an_entry() {
    let (world, grant) = World::connected().await;
    let mut read = world.read(grant);
    read.decision = Some(UnverifiedDecision("a.b.c".to_owned()));
    let refused = world.vend(read).await;
    assert!(
        matches!(refused, Err(Refusal::DecisionRejected(_))),
        "{refused:?}"
    );
    let kept = decisions(&world).await;
    let draft = &kept[0].draft;
    assert_eq!(
        (draft.outcome.as_deref(), draft.reason.as_deref(), draft.grant),
        (Some("rejected"), Some("malformed"), Some(grant))
    );
}

#[tokio::test]
async fn a_flood_of_refusals_is_a_few_entries_and_one_sum() {
    let (world, grant) = World::connected().await;
    let before = decisions(&world).await.len();
    let mut named = 0;
    for _ in 0..50 {
        named += usize::from(denied(&world, beyond(grant)).await.is_some());
    }
    assert_eq!(named, 20);
    assert_eq!(decisions(&world).await.len(), before + 20);

    world.later(Duration::from_secs(60));
    sweep::run(&world.deps).await.unwrap();
    let filter = EntryFilter {
        limit: 1,
        ..EntryFilter::default()
    };
    let newest = postern::flows::audit::entries(&world.deps, world.org, &filter)
        .await
        .unwrap();
    let (sum, details) = &newest[0];
    assert_eq!(sum.draft.reason.as_deref(), Some("refused_more_often"));
    assert_eq!(sum.draft.agent, Some(world.agent.agent));
    let note = details.as_ref().unwrap().note.as_ref().unwrap();
    assert_eq!(note, &json!({"count": 30}));

    assert!(denied(&world, beyond(grant)).await.is_some(), "a new minute");
    sweep::run(&world.deps).await.unwrap();
    assert_eq!(decisions(&world).await.len(), before + 22);
}
