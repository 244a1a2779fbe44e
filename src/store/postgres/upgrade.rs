//! Bringing the schema up to date while others work on it. A statement that waits for a table is stood behind by all that come
//! after it, so none waits for long: a migration, which is one transaction, gives up and is begun anew.

use std::time::Duration;

use sqlx::{
    migrate::MigrateError,
    postgres::{PgPool, PgPoolOptions},
};
use tokio::time::Instant;

use super::{
    super::{StoreError, migrations},
    ACQUIRE, Settings, options,
};

/// Brings the schema up to date, as the role that owns it; returns how many migrations were missing.
///
/// # Errors
/// When the database cannot be reached, a migration fails, or others are in its way for a minute: then that migration changed
/// nothing.
pub(in super::super) async fn migrate(settings: &Settings) -> Result<usize, StoreError> {
    let options = options(settings)?;
    let until = Instant::now() + WITHIN;
    let (mut before, mut told) = (None, false);
    loop {
        // Anew for each try: what the one before has left open ends with its connection.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE)
            .after_connect(|connection, _| {
                let limit = sqlx::raw_sql("SET lock_timeout = '2s'");
                Box::pin(async move { limit.execute(connection).await.map(drop) })
            })
            .connect_with(options.clone())
            .await?;
        let tried = run(&pool, &mut before).await;
        pool.close().await;
        let cause = match tried {
            Ok(missing) => return Ok(missing),
            Err(MigrateError::Execute(cause)) if waited(&cause) => cause.to_string(),
            Err(MigrateError::ExecuteMigration(cause, number)) if waited(&cause) => {
                format!("migration {number}: {cause}")
            }
            Err(error) => return Err(StoreError::Migration(error)),
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(StoreError::Conflict);
        }
        if !told {
            told = true;
            tracing::warn!(
                cause = %cause,
                "waiting for other transactions to let go of a table, as a dump does when it ends ({cause}); trying again \
                 for {} s",
                left.as_secs().max(1)
            );
        }
        tokio::time::sleep(PAUSE.min(left)).await;
    }
}

/// One try. What was missing `before` the first one is counted once.
async fn run(pool: &PgPool, before: &mut Option<i64>) -> Result<usize, MigrateError> {
    let first = match *before {
        Some(first) => first,
        None => *before.insert(applied(pool).await?),
    };
    migrations::postgres().run(pool).await?;
    shut(pool).await?;
    let after = applied(pool).await?;
    Ok(usize::try_from(after - first).unwrap_or(0))
}

/// Takes from everybody what `serve` refuses a role for and PostgreSQL gives to everybody: temporary tables in a new database,
/// tables in a schema that was made before version 15. What belongs to somebody else is said, as is who may connect: that
/// is not taken here, where nobody knows the names of those who have to keep it.
async fn shut(pool: &PgPool) -> Result<(), sqlx::Error> {
    let given: Vec<(String, bool)> = sqlx::query_as(GIVEN_TO_ALL).fetch_all(pool).await?;
    for (revoke, own) in given {
        if own {
            // SECURITY: put together by the server, with its own quoting.
            sqlx::raw_sql(sqlx::AssertSqlSafe(revoke)).execute(pool).await?;
        } else {
            tracing::warn!(
                revoke = %revoke,
                "`postern serve` refuses to start until an administrator of the server says: {revoke}"
            );
        }
    }
    let open: Option<String> = sqlx::query_scalar(OPEN_TO_ALL).fetch_optional(pool).await?;
    if let Some(database) = open {
        tracing::warn!(
            database = %database,
            "every role of this server may connect to this database, those of another Postern too; grant it to the \
             service's role alone: GRANT CONNECT ON DATABASE {database} TO …; REVOKE CONNECT ON DATABASE {database} \
             FROM PUBLIC"
        );
    }
    Ok(())
}

/// How many there are.
async fn applied(pool: &PgPool) -> Result<i64, MigrateError> {
    let count = sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations WHERE success")
        .fetch_one(pool)
        .await;
    match count {
        Ok(count) => Ok(count),
        Err(cause) if waited(&cause) => Err(cause.into()),
        // Before the first migration there is no such table. Whatever else is wrong, the migrator says.
        Err(_) => Ok(0),
    }
}

/// Whether a lock was not to be had in time.
fn waited(cause: &sqlx::Error) -> bool {
    cause
        .as_database_error()
        .is_some_and(|said| said.code().as_deref() == Some("55P03"))
}

/// For so long it is tried.
const WITHIN: Duration = Duration::from_secs(60);
/// Between two tries: whoever stood behind one goes first.
const PAUSE: Duration = Duration::from_secs(1);
/// How to take back what everybody may make here, and whether it is this role's to take.
const GIVEN_TO_ALL: &str = "
    SELECT format('REVOKE %s ON DATABASE %I FROM PUBLIC', a.privilege_type, d.datname), pg_has_role(d.datdba, 'USAGE')
    FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
    WHERE d.datname = current_database() AND a.grantee = 0 AND a.privilege_type IN ('CREATE', 'TEMPORARY')
    UNION ALL
    SELECT format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', n.nspname), pg_has_role(n.nspowner, 'USAGE')
    FROM pg_namespace n, aclexplode(n.nspacl) a
    WHERE a.grantee = 0 AND a.privilege_type = 'CREATE'";
/// This database, as a statement names it, if everybody may connect to it.
const OPEN_TO_ALL: &str = "
    SELECT format('%I', d.datname) FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
    WHERE d.datname = current_database() AND a.grantee = 0 AND a.privilege_type = 'CONNECT'";
