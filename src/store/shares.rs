//! Who has the connections of a pool. Each org has a share of them and none takes the last: however much one org has to do
//! and however long it takes, another's call finds a connection.
//!
//! Who holds as many as are left gets no more for now. So one org alone gets half of them; the more orgs come, the fewer
//! each has, and there is one for the next. Of those who wait, who holds the fewest is served first, in turn. Whose a key is
//! is not known before it was looked up: all who show one have one share together, which is shared out by key the same way.
//! Sharing out does no I/O; the methods of `Store` below begin what needs a place.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use super::{
    Store, StoreError,
    engine::{Mode, Reach},
    sql::Tx,
};
use crate::domain::OrgId;

/// Whose share a transaction belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Party {
    /// One org's.
    Org(OrgId),
    /// Whoever shows this key, session or link, before it is known whose it is; by the beginning of its hash.
    Key([u8; 8]),
    /// All of those together: who makes keys up gets no more by making up many.
    Keyed,
    /// Ours: tasks about the deployment or many orgs, of which there are a few. They may take the last place.
    Workers,
}

impl Party {
    pub(super) fn of(mode: Mode, reach: Reach<'_>) -> Self {
        match (mode, reach) {
            (_, Reach::Org(org)) => Self::Org(org),
            // What came to nothing in a batch waits by itself for whoever is in that org's way.
            (Mode::Write, Reach::Orgs([org])) => Self::Org(*org),
            (_, Reach::Hash(hash)) => Self::Key(hash.first_chunk().copied().unwrap_or_default()),
            (_, Reach::Orgs(_) | Reach::Deployment | Reach::Due) => Self::Workers,
        }
    }

    /// Who is served first. Our tasks are as many orgs' as there are: they take turns with those that hold nothing.
    fn rank(self, held: u32) -> u32 {
        match self {
            Self::Org(_) | Self::Key(_) | Self::Keyed => held,
            Self::Workers => 0,
        }
    }
}

/// The places of a pool, some of which may be held for long.
#[derive(Debug)]
pub(super) struct PoolShares {
    all: Shares,
    long: Shares,
    /// Among those who show keys: half of all places, which is what they may hold together.
    keys: Shares,
}

impl PoolShares {
    /// All the places of a pool of so many connections. Half of them are never held for long.
    pub(super) fn new(places: u32) -> Self {
        Self {
            all: Shares::new(places),
            long: Shares::new((places / 2).max(1)),
            keys: Shares::new(places.div_ceil(2)),
        }
    }

    /// Waits for a place; with a key, first for a turn among all keys.
    pub(super) async fn take(&self, party: Party) -> Place {
        match party {
            Party::Key(_) => {
                let turn = self.keys.take(party).await;
                self.all.take(Party::Keyed).await.and(turn)
            }
            Party::Org(_) | Party::Keyed | Party::Workers => self.all.take(party).await,
        }
    }

    /// The same, for a few seconds.
    ///
    /// # Errors
    /// When there is none by then.
    pub(super) async fn take_soon(&self, party: Party) -> Result<Place, StoreError> {
        soon(self.take(party), || self.none_for(party)).await
    }

    /// Why there was no place.
    pub(super) fn none_for(&self, party: Party) -> StoreError {
        self.all.none_for(party)
    }

    /// Waits for a place that may be held for long: first among those, so that none is held meanwhile that others need.
    async fn take_for_long(&self, party: Party) -> Place {
        let long = self.long.take(party).await;
        self.all.take(party).await.and(long)
    }

    /// The same, for a few seconds.
    async fn take_for_long_soon(&self, party: Party) -> Result<Place, StoreError> {
        let none = || match self.long.none_for(party) {
            StoreError::Busy => StoreError::Busy,
            _ => self.all.none_for(party),
        };
        soon(self.take_for_long(party), none).await
    }

    /// The same, if there is one at this moment.
    fn take_for_long_now(&self, party: Party) -> Option<Place> {
        let long = self.long.take_now(party)?;
        Some(self.all.take_now(party)?.and(long))
    }
}

/// What is taken within a few seconds, or why it was not.
async fn soon<T>(
    taking: impl Future<Output = T>,
    why_not: impl FnOnce() -> StoreError,
) -> Result<T, StoreError> {
    timeout(WITHIN, taking).await.map_err(|_| why_not())
}

/// Places, shared out. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Shares(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: u32,
    /// Who holds a place or waits for one, and nobody else.
    parties: HashMap<Party, Line>,
    /// Counts whoever joins a line or is served.
    count: u64,
}

#[derive(Debug, Default)]
struct Line {
    held: u32,
    /// Those who wait, in the order in which they came.
    waiting: BTreeMap<u64, oneshot::Sender<Place>>,
    /// When the first of them came, or one of them was served since: whose turn it is among those who hold as many.
    since: u64,
}

/// A place; free again when it is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Place {
    party: Party,
    of: Shares,
    /// And one among fewer, which is free a moment later.
    beside: Option<Box<Self>>,
}

impl Place {
    /// Both, as one.
    fn and(mut self, other: Self) -> Self {
        self.beside = Some(Box::new(other));
        self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.end(self.party);
    }
}

/// Somebody in a line. Whoever goes away before being served leaves it.
#[derive(Debug)]
struct Queued<'a> {
    shares: &'a Shares,
    party: Party,
    ticket: u64,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        let mut state = self.shares.locked();
        if let Some(line) = state.parties.get_mut(&self.party) {
            line.waiting.remove(&self.ticket);
        }
        state.forget(self.party);
    }
}

impl Shares {
    pub(super) fn new(places: u32) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: places,
            parties: HashMap::new(),
            count: 0,
        })))
    }

    /// Waits for a place.
    pub(super) async fn take(&self, party: Party) -> Place {
        loop {
            let (_queued, given) = match self.join(party) {
                Ok(place) => return place,
                Err(waits) => waits,
            };
            // Always one, for the line lives as long as `self`.
            if let Ok(place) = given.await {
                return place;
            }
        }
    }

    /// The same, for a few seconds.
    ///
    /// # Errors
    /// When there is none by then.
    pub(super) async fn take_soon(&self, party: Party) -> Result<Place, StoreError> {
        soon(self.take(party), || self.none_for(party)).await
    }

    /// Why there was no place. An org that holds some has its share, which says nothing of others. Who holds none would have
    /// got any that there was.
    pub(super) fn none_for(&self, party: Party) -> StoreError {
        let state = self.locked();
        let line = state.parties.get(&party);
        let holds_some = line.is_some_and(|line| line.held > 0);
        if holds_some && matches!(party, Party::Org(_)) {
            StoreError::Busy
        } else {
            sqlx::Error::PoolTimedOut.into()
        }
    }

    /// A place, if there is one at this moment.
    fn take_now(&self, party: Party) -> Option<Place> {
        let given = self.locked().give(party);
        given.then(|| self.place(party))
    }

    /// A place, or one in the line.
    fn join(&self, party: Party) -> Result<Place, (Queued<'_>, oneshot::Receiver<Place>)> {
        let mut state = self.locked();
        if state.give(party) {
            return Ok(self.place(party));
        }
        let (give, given) = oneshot::channel();
        state.count += 1;
        let ticket = state.count;
        let line = state.parties.entry(party).or_default();
        if line.waiting.is_empty() {
            line.since = ticket;
        }
        line.waiting.insert(ticket, give);
        let queued = Queued {
            shares: self,
            party,
            ticket,
        };
        Err((queued, given))
    }

    fn end(&self, party: Party) {
        let mut state = self.locked();
        state.free += 1;
        if let Some(line) = state.parties.get_mut(&party) {
            line.held -= 1;
        }
        state.forget(party);
        drop(state);
        loop {
            // A statement of its own: whoever has gone away gives the place back, for which this has to be unlocked.
            let next = self.locked().next();
            let Some((party, give)) = next else { return };
            drop(give.send(self.place(party)));
        }
    }

    fn place(&self, party: Party) -> Place {
        Place {
            party,
            of: self.clone(),
            beside: None,
        }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can be left half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives a place to who comes just now. INVARIANT: nobody waits who may have one, so it is nobody else's turn.
    fn give(&mut self, party: Party) -> bool {
        let held = self.parties.get(&party).map_or(0, |line| line.held);
        if !may_have(party, held, self.free) {
            return false;
        }
        self.free -= 1;
        self.parties.entry(party).or_default().held += 1;
        true
    }

    /// Who of those that wait is next, if any may have a place.
    fn next(&mut self) -> Option<(Party, oneshot::Sender<Place>)> {
        let waiting = self
            .parties
            .iter()
            .filter(|(party, line)| !line.waiting.is_empty() && may_have(**party, line.held, self.free));
        let (party, line) = waiting.min_by_key(|(party, line)| (party.rank(line.held), line.since))?;
        let (party, held) = (*party, line.held);
        let line = self.parties.get_mut(&party)?;
        let (_, give) = line.waiting.pop_first()?;
        self.count += 1;
        line.since = self.count;
        line.held = held + 1;
        self.free -= 1;
        Some((party, give))
    }

    fn forget(&mut self, party: Party) {
        let line = self.parties.get(&party);
        if line.is_some_and(|line| line.held == 0 && line.waiting.is_empty()) {
            self.parties.remove(&party);
        }
    }
}

/// Whether a party may have one more: no more than are left then for all others.
fn may_have(party: Party, held: u32, free: u32) -> bool {
    match party {
        Party::Org(_) | Party::Key(_) | Party::Keyed => held < free,
        Party::Workers => free > 0,
    }
}

impl Store {
    /// A snapshot of one org that is read for long, as whoever counts does: waits until few enough others do.
    ///
    /// # Errors
    /// When the database is unavailable, or others, of the org or not, read for too long.
    pub async fn read_for_long(&self, org: OrgId) -> Result<Tx, StoreError> {
        let place = self.engine.readers().take_for_long_soon(Party::Org(org)).await?;
        self.read_in(place, org).await
    }

    /// The same, but `None` where there is no connection for it at this moment.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn read_for_long_now(&self, org: OrgId) -> Result<Option<Tx>, StoreError> {
        match self.engine.readers().take_for_long_now(Party::Org(org)) {
            Some(place) => self.read_in(place, org).await.map(Some),
            None => Ok(None),
        }
    }

    /// Not tried again: the place is given up with the first try. Who counts for long may ask once more.
    async fn read_in(&self, place: Place, org: OrgId) -> Result<Tx, StoreError> {
        let begun = self.engine.read_in(place, org, self.clock.now());
        Ok(Tx::over(
            Box::pin(begun).await?,
            format!("{}/cold", self.replica()),
            None,
        ))
    }

    /// As [`Store::write`], to end something. PostgreSQL has connections for that alone; on SQLite it stands behind one other
    /// writer and the gate.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn write_end(&self, org: OrgId) -> Result<Tx, StoreError> {
        self.begin(Mode::End, Reach::Org(org)).await
    }
}

/// How long to wait for a place.
const WITHIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
