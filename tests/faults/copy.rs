//! `postern copy-database` killed with -9 while it copies and while it hands over: run again, it goes on, and the copy is
//! the source.

use std::{
    path::Path,
    process::{Command, Output},
};

use postern::{failpoints::Failpoint, store::Location};
use serde_json::{Value, json};

use crate::{process::Dev, rows::scalar};

mod two_orgs;

/// Runs the program once, with an order for a failpoint if there is one.
/// Without the variables of the test run: the program refuses a `POSTERN_` variable it does not know.
fn postern() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    command.env_clear();
    command
}

fn copy(dir: &Path, from: &Path, to: &Path, order: Option<&str>) -> Output {
    let file = dir.join("order");
    if let Some(order) = order {
        std::fs::write(&file, order).unwrap();
    }
    let ended = postern()
        .args(["copy-database", "--json"])
        .args([from, to])
        .env("POSTERN_FAILPOINT", &file)
        .output()
        .unwrap();
    assert!(!file.exists(), "the place was never reached: {ended:?}");
    ended
}

fn documents(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_killed_after_every_batch_and_while_it_hands_over_is_the_source_in_the_end() {
    let mut dev = Dev::start();
    dev.connect().await;
    for mode in ["execute", "token"] {
        let (status, answer) = dev.read(&json!({"mode": mode})).await;
        assert_eq!(status, 200, "{answer}");
    }
    let dir = dev.kill();
    let from = dir.join("data/postern.db");
    let to = dir.join("copy.db");
    let dry = postern()
        .args(["copy-database", "--dry-run", "--json"])
        .args([&from, &to])
        .output()
        .unwrap();
    assert!(dry.status.success(), "{dry:?}");
    let there_are = documents(&dry)[0]["rows"].as_u64().unwrap();
    assert!(there_are > 20 && !to.exists());

    let kill = format!("{} kill", Failpoint::CopyBatch.as_str());
    let (mut rows, mut place) = (0, Value::Null);
    for _ in 0..12 {
        let killed = copy(dir, &from, &to, Some(&kill));
        assert!(killed.status.code().is_none(), "not killed: {killed:?}");
        let state = state_of(&Location::Sqlite(to.clone())).await;
        let now = state["copying"]["rows"].as_u64().unwrap();
        // A batch of no rows is one as well: it empties what triggers have filled.
        assert!(
            now >= rows && state["copying"]["at"] != place,
            "it began anew: {state}"
        );
        (rows, place) = (now, state["copying"]["at"].clone());
    }
    assert!(rows < there_are, "nothing was left to copy");
    let closing = format!("{} kill", Failpoint::CopySourceClosed.as_str());
    let killed = copy(dir, &from, &to, Some(&closing));
    assert!(!killed.status.success());
    assert!(
        documents(&killed).iter().all(|line| line["event"] == "progress"),
        "{killed:?}"
    );
    // Neither starts now.
    for neither in [&from, &to] {
        let other = dir.join("other.db");
        let refused = copy(dir, neither, &other, None);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    }
    let done = copy(dir, &from, &to, None);
    assert!(done.status.success(), "{done:?}");
    let report = documents(&done).pop().unwrap();
    let rows: u64 = report["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|table| table["rows"].as_u64().unwrap())
        .sum();
    assert_eq!((&report["event"], rows), (&json!("done"), there_are), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_shows_how_far_it_is_on_a_terminal() {
    let mut dev = Dev::start();
    dev.connect().await;
    let dir = dev.kill();
    let (from, to) = (dir.join("data/postern.db"), dir.join("copy.db"));
    let program = env!("CARGO_BIN_EXE_postern");
    let command = format!("{program} copy-database {} {}", from.display(), to.display());
    // A terminal to write to.
    let shown = Command::new("/usr/bin/script")
        .env_clear()
        .args(["-qec", &command, "/dev/null"])
        .output()
        .unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.status.success(), "{text}");
    // Each bar is written over the last one.
    let bars: Vec<(&str, u8)> = text
        .split("\r\x1b[K[")
        .skip(1)
        .map(|bar| {
            let (_bar, says) = bar.split_once("] ").unwrap();
            let (percent, of) = says.split_once(" % ").unwrap();
            (of.split_once(' ').unwrap().0, percent.trim().parse().unwrap())
        })
        .collect();
    for step in ["copying", "comparing"] {
        let percents: Vec<u8> = bars.iter().filter(|bar| bar.0 == step).map(|bar| bar.1).collect();
        assert!(
            percents.len() > 2 && percents.is_sorted() && percents.last() == Some(&100),
            "{step}: {percents:?}"
        );
    }
}

/// How far the target says it has come.
async fn state_of(to: &Location) -> Value {
    let mark = scalar::<String>(to, "SELECT value FROM meta WHERE name = 'copy'").await;
    let mark: Value = serde_json::from_str(&mark.unwrap()).unwrap();
    mark["state"].clone()
}
