//! What the runs over a pooler, at another isolation and with conflicts say rests on these: that they are such runs.

use postern::{domain::connector::Category, store::Location};

use super::harness::{World, database};

/// A deployment in which something was released, and a connection past every policy.
async fn used() -> (World, sqlx::PgConnection) {
    let world = World::on_postgres().await;
    let Location::Postgres(settings) = &world.location else {
        panic!("not PostgreSQL")
    };
    let mut superuser = database::superuser(&database::name_of(settings)).await;
    sqlx::raw_sql(HEAR).execute(&mut superuser).await.unwrap();
    let grant = world.connect(world.ada, &[Category::Read]).await;
    world.vend(world.read(grant)).await.unwrap();
    (world, superuser)
}

/// The database itself writes down at which isolation a transaction runs.
const HEAR: &str = "
    CREATE TABLE heard (isolation TEXT);
    GRANT INSERT ON heard TO PUBLIC;
    CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.heard VALUES (current_setting('transaction_isolation'));
        RETURN NULL;
    END $$;
    CREATE TRIGGER heard AFTER INSERT OR UPDATE ON entries FOR EACH ROW EXECUTE FUNCTION hear();
    CREATE TRIGGER heard AFTER INSERT OR UPDATE ON grants FOR EACH ROW EXECUTE FUNCTION hear();
";

/// PgBouncer names the port of every connection that it makes to the server;
/// Postern's role has no others there.
#[tokio::test]
async fn in_a_run_through_pgbouncer_every_connection_is_one_of_pgbouncers() {
    if !database::is_pooled() {
        return;
    }
    let (_world, mut superuser) = used().await;
    let ports: Vec<i32> = sqlx::query_scalar(
        "SELECT client_port FROM pg_stat_activity WHERE datname = current_database() AND usename = 'postern'",
    )
    .fetch_all(&mut superuser)
    .await
    .unwrap();
    assert!(!ports.is_empty(), "nobody asks the server");
    let log = std::fs::read_to_string(database::bouncer_dir().join("log")).unwrap();
    for port in ports {
        let made = format!("new connection to server (from 127.0.0.1:{port})");
        assert!(log.contains(&made), "{port} is not PgBouncer's:\n{log}");
    }
}

#[tokio::test]
async fn in_a_serializable_run_every_change_is_made_at_that_isolation() {
    if std::env::var_os("POSTERN_TEST_POSTGRES_ISOLATION").is_none() {
        return;
    }
    let (_world, mut superuser) = used().await;
    let heard: Vec<String> = sqlx::query_scalar("SELECT DISTINCT isolation FROM heard")
        .fetch_all(&mut superuser)
        .await
        .unwrap();
    assert_eq!(heard, ["serializable"]);
}

#[tokio::test]
async fn in_a_run_with_conflicts_transactions_are_told_that_others_were_in_their_way() {
    if std::env::var_os("POSTERN_TEST_CONFLICTS").is_none() {
        return;
    }
    let (world, mut superuser) = used().await;
    let grant = world.grants_of(world.ada).await[0].id;
    for _ in 0..10 {
        world.vend(world.read(grant)).await.unwrap();
    }
    // A sequence counts on where a transaction is rolled back.
    let told: Option<i64> = sqlx::query_scalar("SELECT pg_sequence_last_value('conflicts'::regclass)")
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    assert!(told.is_some_and(|told| told > 5), "{told:?}");
}
