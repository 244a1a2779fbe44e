//! Which database is behind. Both engines offer the same few things; the rest of the room does not know which it is.

use std::time::Duration;

use sqlx::SqlSafeStr;

use crate::domain::{OrgId, Time};

use super::{
    StoreError,
    batch_sql::{self, BatchSql},
    entries::Chain,
    postgres,
    refresh_sql::{self, RefreshSql},
    shares::{Party, Place, PoolShares},
    sql::{Row, Value},
    sqlite,
};

/// What a transaction may touch. SQLite is told nothing; PostgreSQL holds every statement to it by row-level security.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reach<'a> {
    /// What belongs to the deployment and to no org.
    Deployment,
    /// The rows of one org.
    Org(OrgId),
    /// The rows of the orgs of a batch.
    Orgs(&'a [OrgId]),
    /// The one key, session or link with this keyed hash, whatever its org.
    Hash(&'a [u8; 32]),
    /// Ids, states and times across orgs.
    Due,
}

impl Reach<'_> {
    /// The orgs whose rows may be touched, as far as they are known.
    pub(super) fn orgs(&self) -> &[OrgId] {
        match self {
            Self::Org(org) => std::slice::from_ref(org),
            Self::Orgs(orgs) => orgs,
            Self::Deployment | Self::Hash(_) | Self::Due => &[],
        }
    }
}

/// How a transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// A snapshot.
    Read,
    /// Alone among the writers of the same reach outside the gate.
    Write,
    /// As [`Mode::Write`], to end something: over the connections kept for that, or another one if those are all in use. On
    /// SQLite it stands behind one other writer and the gate.
    End,
    /// As [`Mode::Write`], but gives up soon where somebody is in its way.
    Hasty,
    /// Beside the writers of the same reach: it locks the rows that it changes, before it reads them, and gives up soon where
    /// somebody is in its way.
    Rows,
    /// The gate's own: it waits for nobody but the guard.
    Gate,
}

/// An open database.
#[derive(Debug)]
pub(super) enum Engine {
    Sqlite(sqlite::Engine),
    Postgres(postgres::Engine),
}

impl Engine {
    /// Begins a transaction; `now` is the process's time, which the engine may know better.
    pub(super) async fn begin(
        &self,
        mode: Mode,
        reach: Reach<'_>,
        now: Time,
    ) -> Result<(Connection, Time), StoreError> {
        match self {
            Self::Sqlite(engine) => {
                let connection = engine.begin_for(Party::of(mode, reach), mode).await?;
                Ok((Connection::Sqlite(connection), now))
            }
            Self::Postgres(engine) => {
                let (connection, at) = engine.begin(mode, reach, now).await?;
                Ok((Connection::Postgres(connection), at))
            }
        }
    }

    /// Begins a snapshot of one org in a place among [`Engine::readers`] that was taken before.
    pub(super) async fn read_in(
        &self,
        place: Place,
        org: OrgId,
        now: Time,
    ) -> Result<(Connection, Time), StoreError> {
        match self {
            Self::Sqlite(engine) => {
                let connection = engine.begin_in(place, Mode::Read).await?;
                Ok((Connection::Sqlite(connection), now))
            }
            Self::Postgres(engine) => {
                let (connection, at) = engine.read_in(place, org, now).await?;
                Ok((Connection::Postgres(connection), at))
            }
        }
    }

    /// The places of those who read.
    pub(super) fn readers(&self) -> &PoolShares {
        match self {
            Self::Sqlite(engine) => engine.readers(),
            Self::Postgres(engine) => engine.readers(),
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(engine) => engine.close().await,
            Self::Postgres(engine) => engine.close().await,
        }
    }
}

/// A connection inside a transaction. One that is dropped before its commit is never used again by anybody.
#[derive(Debug)]
pub(super) enum Connection {
    Sqlite(sqlite::Connection),
    Postgres(postgres::Connection),
}

impl Connection {
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(connection) => connection.commit().await,
            Self::Postgres(connection) => connection.commit().await,
        }
    }

    #[cfg(feature = "bench")]
    pub(super) async fn rollback(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(connection) => connection.rollback().await,
            Self::Postgres(connection) => connection.rollback().await,
        }
    }

    pub(super) async fn execute(
        &mut self,
        sql: impl SqlSafeStr + Send,
        params: Vec<Value>,
    ) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(connection) => connection.execute(sql, params).await,
            Self::Postgres(connection) => connection.execute(sql, params).await,
        }
    }

    pub(super) async fn rows(
        &mut self,
        sql: impl SqlSafeStr + Send,
        params: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(connection) => connection.rows(sql, params).await,
            Self::Postgres(connection) => connection.rows(sql, params).await,
        }
    }

    /// Inserts entries, rows of `entries::COLUMNS`, and moves the writer's chains on.
    pub(super) async fn insert_entries(
        &mut self,
        rows: Vec<Vec<Value>>,
        writer: &str,
        chains: &[Chain],
    ) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(connection) => connection.insert_entries(rows, writer, chains).await,
            Self::Postgres(connection) => connection.insert_entries(rows, writer, chains).await,
        }
    }

    /// Goes on in an org that was found by a keyed hash.
    pub(super) async fn enter(&mut self, org: OrgId) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(connection) => connection.enter(org).await,
        }
    }

    /// Lifts the limits of time that requests have.
    pub(super) async fn take_time(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(connection) => connection.take_time().await,
        }
    }

    /// Stands in line for an exclusive change of the guard, so that a stream of releases cannot overtake it for ever.
    pub(super) async fn queue_for_guard(&mut self, org: OrgId) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(connection) => connection.queue_for_guard(org).await,
        }
    }

    /// Lets the statements of this transaction take longer than others may.
    pub(super) async fn allow_time(&mut self, each: Duration) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(connection) => connection.allow_time(each).await,
        }
    }

    /// The statements that carry many rows.
    pub(super) fn batch_sql(&self) -> &'static BatchSql {
        match self {
            Self::Sqlite(_) => &batch_sql::SQLITE,
            Self::Postgres(_) => &batch_sql::POSTGRES,
        }
    }

    /// The statements that refreshes of many grants share.
    pub(super) fn refresh_sql(&self) -> &'static RefreshSql {
        match self {
            Self::Sqlite(_) => &refresh_sql::SQLITE,
            Self::Postgres(_) => &refresh_sql::POSTGRES,
        }
    }
}
