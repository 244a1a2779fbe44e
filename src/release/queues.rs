//! The queues before the gate: one per org, served in turn, so that one tenant's flood is that tenant's own wait.
//!
//! Nothing here waits or does I/O: [`Queues`] is the order, `release::gate` puts requests in and takes
//! batches out.

use std::collections::{HashMap, VecDeque};

use crate::domain::OrgId;

/// A place in an org's queue, for whoever gives it up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    org: OrgId,
    number: u64,
}

/// Everybody who waits.
#[derive(Debug)]
pub(super) struct Queues<T> {
    /// How many of one org go into one batch: it is no longer than what shares it has to wait for.
    share: usize,
    orgs: HashMap<OrgId, Queue<T>>,
    /// The orgs that have somebody to serve and are not held, each once, in the order of their turns.
    turns: VecDeque<OrgId>,
    waiting: usize,
    next: u64,
}

#[derive(Debug)]
struct Queue<T> {
    places: VecDeque<Place<T>>,
    /// How many wait for this org elsewhere; while any does, nobody else of the org is served.
    holds: usize,
}

#[derive(Debug)]
struct Place<T> {
    number: u64,
    item: T,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            places: VecDeque::new(),
            holds: 0,
        }
    }
}

impl<T> Queues<T> {
    pub(super) fn new(share: usize) -> Self {
        Self {
            share,
            orgs: HashMap::new(),
            turns: VecDeque::new(),
            waiting: 0,
            next: 0,
        }
    }

    /// Puts somebody at the end of their org's queue.
    pub(super) fn join(&mut self, org: OrgId, item: T) -> Ticket {
        let number = self.next;
        self.next += 1;
        let queue = self.orgs.entry(org).or_default();
        if queue.places.is_empty() && queue.holds == 0 {
            self.turns.push_back(org);
        }
        queue.places.push_back(Place { number, item });
        self.waiting += 1;
        Ticket { org, number }
    }

    /// Gives a place up, if it was not served yet.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        let Some(queue) = self.orgs.get_mut(&ticket.org) else {
            return;
        };
        let found = queue
            .places
            .binary_search_by_key(&ticket.number, |place| place.number);
        if found.ok().and_then(|index| queue.places.remove(index)).is_none() {
            return;
        }
        self.waiting -= 1;
        if queue.places.is_empty() {
            self.turns.retain(|org| *org != ticket.org);
            self.tidy(ticket.org);
        }
    }

    /// The org that is served next.
    pub(super) fn first(&self) -> Option<OrgId> {
        self.turns.front().copied()
    }

    /// The next batch: one of each org in turn, until `most` are taken or each org has its share or nobody is left.
    pub(super) fn take(&mut self, most: usize) -> Vec<T> {
        let mut batch = Vec::with_capacity(most.min(self.waiting));
        let mut shares: HashMap<OrgId, usize> = HashMap::new();
        // Orgs that have had their share of this batch; the next one begins with the others.
        let mut served = Vec::new();
        while batch.len() < most
            && let Some(org) = self.turns.pop_front()
        {
            let Some(queue) = self.orgs.get_mut(&org) else {
                continue;
            };
            let Some(place) = queue.places.pop_front() else {
                continue;
            };
            self.waiting -= 1;
            batch.push(place.item);
            if queue.places.is_empty() {
                self.tidy(org);
                continue;
            }
            let share = shares.entry(org).or_default();
            *share += 1;
            if *share < self.share {
                self.turns.push_back(org);
            } else {
                served.push(org);
            }
        }
        self.turns.extend(served);
        batch
    }

    /// From here on nobody of the org is served: some of it wait elsewhere, holding up nobody else.
    pub(super) fn hold(&mut self, org: OrgId) {
        self.orgs.entry(org).or_default().holds += 1;
        self.turns.retain(|turn| *turn != org);
    }

    /// Ends one [`Self::hold`].
    pub(super) fn free(&mut self, org: OrgId) {
        let Some(queue) = self.orgs.get_mut(&org) else {
            return;
        };
        queue.holds = queue.holds.saturating_sub(1);
        if queue.holds == 0 && !queue.places.is_empty() {
            self.turns.push_back(org);
        }
        self.tidy(org);
    }

    /// An org with nobody waiting and nothing to remember costs nothing.
    fn tidy(&mut self, org: OrgId) {
        if self
            .orgs
            .get(&org)
            .is_some_and(|queue| queue.places.is_empty() && queue.holds == 0)
        {
            self.orgs.remove(&org);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: usize = usize::MAX;

    fn org(number: u8) -> OrgId {
        OrgId::from_bytes([number; 16])
    }

    /// Puts `items` of one org in.
    fn queue(queues: &mut Queues<u32>, of: u8, items: impl IntoIterator<Item = u32>) {
        for item in items {
            queues.join(org(of), item);
        }
    }

    #[test]
    fn a_single_request_rides_in_the_next_batch_although_ten_thousand_of_another_org_wait() {
        let mut queues = Queues::new(WIDE);
        queue(&mut queues, 1, 0..10_000);
        queue(&mut queues, 2, [77_777]);
        let batch = queues.take(256);
        assert_eq!(batch.len(), 256);
        assert_eq!(batch.iter().position(|item| *item == 77_777), Some(1));
    }

    #[test]
    fn orgs_take_turns_and_each_is_served_in_its_own_order() {
        let mut queues = Queues::new(WIDE);
        queue(&mut queues, 1, 10..14);
        queue(&mut queues, 2, 20..22);
        queue(&mut queues, 3, 30..31);
        assert_eq!(queues.take(5), [10, 20, 30, 11, 21]);
        assert_eq!(queues.take(5), [12, 13]);
        assert!(queues.take(5).is_empty());
    }

    #[test]
    fn a_batch_goes_on_where_the_one_before_it_ended() {
        let mut queues = Queues::new(WIDE);
        for of in 1..=4 {
            queue(&mut queues, of, [u32::from(of) * 10, u32::from(of) * 10 + 1]);
        }
        assert_eq!(queues.take(3), [10, 20, 30]);
        assert_eq!(queues.take(3), [40, 11, 21]);
    }

    #[test]
    fn one_org_fills_no_more_than_its_share_of_a_batch() {
        let mut queues = Queues::new(3);
        queue(&mut queues, 1, 10..20);
        queue(&mut queues, 2, [20]);
        assert_eq!(queues.take(100), [10, 20, 11, 12]);
        queue(&mut queues, 2, [21]);
        assert_eq!(queues.take(100), [13, 21, 14, 15]);
        assert_eq!(queues.take(100), [16, 17, 18]);
        assert_eq!(queues.take(100), [19]);
    }

    #[test]
    fn whoever_leaves_is_not_served() {
        let mut queues = Queues::new(WIDE);
        let first = queues.join(org(1), 0);
        let second = queues.join(org(1), 1);
        queues.leave(first);
        queues.leave(first);
        queues.join(org(2), 2);
        assert_eq!(queues.take(9), [1, 2]);
        // Served already: leaving changes nothing for those who came since.
        queues.join(org(1), 3);
        queues.leave(second);
        assert_eq!(queues.take(9), [3]);
        assert!(
            queues.orgs.is_empty(),
            "nothing is remembered of orgs nobody waits for"
        );
    }

    #[test]
    fn an_org_whose_last_one_left_has_no_turn() {
        let mut queues = Queues::new(WIDE);
        let only = queues.join(org(1), 0);
        queue(&mut queues, 2, [1]);
        queues.leave(only);
        assert_eq!(queues.take(9), [1]);
        queue(&mut queues, 1, [2, 3]);
        assert_eq!(queues.take(9), [2, 3], "and has one again, once");
    }

    #[test]
    fn a_held_org_waits_and_holds_up_nobody() {
        let mut queues = Queues::new(WIDE);
        queue(&mut queues, 1, [10]);
        queues.hold(org(1));
        queues.hold(org(1));
        queue(&mut queues, 1, [11]);
        queue(&mut queues, 2, [20]);
        assert_eq!(queues.take(9), [20]);
        queues.free(org(1));
        assert!(queues.take(9).is_empty(), "held twice, freed once");
        queues.free(org(1));
        assert_eq!(queues.take(9), [10, 11]);
        assert!(queues.orgs.is_empty());
    }
}
