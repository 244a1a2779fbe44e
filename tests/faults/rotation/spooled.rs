//! The same where the answer finds no database: what is spooled survives its process, and is entered once.

use std::time::Duration;

use postern::failpoints::Failpoint;
use serde_json::json;

use crate::{provider::Rotation, server::Server};

use super::{answer_lost, at, goes_on, nothing_is_lost, said, says_it_is_lost, settled, works};

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

/// Of these, what only a spooled answer comes to.
const ENTERED_ONLY: [Failpoint; 4] = [
    Failpoint::SpoolRead,
    Failpoint::SpoolFound,
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
        None => {
            assert!(matches!(answer, Some((503, _))), "{answer:?}");
            until_spooled(server).await;
        }
        Some(place) => {
            server.until_dead().await;
            assert!(server.was_reached(), "{place:?}");
            server.find_database().await;
        }
    }
}

/// Waits for the file; the call is refused before that if a worker asked.
async fn until_spooled(server: &Server) {
    for _ in 0..3000 {
        if !server.spooled().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nothing is spooled");
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
    entered_after(&server, Failpoint::RefreshSealed, before + 1).await;
    assert!(said(&server).await.contains(&json!("spooled")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_spooled_survives_its_process() {
    let mut server = Server::connected(Rotation::Strict).await;
    for place in [Failpoint::SpoolRenamed, Failpoint::SpoolKept] {
        let before = server.refreshes().await;
        database_gone(&mut server, Some(place)).await;
        server.start_again().await;
        entered_after(&server, place, before + 1).await;
    }
}

/// Longer than a look at what is spooled takes without a database.
const ONE_LOOK: Duration = Duration::from_secs(1);

/// The process dies over entering what it spooled.
async fn killed_entering(server: &mut Server, place: Failpoint) {
    println!("to be killed at {place:?}");
    database_gone(server, None).await;
    server.order(place, "kill");
    // A look that began before the order ends without the database: found at once, it would enter the answer and pass the order.
    tokio::time::sleep(ONE_LOOK).await;
    server.find_database().await;
    server.until_dead().await;
    assert!(server.was_reached(), "{place:?}");
    let left = usize::from(place != Failpoint::SpoolRemoved);
    assert_eq!(server.spooled().len(), left, "{place:?}");
    server.start_again().await;
}

/// What was spooled is entered, and the provider was asked so many times.
async fn entered_after(server: &Server, place: Failpoint, asked: usize) {
    works(server, place).await;
    assert_eq!(server.refreshes().await, asked, "{place:?}");
    assert_eq!(server.spooled().len(), 0, "{place:?}");
    goes_on(server, place.as_str()).await;
}

/// What a long run kills at, or any other.
fn entered() -> &'static [Failpoint] {
    if std::env::var_os("POSTERN_LONG").is_some() {
        &ENTERED
    } else {
        &ENTERED_ONLY
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_spooled_survives_its_being_entered() {
    for (rotation, places) in [(Rotation::Strict, &ENTERED[..]), (Rotation::Grace, entered())] {
        at(rotation, places, 4, |mut server, places| async move {
            for place in places.iter().copied() {
                let before = server.refreshes().await;
                killed_entering(&mut server, place).await;
                entered_after(&server, place, before + 1).await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_asked_for_again_and_spooled_survives_its_being_entered() {
    at(Rotation::Grace, entered(), 2, |mut server, places| async move {
        for place in places.iter().copied() {
            let before = server.refreshes().await;
            answer_lost(&server).await;
            killed_entering(&mut server, place).await;
            entered_after(&server, place, before + 2).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_an_answer_that_was_asked_for_again_is_spooled_loses_nothing() {
    at(Rotation::Grace, &SPOOLED, 1, |mut server, places| async move {
        for place in places.iter().copied() {
            answer_lost(&server).await;
            database_gone(&mut server, Some(place)).await;
            server.start_again().await;
            nothing_is_lost(&server, place).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_an_answer_is_spooled_without_a_grace_says_that_it_is_lost() {
    at(
        Rotation::Strict,
        &SPOOLED[..3],
        1,
        |mut server, places| async move {
            for place in places.iter().copied() {
                database_gone(&mut server, Some(place)).await;
                server.start_again().await;
                let (status, answer) = settled(&server, place.as_str()).await;
                says_it_is_lost(&server, place, status, &answer).await;
            }
        },
    )
    .await;
}
