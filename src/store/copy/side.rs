//! One of the two databases of a copy: opened alone, held as long as the copy lasts, read and written in batches.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use sqlx::AssertSqlSafe;

use super::{
    CopyError, Which,
    mark::{COPY, Mark},
    schema::{self, Table},
};
use crate::{
    domain::{Clock, OrgId},
    store::{
        Location, StoreError, TimeSource,
        engine::{Connection, Engine, Mode, Reach},
        migrations, postgres,
        sql::{Value, params},
        sqlite,
    },
};

/// Whose rows: the deployment's own, or an org's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    Deployment,
    Org(OrgId),
}

impl Scope {
    /// As rows and marks name it: `''` is the deployment.
    pub(super) fn text(self) -> String {
        match self {
            Self::Deployment => String::new(),
            Self::Org(org) => org.to_string(),
        }
    }

    fn reach(self) -> Reach<'static> {
        match self {
            Self::Deployment => Reach::Deployment,
            Self::Org(org) => Reach::Org(org),
        }
    }

    /// Whether rows of this table can be here.
    pub(super) fn has(self, table: &Table) -> bool {
        self == Self::Deployment || table.is_of_orgs()
    }
}

/// An open database.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) which: Which,
    pub(super) engine: Arc<Engine>,
    pub(super) clock: Arc<dyn Clock>,
    /// PostgreSQL: the row every replica has to lock to take its name, locked. SQLite has its lock file.
    hold: Option<Connection>,
}

impl Side {
    /// Opens a database nobody else uses.
    pub(super) async fn open(
        which: Which,
        location: &Location,
        clock: Arc<dyn Clock>,
        time: TimeSource,
    ) -> Result<Self, CopyError> {
        let failed = |error| match error {
            StoreError::Locked => CopyError::InUse { which },
            StoreError::Version => CopyError::Version { which },
            error => which.failed(error),
        };
        let engine = match location {
            Location::Sqlite(path) => {
                check_file(which, path).await?;
                Engine::Sqlite(sqlite::Engine::open(path).await.map_err(failed)?)
            }
            Location::Postgres(settings) => Engine::Postgres(
                postgres::Engine::open(settings, time == TimeSource::Process)
                    .await
                    .map_err(failed)?,
            ),
        };
        Ok(Self {
            which,
            engine: Arc::new(engine),
            clock,
            hold: None,
        })
    }

    /// Keeps every process of Postern from starting over this database, and proves that none runs. On SQLite the lock
    /// file does both.
    pub(super) async fn hold(&mut self) -> Result<(), CopyError> {
        if matches!(*self.engine, Engine::Sqlite(_)) {
            return Ok(());
        }
        let in_use = CopyError::InUse { which: self.which };
        let held = self
            .engine
            .begin(Mode::Write, Reach::Deployment, self.clock.now())
            .await;
        let (mut hold, now) = match held {
            Err(StoreError::Conflict) => return Err(in_use),
            held => held.map_err(|error| self.which.failed(error))?,
        };
        let alive = async {
            hold.take_time().await?;
            let rows = hold
                .rows(
                    "SELECT count(*) FROM replicas WHERE expires_at > $1",
                    params![now],
                )
                .await?;
            one(rows)
        };
        if alive.await.map_err(|error| self.which.failed(error))? > 0 {
            return Err(in_use);
        }
        self.hold = Some(hold);
        Ok(())
    }

    /// What tells this database from every other one of the same server.
    pub(super) async fn identity(&self) -> Result<Option<String>, CopyError> {
        match *self.engine {
            Engine::Sqlite(_) => Ok(None),
            Engine::Postgres(_) => {
                let sql = "SELECT pg_postmaster_start_time()::text || '/' || oid::text FROM pg_database
                           WHERE datname = current_database()";
                self.first_text(sql, "pg_database").await
            }
        }
    }

    /// Every table, by the catalogue.
    pub(super) async fn tables(&self) -> Result<BTreeMap<String, Table>, CopyError> {
        let mut connection = self.read(Scope::Deployment).await?;
        schema::tables(self.which, &self.engine, &mut connection).await
    }

    /// The deployment, then every org in the order of their ids.
    pub(super) async fn scopes(&self) -> Result<Vec<Scope>, CopyError> {
        let mut scopes = vec![Scope::Deployment];
        let mut connection = self.look().await?;
        let rows = connection
            .rows("SELECT org_id FROM epochs ORDER BY org_id", params![])
            .await
            .map_err(|error| self.which.failed(error))?;
        for row in rows {
            let org = row.fields("epochs").parse();
            scopes.push(Scope::Org(org.map_err(|error| self.which.failed(error))?));
        }
        Ok(scopes)
    }

    /// A table that already holds something, if the database shows one. Row-level security shows single orgs, and of
    /// all of them together what the workers may see; on SQLite everything is seen.
    pub(super) async fn occupied(&self, tables: &[Table]) -> Result<Option<String>, CopyError> {
        let mut connection = self.read(Scope::Deployment).await?;
        for table in tables {
            let anywhere = matches!(*self.engine, Engine::Sqlite(_)) && table.is_of_orgs();
            let rows = if anywhere {
                connection.rows(AssertSqlSafe(table.count_all()), params![]).await
            } else {
                let of = if table.is_of_orgs() {
                    params![""]
                } else {
                    params![]
                };
                connection.rows(AssertSqlSafe(table.count()), of).await
            };
            if rows.and_then(one).map_err(|error| self.which.failed(error))? > 0 {
                return Ok(Some(table.name.clone()));
            }
        }
        drop(connection);
        let mut connection = self.look().await?;
        let rows = connection
            .rows(
                "SELECT (SELECT count(*) FROM epochs) + (SELECT count(id) FROM grants) + (SELECT count(id) FROM entries)",
                params![],
            )
            .await;
        let seen = rows.and_then(one).map_err(|error| self.which.failed(error))?;
        Ok((seen > 0).then(|| "epochs".to_owned()))
    }

    /// A snapshot of what the workers see of all orgs.
    async fn look(&self) -> Result<Connection, CopyError> {
        let begun = self.engine.begin(Mode::Read, Reach::Due, self.clock.now()).await;
        begun
            .map(|(connection, _)| connection)
            .map_err(|error| self.which.failed(error))
    }

    /// A snapshot for reading.
    pub(super) async fn read(&self, scope: Scope) -> Result<Connection, CopyError> {
        self.begin(Mode::Read, scope).await
    }

    /// A transaction for writing, which stands in no line: there it would wait for the row that is held.
    pub(super) async fn write(&self, scope: Scope) -> Result<Connection, CopyError> {
        self.begin(Mode::Rows, scope).await
    }

    async fn begin(&self, mode: Mode, scope: Scope) -> Result<Connection, CopyError> {
        let begun = async {
            let (mut connection, _) = self.engine.begin(mode, scope.reach(), self.clock.now()).await?;
            // Counting a long log takes longer than any statement of the service may.
            connection.take_time().await?;
            Ok(connection)
        };
        begun.await.map_err(|error| self.which.failed(error))
    }

    /// The next rows behind a key.
    pub(super) async fn batch(
        &self,
        connection: &mut Connection,
        table: &Table,
        scope: Scope,
        behind: Option<&[Value]>,
    ) -> Result<Vec<Vec<Value>>, CopyError> {
        let mut of = match table.is_of_orgs() {
            true => params![scope.text()],
            false => params![],
        };
        of.extend(behind.into_iter().flatten().cloned());
        let sql = table.select(behind.is_some());
        let rows = connection.rows(AssertSqlSafe(sql), of).await;
        let rows = rows.map_err(|error| self.which.failed(error))?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    /// How many rows a table has here.
    pub(super) async fn count(
        &self,
        connection: &mut Connection,
        table: &Table,
        scope: Scope,
    ) -> Result<u64, CopyError> {
        let of = match table.is_of_orgs() {
            true => params![scope.text()],
            false => params![],
        };
        let rows = connection.rows(AssertSqlSafe(table.count()), of).await;
        rows.and_then(one).map_err(|error| self.which.failed(error))
    }

    /// How many rows a table has at all, where that can be seen.
    pub(super) async fn count_all(&self, table: &Table) -> Result<Option<u64>, CopyError> {
        if matches!(*self.engine, Engine::Postgres(_)) || !table.is_of_orgs() {
            return Ok(None);
        }
        let mut connection = self.read(Scope::Deployment).await?;
        let rows = connection.rows(AssertSqlSafe(table.count_all()), params![]).await;
        rows.and_then(one)
            .map(Some)
            .map_err(|error| self.which.failed(error))
    }

    /// References between tables that the schema declares and the rows break. PostgreSQL lets none in.
    pub(super) async fn broken_reference(&self) -> Result<Option<String>, CopyError> {
        if matches!(*self.engine, Engine::Postgres(_)) {
            return Ok(None);
        }
        let sql = "SELECT \"table\" FROM pragma_foreign_key_check LIMIT 1";
        self.first_text(sql, "foreign keys").await
    }

    /// The one text of the first row, if there is a row.
    async fn first_text(&self, sql: &'static str, of: &'static str) -> Result<Option<String>, CopyError> {
        let mut connection = self.read(Scope::Deployment).await?;
        let rows = connection.rows(sql, params![]).await;
        let text = rows.and_then(|rows| {
            let row = rows.into_iter().next();
            row.map(|row| row.fields(of).text()).transpose()
        });
        text.map_err(|error| self.which.failed(error))
    }

    /// Refuses what is itself half a copy.
    pub(super) async fn refuse_half_copied(&self) -> Result<(), CopyError> {
        match self.mark(COPY).await? {
            Some(text) if !Mark::parse(&text).is_some_and(|mark| mark.is_complete()) => {
                Err(self.which.failed(StoreError::HalfCopied))
            }
            _ => Ok(()),
        }
    }

    /// A mark in `meta`.
    pub(super) async fn mark(&self, name: &str) -> Result<Option<String>, CopyError> {
        let mut connection = self.read(Scope::Deployment).await?;
        let rows = connection
            .rows("SELECT value FROM meta WHERE name = $1", params![name])
            .await;
        let text = rows.and_then(|rows| {
            let row = rows.into_iter().next();
            row.map(|row| row.fields("meta").text()).transpose()
        });
        text.map_err(|error| self.which.failed(error))
    }

    /// Sets a mark with the last commit this copy makes here: on PostgreSQL in the very transaction that held the
    /// database, which fails if that was lost meanwhile.
    pub(super) async fn let_go(&mut self, name: &str, value: &str) -> Result<(), CopyError> {
        let which = self.which;
        let mut connection = match self.hold.take() {
            Some(hold) => hold,
            None => self.write(Scope::Deployment).await?,
        };
        let marked = async {
            set_mark(&mut connection, name, value).await?;
            connection.commit().await
        };
        marked.await.map_err(|error| which.failed(error))
    }

    pub(super) async fn close(self) {
        drop(self.hold);
        self.engine.close().await;
    }
}

/// Sets a mark within a transaction.
pub(super) async fn set_mark(connection: &mut Connection, name: &str, value: &str) -> Result<(), StoreError> {
    connection
        .execute(
            "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = $2",
            params![name, value],
        )
        .await
        .map(drop)
}

fn one(rows: Vec<crate::store::sql::Row>) -> Result<u64, StoreError> {
    rows.into_iter()
        .next()
        .map_or(Ok(0), |row| row.fields("count").count())
}

/// Opening a file makes it and brings its schema up to date: neither may happen to a source, nor the latter to a target
/// that somebody else filled.
async fn check_file(which: Which, path: &Path) -> Result<(), CopyError> {
    match which {
        Which::Source if is_empty(path) => return Err(CopyError::NoSource(path.display().to_string())),
        Which::Target if is_unmade(path).await? => return Ok(()),
        Which::Source | Which::Target => {}
    }
    match sqlite::version(path).await.map_err(|error| which.failed(error))? {
        Some(migrations::LATEST) => Ok(()),
        _ => Err(CopyError::Version { which }),
    }
}

/// Whether a target is still to be made, or to be made to its end: a copy that is killed may have come no further.
pub(super) async fn is_unmade(path: &Path) -> Result<bool, CopyError> {
    let failed = |error| Which::Target.failed(error);
    if is_empty(path) {
        return Ok(true);
    }
    let made = sqlite::version(path).await.map_err(failed)? >= Some(migrations::LATEST);
    Ok(!made && sqlite::is_begun(path).await.map_err(failed)?)
}

/// Takes a SQLite database that nobody has used away again. What is left of it, if that fails, is an empty one.
pub(super) fn remove(path: &Path) {
    for end in ["-wal", "-shm", ""] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        let _left = std::fs::remove_file(name);
    }
    let _left = std::fs::remove_file(path.with_extension("lock"));
}

/// Whether there is no database in a file, or no file.
fn is_empty(path: &Path) -> bool {
    std::fs::metadata(path).map_or(true, |found| found.len() == 0)
}
