//! SQLite: one process, one writing connection, WAL with `synchronous = FULL`.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use sqlx::{
    ConnectOptions, Row as _, Sqlite, SqlitePool, TypeInfo, ValueRef,
    migrate::{Migration, MigrationType, Migrator},
    pool::PoolConnection,
    sqlite::{
        SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow,
        SqliteSynchronous,
    },
};

use super::{
    StoreError,
    sql::{Row, Tx, Value},
};
use crate::domain::Time;

/// An open SQLite database. The lock file is held as long as this lives.
#[derive(Debug)]
pub(super) struct Engine {
    readers: SqlitePool,
    /// One connection: its pool is the fair queue of writers, so nobody ever polls a busy database.
    writer: SqlitePool,
    _lock: File,
}

impl Engine {
    pub(super) async fn open(path: &Path) -> Result<Self, StoreError> {
        let lock = lock(path)?;
        // The file is made here, not by SQLite, so that its mode is ours from the first byte.
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(StoreError::File)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5))
            .pragma("secure_delete", "ON")
            .pragma("trusted_schema", "OFF")
            .pragma("temp_store", "MEMORY")
            .disable_statement_logging();
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(Duration::from_secs(5))
                .test_before_acquire(false)
        };
        let writer = pool(1).connect_with(options.clone()).await?;
        migrations().run(&writer).await.map_err(StoreError::Migration)?;
        // A reader comes back with its snapshot still open and gives it up before the next one gets the connection.
        // Opening a file anew for every read costs more than all the rest of a vend (docs/benchmarks.md).
        let readers = pool(4)
            .after_release(|connection, _| {
                Box::pin(async move {
                    // Whatever else happened in it, a connection without a transaction to end is closed.
                    Ok(sqlx::raw_sql("ROLLBACK").execute(connection).await.is_ok())
                })
            })
            .connect_with(options.read_only(true))
            .await?;
        Ok(Self {
            readers,
            writer,
            _lock: lock,
        })
    }

    pub(super) async fn begin_read(&self, now: Time) -> Result<Tx, StoreError> {
        let mut connection = Connection::begin(&self.readers, "BEGIN").await?;
        // The pool of readers ends what is left open; there is nothing to undo.
        connection.clean = true;
        Ok(Tx {
            connection,
            now,
            writer: String::new(),
            begun: None,
            starting: Vec::new(),
        })
    }

    pub(super) async fn begin_write(&self, now: Time, writer: &str) -> Result<Tx, StoreError> {
        let connection = Connection::begin(&self.writer, "BEGIN IMMEDIATE").await?;
        Ok(Tx {
            connection,
            now,
            writer: writer.to_owned(),
            begun: None,
            starting: Vec::new(),
        })
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// A connection inside a transaction. Unless it is committed, a writing one is closed when dropped and never reused.
#[derive(Debug)]
pub(super) struct Connection {
    connection: PoolConnection<Sqlite>,
    clean: bool,
}

impl Connection {
    async fn begin(pool: &SqlitePool, begin: &'static str) -> Result<Self, StoreError> {
        let mut held = Self {
            connection: pool.acquire().await?,
            clean: false,
        };
        sqlx::raw_sql(begin).execute(&mut *held.connection).await?;
        Ok(held)
    }

    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("COMMIT").execute(&mut *self.connection).await?;
        self.clean = true;
        Ok(())
    }

    #[cfg(feature = "bench")]
    pub(super) async fn rollback(mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("ROLLBACK").execute(&mut *self.connection).await?;
        self.clean = true;
        Ok(())
    }

    pub(super) async fn execute(&mut self, sql: &'static str, params: Vec<Value>) -> Result<u64, StoreError> {
        let done = bind(sql, params).execute(&mut *self.connection).await?;
        Ok(done.rows_affected())
    }

    pub(super) async fn rows(
        &mut self,
        sql: &'static str,
        params: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        let rows = bind(sql, params).fetch_all(&mut *self.connection).await?;
        rows.iter().map(read).collect()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.clean {
            // INVARIANT: a connection with an open transaction never goes back to the pool of writers.
            self.connection.close_on_drop();
        }
    }
}

fn bind(sql: &'static str, params: Vec<Value>) -> sqlx::query::Query<'static, Sqlite, SqliteArguments> {
    params
        .into_iter()
        .fold(sqlx::query(sql), |query, value| match value {
            Value::Null => query.bind(None::<i64>),
            Value::Int(int) => query.bind(int),
            Value::Text(text) => query.bind(text),
            Value::Blob(bytes) => query.bind(bytes),
        })
}

fn read(row: &SqliteRow) -> Result<Row, StoreError> {
    (0..row.len())
        .map(|index| {
            let raw = row.try_get_raw(index)?;
            if raw.is_null() {
                return Ok(Value::Null);
            }
            let kind = raw.type_info();
            Ok(match kind.name() {
                "INTEGER" => Value::Int(row.try_get_unchecked(index)?),
                "BLOB" => Value::Blob(row.try_get_unchecked(index)?),
                _ => Value::Text(row.try_get_unchecked(index)?),
            })
        })
        .collect::<Result<Vec<_>, sqlx::Error>>()
        .map(Row)
        .map_err(StoreError::from)
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path.with_extension("lock"))
        .map_err(StoreError::File)?;
    file.try_lock().map_err(|_| StoreError::Locked)?;
    Ok(file)
}

fn migrations() -> Migrator {
    let migration = |version, name: &'static str, text| {
        let text = sqlx::SqlStr::from_static(text);
        Migration::new(version, name.into(), MigrationType::Simple, text, false)
    };
    Migrator::with_migrations(vec![
        migration(1, "house", include_str!("../../migrations/sqlite/0001_house.sql")),
        migration(
            2,
            "planner",
            include_str!("../../migrations/sqlite/0002_planner.sql"),
        ),
    ])
}

/// The statements of the gate's batch: one JSON parameter carries all rows.
pub(super) mod gate {
    pub(in crate::store) const HEADS: &str = "SELECT e.org_id, e.incarnation, e.counter, w.seq, w.hash
        FROM json_each($1) j JOIN epochs e ON e.org_id = j.value
        LEFT JOIN writers w ON w.org_id = e.org_id AND w.writer = $2";

    pub(in crate::store) const SECRETS: &str =
        "SELECT j.value ->> 4, s.generation, s.scopes, s.expires_at, s.odk, s.sealed, s.wrapped_dek
        FROM json_each($1) j
        JOIN grants g ON g.org_id = j.value ->> 0 AND g.id = j.value ->> 1 AND g.state = 'active'
        JOIN secrets s ON s.org_id = g.org_id AND s.row_id = g.id AND s.kind = j.value ->> 2
          AND s.generation = j.value ->> 3";

    pub(in crate::store) const TOUCH: &str = "UPDATE grants SET last_used_at = $2
        WHERE (org_id, id) IN (SELECT j.value ->> 0, j.value ->> 1 FROM json_each($1) j)
          AND coalesce(last_used_at, 0) < $2 - $3";

    pub(in crate::store) const TAKE_IDEMPOTENCY: &str =
        "INSERT INTO idempotency (org_id, principal, route, key, digest, entry_id, status, code, keep_until)
        SELECT j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4, j.value ->> 5,
          j.value ->> 6, j.value ->> 7, j.value ->> 8
        FROM json_each($1) j WHERE true
        ON CONFLICT (org_id, principal, route, key) DO UPDATE SET digest = excluded.digest,
          entry_id = excluded.entry_id, status = excluded.status, code = excluded.code,
          keep_until = excluded.keep_until
        WHERE idempotency.keep_until <= $2";

    pub(in crate::store) const IDEMPOTENCY_LOSERS: &str =
        "SELECT j.value ->> 5, i.digest, i.entry_id, i.status, i.code FROM json_each($1) j
        JOIN idempotency i ON i.org_id = j.value ->> 0 AND i.principal = j.value ->> 1 AND i.route = j.value ->> 2
          AND i.key = j.value ->> 3 AND i.entry_id <> j.value ->> 5";

    pub(in crate::store) const GIVE_BACK_IDEMPOTENCY: &str = "DELETE FROM idempotency
        WHERE (org_id, entry_id) IN (SELECT j.value ->> 0, j.value ->> 1 FROM json_each($1) j)";

    pub(in crate::store) const SPEND: &str = "INSERT INTO spent (org_id, iss, jti, entry_id, keep_until)
        SELECT j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4 FROM json_each($1) j
        WHERE true ON CONFLICT (org_id, iss, jti) DO NOTHING";

    pub(in crate::store) const SPEND_LOSERS: &str = "SELECT j.value ->> 3, s.entry_id FROM json_each($1) j
        JOIN spent s ON s.org_id = j.value ->> 0 AND s.iss = j.value ->> 1 AND s.jti = j.value ->> 2
          AND s.entry_id <> j.value ->> 3";

    pub(in crate::store) const APPEND: &str =
        "INSERT INTO entries (org_id, id, epoch, ts, writer, writer_seq, kind, user_id, agent_id, connector, outcome,
          mode, correlation, bytes, odk, sealed, wrapped_dek)
        SELECT j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4, j.value ->> 5,
          j.value ->> 6, j.value ->> 7, j.value ->> 8, j.value ->> 9, j.value ->> 10, j.value ->> 11, j.value ->> 12,
          j.value ->> 13, j.value ->> 14, unhex(j.value ->> 15), unhex(j.value ->> 16)
        FROM json_each($1) j";

    pub(in crate::store) const WRITERS: &str = "INSERT INTO writers (org_id, writer, seq, hash)
        SELECT j.value ->> 0, $2, j.value ->> 1, unhex(j.value ->> 2) FROM json_each($1) j WHERE true
        ON CONFLICT (org_id, writer) DO UPDATE SET seq = excluded.seq, hash = excluded.hash";
}

#[cfg(test)]
mod tests;
