//! What a witness does not answer about one log holds up no other.

use postern::store::StoreError;

use super::*;
use crate::shares::crowd;

/// So many logs that the witness knows, by their origins.
async fn logs(world: &World, server: &Witness, count: usize) -> Vec<String> {
    let orgs = world.orgs_with_logs(count).await;
    orgs.iter().map(|org| server.knows_log(world, *org)).collect()
}

impl Witness {
    fn breaks_for(&self, origins: &[String]) {
        *self.broken_for.lock().unwrap() = origins.iter().cloned().collect();
    }

    fn has(&self, origin: &str) -> bool {
        self.logs.lock().unwrap().contains_key(origin)
    }
}

#[tokio::test]
async fn a_log_about_which_the_witness_fails_holds_up_no_other_in_a_look() {
    let (world, _) = World::connected().await;
    let server = Witness::start().await;
    let logs = logs(&world, &server, 3).await;
    server.breaks_for(&logs[..2]);
    let ended = witness::round(&world.deps, &server.port()).await;
    // What could not be asked waits for the next look.
    assert!(matches!(ended, Err(Refusal::ProviderUnavailable)), "{ended:?}");
    assert!(server.has(&logs[2]));
    server.breaks_for(&[]);
    assert_eq!(witness::round(&world.deps, &server.port()).await.unwrap(), 2);
}

#[tokio::test]
async fn a_witness_that_fails_is_asked_little_in_a_look_and_comes_to_every_log_all_the_same() {
    let (world, _) = World::connected().await;
    let server = Witness::start().await;
    let logs = logs(&world, &server, 6).await;
    for status in [503, 429] {
        server.broken.store(status, Ordering::Relaxed);
        let before = server.asked.load(Ordering::Relaxed);
        assert!(witness::round(&world.deps, &server.port()).await.is_err());
        let asked = server.asked.load(Ordering::Relaxed) - before;
        assert_eq!(asked, if status == 429 { 1 } else { 3 }, "{status}");
    }
    server.broken.store(0, Ordering::Relaxed);
    server.breaks_for(&logs[..5]);
    let mut looks = 0;
    while !server.has(&logs[5]) {
        assert!(looks < 100, "it never came to the last one");
        assert!(witness::round(&world.deps, &server.port()).await.is_err());
        looks += 1;
    }
}

#[tokio::test]
async fn an_org_that_has_its_share_of_the_connections_holds_up_no_other_log() {
    let (world, _) = World::connected().await;
    let server = Witness::start().await;
    let orgs = world.orgs_with_logs(6).await;
    let logs: Vec<String> = orgs.iter().map(|org| server.knows_log(&world, *org)).collect();
    let crowd = crowd(&world.deps, orgs[0]).await;
    let ended = witness::round(&world.deps, &server.port()).await;
    assert!(
        matches!(ended, Err(Refusal::StoreUnavailable(Some(StoreError::Busy)))),
        "{ended:?}"
    );
    assert!(!server.has(&logs[0]));
    assert!(logs[1..].iter().all(|log| server.has(log)));
    drop(crowd);
    assert_eq!(witness::round(&world.deps, &server.port()).await.unwrap(), 1);
}
