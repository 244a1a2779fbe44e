//! A PostgreSQL server of the campaign's own, which crashes, falls silent and runs out of disk.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use postern::store::{self, Isolation, PostgresSettings};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use url::Url;

/// A running server. It ends with this process.
#[derive(Debug)]
pub(crate) struct Postgres {
    dir: PathBuf,
    url: Url,
}

impl Postgres {
    /// Starts it with an empty, migrated database and the roles a deployment has.
    pub(crate) async fn start() -> Self {
        // Its user must be able to enter, so it is not within a private directory.
        let dir = std::env::temp_dir().join(format!("postern-campaign-{}", std::process::id()));
        let out = script(&["start", dir.to_str().unwrap(), &std::process::id().to_string()]);
        let server = Self {
            dir,
            url: String::from_utf8(out.stdout).unwrap().trim().parse().unwrap(),
        };
        let mut connection = server.superuser("postgres").await;
        for sql in [
            "CREATE ROLE postern_owner LOGIN CREATEROLE",
            "CREATE DATABASE campaign OWNER postern_owner",
        ] {
            sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        }
        store::migrate(&server.settings("postern_owner")).await.unwrap();
        sqlx::raw_sql("CREATE ROLE postern LOGIN NOINHERIT IN ROLE postern_app, postern_due")
            .execute(&mut connection)
            .await
            .unwrap();
        server
    }

    /// How a role reaches the database.
    pub(crate) fn settings(&self, role: &str) -> PostgresSettings {
        PostgresSettings {
            isolation: Isolation::default(),
            url: self.url_of(role, "campaign"),
            password: None,
            connections: 8,
            pooler: false,
        }
    }

    pub(crate) fn url_of(&self, role: &str, database: &str) -> String {
        let mut url = self.url.clone();
        url.set_username(role).unwrap();
        url.set_path(database);
        url.into()
    }

    /// Changes rows past every policy.
    pub(crate) async fn raw_sql(&self, sql: &str) {
        let mut connection = self.superuser("campaign").await;
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .unwrap();
    }

    /// The one number that is asked for, past every policy.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let mut connection = self.superuser("campaign").await;
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }

    async fn superuser(&self, database: &str) -> PgConnection {
        PgConnection::connect(&self.url_of("postgres", database))
            .await
            .unwrap()
    }

    /// It crashes.
    pub(crate) fn crash(&self) {
        script(&["kill", self.dir.to_str().unwrap()]);
    }

    /// It is started again, if it is down.
    pub(crate) fn start_again(&self) {
        script(&["again", self.dir.to_str().unwrap()]);
    }

    /// Every process of it is stopped, or goes on.
    pub(crate) fn signal(&self, signal: Signal) {
        for pid in self.processes() {
            // One that has ended meanwhile needs none.
            let _gone = kill_process(pid, signal);
        }
    }

    /// No file of it may be written any more, as on a full disk.
    pub(crate) fn fill_disk(&self) {
        script(&["full", self.dir.to_str().unwrap()]);
    }

    /// Files may be written again; it is started if it has given up.
    pub(crate) fn make_room(&self) {
        script(&["room", self.dir.to_str().unwrap()]);
        self.start_again();
    }

    /// Where its files are: all that it has written.
    pub(crate) fn files(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Its first process and that one's children.
    fn processes(&self) -> Vec<Pid> {
        let Ok(text) = std::fs::read_to_string(self.files().join("postmaster.pid")) else {
            return Vec::new();
        };
        let first: i32 = text.lines().next().unwrap().parse().unwrap();
        let children = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?;
            (parent.parse() == Ok(first)).then_some(pid)
        });
        std::iter::once(first)
            .chain(children)
            .filter_map(Pid::from_raw)
            .collect()
    }
}

fn script(arguments: &[&str]) -> Output {
    let out = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres"))
        .args(arguments)
        .env("POSTERN_TEST_POSTGRES_CONF", "fsync = off")
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    out
}
