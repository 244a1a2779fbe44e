//! What can go wrong in the database, and whom else it concerns.

use std::sync::Arc;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// What can go wrong in the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database did not answer or refused.
    #[error("the database is unavailable")]
    Unavailable(#[source] Arc<sqlx::Error>),
    /// A commit was sent, and nothing came back that says what became of it: it may be done, or be done yet.
    #[error("the database has not confirmed a commit: it may have been done")]
    Undecided(#[source] Arc<sqlx::Error>),
    /// It is committed, and the file outside the database has not heard of it, for its directory hangs: it is not to be called
    /// done before that.
    #[error("a commit is done, but the data directory hangs and does not know of it yet")]
    Unheard(#[source] Arc<std::io::Error>),
    /// The server could not be reached at the start.
    #[error("{target} cannot be reached: {cause}")]
    Unreached {
        /// Which database, where, as whom.
        target: String,
        /// What the server or the system said last.
        cause: String,
    },
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
    /// The URL is not one of a PostgreSQL database.
    #[error("not a database url: expected postgres://user@host/database")]
    Url,
    /// A server elsewhere is to be reached without proving who it is.
    #[error("the database is on another host: add sslmode=verify-full (and sslrootcert=…) to its url")]
    Unverified,
    /// The role owns the tables, is a superuser, may bypass row-level security, or inherits more than one transaction may.
    #[error(
        "the database role could step around row-level security: log in as a NOINHERIT member of postern_app and postern_due that owns nothing, makes no roles and may make no tables, temporary ones included (docs/postgresql.md, Set up)"
    )]
    Role,
    /// The schema is older or newer than this build.
    #[error("the database schema is of another version: run `postern migrate`")]
    Version,
    /// Its copy goes on in its place.
    #[error("this database was copied to another one, which goes on in its place")]
    Moved,
    /// A copy into it was begun and not ended.
    #[error("a copy into this database has not ended: run `postern copy-database` again")]
    HalfCopied,
    /// Another transaction was in the way; nothing was done, and it can be tried again.
    #[error("another transaction was in the way")]
    Conflict,
    /// The org has as many connections as it may. Nothing was done; of other orgs it says nothing.
    #[error("too much is under way for the organisation")]
    Busy,
    /// The process is ending.
    #[error("the process is ending")]
    Stopped,
    /// The system gave no randomness.
    #[error("no randomness")]
    Randomness,
    /// The schema cannot be brought up to date.
    #[error("the database schema cannot be migrated")]
    Migration(#[source] sqlx::migrate::MigrateError),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if let sqlx::Error::Database(cause) = &error {
            if cause.is_unique_violation() {
                return Self::Exists;
            }
            // A serialization failure, a deadlock, a lock that was not to be had in time, a transaction that kept others
            // waiting (25P03: ended between two statements, so never while it commits): rolled back because of others.
            // Not all of SQLSTATE class 40: after 40003 (ISO 9075) nobody knows whether the commit was done.
            if matches!(
                &*cause.code().unwrap_or_default(),
                "40001" | "40P01" | "55P03" | "25P03"
            ) {
                return Self::Conflict;
            }
        }
        Self::Unavailable(Arc::new(error))
    }
}

impl StoreError {
    /// What it is that a commit ended with this.
    pub(super) fn of_commit(error: sqlx::Error) -> Self {
        match Self::from(error) {
            Self::Unavailable(cause) if leaves_undecided(&cause) => Self::Undecided(cause),
            error => error,
        }
    }

    /// Whether rows cannot be read that are there: what they say, or the block or index they are in (SQLSTATE XX001, XX002).
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Inconsistent { .. } => true,
            Self::Unavailable(cause) => matches!(&**cause, sqlx::Error::Database(said)
                if matches!(&*said.code().unwrap_or_default(), "XX001" | "XX002")),
            _ => false,
        }
    }

    /// Whether what was to be committed may have been, or may be yet.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        matches!(self, Self::Undecided(_) | Self::Unheard(_))
    }

    /// Whether the database did what it was asked, and only the file outside it does not know.
    #[must_use]
    pub fn is_unheard(&self) -> bool {
        matches!(self, Self::Unheard(_))
    }

    /// What each of a batch that came to this is told: everybody what is for all of them. Another error has only the first, who
    /// may be alone in its batch; the others hear that their batch was in somebody's way.
    pub(crate) fn told_to_each(self) -> impl Iterator<Item = Self> {
        let said = self.said();
        let mut own = Some(self);
        std::iter::from_fn(move || {
            let all = said.as_ref().and_then(Self::said);
            all.or_else(|| own.take()).or(Some(Self::Conflict))
        })
    }

    /// What everybody of a batch can be told, if it is for none of them alone. To them, a commit that nobody confirmed is an
    /// outage: nothing is released on it, and whatever was in doubt stays so.
    pub(crate) fn said(&self) -> Option<Self> {
        match self {
            Self::Unavailable(cause) | Self::Undecided(cause) => Some(Self::Unavailable(Arc::clone(cause))),
            Self::Unheard(_) => self.outage().map(Self::Unavailable),
            Self::Busy => Some(Self::Busy),
            Self::Lost => Some(Self::Lost),
            _ => None,
        }
    }

    /// The cause, if there is no database to speak to, or a directory that is to hear of each commit hangs: whatever is committed
    /// next would fail alike.
    #[must_use]
    pub fn outage(&self) -> Option<Arc<sqlx::Error>> {
        match self {
            Self::Unavailable(cause) => match &**cause {
                sqlx::Error::Database(said) if !is_outage(&said.code().unwrap_or_default()) => None,
                _ => Some(Arc::clone(cause)),
            },
            Self::Undecided(cause) => Some(Arc::clone(cause)),
            Self::Unheard(cause) => Some(Arc::new(sqlx::Error::Io(cause.kind().into()))),
            _ => None,
        }
    }
}

/// Whether a commit that ended with this may have been done all the same. A server that refuses one and goes on has undone
/// it; one that ends the connection or itself (FATAL, PANIC) may have done it before, and so may one that said nothing.
fn leaves_undecided(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(said) = error else {
        return true;
    };
    let is_the_last_word = said
        .try_downcast_ref::<PgDatabaseError>()
        .is_some_and(|said| matches!(said.severity(), PgSeverity::Fatal | PgSeverity::Panic));
    is_the_last_word || says_undecided(&said.code().unwrap_or_default())
}

/// Whether a database that says this to a commit leaves open what became of it. PostgreSQL and what stands before it: no
/// connection any more (class 08), nobody knows (40003). SQLite: what was written may not be on the disk (fdatasync of a file or
/// its directory). It counts as undone from there on, but a process that dies before the next commit may find it done.
fn says_undecided(code: &str) -> bool {
    code.starts_with("08") || matches!(code, "40003" | "1034" | "1290")
}

/// Whether a database that says this does so to everybody. PostgreSQL says five characters (SQLSTATE): no connection (class
/// 08), no room (53), ending or starting (57P01 to 57P05), a standby that only reads (25006); or that nobody knows whether a
/// commit was done (40003). SQLite says a shorter number, whose last byte is the primary code: busy (5), locked (6), read-only
/// (8), an I/O error (10), damaged (11), full (13), not to be opened (14), no database (26). It has waited for whoever is busy
/// already.
pub(super) fn is_outage(code: &str) -> bool {
    match code.parse::<u16>() {
        Ok(number) if code.len() < 5 => matches!(number & 0xff, 5 | 6 | 8 | 10 | 11 | 13 | 14 | 26),
        _ => {
            code.starts_with("08")
                || code.starts_with("53")
                || code.starts_with("57P")
                || matches!(code, "25006" | "40003")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::store::Contended as _;

    #[test]
    fn a_commit_without_an_answer_is_undecided_and_not_tried_again() {
        let lost = || sqlx::Error::Io(io::Error::from(io::ErrorKind::UnexpectedEof));
        let error = StoreError::of_commit(lost());
        assert!(error.is_undecided() && !error.is_contended(), "{error:?}");
        // Whoever was in the batch is told as ever, and nobody of it is tried alone.
        assert!(error.said().is_some() && error.outage().is_some());
        assert!(!StoreError::from(lost()).is_undecided());
    }

    #[test]
    fn what_the_directory_has_not_heard_of_is_undecided_and_not_tried_again() {
        let error = StoreError::Unheard(Arc::new(io::ErrorKind::TimedOut.into()));
        assert!(error.is_undecided() && !error.is_contended() && error.outage().is_some());
        let told: Vec<_> = error.told_to_each().take(2).collect();
        assert!(
            matches!(
                &told[..],
                [StoreError::Unavailable(_), StoreError::Unavailable(_)]
            ),
            "{told:?}"
        );
    }

    #[test]
    fn a_commit_is_undecided_only_where_the_code_leaves_it_open() {
        for code in ["08006", "08P01", "40003", "1034", "1290"] {
            assert!(says_undecided(code), "{code}");
        }
        // What breaks a rule, what was in the way, no room, a trigger's no; SQLite: busy, full, not written.
        for code in ["", "23505", "40001", "53100", "P0001", "5", "13", "778"] {
            assert!(!says_undecided(code), "{code}");
        }
    }
}
