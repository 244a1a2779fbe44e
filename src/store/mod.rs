//! The only room that names `sqlx`. One SQL text for every database; what truly differs lives in the engine's file.
//!
//! A [`Tx`] is a transaction. Aggregates are methods on it, one file each. Nothing is committed but by
//! [`Tx::commit`]; a transaction dropped before that takes its connection with it, so that a cancelled caller can
//! never leave one open in the pool.

mod agents;
mod connects;
mod counts;
mod delegations;
mod entries;
mod facts;
mod gate;
mod grants;
mod keys;
mod listing;
mod log;
mod once;
mod outbox;
mod outside;
mod people;
mod policies;
mod refresh;
mod revocations;
mod sinks;
mod sql;
mod sqlite;
mod vigil;

pub use agents::{AgentRow, EngineRow, ServiceRow};
pub use connects::{ConnectRow, ConnectStatus};
pub use entries::{EntryFilter, EntryRow, NewEntry};
pub use facts::{AgentFacts, VendFacts};
pub(crate) use gate::Durability;
pub use gate::{GateAnswer, GateItem, IdempotencyKey, Spend};
pub use grants::{SecretKind, SecretRow};
pub use keys::ApiKeyRow;
pub use listing::{DelegationFilter, GrantFilter, UpstreamTotals};
pub use log::{LogGrowth, LogRow, TileRow, WaitingWriter};
pub use once::{IdempotencyRecord, LoginLinkRow, SessionRow};
pub use outbox::{OutboxRow, UpstreamResult};
pub use outside::{Kept, MOST_MOVES, Outside, OutsideError};
pub use people::{OrgRow, UserRow};
pub use policies::{ConnectorClientRow, PolicyRow, PolicyText};
pub use refresh::Lease;
pub use revocations::{RevocationRow, Selector, SelectorCounts};
pub use sql::Tx;

use std::{path::Path, sync::Arc};

use crate::domain::{Clock, Time};

/// What can go wrong in the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database did not answer or refused.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// A row breaks its own rules.
    #[error("an inconsistent row in {table}")]
    Inconsistent {
        /// Which table.
        table: &'static str,
    },
    /// An entry cannot be written as it was drafted.
    #[error("the entry cannot be encoded")]
    Entry(#[source] crate::crypto::entry_bytes::EntryError),
    /// A uniqueness rule was broken.
    #[error("already exists")]
    Exists,
    /// Another process holds this data directory.
    #[error("another process is using this database")]
    Locked,
    /// The files cannot be made or opened.
    #[error("the database file cannot be opened")]
    File(#[source] std::io::Error),
    /// The database knows fewer entries than this process wrote: an older one was put in its place.
    #[error("the database has lost entries of this process")]
    Lost,
    /// The URL names no database this build knows.
    #[error("not a database url: expected sqlite:///path/to/file.db")]
    Url,
    /// The schema cannot be brought up to date.
    #[error("the database schema cannot be migrated")]
    Migration(#[source] sqlx::migrate::MigrateError),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if let sqlx::Error::Database(cause) = &error
            && cause.is_unique_violation()
        {
            return Self::Exists;
        }
        Self::Unavailable(error)
    }
}

/// A database of Postern.
#[derive(Debug, Clone)]
pub struct Store {
    engine: Arc<sqlite::Engine>,
    clock: Arc<dyn Clock>,
    replica: Arc<str>,
    vigil: Arc<vigil::Vigil>,
}

impl Store {
    /// Opens `url` (`sqlite:///absolute/path.db`), brings the schema up to date and takes the process lock.
    ///
    /// # Errors
    /// When the URL is unknown, another process holds the database, or it cannot be opened or migrated.
    pub async fn open(url: &str, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let path = url
            .strip_prefix("sqlite://")
            .filter(|path| path.starts_with('/'))
            .ok_or(StoreError::Url)?;
        let engine = sqlite::Engine::open(Path::new(path)).await?;
        Ok(Self {
            engine: Arc::new(engine),
            clock,
            replica: Arc::from(REPLICA),
            vigil: Arc::default(),
        })
    }

    /// A snapshot for reading.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn read(&self) -> Result<Tx, StoreError> {
        self.engine.begin_read(self.clock.now()).await
    }

    /// The one writing transaction; others wait in order.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn write(&self) -> Result<Tx, StoreError> {
        self.begin_write("cold").await
    }

    /// The writing transaction of the hot lane, which is a writer of its own in the log.
    async fn write_hot(&self) -> Result<Tx, StoreError> {
        self.begin_write("hot").await
    }

    async fn begin_write(&self, lane: &str) -> Result<Tx, StoreError> {
        let writer = format!("{}/{lane}", self.replica);
        let mut tx = self.engine.begin_write(self.clock.now(), &writer).await?;
        tx.journal = Some(vigil::Journal::new(&self.vigil));
        Ok(tx)
    }

    /// The name of this replica in leases and the log.
    #[must_use]
    pub fn replica(&self) -> &str {
        &self.replica
    }

    /// The value of a named mark of the whole database.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn meta(&self, name: &str) -> Result<Option<String>, StoreError> {
        let mut tx = self.read().await?;
        let row = tx
            .row("SELECT value FROM meta WHERE name = $1", sql::params![name])
            .await?;
        row.map(|row| row.fields("meta").text()).transpose()
    }

    /// Sets a named mark of the whole database.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn set_meta(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        tx.execute(
            "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = $2",
            sql::params![name, value],
        )
        .await?;
        tx.commit().await
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.engine.close().await;
    }
}

/// The one replica there is on SQLite; it names the file outside the database too.
pub const REPLICA: &str = "r1";

impl Tx {
    /// The database's time, taken when the transaction began.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }
}
