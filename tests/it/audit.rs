//! I6: every release has an entry, the export verifies offline, and surgery on rows is found.

use postern::{
    audit::{ExportWriter, VerifierKey, verify},
    domain::entry::EntryType,
    flows::audit,
};

use super::harness::{World, database};

async fn export(world: &World) -> (Vec<u8>, VerifierKey) {
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
async fn a_changed_row_in_the_database_is_found() {
    let (world, grant) = World::connected().await;
    world.vend(world.read(grant)).await.unwrap();
    let (bytes, key) = export(&world).await;
    let text = String::from_utf8(bytes).unwrap();
    let forged = text.replacen(
        "\\\"outcome\\\":\\\"allow\\\"",
        "\\\"outcome\\\":\\\"deny!\\\"",
        1,
    );
    let forged = if forged == text {
        text.replacen("\"outcome\":\"allow\"", "\"outcome\":\"deny!\"", 1)
    } else {
        forged
    };
    assert_ne!(forged, text);
    assert!(!verify(forged.as_bytes(), &key, None).unwrap().verified);
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
