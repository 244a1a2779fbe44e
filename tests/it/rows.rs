//! Row-level security and roles on PostgreSQL, asked with raw SQL in the service's own role.

mod roles;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use postern::{
    app::AppError,
    domain::{
        EntryId, GrantId,
        connector::Category,
        entry::{EntryDraft, EntryType},
    },
    flows::{actions::Caller, vend},
    store::{Claim, ClaimAsk, Location, NewEntry, StoreError},
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::task::JoinSet;

use super::{
    harness::{World, database},
    leases::{run, until_waiting},
};

async fn world() -> (World, PgConnection) {
    let world = World::on_postgres().await;
    world.connect(world.ada, &[Category::Read]).await;
    let Location::Postgres(settings) = &world.location else {
        panic!()
    };
    let mut connection = PgConnection::connect(&settings.url).await.unwrap();
    sqlx::raw_sql("SET ROLE postern_app")
        .execute(&mut connection)
        .await
        .unwrap();
    (world, connection)
}

async fn count(connection: &mut PgConnection, table: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
        .fetch_one(connection)
        .await
        .unwrap()
}

async fn code_of(connection: &mut PgConnection, sql: &str) -> String {
    let refused = sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .unwrap_err();
    refused.as_database_error().unwrap().code().unwrap().into_owned()
}

#[tokio::test]
async fn every_table_with_an_org_is_held_by_row_level_security_also_against_its_owner() {
    let (world, _) = world().await;
    let Location::Postgres(settings) = &world.location else {
        panic!()
    };
    let mut connection = database::superuser(&database::name_of(settings)).await;
    let unheld: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id'
         WHERE c.relkind = 'r' AND NOT (c.relrowsecurity AND c.relforcerowsecurity)",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert_eq!(unheld, Vec::<String>::new());
}

/// What docs/scale.md says of sharding rests on this.
#[tokio::test]
async fn every_key_of_a_table_with_an_org_begins_with_it_but_the_hashes_that_callers_are_found_by() {
    let (world, _) = world().await;
    let Location::Postgres(settings) = &world.location else {
        panic!()
    };
    let mut connection = database::superuser(&database::name_of(settings)).await;
    let others: Vec<String> = sqlx::query_scalar(
        "SELECT i.relname::text FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
           JOIN pg_class t ON t.oid = x.indrelid AND t.relkind = 'r' AND t.relnamespace = 'public'::regnamespace
           JOIN pg_attribute a ON a.attrelid = t.oid AND a.attname = 'org_id'
         WHERE x.indisunique AND x.indkey[0] <> a.attnum ORDER BY i.relname",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert_eq!(
        others,
        [
            "api_keys_hash",
            "connect_sessions_link",
            "connect_sessions_state",
            "login_links_pkey",
            "sessions_pkey"
        ]
    );
}

#[tokio::test]
async fn a_session_that_names_no_org_sees_nothing() {
    let (world, mut connection) = world().await;
    let Location::Postgres(settings) = &world.location else {
        panic!()
    };
    let mut all = database::superuser(&database::name_of(settings)).await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id'
         WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace ORDER BY c.relname",
    )
    .fetch_all(&mut all)
    .await
    .unwrap();
    let mut with_rows = Vec::new();
    for table in &tables {
        // The deployment's own keys are of no org.
        let of_orgs = format!("{table} WHERE org_id <> ''");
        assert_eq!(count(&mut connection, &of_orgs).await, 0, "{table}");
        if count(&mut all, &of_orgs).await > 0 {
            with_rows.push(table);
        }
    }
    assert!(with_rows.len() > 12, "{with_rows:?}");
}

#[tokio::test]
async fn the_login_role_itself_may_do_nothing() {
    let (_world, mut connection) = world().await;
    sqlx::raw_sql("RESET ROLE")
        .execute(&mut connection)
        .await
        .unwrap();
    for sql in [
        "SELECT 1 FROM grants",
        "SELECT 1 FROM meta",
        "INSERT INTO meta VALUES ('a', 'b')",
    ] {
        assert_eq!(code_of(&mut connection, sql).await, "42501", "{sql}");
    }
}

#[tokio::test]
async fn a_transaction_sees_and_writes_the_orgs_it_named_and_no_other() {
    let (world, mut connection) = world().await;
    let mut tx = connection.begin().await.unwrap();
    let admit = format!(
        "SET LOCAL postern.orgs = 'org_00000000000000000000000001,{}'",
        world.org
    );
    sqlx::raw_sql(AssertSqlSafe(admit))
        .execute(&mut *tx)
        .await
        .unwrap();
    assert_eq!(count(&mut tx, "grants").await, 1);
    let foreign = "INSERT INTO floors (org_id, kind, id, epoch, at) VALUES ('org_00000000000000000000000002', 'all', '', 1, 1)";
    assert_eq!(code_of(&mut tx, foreign).await, "42501");
    tx.rollback().await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    sqlx::raw_sql("SET LOCAL postern.orgs = 'org_00000000000000000000000001'")
        .execute(&mut *tx)
        .await
        .unwrap();
    assert_eq!(count(&mut tx, "grants").await, 0);
    let taken = sqlx::raw_sql("UPDATE grants SET org_id = 'org_00000000000000000000000001'")
        .execute(&mut *tx)
        .await
        .unwrap();
    assert_eq!(taken.rows_affected(), 0);
}

/// The database itself writes down who writes a row of which org, and what its transaction had named by then.
pub const WATCH: &str = "
    CREATE TABLE watched (tx TEXT, place TEXT, role TEXT, admitted TEXT, org TEXT);
    GRANT INSERT ON watched TO PUBLIC;
    CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO watched VALUES (pg_current_xact_id()::text, TG_TABLE_NAME, current_user,
            current_setting('postern.orgs', true), NEW.org_id);
        RETURN NULL;
    END $$;
    CREATE TRIGGER watched AFTER INSERT OR UPDATE ON entries FOR EACH ROW EXECUTE FUNCTION watch();
    CREATE TRIGGER watched AFTER INSERT OR UPDATE ON refresh_leases FOR EACH ROW EXECUTE FUNCTION watch();
";

/// One runtime thread: what is asked for together stands in its line before the lane looks.
#[tokio::test]
async fn what_is_done_together_for_two_orgs_names_these_two_and_is_written_by_the_services_role() {
    let (world, _) = world().await;
    let grant = world.grants_of(world.ada).await[0].id;
    let two = [(world.agent, grant), world.another_org("Second").await];
    // The third is as alive as they are, and what went before on a connection is of no account.
    let (third, theirs) = world.another_org("Third").await;
    vend::vend(&world.deps, third, world.read(theirs)).await.unwrap();
    let Location::Postgres(settings) = &world.location else {
        panic!()
    };
    let mut superuser = database::superuser(&database::name_of(settings)).await;
    sqlx::raw_sql(WATCH).execute(&mut superuser).await.unwrap();

    // The gate.
    let entry = || NewEntry {
        id: EntryId::new(world.deps.clock.now(), &*world.deps.random).unwrap(),
        kind: EntryType::Decision,
        draft: EntryDraft::default(),
        sealed: None,
    };
    let [first, second] = two.map(|(caller, _)| world.deps.gate.follow_up(caller.org, entry()));
    let told = tokio::join!(first, second);
    assert!(matches!(told, (Ok(_), Ok(_))), "{told:?}");
    // Releases as they come, after one refresh in each org.
    world.later(Duration::from_secs(400));
    let mut vends = JoinSet::new();
    for turn in 0..32 {
        let (caller, grant) = two[turn % 2];
        let (deps, ask) = (Arc::clone(&world.deps), world.read(grant));
        vends.spawn(async move { vend::vend(&deps, caller, ask).await });
    }
    while let Some(done) = vends.join_next().await {
        done.unwrap().unwrap();
    }
    // Claims of leases.
    let asking = async |(caller, grant): (Caller, GrantId)| {
        let mut tx = world.deps.store.read(caller.org).await.unwrap();
        ClaimAsk {
            org: caller.org,
            grant,
            generation: tx.grant(caller.org, grant).await.unwrap().unwrap().generation,
            intent: "access_token".to_owned(),
            life: Duration::from_secs(10),
        }
    };
    let (first, second) = (asking(two[0]).await, asking(two[1]).await);
    let claims = &world.deps.claims;
    let claimed = tokio::join!(claims.claim(first), claims.claim(second));
    assert!(
        matches!(claimed, (Ok(Claim::Ours(_)), Ok(Claim::Ours(_)))),
        "{claimed:?}"
    );

    let rows: Vec<(String, String, String, Option<String>, String)> =
        sqlx::query_as("SELECT tx, place, role, admitted, org FROM watched")
            .fetch_all(&mut superuser)
            .await
            .unwrap();
    let both: BTreeSet<String> = two.iter().map(|(caller, _)| caller.org.to_string()).collect();
    let mut batches: BTreeMap<(String, String), [BTreeSet<String>; 2]> = BTreeMap::new();
    for (tx, place, role, admitted, org) in rows {
        assert_eq!(role, "postern_app", "{place}");
        // Nothing and everything are no names of theirs either.
        let admitted = admitted.unwrap_or_default();
        let admitted: BTreeSet<String> = admitted.split(',').map(str::to_owned).collect();
        assert!(admitted.is_subset(&both), "{place}: {admitted:?}");
        let [named, written] = batches.entry((place, tx)).or_default();
        named.extend(admitted);
        written.insert(org);
    }
    for ((place, _), [named, written]) in &batches {
        assert_eq!(named, written, "{place}");
    }
    for place in ["entries", "refresh_leases"] {
        let mut named = batches.iter().filter(|((of, _), _)| of == place);
        assert!(
            named.any(|(_, [named, _])| *named == both),
            "no batch of both orgs wrote {place}"
        );
    }
}

#[tokio::test]
async fn the_workers_look_sees_ids_and_times_and_no_contents() {
    let (_world, mut connection) = world().await;
    sqlx::raw_sql("SET ROLE postern_due")
        .execute(&mut connection)
        .await
        .unwrap();
    let ids: i64 = sqlx::query_scalar("SELECT count(id) FROM grants")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(ids, 1);
    for sql in [
        "SELECT account_label FROM grants",
        "SELECT bytes FROM entries",
        "SELECT correlation FROM entries",
        "SELECT key FROM idempotency",
        "SELECT sealed FROM secrets",
        "SELECT email FROM users",
        "SELECT hash FROM sessions",
        "UPDATE grants SET state = 'active'",
    ] {
        assert_eq!(code_of(&mut connection, sql).await, "42501", "{sql}");
    }
}

#[tokio::test]
async fn the_services_role_can_change_neither_the_schema_nor_what_is_written_for_good() {
    let (world, mut connection) = world().await;
    for sql in [
        "CREATE TABLE extra (id INTEGER)",
        // It would be found before the one it is named like, by whatever comes after on that connection.
        "CREATE TEMPORARY TABLE epochs (org_id TEXT)",
        "ALTER TABLE grants DISABLE ROW LEVEL SECURITY",
        "DROP POLICY admitted ON grants",
        "TRUNCATE entries",
        "UPDATE entries SET bytes = '{}'",
        "DELETE FROM entries",
        "DELETE FROM floors",
        "DELETE FROM epochs",
        "UPDATE spent SET jti = 'x'",
        "DELETE FROM revocations",
        "DELETE FROM logs",
        "DELETE FROM odks",
        "DELETE FROM instance_keys",
        "DELETE FROM grants",
        "DELETE FROM notices",
        "UPDATE odks SET wrapped = ''",
        "UPDATE instance_keys SET sealed = ''",
        "UPDATE policies SET digest = 'x'",
    ] {
        assert_eq!(code_of(&mut connection, sql).await, "42501", "{sql}");
    }
    drop(world);
}

#[tokio::test]
async fn a_schema_of_another_version_is_refused() {
    let (world, _) = world().await;
    world
        .raw_sql("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (999, 'later', true, '', 0)")
        .await;
    let refused = world.replica().await;
    assert!(
        matches!(refused, Err(AppError::Store(StoreError::Version))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn migrating_again_changes_nothing() {
    let (world, _) = world().await;
    let Location::Postgres(settings) = &world.location else {
        panic!()
    };
    let owner = database::settings("postern_owner", &database::name_of(settings)).await;
    assert_eq!(postern::store::migrate(&owner).await.unwrap(), 0);
}

/// A dump holds every table it reads until it ends, and a change of the schema waits for it: whoever comes after that stands
/// behind it.
#[tokio::test]
async fn a_migration_waits_for_a_table_in_use_and_holds_nobody_up_for_long() {
    let (world, _) = world().await;
    let Location::Postgres(settings) = &world.location else {
        panic!()
    };
    let name = database::name_of(settings);
    let mut dump = database::superuser(&name).await;
    // As it was before migration 0009.
    run(
        &mut dump,
        "ALTER TABLE replicas DROP COLUMN word; DELETE FROM _sqlx_migrations WHERE version = 9",
    )
    .await;
    run(&mut dump, "BEGIN; SELECT count(*) FROM replicas").await;
    let owner = database::settings("postern_owner", &name).await;
    let meanwhile = async {
        until_waiting(&world, 1).await;
        let mut another = database::superuser(&name).await;
        let begun = Instant::now();
        run(&mut another, "SELECT count(*) FROM replicas").await;
        let took = begun.elapsed();
        run(&mut dump, "COMMIT").await;
        took
    };
    let (migrated, took) = tokio::join!(postern::store::migrate(&owner), meanwhile);
    assert_eq!(migrated.unwrap(), 1);
    assert!(took < Duration::from_secs(4), "{took:?}");
}

/// The database itself writes down how a transaction is going to be committed.
const HEAR: &str = "
    CREATE TABLE heard (place TEXT, durability TEXT);
    GRANT INSERT ON heard TO PUBLIC;
    CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO heard VALUES (TG_TABLE_NAME, current_setting('synchronous_commit'));
        RETURN NULL;
    END $$;
    CREATE TRIGGER heard AFTER INSERT OR UPDATE ON entries FOR EACH ROW EXECUTE FUNCTION hear();
    CREATE TRIGGER heard AFTER INSERT OR UPDATE ON replicas FOR EACH ROW EXECUTE FUNCTION hear();
";

#[tokio::test]
async fn what_is_written_is_durable_whatever_is_set_for_the_database() {
    let (world, _) = world().await;
    let grant = world.grants_of(world.ada).await[0].id;
    let Location::Postgres(settings) = &world.location else {
        panic!()
    };
    let name = database::name_of(settings);
    let mut superuser = database::superuser(&name).await;
    run(&mut superuser, HEAR).await;
    for (set, held) in [("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")] {
        let sql = format!("ALTER DATABASE {name} SET synchronous_commit = {set}");
        run(&mut superuser, &sql).await;
        // What is set holds for whoever connects from now on.
        let mut own = PgConnection::connect(&settings.url).await.unwrap();
        let usual: String = sqlx::query_scalar("SELECT current_setting('synchronous_commit')")
            .fetch_one(&mut own)
            .await
            .unwrap();
        assert_eq!(usual, set);
        let other = world.replica().await.unwrap();
        run(&mut superuser, "TRUNCATE heard").await;
        // The gate, and a change of the deployment.
        vend::vend(&other, world.agent, world.read(grant)).await.unwrap();
        other.store.renew_replica().await.unwrap();
        let heard: Vec<(String, String)> =
            sqlx::query_as("SELECT DISTINCT place, durability FROM heard ORDER BY place")
                .fetch_all(&mut superuser)
                .await
                .unwrap();
        let expected = ["entries", "replicas"].map(|place| (place.to_owned(), held.to_owned()));
        assert_eq!(heard, expected);
        other.store.close().await;
    }
}
