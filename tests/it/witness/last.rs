//! The last head that was cosigned is kept, with its cosignature, however fast the log grows.

use std::time::Duration;

use postern::{
    audit::ExportWriter,
    store::{Location, LogRow, StoreError},
};
use serde_json::Value;

use super::{hostile::port_of, *};
use crate::{audit::postern, harness::Answer, progress::served, sealed::put_back};

async fn asked(world: &World) -> Answer {
    let path = "/v1/audit/checkpoint?cosigned=true";
    world.api().get(&world.as_admin(), path).await
}

/// The last head that was cosigned.
pub(super) async fn kept(world: &World) -> String {
    let answer = asked(world).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let note = answer.text();
    assert_eq!(key().cosigned(&note), Ok(Some(1_800_000_000)));
    note
}

/// The log has more, and a head that nobody has cosigned.
pub(super) async fn grows(world: &World, grant: GrantId) {
    world.vend(world.read(grant)).await.unwrap();
    signed(world).await;
    assert_eq!(key().cosigned(&note(world).await), Ok(None));
}

fn size_of(note: &str) -> u64 {
    Checkpoint::read_unverified(note).unwrap().size
}

/// What the log holds up to this head is what the witness has cosigned.
async fn holds_up_to(world: &World, head: &str) {
    let log: VerifierKey = audit::verifier_key(&world.deps, world.org)
        .unwrap()
        .parse()
        .unwrap();
    let mut writer = ExportWriter::begin(Vec::new(), log.name()).unwrap();
    let page = audit::log_page(&world.deps, world.org, 0, size_of(head)).await;
    for (_, entry) in page.unwrap() {
        writer.entry(entry.as_bytes()).unwrap();
    }
    let export = writer.finish(head).unwrap();
    let report = verify_witnessed(export.as_slice(), &log, None, Some(&key())).unwrap();
    assert!(report.verified, "{report:?}");
}

#[tokio::test]
async fn a_busy_log_is_exported_up_to_the_last_head_that_was_cosigned() {
    let (server, world, grant) = started().await;
    witness::round(&world.deps, &server.port()).await.unwrap();
    let head = kept(&world).await;
    grows(&world, grant).await;
    assert_eq!(kept(&world).await, head);
    let (url, dir) = (served(&world).await, tempfile::tempdir().unwrap());
    let (log, witness) = (audit::verifier_key(&world.deps, world.org).unwrap(), vkey());
    for (option, holds) in [(None, false), (Some("--cosigned"), true)] {
        let file = dir.path().join(format!("{holds}.jsonl"));
        let file = file.to_str().unwrap();
        let mut exporting = vec!["--url", &url, "audit", "export", "--out", file];
        exporting.extend(option);
        let done = postern(&world, &exporting).await;
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let verifying = ["audit", "verify", file, "--public-key", &log, "--json"];
        let verifying = [&verifying[..], &["--witness-key", witness.as_str()]].concat();
        let verified = postern(&world, &verifying).await;
        let report: Value = serde_json::from_slice(&verified.stdout).unwrap();
        assert_eq!(report["verified"], holds, "{report}");
    }
}

#[tokio::test]
async fn without_a_cosignature_there_is_no_such_head_and_no_such_export() {
    let (_server, world, _) = started().await;
    let answer = asked(&world).await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"));
    let (url, dir) = (served(&world).await, tempfile::tempdir().unwrap());
    let file = dir.path().join("log.jsonl");
    let exporting = ["--url", &url, "audit", "export", "--cosigned", "--out"];
    let exporting = [&exporting[..], &[file.to_str().unwrap()]].concat();
    let done = postern(&world, &exporting).await;
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(
        said.contains("no head of this log has been cosigned yet"),
        "{said}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// The witness, of a log that grows while it is asked.
async fn asked_while_the_log_grows(server: &Arc<Witness>, world: &World) -> Port {
    let (server, deps, org) = (Arc::clone(server), Arc::clone(&world.deps), world.org);
    let add = move |body: String| {
        let (server, deps) = (Arc::clone(&server), Arc::clone(&deps));
        async move {
            sequence::run(&deps, org).await.unwrap();
            Witness::add(State(server), body).await
        }
    };
    port_of(Router::new().route("/add-checkpoint", post(add))).await
}

#[tokio::test]
async fn a_head_that_is_not_the_newest_by_the_time_its_cosignature_comes_is_kept() {
    let (server, world, grant) = started().await;
    let port = asked_while_the_log_grows(&server, &world).await;
    for _ in 0..3 {
        // What waits gets its place while the witness is asked.
        world.vend(world.read(grant)).await.unwrap();
        assert_eq!(witness::round(&world.deps, &port).await.unwrap(), 1);
        let head = kept(&world).await;
        assert_eq!(size_of(&head), server.size());
        assert!(size_of(&note(&world).await) > server.size());
        assert_eq!(key().cosigned(&note(&world).await), Ok(None));
        holds_up_to(&world, &head).await;
    }
}

#[tokio::test]
async fn neither_an_older_head_that_comes_late_is_kept_nor_one_beyond_the_log() {
    let (server, world, grant) = started().await;
    witness::round(&world.deps, &server.port()).await.unwrap();
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    let older = tx.log_head(world.org).await.unwrap().unwrap();
    drop(tx);
    grows(&world, grant).await;
    witness::round(&world.deps, &server.port()).await.unwrap();
    let newest = kept(&world).await;
    let beyond = LogRow {
        size: older.size + 1_000,
        ..older.clone()
    };
    for late in [older, beyond] {
        let done = world.deps.store.retry(|| async {
            let mut tx = world.deps.store.write(world.org).await?;
            let done = tx.keep_cosigned(world.org, &late, &late.checkpoint).await?;
            tx.commit().await?;
            Ok::<_, StoreError>(done)
        });
        assert!(!done.await.unwrap());
        assert_eq!(kept(&world).await, newest);
    }
}

#[tokio::test]
async fn what_is_kept_outlives_a_restart_and_goes_where_the_database_goes() {
    let (server, world, grant) = started().await;
    witness::round(&world.deps, &server.port()).await.unwrap();
    grows(&world, grant).await;
    let head = kept(&world).await;
    let world = world.restarted().await;
    assert_eq!(kept(&world).await, head);
    // Whoever dies without a word has its name a little longer.
    world.later(Duration::from_secs(60));
    let there = Location::Sqlite(world.dir.path().join("there.db"));
    let (world, _) = world.moved_to(there).await;
    assert_eq!(kept(&world).await, head);
    holds_up_to(&world, &head).await;
    signed(&world).await;
    assert_eq!(witness::round(&world.deps, &server.port()).await.unwrap(), 1);
    assert!(size_of(&kept(&world).await) > size_of(&head));
}

#[tokio::test]
async fn a_database_put_back_has_the_head_it_had_cosigned_also_after_the_recovery() {
    let (server, world, grant) = started().await;
    witness::round(&world.deps, &server.port()).await.unwrap();
    let (head, copy) = (kept(&world).await, copied(&world).await);
    grows(&world, grant).await;
    witness::round(&world.deps, &server.port()).await.unwrap();
    assert_ne!(kept(&world).await, head);
    let world = put_back(world, &copy).await;
    assert!(world.deps.store.is_sealed(world.org));
    assert_eq!(kept(&world).await, head);
    let plans = plans(&world, Vouch::No).await;
    recover::run(&world.deps, &plans[0], "test").await.unwrap();
    let newest = audit::checkpoint(&world.deps, world.org).await.unwrap();
    assert!(size_of(&newest) > size_of(&head));
    let kept = audit::cosigned_checkpoint(&world.deps, world.org).await;
    assert_eq!(kept.unwrap(), head);
    holds_up_to(&world, &head).await;
}
