//! A copy that compared both databases and did not come to close the source, which somebody may have used since.

use super::*;

/// Copies and compares, and is kept from closing the source.
async fn compared_and_not_closed(world: &World, there: &Location) {
    let ended = match &world.location {
        Location::Sqlite(_) => {
            let refuse = "CREATE TRIGGER not_closed BEFORE INSERT ON meta WHEN NEW.name = 'copied_to'
                BEGIN SELECT RAISE(ABORT, 'not closed'); END";
            database::raw_sql(&world.location, refuse).await;
            let ended = copied(&world.clock, &world.location, there).await;
            database::raw_sql(&world.location, "DROP TRIGGER not_closed").await;
            ended
        }
        Location::Postgres(settings) => {
            let copying = copying(&world.clock, &world.location, there).await.unwrap();
            // Nothing but what holds the source writes there.
            let let_loose = format!(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
                 WHERE datname = '{}' AND backend_type = 'client backend' AND backend_xid IS NOT NULL",
                database::name_of(settings)
            );
            assert_eq!(database::raw_sql(&world.location, &let_loose).await, 1);
            copying.run(&mut |_| ()).await
        }
    };
    let kept_from_it = matches!(
        &ended,
        Err(CopyError::Store {
            which: Which::Source,
            ..
        })
    );
    assert!(kept_from_it, "{ended:?}");
    let finishing = "UPDATE meta SET value = value WHERE name = 'copy' AND value LIKE '%\"finishing\"%'";
    assert_eq!(
        database::raw_sql(there, finishing).await,
        1,
        "it had compared them"
    );
}

#[tokio::test]
async fn a_copy_run_again_before_the_source_is_closed_goes_on_if_nothing_changed() {
    for world in [World::on_sqlite().await, World::on_postgres().await] {
        let (world, kept, lost) = filled(world).await;
        world.stopped().await;
        let there = Location::Sqlite(world.dir.path().join("there.db"));
        compared_and_not_closed(&world, &there).await;
        let report = copied(&world.clock, &world.location, &there).await.unwrap();
        assert!(!report.was_complete && report.orgs == 2);
        let moved = World {
            location: there,
            ..world
        };
        goes_on(&moved.restarted().await, kept, lost).await;
    }
}

/// Whoever claims a refresh writes no entry, and moves neither a key nor an epoch.
#[tokio::test]
async fn a_source_that_was_used_before_it_was_closed_is_not_said_to_be_the_same() {
    for world in [World::on_sqlite().await, World::on_postgres().await] {
        let (world, kept, _) = filled(world).await;
        world.stopped().await;
        let there = Location::Sqlite(world.dir.path().join("there.db"));
        compared_and_not_closed(&world, &there).await;
        let claim = format!(
            "UPDATE refresh_leases SET fence = fence + 1, intent = 'refresh', intent_at = 1 WHERE grant_id = '{kept}'"
        );
        assert!(database::raw_sql(&world.location, &claim).await > 0);
        for _ in 0..2 {
            let found = copied(&world.clock, &world.location, &there).await;
            assert!(
                matches!(&found, Err(CopyError::Mismatch { table, .. }) if table == "refresh_leases"),
                "{found:?}"
            );
        }
        let opened = open_as(Kind::Dev, world.dir.path(), &there, &world.clock, &world.acme).await;
        assert!(
            matches!(opened, Err(AppError::Store(StoreError::HalfCopied))),
            "{opened:?}"
        );
        // The source was never closed, so it may be copied anew, with what changed.
        let anew = Location::Sqlite(world.dir.path().join("anew.db"));
        copied(&world.clock, &world.location, &anew).await.unwrap();
        let doubt = format!(
            "UPDATE refresh_leases SET intent_at = 1 WHERE intent = 'refresh' AND grant_id = '{kept}'"
        );
        assert!(database::raw_sql(&anew, &doubt).await > 0);
    }
}

/// Two databases with the same keys must never both go on, and neither is told to be the other.
#[tokio::test]
async fn a_source_that_was_opened_again_after_its_copy_is_not_said_to_be_the_same() {
    let world = World::on_sqlite().await;
    world.connect(world.ada, &[Category::Read]).await;
    world.stopped().await;
    let there = Location::Sqlite(world.dir.path().join("there.db"));
    copied(&world.clock, &world.location, &there).await.unwrap();
    let open = "DELETE FROM meta WHERE name = 'copied_to'";
    assert_eq!(database::raw_sql(&world.location, open).await, 1);
    let found = copied(&world.clock, &world.location, &there).await;
    assert!(
        matches!(&found, Err(CopyError::Mismatch { table, .. }) if table == "epochs"),
        "{found:?}"
    );
}
