//! SQLite: one process, one writing connection, WAL with `synchronous = FULL`.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::LazyLock,
    time::Duration,
};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection as _, Row as _, SqlSafeStr, Sqlite, SqliteConnection,
    SqlitePool, TypeInfo, ValueRef,
    pool::PoolConnection,
    sqlite::{
        SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow,
        SqliteSynchronous,
    },
};

use super::{
    StoreError,
    engine::Mode,
    entries::{self, Chain},
    lock, migrations,
    shares::{Party, Place, PoolShares, Shares},
    sql::{Row, Value, json},
};
use crate::crypto::digest;

use self::checkpoints::Written;

mod checkpoints;

/// An open SQLite database. The lock file is held until this is closed or dropped.
#[derive(Debug)]
pub(super) struct Engine {
    readers: SqlitePool,
    reading: PoolShares,
    /// One connection: its pool is the fair queue of the gate, of what ends something, and of one of all others, so nobody
    /// ever polls a busy database.
    writer: SqlitePool,
    /// Who of the others is that one: each org in turn.
    writing: Shares,
    checkpoints: SqlitePool,
    written: Written,
    lock: File,
}

impl Engine {
    pub(super) async fn open(path: &Path) -> Result<Self, StoreError> {
        // The file is made here, not by SQLite, so that its mode is ours from the first byte.
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(StoreError::File)?;
        // SQLite follows links: whichever way leads to the file, there is one lock.
        let path = path.canonicalize().map_err(StoreError::File)?;
        let lock = lock::take(&path.with_extension("lock"))
            .map_err(StoreError::File)?
            .ok_or(StoreError::Locked)?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY)
            .pragma("secure_delete", "ON")
            .pragma("trusted_schema", "OFF")
            .pragma("temp_store", "MEMORY")
            // A thread that has to wait until its rows are read is a step more.
            .row_buffer_size(ROWS)
            .disable_statement_logging();
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(Duration::from_secs(5))
                .test_before_acquire(false)
        };
        let writer = pool(1)
            .connect_with(
                options
                    .clone()
                    .pragma("cache_size", WRITER_CACHE)
                    .pragma("journal_size_limit", WAL_KEPT)
                    .pragma("wal_autocheckpoint", checkpoints::TOO_LONG),
            )
            .await?;
        migrations::sqlite()
            .run(&writer)
            .await
            .map_err(StoreError::Migration)?;
        let checkpoints = pool(1).connect_with(options.clone()).await?;
        let written = checkpoints::start(checkpoints.clone(), writer.clone(), checkpoints::LONG);
        // A reader comes back with its snapshot still open and gives it up before the next one gets the connection.
        // Opening a file anew for every read costs more than all the rest of a vend (docs/benchmarks.md).
        let readers = pool(READERS)
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
            reading: PoolShares::new(READERS),
            writer,
            writing: Shares::new(1),
            checkpoints,
            written,
            lock,
        })
    }

    /// Begins a transaction in the share of `party`.
    pub(super) async fn begin_for(&self, party: Party, mode: Mode) -> Result<Connection, StoreError> {
        let place = match mode {
            Mode::Read => self.reading.take_soon(party).await?,
            Mode::Write | Mode::Hasty | Mode::Rows => self.writing.take_soon(party).await?,
            // They stand behind one of the others at most.
            Mode::Gate | Mode::End => return self.begin(mode).await,
        };
        self.begin_in(place, mode).await
    }

    /// Begins a transaction in a place that was taken before.
    pub(super) async fn begin_in(&self, place: Place, mode: Mode) -> Result<Connection, StoreError> {
        let mut connection = self.begin(mode).await?;
        connection.place = Some(place);
        Ok(connection)
    }

    /// The places of those who read.
    pub(super) fn readers(&self) -> &PoolShares {
        &self.reading
    }

    async fn begin(&self, mode: Mode) -> Result<Connection, StoreError> {
        match mode {
            Mode::Read => {
                let mut connection = Connection::begin(&self.readers, "BEGIN", None).await?;
                // The pool of readers ends what is left open; there is nothing to undo.
                connection.clean = true;
                Ok(connection)
            }
            // There is one writer at a time, whatever it locks elsewhere.
            Mode::Write | Mode::End | Mode::Hasty | Mode::Rows => {
                Connection::begin(&self.writer, "BEGIN IMMEDIATE", Some(self.written.clone())).await
            }
            // Its guard begins it, in the same step (`BatchSql::guard`).
            Mode::Gate => Connection::hold(&self.writer, Some(self.written.clone())).await,
        }
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.checkpoints.close().await;
        self.writer.close().await;
        // Nothing touches the file any more, whoever still holds this. What fails here ends with the process.
        let _unlocked = self.lock.unlock();
    }
}

/// A connection inside a transaction. Unless it is committed, a writing one is closed when dropped and never reused.
#[derive(Debug)]
pub(super) struct Connection {
    connection: PoolConnection<Sqlite>,
    clean: bool,
    /// Who is to hear of the commit, of a writing one.
    written: Option<Written>,
    /// Entries that are written with the commit: entries come last.
    last: Option<Last>,
    /// Its share, until it is back in its pool.
    place: Option<Place>,
}

/// The insertion of some entries and the move of their chains.
#[derive(Debug)]
struct Last {
    inserts: &'static Inserts,
    values: Vec<Value>,
}

impl Connection {
    async fn hold(pool: &SqlitePool, written: Option<Written>) -> Result<Self, StoreError> {
        Ok(Self {
            connection: pool.acquire().await?,
            clean: false,
            written,
            last: None,
            place: None,
        })
    }

    async fn begin(
        pool: &SqlitePool,
        begin: &'static str,
        written: Option<Written>,
    ) -> Result<Self, StoreError> {
        let mut held = Self::hold(pool, written).await?;
        sqlx::raw_sql(begin).execute(&mut *held.connection).await?;
        Ok(held)
    }

    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        // INVARIANT: of several statements in one, those behind one that failed are not run: nothing is committed then.
        let done = match self.last.take() {
            Some(Last { inserts, values }) => {
                bind(inserts.and_commit.as_str(), values)
                    .execute(&mut *self.connection)
                    .await
            }
            None => sqlx::raw_sql("COMMIT").execute(&mut *self.connection).await,
        };
        done.map_err(StoreError::of_commit)?;
        self.clean = true;
        if let Some(written) = &self.written {
            written.tell();
        }
        Ok(())
    }

    #[cfg(feature = "bench")]
    pub(super) async fn rollback(mut self) -> Result<(), StoreError> {
        self.write_last().await?;
        sqlx::raw_sql("ROLLBACK").execute(&mut *self.connection).await?;
        self.clean = true;
        Ok(())
    }

    pub(super) async fn execute(
        &mut self,
        sql: impl SqlSafeStr + Send,
        params: Vec<Value>,
    ) -> Result<u64, StoreError> {
        self.write_last().await?;
        let done = bind(sql, params).execute(&mut *self.connection).await?;
        Ok(done.rows_affected())
    }

    pub(super) async fn rows(
        &mut self,
        sql: impl SqlSafeStr + Send,
        params: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        self.write_last().await?;
        let rows = bind(sql, params).fetch_all(&mut *self.connection).await?;
        rows.iter().map(read).collect()
    }

    /// Writes what was to be written with the commit: something else comes before that.
    async fn write_last(&mut self) -> Result<(), StoreError> {
        if let Some(Last { inserts, values }) = self.last.take() {
            bind(inserts.alone.as_str(), values)
                .execute(&mut *self.connection)
                .await?;
        }
        Ok(())
    }
}

impl Connection {
    /// Inserts entries, rows of [`entries::COLUMNS`]. There is a statement for every power of two, prepared once each; of
    /// the next larger one, the rows that are not there are NULL and left out. Then moves the writer's chains on. What can be
    /// is written with the commit, in one step with it.
    ///
    /// `OR FAIL`: a transaction whose statement failed is never committed, so SQLite need not keep what it would take to
    /// undo that statement alone.
    pub(super) async fn insert_entries(
        &mut self,
        rows: Vec<Vec<Value>>,
        writer: &str,
        chains: &[Chain],
    ) -> Result<(), StoreError> {
        self.write_last().await?;
        let mut rows = rows.into_iter();
        loop {
            let inserts = fitting(rows.len()).ok_or(StoreError::Inconsistent { table: "entries" })?;
            let mut values: Vec<Value> = rows.by_ref().take(inserts.size).flatten().collect();
            values.resize(inserts.size * entries::COLUMNS.len(), Value::Null);
            let is_last = rows.len() == 0;
            let ends: Vec<_> = chains
                .iter()
                .filter(|_| is_last)
                .map(|chain| (chain.org, chain.seq, digest::hex(&chain.hash)))
                .collect();
            values.extend([json(&ends), Value::from(writer)]);
            self.last = Some(Last { inserts, values });
            if is_last {
                return Ok(());
            }
            self.write_last().await?;
        }
    }
}

/// The smallest statements with room for so many rows, or the largest there are.
fn fitting(rows: usize) -> Option<&'static Inserts> {
    INSERTS
        .iter()
        .find(|inserts| inserts.size >= rows)
        .or(INSERTS.last())
}

/// Insert so many entries and move their writer's chains on.
#[derive(Debug)]
struct Inserts {
    size: usize,
    alone: String,
    /// The same, and the commit.
    and_commit: String,
}

/// Statements for 1, 2, 4 … [`MOST_ROWS`] entries.
static INSERTS: LazyLock<Vec<Inserts>> = LazyLock::new(|| {
    let columns = entries::COLUMNS.map(|(name, _)| name).join(", ");
    let row = format!("({})", ["?"; entries::COLUMNS.len()].join(", "));
    let sizes = std::iter::successors(Some(1), |size| Some(size * 2)).take_while(|size| *size <= MOST_ROWS);
    sizes
        .map(|size| {
            let rows = vec![row.as_str(); size].join(", ");
            // Parameters behind those of the entries.
            let values = size * entries::COLUMNS.len();
            let (ends, writer) = (values + 1, values + 2);
            let alone = format!(
                "INSERT OR FAIL INTO entries ({columns})
                  SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL;
                INSERT INTO writers (org_id, writer, seq, hash)
                  SELECT j.value ->> 0, ${writer}, j.value ->> 1, unhex(j.value ->> 2)
                  FROM json_each(${ends}) j WHERE true
                  ON CONFLICT (org_id, writer) DO UPDATE SET seq = excluded.seq, hash = excluded.hash"
            );
            let and_commit = format!("{alone}; COMMIT");
            Inserts {
                size,
                alone,
                and_commit,
            }
        })
        .collect()
});
/// Far below the most parameters a statement may have (32,766).
const MOST_ROWS: usize = 256;

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.clean {
            // INVARIANT: a connection with an open transaction never goes back to the pool of writers.
            self.connection.close_on_drop();
        } else if let Some(place) = self.place.take() {
            // What dropping it would do; whoever has its place next finds it there.
            let back = self.connection.return_to_pool();
            tokio::spawn(async move {
                back.await;
                drop(place);
            });
        }
    }
}

fn bind(sql: impl SqlSafeStr, params: Vec<Value>) -> sqlx::query::Query<'static, Sqlite, SqliteArguments> {
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

/// The number of the newest migration of a database that is there, changing nothing; `None` if it is none of ours.
pub(super) async fn version(path: &Path) -> Result<Option<i64>, StoreError> {
    let mut connection = look(path).await?;
    let newest = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
        .fetch_one(&mut connection)
        .await;
    connection.close().await?;
    // Another file altogether, or one of another program.
    Ok(newest.unwrap_or(None))
}

/// Whether there is nothing in a database but the beginning of our schema, changing nothing: so a process leaves it that
/// is killed while it makes one.
pub(super) async fn is_begun(path: &Path) -> Result<bool, StoreError> {
    let mut connection = look(path).await?;
    let begun = has_no_rows(&mut connection).await;
    connection.close().await?;
    // What cannot be read is no database.
    Ok(begun.unwrap_or(false))
}

/// Whether the only rows are those that the migrations themselves have written.
async fn has_no_rows(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let all: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_schema")
        .fetch_all(&mut *connection)
        .await?;
    if !all.is_empty() && !all.iter().any(|name| name == "_sqlx_migrations") {
        return Ok(false);
    }
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> '_sqlx_migrations' AND name NOT GLOB 'sqlite_*'",
    )
    .fetch_all(&mut *connection)
    .await?;
    for table in tables {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM \"{}\")", table.replace('"', "\"\""));
        if sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut *connection)
            .await?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A connection to a database that nobody here has opened.
async fn look(path: &Path) -> Result<SqliteConnection, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY)
        .disable_statement_logging();
    Ok(SqliteConnection::connect_with(&options).await?)
}

/// Connections that read.
const READERS: u32 = 6;
/// How long a statement waits for a lock of the file. There is one writer, so hardly ever.
const BUSY: Duration = Duration::from_secs(5);
/// What the writer keeps of the file in memory, in KiB if negative. Every org adds at the end of its own part of each
/// index; with less, those pages are read anew for every batch.
const WRITER_CACHE: &str = "-32768";
/// Bytes to which the file of the WAL is cut back where it begins anew: twice what it comes to while nobody reads for long.
/// Else it stays as long as it ever was.
const WAL_KEPT: &str = "134217728";

/// The rows of an answer that may be under way between a connection's thread and whoever asked.
const ROWS: usize = 1024;

#[cfg(test)]
mod tests;
