//! `audit tail`, over a server that gains entries, goes away and comes back.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use super::*;

/// An entry that is committed late: only when there are more than so many.
const LATE: usize = 160;
const BEFORE_LATE: usize = 200;

/// One page of the entries numbered down from `newest`, as the query asks for it.
fn page(newest: usize, path: &str) -> Response {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let get = |name: &str| {
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    };
    let limit: usize = get("limit").unwrap().parse().unwrap();
    let after = get("after").map_or(newest, |after| after.parse::<usize>().unwrap() - 1);
    let there = |id: &usize| newest > BEFORE_LATE || *id != LATE;
    let ids: Vec<usize> = (1..=after).rev().filter(there).take(limit).collect();
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
