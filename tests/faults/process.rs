//! `postern dev` as a child process, with a file of orders for its failpoints.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use postern::{domain::secret::ApiKey, egress::Credential, failpoints::Failpoint};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, getrlimit, kill_process, prlimit, waitpid,
};
use serde_json::{Value, json};

use crate::browser::{Browser, request};

/// A running demo. Dropping it kills the process and removes its directory.
pub(crate) struct Dev {
    child: Child,
    dir: tempfile::TempDir,
    up: Value,
}

impl Dev {
    /// Starts the demo and waits until it answers.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // A write that a limit forbids is to fail as one to a full disk does; by default its signal ends the process.
        let mut child = Command::new("sh")
            .args([
                "-c",
                "trap '' XFSZ; exec \"$@\"",
                "sh",
                env!("CARGO_BIN_EXE_postern"),
            ])
            .args(["dev", "--json", "--port", "0", "--data"])
            .arg(dir.path().join("data"))
            .env("POSTERN_FAILPOINT", dir.path().join("order"))
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(dir.path().join("stderr.log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let up = serde_json::from_str(&line).expect("the demo did not start");
        Self { child, dir, up }
    }

    /// Ada signs in, connects Acme Mail and lets the agent read; all in the browser.
    pub(crate) async fn connect(&self) {
        let mut ada = Browser::default();
        let login = ada.open(self.up["users"][0]["login_url"].as_str().unwrap()).await;
        ada.submit(&login, "/login/", &[]).await;
        let connections = ada.open(&format!("{}/connections", self.url())).await;
        let asked = ada.submit(&connections, "/connections/connect", &[]).await;
        let going = ada.submit(&asked, "/connect/", &[]).await;
        let picking = ada.open(&going.link_to(self.acme())).await;
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

    /// Writes the order for a failpoint.
    pub(crate) fn order(&self, place: Failpoint, order: &str) {
        let draft = self.dir.path().join("draft");
        std::fs::write(&draft, format!("{} {order}", place.as_str())).unwrap();
        std::fs::rename(draft, self.order_file()).unwrap();
    }

    /// Waits, without waiting on the process, until a signal has stopped it.
    pub(crate) fn wait_until_stopped(&self) {
        let status = waitpid(Some(self.pid()), WaitOptions::UNTRACED)
            .unwrap()
            .unwrap()
            .1;
        assert!(status.stopped(), "{status:?}");
        assert!(!self.order_file().exists(), "stopped, but not by the order");
    }

    /// Lets a stopped process go on.
    pub(crate) fn go_on(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    /// From now on every write to a file fails.
    pub(crate) fn forbid_writing(&self) {
        self.limit_files(Some(0));
    }

    /// Files may be written again.
    pub(crate) fn allow_writing(&self) {
        self.limit_files(None);
    }

    fn limit_files(&self, current: Option<u64>) {
        let maximum = getrlimit(Resource::Fsize).maximum;
        prlimit(Some(self.pid()), Resource::Fsize, Rlimit { current, maximum }).unwrap();
    }

    /// The agent asks for Ada's messages; more members may be given.
    pub(crate) fn read(&self, more: &Value) -> impl Future<Output = (u16, Value)> + Send + 'static {
        let mut body = json!({
            "connector": "acme-mail", "user": self.up["users"][0]["id"], "tool": "messages.list", "args": {"limit": 3},
        });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let key = self.up["agents"][0]["key"].as_str().unwrap().to_owned();
        let url = format!("{}/v1/vend", self.url());
        async move { call("POST", &url, &key, Some(body)).await }
    }

    /// The newest entries, newest first, as the admin sees them.
    pub(crate) async fn entries(&self) -> Vec<Value> {
        let key = self.up["admin_key"].as_str().unwrap();
        let url = format!("{}/v1/audit/entries?limit=20", self.url());
        let (status, answer) = call("GET", &url, key, None).await;
        assert_eq!(status, 200, "{answer}");
        answer["items"].as_array().unwrap().clone()
    }

    /// How many releases are recorded.
    pub(crate) async fn releases(&self) -> usize {
        let entries = self.entries().await;
        entries.iter().filter(|entry| entry["type"] == "release").count()
    }

    /// How many requests of one kind Acme Mail has received.
    pub(crate) async fn seen(&self, kind: &str) -> usize {
        let (_, log) = call("GET", &format!("{}/admin/log", self.acme()), "", None).await;
        let log = log
            .as_array()
            .or_else(|| log["entries"].as_array())
            .unwrap()
            .clone();
        log.iter().filter(|entry| entry["kind"] == kind).count()
    }

    /// Kills the process and waits until it is gone; its files stay where they are, in the directory this returns.
    pub(crate) fn kill(&mut self) -> &std::path::Path {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.dir.path()
    }

    fn url(&self) -> &str {
        self.up["url"].as_str().unwrap()
    }

    fn acme(&self) -> &str {
        self.up["demo_provider"].as_str().unwrap()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn order_file(&self) -> PathBuf {
        self.dir.path().join("order")
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

async fn call(method: &str, url: &str, key: &str, body: Option<Value>) -> (u16, Value) {
    let key = ApiKey::new(key.to_owned());
    let mut request = request(
        method,
        url,
        body.map(|body| ("application/json", body.to_string())),
    );
    request.credential = Credential::ApiKey(&key);
    let answer = postern::egress::operator_client()
        .unwrap()
        .send(request)
        .await
        .unwrap();
    (
        answer.status,
        serde_json::from_slice(&answer.body).unwrap_or(Value::Null),
    )
}

/// Longer than a receipt lives.
pub(crate) const LONGER_THAN_A_RECEIPT: Duration = Duration::from_secs(6);
