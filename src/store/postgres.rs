//! PostgreSQL: any number of replicas, row-level security by org, time by the database's clock.
//!
//! The process logs in as a role that owns nothing. Every transaction says which orgs it is about before it reads
//! anything, in the same round trip that begins it, and nothing it sets outlives it. What is the same for all batches of the
//! gate, the gate's connections bring along.

mod begin;
mod inserts;
mod pools;
mod trips;
mod upgrade;

use std::time::Duration;

use sqlx::{
    ConnectOptions, Decode, Encode, Postgres, Row as _, SqlSafeStr, Type, TypeInfo, ValueRef,
    encode::IsNull,
    error::BoxDynError,
    pool::PoolConnection,
    postgres::{PgArgumentBuffer, PgArguments, PgConnectOptions, PgRow, PgSslMode, PgTypeInfo, types::Oid},
};

pub(super) use upgrade::migrate;

use begin::{admit, begin};
use pools::Pools;
use trips::Trips;

use super::{
    StoreError,
    engine::{Mode, Reach},
    migrations,
    shares::{Party, Place, PoolShares},
    sql::{Row, Value},
};
use crate::domain::{OrgId, Time};

/// How to reach the database.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `postgres://user@host:port/database?sslmode=verify-full`.
    pub url: String,
    /// The role's password, unless the environment or a password file has it (libpq's rules).
    pub password: Option<secrecy::SecretString>,
    /// The most connections for everything but the gate and what ends something.
    pub connections: u32,
    /// Whether a pooler that gives every transaction another connection stands in between (PgBouncer).
    pub pooler: bool,
    /// How transactions that write are kept apart.
    pub isolation: Isolation,
}

/// How transactions that write are kept apart. The promise rests on the guard's row lock, not on this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Said explicitly, so that no setting of the database changes what was proven and measured.
    #[default]
    ReadCommitted,
    /// What engines make of it that know nothing weaker; tests have PostgreSQL do the same.
    Serializable,
}

/// An open PostgreSQL database.
#[derive(Debug)]
pub(super) struct Engine {
    pools: Pools,
    /// Whose time counts: the database's, unless a test moves the clock.
    own_clock: bool,
    persistent: bool,
    isolation: Isolation,
}

impl Engine {
    pub(super) async fn open(settings: &Settings, own_clock: bool) -> Result<Self, StoreError> {
        let options = options(settings)?;
        let engine = Self {
            pools: Pools::open(settings.connections, options, settings.pooler).await?,
            own_clock,
            persistent: !settings.pooler,
            isolation: settings.isolation,
        };
        Trips::default().wait(engine.check_role()).await??;
        engine.check_schema().await?;
        Ok(engine)
    }

    /// Refuses a role that row-level security does not hold, or not for long.
    async fn check_role(&self) -> Result<Result<(), StoreError>, sqlx::Error> {
        // One transaction: a pooler may give the two round trips of a statement outside of any to two servers.
        let mut connection = self.pools.cold.begin().await?;
        let made: bool = sqlx::query_scalar("SELECT to_regrole('postern_app') IS NOT NULL")
            .persistent(false)
            .fetch_one(&mut *connection)
            .await?;
        if !made {
            return Ok(Err(StoreError::Version));
        }
        // SECURITY: what counts is every role it could take, however far away; who owns the database is a member of
        // `pg_database_owner`. Where it may make a table or a function, temporary ones included, one named like ours would
        // be found first by what comes after on that connection. One that inherits `postern_due` would see what that role's
        // policies show in every transaction.
        let unheld: bool = sqlx::query_scalar(
            "WITH reach AS MATERIALIZED (
               SELECT oid, rolsuper OR rolbypassrls OR rolcreaterole OR rolreplication
                 OR rolname IN ('pg_database_owner', 'pg_write_all_data', 'pg_read_server_files',
                   'pg_write_server_files', 'pg_execute_server_program') AS mighty
               FROM pg_roles WHERE pg_has_role(session_user, oid, 'MEMBER'))
             SELECT pg_has_role(session_user, 'postern_due', 'USAGE')
               OR NOT pg_has_role(session_user, 'postern_due', 'MEMBER')
               OR NOT pg_has_role(session_user, 'postern_app', 'MEMBER')
               OR EXISTS (SELECT 1 FROM reach r WHERE r.mighty
                 OR has_database_privilege(r.oid, current_database(), 'CREATE, TEMPORARY')
                 OR EXISTS (SELECT 1 FROM pg_namespace n WHERE has_schema_privilege(r.oid, n.oid, 'CREATE'))
                 OR EXISTS (SELECT 1 FROM pg_class c WHERE c.relowner = r.oid))",
        )
        .persistent(false)
        .fetch_one(&mut *connection)
        .await?;
        connection.rollback().await?;
        Ok(if unheld { Err(StoreError::Role) } else { Ok(()) })
    }

    /// Refuses a schema of another version.
    async fn check_schema(&self) -> Result<(), StoreError> {
        let (mut connection, _) = self
            .begin(Mode::Read, Reach::Deployment, Time::from_unix_micros(0))
            .await?;
        let newest = connection
            .rows(
                "SELECT max(version) FROM _sqlx_migrations WHERE success",
                Vec::new(),
            )
            .await
            .map_err(|_| StoreError::Version)?;
        match newest.into_iter().next().map(|row| row.0) {
            Some(row) if row == [Value::Int(migrations::LATEST)] => Ok(()),
            _ => Err(StoreError::Version),
        }
    }

    pub(super) async fn begin(
        &self,
        mode: Mode,
        reach: Reach<'_>,
        now: Time,
    ) -> Result<(Connection, Time), StoreError> {
        let taken = self.pools.take(mode, Party::of(mode, reach)).await?;
        self.begin_on(taken, mode, reach, now).await
    }

    /// Begins a snapshot of one org in a place that was taken before.
    pub(super) async fn read_in(
        &self,
        place: Place,
        org: OrgId,
        now: Time,
    ) -> Result<(Connection, Time), StoreError> {
        let taken = (self.pools.cold.acquire().await?, Some(place));
        self.begin_on(taken, Mode::Read, Reach::Org(org), now).await
    }

    /// The places of those who read.
    pub(super) fn readers(&self) -> &PoolShares {
        &self.pools.places
    }

    async fn begin_on(
        &self,
        (connection, place): (PoolConnection<Postgres>, Option<Place>),
        mode: Mode,
        reach: Reach<'_>,
        now: Time,
    ) -> Result<(Connection, Time), StoreError> {
        let brief = mode == Mode::Gate && self.pools.gate_has_settings;
        let mut held = Connection {
            connection,
            place,
            trips: Trips::default(),
            clean: false,
            persistent: self.persistent,
            guard_tells_time: brief && !self.own_clock,
        };
        // SECURITY: put together from fixed text, ids of ours and hex digits only.
        let begin = sqlx::AssertSqlSafe(begin(mode, self.isolation, reach, brief));
        let begun = sqlx::raw_sql(begin).fetch_all(&mut *held.connection);
        let begun = held.trips.wait(begun).await.map_err(|error| match &error {
            // It would not do for anybody.
            StoreError::Unavailable(cause) if is_of_a_standby(cause) => StoreError::from(
                sqlx::Error::Protocol("the server is a standby, which only reads".to_owned()),
            ),
            _ => error,
        });
        let at = match begun?.pop() {
            // Its guard says it, without which nothing is written.
            None if brief => now,
            None => return Err(StoreError::Inconsistent { table: "clock" }),
            Some(_) if self.own_clock => now,
            Some(row) => Time::from_unix_micros(row.try_get(0)?),
        };
        // The pool ends what a reader leaves open; there is nothing to undo.
        held.clean = mode == Mode::Read;
        Ok((held, at))
    }

    pub(super) async fn close(&self) {
        self.pools.close().await;
    }
}

/// PostgreSQL says "feature not supported" where a standby is to begin a transaction that may write.
fn is_of_a_standby(cause: &sqlx::Error) -> bool {
    matches!(cause, sqlx::Error::Database(said) if said.code().as_deref() == Some("0A000"))
}

pub(super) fn options(settings: &Settings) -> Result<PgConnectOptions, StoreError> {
    let mut options: PgConnectOptions = settings.url.parse().map_err(|_| StoreError::Url)?;
    if let Some(password) = &settings.password {
        options = options.password(secrecy::ExposeSecret::expose_secret(password));
    }
    let local = options.get_socket().is_some()
        || options.get_host().starts_with('/')
        || matches!(options.get_host(), "localhost" | "127.0.0.1" | "::1" | "[::1]");
    // SECURITY: sealed values are safe on the wire, the database's answers about epochs and floors are not.
    if !local && !matches!(options.get_ssl_mode(), PgSslMode::VerifyFull) {
        return Err(StoreError::Unverified);
    }
    let options = options.application_name("postern").disable_statement_logging();
    Ok(if settings.pooler {
        // A pooler refuses a startup parameter that it cannot restore on another connection; nothing here is a float.
        options.statement_cache_capacity(0).extra_float_digits(None)
    } else {
        options.statement_cache_capacity(512)
    })
}

/// A connection inside a transaction. Unless it is committed, it is closed when dropped and never reused; a reader's is
/// given back once its snapshot is given up.
#[derive(Debug)]
pub(super) struct Connection {
    connection: PoolConnection<Postgres>,
    /// Its share, until it is back in its pool.
    place: Option<Place>,
    trips: Trips,
    clean: bool,
    persistent: bool,
    /// Whether it began without the database's time, which counts.
    pub(super) guard_tells_time: bool,
}

impl Connection {
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        // At the server a commit waits for its replicas as long as it takes: cut off by a time limit there, it would be
        // reported as done while it stands on one server only. Who waits no longer here does not know whether it was done.
        let commit = sqlx::raw_sql("SET LOCAL statement_timeout = 0; COMMIT");
        let commit = commit.execute(&mut *self.connection);
        self.trips.wait_for_commit(commit).await?;
        self.clean = true;
        Ok(())
    }

    #[cfg(feature = "bench")]
    pub(super) async fn rollback(mut self) -> Result<(), StoreError> {
        let rollback = sqlx::raw_sql("ROLLBACK").execute(&mut *self.connection);
        self.trips.wait(rollback).await?;
        self.clean = true;
        Ok(())
    }

    pub(super) async fn execute(
        &mut self,
        sql: impl SqlSafeStr + Send,
        params: Vec<Value>,
    ) -> Result<u64, StoreError> {
        let query = self.bind(sql, params);
        let done = self.trips.wait(query.execute(&mut *self.connection)).await?;
        Ok(done.rows_affected())
    }

    pub(super) async fn rows(
        &mut self,
        sql: impl SqlSafeStr + Send,
        params: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        let query = self.bind(sql, params);
        let rows = self.trips.wait(query.fetch_all(&mut *self.connection)).await?;
        rows.iter().map(read).collect()
    }

    pub(super) async fn enter(&mut self, org: OrgId) -> Result<(), StoreError> {
        self.set(admit(&[org])).await
    }

    /// Lifts the limits of time for what is no request of anybody's: copying a whole database.
    pub(super) async fn take_time(&mut self) -> Result<(), StoreError> {
        let none = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0";
        self.set(none.to_owned()).await?;
        self.trips.allow_any();
        Ok(())
    }

    pub(super) async fn queue_for_guard(&mut self, org: OrgId) -> Result<(), StoreError> {
        self.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))",
            vec![Value::from(org)],
        )
        .await
        .map(drop)
    }

    pub(super) async fn allow_time(&mut self, each: Duration) -> Result<(), StoreError> {
        self.set(format!("SET LOCAL statement_timeout = {}", each.as_millis()))
            .await?;
        self.trips.allow(each);
        Ok(())
    }

    /// Says what holds for this transaction. SECURITY: put together from fixed text, ids of ours and numbers only.
    async fn set(&mut self, sql: String) -> Result<(), StoreError> {
        let set = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *self.connection);
        self.trips.wait(set).await.map(drop)
    }

    fn bind(
        &self,
        sql: impl SqlSafeStr,
        params: Vec<Value>,
    ) -> sqlx::query::Query<'static, Postgres, PgArguments> {
        let query = sqlx::query(sql).persistent(self.persistent);
        params.into_iter().fold(query, |query, value| match value {
            Value::Null => query.bind(Untyped),
            Value::Int(int) => query.bind(int),
            Value::Text(text) => query.bind(text),
            Value::Blob(bytes) => query.bind(bytes),
        })
    }
}

/// Batches of the gate under way at once: while one waits for the disk and another is run, the third is made.
pub(super) const BATCHES: u32 = 3;

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.clean || self.trips.are_given_up() {
            // INVARIANT: a connection with an open transaction never goes back to its pool.
            self.connection.close_on_drop();
        } else {
            // What dropping it would do, but it gives up its place in the pool if the server does not answer any more.
            let (back, place) = (self.connection.return_to_pool(), self.place.take());
            tokio::spawn(async move {
                let _late = tokio::time::timeout(GIVE_BACK, back).await;
                drop(place);
            });
        }
    }
}

/// A NULL whose type the statement says.
struct Untyped;

impl Type<Postgres> for Untyped {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl Encode<'_, Postgres> for Untyped {
    fn encode_by_ref(&self, _: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Ok(IsNull::Yes)
    }
}

fn read(row: &PgRow) -> Result<Row, StoreError> {
    (0..row.len())
        .map(|index| value(row, index))
        .collect::<Result<Vec<_>, sqlx::Error>>()
        .map(Row)
        .map_err(StoreError::from)
}

fn value(row: &PgRow, index: usize) -> Result<Value, sqlx::Error> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let kind = raw.type_info().name().to_owned();
    let decoded = match kind.as_str() {
        "INT8" => <i64 as Decode<Postgres>>::decode(raw).map(Value::Int),
        "INT4" => <i32 as Decode<Postgres>>::decode(raw).map(|int| Value::Int(i64::from(int))),
        "BOOL" => <bool as Decode<Postgres>>::decode(raw).map(|flag| Value::Int(i64::from(flag))),
        "BYTEA" => <Vec<u8> as Decode<Postgres>>::decode(raw).map(Value::Blob),
        _ => <String as Decode<Postgres>>::decode(raw).map(Value::Text),
    };
    decoded.map_err(sqlx::Error::Decode)
}

/// How long to wait for a connection.
const ACQUIRE: Duration = Duration::from_secs(5);
/// How long a connection that is given back may take to end its transaction.
const GIVE_BACK: Duration = Duration::from_secs(5);
