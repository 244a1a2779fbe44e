//! The same where the answer finds no database: what is spooled survives its process, and is entered once.

use std::time::Duration;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use postern::{crypto::digest::hex, failpoints::Failpoint};
use serde_json::json;

use crate::{provider::Rotation, server::Server};

use super::{
    answer_lost,
    counted::{Count, died_at},
    goes_on, nothing_is_lost, said, says_it_is_lost, settled, works,
};

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
pub(super) async fn database_gone(server: &mut Server, then: Option<Failpoint>) {
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
            died_at(place);
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
    let kept = std::fs::read(&spooled[0]).unwrap();
    for begins in TOKENS_BEGIN {
        assert_eq!(found(&kept, begins), None, "{begins}");
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&spooled[0].metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // Asked again meanwhile, it asks nobody.
    let refused = server.read().await;
    assert!(matches!(refused, Some((503, _))), "{refused:?}");
    server.find_database().await;
    entered_after(&server, Failpoint::RefreshSealed, before + 1).await;
    assert!(said(&server).await.contains(&json!("spooled")));
}

/// The form in which a marker stands among bytes: plain, hex, or Base64 of either alphabet at any of its three alignments.
fn found(bytes: &[u8], marker: &str) -> Option<&'static str> {
    let mut forms = vec![("plain", marker.to_owned()), ("hex", hex(marker.as_bytes()))];
    for (code, shift) in [STANDARD, URL_SAFE]
        .into_iter()
        .flat_map(|code| (0..3).map(move |shift| (code.clone(), shift)))
    {
        let coded = code.encode([&b"xxx"[..shift], marker.as_bytes()].concat());
        // Only what no neighbour can change.
        let whole = coded.trim_end_matches('=');
        let inner = whole.get([0, 2, 3][shift]..whole.len() - 1).unwrap();
        forms.push(("base64", inner.to_owned()));
    }
    // Markers are ASCII: what is not UTF-8 around them does not matter.
    let text = String::from_utf8_lossy(bytes);
    forms
        .into_iter()
        .find(|(_, form)| text.contains(form.as_str()))
        .map(|(name, _)| name)
}

#[test]
fn the_look_finds_a_token_in_every_form() {
    let [token, _] = PLANTED;
    for (form, text) in [
        ("plain", format!("{{\"token\":\"{token}\"}}")),
        ("hex", hex(format!("a{token}").as_bytes())),
        ("base64", STANDARD.encode(format!("{token}!"))),
        ("base64", STANDARD.encode(format!("1{token}!"))),
        ("base64", URL_SAFE.encode(format!("12{token}!"))),
    ] {
        for marker in [token, TOKENS_BEGIN[0]] {
            assert_eq!(found(text.as_bytes(), marker), Some(form), "{text}");
        }
    }
    assert_eq!(found(b"{\"token\":\"acme_at\"}", TOKENS_BEGIN[0]), None);
}

/// The provider gives tokens that are known here, so that nothing depends on how its own begin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_token_stands_in_the_clear_in_a_spooled_answer() {
    let mut server = Server::connected(Rotation::Grace).await;
    let own = server.vend(&server.grant().await, "token").call().await;
    let own = own.unwrap().1["access_token"].as_str().unwrap().to_owned();
    assert!(
        own.starts_with(TOKENS_BEGIN[0]),
        "the provider's tokens begin otherwise"
    );
    let [access, refresh] = PLANTED;
    let set = json!({"access_token": access, "refresh_token": refresh});
    server
        .fault(json!({"next": "token", "set": set, "times": 1}))
        .await;
    database_gone(&mut server, None).await;
    let kept = std::fs::read(&server.spooled()[0]).unwrap();
    for marker in [access, refresh, &own, TOKENS_BEGIN[0], TOKENS_BEGIN[1]] {
        assert_eq!(found(&kept, marker), None, "{marker}");
        // It would have been found in this very file.
        let spoilt = [kept.as_slice(), marker.as_bytes()].concat();
        assert_eq!(found(&spoilt, marker), Some("plain"), "{marker}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_spooled_survives_its_process() {
    let count = Count::begin();
    let check = |mut server: Server, places: &'static [Failpoint]| async move {
        for place in places.iter().copied() {
            let before = server.refreshes().await;
            database_gone(&mut server, Some(place)).await;
            server.start_again().await;
            entered_after(&server, place, before + 1).await;
        }
    };
    count.at(Rotation::Strict, &SPOOLED[3..], 2, check).await;
}

/// How every access and every refresh token of Acme Mail begins (`src/dev/acme_mail/token.rs`); no bytes of ours do.
const TOKENS_BEGIN: [&str; 2] = ["acme_at_", "acme_rt_"];

/// An access and a refresh token that nobody but these tests gives.
const PLANTED: [&str; 2] = [
    "acme_at_plantedhere5b1f0c77e2d94a68",
    "acme_rt_plantedhere0d94a685b1f0c77e2",
];

/// Longer than a look at what is spooled takes without a database.
const ONE_LOOK: Duration = Duration::from_secs(1);

/// The process dies over entering what it spooled.
pub(super) async fn killed_entering(server: &mut Server, place: Failpoint) {
    println!("to be killed at {place:?}");
    database_gone(server, None).await;
    server.order(place, "kill");
    // A look that began before the order ends without the database: found at once, it would enter the answer and pass the order.
    tokio::time::sleep(ONE_LOOK).await;
    server.find_database().await;
    server.until_dead().await;
    assert!(server.was_reached(), "{place:?}");
    died_at(place);
    let left = usize::from(place != Failpoint::SpoolRemoved);
    assert_eq!(server.spooled().len(), left, "{place:?}");
    server.start_again().await;
}

/// What was spooled is entered, and the provider was asked so many times.
pub(super) async fn entered_after(server: &Server, place: Failpoint, asked: usize) {
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
    let count = Count::begin();
    for (rotation, places) in [(Rotation::Strict, &ENTERED[..]), (Rotation::Grace, entered())] {
        let check = |mut server: Server, places: &'static [Failpoint]| async move {
            for place in places.iter().copied() {
                let before = server.refreshes().await;
                killed_entering(&mut server, place).await;
                entered_after(&server, place, before + 1).await;
            }
        };
        count.at(rotation, places, 4, check).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_asked_for_again_and_spooled_survives_its_being_entered() {
    let count = Count::begin();
    let check = |mut server: Server, places: &'static [Failpoint]| async move {
        for place in places.iter().copied() {
            let before = server.refreshes().await;
            answer_lost(&server).await;
            killed_entering(&mut server, place).await;
            entered_after(&server, place, before + 2).await;
        }
    };
    count.at_lossy(Rotation::Grace, entered(), 2, check).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_an_answer_is_spooled_loses_nothing_with_a_grace() {
    let count = Count::begin();
    let check = |mut server: Server, places: &'static [Failpoint]| async move {
        for place in places.iter().copied() {
            database_gone(&mut server, Some(place)).await;
            server.start_again().await;
            nothing_is_lost(&server, place).await;
        }
    };
    count.at(Rotation::Grace, &SPOOLED, 1, check).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_an_answer_that_was_asked_for_again_is_spooled_loses_nothing() {
    let count = Count::begin();
    let check = |mut server: Server, places: &'static [Failpoint]| async move {
        for place in places.iter().copied() {
            answer_lost(&server).await;
            database_gone(&mut server, Some(place)).await;
            server.start_again().await;
            nothing_is_lost(&server, place).await;
        }
    };
    count.at_lossy(Rotation::Grace, &SPOOLED, 1, check).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_an_answer_is_spooled_without_a_grace_says_that_it_is_lost() {
    let count = Count::begin();
    let check = |mut server: Server, places: &'static [Failpoint]| async move {
        for place in places.iter().copied() {
            database_gone(&mut server, Some(place)).await;
            server.start_again().await;
            let (status, answer) = settled(&server, place.as_str()).await;
            says_it_is_lost(&server, place, status, &answer).await;
        }
    };
    count.at(Rotation::Strict, &SPOOLED[..3], 1, check).await;
}
