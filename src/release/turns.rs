//! Whose turn it is to be judged: deciding, signing and verifying are one piece of work that takes a processor longer than
//! everything else a request needs.
//!
//! Without turns, whoever is let in stands for it in the runtime's own queue, which knows no orgs: a refusal of microseconds
//! waits there for all of them, and so does another org's only call. Here few are ready to run at a time, each org in turn.
//! And while several orgs come, none is given a turn while it has more calls between their turn and their answer than all others
//! together, but for a few: with every processor busy for one org, another's call would wait for one at each of its steps. Two
//! orgs that are both busy, or of which one waits at the gate for a change of its own, are bounded only by each other: beside
//! them a third finds a machine that is full, as it would beside a hundred. Nothing here does I/O.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use crate::domain::OrgId;

use super::queues::{Queues, Ticket};

/// Everybody who waits to be judged. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Mutex<Line>>);

#[derive(Debug)]
struct Line {
    /// How many more may be judged at this moment.
    free: usize,
    /// How many more than all others together an org may have under way while others come, where the database is near.
    more: usize,
    batches: Batches,
    waiting: Queues<(OrgId, oneshot::Sender<Turn>)>,
    /// The org that has as many under way as it may: nobody else of it is served. No two orgs can have more than all others
    /// together.
    held: Option<OrgId>,
    under_way: HashMap<OrgId, usize>,
    /// Of all orgs.
    all_under_way: usize,
    arrivals: Arrivals,
}

/// The two orgs that came last, the later one first.
#[derive(Debug, Default)]
struct Arrivals([Option<(OrgId, Instant)>; 2]);

/// The least that a batch took lately, from its beginning to the end of its commit: what it takes however little there is to do.
#[derive(Debug, Default)]
struct Batches {
    /// Of the last [`COUNTED`] that were counted, and of those since.
    least: [Option<Duration>; 2],
    since: u32,
}

/// A turn to be judged, and after that the way to the answer; both end when it is dropped. Nothing may be waited for before
/// [`Turn::judged`], and after that nothing but the gate.
#[derive(Debug)]
#[must_use]
pub(super) struct Turn {
    line: Option<Arc<Mutex<Line>>>,
    org: OrgId,
    judging: bool,
}

/// A place in the line. Whoever goes away before being served gives it up.
#[derive(Debug)]
struct Queued<'a> {
    line: &'a Mutex<Line>,
    ticket: Ticket,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        locked(self.line).waiting.leave(self.ticket);
    }
}

impl Turns {
    /// As many at a time as keep so many processors busy.
    pub(super) fn new(processors: usize) -> Self {
        Self::of(
            processors.saturating_mul(PER_PROCESSOR),
            processors.saturating_mul(MORE_PER_PROCESSOR),
        )
    }

    fn of(free: usize, more: usize) -> Self {
        Self(Arc::new(Mutex::new(Line {
            free,
            more,
            batches: Batches::default(),
            waiting: Queues::new(usize::MAX),
            held: None,
            under_way: HashMap::new(),
            all_under_way: 0,
            arrivals: Arrivals::default(),
        })))
    }

    /// Waits for the org's turn.
    pub(super) async fn wait(&self, org: OrgId) -> Turn {
        let (give, given) = oneshot::channel();
        let queued = {
            let mut line = locked(&self.0);
            line.arrivals.saw(org, Instant::now());
            let ticket = line.waiting.join(org, (org, give));
            let line = &*self.0;
            Queued { line, ticket }
        };
        serve(&self.0);
        let turn = given.await;
        drop(queued);
        // The line lives as long as `self`: it would have to lose a turn. Order is all that is lost then.
        turn.unwrap_or(Turn {
            line: None,
            org,
            judging: false,
        })
    }

    /// A batch that wrote something took so long. Calls that wait for a distant database keep no processor busy, so an org may
    /// have more of them under way, from the next event on.
    pub(super) fn committed(&self, took: Duration) {
        locked(&self.0).batches.count(took);
    }
}

impl Line {
    fn must_wait(&self, org: OrgId, now: Instant) -> bool {
        let count = self.under_way.get(&org).copied().unwrap_or(0);
        let others = self.all_under_way - count;
        let more = self.more.saturating_mul(self.batches.distance());
        count >= others.saturating_add(more) && self.arrivals.others_since(org, now)
    }

    /// Who is next, if anybody may be.
    fn next(&mut self) -> Option<(OrgId, oneshot::Sender<Turn>)> {
        let now = Instant::now();
        if let Some(org) = self.held
            && !self.must_wait(org, now)
        {
            self.held = None;
            self.waiting.free(org);
        }
        while self.free > 0 {
            let org = self.waiting.first()?;
            if self.must_wait(org, now) {
                self.waiting.hold(org);
                self.held = Some(org);
                continue;
            }
            let next = self.waiting.take(1).pop()?;
            self.free -= 1;
            self.all_under_way += 1;
            *self.under_way.entry(org).or_default() += 1;
            return Some(next);
        }
        None
    }

    /// One of the org has its answer.
    fn end(&mut self, org: OrgId) {
        let Some(count) = self.under_way.get_mut(&org) else {
            return;
        };
        *count -= 1;
        self.all_under_way -= 1;
        if *count == 0 {
            self.under_way.remove(&org);
        }
    }
}

impl Arrivals {
    fn saw(&mut self, org: OrgId, now: Instant) {
        if self.0[0].is_some_and(|(last, _)| last != org) {
            self.0.swap(0, 1);
        }
        self.0[0] = Some((org, now));
    }

    /// Whether another org came lately.
    fn others_since(&self, org: OrgId, now: Instant) -> bool {
        let [last, before] = self.0;
        let other = if last.is_some_and(|(last, _)| last == org) {
            before
        } else {
            last
        };
        other.is_some_and(|(_, at)| now.saturating_duration_since(at) < LATELY)
    }
}

impl Batches {
    fn count(&mut self, took: Duration) {
        let least = self.least[1].map_or(took, |least| least.min(took));
        self.least[1] = Some(least);
        self.since += 1;
        if self.since == COUNTED {
            *self = Self {
                least: [Some(least), None],
                since: 0,
            };
        }
    }

    /// 1 where the database is near.
    fn distance(&self) -> usize {
        let least = self.least.into_iter().flatten().min().unwrap_or_default();
        usize::try_from(least.as_micros() / NEAR.as_micros()).map_or(usize::MAX, |far| far.saturating_add(1))
    }
}

impl Turn {
    fn given(line: &Arc<Mutex<Line>>, org: OrgId) -> Self {
        Self {
            line: Some(Arc::clone(line)),
            org,
            judging: true,
        }
    }

    /// The processor is free for the next one.
    pub(super) fn judged(&mut self) {
        if let Some(line) = &self.line
            && mem::take(&mut self.judging)
        {
            locked(line).free += 1;
            serve(line);
        }
    }

    /// What it took is given back; whoever waits is not served yet.
    fn give_back(&mut self) -> Option<Arc<Mutex<Line>>> {
        let line = self.line.take()?;
        let mut taken = locked(&line);
        taken.free += usize::from(self.judging);
        taken.end(self.org);
        drop(taken);
        Some(line)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(line) = self.give_back() {
            serve(&line);
        }
    }
}

/// Gives turns to whoever may have one.
fn serve(line: &Arc<Mutex<Line>>) {
    loop {
        let next = locked(line).next();
        let Some((org, give)) = next else { return };
        if let Err(mut gone) = give.send(Turn::given(line, org)) {
            gone.give_back();
        }
    }
}

fn locked(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One that is judged and one that is next: no processor waits for whoever is woken.
const PER_PROCESSOR: usize = 2;
/// So few of one org leave a processor free most of the time (docs/benchmarks.md).
const MORE_PER_PROCESSOR: usize = 2;
/// The fastest of many batches takes less than this where the database is near, however busy it is. For each time as long that
/// they are waited for, the processors get through as many more.
const NEAR: Duration = Duration::from_millis(5);
/// An org that came within this time may come again.
const LATELY: Duration = Duration::from_secs(1);
/// So many last longer than a flood: a database seldom moves.
const COUNTED: u32 = 4096;

#[cfg(test)]
mod tests;
