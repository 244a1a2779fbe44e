//! The same where only the refresh token of the answer can be used: it is kept though nothing came that could be vended. If
//! its process dies before that is durable it is lost as any other answer is, and after that it is what is asked with next.

use postern::failpoints::Failpoint;
use serde_json::{Value, json};

use crate::{provider::Rotation, server::Server};

use super::{
    ANSWERED, at, goes_on, killed, lost_answer, nothing_is_lost, says_it_is_lost, settled,
    spooled::{ENTERED, SPOOLED, database_gone, entered_after, killed_entering},
    works,
};

/// The steps from such an answer to its being kept and told, in their order. The lane of answers, whose step
/// `RefreshStanding` is, does not keep it: it comes with a pause.
const ALONE: [Failpoint; 11] = [
    Failpoint::RefreshHeard,
    Failpoint::RefreshReceived,
    Failpoint::RefreshAnswered,
    Failpoint::RefreshSealed,
    Failpoint::RefreshKeeping,
    Failpoint::RefreshEntering,
    Failpoint::RefreshStored,
    Failpoint::RefreshRenewed,
    Failpoint::RefreshRecorded,
    Failpoint::RefreshKept,
    Failpoint::RefreshLanded,
];

/// At this many of these nothing of the answer is durable yet.
const NOT_KEPT: usize = 9;

/// At this many of [`SPOOLED`] its file has no name yet under which the next process would find it.
const NOT_SPOOLED: usize = 3;

#[test]
fn no_step_from_a_refresh_token_that_comes_alone_to_its_being_kept_is_left_out() {
    let is_heard = |place: &Failpoint| *place == Failpoint::RefreshHeard;
    let heard = ANSWERED.iter().position(is_heard).unwrap();
    let steps: Vec<_> = ANSWERED[heard..]
        .iter()
        .copied()
        .filter(|place| *place != Failpoint::RefreshStanding)
        .collect();
    assert_eq!(steps, ALONE);
    assert_eq!(ALONE[NOT_KEPT], Failpoint::RefreshKept);
    assert_eq!(SPOOLED[NOT_SPOOLED], Failpoint::SpoolRenamed);
}

/// The provider rotates, and its answer has no access token.
fn alone() -> Value {
    json!({"next": "token", "omit": ["access_token"], "times": 1})
}

/// The newest entry.
async fn newest(server: &Server) -> String {
    server.entries().await[0]["id"].as_str().unwrap().to_owned()
}

/// Whether an entry since that one says that a refresh token was kept alone. While the provider is left alone each call makes
/// entries of its own, more than the newest few.
async fn says_it_is_kept(server: &Server, since: &str) -> bool {
    let entries = server.entries_since(since).await;
    entries
        .iter()
        .any(|entry| entry["reason"] == "refresh_token_kept")
}

/// What was kept alone is what is asked with next, and that brings a token that works. The provider was asked so many times.
async fn renewed_with_it(server: &Server, place: Failpoint, since: &str, asked: usize) {
    works(server, place).await;
    assert_eq!(server.refreshes().await, asked, "{place:?}");
    assert!(
        server.sent_what_was_given().await,
        "{place:?}: the refresh token that came alone was not asked with"
    );
    assert!(says_it_is_kept(server, since).await, "{place:?}");
    goes_on(server, place.as_str()).await;
}

/// The same as [`at`] with half of the places each, both halves at once: what takes time is waiting.
async fn side_by_side<Check: Future<Output = ()> + Send + 'static>(
    rotation: Rotation,
    places: &'static [Failpoint],
    each: usize,
    check: impl Fn(Server, &'static [Failpoint]) -> Check + Copy,
) {
    let (some, others) = places.split_at(places.len() / 2);
    tokio::join!(at(rotation, some, each, check), at(rotation, others, each, check));
}

/// Nothing of the answer was durable, and it is asked for again.
async fn lost_without_a_trace(server: &Server, place: Failpoint, since: &str) {
    nothing_is_lost(server, place).await;
    assert!(!says_it_is_kept(server, since).await, "{place:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_a_refresh_token_that_came_alone_is_kept_loses_nothing_with_a_grace() {
    side_by_side(
        Rotation::Grace,
        &ALONE[..NOT_KEPT],
        3,
        |mut server, places| async move {
            for place in places.iter().copied() {
                let since = newest(&server).await;
                server.fault(alone()).await;
                killed(&mut server, place).await;
                lost_without_a_trace(&server, place, &since).await;
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_a_refresh_token_that_came_alone_is_kept_without_a_grace_says_that_it_is_lost() {
    // Each has a server of its own, so that what is said is said of this loss.
    side_by_side(
        Rotation::Strict,
        &ALONE[..NOT_KEPT],
        1,
        |mut server, places| async move {
            for place in places.iter().copied() {
                let since = newest(&server).await;
                server.fault(alone()).await;
                killed(&mut server, place).await;
                let (status, answer) = settled(&server, place.as_str()).await;
                assert!(!says_it_is_kept(&server, &since).await, "{place:?}");
                says_it_is_lost(&server, place, status, &answer).await;
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_that_was_kept_alone_survives_its_process() {
    for rotation in [Rotation::Strict, Rotation::Grace] {
        at(rotation, &ALONE[NOT_KEPT..], 2, |mut server, places| async move {
            for place in places.iter().copied() {
                let (since, before) = (newest(&server).await, server.refreshes().await);
                server.fault(alone()).await;
                killed(&mut server, place).await;
                renewed_with_it(&server, place, &since, before + 2).await;
            }
        })
        .await;
    }
}

/// The answer to a rotation is lost, the one to asking again has no access token, and the process dies over it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_where_a_lost_answer_is_asked_for_again_and_a_refresh_token_comes_alone_loses_nothing() {
    side_by_side(Rotation::Grace, &ALONE, 2, |mut server, places| async move {
        for place in places.iter().copied() {
            let (since, before) = (newest(&server).await, server.refreshes().await);
            server.expire().await;
            server.fault(lost_answer()).await;
            server.fault(alone()).await;
            let answer = server.read().await;
            assert!(matches!(answer, Some((503, _))), "{answer:?}");
            server.order(place, "kill");
            server.until_dead().await;
            assert!(server.was_reached(), "{place:?}");
            server.start_again().await;
            if ALONE[NOT_KEPT..].contains(&place) {
                renewed_with_it(&server, place, &since, before + 3).await;
            } else {
                lost_without_a_trace(&server, place, &since).await;
            }
        }
    })
    .await;
}

/// The process dies while it spools such an answer.
async fn killed_spooling(server: &mut Server, place: Failpoint) {
    server.fault(alone()).await;
    database_gone(server, Some(place)).await;
    server.start_again().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_a_refresh_token_that_came_alone_is_spooled_loses_nothing_with_a_grace() {
    at(
        Rotation::Grace,
        &SPOOLED[..NOT_SPOOLED],
        2,
        |mut server, places| async move {
            for place in places.iter().copied() {
                let since = newest(&server).await;
                killed_spooling(&mut server, place).await;
                lost_without_a_trace(&server, place, &since).await;
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_a_refresh_token_that_came_alone_is_spooled_without_a_grace_says_that_it_is_lost() {
    at(
        Rotation::Strict,
        &SPOOLED[..NOT_SPOOLED],
        1,
        |mut server, places| async move {
            for place in places.iter().copied() {
                killed_spooling(&mut server, place).await;
                let (status, answer) = settled(&server, place.as_str()).await;
                says_it_is_lost(&server, place, status, &answer).await;
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_that_was_spooled_alone_survives_its_process() {
    for rotation in [Rotation::Strict, Rotation::Grace] {
        at(
            rotation,
            &SPOOLED[NOT_SPOOLED..],
            2,
            |mut server, places| async move {
                for place in places.iter().copied() {
                    let (since, before) = (newest(&server).await, server.refreshes().await);
                    killed_spooling(&mut server, place).await;
                    renewed_with_it(&server, place, &since, before + 2).await;
                    assert_eq!(server.spooled().len(), 0, "{place:?}");
                }
            },
        )
        .await;
    }
}

/// The process dies while it enters such an answer; it is entered all the same, and asked with next.
async fn survives_its_being_entered(rotation: Rotation) {
    side_by_side(rotation, &ENTERED, 5, |mut server, places| async move {
        for place in places.iter().copied() {
            let (since, before) = (newest(&server).await, server.refreshes().await);
            server.fault(alone()).await;
            killed_entering(&mut server, place).await;
            entered_after(&server, place, before + 2).await;
            assert!(says_it_is_kept(&server, &since).await, "{place:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_that_was_spooled_alone_survives_its_being_entered() {
    survives_its_being_entered(Rotation::Strict).await;
    // With a grace the provider gives again what is lost, so that this asks less of us: in a long run only.
    if std::env::var_os("POSTERN_LONG").is_some() {
        survives_its_being_entered(Rotation::Grace).await;
    }
}
