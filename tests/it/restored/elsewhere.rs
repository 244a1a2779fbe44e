//! What a recovery by one replica leaves for the others to find: what it gave up, what was changed, and what nothing shows.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use postern::{
    audit::{Checkpoint, VerifierKey},
    flows::audit,
};
use serde_json::{Value, json};

use super::*;

/// Entries written while the org was sealed stand where the lost ones stood, before the place of the recovery.
#[tokio::test]
async fn what_was_signed_over_entries_that_a_recovery_gave_up_is_no_other_history() {
    let (world, first, dir, joined) = joined().await;
    let second = world.connect(world.ben, &BOTH).await;
    signed(&world).await;
    let copy = copied_before_the_last_of(&world, &joined, second).await;
    world.vend(world.read(first)).await.unwrap();
    signed(&world).await;
    let known = world.deps.store.known_outside(world.org).unwrap();
    world.stopped().await;
    restore(&world, &copy).await;
    let joined = world.replica_in(&dir).await.unwrap();
    assert!(joined.store.is_sealed(world.org));
    for _ in 0..12 {
        let ask = harness::ending(Selector::Grant(second));
        revoke::run(&joined, world.org, ask).await.unwrap();
    }
    recovered(&joined).await;
    assert!(joined.store.known_outside(world.org).unwrap().size > known.size + 2);
    joined.store.close().await;
    let again = world.replica_in(world.dir.path()).await.unwrap();
    assert_eq!(again.store.sealed_orgs(), 0);
    vend(&world, &again, first).await.unwrap();
}

/// Nothing is missing that would explain it.
#[tokio::test]
async fn a_log_changed_before_the_place_of_a_recovery_is_another_history() {
    let (world, _, dir, joined) = joined().await;
    joined.store.close().await;
    recover_here(&world).await;
    forge(&world).await;
    let again = world.replica_in(&dir).await.unwrap();
    assert!(again.store.is_sealed(world.org));
    assert_eq!(plan(&again).await.why, "other_history");
}

#[tokio::test]
async fn another_history_is_not_hidden_by_what_was_found_before() {
    let (world, _) = World::connected().await;
    signed(&world).await;
    remembers_older(&world, &world.deps).await;
    forge(&world).await;
    let world = world.restarted().await;
    let plans = plans(&world, Vouch::No).await;
    assert_eq!(
        (plans[0].why, plans[0].ends.as_slice()),
        ("other_history", &[Selector::All(true)][..])
    );
}

/// The entries that would show it were left out of the file.
#[tokio::test]
async fn numbers_say_nothing_of_a_move_once_they_were_caught_up_with() {
    let (world, first, dir, joined) = joined().await;
    let second = world.connect(world.ben, &BOTH).await;
    seal::keep_up(&joined).await.unwrap();
    signed(&world).await;
    let copy = copied(&world).await;
    world.revoke(Selector::Grant(first)).await;
    world.revoke(Selector::User(world.ben)).await;
    let reached = world.deps.store.known_outside(world.org).unwrap().counter;
    joined.store.close().await;
    world.stopped().await;
    let file = world.dir.path().join("checkpoints.jsonl");
    let mut kept = String::new();
    for line in std::fs::read_to_string(&file).unwrap().lines() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        if !line["epoch"].as_str().unwrap().ends_with(&format!(":{reached}")) {
            line.as_object_mut().unwrap().remove("entry");
        }
        kept.push_str(&format!("{line}\n"));
    }
    std::fs::write(&file, kept).unwrap();
    restore(&world, &copy).await;
    let joined = world.replica_in(&dir).await.unwrap();
    assert_eq!(joined.store.sealed_orgs(), 0);
    for _ in 0..2 {
        let ask = harness::ending(Selector::Grant(second));
        revoke::run(&joined, world.org, ask).await.unwrap();
    }
    sequence::run(&joined, world.org).await.unwrap();
    let again = world.replica_in(world.dir.path()).await.unwrap();
    assert!(again.store.is_sealed(world.org));
    recovered(&again).await;
    assert!(is_revoked(&again, world.org, first).await);
}

/// Every log would seem to have another history, and recovering would end everything.
#[tokio::test]
async fn a_log_that_was_signed_under_another_public_url_is_known_for_this_deployments_own() {
    let (world, _) = World::connected().await;
    signed(&world).await;
    assert_eq!(seal::former_issuer(&world.deps).await.unwrap(), None);
    let key = audit::verifier_key(&world.deps, world.org).unwrap();
    let public = STANDARD.decode(key.splitn(3, '+').nth(2).unwrap()).unwrap()[1..].to_vec();
    let kept = world.deps.store.outside().unwrap().kept().unwrap();
    let note = kept[&world.org].checkpoint.clone().unwrap();
    let file = world.dir.path().join("checkpoints.jsonl");
    let before = std::fs::read_to_string(&file).unwrap();
    let origin = format!("https://old.example/orgs/{}/log", world.org);
    let other = Checkpoint {
        origin: origin.clone(),
        ..Checkpoint::read_unverified(&note).unwrap()
    };
    let key = VerifierKey::new(&origin, public.try_into().unwrap()).unwrap();
    let renamed = other
        .sign(&key, |text| world.deps.checkpoints.sign_note(text).unwrap())
        .unwrap();
    let line = |note: &str| json!(note).to_string();
    assert!(before.contains(&line(&note)));
    std::fs::write(&file, before.replace(&line(&note), &line(&renamed))).unwrap();
    let former = seal::former_issuer(&world.deps).await.unwrap();
    assert_eq!(former.as_deref(), Some("https://old.example"));
    // The same name, and nobody's signature.
    let torn = renamed.replace("https://old.example/orgs", "https://older.example/orgs");
    std::fs::write(&file, before.replace(&line(&note), &line(&torn))).unwrap();
    assert_eq!(seal::former_issuer(&world.deps).await.unwrap(), None);
}

#[tokio::test]
async fn a_replica_that_runs_through_a_recovery_elsewhere_goes_on_from_it() {
    let (world, grant, dir, joined) = joined().await;
    vend(&world, &joined, grant).await.unwrap();
    recover_here(&world).await;
    // Nobody has compared yet.
    let meanwhile = vend(&world, &joined, grant).await;
    assert!(matches!(meanwhile, Err(Refusal::Sealed)), "{meanwhile:?}");
    sequence::round(&joined).await.unwrap();
    vend(&world, &joined, grant).await.unwrap();
    assert!(!joined.store.has_lost_entries());
    // One that was idle meanwhile hears of it, too.
    recover_here(&world).await;
    seal::keep_up(&joined).await.unwrap();
    vend(&world, &joined, grant).await.unwrap();
    joined.store.close().await;
    world.stopped().await;
    let alone = world.replica_in(&dir).await.unwrap();
    assert_eq!(alone.store.sealed_orgs(), 0);
}
