//! One `postern serve` process: started, stopped, killed, with a clock of its own that a file moves.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::http::{Call, Heard};

/// A replica. Dropping it kills its process.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) dir: PathBuf,
    pub(crate) listen: SocketAddr,
    /// The one address the whole deployment is known by.
    pub(crate) public: SocketAddr,
    ops: SocketAddr,
    clock: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Replica {
    /// Writes its settings; it runs only after [`Replica::start`]. `more` begins in the table `[server]`.
    pub(crate) async fn prepare(home: &Path, number: usize, listen: SocketAddr, more: &str) -> Self {
        let dir = home.join(number.to_string());
        std::fs::create_dir(&dir).unwrap();
        let ops = free_address().await;
        let settings = format!(
            "[keys]\nkek = {{ kind = \"local\", file = \"{kek}\" }}\nallow_unlocked = true\ncache_ttl = \"1s\"\n\
             [data]\ndir = \"{dir}\"\n\
             [connectors]\ndir = \"{connectors}\"\n\
             [log]\nformat = \"json\"\nlevel = \"debug\"\n\
             [server]\nlisten = \"{listen}\"\nops_listen = \"{ops}\"\n{more}",
            kek = home.join("kek").display(),
            dir = dir.display(),
            connectors = home.join("connectors").display(),
        );
        std::fs::write(home.join(format!("{number}.toml")), settings).unwrap();
        let public = more.split("http://").nth(1).unwrap().split('"').next().unwrap();
        let clock = home.join(format!("{number}.clock"));
        std::fs::write(&clock, "+0\n").unwrap();
        Self {
            dir,
            listen,
            public: public.parse().unwrap(),
            ops,
            clock,
            child: Mutex::default(),
        }
    }

    /// Starts the process and waits until it is ready.
    pub(crate) async fn start(&self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let before = log.metadata().unwrap().len();
        // A write that a limit forbids is to fail as one to a full disk does; by default its signal ends the process.
        let mut command = Command::new("sh");
        without_settings(&mut command);
        let child = command
            .args([
                "-c",
                "trap '' XFSZ; exec \"$@\"",
                "sh",
                env!("CARGO_BIN_EXE_postern"),
            ])
            .args(["serve", "--config"])
            .arg(self.dir.with_extension("toml"))
            .env("LD_PRELOAD", faketime())
            .env("FAKETIME_TIMESTAMP_FILE", &self.clock)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        *self.child.lock().unwrap() = Some(child);
        let begun = Instant::now();
        loop {
            let said = self.probe().await;
            if matches!(said, Some((200, _))) {
                return;
            }
            let ended = self
                .child
                .lock()
                .unwrap()
                .as_mut()
                .and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "it ended: {ended:?}: {}", self.life(before));
            assert!(
                begun.elapsed() < STARTS_WITHIN,
                "it is not ready: its probe says {said:?}; {}; {}",
                self.threads(),
                self.life(before)
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What its probe says; nothing if it does not answer.
    async fn probe(&self) -> Heard {
        let call = Call {
            at: self.ops,
            ..self.call("GET", "/readyz", "", None)
        };
        call.ask(Duration::from_secs(1)).await
    }

    /// Whether its probe names what is in the way.
    pub(crate) async fn says(&self, obstacle: &str) -> Result<(), String> {
        self.until(|said| matches!(said, Some((503, body)) if obstacles(body).contains(&obstacle)))
            .await
            .map_err(|said| format!("I12: its probe does not name {obstacle}: {said:?}"))
    }

    /// Whether its probe says that nothing is.
    pub(crate) async fn is_ready_again(&self) -> Result<(), String> {
        self.until(|said| matches!(said, Some((200, _))))
            .await
            .map_err(|said| format!("not ready again: {said:?}, ended: {}", self.has_ended()))
    }

    /// Asks its probe until it says that; what it said last, if it does not.
    async fn until(&self, wanted: impl Fn(&Heard) -> bool) -> Result<(), Heard> {
        let begun = Instant::now();
        loop {
            let said = self.probe().await;
            if wanted(&said) {
                return Ok(());
            }
            if begun.elapsed() > SAYS_WITHIN {
                return Err(said);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The lines of its log from there on, of which those for debugging are only counted.
    fn life(&self, from: u64) -> String {
        let text = std::fs::read(self.log()).unwrap_or_default();
        let life = text.get(usize::try_from(from).unwrap()..).unwrap_or_default();
        let life = String::from_utf8_lossy(life);
        let (debug, said): (Vec<&str>, Vec<&str>) =
            life.lines().partition(|line| line.contains(r#""level":"DEBUG""#));
        let shown = said.len().min(LINES);
        format!(
            "{} lines of its log, {} for debugging; the first of the others:\n{}",
            debug.len() + said.len(),
            debug.len(),
            said[..shown].join("\n")
        )
    }

    /// What its threads wait for.
    fn threads(&self) -> String {
        let tasks = format!("/proc/{}/task", self.pid().as_raw_nonzero());
        let about = |task: PathBuf| {
            let of = |name: &str| std::fs::read_to_string(task.join(name)).unwrap_or_default();
            format!(
                "{} in {} (system call {})",
                of("comm").trim(),
                of("wchan"),
                of("syscall").trim()
            )
        };
        let tasks = std::fs::read_dir(tasks).into_iter().flatten().flatten();
        let threads: Vec<String> = tasks.map(|task| about(task.path())).collect();
        format!("its threads: {}", threads.join(", "))
    }

    /// A request to it, as its public address would be asked.
    pub(crate) fn call(&self, method: &'static str, path: &str, key: &str, body: Option<Value>) -> Call {
        Call {
            at: self.listen,
            host: self.public.to_string(),
            method,
            path: path.to_owned(),
            key: key.to_owned(),
            body,
        }
    }

    /// It dies without a word.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            child.kill().unwrap();
            child.wait().unwrap();
            // libfaketime makes them and, where a shell became the program, never takes them away.
            for name in ["sem.faketime_sem", "faketime_shm"] {
                let _none = std::fs::remove_file(format!("/dev/shm/{name}_{}", child.id()));
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// No file of it may be written any more, or all may.
    pub(crate) fn limit_files(&self, current: Option<u64>) {
        let maximum = getrlimit(Resource::Fsize).maximum;
        prlimit(Some(self.pid()), Resource::Fsize, Rlimit { current, maximum }).unwrap();
    }

    /// Puts its wall clock so many seconds ahead, or behind.
    pub(crate) fn move_clock(&self, seconds: i64) {
        let draft = self.clock.with_extension("draft");
        std::fs::write(&draft, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(draft, &self.clock).unwrap();
    }

    /// How much memory it holds, in KiB; none if it ended.
    pub(crate) fn memory(&self) -> u64 {
        let pid = self.pid().as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Whether it ended by itself.
    pub(crate) fn has_ended(&self) -> bool {
        let mut child = self.child.lock().unwrap();
        child
            .as_mut()
            .is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    fn log(&self) -> PathBuf {
        self.dir.with_extension("log")
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.child.lock().unwrap().as_ref().expect("it does not run"))
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What is said to the tests in the environment is not said to Postern, which refuses what it does not know.
pub(crate) fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("POSTERN_") {
            command.env_remove(name);
        }
    }
}

/// An address nobody listens on.
pub(crate) async fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    listener.local_addr().unwrap()
}

fn faketime() -> PathBuf {
    let arch = std::env::consts::ARCH;
    let usual = format!("/usr/lib/{arch}-linux-gnu/faketime/libfaketime.so.1");
    let path = PathBuf::from(std::env::var("LIBFAKETIME").unwrap_or(usual));
    assert!(
        path.exists(),
        "no libfaketime: apt-get install libfaketime, or set LIBFAKETIME"
    );
    path
}

/// What a probe of a replica says.
fn obstacles(body: &Value) -> Vec<&str> {
    let named = body["obstacles"].as_array().into_iter().flatten();
    named.filter_map(Value::as_str).collect()
}

/// The longest until its probe, which looks every two seconds, has noticed something.
const SAYS_WITHIN: Duration = Duration::from_secs(15);
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// Of a start that fails, so many lines of the log are shown.
const LINES: usize = 20;
