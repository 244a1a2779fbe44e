//! What a receiver does not take of one org neither slows the others nor lies in the way of what it does take.

use std::{collections::BTreeMap, fmt};

use postern::{
    audit::sinks::{Delivery, SinkBatch, SinkError, Standing},
    domain::{GrantId, OrgId, Time},
    egress::Undelivered,
    flows::Deps,
};
use tokio::sync::{Notify, watch};

use super::*;

type Answer = Result<(), SinkError>;

/// What a receiver makes of a batch.
type Answering = Box<dyn Fn(&SinkBatch) -> Answer + Send>;

/// A receiver that answers as it is told to, and remembers what it was asked and what it took.
struct Told {
    name: &'static str,
    answer: Mutex<Answering>,
    /// Whose entries it leaves without an answer.
    held: watch::Sender<Option<OrgId>>,
    asked: Mutex<Vec<OrgId>>,
    taken: Mutex<BTreeMap<OrgId, Vec<u64>>>,
    /// Told of whatever it was asked or took.
    changed: Notify,
    standing: Standing,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Told {
    fn new(name: &'static str, answer: impl Fn(&SinkBatch) -> Answer + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            name,
            answer: Mutex::new(Box::new(answer)),
            held: watch::Sender::new(None),
            asked: Mutex::default(),
            taken: Mutex::default(),
            changed: Notify::new(),
            standing: Standing::default(),
        })
    }

    fn answers(&self, answer: impl Fn(&SinkBatch) -> Answer + Send + 'static) {
        *self.answer.lock().unwrap() = Box::new(answer);
    }

    fn asked(&self) -> Vec<OrgId> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// The indexes it took of an org, in the order in which they came.
    fn taken(&self, org: OrgId) -> Vec<u64> {
        self.taken.lock().unwrap().get(&org).cloned().unwrap_or_default()
    }

    async fn until(&self, reached: impl Fn(&Self) -> bool) {
        let reaching = async {
            while !reached(self) {
                self.changed.notified().await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(10), reaching).await;
        assert!(ended.is_ok(), "{self:?} never came so far");
    }
}

impl Sink for Told {
    fn name(&self) -> &str {
        self.name
    }

    fn standing(&self) -> &Standing {
        &self.standing
    }

    fn deliver<'a>(&'a self, batch: &'a SinkBatch) -> Delivery<'a> {
        self.asked.lock().unwrap().push(batch.org);
        self.changed.notify_one();
        let answer = self.answer.lock().unwrap()(batch);
        Box::pin(async move {
            let mut held = self.held.subscribe();
            held.wait_for(|held| *held != Some(batch.org)).await.unwrap();
            answer?;
            let indexes = batch.entries.iter().map(|(index, _)| *index);
            let mut taken = self.taken.lock().unwrap();
            taken.entry(batch.org).or_default().extend(indexes);
            drop(taken);
            self.changed.notify_one();
            Ok(())
        })
    }
}

fn refuses(status: u16) -> Answer {
    Err(Undelivered::Status(status).into())
}

/// All indexes before one.
fn up_to(end: u64) -> Vec<u64> {
    (0..end).collect()
}

/// An org with so many calls in its log, a second one, and the length of the first one's log.
async fn two_orgs(calls: usize) -> (World, GrantId, OrgId, u64) {
    let (world, grant) = World::connected().await;
    let second = found::found(&world.deps, "Second", "eve@second.example")
        .await
        .unwrap();
    sequence::run(&world.deps, second.org).await.unwrap();
    let length = called(&world, grant, calls).await;
    (world, grant, second.org, length)
}

/// Calls, and how long the log is with them.
async fn called(world: &World, grant: GrantId, calls: usize) -> u64 {
    for _ in 0..calls {
        world.vend(world.read(grant)).await.unwrap();
    }
    sequence::run(&world.deps, world.org).await.unwrap();
    let log = audit::log_page(&world.deps, world.org, 0, 10_000).await.unwrap();
    log.len() as u64
}

#[tokio::test]
async fn an_org_whose_entries_fail_or_are_refused_for_good_does_not_slow_the_others() {
    let (world, _, second, length) = two_orgs(450).await;
    assert!(length > 800, "more than one turn: {length}");
    for (name, status) in [("fails", 500), ("is forbidden", 403), ("refuses", 400)] {
        let sink = Told::new(name, move |batch| {
            if batch.org == second {
                refuses(status)
            } else {
                Ok(())
            }
        });
        let ended = sinks::drain(&world.deps, &*sink).await;
        assert_eq!(ended.is_err(), status != 400, "{name}: {ended:?}");
        assert_eq!(sink.taken(world.org), up_to(length), "{name}");
        // It is taken: nothing was left out.
        sink.answers(|_| Ok(()));
        sinks::drain(&world.deps, &*sink).await.unwrap();
        let log = audit::log_page(&world.deps, second, 0, 10_000).await.unwrap();
        assert_eq!(sink.taken(second), up_to(log.len() as u64), "{name}");
    }
}

async fn moved_by_another(deps: &Deps, org: OrgId, sink: &str) {
    let moved = deps.store.retry(|| async {
        let mut tx = deps.store.write(org).await?;
        let moved = tx.move_sink_cursor(org, sink, 0, 100).await?;
        tx.commit().await.map(|()| moved)
    });
    assert!(moved.await.unwrap());
}

#[tokio::test]
async fn what_another_replica_copied_meanwhile_is_left_to_it() {
    let (world, _, _, length) = two_orgs(60).await;
    assert!(length > 100, "more than one delivery: {length}");
    let (deps, org) = (Arc::clone(&world.deps), world.org);
    let sink = Told::new("shared", |_| Ok(()));
    sink.held.send_replace(Some(org));
    let there = Arc::clone(&sink);
    let look = tokio::spawn(async move { sinks::drain(&deps, &*there).await });
    sink.until(|sink| sink.asked.lock().unwrap().contains(&org)).await;
    moved_by_another(&world.deps, org, "shared").await;
    sink.held.send_replace(None);
    look.await.unwrap().unwrap();
    let asked = sink.asked();
    assert_eq!(asked.iter().filter(|asked| **asked == org).count(), 1);
    sinks::drain(&world.deps, &*sink).await.unwrap();
    assert_eq!(sink.taken(org), up_to(length));
}

#[tokio::test]
async fn an_org_whose_entries_are_left_without_an_answer_does_not_keep_the_others_waiting() {
    let (world, grant, second, length) = two_orgs(1).await;
    let sink = Told::new(
        "hangs",
        move |batch| {
            if batch.org == second { refuses(500) } else { Ok(()) }
        },
    );
    assert!(sinks::drain(&world.deps, &*sink).await.is_err());
    assert_eq!(sink.taken(world.org).len() as u64, length);
    sink.asked();
    sink.held.send_replace(Some(second));
    let (deps, there) = (Arc::clone(&world.deps), Arc::clone(&sink));
    let look = tokio::spawn(async move { sinks::drain(&deps, &*there).await });
    sink.until(|sink| sink.asked.lock().unwrap().contains(&second))
        .await;
    // What comes while it hangs.
    let longer = called(&world, grant, 1).await;
    assert!(longer > length);
    sink.until(|sink| sink.taken(world.org).len() as u64 == longer)
        .await;
    assert!(!look.is_finished());
    sink.held.send_replace(None);
    assert!(look.await.unwrap().is_err());
    assert_eq!(sink.taken(world.org), up_to(longer));
    assert!(sink.taken(second).is_empty());
}

#[tokio::test]
async fn what_lies_before_an_entry_that_is_not_taken_is_copied_and_the_entry_found_in_few_requests() {
    let (world, _, _, length) = two_orgs(40).await;
    assert!(length > 70, "{length}");
    let org = world.org;
    let holds_it =
        move |batch: &SinkBatch| batch.org == org && batch.entries.iter().any(|(index, _)| *index == 60);
    for (name, status) in [("refuses", 400), ("unreadable", 0)] {
        let sink = Told::new(name, move |batch| match (holds_it(batch), status) {
            (false, _) => Ok(()),
            (true, 0) => Err(SinkError::Entry),
            (true, status) => refuses(status),
        });
        sinks::drain(&world.deps, &*sink).await.unwrap();
        assert_eq!(sink.taken(org), up_to(60), "{name}");
        let asked = sink.asked().iter().filter(|asked| **asked == org).count();
        assert!(asked <= 14, "{name}: {asked}");
        // Then one at a time.
        sinks::drain(&world.deps, &*sink).await.unwrap();
        assert_eq!(sink.asked(), [org], "{name}");
        sink.answers(|_| Ok(()));
        sinks::drain(&world.deps, &*sink).await.unwrap();
        assert_eq!(sink.taken(org), up_to(length), "{name}");
    }
}

#[tokio::test]
async fn a_receiver_of_small_messages_gets_all_entries() {
    let (world, _, _, length) = two_orgs(10).await;
    let sink = Told::new("small", |batch| {
        if batch.entries.len() > 3 {
            refuses(413)
        } else {
            Ok(())
        }
    });
    sinks::drain(&world.deps, &*sink).await.unwrap();
    assert_eq!(sink.taken(world.org), up_to(length));
}

/// A receiver on loopback that has too much to do, and what it was asked.
async fn busy(status: StatusCode, headers: &[(&'static str, &str)]) -> (Arc<AtomicUsize>, WebhookSink) {
    let asked: Arc<AtomicUsize> = Arc::default();
    let there = Arc::clone(&asked);
    let mut said = HeaderMap::new();
    for (name, value) in headers {
        said.insert(*name, value.parse().unwrap());
    }
    let take = move || async move {
        there.fetch_add(1, Ordering::SeqCst);
        (status, said)
    };
    let (listener, origin) = loopback::listen().await;
    tokio::spawn(loopback::serve(listener, Router::new().route("/in", post(take))));
    let key = WebhookKey::parse(SECRET).unwrap();
    let url = format!("{origin}/in").parse().unwrap();
    let hook = Webhook::new(url, key, operator_client().unwrap());
    (asked, WebhookSink::new("busy".to_owned(), hook))
}

#[tokio::test]
async fn a_receiver_is_left_alone_for_as_long_as_it_says_an_hour_at_most() {
    let (world, _) = World::connected().await;
    log(&world).await;
    let too_much = StatusCode::TOO_MANY_REQUESTS;
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    let date = ("date", "Tue, 15 Nov 1994 08:00:00 GMT");
    assert!(Time::parse_http_date(date.1).is_some());
    for (status, headers, seconds) in [
        (too_much, vec![("retry-after", "120")], 120),
        (too_much, vec![("retry-after", "1")], 10),
        (too_much, vec![], 10),
        (unavailable, vec![("retry-after", "30")], 30),
        (
            unavailable,
            vec![("retry-after", "Tue, 15 Nov 1994 08:01:30 GMT"), date],
            90,
        ),
        (unavailable, vec![("retry-after", "86400")], 3600),
    ] {
        let (asked, sink) = busy(status, &headers).await;
        let asked = || asked.load(Ordering::SeqCst);
        assert!(sinks::drain(&world.deps, &sink).await.is_err());
        assert_eq!(asked(), 1, "{headers:?}");
        world.later(Duration::from_secs(seconds - 1));
        assert_eq!(sinks::drain(&world.deps, &sink).await.unwrap(), 0, "{headers:?}");
        assert_eq!(asked(), 1, "{headers:?}");
        world.later(Duration::from_secs(1));
        assert!(sinks::drain(&world.deps, &sink).await.is_err());
        assert_eq!(asked(), 2, "{headers:?}");
    }
}
