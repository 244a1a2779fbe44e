//! `audit tail`, over a server that gains entries, goes away and comes back.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use super::*;

/// An entry that is committed late: only when there are more than so many.
const LATE: usize = 160;
const BEFORE_LATE: usize = 200;

/// More than are kept while others are looked for, and than are remembered.
const VERY_MANY: usize = 25_000;

/// What the query asks for under this name.
fn asked(path: &str, name: &str) -> Option<usize> {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.parse().unwrap())
}

/// One page of the entries numbered down from `newest`, as the query asks for it.
fn page(newest: usize, path: &str) -> Response {
    page_of(newest, path, |id| newest > BEFORE_LATE || id != LATE)
}

/// The same, of those that are there.
fn page_of(newest: usize, path: &str, there: impl Fn(usize) -> bool) -> Response {
    let limit = asked(path, "limit").unwrap();
    let first = asked(path, "after").map_or(newest, |after| after - 1);
    let ids = (1..=first).rev().filter(|id| there(*id)).take(limit);
    let ids: Vec<usize> = ids.collect();
    let next = ids.last().filter(|last| **last > 1).map(ToString::to_string);
    let items: Vec<Value> = ids.iter().map(|id| json!({"id": id.to_string()})).collect();
    ok(json!({"items": items, "next": next}))("")
}

/// Answers the look number n as `looks` says: so many entries, or a refusal. After the last it ends the tail.
fn looks(
    looks: Vec<Result<usize, fn() -> Problem>>,
) -> impl Fn(&str) -> Response + Clone + Send + Sync + 'static {
    let look = Arc::new(AtomicUsize::new(0));
    move |path| {
        // A page after another one belongs to the same look, and so does a longer one from the beginning.
        let is_first = path.contains("limit=50") && !path.contains("after=");
        let now = if is_first {
            look.fetch_add(1, Ordering::SeqCst)
        } else {
            look.load(Ordering::SeqCst) - 1
        };
        match looks.get(now) {
            Some(Ok(newest)) => page(*newest, path),
            Some(Err(problem)) => problem().into_response(),
            None => Problem::unauthenticated().into_response(),
        }
    }
}

const TAIL: [&str; 3] = ["--json", "audit", "tail"];

fn ids(ran: &Ran) -> Vec<usize> {
    let line = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let id = |entry: Value| entry["id"].as_str().unwrap().parse().unwrap();
    ran.data.lines().map(line).map(id).collect()
}

#[tokio::test]
async fn entries_that_come_at_once_where_there_were_none_are_all_printed_in_order() {
    let ran = ran(&TAIL, &KEY, looks(vec![Ok(0), Ok(0), Ok(300), Ok(301)])).await;
    assert_eq!(ids(&ran), (1..=301).collect::<Vec<_>>(), "{}", ran.messages);
}

#[tokio::test]
async fn an_entry_that_is_committed_late_is_printed_though_younger_ones_are_known() {
    let ran = ran(&TAIL, &KEY, looks(vec![Ok(0), Ok(BEFORE_LATE), Ok(245)])).await;
    let before = (1..=BEFORE_LATE).filter(|id| *id != LATE);
    let all: Vec<usize> = before.chain([LATE]).chain(BEFORE_LATE + 1..=245).collect();
    assert_eq!(ids(&ran), all, "{}", ran.messages);
}

#[tokio::test]
async fn what_was_there_before_is_no_news_however_many_come_at_once() {
    let ran = ran(&TAIL, &KEY, looks(vec![Ok(1000), Ok(1020), Ok(1400)])).await;
    assert_eq!(ids(&ran), (991..=1400).collect::<Vec<_>>(), "{}", ran.messages);
}

#[tokio::test]
async fn very_many_at_once_are_all_printed_in_order_though_the_server_refuses_now_and_then() {
    let requests = Arc::new(AtomicUsize::new(0));
    let answer = looks(vec![Ok(0), Ok(VERY_MANY), Ok(VERY_MANY + 1)]);
    let ran = ran(&TAIL, &KEY, move |path| {
        if requests.fetch_add(1, Ordering::SeqCst) % 40 == 39 {
            return Problem::rate_limited(1).into_response();
        }
        answer(path)
    })
    .await;
    let ids = ids(&ran);
    let told = format!("{} entries, {}", ids.len(), ran.messages);
    assert!(ids.into_iter().eq(1..=VERY_MANY + 1), "{told}");
    assert!(told.contains("trying again"), "{told}");
}

#[tokio::test]
async fn what_is_committed_while_very_many_are_read_is_printed_in_its_place() {
    // It comes once those before it have been looked at.
    const LATER: usize = 5_000;
    let (looks, passed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let ran = ran(&TAIL, &KEY, move |path| {
        let after = asked(path, "after");
        if after.is_none() {
            looks.fetch_add(1, Ordering::SeqCst);
        }
        if after.is_some_and(|after| after < LATER) {
            passed.store(1, Ordering::SeqCst);
        }
        let is_there = passed.load(Ordering::SeqCst) == 1;
        match looks.load(Ordering::SeqCst) {
            1 => page(0, path),
            2 => page_of(VERY_MANY, path, |id| id != LATER || is_there),
            _ => Problem::unauthenticated().into_response(),
        }
    })
    .await;
    let ids = ids(&ran);
    let told = format!("{} entries, {}", ids.len(), ran.messages);
    assert!(ids.into_iter().eq(1..=VERY_MANY), "{told}");
}

#[tokio::test]
async fn a_server_that_cannot_answer_for_a_while_is_waited_for() {
    let away: [fn() -> Problem; 3] = [
        Problem::store_unavailable,
        || Problem::rate_limited(1),
        || Problem::internal("a canary"),
    ];
    let [store, rate, fault] = away;
    let answers = vec![Ok(1), Err(store), Err(rate), Err(fault), Ok(3)];
    let ran = ran(&TAIL, &KEY, looks(answers)).await;
    assert_eq!(ids(&ran), [1, 2, 3], "{}", ran.messages);
    assert!(ran.messages.contains("trying again"), "{}", ran.messages);
    assert_eq!(ran.exit, Exit::Unauthenticated as u8, "a key that ended ends it");
}

/// A reader that has gone away.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_tail_ends_when_nobody_reads_it_any_more() {
    let answers = (1..100_000).map(Ok).collect();
    let tail = ran_into(&TAIL, &KEY, looks(answers), Box::new(Gone));
    let ran = tokio::time::timeout(Duration::from_secs(20), tail).await;
    let ran = ran.expect("it looks and looks, for nobody");
    assert_eq!(ran.exit, 0, "{}", ran.messages);
    assert!(ran.seen.len() < 10, "{} looks", ran.seen.len());
}
