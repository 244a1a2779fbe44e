//! The only room that names `sqlx`. One SQL text for every database; what truly differs lives in the engine's file.
//!
//! A [`Tx`] is a transaction. Aggregates are methods on it, one file each. Nothing is committed but by
//! [`Tx::commit`]; a transaction dropped before that takes its connection with it, so that a cancelled caller can
//! never leave one open in the pool.

mod agents;
mod connects;
mod counts;
mod delegations;
mod due;
mod entries;
mod facts;
mod gate;
mod grants;
mod keys;
mod listing;
mod log;
mod once;
mod outbox;
mod people;
mod policies;
mod refresh;
mod revocations;
mod sql;
mod sqlite;
mod writers;

pub use agents::{AgentRow, EngineRow, ServiceRow};
pub use connects::{ConnectRow, ConnectStatus};
pub use due::Due;
pub use entries::{EntryFilter, EntryRow, NewEntry};
pub use facts::{AgentFacts, VendFacts};
pub(crate) use gate::Durability;
pub use gate::{GateAnswer, GateItem, IdempotencyKey, Spend};
pub use grants::{SecretKind, SecretRow};
pub use keys::ApiKeyRow;
pub use listing::{DelegationFilter, GrantFilter, UpstreamTotals};
pub use log::{LogRow, UnsequencedEntry};
pub use once::{IdempotencyRecord, LoginLinkRow, SessionRow};
pub use outbox::{OutboxRow, UpstreamResult};
pub use people::{OrgRow, UserRow};
pub use policies::{ConnectorClientRow, PolicyRow, PolicyText};
pub use refresh::Lease;
pub use revocations::{RevocationRow, Selector, SelectorCounts};
pub use sql::Tx;

use std::{path::Path, sync::Arc, time::Duration};

use crate::domain::{Clock, OrgId, Randomness, RandomnessUnavailable, Time};

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
    /// The operating system gives no randomness.
    #[error("no randomness")]
    Randomness(#[from] RandomnessUnavailable),
    /// Another process holds this data directory.
    #[error("another process is using this database")]
    Locked,
    /// The files cannot be made or opened.
    #[error("the database file cannot be opened")]
    File(#[source] std::io::Error),
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
    begun: Arc<writers::Begun>,
}

impl Store {
    /// Opens `url` (`sqlite:///absolute/path.db`), brings the schema up to date and takes the process lock.
    ///
    /// # Errors
    /// When the URL is unknown, another process holds the database, or it cannot be opened or migrated.
    pub async fn open(
        url: &str,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Randomness>,
    ) -> Result<Self, StoreError> {
        let path = url
            .strip_prefix("sqlite://")
            .filter(|path| path.starts_with('/'))
            .ok_or(StoreError::Url)?;
        let engine = sqlite::Engine::open(Path::new(path)).await?;
        Ok(Self {
            engine: Arc::new(engine),
            clock,
            replica: Arc::from("r1"),
            begun: Arc::new(writers::Begun::new(random)),
        })
    }

    /// A snapshot of one org for reading.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn read(&self, _org: OrgId) -> Result<Tx, StoreError> {
        self.engine.begin_read(self.clock.now()).await
    }

    /// A snapshot in which a key, session or link is looked for by its keyed hash, before anybody knows its org;
    /// [`Tx::enter`] goes on in that org.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn read_by(&self, _hash: &[u8; 32]) -> Result<Tx, StoreError> {
        self.engine.begin_read(self.clock.now()).await
    }

    /// A snapshot of what belongs to the deployment and to no org.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn read_deployment(&self) -> Result<Tx, StoreError> {
        self.engine.begin_read(self.clock.now()).await
    }

    /// A look at what waits for the workers, across orgs.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn due(&self) -> Result<Due, StoreError> {
        self.engine.begin_read(self.clock.now()).await.map(Due)
    }

    /// The one writing transaction of an org outside the gate; others of the same org wait in order.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn write(&self, _org: OrgId) -> Result<Tx, StoreError> {
        self.write_cold().await
    }

    /// The one writing transaction over what belongs to the deployment.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn write_deployment(&self) -> Result<Tx, StoreError> {
        self.write_cold().await
    }

    async fn write_cold(&self) -> Result<Tx, StoreError> {
        self.write_as(&format!("{}/cold", self.replica)).await
    }

    /// The writing transaction of the hot lane, which is a writer of its own in the log.
    async fn write_hot(&self) -> Result<Tx, StoreError> {
        self.write_as(&format!("{}/hot", self.replica)).await
    }

    async fn write_as(&self, writer: &str) -> Result<Tx, StoreError> {
        let mut tx = self.engine.begin_write(self.clock.now(), writer).await?;
        tx.begun = Some(Arc::clone(&self.begun));
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
        let mut tx = self.read_deployment().await?;
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
        let mut tx = self.write_deployment().await?;
        tx.execute(
            "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = $2",
            sql::params![name, value],
        )
        .await?;
        tx.commit().await
    }

    /// Writes the stop of every writer, then closes every connection. What cannot be written in time looks like a
    /// process that died.
    pub async fn close(&self) {
        if tokio::time::timeout(STOP_WITHIN, self.stop_writers())
            .await
            .is_err()
        {
            tracing::warn!("not every org's log says that this process stopped: there was no time");
        }
        self.engine.close().await;
    }

    async fn stop_writers(&self) {
        for (org, writer) in self.begun.take() {
            let stopped = async {
                let mut tx = self.engine.begin_write(self.clock.now(), &writer).await?;
                let entry = self.begun.entry(tx.now(), "stopped")?;
                tx.append_entry(org, entry).await?;
                tx.commit().await
            };
            if let Err(cause) = stopped.await {
                tracing::warn!(org.id = %org, cause = %cause, "the log of {org} does not say that {writer} stopped");
            }
        }
    }
}

impl Tx {
    /// Goes on in an org, in the same snapshot.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn enter(&mut self, _org: OrgId) -> Result<(), StoreError> {
        Ok(())
    }

    /// The database's time, taken when the transaction began.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }
}

/// How long an orderly stop may take to be written; process managers do not wait for ever.
const STOP_WITHIN: Duration = Duration::from_secs(5);
