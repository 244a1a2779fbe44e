//! Copying a whole database into another one, whichever of the two kinds each is.
//!
//! Rows go over as they are, in batches by the order of their keys; how far the copy has come is written down in the
//! target with the rows, in one transaction. So a copy that was killed goes on where it stopped. Then both databases
//! are read back side by side and compared. Only then the source is closed for good and the target opened, in this
//! order: two databases with the same keys must never both go on.
//!
//! It logs in as the service does, and row-level security holds it as it holds the service: it copies org by org. No
//! key is needed: what is sealed stays sealed.

mod finish;
mod mark;
mod rows;
mod schema;
mod side;
mod verify;

use std::{fmt, sync::Arc};

use crate::{
    crypto::digest,
    domain::{Clock, Randomness},
};
use serde::Serialize;

use super::{Location, StoreError, TimeSource};
pub(super) use mark::COPIED_TO;
use mark::{COPY, Mark, State};
use schema::Table;
use side::{Scope, Side, set_mark};

pub use verify::TableReport;

/// Which of the two databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one that is read.
    Source,
    /// The one that is written.
    Target,
}

impl Which {
    fn failed(self, error: StoreError) -> CopyError {
        CopyError::Store { which: self, error }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}

/// Why a database was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// One of the databases.
    #[error("{which}: {error}")]
    Store {
        /// Which.
        which: Which,
        /// What is wrong.
        error: StoreError,
    },
    /// There is no file, or nothing in it.
    #[error("source: there is no database at {0}")]
    NoSource(String),
    /// Nobody has used it yet.
    #[error("source: there is no organisation in it, so there is nothing to copy")]
    Empty,
    /// A database cannot be its own copy.
    #[error("source and target are the same database")]
    Same,
    /// A process of Postern has it.
    #[error("{which}: a process of postern is using it; stop it first")]
    InUse {
        /// Which.
        which: Which,
    },
    /// Its schema is not this build's.
    #[error(
        "{which}: its schema is of another version than this build; bring it up to date with this build first (PostgreSQL: `postern migrate`; SQLite: start the service once)"
    )]
    Version {
        /// Which.
        which: Which,
    },
    /// It was copied before, and its copy goes on in its place.
    #[error("source: it was copied to another database already, which goes on in its place")]
    Moved,
    /// Rows of somebody else.
    #[error("target: it is not empty: {table} has rows")]
    NotEmpty {
        /// A table with rows.
        table: String,
    },
    /// The target holds a part of something else, or the source has changed.
    #[error(
        "target: it holds the beginning of a copy of another source, or of this one as it was before somebody used it again; make it anew and copy again"
    )]
    NotThisCopy,
    /// The schemas do not fit.
    #[error("{table}: {problem}")]
    Schema {
        /// Which table.
        table: String,
        /// What does not fit.
        problem: &'static str,
    },
    /// Rows that belong to no org: no process of Postern ever sees them, and they would be lost.
    #[error("source: {table} has {rows} rows that belong to no organisation")]
    Orphans {
        /// Which table.
        table: String,
        /// How many.
        rows: u64,
    },
    /// PostgreSQL's text holds everything but this.
    #[error("source: {table} has a text with a NUL in it at {key}, which PostgreSQL cannot hold")]
    Nul {
        /// Which table.
        table: String,
        /// Which row.
        key: String,
    },
    /// The databases are not the same.
    #[error("{table}: the row {key} {how}")]
    Mismatch {
        /// Which table.
        table: String,
        /// Which row.
        key: String,
        /// In what.
        how: &'static str,
    },
}

/// How far a copy has come.
#[derive(Debug, Clone, Serialize)]
pub struct Progress {
    /// `copying` or `comparing`.
    pub step: &'static str,
    /// The table it is at.
    pub table: String,
    /// Rows so far.
    pub rows: u64,
    /// Rows there are.
    pub of: u64,
}

/// Who is told how far a copy has come.
pub type Told<'a> = &'a mut (dyn FnMut(&Progress) + Send);

/// How many rows of a table there are to copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableCount {
    /// The table.
    pub table: String,
    /// Its rows.
    pub rows: u64,
}

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many organisations.
    pub orgs: u64,
    /// Every table, as it was read back from both databases.
    pub tables: Vec<TableReport>,
    /// Whether an earlier run had done all of it already.
    pub was_complete: bool,
}

/// A copy that may begin, or go on.
#[derive(Debug)]
pub struct Copying {
    from: Side,
    to: Side,
    random: Arc<dyn Randomness>,
    tables: Vec<Table>,
    scopes: Vec<Scope>,
    counts: Vec<TableCount>,
    mark: Option<Mark>,
    fingerprint: String,
}

impl Copying {
    /// Opens both databases, alone, and looks whether the one can be copied into the other. Changes nothing yet, but a
    /// target that is no file yet becomes one, if it is not refused.
    ///
    /// # Errors
    /// When a database cannot be opened or is in use, or the copy is refused.
    pub async fn open(
        from: &Location,
        to: &Location,
        clock: Arc<dyn Clock>,
        time: TimeSource,
        random: Arc<dyn Randomness>,
    ) -> Result<Self, CopyError> {
        if let (Location::Sqlite(from), Location::Sqlite(to)) = (from, to)
            && is_same_file(from, to)
        {
            return Err(CopyError::Same);
        }
        let from = Side::open(Which::Source, from, Arc::clone(&clock), time).await?;
        let made = matches!(to, Location::Sqlite(path) if !path.exists());
        let to_side = Side::open(Which::Target, to, clock, time).await?;
        let target = Arc::clone(&to_side.engine);
        let opened = Self::between(from, to_side, random).await;
        if opened.is_err() && made {
            target.close().await;
            // What was refused leaves nothing behind that looks like a database.
            if let Location::Sqlite(path) = to {
                side::remove(path);
            }
        }
        opened
    }

    async fn between(mut from: Side, mut to: Side, random: Arc<dyn Randomness>) -> Result<Self, CopyError> {
        if let (Some(here), Some(there)) = (from.identity().await?, to.identity().await?)
            && here == there
        {
            return Err(CopyError::Same);
        }
        from.hold().await?;
        to.hold().await?;
        let tables = schema::agreed(from.tables().await?, to.tables().await?)?;
        let scopes = from.scopes().await?;
        let counts = rows::count(&from, &tables, &scopes).await?;
        let fingerprint = verify::fingerprint(&from, &tables, &scopes).await?;
        let mut copying = Self {
            from,
            to,
            random,
            tables,
            scopes,
            counts,
            mark: None,
            fingerprint,
        };
        copying.mark = copying.earlier().await?;
        Ok(copying)
    }

    /// What an earlier run left, if this may go on with it; refuses what may not even begin.
    async fn earlier(&self) -> Result<Option<Mark>, CopyError> {
        self.from.refuse_half_copied().await?;
        let mark = match self.to.mark(COPY).await? {
            Some(text) => match Mark::parse(&text) {
                Some(mark) if mark.source == self.fingerprint => Some(mark),
                _ => return Err(CopyError::NotThisCopy),
            },
            None => match self.to.occupied(&self.tables).await? {
                Some(table) => return Err(CopyError::NotEmpty { table }),
                None => None,
            },
        };
        match (self.from.mark(COPIED_TO).await?, &mark) {
            (None, _) => Ok(mark),
            (Some(id), Some(own)) if own.id == id => Ok(mark),
            (Some(_), _) => Err(CopyError::Moved),
        }
    }

    /// What there is to copy; creates nothing.
    ///
    /// # Errors
    /// As [`Copying::open`].
    pub async fn survey(
        from: &Location,
        to: &Location,
        clock: Arc<dyn Clock>,
        time: TimeSource,
        random: Arc<dyn Randomness>,
    ) -> Result<Vec<TableCount>, CopyError> {
        let unmade = match to {
            Location::Sqlite(path) => side::is_unmade(path).await?,
            Location::Postgres(_) => false,
        };
        if !unmade {
            let copying = Self::open(from, to, clock, time, random).await?;
            let counts = copying.counts.clone();
            copying.close().await;
            return Ok(counts);
        }
        let mut from = Side::open(Which::Source, from, clock, time).await?;
        from.hold().await?;
        from.refuse_half_copied().await?;
        if from.mark(COPIED_TO).await?.is_some() {
            return Err(CopyError::Moved);
        }
        let own = from.tables().await?;
        let tables = schema::agreed(own.clone(), own)?;
        let counts = rows::count(&from, &tables, &from.scopes().await?).await?;
        from.close().await;
        Ok(counts)
    }

    /// How many rows an earlier run has copied already.
    #[must_use]
    pub fn copied_before(&self) -> u64 {
        match &self.mark {
            Some(Mark {
                state: State::Copying { rows, .. },
                ..
            }) => *rows,
            _ => 0,
        }
    }

    /// Gives both databases back.
    pub async fn close(self) {
        self.from.close().await;
        self.to.close().await;
    }

    /// Copies, compares and hands over; goes on where an earlier run stopped. Dropping this half-way loses nothing.
    ///
    /// # Errors
    /// When a database fails or the two are not the same in the end: the target then stays closed.
    pub async fn run(mut self, told: Told<'_>) -> Result<Report, CopyError> {
        let ended = self.steps(told).await;
        self.close().await;
        ended
    }

    async fn steps(&mut self, told: Told<'_>) -> Result<Report, CopyError> {
        let mut mark = match self.mark.take() {
            Some(mark) => mark,
            None => self.begin().await?,
        };
        let report = |tables, was_complete| Report {
            orgs: self
                .scopes
                .iter()
                .filter(|scope| !matches!(scope, Scope::Deployment))
                .count() as u64,
            tables,
            was_complete,
        };
        let copying = matches!(mark.state, State::Copying { .. });
        if copying {
            self.rows(&mut mark, told).await?;
        }
        // INVARIANT: until the source is closed, what an earlier run found holds for that run only: somebody may have used
        // the source since, and not every change moves its fingerprint. Once an org of the target has begun its new epoch,
        // a source that is open again is never the same.
        if copying || self.from.mark(COPIED_TO).await?.is_none() {
            let tables = self.compare(told).await?;
            mark.state = State::Finishing { after: None, tables };
            self.put(&mark).await?;
        }
        if let State::Complete { tables } = mark.state {
            return Ok(report(tables, true));
        }
        let report = report(Vec::new(), false);
        let tables = self.finish(mark).await?;
        Ok(Report { tables, ..report })
    }

    async fn begin(&self) -> Result<Mark, CopyError> {
        let mut id = [0_u8; 16];
        self.random
            .fill(&mut id)
            .map_err(|_| Which::Target.failed(StoreError::Randomness))?;
        let mark = Mark {
            id: digest::hex(&id),
            source: self.fingerprint.clone(),
            state: State::Copying { rows: 0, at: None },
        };
        self.put(&mark).await?;
        Ok(mark)
    }

    async fn put(&self, mark: &Mark) -> Result<(), CopyError> {
        let mut connection = self.to.write(Scope::Deployment).await?;
        let written = async {
            set_mark(&mut connection, COPY, &mark.text()?).await?;
            connection.commit().await
        };
        written.await.map_err(|error| Which::Target.failed(error))
    }
}

fn is_same_file(one: &std::path::Path, other: &std::path::Path) -> bool {
    match (std::fs::canonicalize(one), std::fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}
