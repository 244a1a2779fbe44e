//! The same where the answer finds no database: what is spooled survives its process, and is entered once.

use postern::failpoints::Failpoint;
use serde_json::json;

use crate::{provider::Rotation, server::Server};

use super::{at, nothing_is_lost, said};

/// The steps of one whose answer finds no database.
pub(super) const SPOOLED: [Failpoint; 5] = [
    Failpoint::SpoolDrafted,
    Failpoint::SpoolWritten,
    Failpoint::SpoolSynced,
    Failpoint::SpoolRenamed,
    Failpoint::SpoolKept,
];

/// The steps of entering such an answer when the database is back.
pub(super) const ENTERED: [Failpoint; 10] = [
    Failpoint::SpoolRead,
    Failpoint::SpoolFound,
    Failpoint::RefreshKeeping,
    Failpoint::RefreshEntering,
    Failpoint::RefreshStored,
    Failpoint::RefreshRenewed,
    Failpoint::RefreshRecorded,
    Failpoint::RefreshKept,
    Failpoint::SpoolEntered,
    Failpoint::SpoolRemoved,
];

/// The database is gone between the answer and its keeping; where the old refresh token is spent, only the spool helps.
async fn database_gone(server: &mut Server, then: Option<Failpoint>) {
    server.expire().await;
    server.order(Failpoint::RefreshSealed, "stop");
    let vending = tokio::spawn(server.read());
    server.until_stopped().await;
    server.lose_database().await;
    if let Some(place) = then {
        server.order(place, "kill");
    }
    server.go_on();
    let answer = vending.await.unwrap();
    match then {
        None => assert!(matches!(answer, Some((503, _))), "{answer:?}"),
        Some(place) => {
            server.until_dead().await;
            assert!(server.was_reached(), "{place:?}");
            server.find_database().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_finds_no_database_is_entered_when_it_is_back() {
    let mut server = Server::connected(Rotation::Strict).await;
    let before = server.refreshes().await;
    database_gone(&mut server, None).await;
    let spooled = server.spooled();
    assert_eq!(spooled.len(), 1);
    let text = std::fs::read_to_string(&spooled[0]).unwrap();
    assert!(!text.contains("amr_") && !text.contains("ama_"), "{text}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&spooled[0].metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // Asked again meanwhile, it asks nobody.
    let refused = server.read().await;
    assert!(matches!(refused, Some((503, _))), "{refused:?}");
    server.find_database().await;
    nothing_is_lost(&server, Failpoint::RefreshSealed).await;
    assert_eq!(server.refreshes().await, before + 1);
    assert_eq!(server.spooled().len(), 0);
    assert!(said(&server).await.contains(&json!("spooled")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_spooled_survives_its_process() {
    let mut server = Server::connected(Rotation::Strict).await;
    for place in [Failpoint::SpoolRenamed, Failpoint::SpoolKept] {
        let before = server.refreshes().await;
        database_gone(&mut server, Some(place)).await;
        server.start_again().await;
        nothing_is_lost(&server, place).await;
        assert_eq!(server.refreshes().await, before + 1, "{place:?}");
        assert_eq!(server.spooled().len(), 0, "{place:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_spooled_survives_its_being_entered() {
    at(Rotation::Strict, &ENTERED, 4, |mut server, places| async move {
        for place in places.iter().copied() {
            let before = server.refreshes().await;
            database_gone(&mut server, None).await;
            server.order(place, "kill");
            server.find_database().await;
            server.until_dead().await;
            let left = usize::from(place != Failpoint::SpoolRemoved);
            assert_eq!(server.spooled().len(), left, "{place:?}");
            server.start_again().await;
            nothing_is_lost(&server, place).await;
            assert_eq!(server.refreshes().await, before + 1, "{place:?}");
            assert_eq!(server.spooled().len(), 0, "{place:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_an_answer_is_spooled_loses_nothing_with_a_grace() {
    at(Rotation::Grace, &SPOOLED, 1, |mut server, places| async move {
        for place in places.iter().copied() {
            database_gone(&mut server, Some(place)).await;
            server.start_again().await;
            nothing_is_lost(&server, place).await;
        }
    })
    .await;
}
