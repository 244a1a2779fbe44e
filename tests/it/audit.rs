//! I6: every release has an entry, the export verifies offline, and surgery on rows is found.

use std::process::{Command, Output};

use postern::{
    audit::{ExportWriter, VerifierKey, verify},
    domain::entry::{Entry, EntryType},
    flows::{audit, sequence},
    store::Selector,
};
use serde_json::Value;

use super::{
    harness::{World, database, log_in},
    progress::served,
};

pub async fn export(world: &World) -> (Vec<u8>, VerifierKey) {
    let note = audit::checkpoint(&world.deps, world.org).await.unwrap();
    let key: VerifierKey = audit::verifier_key(&world.deps, world.org)
        .unwrap()
        .parse()
        .unwrap();
    let mut writer = ExportWriter::begin(Vec::new(), key.name()).unwrap();
    for (_, entry) in audit::log_page(&world.deps, world.org, 0, 10_000).await.unwrap() {
        writer.entry(entry.as_bytes()).unwrap();
    }
    (writer.finish(&note).unwrap(), key)
}

/// Whether the org's log, exported as it is now, holds.
pub async fn verifies(world: &World) -> bool {
    let (bytes, key) = export(world).await;
    let report = verify(bytes.as_slice(), &key, None).unwrap();
    assert!(report.verified, "{report:?}");
    report.verified
}

#[tokio::test]
async fn an_export_of_a_real_run_verifies_with_the_public_key_alone() {
    let (world, grant) = World::connected().await;
    world.vend(world.read(grant)).await.unwrap();
    let (bytes, key) = export(&world).await;
    let report = verify(bytes.as_slice(), &key, None).unwrap();
    assert!(report.verified, "{report:?}");
}

#[tokio::test]
async fn every_kind_of_act_leaves_its_entry() {
    let (world, grant) = World::connected().await;
    world.vend(world.read(grant)).await.unwrap();
    let kinds: Vec<EntryType> = world
        .entries()
        .await
        .into_iter()
        .map(|entry| entry.kind)
        .collect();
    for kind in [
        EntryType::Admin,
        EntryType::Connect,
        EntryType::Release,
        EntryType::Outcome,
    ] {
        assert!(kinds.contains(&kind), "{kind:?} is missing");
    }
}

#[tokio::test]
async fn the_arguments_are_sealed_and_the_entry_holds_only_a_salted_hash() {
    let (world, grant) = World::connected().await;
    let marked = serde_json::json!({"q": "canary-in-the-arguments"});
    world
        .vend(super::harness::ask(grant, "messages.list", marked))
        .await
        .unwrap();
    let (bytes, _) = export(&world).await;
    assert!(
        !String::from_utf8(bytes)
            .unwrap()
            .contains("canary-in-the-arguments")
    );
    for (place, bytes) in database::contents(&world.location).await {
        assert!(
            !bytes
                .windows(23)
                .any(|window| window == b"canary-in-the-arguments"),
            "{place}"
        );
    }
}

/// What the verifier says of the log as the database has it now.
async fn findings(world: &World) -> Vec<postern::audit::Finding> {
    let (bytes, key) = export(world).await;
    verify(bytes.as_slice(), &key, None).unwrap().findings
}

async fn with_a_signed_log() -> World {
    let (world, grant) = World::connected().await;
    world.vend(world.read(grant)).await.unwrap();
    assert!(findings(&world).await.is_empty());
    world
}

#[tokio::test]
async fn two_rows_of_the_log_that_were_swapped_are_found_and_named() {
    let world = with_a_signed_log().await;
    for sql in [
        "UPDATE leaves SET log_index = -1 WHERE log_index = 1",
        "UPDATE leaves SET log_index = 1 WHERE log_index = 2",
        "UPDATE leaves SET log_index = 2 WHERE log_index = -1",
    ] {
        world.raw_sql(sql).await;
    }
    let checked = Checked::of(&world).await;
    checked.exporting_names("holds other entries than were signed, at index 1, 2");
    checked.verifying_names(|at| at["index"] == 1);
}

/// What an admin learns of the log as the database has it now: by the program, as anybody runs it.
struct Checked {
    /// Of `postern audit export`: how it ended, and what it said.
    exported: (Option<i32>, String),
    /// Of `postern audit verify` over what was written all the same.
    report: Value,
}

impl Checked {
    async fn of(world: &World) -> Self {
        let (url, dir) = (served(world).await, tempfile::tempdir().unwrap());
        let file = dir.path().join("log.jsonl");
        let file = file.to_str().unwrap();
        let exporting = ["--url", &url, "audit", "export", "--out", file];
        let exported = postern(world, &exporting).await;
        let key = audit::verifier_key(&world.deps, world.org).unwrap();
        let verified = postern(world, &["audit", "verify", file, "--public-key", &key, "--json"]).await;
        let report: Value = serde_json::from_slice(&verified.stdout).unwrap();
        let ended = i32::from(report["verified"] != true);
        assert_eq!(verified.status.code(), Some(ended), "{report}");
        let said = String::from_utf8(exported.stderr).unwrap();
        Self {
            exported: (exported.status.code(), said),
            report,
        }
    }

    /// The export fails and says where the database is not what was signed.
    fn exporting_names(&self, places: &str) {
        let (ended, said) = &self.exported;
        assert_eq!(*ended, Some(1), "{said}");
        // Nothing follows: these places and no others.
        assert!(said.lines().any(|line| line.ends_with(places)), "{said}");
    }

    /// The verifier, who has the file alone, finds something at such a place.
    fn verifying_names(&self, is_there: impl Fn(&Value) -> bool) {
        let found = self.report["findings"].as_array().unwrap();
        assert!(
            found.iter().any(|finding| is_there(&finding["at"])),
            "{}",
            self.report
        );
    }
}

/// Runs the program with the admin's key.
pub async fn postern(world: &World, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    command
        .env_clear()
        .env("POSTERN_API_KEY", &world.admin_key)
        .args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output());
    output.await.unwrap().unwrap()
}

#[tokio::test]
async fn a_log_as_it_was_signed_is_exported_without_a_word_of_warning_and_verifies() {
    let checked = Checked::of(&with_a_signed_log().await).await;
    assert_eq!(checked.exported.0, Some(0), "{}", checked.exported.1);
    assert_eq!(checked.report["verified"], true, "{}", checked.report);
}

#[tokio::test]
async fn a_row_that_was_changed_is_found_and_named() {
    let world = with_a_signed_log().await;
    let log = audit::log_page(&world.deps, world.org, 0, 500).await.unwrap();
    let is_release = |text: &str| serde_json::from_str::<Entry>(text).unwrap().kind == EntryType::Release;
    let releases: Vec<u64> = log
        .iter()
        .filter(|(_, entry)| is_release(entry))
        .map(|(index, _)| *index)
        .collect();
    world
        .raw_sql("UPDATE entries SET bytes = replace(bytes, '\"outcome\":\"allow\"', '\"outcome\":\"deny\"') WHERE kind = 'release'")
        .await;
    let [release] = releases[..] else {
        panic!("{releases:?}")
    };
    let checked = Checked::of(&world).await;
    checked.exporting_names(&format!(
        "holds other entries than were signed, at index {release}"
    ));
    // Its writer's next entry names the hash it had.
    checked.verifying_names(|at| at["writer"].is_string() && at["index"].is_u64());
}

/// They fit every chain, being of two writers: the root alone betrays them, and the tiles name them.
#[tokio::test]
async fn the_contents_of_two_rows_that_were_swapped_are_found_and_named() {
    let world = with_a_signed_log().await;
    swap_two_rows(&world).await;
    let checked = Checked::of(&world).await;
    checked.exporting_names("holds other entries than were signed, at index 2, 3");
    assert_eq!(checked.report["verified"], false, "{}", checked.report);
}

async fn swap_two_rows(world: &World) {
    world
        .raw_sql(
            "WITH before AS MATERIALIZED (SELECT l.log_index AS place, e.bytes FROM entries e
               JOIN leaves l ON l.entry_id = e.id WHERE l.log_index IN (2, 3))
             UPDATE entries SET bytes = (SELECT before.bytes FROM before
               WHERE before.place = 5 - (SELECT log_index FROM leaves WHERE entry_id = entries.id))
             WHERE id IN (SELECT entry_id FROM leaves WHERE log_index IN (2, 3))",
        )
        .await;
}

#[tokio::test]
async fn a_row_deleted_from_the_database_is_found_and_its_writer_named() {
    let world = with_a_signed_log().await;
    world
        .raw_sql("DELETE FROM entries WHERE id = (SELECT entry_id FROM leaves WHERE log_index = 2)")
        .await;
    let checked = Checked::of(&world).await;
    checked.exporting_names("lacks entries that were signed, at index 2");
    checked.verifying_names(|at| at["writer"].is_string());
    // The page has a hole where it stood.
    let page = world.api().get(&world.as_admin(), "/v1/audit/log").await.json();
    let entries = page["entries"].as_array().unwrap().iter();
    assert!(entries.clone().all(|one| one["index"] != 2) && entries.len() > 3);
}

#[tokio::test]
async fn a_row_changed_before_it_has_its_place_never_gets_one() {
    let (world, grant) = World::connected().await;
    let before = audit::checkpoint(&world.deps, world.org).await.unwrap();
    world.vend(world.read(grant)).await.unwrap();
    world
        .raw_sql("UPDATE entries SET bytes = replace(bytes, '\"outcome\":\"allow\"', '\"outcome\":\"deny\"') WHERE kind = 'release'")
        .await;
    // The outcome's entry names the hash the release had when it was written.
    stays(&world, &before).await;
}

/// The log does not grow any more. What was signed before is still shown and proved.
async fn stays(world: &World, signed: &str) {
    assert!(sequence::run(&world.deps, world.org).await.is_err());
    assert_eq!(audit::checkpoint(&world.deps, world.org).await.unwrap(), signed);
    let (_, first) = audit::log_page(&world.deps, world.org, 0, 1)
        .await
        .unwrap()
        .remove(0);
    let first: Entry = serde_json::from_str(&first).unwrap();
    let proof = audit::inclusion(&world.deps, world.org, first.id).await.unwrap();
    assert_eq!(proof.checkpoint, signed);
}

/// Nothing builds on a writer's last entry yet: only its writer's row says that it is there, and what it was.
#[tokio::test]
async fn a_last_entry_that_is_changed_or_deleted_while_it_waits_stops_the_log() {
    for spoil in [
        "UPDATE entries SET bytes = replace(bytes, '\"type\":\"revoke\"', '\"type\":\"refresh\"') WHERE kind = 'revoke'",
        "DELETE FROM entries WHERE kind = 'revoke'",
    ] {
        let (world, grant) = World::connected().await;
        let before = audit::checkpoint(&world.deps, world.org).await.unwrap();
        world.revoke(Selector::Grant(grant)).await;
        world.raw_sql(spoil).await;
        stays(&world, &before).await;
    }
}

/// Tiles that are gone are made anew from the rows, but only from those that were signed.
#[tokio::test]
async fn tiles_are_not_made_anew_from_rows_that_were_swapped() {
    let world = with_a_signed_log().await;
    let before = audit::checkpoint(&world.deps, world.org).await.unwrap();
    swap_two_rows(&world).await;
    let tile = async || {
        let answer = world
            .api()
            .get(&world.as_admin(), "/v1/audit/tile/0/000.p/1")
            .await;
        answer.status
    };
    assert_eq!(tile().await, 200);
    world.raw_sql("DELETE FROM tiles").await;
    log_in(&world.deps, world.org, world.ada).await;
    assert!(sequence::run(&world.deps, world.org).await.is_err());
    assert_eq!(audit::checkpoint(&world.deps, world.org).await.unwrap(), before);
    assert_eq!(tile().await, 404);
}
