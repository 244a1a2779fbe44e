//! The same over its last steps, with two orgs: each begins its new epoch once, wherever the copy is killed between them.

use std::{
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use postern::{
    app,
    crypto::lookup::show_api_key,
    failpoints::Failpoint,
    flows::found::{self, Founded},
    store::Location,
};
use serde_json::{Value, json};

use crate::{
    database,
    provider::Rotation,
    rotation::{goes_on, settled},
    served::{Setup, parts_of},
    server::Server,
};

use super::{copy, documents, postern, state_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_two_orgs_killed_between_them_goes_on_and_serves_in_a_file() {
    let server = Server::connected_over_sqlite(Rotation::Grace).await;
    let to = Location::Sqlite(server.dir().join("there.db"));
    killed_and_gone_on(server, to, "sqlite_to_sqlite").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_two_orgs_killed_between_them_goes_on_and_serves_on_postgresql() {
    let server = Server::connected_over_sqlite(Rotation::Grace).await;
    let to = database::postgres(server.dir()).await;
    killed_and_gone_on(server, to, "sqlite_to_postgres").await;
}

async fn killed_and_gone_on(mut server: Server, to: Location, said: &str) {
    let (status, answer) = server.read().await.unwrap();
    assert_eq!(status, 200, "{answer}");
    server.kill();
    let second = with_a_second(&server).await;
    let dir = server.dir().to_owned();
    let (from, target) = (named(&server.location), named(&to));
    let dry = postern()
        .args(["copy-database", "--dry-run", "--json"])
        .args([&from, &target])
        .output()
        .unwrap();
    assert!(dry.status.success(), "{dry:?}");
    let there_are = documents(&dry)[0]["rows"].as_u64().unwrap();

    let mut after = Vec::new();
    for place in [
        Failpoint::CopySourceClosed,
        Failpoint::CopyEpochBegun,
        Failpoint::CopyEpochBegun,
        Failpoint::CopyOpening,
    ] {
        let killed = copy(&dir, &from, &target, Some(&format!("{} kill", place.as_str())));
        assert!(killed.status.code().is_none(), "not killed: {killed:?}");
        let told = documents(&killed);
        assert!(
            told.iter().all(|line| line["event"] == "progress"),
            "{place:?}: {told:?}"
        );
        let state = state_of(&to).await;
        assert!(state["finishing"].is_object(), "{place:?}: {state}");
        after.push(state["finishing"]["after"].clone());
        // Neither starts now.
        for neither in [&from, &target] {
            let refused = copy(&dir, neither, &dir.join("other.db"), None);
            assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        }
    }
    // Orgs come in the order of their ids, which is that of their founding.
    let second_org = json!(second.org);
    let first_org = after[1].clone();
    assert!(first_org.is_string() && first_org != second_org, "{after:?}");
    assert_eq!(
        after,
        [Value::Null, first_org, second_org.clone(), second_org],
        "each run goes on behind the org that was the last one's"
    );

    for was_complete in [false, true] {
        let done = copy(&dir, &from, &target, None);
        assert!(done.status.success(), "{done:?}");
        let report = documents(&done).pop().unwrap();
        let tables = report["tables"].as_array().unwrap();
        let rows: u64 = tables.iter().map(|table| table["rows"].as_u64().unwrap()).sum();
        assert_eq!(
            (&report["event"], &report["orgs"], &report["was_complete"], rows),
            (&json!("done"), &json!(2), &json!(was_complete), there_are),
            "{report}"
        );
    }

    server.set_up(|setup| setup.over(&to));
    server.location = to;
    server.start_again().await;
    let (status, answer) = settled(&server, said).await;
    assert_eq!(status, 200, "{answer}");
    goes_on(&server, said).await;
    for key in [server.admin_key(), &show_api_key(&second.admin_key)] {
        let copies = copies_in_the_log(&server, key).await;
        assert_eq!(copies, [json!(said)], "each org is told once");
    }
}

/// Founds a second org over a server's database while it is down: no API founds one.
async fn with_a_second(server: &Server) -> Founded {
    let dir = server.dir();
    let deps = app::open(parts_of(dir, &Setup::read(dir))).await.unwrap();
    let founded = found::found(&deps, "Second", "eve@second.example").await.unwrap();
    deps.store.close().await;
    founded
}

/// What an operator calls it.
fn named(location: &Location) -> PathBuf {
    match location {
        Location::Sqlite(path) => path.clone(),
        Location::Postgres(settings) => settings.url.clone().into(),
    }
}

/// What an org's log says of copies, once it is that far: exported, and verified as an auditor would.
async fn copies_in_the_log(server: &Server, key: &str) -> Vec<Value> {
    let (out, public) = (server.dir().join("out.jsonl"), server.dir().join("out.vkey"));
    std::fs::write(&public, audit(server, key, &["key"]).stdout).unwrap();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        // Postern never writes over an export.
        let _old = std::fs::remove_file(&out);
        let exported = audit(server, key, &["export", "--out", text(&out)]);
        if !exported.status.success() {
            // Nothing may be signed yet.
            continue;
        }
        let verified = audit(
            server,
            key,
            &["verify", text(&out), "--public-key", text(&public)],
        );
        assert!(verified.status.success(), "{verified:?}");
        let lines = std::fs::read_to_string(&out).unwrap();
        let copies: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["entry"].clone())
            .filter(|entry| entry["outcome"] == "copied")
            .map(|entry| entry["reason"].clone())
            .collect();
        if !copies.is_empty() {
            return copies;
        }
    }
    panic!("the log says nothing of a copy");
}

/// A verb of Postern about the log, as an org's admin.
fn audit(server: &Server, key: &str, arguments: &[&str]) -> Output {
    postern()
        .arg("audit")
        .args(arguments)
        .env("POSTERN_URL", &server.url)
        .env("POSTERN_API_KEY", key)
        .output()
        .unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
