//! Whose turn it is to be judged: deciding, signing and verifying are one piece of work that takes a processor longer than
//! everything else a request needs.
//!
//! Without turns, whoever is let in stands for it in the runtime's own queue, which knows no orgs: a refusal of microseconds
//! waits there for all of them, and so does another org's only call. Here few are ready to run at a time, each org in turn.
//! And while several orgs come, none may have more calls between their turn and their answer than all others together, but for
//! a few: with every processor busy for one org, another's call would wait for one at each of its steps. Nothing here does
//! I/O.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use crate::domain::OrgId;

use super::queues::Queues;

/// Everybody who waits to be judged. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Mutex<Line>>);

#[derive(Debug)]
struct Line {
    /// How many more may be judged at this moment.
    free: usize,
    /// How many more than all others together an org may have under way while others come.
    more: usize,
    waiting: Queues<(OrgId, oneshot::Sender<Turn>)>,
    under_way: HashMap<OrgId, UnderWay>,
    /// Of all orgs.
    all_under_way: usize,
    last: Last,
}

#[derive(Debug, Default)]
struct UnderWay {
    count: usize,
    /// Nobody else of the org has a turn before one of these ends.
    held: bool,
}

/// The two orgs that came last, the later one first.
#[derive(Debug, Default)]
struct Last([Option<(OrgId, Instant)>; 2]);

/// A turn to be judged, and after that the way to the answer; both end when it is dropped. Nothing may be waited for before
/// [`Turn::judged`].
#[derive(Debug)]
#[must_use]
pub(super) struct Turn {
    line: Option<Arc<Mutex<Line>>>,
    org: OrgId,
    judging: bool,
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
            waiting: Queues::new(usize::MAX),
            under_way: HashMap::new(),
            all_under_way: 0,
            last: Last::default(),
        })))
    }

    /// Waits for the org's turn.
    pub(super) async fn next(&self, org: OrgId) -> Turn {
        let given = {
            let mut line = locked(&self.0);
            let now = Instant::now();
            line.last.saw(org, now);
            if line.free > 0 && !line.must_wait(org, now) {
                line.begin(org, now);
                return Turn::given(&self.0, org);
            }
            let (give, given) = oneshot::channel();
            line.waiting.join(org, (org, give));
            line.hold_if_full(org, now);
            given
        };
        // The line lives as long as `self`: it would have to lose a turn. Order is all that is lost then.
        given.await.unwrap_or(Turn {
            line: None,
            org,
            judging: false,
        })
    }
}

impl Line {
    fn must_wait(&self, org: OrgId, now: Instant) -> bool {
        let count = self.under_way.get(&org).map_or(0, |of_org| of_org.count);
        let others = self.all_under_way - count;
        count >= others + self.more && self.last.others(org, now)
    }

    fn begin(&mut self, org: OrgId, now: Instant) {
        self.free -= 1;
        self.all_under_way += 1;
        self.under_way.entry(org).or_default().count += 1;
        self.hold_if_full(org, now);
    }

    fn hold_if_full(&mut self, org: OrgId, now: Instant) {
        if !self.must_wait(org, now) {
            return;
        }
        let of_org = self.under_way.entry(org).or_default();
        if !mem::replace(&mut of_org.held, true) {
            self.waiting.hold(org);
        }
    }

    /// One of the org has its answer.
    fn end(&mut self, org: OrgId) {
        let Some(of_org) = self.under_way.get_mut(&org) else {
            return;
        };
        of_org.count -= 1;
        self.all_under_way -= 1;
        if of_org.count == 0 {
            if of_org.held {
                self.waiting.free(org);
            }
            self.under_way.remove(&org);
        } else if of_org.held && !self.must_wait(org, Instant::now()) {
            self.waiting.free(org);
            self.under_way.entry(org).or_default().held = false;
        }
    }

    /// Who is next, if anybody may be.
    fn next(&mut self) -> Option<(OrgId, oneshot::Sender<Turn>)> {
        let now = Instant::now();
        while self.free > 0 {
            let (org, give) = self.waiting.take(1).pop()?;
            if give.is_closed() {
                continue;
            }
            self.begin(org, now);
            return Some((org, give));
        }
        None
    }
}

impl Last {
    fn saw(&mut self, org: OrgId, now: Instant) {
        if self.0[0].is_some_and(|(last, _)| last != org) {
            self.0.swap(0, 1);
        }
        self.0[0] = Some((org, now));
    }

    /// Whether another org came lately.
    fn others(&self, org: OrgId, now: Instant) -> bool {
        let [last, before] = self.0;
        let other = if last.is_some_and(|(last, _)| last == org) {
            before
        } else {
            last
        };
        other.is_some_and(|(_, at)| now.saturating_duration_since(at) < LATELY)
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
            pass_on(line);
        }
    }

    /// What it took is given back; who is next is not asked.
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
            pass_on(&line);
        }
    }
}

/// Gives turns to whoever may have one.
fn pass_on(line: &Arc<Mutex<Line>>) {
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
/// An org that came within this time may come again.
const LATELY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    fn org(number: u8) -> OrgId {
        OrgId::from_bytes([number; 16])
    }

    type Waits<'a> = Pin<Box<dyn Future<Output = Turn> + 'a>>;

    /// Comes, and has the turn if there is one.
    fn come(turns: &Turns, number: u8) -> (Waits<'_>, Option<Turn>) {
        let mut waits: Waits<'_> = Box::pin(turns.next(org(number)));
        let turn = look(&mut waits);
        (waits, turn)
    }

    fn look(waits: &mut Waits<'_>) -> Option<Turn> {
        match waits.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn there_are_so_many_turns_and_whoever_comes_first_waits_for_nobody() {
        let turns = Turns::of(2, 9);
        let (_, first) = come(&turns, 1);
        let (_, second) = come(&turns, 1);
        let (mut third, none) = come(&turns, 1);
        assert!(first.is_some() && second.is_some() && none.is_none());
        drop(first);
        assert!(look(&mut third).is_some());
    }

    #[test]
    fn another_org_is_next_however_many_of_the_first_wait() {
        let turns = Turns::of(1, 9);
        let (_, held) = come(&turns, 1);
        let mut flood: Vec<_> = (0..100).map(|_| come(&turns, 1).0).collect();
        let (mut other, none) = come(&turns, 2);
        assert!(none.is_none());
        drop(held);
        let turn = look(&mut flood[0]);
        assert!(turn.is_some(), "it came first");
        assert!(look(&mut other).is_none());
        drop(turn);
        assert!(look(&mut other).is_some());
        assert!(look(&mut flood[1]).is_some(), "and then the first org's again");
    }

    #[test]
    fn a_turn_of_somebody_who_is_gone_goes_to_the_next() {
        let turns = Turns::of(1, 9);
        let (_, held) = come(&turns, 1);
        let (gone, _) = come(&turns, 1);
        let (told, _) = come(&turns, 1);
        let (mut last, _) = come(&turns, 1);
        drop(gone);
        drop(held);
        // Given its turn, and gone before it could take it.
        drop(told);
        let turn = look(&mut last);
        assert!(turn.is_some(), "nobody else is there");
        drop((turn, last));
        assert_eq!(locked(&turns.0).free, 1);
        assert_eq!(Arc::strong_count(&turns.0), 1, "nothing is left over");
    }

    /// Judged, and not answered yet.
    fn under_way(turn: Option<Turn>) -> Turn {
        let mut turn = turn.unwrap();
        turn.judged();
        turn
    }

    #[test]
    fn an_org_that_comes_alone_may_have_everybody_under_way() {
        let turns = Turns::of(1, 2);
        let all: Vec<_> = (0..100).map(|_| under_way(come(&turns, 1).1)).collect();
        assert_eq!(locked(&turns.0).under_way[&org(1)].count, 100);
        drop(all);
        assert!(locked(&turns.0).under_way.is_empty());
    }

    #[test]
    fn while_others_come_an_org_has_no_more_under_way_than_they_have_but_for_a_few() {
        let turns = Turns::of(2, 2);
        let mut all: Vec<_> = (0..4).map(|_| under_way(come(&turns, 1).1)).collect();
        let other = under_way(come(&turns, 2).1);
        let (mut waits, none) = come(&turns, 1);
        assert!(none.is_none(), "although nobody is judged");
        all.pop();
        assert!(
            look(&mut waits).is_none(),
            "three are under way still, and one of the other org"
        );
        all.pop();
        let turn = look(&mut waits);
        assert!(turn.is_some());
        let (gone, none) = come(&turns, 1);
        assert!(none.is_none(), "three are under way again");
        drop((gone, all, turn, other));
        let line = locked(&turns.0);
        assert_eq!((line.free, line.all_under_way), (2, 0));
        assert!(line.under_way.is_empty());
    }

    #[test]
    fn two_busy_orgs_have_everybody_under_way() {
        let turns = Turns::of(2, 2);
        let (mut going, mut waiting) = (Vec::new(), Vec::new());
        for number in (0..40).map(|call| 1 + call % 2) {
            let (waits, turn) = come(&turns, number);
            match turn {
                Some(turn) => going.push(under_way(Some(turn))),
                None => waiting.push(waits),
            }
        }
        assert_eq!(going.len() + waiting.len(), 40);
        assert!(waiting.is_empty(), "{} wait", waiting.len());
    }

    #[test]
    fn an_org_comes_alone_when_no_other_has_come_for_a_while() {
        let (mut last, now) = (Last::default(), Instant::now());
        last.saw(org(1), now);
        last.saw(org(1), now);
        assert!(!last.others(org(1), now));
        assert!(last.others(org(2), now));
        last.saw(org(2), now);
        last.saw(org(2), now + LATELY / 2);
        last.saw(org(3), now + LATELY / 2);
        assert!(last.others(org(1), now + LATELY));
        assert!(last.others(org(3), now + LATELY), "the second");
        let late = now + LATELY / 2 + LATELY;
        assert!(!last.others(org(3), late));
        last.saw(org(2), late);
        assert!(!last.others(org(2), late), "the third came too long ago");
        assert!(last.others(org(3), late));
    }
}
