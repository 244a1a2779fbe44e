//! The only room that names `sqlx`. One SQL text for every database; what truly differs lives in the engines' files and
//! in `batch_sql`.
//!
//! A [`Tx`] is a transaction. Aggregates are methods on it, one file each. Nothing is committed but by
//! [`Tx::commit`]; a transaction dropped before that takes its connection with it, so that a cancelled caller can
//! never leave one open in the pool.

mod agents;
mod batch_sql;
mod claims;
mod connects;
mod copy;
mod counts;
mod delegations;
mod disk_turns;
mod due;
mod engine;
mod entries;
mod error;
mod facts;
mod gate;
mod grants;
mod growth;
mod guard;
mod keeps;
mod keys;
mod lane;
mod lineage;
mod listing;
mod lock;
mod log;
mod looks;
mod migrations;
mod notices;
mod once;
mod outbox;
mod outside;
mod people;
mod policies;
mod postgres;
mod providers;
mod reach;
mod refresh;
mod refresh_sql;
mod replicas;
mod retry;
mod revocations;
mod shares;
mod sinks;
mod spool;
mod sql;
mod sqlite;
mod vigil;
mod waits;
mod writers;

pub use agents::{AgentRow, EngineRow, ServiceRow};
pub use claims::Claims;
pub use connects::{ConnectRow, ConnectStatus, REVOKED};
pub use copy::{CopyError, Copying, Progress, Report, TableCount, TableReport, Told, Which};
pub use counts::SelectorCounts;
pub use due::{Due, InDoubt, OutboxLine, Unfinished};
pub use entries::{EntryFilter, EntryRow, NewEntry};
pub use error::StoreError;
pub use facts::{AgentFacts, VendFacts};
pub(crate) use gate::Durability;
pub use gate::{GateAnswer, GateItem, IdempotencyKey, Spend};
pub use grants::{SecretKind, SecretRow, whose::Whose};
pub use growth::{LogGrowth, WaitingWriter};
pub use keeps::{KeepAsk, Keeps, restated};
pub use keys::{ApiKeyRow, Keyed};
pub use lineage::EpochBegin;
pub use listing::{DelegationFilter, GrantFilter, UpstreamTotals};
pub use log::{LogRow, TileRow};
pub use looks::{Look, Looks, OrgRows};
pub use notices::Notice;
pub use once::{IdempotencyRecord, LoginLinkRow, Outlived, SessionRow};
pub use outbox::{OutboxRow, UpstreamResult};
pub use outside::{Kept, MOST_MOVES, NO_OUTSIDE_CHECKPOINT, OrgState, Outside, OutsideError, Reached};
pub use people::{OrgRow, UserRow};
pub use policies::{ConnectorClientRow, PolicyRow, PolicyText};
pub use postgres::{Isolation, Settings as PostgresSettings};
pub use providers::Resting;
pub use reach::reach;
pub use refresh::{Claim, ClaimAsk, Lease};
pub use replicas::{LEASE as REPLICA_LEASE, Listening, Word};
pub use retry::Contended;
pub use revocations::{IN_FLIGHT_PAGE, RevocationRow, Selector};
pub use spool::{Answered, Spool, SpoolError};
pub use sql::Tx;
pub use vigil::LOST_ENTRIES;
pub use waits::{LONGEST_BACKOFF, LONGEST_COOLDOWN, LONGEST_LEASE};

use std::{path::PathBuf, sync::Arc, time::Duration};

use engine::{Engine, Mode, Reach};
use replicas::Replica;

use crate::domain::{Clock, OrgId, Randomness, Time};

/// Where the rows are.
#[derive(Debug, Clone)]
pub enum Location {
    /// An embedded database in a file, for one process.
    Sqlite(PathBuf),
    /// A database server, for any number of processes.
    Postgres(PostgresSettings),
}

/// Whose time counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeSource {
    /// The database's, so that all replicas agree; on SQLite the process's, there is only one.
    Database,
    /// The process's, for tests that move the clock.
    Process,
}

/// A database of Postern. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    engine: Arc<Engine>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Randomness>,
    replica: Arc<Replica>,
    vigil: Arc<vigil::Vigil>,
    begun: Arc<writers::Begun>,
}

impl Store {
    /// Opens the database. SQLite's schema is brought up to date and its process lock taken; PostgreSQL's schema has to
    /// be up to date already ([`migrate`]), and the process takes a name among its replicas.
    ///
    /// # Errors
    /// When it cannot be reached or opened, another process holds it, its schema is of another version, or the role
    /// could step around row-level security.
    pub async fn open(
        location: &Location,
        clock: Arc<dyn Clock>,
        time: TimeSource,
        random: &Arc<dyn Randomness>,
    ) -> Result<Self, StoreError> {
        let engine = match location {
            Location::Sqlite(path) => Engine::Sqlite(sqlite::Engine::open(path).await?),
            Location::Postgres(settings) => {
                Engine::Postgres(postgres::Engine::open(settings, time == TimeSource::Process).await?)
            }
        };
        let store = Self {
            engine: Arc::new(engine),
            clock,
            random: Arc::clone(random),
            replica: Arc::new(Replica::new(&**random)?),
            begun: Arc::new(writers::Begun::new(Arc::clone(random))),
            vigil: Arc::default(),
        };
        store.refuse_moved().await?;
        if matches!(*store.engine, Engine::Sqlite(_)) {
            // The lock file proves that the process before this one is dead. On PostgreSQL a lease ends by itself long
            // before anybody can take a dead replica's name.
            let mut tx = store.write_deployment().await?;
            tx.void_refreshes().await?;
            tx.commit().await?;
        }
        store.renew_replica().await?;
        Ok(store)
    }

    /// A snapshot of one org for reading.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn read(&self, org: OrgId) -> Result<Tx, StoreError> {
        self.begin(Mode::Read, Reach::Org(org)).await
    }

    /// The org of whoever holds a key, session or link, found by its keyed hash, with a snapshot of that org.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn find(&self, keyed: Keyed<'_>) -> Result<Option<(OrgId, Tx)>, StoreError> {
        let (sql, hash) = keyed.look_up();
        let mut tx = self.begin(Mode::Read, Reach::Hash(hash)).await?;
        let Some(row) = tx.row(sql, sql::params![hash]).await? else {
            return Ok(None);
        };
        let org = row.fields("keyed").parse()?;
        tx.connection.enter(org).await?;
        Ok(Some((org, tx)))
    }

    /// A snapshot of what belongs to the deployment and to no org.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn read_deployment(&self) -> Result<Tx, StoreError> {
        self.begin(Mode::Read, Reach::Deployment).await
    }

    /// A look at what waits for the workers, across orgs.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn due(&self) -> Result<Due, StoreError> {
        self.begin(Mode::Read, Reach::Due).await.map(Due)
    }

    /// The one writing transaction of an org outside the gate; others of the same org wait in order.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn write(&self, org: OrgId) -> Result<Tx, StoreError> {
        self.begin(Mode::Write, Reach::Org(org)).await
    }

    /// The one writing transaction over what belongs to the deployment.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn write_deployment(&self) -> Result<Tx, StoreError> {
        self.begin(Mode::Write, Reach::Deployment).await
    }

    /// How many batches of the gate may be under way at once; no two of them about the same org.
    pub(crate) fn gate_batches(&self) -> u32 {
        match *self.engine {
            // There is one writer.
            Engine::Sqlite(_) => 1,
            Engine::Postgres(_) => postgres::BATCHES,
        }
    }

    /// A transaction of the gate over the orgs of a batch.
    async fn begin_gate(&self, orgs: &[OrgId]) -> Result<Tx, StoreError> {
        self.begin(Mode::Gate, Reach::Orgs(orgs)).await
    }

    async fn begin(&self, mode: Mode, reach: Reach<'_>) -> Result<Tx, StoreError> {
        let writes = mode != Mode::Read && !reach.orgs().is_empty();
        // Before anything is held that a renewal waits for, and before the name is read: it may be another one afterwards. What
        // ends something releases nothing, and waits for no connection but its own.
        if writes && mode != Mode::End {
            self.renew_if_late().await?;
        }
        // The hot lane and everything else are two writers of the log.
        let lane = if mode == Mode::Gate { "hot" } else { "cold" };
        let writer = format!("{}/{lane}", self.replica());
        // Boxed: it is large, and part of everything that reads or writes anything.
        let mut tx = Box::pin(self.begin_as(mode, reach, writer)).await?;
        if mode != Mode::Read {
            tx.begun = Some(Arc::clone(&self.begun));
        }
        // Asked again: it may have waited for long, or have stood still.
        if writes && self.is_late() {
            match &mut tx.journal {
                Some(journal) if mode == Mode::End => journal.mark_late(),
                _ => return Err(StoreError::Conflict),
            }
        }
        Ok(tx)
    }

    async fn begin_as(&self, mode: Mode, reach: Reach<'_>, writer: String) -> Result<Tx, StoreError> {
        let journal = (mode != Mode::Read).then(|| vigil::Journal::new(&self.vigil, &writer, reach.orgs()));
        let begin = || self.engine.begin(mode, reach, self.clock.now());
        let begun = match mode {
            Mode::Hasty => begin().await?,
            // Beginning takes the place in line, and may find somebody else in its way there.
            _ => self.retry(begin).await?,
        };
        Ok(Tx::over(begun, writer, journal))
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
        self.retry(|| async {
            let mut tx = self.write_deployment().await?;
            tx.execute(
                "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = $2",
                sql::params![name, value],
            )
            .await?;
            tx.commit().await
        })
        .await
    }

    /// Commits about as many bytes as a release does, so that a disk without room for one is noticed.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn prove_writable(&self) -> Result<(), StoreError> {
        let room = " ".repeat(32 * 1024);
        self.set_meta("room", &format!("{}{room}", self.clock.now().unix_micros()))
            .await
    }

    /// Whether the clock of this process is no further from the database's.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn agrees_with_clock(&self, within: Duration) -> Result<bool, StoreError> {
        let before = self.clock.now();
        let theirs = self.read_deployment().await?.now();
        // What the way there took is no difference.
        Ok(before - within <= theirs && theirs <= self.clock.now() + within)
    }

    /// Whether no other process can be at work on this database.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        matches!(*self.engine, Engine::Sqlite(_))
    }

    /// Writes the stop of every writer, gives the replica's name back and closes every connection. What cannot be
    /// written in time looks like a process that died; whoever still has a connection keeps nobody from ending.
    pub async fn close(&self) {
        if tokio::time::timeout(STOP_WITHIN, self.stop_writers())
            .await
            .is_err()
        {
            tracing::warn!("not every org's log says that this process stopped: there was no time");
        }
        // First: whoever stops this process may not wait for the rest.
        self.tell_outside_what_was_written().await;
        self.leave_replica().await;
        let closed = tokio::time::timeout(CLOSE_WITHIN, self.engine.close()).await;
        self.tell_outside_what_was_written().await;
        if closed.is_err() {
            tracing::warn!("some connections to the database were still in use at the end");
            // Whoever uses them may yet write to the directory: it stays locked until the process ends.
            return;
        }
        if let Some(outside) = self.vigil.outside() {
            outside.release().await;
        }
    }

    async fn tell_outside_what_was_written(&self) {
        self.note_written();
        if let Err(error) = self.flush_outside().await {
            tracing::warn!(cause = %error, "the last entries of this process are not known outside the database");
        }
    }

    async fn stop_writers(&self) {
        if let Err(cause) = self.renew_if_late().await {
            tracing::warn!(cause = %cause, "no org's log says that this process stopped: its name may be another one's");
            return;
        }
        let own = format!("{}/", self.replica());
        // A name that this process had before is another one's by now, and its chains with it.
        let begun = self.begun.take().into_iter();
        for (org, writer) in begun.filter(|(_, writer)| writer.starts_with(&own)) {
            let stopped = self.retry(|| async {
                let mut tx = self
                    .begin_as(Mode::Write, Reach::Org(org), writer.clone())
                    .await?;
                let entry = self.begun.entry(tx.now(), "stopped")?;
                tx.append_entry(org, entry).await?;
                tx.commit().await
            });
            if let Err(cause) = stopped.await {
                tracing::warn!(org.id = %org, cause = %cause, "the log of {org} does not say that {writer} stopped");
            }
        }
    }
}

impl Tx {
    /// The database's time, taken when the transaction began; of a batch of releases, before its guard waited for anybody.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }
}

/// Brings a PostgreSQL schema up to date, logged in as the role that owns it; returns how many migrations were missing.
///
/// # Errors
/// When the database cannot be reached or a migration fails: then that migration changed nothing.
pub async fn migrate(settings: &PostgresSettings) -> Result<usize, StoreError> {
    postgres::migrate(settings).await
}

/// How long an orderly stop may take to be written; process managers do not wait for ever.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How long whoever still uses a connection is waited for at the end.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
