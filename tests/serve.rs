//! The program's production start, as this build has it: a release build begins, serves and ends; a build for tests or
//! measurements refuses before it makes anything; a build without `dev` has no `dev`.
//!
//! `scripts/test` runs it for every build there is.
#![expect(
    clippy::unwrap_used,
    reason = "a test that goes wrong stops; its name is its documentation"
)]

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Command, Output, Stdio},
};

/// Whether this is a build that no deployment may run.
const REFUSED: bool = cfg!(any(feature = "bench", feature = "failpoints"));

fn postern() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    command.env_clear().stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    postern().args(arguments).output().unwrap()
}

/// The command line that makes the first organisation.
fn init(config: &str) -> [&str; 7] {
    [
        "init",
        "--config",
        config,
        "--org",
        "Acme",
        "--admin",
        "ada@acme.example",
    ]
}

fn words(output: &Output) -> String {
    let both = [&*output.stdout, &*output.stderr];
    both.map(String::from_utf8_lossy).concat()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// A configuration whose data is in `data`, and the address of its probes.
fn configured(dir: &Path, data: &Path) -> (String, String) {
    let (port, ops) = (free_port(), free_port());
    let data = data.display();
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:{port}\"\nops_listen = \"127.0.0.1:{ops}\"\n\
         public_url = \"http://127.0.0.1:{port}\"\n\
         [store]\nurl = \"sqlite://{data}/postern.db\"\n[data]\ndir = \"{data}\"\n\
         [keys]\nkek = {{ kind = \"local\", file = \"{data}/kek\" }}\nallow_unlocked = true\n"
    );
    let file = dir.join("postern.toml");
    std::fs::write(&file, text).unwrap();
    (file.display().to_string(), format!("127.0.0.1:{ops}"))
}

#[test]
fn a_build_for_tests_or_measurements_refuses_to_begin() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (config, _) = configured(dir.path(), &data);
    let made = run(&init(&config));
    assert_eq!(made.status.success(), !REFUSED, "{}", words(&made));
    if !REFUSED {
        return;
    }
    assert!(!data.exists(), "something was made");
    let serve = run(&["serve", "--config", &config]);
    let recover = run(&["recover", "--config", &config]);
    for refused in [&made, &serve, &recover] {
        assert_eq!(refused.status.code(), Some(1), "{}", words(refused));
        assert!(words(refused).contains("it is for"), "{}", words(refused));
    }
    assert!(!data.exists(), "something was made");
}

#[test]
fn the_verb_for_demonstrations_is_there_only_with_its_feature() {
    let dev = run(&["dev", "--help"]);
    assert_eq!(dev.status.success(), cfg!(feature = "dev"), "{}", words(&dev));
    let help = words(&run(&["--help"]));
    assert_eq!(help.contains("Start a demo"), cfg!(feature = "dev"), "{help}");
    assert!(run(&["serve", "--help"]).status.success());
}

#[cfg(not(any(feature = "bench", feature = "failpoints")))]
mod release {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
        process::Child,
        time::{Duration, Instant},
    };

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    /// Ends with the test, whatever becomes of it.
    struct Running(Child);

    impl Running {
        /// A server, waited for until its probe answers so.
        fn serves(config: &str, ops: &str, ready: u16) -> Self {
            let log = tempfile::NamedTempFile::new().unwrap();
            let said = || std::fs::read_to_string(log.path()).unwrap();
            let mut serve = postern();
            serve.args(["serve", "--config", config]);
            let child = serve.stderr(log.reopen().unwrap()).spawn();
            let mut running = Self(child.unwrap());
            let begun = Instant::now();
            while status(ops, "/readyz") != Some(ready) {
                assert!(running.0.try_wait().unwrap().is_none(), "ended: {}", said());
                assert!(
                    begun.elapsed() < Duration::from_secs(60),
                    "never {ready}: {}",
                    said()
                );
                std::thread::sleep(Duration::from_millis(50));
            }
            running
        }

        fn stop(&mut self) -> std::process::ExitStatus {
            let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
            kill_process(pid, Signal::TERM).unwrap();
            self.0.wait().unwrap()
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            let _ended = self.0.kill();
            let _reaped = self.0.wait();
        }
    }

    /// The status of a plain request, if anybody answers.
    fn status(address: &str, path: &str) -> Option<u16> {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }

    #[test]
    fn a_deployment_begins_serves_and_ends_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let (config, ops) = configured(dir.path(), &data);
        let before = run(&["serve", "--config", &config]);
        assert!(words(&before).contains("postern init"), "{}", words(&before));
        let made = run(&init(&config));
        assert!(made.status.success(), "{}", words(&made));
        let again = run(&init(&config));
        assert_eq!(again.status.code(), Some(1), "{}", words(&again));
        let mut running = Running::serves(&config, &ops, 200);
        assert!(running.stop().success());
        assert_eq!(status(&ops, "/readyz"), None);
    }

    #[test]
    fn a_database_put_back_is_sealed_until_an_admin_recovers_it() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let (config, ops) = configured(dir.path(), &data);
        let made = run(&init(&config));
        assert!(made.status.success(), "{}", words(&made));
        let recover = |arguments: &[&str]| run(&[&["recover", "--config", &config], arguments].concat());
        let fine = recover(&["--dry-run"]);
        assert!(fine.status.success(), "{}", words(&fine));
        assert!(words(&fine).contains("Nothing to recover"), "{}", words(&fine));

        let database = data.join("postern.db");
        let older = std::fs::read(&database).unwrap();
        let outside = || std::fs::read_to_string(data.join("checkpoints.jsonl")).unwrap_or_default();
        let before = outside();
        let mut running = Running::serves(&config, &ops, 200);
        // What was signed last stands outside.
        let begun = Instant::now();
        while outside() == before {
            assert!(begun.elapsed() < Duration::from_secs(60), "{before}");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(running.stop().success());
        for beside in ["postern.db-wal", "postern.db-shm"] {
            assert!(!data.join(beside).exists(), "{beside}");
        }
        std::fs::write(&database, &older).unwrap();

        assert!(Running::serves(&config, &ops, 503).stop().success());
        let left = outside();
        let dry = recover(&["--dry-run", "--json"]);
        assert!(dry.status.success(), "{}", words(&dry));
        let plan: serde_json::Value = serde_json::from_slice(&dry.stdout).unwrap();
        assert_eq!(plan["why"], "older_database", "{plan}");
        assert!(plan["outside"]["entries"].as_u64() > plan["inside"]["entries"].as_u64());
        // Nobody said yes.
        let asked = recover(&[]);
        assert!(!asked.status.success(), "{}", words(&asked));
        assert!(words(&asked).contains("--yes"), "{}", words(&asked));
        assert_eq!(outside(), left);
        assert!(Running::serves(&config, &ops, 503).stop().success());

        let done = recover(&["--yes"]);
        assert!(done.status.success(), "{}", words(&done));
        let again = recover(&["--dry-run"]);
        assert!(words(&again).contains("Nothing to recover"), "{}", words(&again));
        assert!(Running::serves(&config, &ops, 200).stop().success());
    }

    #[test]
    fn a_database_that_is_not_there_is_named_at_once_and_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let (config, _) = configured(dir.path(), &data);
        let made = run(&init(&config));
        assert!(made.status.success(), "{}", words(&made));
        let port = free_port();
        let text = std::fs::read_to_string(&config).unwrap();
        let sqlite = format!("sqlite://{}/postern.db", data.display());
        let postgres = format!("postgres://somebody@127.0.0.1:{port}/houses");
        std::fs::write(&config, text.replace(&sqlite, &postgres)).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let begun = Instant::now();
        let mut command = postern();
        command.env("POSTERN_STORE_PASSWORD", "a-canary-of-a-password");
        let child = command.args(["serve", "--config", &config]).stderr(log).spawn();
        let mut running = Running(child.unwrap());
        let said = || std::fs::read_to_string(dir.path().join("log")).unwrap();
        let target = format!("houses at 127.0.0.1:{port} as somebody");
        while !said().contains(&target) {
            assert!(running.0.try_wait().unwrap().is_none(), "it waits: {}", said());
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", said());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(
            running.0.try_wait().unwrap().is_none(),
            "it tries again: {}",
            said()
        );
        assert!(said().contains("trying again"), "{}", said());
        assert_eq!(running.0.wait().unwrap().code(), Some(1), "{}", said());
        assert!(said().contains("cannot be reached"), "{}", said());
        assert!(!said().contains("canary"), "{}", said());
    }

    #[test]
    fn a_key_that_is_missing_is_named_with_its_place_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let (config, _) = configured(dir.path(), &data);
        assert!(run(&init(&config)).status.success());
        std::fs::remove_file(data.join("kek")).unwrap();
        let refused = words(&run(&["serve", "--config", &config]));
        let kek = data.join("kek").display().to_string();
        assert!(refused.contains(&kek), "{refused}");

        let text = std::fs::read_to_string(&config).unwrap();
        let passphrase = dir.path().join("passphrase");
        std::fs::write(&passphrase, "correct horse battery staple\n").unwrap();
        let file = format!("file = \"{kek}\"");
        let by_passphrase = format!("passphrase_file = \"{}\"", passphrase.display());
        assert!(text.contains(&file));
        std::fs::write(&config, text.replace(&file, &by_passphrase)).unwrap();
        let refused = words(&run(&["serve", "--config", &config]));
        let parameters = data.join("kek.params").display().to_string();
        assert!(refused.contains(&parameters), "{refused}");
        assert!(refused.contains("Copy kek.params"), "{refused}");
        assert!(!refused.contains("horse"), "{refused}");
    }

    #[cfg(feature = "dev")]
    #[test]
    fn what_dev_has_made_is_not_served() {
        use std::io::{BufRead as _, BufReader};

        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let child = postern()
            .args(["dev", "--json", "--port", "0", "--data"])
            .arg(&data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut running = Running(child.unwrap());
        let mut line = String::new();
        let mut output = BufReader::new(running.0.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        assert!(line.contains("admin_key"), "{line}");
        assert!(running.stop().success());
        let (config, _) = configured(dir.path(), &data);
        for arguments in [
            &["serve", "--config", &config][..],
            &init(&config),
            &["recover", "--config", &config],
        ] {
            let refused = run(arguments);
            assert_eq!(refused.status.code(), Some(1), "{}", words(&refused));
            let said = words(&refused);
            assert!(said.contains("made by `postern dev`"), "{arguments:?}: {said}");
        }
    }
}

#[test]
fn the_first_organisation_is_not_made_with_a_name_or_an_address_that_nobody_can_use() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (config, _) = configured(dir.path(), &data);
    for (org, admin) in [
        ("", "ada@acme.example"),
        ("A\u{202e}B", "ada@acme.example"),
        ("Acme", ""),
        ("Acme", "ada"),
        ("Acme", "ada@acme.example\r\nBcc: eve@else.example"),
        ("Acme", "ada@acme.example,eve@else.example"),
    ] {
        let made = run(&["init", "--config", &config, "--org", org, "--admin", admin]);
        assert_eq!(made.status.code(), Some(2), "{org:?} {admin:?}: {}", words(&made));
        assert!(!data.exists(), "something was made");
    }
}

/// A limit on the length of files ends it at its first write, where `kill -9` may: the key's file has a name and nothing in it.
#[test]
fn an_init_that_was_killed_while_it_made_the_key_is_simply_run_again() {
    if REFUSED {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (config, _) = configured(dir.path(), &data);
    let limited = "ulimit -c 0; ulimit -f 0; exec \"$0\" \"$@\"";
    let killed = Command::new("/bin/sh")
        .args(["-c", limited, env!("CARGO_BIN_EXE_postern")])
        .args(init(&config))
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!killed.status.success(), "{}", words(&killed));
    assert!(drafts(&data) > 0, "it had begun");
    let made = run(&init(&config));
    assert!(made.status.success(), "{}", words(&made));
    assert_eq!(drafts(&data), 0);
}

/// How many files that may be a key under another name lie there.
fn drafts(data: &Path) -> usize {
    let names = std::fs::read_dir(data)
        .unwrap()
        .map(|file| file.unwrap().file_name());
    names
        .filter(|name| name.to_string_lossy().ends_with(".unfinished"))
        .count()
}

#[test]
fn an_init_whose_admin_key_nobody_was_shown_makes_no_organisation() {
    if REFUSED {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (config, _) = configured(dir.path(), &dir.path().join("data"));
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let unshown = postern().args(init(&config)).stdout(full).output().unwrap();
    assert_eq!(unshown.status.code(), Some(1), "{}", words(&unshown));
    let made = run(&init(&config));
    assert!(made.status.success(), "{}", words(&made));
    assert!(words(&made).contains("admin_key"), "{}", words(&made));
}

#[test]
fn a_missing_data_directory_is_named_and_not_made() {
    if REFUSED {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (config, _) = configured(dir.path(), &data);
    assert!(run(&init(&config)).status.success());
    std::fs::rename(&data, dir.path().join("elsewhere")).unwrap();
    // Only the directory is missing: database and key are where they are said to be.
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("data/postern.db", "elsewhere/postern.db");
    std::fs::write(&config, text.replace("data/kek", "elsewhere/kek")).unwrap();
    for verb in ["serve", "recover"] {
        let refused = run(&[verb, "--config", &config]);
        assert_eq!(refused.status.code(), Some(1), "{}", words(&refused));
        assert!(
            words(&refused).contains(&format!("the data directory {}", data.display())),
            "{}",
            words(&refused)
        );
        assert!(!data.exists(), "something was made");
    }
}
