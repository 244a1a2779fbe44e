//! I3: `kill -9` at every step of a rotation, against authorization servers that take the old refresh token again for
//! 60 s, that do not, and that lose their answers. Never lost with a grace, never silently lost without.

use std::time::Duration;

use postern::failpoints::Failpoint;
use serde_json::{Value, json};

use crate::server::{Rotation, Server};

/// The steps of a rotation that is answered, in their order.
const ANSWERED: [Failpoint; 13] = [
    Failpoint::RefreshBegun,
    Failpoint::RefreshUnwrapped,
    Failpoint::RefreshClaiming,
    Failpoint::RefreshClaimed,
    Failpoint::RefreshOpened,
    Failpoint::RefreshAsking,
    Failpoint::RefreshReceived,
    Failpoint::RefreshAnswered,
    Failpoint::RefreshSealed,
    Failpoint::RefreshEntering,
    Failpoint::RefreshStored,
    Failpoint::RefreshRecorded,
    Failpoint::RefreshKept,
];

/// The steps of one that is not.
const UNANSWERED: [Failpoint; 3] = [
    Failpoint::RefreshRefused,
    Failpoint::RefreshFailing,
    Failpoint::RefreshFailed,
];

/// The steps of one whose answer finds no database.
const SPOOLED: [Failpoint; 3] = [
    Failpoint::SpoolWritten,
    Failpoint::SpoolRenamed,
    Failpoint::SpoolKept,
];

/// The agent's next call is one that needs a renewed token; the process dies at `place` over it and starts again.
async fn killed(server: &mut Server, place: Failpoint) {
    server.expire().await;
    server.order(place, "kill");
    let answer = server.read().await;
    assert!(server.was_reached(), "{place:?} was not reached: {answer:?}");
    server.until_dead().await;
    server.no_fault().await;
    server.start_again().await;
}

/// It works again, by itself, soon.
async fn nothing_is_lost(server: &Server, place: Failpoint) {
    let mut last = None;
    for _ in 0..100 {
        last = server.read().await;
        match &last {
            Some((200, _)) => return,
            // The provider is left alone for a moment.
            Some((503, _)) => tokio::time::sleep(Duration::from_millis(100)).await,
            other => panic!("{place:?}: {other:?}"),
        }
    }
    panic!("{place:?}: {last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_anywhere_in_a_rotation_with_a_grace_loses_nothing() {
    let mut server = Server::connected(Rotation::Grace).await;
    for place in ANSWERED {
        killed(&mut server, place).await;
        nothing_is_lost(&server, place).await;
    }
    for place in UNANSWERED {
        server
            .fault(json!({"next": "token", "status": 503, "body": "down", "times": 1}))
            .await;
        killed(&mut server, place).await;
        nothing_is_lost(&server, place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_where_the_provider_rotates_and_its_answer_is_lost_loses_nothing() {
    let mut server = Server::connected(Rotation::Grace).await;
    for place in UNANSWERED {
        let lost = json!({"next": "token", "after": true, "hang_up": true, "times": 1});
        server.fault(lost).await;
        killed(&mut server, place).await;
        nothing_is_lost(&server, place).await;
    }
    // And an answer lost twice, the process killed between.
    for place in ANSWERED {
        let lost = json!({"next": "token", "after": true, "hang_up": true, "times": 1});
        server.expire().await;
        server.fault(lost).await;
        let answer = server.read().await;
        assert!(matches!(answer, Some((503, _))), "{answer:?}");
        // The worker asks again within two seconds, and dies over it.
        server.order(place, "kill");
        server.until_dead().await;
        server.start_again().await;
        nothing_is_lost(&server, place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_a_rotation_without_a_grace_loses_nothing_silently() {
    for place in ANSWERED {
        // Each has a server of its own: an agent gets ten links in ten minutes, and more grants than that may be lost.
        let mut server = Server::connected(Rotation::Strict).await;
        let before = server.refreshes().await;
        killed(&mut server, place).await;
        let rotated = server.refreshes().await > before;
        let answer = server.read().await;
        match answer {
            Some((200, _)) => {}
            Some((409, answer)) => {
                assert!(
                    rotated && place != Failpoint::RefreshKept,
                    "{place:?}: lost for no reason: {answer}"
                );
                assert_eq!(answer["code"], "reconnect_required", "{place:?}");
                let said = said(&server).await;
                assert!(said.contains(&json!("rotation_lost")), "{place:?}: {said:?}");
                server.connect().await;
                nothing_is_lost(&server, place).await;
            }
            other => panic!("{place:?}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_where_a_provider_without_a_grace_fails_loses_nothing() {
    let mut server = Server::connected(Rotation::Strict).await;
    for place in UNANSWERED {
        server
            .fault(json!({"next": "token", "status": 503, "body": "down", "times": 1}))
            .await;
        killed(&mut server, place).await;
        nothing_is_lost(&server, place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_where_the_provider_ended_the_grant_says_so() {
    for rotation in [Rotation::Strict, Rotation::Grace] {
        let mut server = Server::connected(rotation).await;
        for place in [Failpoint::RefreshGivingUp, Failpoint::RefreshGivenUp] {
            server.disconnect().await;
            killed(&mut server, place).await;
            let answer = server.read().await;
            let Some((409, refusal)) = &answer else {
                panic!("{place:?}: {answer:?}");
            };
            assert_eq!(refusal["code"], "reconnect_required", "{place:?}");
            let said = said(&server).await;
            let dead = said.contains(&json!("refresh_token_dead")) || said.contains(&json!("rotation_lost"));
            assert!(dead, "{place:?}: {said:?}");
            server.connect().await;
            nothing_is_lost(&server, place).await;
        }
    }
}

async fn said(server: &Server) -> Vec<Value> {
    let entries = server.entries().await;
    entries.iter().map(|entry| entry["reason"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_rotation_is_settled_though_nobody_calls() {
    let mut server = Server::connected(Rotation::Grace).await;
    let before = server.refreshes().await;
    killed(&mut server, Failpoint::RefreshAnswered).await;
    for _ in 0..100 {
        if server.refreshes().await == before + 2 {
            return nothing_is_lost(&server, Failpoint::RefreshAnswered).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("nobody asked again");
}

/// The database is gone between the answer and its keeping; where the old refresh token is spent, only the spool helps.
async fn database_gone(server: &mut Server, then: Option<Failpoint>) {
    server.expire().await;
    server.order(Failpoint::RefreshSealed, "stop");
    let vending = tokio::spawn(server.read());
    server.until_stopped().await;
    // What a full disk is to a database, and not yet to a small file.
    server.limit_files(Some(SMALL));
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
    server.limit_files(None);
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
    // Entered, and killed before the file is gone: it is found to be entered already.
    let before = server.refreshes().await;
    database_gone(&mut server, None).await;
    server.order(Failpoint::SpoolEntered, "kill");
    server.limit_files(None);
    server.until_dead().await;
    assert_eq!(server.spooled().len(), 1);
    server.start_again().await;
    nothing_is_lost(&server, Failpoint::SpoolEntered).await;
    assert_eq!(server.refreshes().await, before + 1);
    assert_eq!(server.spooled().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_an_answer_is_spooled_loses_nothing_with_a_grace() {
    let mut server = Server::connected(Rotation::Grace).await;
    for place in SPOOLED {
        database_gone(&mut server, Some(place)).await;
        server.start_again().await;
        nothing_is_lost(&server, place).await;
    }
}

/// Room for a spooled answer, not for a page of a database's log.
const SMALL: u64 = 4096;
