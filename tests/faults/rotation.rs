//! I3: `kill -9` at every step of a rotation, against authorization servers that take the old refresh token again for
//! 60 s, that do not, and that lose their answers. Never lost with a grace, never silently lost without.
//!
//! Over SQLite whoever starts again knows that nobody else holds a lease. Over PostgreSQL it waits until the dead
//! process's lease has ended; so there several servers are killed at a time.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use postern::failpoints::Failpoint;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{database, provider::Rotation, server::Server};

mod alone;
mod counted;
mod spooled;

use counted::{Count, died_at};
use spooled::{ENTERED, SPOOLED};

/// The steps of a rotation that is answered, in their order.
const ANSWERED: [Failpoint; 22] = [
    Failpoint::RefreshPlaced,
    Failpoint::RefreshBegun,
    Failpoint::RefreshUnwrapped,
    Failpoint::RefreshCalling,
    Failpoint::RefreshLeasing,
    Failpoint::RefreshClaiming,
    Failpoint::RefreshLeased,
    Failpoint::RefreshClaimed,
    Failpoint::RefreshOpened,
    Failpoint::RefreshAsking,
    Failpoint::RefreshHeard,
    Failpoint::RefreshReceived,
    Failpoint::RefreshAnswered,
    Failpoint::RefreshSealed,
    Failpoint::RefreshKeeping,
    Failpoint::RefreshStanding,
    Failpoint::RefreshEntering,
    Failpoint::RefreshStored,
    Failpoint::RefreshRenewed,
    Failpoint::RefreshRecorded,
    Failpoint::RefreshKept,
    Failpoint::RefreshLanded,
];

/// The steps of one that is not.
const UNANSWERED: [Failpoint; 4] = [
    Failpoint::RefreshRefused,
    Failpoint::RefreshPausing,
    Failpoint::RefreshFailing,
    Failpoint::RefreshFailed,
];

/// The steps of asking again what was not answered, around those of any rotation.
const DOUBT: [Failpoint; 3] = [
    Failpoint::DoubtFound,
    Failpoint::DoubtTaken,
    Failpoint::DoubtSettled,
];

/// The steps of one that finds the grant dead.
const GIVING_UP: [Failpoint; 5] = [
    Failpoint::RefreshYielded,
    Failpoint::RefreshEnding,
    Failpoint::RefreshEnded,
    Failpoint::RefreshGivingUp,
    Failpoint::RefreshGivenUp,
];

/// The first and the last step before it is durable that a provider is asked.
const UNASKED: [Failpoint; 2] = [Failpoint::RefreshBegun, Failpoint::RefreshClaiming];

/// What is killed at against servers of each kind; those that lose answers bring doubts as well.
const EACH: [&[Failpoint]; 5] = [&ANSWERED, &UNANSWERED, &SPOOLED, &ENTERED, &GIVING_UP];

/// No step is added to a rotation that is in none of these lists.
#[test]
fn a_rotation_has_at_least_forty_steps_and_each_is_in_a_list() {
    let is_of_a_rotation = |place: &Failpoint| {
        ["refresh.", "doubt.", "spool."]
            .iter()
            .any(|part| place.as_str().starts_with(part))
    };
    let steps: HashSet<_> = Failpoint::ALL.iter().copied().filter(is_of_a_rotation).collect();
    let each: HashSet<_> = EACH.concat().into_iter().collect();
    assert_eq!(steps, &each | &HashSet::from(DOUBT));
    assert!(each.len() >= 40, "{}", each.len());
}

/// The agent's next call is one that needs a renewed token; the process dies at `place` over it and starts again.
async fn killed(server: &mut Server, place: Failpoint) {
    server.expire().await;
    server.order(place, "kill");
    let answer = server.read().await;
    assert!(server.was_reached(), "{place:?} was not reached: {answer:?}");
    server.until_dead().await;
    died_at(place);
    server.no_fault().await;
    server.start_again().await;
}

/// The first answer that is not "later": the provider is left alone for a moment, a dead process's lease ends.
pub(crate) async fn settled(server: &Server, place: &str) -> (u16, Value) {
    let begun = Instant::now();
    loop {
        match server.read().await {
            Some((503, answer)) => assert!(begun.elapsed() < SETTLES_WITHIN, "{place}: {answer}"),
            Some(answer) => return answer,
            None => panic!("{place}: the process is gone"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The provider rotates, and hangs up instead of saying so.
fn lost_answer() -> Value {
    json!({"next": "token", "after": true, "hang_up": true, "times": 1})
}

/// It works again, by itself, soon.
async fn works(server: &Server, place: Failpoint) {
    let (status, answer) = settled(server, place.as_str()).await;
    assert_eq!(status, 200, "{place:?}: {answer}");
}

/// It works again, and goes on.
async fn nothing_is_lost(server: &Server, place: Failpoint) {
    works(server, place).await;
    goes_on(server, place.as_str()).await;
}

/// The refresh token that is kept is the last that the provider gave: what a grace would heal is lost as well.
pub(crate) async fn goes_on(server: &Server, place: &str) {
    let before = server.refreshes().await;
    server.expire().await;
    let (status, answer) = settled(server, place).await;
    assert_eq!(status, 200, "{place}: not renewed once more: {answer}");
    assert!(
        server.refreshes().await > before,
        "{place}: not renewed once more"
    );
    assert!(
        server.sent_what_was_given().await,
        "{place}: an older refresh token was kept"
    );
}

/// Connects servers, a few at a time, and takes each to its share of the places.
async fn at<Check: Future<Output = ()> + Send + 'static>(
    rotation: Rotation,
    places: &'static [Failpoint],
    each: usize,
    check: impl Fn(Server, &'static [Failpoint]) -> Check,
) {
    let at_once = match (database::is_postgres(), &rotation) {
        (false, _) => 1,
        // A lease lasts a minute there.
        (true, Rotation::Strict) => 11,
        (true, _) => 7,
    };
    let mut shares = JoinSet::new();
    for share in places.chunks(each) {
        if shares.len() == at_once {
            shares.join_next().await.unwrap().unwrap();
        }
        shares.spawn(check(Server::connected(rotation).await, share));
    }
    while let Some(done) = shares.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_anywhere_in_a_rotation_with_a_grace_loses_nothing() {
    let count = Count::begin();
    let check = |mut server: Server, places: &'static [Failpoint]| async move {
        for place in places.iter().copied() {
            killed(&mut server, place).await;
            nothing_is_lost(&server, place).await;
        }
    };
    count.at(Rotation::Grace, &ANSWERED, 2, check).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_where_the_provider_fails_loses_nothing() {
    let count = Count::begin();
    for rotation in [Rotation::Grace, Rotation::Strict] {
        let check = |mut server: Server, places: &'static [Failpoint]| async move {
            for place in places.iter().copied() {
                server
                    .fault(json!({"next": "token", "status": 503, "body": "down", "times": 1}))
                    .await;
                killed(&mut server, place).await;
                nothing_is_lost(&server, place).await;
            }
        };
        count.at(rotation, &UNANSWERED, 1, check).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_where_the_provider_rotates_and_its_answer_is_lost_loses_nothing() {
    let count = Count::begin();
    let check = |mut server: Server, places: &'static [Failpoint]| async move {
        for place in places.iter().copied() {
            server.fault(lost_answer()).await;
            killed(&mut server, place).await;
            nothing_is_lost(&server, place).await;
        }
    };
    count.at_lossy(Rotation::Grace, &UNANSWERED, 1, check).await;
}

/// The answer to a rotation is lost.
async fn answer_lost(server: &Server) {
    server.expire().await;
    server.fault(lost_answer()).await;
    let answer = server.read().await;
    assert!(matches!(answer, Some((503, _))), "{answer:?}");
}

/// And the process dies over asking again, which a worker does within two seconds.
async fn killed_asking_again(server: &mut Server, place: Failpoint) {
    answer_lost(server).await;
    server.order(place, "kill");
    server.until_dead().await;
    assert!(server.was_reached(), "{place:?}");
    died_at(place);
    server.start_again().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_where_a_lost_answer_is_asked_for_again_loses_nothing() {
    let count = Count::begin();
    for places in [&ANSWERED[..], &DOUBT] {
        let check = |mut server: Server, places: &'static [Failpoint]| async move {
            for place in places.iter().copied() {
                killed_asking_again(&mut server, place).await;
                nothing_is_lost(&server, place).await;
            }
        };
        count.at_lossy(Rotation::Grace, places, 2, check).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_where_an_answer_is_asked_for_again_without_a_grace_says_that_it_is_lost() {
    let count = Count::begin();
    // It is not answered again; a long run kills at what comes before that, too.
    let before = if std::env::var_os("POSTERN_LONG").is_some() {
        &ANSWERED[..11]
    } else {
        &[]
    };
    for places in [&DOUBT[..2], &GIVING_UP, before] {
        let check = |mut server: Server, places: &'static [Failpoint]| async move {
            for place in places.iter().copied() {
                killed_asking_again(&mut server, place).await;
                let (status, answer) = settled(&server, place.as_str()).await;
                says_it_is_lost(&server, place, status, &answer).await;
            }
        };
        count.at_lossy(Rotation::Strict, places, 1, check).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_a_rotation_without_a_grace_loses_nothing_silently() {
    let count = Count::begin();
    let check = |mut server: Server, places: &'static [Failpoint]| async move {
        for place in places.iter().copied() {
            let before = server.refreshes().await;
            killed(&mut server, place).await;
            let rotated = server.refreshes().await > before;
            let (status, answer) = settled(&server, place.as_str()).await;
            if status == 200 {
                goes_on(&server, place.as_str()).await;
                continue;
            }
            assert!(
                rotated && !matches!(place, Failpoint::RefreshKept | Failpoint::RefreshLanded),
                "{place:?}: lost for no reason: {answer}"
            );
            says_it_is_lost(&server, place, status, &answer).await;
        }
    };
    // Each has a server of its own: an agent gets ten links in ten minutes, and more grants than that may be lost.
    count.at(Rotation::Strict, &ANSWERED, 1, check).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_where_the_answer_to_a_rotation_without_a_grace_is_lost_says_so() {
    let count = Count::begin();
    let check = |mut server: Server, places: &'static [Failpoint]| async move {
        for place in places.iter().copied() {
            server.fault(lost_answer()).await;
            killed(&mut server, place).await;
            let (status, answer) = settled(&server, place.as_str()).await;
            says_it_is_lost(&server, place, status, &answer).await;
        }
    };
    count.at_lossy(Rotation::Strict, &UNANSWERED, 1, check).await;
}

/// The rotation is lost: the person is asked to connect again, learns why, and then everything works.
async fn says_it_is_lost(server: &Server, place: Failpoint, status: u16, answer: &Value) {
    assert_eq!(
        (status, &answer["code"]),
        (409, &json!("reconnect_required")),
        "{place:?}"
    );
    let said = said(server).await;
    assert!(said.contains(&json!("rotation_lost")), "{place:?}: {said:?}");
    server.connect().await;
    nothing_is_lost(server, place).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_where_the_provider_ended_the_grant_says_so() {
    let count = Count::begin();
    let kinds = [Rotation::Strict, Rotation::Grace];
    for (rotation, places) in kinds
        .into_iter()
        .flat_map(|kind| [(kind, &UNASKED[..]), (kind, &GIVING_UP[..])])
    {
        let check = |mut server: Server, places: &'static [Failpoint]| async move {
            for place in places.iter().copied() {
                server.disconnect().await;
                killed(&mut server, place).await;
                let (status, refusal) = settled(&server, place.as_str()).await;
                assert_eq!(
                    (status, &refusal["code"]),
                    (409, &json!("reconnect_required")),
                    "{place:?}"
                );
                let said = said(&server).await;
                let newest = said
                    .iter()
                    .find(|reason| **reason == "refresh_token_dead" || **reason == "rotation_lost");
                // The answer died with the process: asked again, it could as well be the one to a token that was rotated.
                let is_unknown = GIVING_UP.contains(&place) && place != Failpoint::RefreshGivenUp;
                let dead = newest == Some(&json!("refresh_token_dead"));
                assert!(dead || is_unknown && newest.is_some(), "{place:?}: {said:?}");
                server.connect().await;
                nothing_is_lost(&server, place).await;
            }
        };
        count.at(rotation, places, 1, check).await;
    }
}

/// I3: another replica may have renewed it by then, and a provider may end a grant whose refresh token comes twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_stood_still_for_longer_than_its_lease_asks_nobody() {
    let server = Server::connected(Rotation::Grace).await;
    server.expire().await;
    let before = server.refreshes().await;
    server.order(Failpoint::RefreshAsking, "stop");
    let (answer, ()) = tokio::join!(server.read(), async {
        server.until_stopped().await;
        tokio::time::sleep(LONGER_THAN_A_LEASE).await;
        server.go_on();
    });
    assert!(server.was_reached());
    assert!(matches!(answer, Some((503, _))), "{answer:?}");
    assert_eq!(server.refreshes().await, before);
    nothing_is_lost(&server, Failpoint::RefreshAsking).await;
}

/// The reasons in the newest entries, newest first.
pub(crate) async fn said(server: &Server) -> Vec<Value> {
    let entries = server.entries().await;
    entries.iter().map(|entry| entry["reason"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_rotation_is_settled_though_nobody_calls() {
    let mut server = Server::connected(Rotation::Grace).await;
    let before = server.refreshes().await;
    killed(&mut server, Failpoint::RefreshAnswered).await;
    for _ in 0..400 {
        if server.refreshes().await == before + 2 {
            return nothing_is_lost(&server, Failpoint::RefreshAnswered).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("nobody asked again");
}

/// Longer than a lease without a grace, and a call that waits for it.
const SETTLES_WITHIN: Duration = Duration::from_secs(120);
/// With a grace.
const LONGER_THAN_A_LEASE: Duration = Duration::from_secs(11);
