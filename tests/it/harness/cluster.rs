//! A primary with a synchronous streaming standby, and the address that follows whoever is primary: what a virtual IP, a
//! proxy or a service name is to a deployment.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    time::Duration,
};

use postern::store::{Isolation, Location, PostgresSettings};
use sqlx::{Connection as _, PgConnection};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

/// Both servers. Dropping it ends them.
pub struct Cluster {
    dir: PathBuf,
    primary: u16,
    standby: u16,
    /// Where connections to the address go.
    target: Arc<AtomicU16>,
    address: u16,
}

impl Cluster {
    /// Starts both, with a migrated database and the roles a deployment has.
    pub async fn start() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("postern-cluster-{}-{count}", std::process::id()));
        let primary = postgres("start", &dir.join("a"), &[&std::process::id().to_string()]);
        let primary = Url::parse(&primary).unwrap().port().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut cluster = Self {
            dir,
            primary,
            standby: 0,
            target: Arc::new(AtomicU16::new(primary)),
            address: listener.local_addr().unwrap().port(),
        };
        tokio::spawn(forward(listener, Arc::clone(&cluster.target)));
        let mut superuser = superuser(primary, "postgres").await;
        for sql in [
            "CREATE ROLE postern_owner LOGIN CREATEROLE",
            "CREATE DATABASE postern OWNER postern_owner",
        ] {
            sqlx::raw_sql(sql).execute(&mut superuser).await.unwrap();
        }
        postern::store::migrate(&settings("postern_owner", primary))
            .await
            .unwrap();
        sqlx::raw_sql("CREATE ROLE postern LOGIN NOINHERIT IN ROLE postern_app, postern_due")
            .execute(&mut superuser)
            .await
            .unwrap();
        let ours = [
            cluster.dir.join("a").display().to_string(),
            std::process::id().to_string(),
        ];
        let standby = postgres("standby", &cluster.dir.join("b"), &[&ours[0], &ours[1]]);
        cluster.standby = Url::parse(&standby).unwrap().port().unwrap();
        until(
            &mut superuser,
            "SELECT EXISTS (SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync')",
        )
        .await;
        cluster
    }

    /// The database behind the address.
    pub fn location(&self) -> Location {
        Location::Postgres(settings("postern", self.address))
    }

    /// From now on a commit at the primary waits for no standby: what dies with it is lost.
    pub async fn wait_for_nobody(&self) {
        let mut primary = superuser(self.primary, "postgres").await;
        set(&mut primary, "ALTER SYSTEM SET synchronous_standby_names = ''").await;
        until(
            &mut primary,
            "SELECT NOT EXISTS (SELECT 1 FROM pg_stat_replication WHERE sync_state <> 'async')",
        )
        .await;
    }

    /// From now on the standby hears nothing more from the primary.
    pub async fn cut_off(&self) {
        let mut standby = superuser(self.standby, "postgres").await;
        set(&mut standby, "ALTER SYSTEM SET primary_conninfo = ''").await;
        let mut primary = superuser(self.primary, "postgres").await;
        until(
            &mut primary,
            "SELECT NOT EXISTS (SELECT 1 FROM pg_stat_replication)",
        )
        .await;
    }

    /// From now on the standby keeps what it hears and does not show it.
    pub async fn pause_replay(&self) {
        let mut standby = superuser(self.standby, "postgres").await;
        set(&mut standby, "SELECT pg_wal_replay_pause()").await;
        until(&mut standby, "SELECT pg_get_wal_replay_pause_state() = 'paused'").await;
    }

    /// Ends the primary with SIGKILL, all its processes at once.
    pub fn kill_primary(&self) {
        postgres("kill", &self.dir.join("a"), &[]);
    }

    /// From now on the address leads to the standby, which only reads until it is promoted.
    pub fn switch(&self) {
        self.target.store(self.standby, Ordering::SeqCst);
    }

    /// Makes the standby a primary.
    pub fn promote(&self) {
        postgres("promote", &self.dir.join("b"), &[]);
    }

    /// A connection past every policy, to the one that was the standby.
    pub async fn promoted(&self) -> PgConnection {
        superuser(self.standby, "postern").await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in ["a", "b"] {
            postgres("stop", &self.dir.join(server), &[]);
        }
        let _left = std::fs::remove_dir_all(&self.dir);
    }
}

fn postgres(verb: &str, dir: &Path, more: &[&str]) -> String {
    let done = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres"))
        .arg(verb)
        .arg(dir)
        .args(more)
        .env("POSTERN_TEST_POSTGRES_CONF", "synchronous_commit = on")
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{verb}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

fn settings(role: &str, port: u16) -> PostgresSettings {
    PostgresSettings {
        url: format!("postgres://{role}@127.0.0.1:{port}/postern"),
        password: None,
        connections: 16,
        pooler: false,
        isolation: Isolation::default(),
    }
}

async fn superuser(port: u16, database: &str) -> PgConnection {
    PgConnection::connect(&format!("postgres://postgres@127.0.0.1:{port}/{database}"))
        .await
        .unwrap()
}

/// Changes a setting of a server that runs.
async fn set(server: &mut PgConnection, setting: &'static str) {
    // One by one: the first is allowed in no transaction.
    for sql in [setting, "SELECT pg_reload_conf()"] {
        sqlx::raw_sql(sql).execute(&mut *server).await.unwrap();
    }
}

/// Waits until a server answers a question with yes.
async fn until(server: &mut PgConnection, question: &'static str) {
    for _ in 0..200 {
        let yes: bool = sqlx::query_scalar(question)
            .fetch_one(&mut *server)
            .await
            .unwrap();
        if yes {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {question}");
}

/// Takes connections and hands each to whoever the target is at that moment.
async fn forward(listener: TcpListener, target: Arc<AtomicU16>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let target = Arc::clone(&target);
        tokio::spawn(async move {
            let port = target.load(Ordering::SeqCst);
            if let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                // A connection that breaks is both sides' own business.
                let _broken = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}
