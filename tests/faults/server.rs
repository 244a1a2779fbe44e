//! A Postern as a process of its own, killed and started again at one address, beside an Acme Mail in this process,
//! which remembers what it rotated.
//!
//! `postern dev` brings its own Acme Mail, which dies with it, and `postern serve` refuses builds with failpoints. So the
//! process is this very test program, told by its environment to serve.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use postern::{
    app::{self, Kind, Parts, clock::SystemClock},
    connectors::{Catalogue, Options},
    crypto::{OsRandomness, hardening, lookup::show_api_key},
    dev::acme_mail::{self, AcmeMail, RedirectUri},
    domain::{connector::ConnectorId, secret::ApiKey},
    egress::{Credential, Egress, EgressPolicy, operator_client},
    failpoints::Failpoint,
    flows::{Deps, apply, found},
    http::{guard::RequestIds, router, security::Site, server},
    policy::demo,
    store::{Location, TimeSource},
    workers::Workers,
};
use postern_kms::local::{LocalKeys, create_key_file};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, getrlimit, kill_process, prlimit, waitpid,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::browser::{Browser, request};

/// How the authorization server treats a refresh token that it rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rotation {
    /// It is spent, and sending it again ends everything.
    Strict,
    /// It may be sent again for 60 s.
    Grace,
}

impl Rotation {
    fn grace_s(self) -> u32 {
        match self {
            Self::Strict => 0,
            Self::Grace => 60,
        }
    }
}

/// A running server. Dropping it kills the process and removes its directory.
pub(crate) struct Server {
    child: Child,
    dir: tempfile::TempDir,
    pub(crate) acme: String,
    up: Up,
}

/// What the process tells when it is up, kept for its next start.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Up {
    admin_key: String,
    agent_key: String,
    user: String,
}

impl Server {
    /// Starts both and connects Ada.
    pub(crate) async fn connected(rotation: Rotation) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", port.local_addr().unwrap());
        drop(port);
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
        std::fs::write(dir.path().join("addresses"), format!("{url}\n{acme}")).unwrap();
        let (child, up) = spawn(dir.path()).await;
        let server = Self { child, dir, acme, up };
        server.connect().await;
        server
    }

    /// Ada signs in, connects (again) and lets the agent read; all in the browser.
    pub(crate) async fn connect(&self) {
        let mut ada = Browser::default();
        let login = ada.open(&self.login_url().await).await;
        ada.submit(&login, "/login/", &[]).await;
        let connections = ada.open(&format!("{}/connections", self.url())).await;
        let reconnects = connections.text.contains("/reconnect");
        let how = if reconnects {
            "/reconnect"
        } else {
            "/connections/connect"
        };
        let asked = ada.submit(&connections, how, &[]).await;
        let going = ada.submit(&asked, "/connect/", &[]).await;
        let picking = ada.open(&going.link_to(&self.acme)).await;
        let account = [("account", "ada@acme.example")];
        let consenting = ada.submit(&picking, "/authorize", &account).await;
        let confirming = ada
            .submit(&consenting, "/authorize", &[("decision", "allow")])
            .await;
        let done = ada
            .submit(&confirming, "/confirm", &[("choice", "confirm")])
            .await;
        assert!(done.text.contains("is connected"), "{}", done.text);
    }

    /// A fresh one-time link for Ada.
    async fn login_url(&self) -> String {
        let url = format!("{}/v1/users/{}/login-links", self.url(), self.up.user);
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

    /// Waits until the process has ended by itself or by its order.
    pub(crate) async fn until_dead(&mut self) -> ExitStatus {
        for _ in 0..3000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the process lives on");
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

    /// From now on a file grows no further than this.
    pub(crate) fn limit_files(&self, current: Option<u64>) {
        let maximum = getrlimit(Resource::Fsize).maximum;
        prlimit(Some(self.pid()), Resource::Fsize, Rlimit { current, maximum }).unwrap();
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
        let (key, url) = (self.up.agent_key.clone(), format!("{}/v1/vend", self.url()));
        async move { call("POST", &url, &key, Some(body)).await }
    }

    /// The newest entries, newest first, as the admin sees them.
    pub(crate) async fn entries(&self) -> Vec<Value> {
        let url = format!("{}/v1/audit/entries?limit=30", self.url());
        let (status, answer) = self.call("GET", &url, &self.up.admin_key, None).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        answer["items"].as_array().unwrap().clone()
    }

    /// The admin ends everything; the process may die over it.
    pub(crate) async fn revoke_all(&self) -> Option<(u16, Value)> {
        let url = format!("{}/v1/revocations", self.url());
        let body = json!({"selector": {"all": true}, "reason": "test"});
        self.call("POST", &url, &self.up.admin_key, Some(body)).await
    }

    /// How far a revocation has come.
    pub(crate) async fn revocation(&self, id: &str) -> Value {
        let url = format!("{}/v1/revocations/{id}", self.url());
        let (status, answer) = self.call("GET", &url, &self.up.admin_key, None).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Which tokens Acme Mail was asked to end, in order.
    pub(crate) async fn asked_to_end(&self) -> Vec<Value> {
        let log = self.log().await;
        let calls = log.into_iter().filter(|entry| entry["kind"] == "revoke");
        calls.map(|entry| entry["token_sha256"].clone()).collect()
    }

    /// Lets claims of a dead process be over, without the wait for it.
    pub(crate) async fn claims_end(&self) {
        let path = self.dir.path().join("postern.db");
        let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", path.display()))
            .await
            .unwrap();
        let moved = sqlx::query("UPDATE outbox SET due_at = due_at - 180 * 1000000")
            .execute(&pool)
            .await
            .unwrap();
        assert_eq!(moved.rows_affected(), 1);
        pool.close().await;
    }

    /// Acme Mail lets Ada's access tokens expire now.
    pub(crate) async fn expire(&self) {
        let url = format!("{}/admin/expire", self.acme);
        self.call("POST", &url, "", Some(json!({"account": "ada@acme.example"})))
            .await
            .unwrap();
    }

    /// Acme Mail ends what Ada allowed.
    pub(crate) async fn disconnect(&self) {
        let url = format!("{}/admin/disconnect", self.acme);
        self.call("POST", &url, "", Some(json!({"account": "ada@acme.example"})))
            .await
            .unwrap();
    }

    /// Acme Mail misbehaves.
    pub(crate) async fn fault(&self, fault: Value) {
        let url = format!("{}/admin/fault", self.acme);
        self.call("POST", &url, "", Some(fault)).await.unwrap();
    }

    /// Acme Mail behaves.
    pub(crate) async fn no_fault(&self) {
        let url = format!("{}/admin/fault", self.acme);
        self.call("DELETE", &url, "", None).await.unwrap();
    }

    /// How many requests to renew a token Acme Mail has received.
    pub(crate) async fn refreshes(&self) -> usize {
        let log = self.log().await;
        log.iter()
            .filter(|entry| entry["kind"] == "token" && entry["grant_type"] == "refresh_token")
            .count()
    }

    /// Everything Acme Mail has received.
    async fn log(&self) -> Vec<Value> {
        let (_, log) = self
            .call("GET", &format!("{}/admin/log", self.acme), "", None)
            .await
            .unwrap();
        log.as_array()
            .or_else(|| log["entries"].as_array())
            .unwrap()
            .clone()
    }

    async fn call(&self, method: &str, url: &str, key: &str, body: Option<Value>) -> Option<(u16, Value)> {
        call(method, url, key, body).await
    }

    fn url(&self) -> String {
        addresses(self.dir.path()).0
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn order_file(&self) -> PathBuf {
        self.dir.path().join("order")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

async fn call(method: &str, url: &str, key: &str, body: Option<Value>) -> Option<(u16, Value)> {
    let key = ApiKey::new(key.to_owned());
    let mut request = request(
        method,
        url,
        body.map(|body| ("application/json", body.to_string())),
    );
    request.credential = Credential::ApiKey(&key);
    let answer = operator_client().unwrap().send(request).await.ok()?;
    let body = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    Some((answer.status, body))
}

async fn start_acme(rotation: Rotation, postern: &str) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let random = Arc::new(OsRandomness::new());
    let ids = RequestIds::new(&*random).unwrap();
    let acme = AcmeMail::new(acme_mail::Options {
        clock: Arc::new(SystemClock),
        random,
        issuer: issuer.clone(),
        client: acme_mail::Client {
            id: acme_mail::DEMO_CLIENT_ID.to_owned(),
            name: "Postern (faults)".to_owned(),
            secret: None,
            redirect_uris: vec![RedirectUri::Exact(format!("{postern}/callback/{CONNECTOR}"))],
        },
    })
    .with_rotation_grace(Duration::from_secs(rotation.grace_s().into()));
    tokio::spawn(server::serve(
        listener,
        acme.router(),
        server::Limits::default(),
        ids,
        std::future::pending(),
    ));
    issuer
}

/// Starts the process and waits until it serves.
async fn spawn(dir: &Path) -> (Child, Up) {
    let ready = dir.join("ready");
    let _stale = std::fs::remove_file(&ready);
    // A write that a limit forbids is to fail as one to a full disk does; by default its signal ends the process.
    let mut child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "server::serve_here", "--ignored", "--nocapture"])
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
            let said = std::fs::read_to_string(dir.join("stderr.log")).unwrap_or_default();
            panic!("the process did not start: {status}: {said}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the process does not come up");
}

/// Not a test: the process that the others kill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the other tests as a process of its own"]
async fn serve_here() {
    let Some(dir) = std::env::var_os(SERVE).map(PathBuf::from) else {
        return;
    };
    let (url, acme) = addresses(&dir);
    let deps = app::open(parts(&dir, &url, &acme)).await.unwrap();
    let up = match std::fs::read(dir.join("up")) {
        Ok(text) => serde_json::from_slice(&text).unwrap(),
        Err(_) => {
            let up = found_org(&deps).await;
            std::fs::write(dir.join("up"), serde_json::to_vec(&up).unwrap()).unwrap();
            up
        }
    };
    let address: SocketAddr = url.trim_start_matches("http://").parse().unwrap();
    let listener = TcpListener::bind(address).await.unwrap();
    let _workers = Workers::start(&deps);
    let site = Site::new(&url.parse().unwrap()).unwrap();
    let ids = RequestIds::new(&*deps.random).unwrap();
    let app = router::app(Arc::clone(&deps), site);
    std::fs::write(dir.join("ready.draft"), serde_json::to_vec(&up).unwrap()).unwrap();
    std::fs::rename(dir.join("ready.draft"), dir.join("ready")).unwrap();
    server::serve(
        listener,
        app,
        server::Limits::default(),
        ids,
        std::future::pending(),
    )
    .await;
}

fn parts(dir: &Path, url: &str, acme: &str) -> Parts {
    let kek = dir.join("kek");
    if !kek.exists() {
        create_key_file(&kek).unwrap();
    }
    let mut keys = LocalKeys::new(hardening::keep_preferably_locked);
    keys.add_key_file("local", &kek).unwrap();
    let connector: ConnectorId = CONNECTOR.parse().unwrap();
    let policy = EgressPolicy::strict()
        .allow(&connector, acme.trim_start_matches("http://"))
        .unwrap();
    let catalogue = Catalogue::load(&Options {
        acme_mail_origin: Some(acme),
        dir: Some(&dir.join("connectors")),
        plain_http_allowed: &[],
    });
    Parts {
        kind: Kind::Dev,
        database: Location::Sqlite(dir.join("postern.db")),
        time: TimeSource::Database,
        data_dir: dir.to_owned(),
        keys: Arc::new(keys),
        kek_ref: "local".to_owned(),
        key_words: "a test key".to_owned(),
        cache_ttl: Duration::from_secs(30),
        locking: hardening::Locking::Preferred,
        issuer: url.to_owned(),
        catalogue: catalogue.unwrap(),
        egress: Egress::new(policy).unwrap(),
        webhook: None,
        sinks: Vec::new(),
        witness: None,
        clock: Arc::new(SystemClock),
    }
}

async fn found_org(deps: &Deps) -> Up {
    let founded = found::found(deps, "Acme", "ada@acme.example").await.unwrap();
    let policy = |text: &str| text.replace("acme-mail", CONNECTOR);
    let document = toml::to_string(&json!({
        "agent": [{"name": "Mail Assistant"}],
        "connector": {CONNECTOR: {"client_id": acme_mail::DEMO_CLIENT_ID}},
        "policies": {"org": [policy(demo::ORG)], "agent": [policy(demo::AGENT)]},
    }))
    .unwrap();
    let applied = apply::apply(deps, founded.org, "test".to_owned(), &document)
        .await
        .unwrap();
    let agent = applied.keys.iter().find(|key| key.kind == "agent").unwrap();
    Up {
        admin_key: show_api_key(&founded.admin_key),
        agent_key: show_api_key(&agent.key),
        user: founded.admin.to_string(),
    }
}

/// Postern's and Acme Mail's.
fn addresses(dir: &Path) -> (String, String) {
    let text = std::fs::read_to_string(dir.join("addresses")).unwrap();
    let (postern, acme) = text.split_once('\n').unwrap();
    (postern.to_owned(), acme.to_owned())
}

/// Tells the process where its directory is.
const SERVE: &str = "POSTERN_FAULTS_SERVE";
/// The connector's id.
const CONNECTOR: &str = "acme-faults";
