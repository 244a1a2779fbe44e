//! Questions whose answer nobody knows. While the provider takes the old refresh token again they are asked again at once,
//! whoever else waits; after that, where their asker fell silent, not before it had time to come back with what it may have in
//! its spool. None is forgotten over which a grant may be lost.

use std::{sync::Arc, time::Duration};

use postern::{
    domain::{
        GrantId,
        connector::Category,
        grant::{GrantState, ReconnectReason},
    },
    flows::{
        Deps, Refusal,
        refresh::{doubt, spooled},
        vend,
    },
    store::Claim,
};
use serde_json::json;
use tokio::time::timeout;

use super::{
    harness::World,
    leases::{connected, run, until_waiting},
    refresh::with_a_lost_answer,
    spool::is_in_doubt,
};

fn is_later<T>(told: &Result<T, Refusal>) -> bool {
    matches!(told, Err(Refusal::ProviderUnavailable))
}

/// How often tokens were asked for.
async fn asked(world: &World) -> usize {
    world.seen("token").await.len()
}

/// Somebody claims the lease, and nobody hears of it again.
async fn left_by_somebody(world: &World, grant: GrantId) {
    let ask = world.claim_ask(grant).await;
    let mut tx = world.deps.store.write(world.org).await.unwrap();
    let claims = tx.claim_refreshes("gone", &[ask]).await.unwrap();
    assert!(matches!(claims[..], [Claim::Ours(_)]), "{claims:?}");
    tx.commit().await.unwrap();
}

/// The provider has rotated, for a replica that has the answer in its spool. Its lease has ended; the sibling knows of nothing.
async fn answered_beside_the_database() -> (World, GrantId, Arc<Deps>) {
    let world = World::on_postgres().await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    let sibling = world.replica().await.unwrap();
    world.later(Duration::from_secs(400));
    let before = asked(&world).await;
    world
        .fault(json!({"next": "token", "after": true, "delay_ms": 2500, "times": 1}))
        .await;
    let asking = {
        let (deps, agent, ask) = (Arc::clone(&world.deps), world.agent, world.read(grant));
        tokio::spawn(async move { vend::vend(&deps, agent, ask).await })
    };
    world.until_seen("token", before + 1).await;
    // An answer is spooled without waiting for a database to be gone where somebody else has the lease, as it seems.
    world.raw_sql("UPDATE refresh_leases SET fence = fence + 1").await;
    let told = asking.await.unwrap();
    assert!(is_later(&told), "{told:?}");
    assert!(world.deps.spool.holds(grant));
    world.raw_sql("UPDATE refresh_leases SET fence = fence - 1").await;
    world.later(Duration::from_secs(11));
    assert!(is_in_doubt(&world, grant).await);
    (world, grant, sibling)
}

/// The database was gone for longer than the grace, and a sibling is faster than the one that has the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sibling_does_not_spend_the_old_refresh_token_while_the_answer_is_in_a_spool() {
    for by_vend in [false, true] {
        let (world, grant, sibling) = answered_beside_the_database().await;
        world.later(Duration::from_secs(64));
        let before = asked(&world).await;
        for _ in 0..2 {
            let told = if by_vend {
                vend::vend(&sibling, world.agent, world.read(grant))
                    .await
                    .map(drop)
            } else {
                doubt::settle(&sibling, world.org, grant).await
            };
            assert!(is_later(&told), "{told:?}");
        }
        // It is in nobody's way meanwhile.
        assert_eq!(doubt::ask_again(&sibling).await.unwrap(), 0);
        assert_eq!(asked(&world).await, before);

        assert_eq!(spooled::drain(&world.deps).await, 1);
        assert!(!is_in_doubt(&world, grant).await);
        world.later(Duration::from_secs(400));
        vend::vend(&sibling, world.agent, world.read(grant))
            .await
            .unwrap();
        assert_eq!(asked(&world).await, before + 1);
        assert_eq!(world.grant(grant).await.state, GrantState::Active);
    }
}

/// Whoever gave its question back has no answer: the next one is as old as it is itself.
#[tokio::test]
async fn a_question_is_not_as_old_as_one_before_that_was_given_back() {
    let world = World::on_postgres().await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    world.later(Duration::from_secs(400));
    world
        .fault(json!({"next": "token", "status": 503, "times": 1}))
        .await;
    let told = world.vend(world.read(grant)).await.map(drop);
    assert!(is_later(&told), "{told:?}");
    assert!(is_in_doubt(&world, grant).await);
    world.later(Duration::from_secs(120));
    left_by_somebody(&world, grant).await;
    world.later(Duration::from_secs(11));
    let before = asked(&world).await;
    doubt::settle(&world.deps, world.org, grant).await.unwrap();
    assert_eq!(asked(&world).await, before + 1);
    assert!(!is_in_doubt(&world, grant).await);
}

/// What comes of that is as good as what is spooled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sibling_asks_at_once_while_the_old_refresh_token_is_taken() {
    let (world, grant, sibling) = answered_beside_the_database().await;
    world.later(Duration::from_secs(40));
    let (before, generation) = (asked(&world).await, world.grant(grant).await.generation);
    doubt::settle(&sibling, world.org, grant).await.unwrap();
    assert_eq!(asked(&world).await, before + 1);
    assert_eq!(spooled::drain(&world.deps).await, 1);
    assert_eq!(world.grant(grant).await.generation, generation + 1);
    world.later(Duration::from_secs(400));
    vend::vend(&sibling, world.agent, world.read(grant))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_asker_that_never_comes_back_is_waited_for_so_long_and_no_longer() {
    let (world, grant, _) = connected().await;
    left_by_somebody(&world, grant).await;
    world.later(Duration::from_secs(61));
    let (before, generation) = (asked(&world).await, world.grant(grant).await.generation);
    for wait in [0, 79] {
        world.later(Duration::from_secs(wait));
        let told = doubt::settle(&world.deps, world.org, grant).await;
        assert!(is_later(&told), "{told:?}");
        assert_eq!(asked(&world).await, before, "after {wait} s");
    }
    world.later(Duration::from_secs(2));
    doubt::settle(&world.deps, world.org, grant).await.unwrap();
    assert_eq!(asked(&world).await, before + 1);
    assert_eq!(world.grant(grant).await.generation, generation + 1);
}

/// And nobody is told that all is well where it is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_never_comes_back_is_said_to_be_lost() {
    let (world, grant, sibling) = answered_beside_the_database().await;
    world.later(Duration::from_secs(64));
    let told = doubt::settle(&sibling, world.org, grant).await;
    assert!(is_later(&told), "{told:?}");
    world.later(Duration::from_secs(81));
    doubt::settle(&sibling, world.org, grant).await.unwrap_err();
    let lost = GrantState::NeedsReconnect {
        reason: ReconnectReason::RotationLost,
    };
    assert_eq!(world.grant(grant).await.state, lost);
}

/// A provider that fails says nothing of what it answered before.
#[tokio::test]
async fn a_question_that_was_asked_again_in_vain_is_left_as_it_was() {
    let (world, grant, _) = connected().await;
    left_by_somebody(&world, grant).await;
    world.later(Duration::from_secs(11));
    let before = asked(&world).await;
    world
        .fault(json!({"next": "token", "status": 503, "times": 1}))
        .await;
    let told = doubt::settle(&world.deps, world.org, grant).await;
    assert!(is_later(&told), "{told:?}");
    assert_eq!(asked(&world).await, before + 1);
    // A minute after it was asked first, not after it was asked again.
    world.later(Duration::from_secs(50));
    let told = doubt::settle(&world.deps, world.org, grant).await;
    assert!(is_later(&told), "{told:?}");
    assert_eq!(asked(&world).await, before + 1);
    world.later(Duration::from_secs(81));
    doubt::settle(&world.deps, world.org, grant).await.unwrap();
}

/// However often it was asked again: what the provider takes is counted from when it rotated.
#[tokio::test]
async fn a_question_that_was_left_twice_is_as_old_as_the_first_time() {
    let (world, grant, _) = connected().await;
    left_by_somebody(&world, grant).await;
    world.later(Duration::from_secs(11));
    left_by_somebody(&world, grant).await;
    world.later(Duration::from_secs(50));
    let before = asked(&world).await;
    let told = doubt::settle(&world.deps, world.org, grant).await;
    assert!(is_later(&told), "{told:?}");
    assert_eq!(asked(&world).await, before);
}

/// It was decided in time and would be asked too late: whoever claims may have to wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_would_begin_after_the_grace_is_not_made() {
    let (world, grant, mut other) = connected().await;
    left_by_somebody(&world, grant).await;
    world.later(Duration::from_secs(59));
    let before = asked(&world).await;
    run(
        &mut other,
        &format!("BEGIN; SELECT 1 FROM refresh_leases WHERE grant_id = '{grant}' FOR UPDATE"),
    )
    .await;
    let settling = {
        let (deps, org) = (Arc::clone(&world.deps), world.org);
        tokio::spawn(async move { doubt::settle(&deps, org, grant).await })
    };
    until_waiting(&world, 1).await;
    world.later(Duration::from_secs(5));
    run(&mut other, "COMMIT").await;
    let told = settling.await.unwrap();
    assert!(is_later(&told), "{told:?}");
    // Nor is it taken for given back.
    let told = doubt::settle(&world.deps, world.org, grant).await;
    assert!(is_later(&told), "{told:?}");
    assert_eq!(asked(&world).await, before);
    assert!(is_in_doubt(&world, grant).await);
}

/// I3: whoever has a place may still wait for a call, behind others that a provider does not answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_asked_for_again_although_a_flight_with_a_place_waits_for_a_call() {
    let (world, grant, before) = with_a_lost_answer().await;
    let connector = world.deps.catalogue.get(&world.connector).unwrap();
    let mut calls = Vec::new();
    while let Ok(call) = timeout(Duration::from_millis(100), world.deps.flights.call(connector)).await {
        calls.push(call);
    }
    let waiting = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.vend(world.read(grant)).await.map(drop) })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "there was a call left");
    world.later(Duration::from_secs(2));
    assert_eq!(doubt::ask_again(&world.deps).await.unwrap(), 1);
    world.until_generation(grant, 2).await;
    // It is told: the first look of a flight that waits is after five seconds.
    let found = timeout(Duration::from_secs(3), waiting).await;
    assert!(matches!(found, Ok(Ok(Ok(())))), "{found:?}");
    assert_eq!(world.seen("token").await.len(), before + 1);
    assert!(calls.len() > 50, "{}", calls.len());
}

/// While a deployment is rolled out, another replica may have the file and ask in time.
#[tokio::test]
async fn a_doubt_about_a_connector_without_a_file_is_not_forgotten() {
    let world = World::with_connector(&[]).await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    left_by_somebody(&world, grant).await;
    world.later(Duration::from_secs(11));
    let world = world
        .restarted_after(|dir| std::fs::remove_dir_all(dir.join("connectors")).unwrap())
        .await;
    assert!(world.deps.catalogue.get(&world.connector).is_none());
    doubt::settle(&world.deps, world.org, grant).await.unwrap();
    assert!(is_in_doubt(&world, grant).await);
}

/// A grant is active again when its connector's file is put back. One that its person has to connect anew gets other tokens.
#[tokio::test]
async fn a_doubt_about_a_grant_whose_connector_changed_is_not_forgotten_and_about_a_dead_one_is() {
    let (world, grant) = World::connected().await;
    left_by_somebody(&world, grant).await;
    world.later(Duration::from_secs(11));
    let before = asked(&world).await;
    for (reason, stays) in [("binding_changed", true), ("consent_required", false)] {
        let state = format!("UPDATE grants SET state = 'needs_reconnect', state_reason = '{reason}'");
        world.raw_sql(&state).await;
        doubt::settle(&world.deps, world.org, grant).await.unwrap();
        assert_eq!(is_in_doubt(&world, grant).await, stays, "{reason}");
    }
    assert_eq!(asked(&world).await, before);
}
