//! `audit export`, over a server that answers with a log from the test corpus.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::*;
use crate::audit::encoding::leaf_hash;

/// A log as the API shows it: its checkpoint, and pages of two entries.
fn log_of(fixture: &str) -> impl Fn(&str) -> Response + Clone + Send + Sync + 'static {
    let lines: Vec<Value> = fixture
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let note = lines.last().unwrap()["checkpoint"].as_str().unwrap().to_owned();
    let entries: Vec<String> = lines
        .iter()
        .filter_map(|line| line.get("entry"))
        .map(|entry| String::from_utf8(crate::crypto::jcs::canonicalize(entry).unwrap()).unwrap())
        .collect();
    move |path: &str| {
        if path == "/v1/audit/checkpoint" {
            return note.clone().into_response();
        }
        let start: usize = path
            .split("start=")
            .nth(1)
            .unwrap()
            .split('&')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let page: Vec<Value> = entries
            .iter()
            .enumerate()
            .skip(start)
            .take(2)
            .map(|(index, entry)| json!({"index": index, "entry": entry}))
            .collect();
        ok(json!({"entries": page}))("")
    }
}

#[tokio::test]
async fn an_export_verifies_and_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("x.jsonl");
    let line = ["audit", "export", "--out", out.to_str().unwrap()];
    let answer = log_of(include_str!("../../../tests/vectors/audit_export.jsonl"));
    assert_eq!(ran(&line, &KEY, answer.clone()).await.exit, 0);
    assert_eq!(
        std::fs::read_to_string(&out).unwrap(),
        include_str!("../../../tests/vectors/audit_export.jsonl")
    );
    assert_eq!(ran(&line, &KEY, answer).await.exit, 1);
}

#[tokio::test]
async fn an_export_of_a_page_that_holds_no_entry_fails() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("x.jsonl");
    let log = log_of(include_str!("../../../tests/vectors/audit_export.jsonl"));
    let answer = move |path: &str| match path {
        "/v1/audit/checkpoint" => log(path),
        _ => ok(json!({"entries": [{"index": 0}, {"index": 1}]}))(""),
    };
    let run = ran(&["audit", "export", "--out", out.to_str().unwrap()], &KEY, answer).await;
    assert_eq!(run.exit, 1);
    assert!(run.messages.contains("no entry"), "{}", run.messages);
}

#[tokio::test]
async fn an_interrupted_export_is_begun_anew_and_no_file_of_somebody_elses_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("x.jsonl");
    let unfinished = folder.path().join("x.jsonl.unfinished");
    let line = ["audit", "export", "--out", out.to_str().unwrap()];
    let whole = include_str!("../../../tests/vectors/audit_export.jsonl");
    let log = log_of(whole);
    let breaks = {
        let log = log.clone();
        move |path: &str| match path {
            "/v1/audit/log?start=2&limit=500" => StatusCode::BAD_GATEWAY.into_response(),
            path => log(path),
        }
    };
    let run = ran(&line, &KEY, breaks).await;
    assert_eq!(run.exit, 1, "{}", run.messages);
    assert!(!out.exists(), "what is not whole does not bear its name");
    // Killed, it leaves what was written so far, whose last line may be cut.
    std::fs::write(&unfinished, whole.as_bytes().split_at(whole.len() / 2).0).unwrap();
    let run = ran(&line, &KEY, log.clone()).await;
    assert_eq!(run.exit, 0, "{}", run.messages);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), whole);
    assert!(!unfinished.exists());

    std::fs::remove_file(&out).unwrap();
    std::fs::write(&unfinished, "my notes").unwrap();
    let run = ran(&line, &KEY, log).await;
    assert_eq!(run.exit, 1);
    assert!(run.messages.contains("x.jsonl.unfinished"), "{}", run.messages);
    assert_eq!(std::fs::read_to_string(&unfinished).unwrap(), "my notes");
    assert!(!out.exists());
}

/// What the tiles say was signed, beside what the database holds: an entry of another hash, and one that is not there.
#[tokio::test]
async fn an_export_names_entries_that_are_not_as_signed_and_those_that_are_missing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("x.jsonl");
    let whole = include_str!("../../../tests/vectors/audit_export.jsonl");
    let entries: Vec<Value> = whole
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line.get("entry").is_some())
        .map(|line| {
            let text = String::from_utf8(crate::crypto::jcs::canonicalize(&line["entry"]).unwrap()).unwrap();
            json!({"entry": text, "leaf": STANDARD.encode(leaf_hash(text.as_bytes()))})
        })
        .collect();
    assert!(entries.len() > 4);
    let (log, count) = (log_of(whole), entries.len());
    let answer = move |path: &str| {
        if path == "/v1/audit/checkpoint" {
            return log(path);
        }
        if path.contains(&format!("start={}&", count - 2)) {
            return ok(json!({"entries": []}))("");
        }
        let mut entries = entries.clone();
        for (index, entry) in entries.iter_mut().enumerate() {
            entry["index"] = json!(index);
        }
        entries[1]["leaf"] = entries[0]["leaf"].clone();
        // The last two are gone, and one before.
        entries.truncate(count - 2);
        entries.remove(3);
        ok(json!({"entries": entries}))("")
    };
    let run = ran(&["audit", "export", "--out", out.to_str().unwrap()], &KEY, answer).await;
    assert_eq!(run.exit, 1, "{}", run.messages);
    let says = format!(
        "the database holds other entries than were signed, at index 1; it lacks entries that were signed, at index 3, {} to {}",
        count - 2,
        count - 1
    );
    assert!(run.messages.contains(&says), "{}", run.messages);
    // It is evidence: all that is there, once.
    let kept = std::fs::read_to_string(&out).unwrap();
    assert_eq!(kept.lines().count(), whole.lines().count() - 3);
}

/// An export that was killed between its two names bears both: what is done to the one is done to the other.
#[tokio::test]
async fn a_whole_export_is_not_begun_anew_under_its_other_name() {
    let folder = tempfile::tempdir().unwrap();
    let (out, kept) = (folder.path().join("x.jsonl"), folder.path().join("kept.jsonl"));
    let unfinished = folder.path().join("x.jsonl.unfinished");
    let line = ["audit", "export", "--out", out.to_str().unwrap()];
    let whole = include_str!("../../../tests/vectors/audit_export.jsonl");
    std::fs::write(&unfinished, whole).unwrap();
    std::fs::hard_link(&unfinished, &kept).unwrap();
    let log = log_of(whole);
    let breaks = {
        let log = log.clone();
        move |path: &str| match path {
            path if path.starts_with("/v1/audit/log") => StatusCode::BAD_GATEWAY.into_response(),
            path => log(path),
        }
    };
    let run = ran(&line, &KEY, breaks).await;
    assert_eq!(run.exit, 1, "{}", run.messages);
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), whole);
    let run = ran(&line, &KEY, log).await;
    assert_eq!(run.exit, 0, "{}", run.messages);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), whole);
    assert!(!unfinished.exists());
}

/// A pipe would be waited for without an end, and a link would make a file somewhere else.
#[tokio::test]
async fn what_is_no_plain_file_is_not_begun_as_an_export() {
    let folder = tempfile::tempdir().unwrap();
    let whole = include_str!("../../../tests/vectors/audit_export.jsonl");
    let elsewhere = folder.path().join("elsewhere");
    let make = |name: &str, path: &std::path::Path| match name {
        "link" => std::os::unix::fs::symlink(&elsewhere, path).unwrap(),
        "folder" => std::fs::create_dir(path).unwrap(),
        _ => {
            let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
            assert!(made.success());
        }
    };
    for name in ["link", "folder", "pipe"] {
        let out = folder.path().join(name);
        let unfinished = folder.path().join(format!("{name}.unfinished"));
        make(name, &unfinished);
        let line = ["audit", "export", "--out", out.to_str().unwrap()];
        let run = ran(&line, &KEY, log_of(whole)).await;
        assert_eq!(run.exit, 1, "{name}: {}", run.messages);
        let says = format!("{name}.unfinished: not a plain file; move it away");
        assert!(run.messages.contains(&says), "{name}: {}", run.messages);
        assert!(unfinished.symlink_metadata().is_ok() && !out.exists(), "{name}");
    }
    assert!(!elsewhere.exists(), "a link was followed");
}
