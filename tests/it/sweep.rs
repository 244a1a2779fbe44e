//! What time does by itself, against what people do at the same moment.

use std::{sync::Arc, time::Duration};

use postern::{
    domain::{ConnectSessionId, RevocationId, connector::Category, grant::GrantState},
    flows::{connect::begin, revoke, sweep, upstream},
    store::{ConnectStatus, Outlived, Selector, UpstreamResult},
};
use serde_json::json;

use super::harness::{
    Journey, World,
    breakable::{switch_off, switch_on},
    database,
};

/// A world in which Ada's provider gave more than it was asked for.
pub async fn quarantined() -> World {
    let world = World::new().await;
    world
        .fault(json!({"next": "token", "widen_scope": true, "times": 1}))
        .await;
    let journey = Journey::begin(&world, world.ada, None).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    journey.come_back(&world, answer).await.unwrap_err();
    world
}

#[tokio::test]
async fn a_quarantine_that_nobody_ends_is_ended_at_the_provider_after_seven_days() {
    let world = quarantined().await;
    let issued = world.seen("token").await.pop().unwrap();
    let grant = world.grants_of(world.ada).await.pop().unwrap().id;
    let days_later = async |days: u64| {
        world.later(Duration::from_secs(days * 24 * 3600));
        sweep::run(&world.deps).await.unwrap();
        upstream::drain(&world.deps).await.unwrap();
        world.seen("revoke").await
    };
    assert_eq!(days_later(6).await, [] as [serde_json::Value; 0]);
    assert!(matches!(
        world.grant(grant).await.state,
        GrantState::Quarantined { .. }
    ));
    let ended = days_later(2).await;
    for token in ["issued_refresh_sha256", "issued_access_sha256"] {
        assert!(issued[token].is_string(), "{issued}");
        assert!(
            ended.iter().any(|call| call["token_sha256"] == issued[token]),
            "{token} was never ended: {ended:?}"
        );
    }
    assert!(matches!(
        world.grant(grant).await.state,
        GrantState::Revoked { .. }
    ));
    assert_eq!(world.secrets_of(grant).await, 0);
}

/// The sweeper has seen that the quarantine is over and waits for the database; meanwhile the person reconnects.
#[tokio::test]
async fn a_grant_reconnected_at_the_last_moment_is_not_buried() {
    let world = quarantined().await;
    let mut grant = world.grants_of(world.ada).await.pop().unwrap();
    world.later(Duration::from_secs(8 * 24 * 3600));

    let mut tx = world.deps.store.write(world.org).await.unwrap();
    let sweeping = {
        let deps = Arc::clone(&world.deps);
        tokio::spawn(async move { sweep::run(&deps).await })
    };
    // It reads without waiting and then waits for this transaction.
    world.keep_open(&mut tx, Duration::from_millis(500)).await;
    assert!(!sweeping.is_finished());
    grant.state = GrantState::Active;
    tx.update_grant(&grant).await.unwrap();
    tx.commit().await.unwrap();
    sweeping.await.unwrap().unwrap();
    assert_eq!(world.grant(grant.id).await.state, GrantState::Active);
}

/// Ada's tokens wait for her confirmation, and the file of their connector is taken away.
async fn without_its_connector() -> World {
    let world = World::with_connector(&[]).await;
    let journey = Journey::begin(&world, world.ada, None).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    journey.come_back(&world, answer).await.unwrap();
    world
        .restarted_after(|dir| std::fs::remove_dir_all(dir.join("connectors")).unwrap())
        .await
}

async fn fanned_out(world: &World, id: RevocationId) -> bool {
    upstream::fan_out(&world.deps).await.unwrap();
    let report = revoke::report(&world.deps, world.org, id, None, 10).await;
    report.unwrap().0.fanned_out
}

#[tokio::test]
async fn a_connect_whose_connector_is_gone_comes_to_its_end() {
    let world = without_its_connector().await;
    world.later(Duration::from_secs(601));
    assert_eq!(sweep::run(&world.deps).await.unwrap(), 1);
    assert_eq!(sweep::run(&world.deps).await.unwrap(), 0);
    let tombstone = world.grants_of(world.ada).await.pop().unwrap();
    assert!(matches!(tombstone.state, GrantState::Revoked { .. }));
    assert_eq!(world.secrets_of(tombstone.id).await, 0);
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    let row = tx.outbox(world.org, tombstone.id).await.unwrap().unwrap();
    assert_eq!(row.result, UpstreamResult::Unsupported);
}

#[tokio::test]
async fn a_revocation_that_covers_a_connect_whose_connector_is_gone_is_fanned_out() {
    let world = without_its_connector().await;
    let id = world.revoke(Selector::User(world.ada)).await.id;
    assert!(fanned_out(&world, id).await);
}

/// A hundred connects that nothing can end, for their tokens are gone, and behind them a link nobody used.
async fn behind_a_hundred() -> (World, ConnectSessionId) {
    let world = World::new().await;
    let link = async || {
        let ask = begin::Ask::new(world.ada, world.connector.clone());
        begin::create(&world.deps, world.org, ask).await.unwrap().session
    };
    for _ in 0..100 {
        link().await;
    }
    world
        .raw_sql("UPDATE connect_sessions SET status = 'confirming'")
        .await;
    world.later(Duration::from_secs(1));
    let last = link().await;
    (world, last)
}

async fn status(world: &World, id: ConnectSessionId) -> ConnectStatus {
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    tx.connect(world.org, id).await.unwrap().unwrap().status
}

#[tokio::test]
async fn connects_that_cannot_be_ended_do_not_hold_up_the_sweep_of_the_others() {
    let (world, last) = behind_a_hundred().await;
    world.later(Duration::from_secs(601));
    assert_eq!(sweep::run(&world.deps).await.unwrap(), 1);
    assert_eq!(status(&world, last).await, ConnectStatus::Failed);
}

#[tokio::test]
async fn connects_that_cannot_be_ended_do_not_hold_up_the_end_of_the_others() {
    let (world, last) = behind_a_hundred().await;
    let id = world.revoke(Selector::User(world.ada)).await.id;
    assert!(!fanned_out(&world, id).await, "their tokens are not ended");
    assert_eq!(status(&world, last).await, ConnectStatus::Failed);
}

/// Revocations that cannot be brought to their end stay the first in the line.
#[tokio::test]
async fn revocations_that_have_to_wait_do_not_hold_up_those_behind_them() {
    let world = World::new().await;
    let grant = world.connect(world.ben, &[Category::Read]).await;
    let ask = begin::Ask::new(world.ada, world.connector.clone());
    begin::create(&world.deps, world.org, ask).await.unwrap();
    world
        .raw_sql("UPDATE connect_sessions SET status = 'confirming' WHERE status = 'pending'")
        .await;
    for _ in 0..256 {
        world.revoke(Selector::User(world.ada)).await;
    }
    world.later(Duration::from_secs(1));
    let id = world.revoke(Selector::Grant(grant)).await.id;
    assert!(fanned_out(&world, id).await);
    assert!(matches!(
        world.grant(grant).await.state,
        GrantState::Revoked { .. }
    ));
}

/// Tokens of several connects wait for Ada to confirm them.
async fn with_unconfirmed(count: usize) -> World {
    let world = World::new().await;
    for _ in 0..count {
        let journey = Journey::begin(&world, world.ada, None).await;
        let answer = journey.consent(&world, "ada@acme.example", false).await;
        journey.come_back(&world, answer).await.unwrap();
    }
    world
}

#[tokio::test]
async fn a_key_that_is_switched_off_is_asked_for_once_and_not_for_each_connect() {
    let world = with_unconfirmed(4).await;
    let grant = world.connect(world.ben, &[Category::Read]).await;
    switch_off(&world, world.org);
    let stuck = [
        world.revoke(Selector::User(world.ada)).await.id,
        world.revoke(Selector::User(world.ada)).await.id,
    ];
    let other = world.revoke(Selector::Grant(grant)).await.id;
    switch_on(&world, world.org);
    switch_off(&world, world.org);
    assert!(fanned_out(&world, other).await, "it needs no key");
    assert_eq!(switch_on(&world, world.org), 1);

    // The same where they are past their time.
    world.later(Duration::from_secs(3600));
    switch_off(&world, world.org);
    assert_eq!(sweep::run(&world.deps).await.unwrap(), 0);
    assert_eq!(switch_on(&world, world.org), 1);
    for id in stuck {
        assert!(fanned_out(&world, id).await, "it is over with the key's absence");
    }
}

/// Decisions of the org, all spent at one moment so long ago that nobody needs their rows any more, and one that is kept.
async fn with_long_spent(world: World, count: u64) -> World {
    let org = world.org;
    world
        .raw_sql(&format!(
            "INSERT INTO spent (org_id, iss, jti, entry_id, keep_until)
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
             SELECT '{org}', 'https://engine.example', 'j' || i, 'e', 1 FROM n"
        ))
        .await;
    world
        .raw_sql(&format!(
            "INSERT INTO spent (org_id, iss, jti, entry_id, keep_until)
             VALUES ('{org}', 'https://engine.example', 'kept', 'e', {})",
            i64::MAX
        ))
        .await;
    world
}

async fn is_due(world: &World, what: Outlived) -> bool {
    let mut due = world.deps.store.due().await.unwrap();
    let orgs = due.orgs_to_sweep(what, None, 9).await.unwrap();
    orgs == [world.org]
}

async fn rows(world: &World, table: &str) -> u64 {
    database::raw_sql(
        &world.location,
        &format!(
            "UPDATE {table} SET org_id = org_id WHERE org_id = '{}'",
            world.org
        ),
    )
    .await
}

/// How many spent decisions one step removes.
async fn one_step(world: &World) -> u64 {
    let store = &world.deps.store;
    let step = || store.sweep(world.org, Outlived::Decisions);
    store.retry(step).await.unwrap()
}

#[tokio::test]
async fn a_step_of_the_sweep_removes_so_many_rows_and_no_more() {
    for world in [World::on_sqlite().await, World::on_postgres().await] {
        let world = with_long_spent(world, Outlived::STEP + 1).await;
        let step = || one_step(&world);
        assert_eq!(step().await, Outlived::STEP);
        assert!(is_due(&world, Outlived::Decisions).await);
        assert_eq!((step().await, step().await), (1, 0));
        assert!(!is_due(&world, Outlived::Decisions).await);
        assert_eq!(rows(&world, "spent").await, 1);
    }
}

/// Whoever revokes stands in the org's line, on SQLite in that of the only writer.
#[tokio::test]
async fn revocations_beside_the_sweep_of_very_many_rows_are_answered_between_its_steps() {
    for world in [World::on_sqlite().await, World::on_postgres().await] {
        // Some fifty steps: a revocation may take as long as many of them.
        let world = with_long_spent(world, 100_000).await;
        let revoking = async {
            for beside in 0..1000 {
                world.revoke(Selector::User(world.ben)).await;
                if !is_due(&world, Outlived::Decisions).await {
                    return beside;
                }
            }
            panic!("rows are left for ever")
        };
        let (swept, beside) = tokio::join!(sweep::run(&world.deps), revoking);
        assert_eq!(swept.unwrap(), 100_000);
        // The first may have come before the sweep.
        assert!(beside > 1, "{beside} while rows were left");
        assert_eq!(rows(&world, "spent").await, 1);
    }
}

#[tokio::test]
async fn the_sweep_of_spent_decisions_does_not_wait_for_who_changes_the_org() {
    let world = with_long_spent(World::on_postgres().await, 10).await;
    let held = world.deps.store.write(world.org).await.unwrap();
    assert_eq!(one_step(&world).await, 10);
    held.commit().await.unwrap();
}

#[tokio::test]
async fn all_that_has_outlived_its_purpose_is_swept() {
    for world in [World::on_sqlite().await, World::on_postgres().await] {
        let world = with_long_spent(world, 1).await;
        let soon = world.deps.clock.now() + Duration::from_secs(60);
        let late = soon + Duration::from_secs(3600);
        let store = &world.deps.store;
        let inserted = store.retry(|| async {
            let mut tx = store.write(world.org).await?;
            for (hash, until) in [([1; 32], soon), ([2; 32], late)] {
                tx.insert_session(&hash, world.org, world.ada, until).await?;
                tx.insert_login_link(&hash, world.org, world.ada, until).await?;
            }
            tx.commit().await
        });
        inserted.await.unwrap();
        for (key, until) in [("old", soon), ("new", late)] {
            world
                .raw_sql(&format!(
                    "INSERT INTO idempotency (org_id, principal, route, key, digest, entry_id, status, keep_until)
                     VALUES ('{}', 'p', 'vend', '{key}', 'd', '{key}', 200, {})",
                    world.org,
                    until.unix_micros()
                ))
                .await;
        }
        let before = rows(&world, "sessions").await;
        world.later(Duration::from_secs(61));
        for what in Outlived::ALL {
            assert!(is_due(&world, what).await, "{what:?}");
        }
        assert_eq!(sweep::run(&world.deps).await.unwrap(), 4);
        for what in Outlived::ALL {
            assert!(!is_due(&world, what).await, "{what:?}");
        }
        assert_eq!(rows(&world, "spent").await, 1);
        assert_eq!(rows(&world, "idempotency").await, 1);
        assert_eq!(rows(&world, "sessions").await, before - 1);
    }
}

#[tokio::test]
async fn rows_that_cannot_be_swept_keep_no_quarantine_from_its_end() {
    let world = quarantined().await;
    let grant = world.grants_of(world.ada).await.pop().unwrap().id;
    world.later(Duration::from_secs(8 * 24 * 3600));
    database::raw_sql(&world.location, "ALTER TABLE spent RENAME TO elsewhere").await;
    sweep::run(&world.deps).await.unwrap_err();
    assert!(matches!(
        world.grant(grant).await.state,
        GrantState::Revoked { .. }
    ));
}
