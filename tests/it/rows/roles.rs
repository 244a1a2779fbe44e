//! Who may log in: a role that row-level security holds, and that cannot make itself into another one.

use super::*;

/// Lets a replica in, or not, that logs in as this role.
async fn logs_in(world: &mut World, role: &str) -> Result<(), AppError> {
    let Location::Postgres(settings) = &world.location else {
        panic!()
    };
    let name = database::name_of(settings);
    let before = world.location.clone();
    world.location = Location::Postgres(database::settings(role, &name).await);
    let let_in = world.replica().await;
    world.location = before;
    let_in?.store.close().await;
    Ok(())
}

async fn is_refused(world: &mut World, role: &str, why: &str) {
    let refused = logs_in(world, role).await;
    assert!(
        matches!(refused, Err(AppError::Store(StoreError::Role))),
        "{role}, {why}: {refused:?}"
    );
}

#[tokio::test]
async fn a_role_that_could_step_around_the_policies_is_refused() {
    let (mut world, _) = world().await;
    let mut superuser = database::superuser("postgres").await;
    for role in [
        "unheld NOLOGIN BYPASSRLS",
        "unheld_kin NOLOGIN NOINHERIT IN ROLE unheld",
        "postern_heir LOGIN IN ROLE postern_app, postern_due",
        "postern_maker LOGIN NOINHERIT CREATEROLE IN ROLE postern_app, postern_due",
        "postern_standby LOGIN NOINHERIT REPLICATION IN ROLE postern_app, postern_due",
        "postern_grandson LOGIN NOINHERIT IN ROLE postern_app, postern_due, unheld_kin",
        "postern_son LOGIN NOINHERIT IN ROLE postern_app, postern_due, postgres",
        "postern_filer LOGIN NOINHERIT IN ROLE postern_app, postern_due, pg_write_server_files",
        "postern_half LOGIN NOINHERIT IN ROLE postern_app",
    ] {
        run(&mut superuser, &format!("CREATE ROLE {role}")).await;
    }
    for role in [
        "postgres",
        "postern_owner",
        "postern_heir",
        "postern_maker",
        "postern_standby",
        "postern_grandson",
        "postern_son",
        "postern_filer",
        "postern_half",
    ] {
        is_refused(&mut world, role, "as it was made").await;
    }
}

#[tokio::test]
async fn a_role_that_is_given_more_than_it_needs_is_refused_until_it_is_taken_back() {
    let (mut world, _) = world().await;
    let Location::Postgres(settings) = &world.location else {
        panic!()
    };
    let name = database::name_of(settings);
    let mut superuser = database::superuser(&name).await;
    run(
        &mut superuser,
        "CREATE ROLE postern_plain LOGIN NOINHERIT IN ROLE postern_app, postern_due",
    )
    .await;
    for (give, take) in [
        (
            format!("ALTER DATABASE {name} OWNER TO postern_plain"),
            format!("ALTER DATABASE {name} OWNER TO postern_owner"),
        ),
        (
            format!("GRANT CREATE ON DATABASE {name} TO postern_plain"),
            format!("REVOKE CREATE ON DATABASE {name} FROM postern_plain"),
        ),
        (
            format!("GRANT TEMPORARY ON DATABASE {name} TO postern_app"),
            format!("REVOKE TEMPORARY ON DATABASE {name} FROM postern_app"),
        ),
        (
            "GRANT CREATE ON SCHEMA public TO postern_due".to_owned(),
            "REVOKE CREATE ON SCHEMA public FROM postern_due".to_owned(),
        ),
        (
            "ALTER TABLE grants OWNER TO postern_plain".to_owned(),
            "ALTER TABLE grants OWNER TO postern_owner".to_owned(),
        ),
    ] {
        logs_in(&mut world, "postern_plain").await.unwrap();
        run(&mut superuser, &give).await;
        is_refused(&mut world, "postern_plain", &give).await;
        run(&mut superuser, &take).await;
    }
    logs_in(&mut world, "postern_plain").await.unwrap();
}

/// PostgreSQL lets everybody make temporary tables in a new database, and before version 15 tables in its schema.
#[tokio::test]
async fn migrating_takes_from_everybody_what_the_service_is_refused_for() {
    let (mut world, _) = world().await;
    let Location::Postgres(settings) = &world.location else {
        panic!()
    };
    let name = database::name_of(settings);
    let owner = database::settings("postern_owner", &name).await;
    let mut superuser = database::superuser(&name).await;
    for give in [
        format!("GRANT TEMPORARY ON DATABASE {name} TO PUBLIC"),
        "GRANT CREATE ON SCHEMA public TO PUBLIC".to_owned(),
    ] {
        run(&mut superuser, &give).await;
        is_refused(&mut world, "postern", &give).await;
        assert_eq!(postern::store::migrate(&owner).await.unwrap(), 0);
        logs_in(&mut world, "postern").await.unwrap();
    }
}
