//! `postern copy-database`: whatever is copied is the same in the end, one of the two databases goes on, and nothing
//! else is ever opened.

mod refused;
mod reopened;

use std::{path::Path, sync::Arc, time::Duration};

use postern::{
    app::{AppError, Kind},
    audit::{
        Checkpoint,
        sinks::{FileSink, Form},
        verify,
    },
    crypto::OsRandomness,
    domain::{GrantId, connector::Category},
    flows::{Refusal, found, sequence, sinks, upstream},
    store::{CopyError, Copying, Location, Report, Selector, StoreError, TableReport, TimeSource, Which},
};

use serde_json::json;
use tokio::sync::Notify;

use super::harness::{Outcome, World, connect_as, copied, copying, database, open_as, token};

/// A database in which everything the service does has left something: grants used, narrowed, refreshed and revoked,
/// a session, a copied log, a call that was never answered, a provider that wants to be left alone for a day, and a
/// second organisation.
async fn filled(world: World) -> (World, GrantId, GrantId) {
    let kept = world.connect(world.ada, &[Category::Read, Category::Write]).await;
    let connected = connect_as(&world, world.ben, "ben@acme.example", &[Category::Read], false).await;
    let Outcome::Granted(lost) = connected else {
        panic!("not connected: {connected:?}")
    };
    for _ in 0..4 {
        world.vend(world.read(kept)).await.unwrap();
    }
    world.vend(token(world.read(kept))).await.unwrap();
    world.later(Duration::from_secs(3700));
    world.vend(world.read(kept)).await.unwrap();
    super::harness::log_in(&world.deps, world.org, world.ada).await;
    world.revoke(Selector::Grant(lost)).await;
    let busy =
        json!({"next": "revoke", "status": 429, "body": "slow down", "retry_after": 86_400, "times": 1});
    world.fault(busy).await;
    upstream::fan_out(&world.deps).await.unwrap();
    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 0);
    let second = found::found(&world.deps, "Second", "eve@second.example")
        .await
        .unwrap();
    for org in [world.org, second.org] {
        sequence::run(&world.deps, org).await.unwrap();
    }
    let copy = FileSink::new("file".to_owned(), world.dir.path().join("copy"), Form::Entries);
    sinks::drain(&world.deps, &copy).await.unwrap();
    world
        .raw_sql(
            "INSERT INTO open_calls SELECT org_id, id, ts FROM entries WHERE kind = 'release' AND mode = 'execute'
             ORDER BY id LIMIT 1",
        )
        .await;
    (world, kept, lost)
}

fn digest<'t>(tables: &'t [TableReport], name: &str) -> &'t TableReport {
    tables.iter().find(|table| table.table == name).unwrap()
}

/// The log as an auditor has it: the whole export holds, and builds on a checkpoint kept from before.
async fn log_holds(world: &World, kept: Option<&str>) -> String {
    sequence::run(&world.deps, world.org).await.unwrap();
    let (export, key) = super::audit::export(world).await;
    let kept = kept.map(|note| Checkpoint::open(note, &key).unwrap());
    let report = verify(export.as_slice(), &key, kept).unwrap();
    assert!(report.verified, "{:?}", report.findings);
    let note = world.api().get(&world.as_admin(), "/v1/audit/checkpoint").await;
    assert_eq!(note.status, 200);
    note.text()
}

async fn goes_on(world: &World, kept: GrantId, lost: GrantId) {
    world.vend(world.read(kept)).await.unwrap();
    world.vend(token(world.read(kept))).await.unwrap();
    world.later(Duration::from_secs(3700));
    world.vend(world.read(kept)).await.unwrap();
    assert!(matches!(
        world.vend(world.read(lost)).await,
        Err(Refusal::Revoked { .. })
    ));
    // The day is not over, and what it is about is not forgotten.
    world.raw_sql("UPDATE outbox SET due_at = 0").await;
    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 0);
    assert_eq!(world.seen("revoke").await.len(), 1);
}

#[tokio::test]
async fn a_database_goes_to_postgres_and_back_and_serves_in_each_place() {
    let (world, kept, lost) = filled(World::on_sqlite().await).await;
    let note = log_holds(&world, None).await;
    let there = database::postgres(world.dir.path()).await;
    let (world, _) = world.moved_to(there).await;
    assert!(!world.deps.store.is_sealed(world.org));
    goes_on(&world, kept, lost).await;
    let note = log_holds(&world, Some(&note)).await;
    let back = Location::Sqlite(world.dir.path().join("back.db"));
    let (world, _) = world.moved_to(back).await;
    assert!(!world.deps.store.is_sealed(world.org));
    goes_on(&world, kept, lost).await;
    log_holds(&world, Some(&note)).await;
    let copies = world.entries().await.into_iter();
    let copies: Vec<_> = copies
        .filter(|entry| entry.draft.outcome.as_deref() == Some("copied"))
        .filter_map(|entry| entry.draft.reason)
        .collect();
    assert_eq!(copies, ["postgres_to_sqlite", "sqlite_to_postgres"]);
}

#[tokio::test]
async fn a_copy_of_a_copy_has_the_same_digests_but_for_what_a_copy_writes_itself() {
    let (world, ..) = filled(World::on_sqlite().await).await;
    world.stopped().await;
    let there = database::postgres(world.dir.path()).await;
    let back = Location::Sqlite(world.dir.path().join("back.db"));
    let first = copied(&world.clock, &world.location, &there).await.unwrap();
    let second = copied(&world.clock, &there, &back).await.unwrap();
    assert_eq!((first.orgs, second.orgs), (2, 2));
    assert_eq!(digest(&first.tables, "open_calls").rows, 1);
    for table in &first.tables {
        let other = digest(&second.tables, &table.table);
        match table.table.as_str() {
            // The new epoch, and the entries that say so; of each org the writer starts, says it, and stops.
            "epochs" => assert_ne!(other, table),
            "writers" | "entries" => {
                assert_eq!(
                    other.rows,
                    table.rows + if table.table == "entries" { 6 } else { 0 }
                );
            }
            _ => assert_eq!(other, table),
        }
    }
    for full in [
        "grants",
        "secrets",
        "sessions",
        "tiles",
        "leaves",
        "sink_cursors",
        "revocations",
        "delegations",
    ] {
        assert!(digest(&first.tables, full).rows > 0, "{full}");
    }
}

/// Runs a copy until it has told so often, then drops it where it stands.
async fn stopped_after(copying: Copying, batches: usize) -> Option<Report> {
    let enough = Notify::new();
    let mut told = 0;
    let mut tell = |_: &_| {
        told += 1;
        if told == batches {
            enough.notify_one();
        }
    };
    tokio::select! {
        biased;
        () = enough.notified() => None,
        ended = copying.run(&mut tell) => Some(ended.unwrap()),
    }
}

#[tokio::test]
async fn a_copy_that_is_stopped_again_and_again_goes_on_and_is_whole_in_the_end() {
    let (world, kept, lost) = filled(World::on_sqlite().await).await;
    world.stopped().await;
    let there = database::postgres(world.dir.path()).await;
    let mut before = 0;
    let mut runs = 0;
    loop {
        let copying = copying(&world.clock, &world.location, &there).await.unwrap();
        assert!(copying.copied_before() >= before);
        before = copying.copied_before();
        runs += 1;
        if stopped_after(copying, 4 * runs).await.is_some() {
            break;
        }
        assert!(before > 0 || runs == 1, "the second run began anew");
    }
    assert!(runs > 3, "it was never stopped");
    let moved = World {
        location: there,
        ..world
    };
    let world = moved.restarted().await;
    goes_on(&world, kept, lost).await;
    log_holds(&world, None).await;
}

/// A copy whose rows are all there and not compared yet.
async fn not_compared(world: &World, there: &Location) {
    let copying = copying(&world.clock, &world.location, there).await.unwrap();
    let compares = Notify::new();
    let mut tell = |progress: &postern::store::Progress| {
        if progress.step == "comparing" {
            compares.notify_one();
        }
    };
    tokio::select! {
        biased;
        () = compares.notified() => {}
        ended = copying.run(&mut tell) => panic!("{ended:?}"),
    }
}

#[tokio::test]
async fn a_row_changed_taken_away_or_added_in_the_target_is_named_and_the_target_stays_closed() {
    let (world, kept, _) = filled(World::on_sqlite().await).await;
    world.stopped().await;
    for (index, (sql, table, how)) in [
        (
            format!("UPDATE grants SET account_label = account_label || 'x' WHERE id = '{kept}'"),
            "grants",
            "is not the same",
        ),
        (
            format!("DELETE FROM delegations WHERE grant_id = '{kept}'"),
            "delegations",
            "is missing",
        ),
        (
            "INSERT INTO floors (org_id, kind, id, epoch, at) SELECT org_id, 'user', 'usr_x', 1, 1 FROM orgs"
                .to_owned(),
            "floors",
            "is in the target only",
        ),
        (
            "INSERT INTO epochs (org_id, incarnation, counter) VALUES ('org_00000000000000000000000000', 1, 1)"
                .to_owned(),
            "epochs",
            "belong to an organisation",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        for to_postgres in [false, true] {
            let dir = world.dir.path().join(format!("t{index}{to_postgres}"));
            std::fs::create_dir(&dir).unwrap();
            let there = if to_postgres {
                database::postgres(Path::new(&format!(
                    "{}{index}",
                    world.dir.path().file_name().unwrap().to_str().unwrap()
                )))
                .await
            } else {
                database::sqlite(&dir)
            };
            not_compared(&world, &there).await;
            assert!(database::raw_sql(&there, &sql).await > 0);
            let found = copied(&world.clock, &world.location, &there).await;
            let Err(CopyError::Mismatch { table: named, key, how: said }) = found else {
                panic!("{sql}: {found:?}");
            };
            assert_eq!(named, table);
            assert!(said.starts_with(how), "{said}");
            assert!(table != "grants" || key == format!("{}/{kept}", world.org), "{key}");
            let opened = open_as(Kind::Dev, world.dir.path(), &there, &world.clock, &world.acme).await;
            assert!(
                matches!(opened, Err(AppError::Store(StoreError::HalfCopied))),
                "{opened:?}"
            );
        }
    }
    // The source was never closed.
    let world = world.restarted().await;
    world.vend(world.read(kept)).await.unwrap();
}

#[tokio::test]
async fn a_source_does_not_start_once_its_copy_goes_on() {
    for world in [World::on_sqlite().await, World::on_postgres().await] {
        let grant = world.connect(world.ada, &[Category::Read]).await;
        world.stopped().await;
        let there = Location::Sqlite(world.dir.path().join("there.db"));
        let first = copied(&world.clock, &world.location, &there).await.unwrap();
        let opened = open_as(
            Kind::Dev,
            world.dir.path(),
            &world.location,
            &world.clock,
            &world.acme,
        )
        .await;
        assert!(
            matches!(opened, Err(AppError::Store(StoreError::Moved))),
            "{opened:?}"
        );
        let elsewhere = Location::Sqlite(world.dir.path().join("elsewhere.db"));
        let again = copied(&world.clock, &world.location, &elsewhere).await;
        assert!(matches!(again, Err(CopyError::Moved)), "{again:?}");
        // Asked once more, the copy that is complete says so and does nothing.
        let again = copied(&world.clock, &world.location, &there).await.unwrap();
        assert!(again.was_complete && again.tables == first.tables);
        let moved = World {
            location: there,
            ..world
        };
        let world = moved.restarted().await;
        world.vend(world.read(grant)).await.unwrap();
    }
}

/// While it stood still its lease ended, so it kept nobody from copying its database away.
#[tokio::test]
async fn a_replica_that_slept_through_a_copy_of_its_database_is_lost_when_it_wakes() {
    let world = World::on_postgres().await;
    let store = &world.deps.store;
    store.renew_replica().await.unwrap();
    world.raw_sql("UPDATE replicas SET expires_at = 0").await;
    let there = Location::Sqlite(world.dir.path().join("there.db"));
    copied(&world.clock, &world.location, &there).await.unwrap();
    assert!(!store.has_lost_entries());
    let renewed = store.renew_replica().await;
    assert!(matches!(renewed, Err(StoreError::Moved)), "{renewed:?}");
    assert!(store.has_lost_entries());
}

/// Whoever takes the mark off the source, the file outside of it knows that the copy went on.
#[tokio::test]
async fn a_source_that_is_forced_to_start_after_its_copy_worked_is_sealed() {
    let (world, kept, _) = filled(World::on_sqlite().await).await;
    let source = world.location.clone();
    let there = database::postgres(world.dir.path()).await;
    let (world, _) = world.moved_to(there).await;
    sequence::run(&world.deps, world.org).await.unwrap();
    world.stopped().await;
    assert_eq!(
        database::raw_sql(&source, "DELETE FROM meta WHERE name = 'copied_to'").await,
        1
    );
    let forced = World {
        location: source,
        ..world
    };
    let world = forced.restarted().await;
    assert!(matches!(world.vend(world.read(kept)).await, Err(Refusal::Sealed)));
}

/// Keys of two parts, over several batches, stopped between them, in both directions.
#[tokio::test]
async fn a_table_of_many_batches_is_copied_whole_and_a_change_in_the_middle_is_named() {
    let (world, ..) = filled(World::on_sqlite().await).await;
    world.stopped().await;
    let many = "INSERT INTO spent (org_id, iss, jti, entry_id, keep_until)
        WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 3499)
        SELECT o.org_id, 'iss' || (i % 3), 'jti' || i, 'ent', 1 FROM n, orgs o";
    assert_eq!(database::raw_sql(&world.location, many).await, 7000);
    let there = database::postgres(world.dir.path()).await;
    let back = Location::Sqlite(world.dir.path().join("back.db"));
    for (from, to) in [(&world.location, &there), (&there, &back)] {
        let mut runs = 0;
        let report = loop {
            let copying = copying(&world.clock, from, to).await.unwrap();
            runs += 1;
            // Where one run ends inside the table, the next one begins there.
            let most = if runs > 6 { usize::MAX } else { 16 };
            if let Some(report) = stopped_after(copying, most).await {
                break report;
            }
        };
        let spent = digest(&report.tables, "spent").rows;
        assert!(spent >= 7000 && runs > 1, "{spent} rows, {runs} runs");
    }
    let dir = world.dir.path().join("again");
    std::fs::create_dir(&dir).unwrap();
    let again = database::sqlite(&dir);
    let moved = World {
        location: back,
        ..world
    };
    not_compared(&moved, &again).await;
    let sql = "UPDATE spent SET entry_id = 'other' WHERE iss = 'iss1' AND jti = 'jti1000' AND org_id = (SELECT max(org_id) FROM orgs)";
    assert_eq!(database::raw_sql(&again, sql).await, 1);
    let found = copied(&moved.clock, &moved.location, &again).await;
    assert!(
        matches!(&found, Err(CopyError::Mismatch { table, key, .. }) if table == "spent" && key.ends_with("/iss1/jti1000")),
        "{found:?}"
    );
}
