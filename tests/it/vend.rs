//! The main path at its ends: what an agent gets, and each typed "no".

use postern::{
    domain::{GrantId, Mode, ScopeSet, connector::Category},
    flows::{Refusal, actions::Target, connect::begin, vend::Vended},
    store::{ConnectRow, Selector},
};
use serde_json::json;

use super::harness::{Journey, World, acme_mail, ask, database, token};

#[tokio::test]
async fn an_allowed_action_is_executed_and_answered() {
    let (world, grant) = World::connected().await;
    let Ok(Vended::Executed { answer, .. }) = world.vend(world.read(grant)).await else {
        panic!("not executed")
    };
    assert_eq!(answer.status, 200);
    assert!(answer.success);
}

#[tokio::test]
async fn the_entry_of_a_release_precedes_what_the_provider_sees() {
    let (world, grant) = World::connected().await;
    let Ok(Vended::Executed { entry, .. }) = world.vend(world.read(grant)).await else {
        panic!("not executed")
    };
    let entries = world.entries().await;
    let release = entries.iter().find(|found| found.id == entry).unwrap();
    assert_eq!(release.draft.mode, Some(Mode::Execute));
    assert!(
        entries
            .iter()
            .any(|found| found.draft.correlation == Some(entry.to_string())
                && found.draft.outcome.as_deref() == Some("ok"))
    );
}

#[tokio::test]
async fn mail_to_an_outsider_is_denied_with_the_policys_reason() {
    let (world, grant) = World::connected().await;
    let outside = json!({"to": ["eve@else.example"], "subject": "hi", "body": "x"});
    let refused = world.vend(ask(grant, "messages.send", outside)).await;
    let Err(Refusal::Denied {
        reason,
        decision,
        entry,
        ..
    }) = refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!(reason, "recipient_outside_company");
    assert!(decision.is_some() && entry.is_some());
    assert!(
        world
            .seen("api")
            .await
            .iter()
            .all(|seen| seen["method"] != "POST"),
        "nothing was sent"
    );
}

#[tokio::test]
async fn mail_inside_the_company_is_sent() {
    let (world, grant) = World::connected().await;
    let inside = json!({"to": ["ben@acme.example"], "subject": "hi", "body": "x"});
    let Ok(Vended::Executed { answer, .. }) = world.vend(ask(grant, "messages.send", inside)).await else {
        panic!("not sent")
    };
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn a_destructive_action_is_denied_although_it_was_delegated() {
    let world = World::new().await;
    let grant = world
        .connect(world.ada, &[Category::Read, Category::Destructive])
        .await;
    let refused = world
        .vend(ask(grant, "messages.delete", json!({"id": "msg-ada-1"})))
        .await;
    assert!(matches!(refused, Err(Refusal::Denied { .. })), "{refused:?}");
}

#[tokio::test]
async fn an_action_the_person_did_not_delegate_is_denied() {
    let world = World::new().await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    let inside = json!({"to": ["ben@acme.example"], "subject": "hi", "body": "x"});
    let refused = world.vend(ask(grant, "messages.send", inside)).await;
    assert!(
        matches!(&refused, Err(Refusal::Denied { reason, .. }) if reason == "not_delegated"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_token_is_really_narrowed_by_the_provider() {
    let (world, grant) = World::connected().await;
    let vended = world.vend(token(world.read(grant))).await;
    let Ok(Vended::Token { scopes, narrowed, .. }) = vended else {
        panic!("{vended:?}")
    };
    assert!(narrowed);
    assert_eq!(scopes.to_string(), "mail.read");
}

#[tokio::test]
async fn a_second_token_is_the_same_narrowed_one() {
    let (world, grant) = World::connected().await;
    world.vend(token(world.read(grant))).await.unwrap();
    let before = world.seen("token").await.len();
    world.vend(token(world.read(grant))).await.unwrap();
    assert_eq!(world.seen("token").await.len(), before);
}

#[tokio::test]
async fn a_token_is_unavailable_where_policy_reads_the_arguments() {
    let (world, grant) = World::connected().await;
    let inside = json!({"to": ["ben@acme.example"], "subject": "hi", "body": "x"});
    let refused = world.vend(token(ask(grant, "messages.send", inside))).await;
    assert!(
        matches!(&refused, Err(Refusal::ModeUnavailable(modes)) if modes.contains(Mode::Execute)),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_token_that_outlives_the_lease_asked_for_is_unavailable() {
    let (world, grant) = World::connected().await;
    let mut short = token(world.read(grant));
    short.ttl_s = Some(10);
    assert!(matches!(
        world.vend(short).await,
        Err(Refusal::ModeUnavailable(_))
    ));
}

#[tokio::test]
async fn somebody_who_has_not_connected_gets_a_link_with_the_tools_scopes_only() {
    let world = World::new().await;
    let mut asked = ask(
        postern::domain::GrantId::from_bytes([7; 16]),
        "messages.list",
        json!({}),
    );
    asked.target = Target::Account {
        connector: acme_mail(),
        user: world.ada,
        account: None,
    };
    let refused = world.vend(asked).await;
    let Err(Refusal::ConnectionRequired(link)) = refused else {
        panic!("{refused:?}")
    };
    let session = world
        .deps
        .store
        .read(world.org)
        .await
        .unwrap()
        .connect(world.org, link.session)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(session.scopes.to_string(), "mail.read");
}

/// The session behind the link of a refusal that asks for a reconnect.
async fn reconnecting(world: &World, grant: GrantId) -> ConnectRow {
    world.deps.facts.forget(world.org);
    let refused = world.vend(world.read(grant)).await;
    let Err(Refusal::ReconnectRequired(link)) = refused else {
        panic!("{refused:?}")
    };
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    tx.connect(world.org, link.session).await.unwrap().unwrap()
}

#[tokio::test]
async fn who_has_connected_again_is_asked_for_nothing_on_facts_from_before() {
    let (world, grant) = World::connected().await;
    world
        .raw_sql("UPDATE grants SET state = 'needs_reconnect', state_reason = 'expired'")
        .await;
    let asked = reconnecting(&world, grant).await;
    assert_eq!(world.connect(world.ada, &[Category::Read]).await, grant);
    let links = database::counts(&world.location).await["connect_sessions"];
    // This process has read no more of the grant than that it needs its person.
    world.vend(world.read(grant)).await.unwrap();
    let after = database::counts(&world.location).await["connect_sessions"];
    assert_eq!(after, links, "another link than {asked:?} was made");
}

#[tokio::test]
async fn a_reconnect_link_restores_what_the_person_had_consented_to_and_no_more() {
    let world = World::new().await;
    let scopes = ScopeSet::parse("mail.read mail.send", ' ').unwrap();
    let journey = Journey::begin_with(&world, world.ada, None, Some(scopes.clone())).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    let grant = journey.finish(&world, answer, &[Category::Read]).await.unwrap();
    world
        .raw_sql("UPDATE grants SET state = 'needs_reconnect', state_reason = 'expired'")
        .await;
    let session = reconnecting(&world, grant).await;
    assert_eq!((session.scopes, session.reconnect), (scopes, Some(grant)));
}

#[tokio::test]
async fn a_reconnect_link_asks_for_nothing_that_came_back_unasked() {
    let world = World::new().await;
    let scopes = ScopeSet::parse("mail.read mail.send", ' ').unwrap();
    let journey = Journey::begin_with(&world, world.ada, None, Some(scopes.clone())).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    let grant = journey.finish(&world, answer, &[Category::Read]).await.unwrap();
    world
        .fault(json!({"next": "token", "grant_type": "refresh_token", "widen_scope": true, "times": 1}))
        .await;
    world.later(std::time::Duration::from_secs(3700));
    world.vend(world.read(grant)).await.unwrap_err();
    assert!(matches!(
        world.grant(grant).await.state,
        postern::domain::grant::GrantState::Quarantined { .. }
    ));
    assert_eq!(reconnecting(&world, grant).await.scopes, scopes);
}

#[tokio::test]
async fn there_is_no_reconnect_of_a_revoked_grant() {
    let (world, grant) = World::connected().await;
    world.revoke(Selector::Grant(grant)).await;
    let wish = begin::Ask {
        reconnect: Some(grant),
        ..begin::Ask::new(world.ada, acme_mail())
    };
    let refused = begin::create(&world.deps, world.org, wish).await;
    assert!(matches!(refused, Err(Refusal::Revoked { .. })), "{refused:?}");
}

#[tokio::test]
async fn an_unknown_grant_is_not_found() {
    let (world, _) = World::connected().await;
    let refused = world
        .vend(world.read(postern::domain::GrantId::from_bytes([7; 16])))
        .await;
    assert!(matches!(refused, Err(Refusal::NotFound)), "{refused:?}");
}

#[tokio::test]
async fn arguments_that_do_not_fit_the_tool_are_named() {
    let (world, grant) = World::connected().await;
    let refused = world
        .vend(ask(grant, "messages.list", json!({"limit": "3", "evil": 1})))
        .await;
    let Err(Refusal::InvalidArgs(faults)) = refused else {
        panic!("{refused:?}")
    };
    let mut pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/args/evil", "/args/limit"]);
}

#[tokio::test]
async fn an_org_without_policies_permits_nothing() {
    let world = World::with_policies("", "").await;
    let grant = world.connect(world.ada, &Category::ALL).await;
    let refused = world.vend(world.read(grant)).await;
    assert!(matches!(refused, Err(Refusal::Denied { .. })), "{refused:?}");
}

/// Every change of the rules makes what was read before it stale; that must delay a vend, not fail it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vends_get_through_while_the_rules_keep_changing() {
    let (world, grant) = World::connected().await;
    let world = std::sync::Arc::new(world);
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (world, over) = (std::sync::Arc::clone(&world), std::sync::Arc::clone(&over));
        clients.spawn(async move {
            let mut vends = 0;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                world.vend(world.read(grant)).await.unwrap();
                vends += 1;
            }
            vends
        });
    }
    for round in 0..40 {
        let service = json!({"name": "Host", "return_urls": [format!("https://host.example/{round}")]});
        let document = toml::to_string(&json!({"service": [service]})).unwrap();
        postern::flows::apply::apply(&world.deps, world.org, "test".to_owned(), &document)
            .await
            .unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    for vends in clients.join_all().await {
        assert!(vends > 0);
    }
}
