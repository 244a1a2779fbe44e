//! What is not copied, not copied into and not gone on with.

use super::*;

async fn try_once(world: &World, from: &Location, to: &Location) -> Result<Copying, CopyError> {
    let random = Arc::new(OsRandomness::new());
    Copying::open(
        from,
        to,
        Arc::clone(&world.clock) as _,
        TimeSource::Process,
        random,
    )
    .await
}

#[tokio::test]
async fn a_database_in_use_is_neither_copied_nor_copied_into() {
    let there = World::on_postgres().await;
    for world in [World::on_sqlite().await, World::on_postgres().await] {
        let free = Location::Sqlite(world.dir.path().join("there.db"));
        let refused = try_once(&world, &world.location, &free).await;
        assert!(
            matches!(refused, Err(CopyError::InUse { which: Which::Source })),
            "{refused:?}"
        );
        world.stopped().await;
        let refused = try_once(&world, &world.location, &there.location).await;
        let in_use = matches!(&refused, Err(CopyError::InUse { which: Which::Target }));
        assert!(in_use, "{refused:?}");
    }
}

#[tokio::test]
async fn a_copy_that_is_refused_leaves_no_database_where_there_was_none() {
    let world = World::on_sqlite().await;
    world.stopped().await;
    let dir = world.dir.path().join("there");
    std::fs::create_dir(&dir).unwrap();
    let free = database::sqlite(&dir);
    database::raw_sql(
        &world.location,
        "INSERT INTO meta (name, value) VALUES ('copied_to', 'elsewhere')",
    )
    .await;
    let refused = try_once(&world, &world.location, &free).await;
    assert!(matches!(refused, Err(CopyError::Moved)), "{refused:?}");
    let left: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A copy that is killed while it makes the target leaves a file with some of the migrations, or with none.
#[tokio::test]
async fn a_target_that_was_only_begun_is_made_to_its_end_by_the_copy_and_by_no_survey() {
    let world = World::on_sqlite().await;
    found::found(&world.deps, "Acme", "ada@acme.example")
        .await
        .unwrap();
    world.stopped().await;
    for migrations in [0, 2] {
        let path = world.dir.path().join(format!("begun-{migrations}.db"));
        begun(&path, migrations).await;
        let there = Location::Sqlite(path.clone());
        let before = std::fs::read(&path).unwrap();
        let random = Arc::new(OsRandomness::new());
        let counts = Copying::survey(
            &world.location,
            &there,
            Arc::clone(&world.clock) as _,
            TimeSource::Process,
            random,
        )
        .await;
        assert!(counts.is_ok(), "{counts:?}");
        assert_eq!(std::fs::read(&path).unwrap(), before, "a survey changes nothing");
        let copying = try_once(&world, &world.location, &there).await;
        assert!(copying.is_ok(), "{copying:?}");
        copying.unwrap().close().await;
    }
}

/// A database of an earlier version that holds something is somebody's.
#[tokio::test]
async fn a_target_of_an_earlier_version_is_not_brought_up_to_date_once_it_holds_a_row() {
    let world = World::on_sqlite().await;
    world.stopped().await;
    let path = world.dir.path().join("begun.db");
    begun(&path, 2).await;
    let there = Location::Sqlite(path);
    database::raw_sql(
        &there,
        "INSERT INTO meta (name, value) VALUES ('somebody', 'is here')",
    )
    .await;
    let refused = try_once(&world, &world.location, &there).await;
    let version = matches!(&refused, Err(CopyError::Version { which: Which::Target }));
    assert!(version, "{refused:?}");
}

/// A file in which so many migrations were done before whoever did them was killed.
async fn begun(path: &Path, migrations: i64) {
    use sqlx::{
        ConnectOptions as _, Connection as _,
        migrate::Migrator,
        sqlite::{SqliteConnectOptions, SqliteJournalMode},
    };

    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .connect()
        .await
        .unwrap();
    if migrations > 0 {
        let all = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite"));
        let all = Migrator::new(all).await.unwrap();
        all.run_to(migrations, &mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
    assert!(std::fs::metadata(path).unwrap().len() > 0);
}

/// While a copy lasts, no process of Postern gets a name over either database.
#[tokio::test]
async fn nobody_starts_over_a_database_that_is_being_copied() {
    let world = World::on_postgres().await;
    world.stopped().await;
    let there = database::sqlite(world.dir.path());
    let copying = copying(&world.clock, &world.location, &there).await.unwrap();
    for held in [&world.location, &there] {
        let opened = open_as(Kind::Dev, world.dir.path(), held, &world.clock, &world.acme).await;
        assert!(
            matches!(
                opened,
                Err(AppError::Store(StoreError::Conflict | StoreError::Locked))
            ),
            "{opened:?}"
        );
    }
    copying.close().await;
}

#[tokio::test]
async fn what_is_not_an_empty_database_of_this_version_is_refused_and_left_as_it_was() {
    let world = World::on_sqlite().await;
    let other = World::on_sqlite().await;
    let server = World::on_postgres().await;
    for world in [&world, &other, &server] {
        world.stopped().await;
    }
    let from = &world.location;
    for full in [&other.location, &server.location] {
        let refused = copying(&world.clock, from, full).await;
        assert!(matches!(refused, Err(CopyError::NotEmpty { .. })), "{refused:?}");
    }
    for one in [from, &server.location] {
        let refused = copying(&world.clock, one, one).await;
        assert!(matches!(refused, Err(CopyError::Same)), "{refused:?}");
    }
    let free = Location::Sqlite(world.dir.path().join("free.db"));
    let absent = Location::Sqlite(world.dir.path().join("absent.db"));
    let refused = copying(&world.clock, &absent, &free).await;
    assert!(matches!(refused, Err(CopyError::NoSource(_))), "{refused:?}");
    assert!(!world.dir.path().join("absent.db").exists());
    let unused = database::postgres(Path::new(&format!(
        "{}u",
        world.dir.path().file_name().unwrap().to_str().unwrap()
    )))
    .await;
    let refused = copying(&world.clock, &unused, &free).await;
    assert!(matches!(refused, Err(CopyError::Empty)), "{refused:?}");
    database::raw_sql(
        from,
        "DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)",
    )
    .await;
    let refused = copying(&world.clock, from, &free).await;
    assert!(
        matches!(refused, Err(CopyError::Version { which: Which::Source })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn half_a_copy_is_gone_on_with_only_from_the_source_as_it_was() {
    let (world, kept, _) = filled(World::on_sqlite().await).await;
    let other = World::on_sqlite().await;
    world.stopped().await;
    other.stopped().await;
    let there = database::sqlite(&{
        let dir = world.dir.path().join("there");
        std::fs::create_dir(&dir).unwrap();
        dir
    });
    not_compared(&world, &there).await;
    let refused = copying(&world.clock, &other.location, &there).await;
    assert!(matches!(refused, Err(CopyError::NotThisCopy)), "{refused:?}");
    let free = Location::Sqlite(world.dir.path().join("free.db"));
    let refused = copying(&world.clock, &there, &free).await;
    let half = StoreError::HalfCopied.to_string();
    assert!(
        matches!(&refused, Err(CopyError::Store { error, .. }) if error.to_string() == half),
        "{refused:?}"
    );
    let world = world.restarted().await;
    world.vend(world.read(kept)).await.unwrap();
    world.stopped().await;
    let refused = copying(&world.clock, &world.location, &there).await;
    assert!(matches!(refused, Err(CopyError::NotThisCopy)), "{refused:?}");
}

#[tokio::test]
async fn a_table_that_nobody_decided_about_stops_the_copy_before_it_begins() {
    for world in [World::on_sqlite().await, World::on_postgres().await] {
        world.stopped().await;
        database::raw_sql(&world.location, "CREATE TABLE surprise (org_id TEXT, id TEXT)").await;
        let free = Location::Sqlite(world.dir.path().join("free.db"));
        let refused = copying(&world.clock, &world.location, &free).await;
        assert!(
            matches!(&refused, Err(CopyError::Schema { table, .. }) if table == "surprise"),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn rows_that_belong_to_no_organisation_are_not_left_behind_in_silence() {
    let world = World::on_sqlite().await;
    world.stopped().await;
    let stray = "INSERT INTO floors (org_id, kind, id, epoch, at) VALUES ('org_gone', 'all', '', 1, 1)";
    database::raw_sql(&world.location, stray).await;
    let free = Location::Sqlite(world.dir.path().join("free.db"));
    let refused = copying(&world.clock, &world.location, &free).await;
    assert!(
        matches!(&refused, Err(CopyError::Orphans { table, rows: 1 }) if table == "floors"),
        "{refused:?}"
    );
}
