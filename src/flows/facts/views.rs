//! What is remembered, org by org: views of agents and grants of one epoch, and whose key is whose. Whatever is
//! forgotten or asked of one org costs nothing for what is held of the others.
//!
//! A database that goes back repeats an epoch with other facts. So what was read is only for those who asked before that
//! read began, until this process has committed at its epoch: a database without that epoch's facts then lacks a number of
//! this process, too, and the gate notices.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    domain::{AgentId, GrantId, OrgId, entry::Epoch},
    flows::actions::Caller,
};

/// When something was asked for, or a read of it began, in the order of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(pub(super) u64);

/// Views of agents (`A`) and of grants (`G`).
#[derive(Debug)]
pub(super) struct Views<A, G> {
    orgs: HashMap<OrgId, OfOrg<A, G>>,
    callers: HashMap<[u8; 32], Caller>,
    held: usize,
}

/// INVARIANT: every view in here was read at `epoch`.
#[derive(Debug)]
struct OfOrg<A, G> {
    epoch: Option<Epoch>,
    /// Views read since then are for everybody.
    proven: Option<Moment>,
    agents: HashMap<AgentId, Held<A>>,
    grants: HashMap<GrantId, HashMap<AgentId, Held<G>>>,
    keys: HashSet<[u8; 32]>,
    held: usize,
}

#[derive(Debug)]
struct Held<V> {
    view: Arc<V>,
    read: Moment,
}

impl<V> Held<V> {
    fn good_for(&self, asked: Moment, proven: Option<Moment>) -> Option<Arc<V>> {
        let is_good = self.read > asked || proven.is_some_and(|since| since <= self.read);
        is_good.then(|| Arc::clone(&self.view))
    }
}

impl<A, G> Default for Views<A, G> {
    fn default() -> Self {
        Self {
            orgs: HashMap::new(),
            callers: HashMap::new(),
            held: 0,
        }
    }
}

impl<A, G> Default for OfOrg<A, G> {
    fn default() -> Self {
        Self {
            epoch: None,
            proven: None,
            agents: HashMap::new(),
            grants: HashMap::new(),
            keys: HashSet::new(),
            held: 0,
        }
    }
}

impl<A, G> Views<A, G> {
    /// The agent that came with a key of this keyed hash.
    pub(super) fn caller(&self, hash: &[u8; 32]) -> Option<Caller> {
        self.callers.get(hash).copied()
    }

    /// Remembers whose key it is.
    pub(super) fn keep_caller(&mut self, hash: [u8; 32], caller: Caller) {
        self.make_room(caller.org);
        let of = self.orgs.entry(caller.org).or_default();
        if of.keys.insert(hash) {
            of.held += CALLER;
            self.held += CALLER;
        }
        self.callers.insert(hash, caller);
    }

    /// What is held of an agent for whoever asked then.
    pub(super) fn agent(&self, org: OrgId, agent: AgentId, asked: Moment) -> Option<Arc<A>> {
        let of = self.orgs.get(&org)?;
        of.agents.get(&agent)?.good_for(asked, of.proven)
    }

    /// What is held of a grant for an agent, for whoever asked then.
    pub(super) fn grant(&self, org: OrgId, agent: AgentId, grant: GrantId, asked: Moment) -> Option<Arc<G>> {
        let of = self.orgs.get(&org)?;
        of.grants.get(&grant)?.get(&agent)?.good_for(asked, of.proven)
    }

    /// Holds what was read of an agent at `epoch`.
    pub(super) fn keep_agent(
        &mut self,
        org: OrgId,
        epoch: Epoch,
        agent: AgentId,
        view: Arc<A>,
        read: Moment,
    ) {
        let Some(of) = self.at(org, epoch) else { return };
        if of.agents.insert(agent, Held { view, read }).is_none() {
            of.held += AGENT;
            self.held += AGENT;
        }
    }

    /// Holds what was read of a grant for an agent at `epoch`.
    pub(super) fn keep_grant(
        &mut self,
        org: OrgId,
        epoch: Epoch,
        (agent, grant): (AgentId, GrantId),
        view: Arc<G>,
        read: Moment,
    ) {
        let Some(of) = self.at(org, epoch) else { return };
        let of_grant = of.grants.entry(grant).or_default();
        if of_grant.insert(agent, Held { view, read }).is_none() {
            of.held += GRANT;
            self.held += GRANT;
        }
    }

    /// The org's place for what was read at `epoch`, empty of anything earlier; `None` if others have read since what came
    /// after it: two epochs must not be mixed.
    fn at(&mut self, org: OrgId, epoch: Epoch) -> Option<&mut OfOrg<A, G>> {
        self.forget_before(org, epoch);
        self.make_room(org);
        let of = self.orgs.entry(org).or_default();
        let epoch_held = *of.epoch.get_or_insert(epoch);
        (epoch_held == epoch).then_some(of)
    }

    /// This process has committed at `epoch` on views of which the last was read then.
    ///
    /// INVARIANT: called after the commit, whose number every later batch expects. Views read before then may be of another
    /// history than the commit.
    pub(super) fn prove(&mut self, org: OrgId, epoch: Epoch, read: Moment) {
        let Some(of) = self.orgs.get_mut(&org) else { return };
        if of.epoch == Some(epoch) {
            of.proven = Some(of.proven.map_or(read, |since| since.min(read)));
        }
    }

    /// Forgets what was read of the org before `epoch`; what others have read since stays.
    pub(super) fn forget_before(&mut self, org: OrgId, epoch: Epoch) {
        let held = self.orgs.get(&org).and_then(|of| of.epoch);
        if held.is_some_and(|held| held.is_before(epoch)) {
            self.forget(org);
        }
    }

    /// Forgets whose keys are the org's.
    pub(super) fn forget_callers(&mut self, org: OrgId) {
        let Some(of) = self.orgs.get_mut(&org) else { return };
        for hash in std::mem::take(&mut of.keys) {
            self.callers.remove(&hash);
            of.held -= CALLER;
            self.held -= CALLER;
        }
    }

    /// Forgets what was read of one grant.
    pub(super) fn forget_grant(&mut self, org: OrgId, grant: GrantId) {
        let Some(of) = self.orgs.get_mut(&org) else { return };
        let gone = of.grants.remove(&grant).map_or(0, |views| views.len() * GRANT);
        of.held -= gone;
        self.held -= gone;
    }

    /// Forgets all of an org.
    pub(super) fn forget(&mut self, org: OrgId) {
        let Some(of) = self.orgs.remove(&org) else { return };
        for hash in &of.keys {
            self.callers.remove(hash);
        }
        self.held -= of.held;
    }

    /// INVARIANT: never more than [`MOST`] is held. What is read afresh then is the asking org's, if it holds more than its
    /// share, else that of whoever holds most: many grants in use cost other orgs nothing.
    fn make_room(&mut self, asking: OrgId) {
        while self.held + GRANT > MOST {
            if self.orgs.len() > MOST / GRANT {
                // So many that none holds much: to look for the one that does would take longer.
                *self = Self::default();
                return;
            }
            let share = MOST / self.orgs.len().max(1);
            let most = || {
                self.orgs
                    .iter()
                    .max_by_key(|(_, of)| of.held)
                    .map(|(org, _)| *org)
            };
            let own = self.orgs.get(&asking).map_or(0, |of| of.held);
            let Some(org) = (own >= share).then_some(asking).or_else(most) else {
                return;
            };
            self.forget(org);
        }
    }
}

/// What is held at most, in units of about 256 bytes: 64 MiB, some 2,000 grants with what policy is asked about them where
/// they share their org's policies.
const MOST: usize = 1 << 18;
const CALLER: usize = 1;
const AGENT: usize = 1 << 4;
const GRANT: usize = 1 << 7;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::domain::KeyId;

    type Numbers = Views<u64, u64>;

    fn org(n: u8) -> OrgId {
        OrgId::from_bytes([n; 16])
    }

    fn agent() -> AgentId {
        AgentId::from_bytes([9; 16])
    }

    fn grant(n: u64) -> GrantId {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&n.to_be_bytes());
        GrantId::from_bytes(bytes)
    }

    fn epoch(counter: i64) -> Epoch {
        Epoch {
            incarnation: 1,
            counter,
        }
    }

    /// Everything in these tests is read after it was asked for, unless said.
    const ASKED: Moment = Moment(0);
    const READ: Moment = Moment(1);

    fn hold(views: &mut Numbers, n: u64, counter: i64) {
        hold_of(views, org(1), n, counter, READ);
    }

    fn hold_of(views: &mut Numbers, org: OrgId, n: u64, counter: i64, read: Moment) {
        views.keep_grant(org, epoch(counter), (agent(), grant(n)), Arc::new(n), read);
    }

    fn held(views: &Numbers, org: OrgId, n: u64) -> bool {
        views.grant(org, agent(), grant(n), ASKED).is_some()
    }

    fn caller(of: OrgId) -> Caller {
        Caller {
            org: of,
            agent: agent(),
            key: KeyId::from_bytes([7; 16]),
        }
    }

    #[test]
    fn what_is_read_later_replaces_all_that_came_before_and_nothing_older_joins_it() {
        let mut views = Numbers::default();
        views.keep_agent(org(1), epoch(1), agent(), Arc::new(0), READ);
        hold(&mut views, 1, 1);
        views.keep_caller([1; 32], caller(org(1)));
        views.keep_caller([2; 32], caller(org(2)));
        hold(&mut views, 2, 2);
        assert!(views.agent(org(1), agent(), ASKED).is_none());
        assert!(!held(&views, org(1), 1));
        assert!(views.caller(&[1; 32]).is_none());
        assert!(views.caller(&[2; 32]).is_some(), "another org's stays");
        hold(&mut views, 1, 1);
        assert!(!held(&views, org(1), 1), "read too slowly");
        assert!(held(&views, org(1), 2));
        assert_eq!(views.orgs[&org(1)].epoch, Some(epoch(2)));
        let other = Epoch {
            incarnation: 2,
            counter: 1,
        };
        views.keep_grant(org(1), other, (agent(), grant(3)), Arc::new(3), READ);
        assert!(!held(&views, org(1), 2), "another history");
        assert_eq!(views.orgs[&org(1)].epoch, Some(other));
    }

    /// What a database says that went back after the first was read, and moved on to the same epoch again, is not among it.
    #[test]
    fn what_no_commit_has_proven_is_for_those_only_who_asked_before_it_was_read() {
        let mut views = Numbers::default();
        let seen = |views: &Numbers, n, asked| {
            let held = views.grant(org(1), agent(), grant(n), Moment(asked));
            held.is_some()
        };
        hold_of(&mut views, org(1), 1, 7, Moment(2));
        hold_of(&mut views, org(1), 2, 7, Moment(4));
        assert!(seen(&views, 1, 1) && !seen(&views, 1, 3));
        views.prove(org(1), epoch(6), Moment(1));
        views.prove(org(2), epoch(7), Moment(1));
        assert!(!seen(&views, 1, 9) && !seen(&views, 2, 9), "not by that commit");
        views.prove(org(1), epoch(7), Moment(4));
        assert!(
            !seen(&views, 1, 9) && seen(&views, 2, 9),
            "the first may be of before"
        );
        hold_of(&mut views, org(1), 3, 7, Moment(6));
        assert!(
            seen(&views, 3, 9),
            "every later commit needs the first one's number"
        );
        // One that was slower rests on what was read earlier.
        views.prove(org(1), epoch(7), Moment(2));
        views.prove(org(1), epoch(7), Moment(8));
        assert!((1..=3).all(|n| seen(&views, n, 9)));
        hold_of(&mut views, org(1), 4, 8, Moment(10));
        assert!(!seen(&views, 4, 11), "another epoch needs a commit of its own");
        views.prove(org(1), epoch(8), Moment(10));
        views.forget(org(1));
        hold_of(&mut views, org(1), 5, 8, Moment(12));
        assert!(!seen(&views, 5, 13));
    }

    #[test]
    fn what_is_forgotten_is_counted_off() {
        let mut views = Numbers::default();
        hold(&mut views, 1, 1);
        hold(&mut views, 1, 1);
        hold(&mut views, 2, 1);
        views.keep_caller([1; 32], caller(org(1)));
        views.keep_agent(org(1), epoch(1), agent(), Arc::new(0), READ);
        assert_eq!(views.held, 2 * GRANT + CALLER + AGENT);
        views.forget_grant(org(1), grant(1));
        assert_eq!(views.held, GRANT + CALLER + AGENT);
        views.forget_callers(org(1));
        assert_eq!(
            (views.held, views.caller(&[1; 32]).is_none()),
            (GRANT + AGENT, true)
        );
        views.forget(org(1));
        assert_eq!((views.held, views.orgs.len()), (0, 0));
    }

    #[test]
    fn no_more_is_held_than_the_bound() {
        let mut views = Numbers::default();
        for n in 0..u64::try_from(MOST / GRANT).unwrap() + 10 {
            hold(&mut views, n, 1);
            assert!(views.held <= MOST);
        }
        assert_eq!(views.held, 10 * GRANT);
    }

    #[test]
    fn one_org_with_very_many_grants_in_use_costs_the_others_nothing() {
        let mut views = Numbers::default();
        views.keep_caller([2; 32], caller(org(2)));
        views.keep_agent(org(2), epoch(1), agent(), Arc::new(0), READ);
        hold_of(&mut views, org(2), 1, 1, READ);
        for n in 0..u64::try_from(3 * MOST / GRANT).unwrap() {
            hold(&mut views, n, 1);
            assert!(views.held <= MOST);
        }
        assert!(views.caller(&[2; 32]).is_some());
        assert!(views.agent(org(2), agent(), ASKED).is_some() && held(&views, org(2), 1));
        // And where it holds all there is, others get their share of it.
        for n in 0..100 {
            hold_of(&mut views, org(3), n, 1, READ);
        }
        assert!((0..100).all(|n| held(&views, org(3), n)));
        assert!(held(&views, org(2), 1));
    }

    #[test]
    fn holding_one_more_costs_the_same_however_many_are_held() {
        let mut views = Numbers::default();
        let mut thousand = |from: u64| {
            let begun = Instant::now();
            for n in from..from + 1000 {
                let mut hash = [0; 32];
                hash[..8].copy_from_slice(&n.to_be_bytes());
                views.keep_caller(hash, caller(org(1)));
            }
            begun.elapsed()
        };
        let times: Vec<_> = (0..63).map(|k| thousand(k * 1000)).collect();
        // The best of three: the machine may be busy. A walk through all of them takes some hundred times as long.
        let first = times[..3].iter().min().copied().unwrap();
        let last = times[60..].iter().min().copied().unwrap();
        let most = (first * 30).max(Duration::from_millis(50));
        assert!(last < most, "{last:?} with 60,000 held, {first:?} with none");
    }
}
