//! The signed log over the API: tiles, proofs checked by another implementation, and when checkpoints are made.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use postern::{
    audit::{Checkpoint, encoding::leaf_hash},
    crypto::digest::sha256,
    domain::{
        GrantId, OrgId,
        connector::Category,
        entry::{EntryDraft, EntryType},
    },
    flows::{audit, found, record, recover, seal, sequence},
    workers::Workers,
};

use super::harness::{Answer, World};

/// RFC 9162 §2.1.1, word for word.
fn mth(leaves: &[[u8; 32]]) -> [u8; 32] {
    match leaves {
        [] => sha256(b""),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            sha256(&[&[1_u8][..], &mth(left), &mth(right)].concat())
        }
    }
}

async fn with_entries(count: usize) -> World {
    let (world, grant) = World::connected().await;
    filled(world, grant, count).await
}

async fn filled(world: World, grant: GrantId, count: usize) -> World {
    for _ in 0..count {
        world.vend(world.read(grant)).await.unwrap();
    }
    world
}

async fn signed(world: &World) -> (String, Checkpoint) {
    let note = world.api().get(&world.as_admin(), "/v1/audit/checkpoint").await;
    assert_eq!(note.status, 200, "{}", note.text());
    let checkpoint = Checkpoint::read_unverified(&note.text()).unwrap();
    (note.text(), checkpoint)
}

async fn tile(world: &World, path: &str) -> Answer {
    world
        .api()
        .get(&world.as_admin(), &format!("/v1/audit/tile/{path}"))
        .await
}

#[tokio::test]
async fn a_monitor_rebuilds_the_log_from_its_tiles_and_bundles_alone() {
    let world = with_entries(3).await;
    let (_, checkpoint) = signed(&world).await;
    let hashes = tile(&world, &format!("0/000.p/{}", checkpoint.size)).await;
    let entries = tile(&world, &format!("entries/000.p/{}", checkpoint.size)).await;
    for answer in [&hashes, &entries] {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.headers["content-type"], "application/octet-stream");
        assert_eq!(
            answer.headers["cache-control"],
            "private, max-age=31536000, immutable"
        );
    }
    let leaves: Vec<[u8; 32]> = hashes
        .body
        .chunks(32)
        .map(|hash| hash.try_into().unwrap())
        .collect();
    let mut rest = entries.body.as_slice();
    let mut of_entries = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let (entry, behind) = behind.split_at(usize::from(u16::from_be_bytes(*length)));
        of_entries.push(leaf_hash(entry));
        rest = behind;
    }
    assert_eq!(leaves, of_entries);
    assert_eq!(mth(&leaves), checkpoint.root);
}

#[tokio::test]
async fn a_log_of_several_tiles_serves_full_ones_and_their_parents() {
    let world = with_entries(140).await;
    let (_, checkpoint) = signed(&world).await;
    assert!((257..512).contains(&checkpoint.size), "{}", checkpoint.size);
    let full = tile(&world, "0/000").await;
    assert_eq!((full.status, full.body.len()), (200, 256 * 32));
    let rest = tile(&world, &format!("0/001.p/{}", checkpoint.size - 256)).await;
    let leaves: Vec<[u8; 32]> = [full.body, rest.body]
        .concat()
        .chunks(32)
        .map(|hash| hash.try_into().unwrap())
        .collect();
    assert_eq!(mth(&leaves), checkpoint.root);
    let parent = tile(&world, "1/000.p/1").await;
    assert_eq!(parent.body, mth(&leaves[..256]));
    assert_eq!(tile(&world, "entries/000").await.status, 200);
}

#[tokio::test]
async fn a_tile_that_is_not_there_yet_and_a_path_that_names_none_are_not_found() {
    let world = with_entries(1).await;
    let (_, checkpoint) = signed(&world).await;
    let wider = checkpoint.size + 1;
    for path in [
        "0/000",
        "1/000",
        "0/001.p/1",
        "entries/000",
        "0/0",
        "9/000",
        "entries/001",
        "0/000.p/0",
        &format!("0/000.p/{wider}"),
        &format!("entries/000.p/{wider}"),
    ] {
        assert_eq!(tile(&world, path).await.status, 404, "{path}");
    }
}

/// Runs the Python verifier on an answer and says how it ended.
fn in_python(world: &World, kind: &str, answer: &[u8], other: &[u8]) -> i32 {
    let (proof, beside) = (world.dir.path().join("proof"), world.dir.path().join("beside"));
    std::fs::write(&proof, answer).unwrap();
    std::fs::write(&beside, other).unwrap();
    let key = audit::verifier_key(&world.deps, world.org).unwrap();
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/verify_proof.py");
    let ended = Command::new("/usr/bin/python3")
        .arg(tool)
        .arg(kind)
        .args([proof, beside])
        .arg(key)
        .output()
        .unwrap();
    ended.status.code().unwrap()
}

#[tokio::test]
async fn a_proof_of_inclusion_holds_in_another_implementation_and_only_for_its_entry() {
    let world = with_entries(2).await;
    let (_, checkpoint) = signed(&world).await;
    let log = audit::log_page(&world.deps, world.org, 0, 1000).await.unwrap();
    for (index, bytes) in &log {
        let id = serde_json::from_str::<serde_json::Value>(bytes).unwrap()["id"].clone();
        let path = format!("/v1/audit/entries/{}/proof", id.as_str().unwrap());
        let proof = world.api().get(&world.as_admin(), &path).await;
        assert_eq!(proof.status, 200, "{}", proof.text());
        assert_eq!(proof.json()["index"], *index);
        assert_eq!(proof.json()["size"], checkpoint.size);
        assert_eq!(proof.json()["leaf"], STANDARD.encode(leaf_hash(bytes.as_bytes())));
        assert_eq!(in_python(&world, "inclusion", &proof.body, bytes.as_bytes()), 0);
        let (_, other) = &log[(*index as usize + 1) % log.len()];
        assert_eq!(in_python(&world, "inclusion", &proof.body, other.as_bytes()), 1);
    }
}

#[tokio::test]
async fn a_proof_of_growth_holds_in_another_implementation_and_only_for_that_log() {
    let world = with_entries(1).await;
    let (old, before) = signed(&world).await;
    world.connect(world.ben, &[Category::Read]).await;
    let path = format!("/v1/audit/consistency?from={}", before.size);
    let proof = world.api().get(&world.as_admin(), &path).await;
    assert_eq!(proof.status, 200, "{}", proof.text());
    assert!(proof.json()["to"].as_u64().unwrap() > before.size);
    assert_eq!(in_python(&world, "growth", &proof.body, old.as_bytes()), 0);
    let mut forged = proof.json();
    forged["hashes"][0] = STANDARD.encode([7; 32]).into();
    assert_eq!(
        in_python(&world, "growth", forged.to_string().as_bytes(), old.as_bytes()),
        1
    );
    let beyond = world
        .api()
        .get(&world.as_admin(), "/v1/audit/consistency?from=0&to=99999")
        .await;
    assert_eq!(beyond.status, 400);
}

async fn size_and_time(world: &World, org: OrgId) -> (u64, String) {
    let head = world
        .deps
        .store
        .read(org)
        .await
        .unwrap()
        .log_head(org)
        .await
        .unwrap();
    head.map_or((0, String::new()), |row| (row.size, row.checkpoint))
}

#[tokio::test]
async fn a_checkpoint_follows_growth_within_a_second_and_an_idle_log_gets_none() {
    let (world, grant) = World::connected().await;
    let workers = Workers::start(&world.deps);
    let mut took = Vec::new();
    for _ in 0..4 {
        world.vend(world.read(grant)).await.unwrap();
        let grown = Instant::now();
        let entries = world.entries().await.len() as u64;
        while size_and_time(&world, world.org).await.0 < entries {
            assert!(grown.elapsed() < Duration::from_secs(5), "no checkpoint");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        took.push(grown.elapsed());
    }
    // The first may come right before a look by chance, each other one right after a look. How long the look itself takes is
    // the machine's business, too: the fastest says how long the log is left alone.
    assert!(
        took[1..].iter().any(|took| *took < Duration::from_secs(1)),
        "no checkpoint within a second: {took:?}"
    );
    let before = size_and_time(&world, world.org).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(
        size_and_time(&world, world.org).await,
        before,
        "a checkpoint of an idle log"
    );
    workers.stop().await;
}

/// So many entries that wait for their place.
async fn backlog(world: &World, org: OrgId, count: u64) {
    for _ in 0..count / 500 {
        let mut tx = world.deps.store.write(org).await.unwrap();
        for _ in 0..500 {
            let entry = record::open(&world.deps, EntryType::Admin, EntryDraft::default()).unwrap();
            tx.append_entry(org, entry).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn an_org_does_not_wait_for_its_place_until_a_busy_one_has_all_of_its_own() {
    let world = World::new().await;
    let mut orgs = vec![world.org];
    // More than grow in one transaction.
    while orgs.len() < 20 {
        let founded = found::found(&world.deps, "Another", "eve@another.example")
            .await
            .unwrap();
        orgs.push(founded.org);
    }
    // Logs grow in the order of their orgs.
    orgs.sort_unstable();
    let (busy, quiet) = (orgs[0], orgs[19]);
    backlog(&world, busy, 2_000).await;
    let deps = Arc::clone(&world.deps);
    let round = tokio::spawn(async move { sequence::round(&deps).await });
    while size_and_time(&world, quiet).await.0 == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let placed = size_and_time(&world, busy).await.0;
    assert!((1..2_000).contains(&placed), "{placed}");
    assert!(!round.await.unwrap().unwrap(), "all have their places");
    assert!(size_and_time(&world, busy).await.0 >= 2_000);
}

#[tokio::test]
async fn two_sequencers_of_one_log_give_every_entry_one_place() {
    let world = with_entries(40).await;
    let both = tokio::join!(
        sequence::run(&world.deps, world.org),
        sequence::run(&world.deps, world.org)
    );
    let placed = both.0.unwrap() + both.1.unwrap();
    let log = audit::log_page(&world.deps, world.org, 0, 10_000).await.unwrap();
    assert_eq!(placed, log.len());
    assert!(log.iter().enumerate().all(|(at, (index, _))| at as u64 == *index));
}

/// Such a log has nothing outside either: an admin vouches for it first.
#[tokio::test]
async fn tiles_of_a_log_made_before_there_were_any_are_made_with_its_next_growth() {
    let (world, grant) = World::connected_on_sqlite().await;
    let world = filled(world, grant, 2).await;
    signed(&world).await;
    world.raw_sql("DELETE FROM tiles").await;
    let world = world
        .restarted_after(|dir| std::fs::remove_file(dir.join("checkpoints.jsonl")).unwrap())
        .await;
    let found = seal::check(&world.deps).await.unwrap();
    let plan = recover::plan(&found[0], recover::Vouch::DatabaseIsCurrent);
    recover::run(&world.deps, &plan, "test").await.unwrap();
    let (_, checkpoint) = signed(&world).await;
    let answer = tile(&world, &format!("0/000.p/{}", checkpoint.size)).await;
    let leaves: Vec<[u8; 32]> = answer
        .body
        .chunks(32)
        .map(|hash| hash.try_into().unwrap())
        .collect();
    assert_eq!(mth(&leaves), checkpoint.root);
}

/// I6: who may write to the database and has no key cannot have another history signed.
#[tokio::test]
async fn a_log_goes_on_from_nothing_but_what_was_signed() {
    let (world, grant) = World::connected().await;
    let world = filled(world, grant, 3).await;
    signed(&world).await;
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    let head = tx.log_head(world.org).await.unwrap().unwrap().head;
    drop(tx);
    world.vend(world.read(grant)).await.unwrap();
    let put = async |head: &str| world.raw_sql(&format!("UPDATE logs SET head = '{head}'")).await;
    let flipped = |at: &mut serde_json::Value| {
        let text = at.as_str().unwrap();
        let other = if text.starts_with('0') { "1" } else { "0" };
        *at = format!("{other}{}", &text[1..]).into();
    };
    let read: serde_json::Value = serde_json::from_str(&head).unwrap();
    let (mut peak, mut writer) = (read.clone(), read.clone());
    flipped(&mut peak["frontier"]["peaks"][0]);
    let first = writer["writers"].as_object_mut().unwrap().values_mut().next();
    flipped(&mut first.unwrap()["hash"]);
    for forged in [peak, writer] {
        put(&forged.to_string()).await;
        let grown = sequence::run(&world.deps, world.org).await;
        assert!(grown.is_err(), "{forged}: {grown:?}");
    }
    put(&head).await;
    assert!(sequence::run(&world.deps, world.org).await.unwrap() > 0);
}
