//! What a batch of the gate runs under over PostgreSQL, whatever is set for whom: its limits of time, what the planner may do,
//! and how durable its commit is.

use std::{sync::Arc, time::Duration};

use postern::{flows::vend, store::Location};
use sqlx::PgConnection;

use super::{
    harness::{World, database},
    leases::{connected, run, until_waiting},
};

/// The database itself writes down what is set where it is told to.
const HEAR: &str = "
    CREATE TABLE heard (name TEXT, setting TEXT);
    GRANT INSERT ON heard TO PUBLIC;
    CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.heard SELECT name, current_setting(name) FROM unnest(TG_ARGV) AS name;
        RETURN NULL;
    END $$";

async fn heard(superuser: &mut PgConnection) -> Vec<(String, String)> {
    sqlx::query_as("SELECT DISTINCT name, setting FROM heard ORDER BY name, setting")
        .fetch_all(superuser)
        .await
        .unwrap()
}

fn database_of(world: &World) -> String {
    let Location::Postgres(settings) = &world.location else {
        panic!("not PostgreSQL")
    };
    database::name_of(settings)
}

fn all(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, setting): &(&str, &str)| ((*name).to_owned(), (*setting).to_owned());
    settings.iter().map(owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_batch_runs_under_the_gates_settings_whatever_is_set_for_the_role_and_the_database() {
    let (world, grant, mut superuser) = connected().await;
    run(&mut superuser, HEAR).await;
    let held = [
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("enable_seqscan", "off"),
        ("idle_in_transaction_session_timeout", "800ms"),
        ("lock_timeout", "5s"),
        ("role", "postern_app"),
        ("statement_timeout", "10s"),
    ];
    let names = held.map(|(name, _)| format!("'{name}'")).join(", ");
    let trigger = format!(
        "CREATE TRIGGER heard AFTER INSERT ON entries FOR EACH ROW WHEN (NEW.kind = 'release')
         EXECUTE FUNCTION hear({names})"
    );
    run(&mut superuser, &trigger).await;
    let database = database_of(&world);
    for other in [
        "enable_hashjoin = on",
        "enable_mergejoin = on",
        "enable_seqscan = on",
        "idle_in_transaction_session_timeout = 0",
        "lock_timeout = '7s'",
        "statement_timeout = 0",
    ] {
        for whose in [
            format!("DATABASE {database}"),
            format!("ROLE postern IN DATABASE {database}"),
        ] {
            run(&mut superuser, &format!("ALTER {whose} SET {other}")).await;
        }
    }
    // What is set holds for whoever connects from now on.
    let other = world.replica().await.unwrap();
    for _ in 0..3 {
        vend::vend(&other, world.agent, world.read(grant)).await.unwrap();
    }
    assert_eq!(heard(&mut superuser).await, all(&held));
    other.store.close().await;
}

/// A configuration that is read anew counts from the next message on, also for who is in a transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_committed_durably_though_less_was_set_while_it_was_open() {
    let (world, grant, mut superuser) = connected().await;
    run(&mut superuser, HEAR).await;
    run(&mut superuser, HOLD_UP).await;
    configure(&mut superuser, "on").await;
    run(&mut superuser, "SELECT pg_advisory_lock(0)").await;
    let vending = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.vend(world.read(grant)).await }
    });
    until_waiting(&world, 1).await;
    configure(&mut superuser, "off").await;
    run(&mut superuser, "SELECT pg_advisory_unlock(0)").await;
    let vended = vending.await.unwrap();
    // The run's other worlds are on this server, too.
    configure(&mut superuser, "on").await;
    vended.unwrap();
    let held = [
        ("configured after", "off"),
        ("configured before", "on"),
        ("lock_timeout", "5s"),
        ("synchronous_commit", "on"),
    ];
    assert_eq!(heard(&mut superuser).await, all(&held));
}

/// Sets it for the server, and waits until it is read there.
async fn configure(superuser: &mut PgConnection, durability: &str) {
    // One by one: the first is allowed in no transaction.
    run(
        superuser,
        &format!("ALTER SYSTEM SET synchronous_commit = {durability}"),
    )
    .await;
    run(superuser, "SELECT pg_reload_conf()").await;
    for _ in 0..2000 {
        let set: String = sqlx::query_scalar("SELECT current_setting('synchronous_commit')")
            .fetch_one(&mut *superuser)
            .await
            .unwrap();
        if set == durability {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the server never read that it is {durability}");
}

/// A batch waits after it has written its entries. What is heard last is heard with the commit.
const HOLD_UP: &str = "
    CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.heard
            SELECT 'configured ' || TG_ARGV[0], reset_val FROM pg_settings WHERE name = 'synchronous_commit';
        PERFORM pg_advisory_xact_lock(0);
        RETURN NULL;
    END $$;
    CREATE TRIGGER held_up AFTER INSERT ON entries FOR EACH ROW WHEN (NEW.kind = 'release')
        EXECUTE FUNCTION hold_up('before');
    CREATE CONSTRAINT TRIGGER let_go AFTER INSERT ON entries DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.kind = 'release') EXECUTE FUNCTION hold_up('after');
    CREATE CONSTRAINT TRIGGER heard AFTER INSERT ON entries DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.kind = 'release') EXECUTE FUNCTION hear('synchronous_commit', 'lock_timeout')";
