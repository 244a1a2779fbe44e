//! A Postern as a process of its own, killed and started again at one address, beside an Acme Mail in this process,
//! which remembers what it rotated.
//!
//! `postern dev` brings its own Acme Mail, which dies with it, and `postern serve` refuses builds with failpoints. So the
//! process is this very test program, told by its environment to serve ([`crate::served`]), over SQLite or, with
//! `POSTERN_TEST_STORE=postgres`, over PostgreSQL.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use postern::{
    domain::secret::ApiKey,
    egress::{Credential, operator_client},
    failpoints::Failpoint,
    store::Location,
};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, getrlimit, kill_process, prlimit, waitpid,
};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tokio::net::TcpSocket;

use crate::{
    browser::{self, request},
    database,
    provider::{Rotation, start_acme},
    served::{self, CONNECTOR, SERVE, Setup, Up},
};

/// A running server. Dropping it kills the process and removes its directory.
pub(crate) struct Server {
    child: Child,
    dir: tempfile::TempDir,
    pub(crate) location: Location,
    pub(crate) url: String,
    /// Nobody else is given the port while the process is down.
    _held: TcpSocket,
    pub(crate) acme: String,
    up: Up,
}

impl Server {
    /// Starts both and connects Ada.
    pub(crate) async fn connected(rotation: Rotation) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let location = database::location(dir.path()).await;
        Self::connected_in(dir, location, rotation).await
    }

    /// The same over PostgreSQL, whatever the other tests run over.
    pub(crate) async fn connected_over_postgres(rotation: Rotation) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let location = database::postgres(dir.path()).await;
        Self::connected_in(dir, location, rotation).await
    }

    /// The same over SQLite, whatever the other tests run over.
    pub(crate) async fn connected_over_sqlite(rotation: Rotation) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let location = database::sqlite(dir.path());
        Self::connected_in(dir, location, rotation).await
    }

    /// Another process over the same database, known by the same address, with files of its own.
    pub(crate) async fn replica(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("connectors")).unwrap();
        for file in ["kek", "up", &format!("connectors/{CONNECTOR}.toml")] {
            std::fs::copy(self.dir.path().join(file), dir.path().join(file)).unwrap();
        }
        let (url, held) = address();
        let setup = Setup {
            listen: url.clone(),
            ..Setup::read(self.dir.path())
        };
        setup.write(dir.path());
        let (child, up) = spawn(dir.path()).await;
        Self {
            child,
            dir,
            location: self.location.clone(),
            url,
            _held: held,
            acme: self.acme.clone(),
            up,
        }
    }

    async fn connected_in(dir: tempfile::TempDir, location: Location, rotation: Rotation) -> Self {
        let (url, held) = address();
        let acme = start_acme(rotation, &url).await;
        let authority = acme.trim_start_matches("http://");
        let mut connector = include_str!("../../connectors/acme-mail.toml")
            .replace("id = \"acme-mail\"", &format!("id = \"{CONNECTOR}\""))
            .replace("{origin}", &acme)
            .replace("{authority}", authority)
            .replace(
                "old_refresh_valid_s = 60",
                &format!("old_refresh_valid_s = {}", rotation.grace_s()),
            );
        if rotation == Rotation::Strict {
            connector = connector.replace(
                "how = \"refresh_scope\"\nproof = \"returned_scope\"",
                "how = \"none\"",
            );
        }
        std::fs::create_dir(dir.path().join("connectors")).unwrap();
        let file = dir.path().join("connectors").join(format!("{CONNECTOR}.toml"));
        std::fs::write(file, connector).unwrap();
        let setup = Setup {
            issuer: url.clone(),
            listen: url.clone(),
            acme: acme.clone(),
            postgres: None,
            file: String::new(),
            copies: None,
        }
        .over(&location);
        setup.write(dir.path());
        let (child, up) = spawn(dir.path()).await;
        let server = Self {
            child,
            dir,
            location,
            url,
            _held: held,
            acme,
            up,
        };
        server.connect().await;
        server
    }

    /// Ada signs in, connects (again) and lets the agent read; all in the browser.
    pub(crate) async fn connect(&self) {
        browser::connect(&self.login_url().await, &self.url, &self.acme, "ada@acme.example").await;
    }

    /// A fresh one-time link for Ada.
    pub(crate) async fn login_url(&self) -> String {
        let url = format!("{}/v1/users/{}/login-links", self.url, self.up.user);
        let (_, link) = self
            .call("POST", &url, &self.up.admin_key, Some(json!({})))
            .await
            .unwrap();
        link["url"].as_str().unwrap().to_owned()
    }

    /// Starts the process again after it died.
    pub(crate) async fn start_again(&mut self) {
        let (child, up) = spawn(self.dir.path()).await;
        (self.child, self.up) = (child, up);
    }

    /// The process dies without a word.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Changes what the process is told when it starts again.
    pub(crate) fn set_up(&self, change: impl FnOnce(Setup) -> Setup) {
        change(Setup::read(self.dir())).write(self.dir());
    }

    /// Where it keeps its files.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn admin_key(&self) -> &str {
        &self.up.admin_key
    }

    /// Waits until the process has ended by itself or by its order.
    pub(crate) async fn until_dead(&mut self) -> ExitStatus {
        for _ in 0..3000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "the process lives on, {:?} are spooled, and it said: {}",
            self.spooled(),
            self.said()
        );
    }

    /// What the process wrote since it was started last.
    pub(crate) fn said(&self) -> String {
        said_in(self.dir.path())
    }

    /// Asks the process to stop in its own, orderly way.
    pub(crate) fn ask_to_stop(&self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
    }

    /// Writes the order for a failpoint.
    pub(crate) fn order(&self, place: Failpoint, order: &str) {
        let draft = self.dir.path().join("draft");
        std::fs::write(&draft, format!("{} {order}", place.as_str())).unwrap();
        std::fs::rename(draft, self.order_file()).unwrap();
    }

    /// Whether the order was carried out.
    pub(crate) fn was_reached(&self) -> bool {
        !self.order_file().exists()
    }

    /// Waits, without waiting on the process, until a signal has stopped it.
    pub(crate) async fn until_stopped(&self) {
        let pid = self.pid();
        tokio::task::spawn_blocking(move || {
            let status = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap().1;
            assert!(status.stopped(), "{status:?}");
        })
        .await
        .unwrap();
    }

    /// Lets a stopped process go on.
    pub(crate) fn go_on(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    /// The database takes nothing and tells nothing any more.
    pub(crate) async fn lose_database(&self) {
        match &self.location {
            // What a full disk is to a database, and not yet to a small file.
            Location::Sqlite(_) => {
                self.limit_files(Some(SMALL)).unwrap();
            }
            Location::Postgres(settings) => {
                let name = database::name_of(settings);
                let sql = format!(
                    "ALTER DATABASE {name} ALLOW_CONNECTIONS false;
                     SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
                );
                tell_postgres(&sql).await;
            }
        }
    }

    /// The database is back.
    pub(crate) async fn find_database(&self) {
        match &self.location {
            Location::Sqlite(_) => {
                // A process that has died took its limit with it.
                let _died = self.limit_files(None);
            }
            Location::Postgres(settings) => {
                let name = database::name_of(settings);
                tell_postgres(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await;
            }
        }
    }

    /// From now on a file grows no further than this.
    fn limit_files(&self, current: Option<u64>) -> rustix::io::Result<Rlimit> {
        let maximum = getrlimit(Resource::Fsize).maximum;
        prlimit(Some(self.pid()), Resource::Fsize, Rlimit { current, maximum })
    }

    /// How many answers are spooled.
    pub(crate) fn spooled(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.dir.path().join("spool"))
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect()
    }

    /// The agent asks for Ada's messages; `None` when the process died over it.
    pub(crate) fn read(&self) -> impl Future<Output = Option<(u16, Value)>> + Send + 'static {
        let body = json!({
            "connector": CONNECTOR, "user": self.up.user, "tool": "messages.list", "args": {"limit": 3},
        });
        let (key, url) = (self.up.agent_key.clone(), format!("{}/v1/vend", self.url));
        async move { call("POST", &url, &key, Some(body)).await }
    }

    /// The agent's call with one grant.
    pub(crate) fn vend(&self, grant: &str, mode: &str) -> Vend {
        Vend {
            url: format!("{}/v1/vend", self.url),
            key: self.up.agent_key.clone(),
            body: json!({"grant": grant, "tool": "messages.list", "args": {"limit": 3}, "mode": mode}),
        }
    }

    /// Ada's living grant.
    pub(crate) async fn grant(&self) -> String {
        let url = format!("{}/v1/grants", self.url);
        let (_, answer) = self.call("GET", &url, &self.up.admin_key, None).await.unwrap();
        let grants = answer["items"].as_array().unwrap();
        let living = grants.iter().find(|grant| grant["state"] == "active").unwrap();
        living["id"].as_str().unwrap().to_owned()
    }

    /// The admin ends a selection. It may have to wait for what another process holds, or nobody may know whether it was done, and
    /// it is asked again.
    pub(crate) async fn revoke(&self, selector: &Value) -> Value {
        let url = format!("{}/v1/revocations", self.url);
        let body = json!({"selector": selector, "reason": "test"});
        for _ in 0..60 {
            match self
                .call("POST", &url, &self.up.admin_key, Some(body.clone()))
                .await
            {
                Some((200, revoked)) => return revoked,
                Some((503 | 504, _)) => tokio::time::sleep(Duration::from_millis(100)).await,
                other => panic!("{other:?}"),
            }
        }
        panic!("not revoked");
    }

    /// The newest entries, newest first, as the admin sees them.
    pub(crate) async fn entries(&self) -> Vec<Value> {
        self.newest_entries(30).await
    }

    async fn newest_entries(&self, limit: usize) -> Vec<Value> {
        let (items, _) = self.page_of_entries(&format!("limit={limit}")).await;
        items
    }

    /// Every entry that came after one of them, newest first, however many there are.
    pub(crate) async fn entries_since(&self, known: &str) -> Vec<Value> {
        let mut since = Vec::new();
        let mut query = "limit=1000".to_owned();
        loop {
            let (items, next) = self.page_of_entries(&query).await;
            let is_known = |entry: &Value| entry["id"] == known;
            let end = items.iter().position(is_known);
            since.extend_from_slice(&items[..end.unwrap_or(items.len())]);
            if end.is_some() {
                return since;
            }
            let next = next.unwrap_or_else(|| panic!("{known} is not among them"));
            query = format!("limit=1000&after={next}");
        }
    }

    async fn page_of_entries(&self, query: &str) -> (Vec<Value>, Option<String>) {
        let url = format!("{}/v1/audit/entries?{query}", self.url);
        let (status, answer) = self.call("GET", &url, &self.up.admin_key, None).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        let next = answer["next"].as_str().map(str::to_owned);
        (answer["items"].as_array().unwrap().clone(), next)
    }

    /// The admin ends everything; the process may die over it.
    pub(crate) async fn revoke_all(&self) -> Option<(u16, Value)> {
        let url = format!("{}/v1/revocations", self.url);
        let body = json!({"selector": {"all": true}, "reason": "test"});
        self.call("POST", &url, &self.up.admin_key, Some(body)).await
    }

    /// How far a revocation has come.
    pub(crate) async fn revocation(&self, id: &str) -> Value {
        let url = format!("{}/v1/revocations/{id}", self.url);
        let (status, answer) = self.call("GET", &url, &self.up.admin_key, None).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Lets claims of a dead process be over, without the wait for it.
    pub(crate) async fn claims_end(&self) {
        let moved = database::raw_sql(
            &self.location,
            "UPDATE outbox SET due_at = due_at - 180 * 1000000",
        );
        assert_eq!(moved.await, 1);
    }

    /// How many connects hold tokens that their person has not confirmed.
    pub(crate) async fn connects_to_confirm(&self) -> u64 {
        let held =
            "UPDATE connect_sessions SET status = status WHERE status = 'confirming' AND tokens IS NOT NULL";
        database::raw_sql(&self.location, held).await
    }

    async fn call(&self, method: &str, url: &str, key: &str, body: Option<Value>) -> Option<(u16, Value)> {
        call(method, url, key, body).await
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn order_file(&self) -> PathBuf {
        self.dir.path().join("order")
    }
}

/// A call that can be made again and again.
pub(crate) struct Vend {
    url: String,
    key: String,
    body: Value,
}

impl Vend {
    /// `None` when the process died over it.
    pub(crate) async fn call(&self) -> Option<(u16, Value)> {
        call("POST", &self.url, &self.key, Some(self.body.clone())).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

pub(crate) async fn call(method: &str, url: &str, key: &str, body: Option<Value>) -> Option<(u16, Value)> {
    let key = ApiKey::new(key.to_owned());
    let mut request = request(
        method,
        url,
        body.map(|body| ("application/json", body.to_string())),
    );
    request.credential = Credential::ApiKey(&key);
    request.max_body = WHOLE_LOG;
    let answer = operator_client().unwrap().send(request).await.ok()?;
    let body = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    Some((answer.status, body))
}

/// Starts the process and waits until it serves.
async fn spawn(dir: &Path) -> (Child, Up) {
    let ready = dir.join("ready");
    let _stale = std::fs::remove_file(&ready);
    // A write that a limit forbids is to fail as one to a full disk does; by default its signal ends the process.
    let mut child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "served::serve_here", "--ignored", "--nocapture"])
        .env(SERVE, dir)
        .env("POSTERN_FAILPOINT", dir.join("order"))
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(dir.join("stderr.log")).unwrap())
        .spawn()
        .unwrap();
    for _ in 0..6000 {
        if let Ok(text) = std::fs::read(&ready) {
            return (child, serde_json::from_slice(&text).unwrap());
        }
        if let Some(status) = child.try_wait().unwrap() {
            panic!("the process did not start: {status}: {}", said_in(dir));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the process does not come up");
}

/// Statements of whoever runs the database server.
async fn tell_postgres(sql: &str) {
    let mut connection = database::superuser("postgres").await;
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await
        .unwrap();
}

/// An address that is this server's as long as the socket lives: it is bound, not listened on.
fn address() -> (String, TcpSocket) {
    let held = served::socket((Ipv4Addr::LOCALHOST, 0).into());
    (format!("http://{}", held.local_addr().unwrap()), held)
}

/// Room for a spooled answer, not for a page of a database's log.
const SMALL: u64 = 4096;
/// Enough for the whole log of a process or of Acme Mail.
const WHOLE_LOG: usize = 256 << 20;

fn said_in(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("stderr.log")).unwrap_or_default()
}
