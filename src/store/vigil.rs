//! What this process knows of the database without asking it: the last number of each of its writers, and which orgs
//! are sealed. A database that knows fewer entries than the process that wrote them was put back or swapped under it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::domain::{EntryId, OrgId, entry::Epoch};

use super::{
    Store, StoreError, Word,
    outside::{Fact, Line, Outside},
};

pub(super) use journal::Journal;
use journal::Written;

mod journal;
mod look;

/// Shared by every transaction of one store.
#[derive(Debug, Default)]
pub(super) struct Vigil {
    outside: Option<Arc<Outside>>,
    numbers: RwLock<Numbers>,
    sealed: RwLock<Sealed>,
    /// Known outside, and not in the database that was compared at the start: not looked for, as nobody can recover them.
    absent: RwLock<BTreeSet<OrgId>>,
    lost: AtomicBool,
    /// Whether another replica has said that it knows the database for an older one.
    told: AtomicBool,
    /// Whether a recovery was met since: what was told may be over.
    met: AtomicBool,
}

/// How far this process has come.
#[derive(Debug, Default)]
struct Numbers {
    /// By writer, then by org.
    last: HashMap<String, HashMap<OrgId, u64>>,
    /// By writer, what it committed last: an older database that lacks anything of the writer lacks that, or what it committed
    /// at that moment for another org, which the next one of that org misses. A process whose name was lost keeps what it
    /// wrote under that name.
    newest: BTreeMap<String, Newest>,
    /// By org, what was committed last and the file outside the database has not heard of.
    unheard: HashMap<OrgId, (Epoch, EntryId)>,
}

/// An entry, and its number in its writer's chain. Whoever takes the writer's name over in a database that lacks the entry gives
/// the number to another one.
#[derive(Debug, Clone, Copy)]
struct Newest {
    org: OrgId,
    seq: u64,
    entry: EntryId,
}

/// The orgs of which nothing may be released.
#[derive(Debug, Default)]
struct Sealed {
    /// Until an admin recovers, each with what is said of it to other replicas.
    orgs: BTreeMap<OrgId, Word>,
    /// Until it was compared: another incarnation of its epoch was met.
    unsettled: BTreeSet<OrgId>,
}

impl Sealed {
    fn holds_back(&self, org: OrgId) -> bool {
        self.orgs.contains_key(&org) || self.unsettled.contains(&org)
    }
}

impl Vigil {
    /// Of every writer what it committed last.
    fn newest(&self) -> Vec<(String, Newest)> {
        let numbers = self.numbers.read().unwrap_or_else(PoisonError::into_inner);
        numbers
            .newest
            .iter()
            .map(|(writer, newest)| (writer.clone(), *newest))
            .collect()
    }

    pub(super) fn has_written_nothing(&self) -> bool {
        let numbers = self.numbers.read().unwrap_or_else(PoisonError::into_inner);
        numbers.newest.is_empty()
    }

    /// From here on, the database is not the one this process wrote to; nor is it for the process after this one, until an
    /// admin recovers.
    pub(super) fn lose(&self) {
        if self.lost.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(outside) = &self.outside {
            // First what it wrote last: whether the next process's database has that tells whether it is still this one.
            outside.add(self.take_unheard().into_iter().map(|(org, (epoch, entry))| Line {
                org,
                epoch,
                entry: Some(entry),
                fact: Fact::Wrote,
            }));
            outside.seal_all(LOST_ENTRIES);
        }
    }

    /// From here on, another database goes on in the place of this one, over which the next process may start.
    pub(super) fn leave(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// Nothing is released over this database any more: another replica knows it for an older one, and says no more than
    /// that. This one does not pass it on: that is for who has found out.
    pub(super) fn be_told(&self) {
        if !self.told.swap(true, Ordering::AcqRel) {
            tracing::error!(
                "another replica has found that this database is older than what it knows: nothing is released until it is \
                 recovered there; stop every replica and run `postern recover` with the configuration of each that is sealed"
            );
        }
    }

    /// This process has recovered: what others say from here on counts.
    pub(super) fn forget_what_was_told(&self) {
        self.told.store(false, Ordering::Release);
    }

    /// Somebody else has recovered. Who says that the database is an older one may be about to take that back.
    pub(super) fn meet_recovery(&self) {
        self.met.store(true, Ordering::Release);
    }

    /// Nobody says anything against the database, and whoever did has taken it back.
    pub(super) fn hear_nothing(&self) {
        if self.met.swap(false, Ordering::AcqRel) {
            self.told.store(false, Ordering::Release);
        }
    }

    pub(super) fn is_told(&self) -> bool {
        self.told.load(Ordering::Acquire)
    }

    /// Whether nothing at all may be released.
    fn is_over(&self) -> bool {
        self.lost.load(Ordering::Acquire) || self.is_told()
    }

    fn sealed(&self) -> RwLockReadGuard<'_, Sealed> {
        self.sealed.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn sealed_now(&self) -> RwLockWriteGuard<'_, Sealed> {
        self.sealed.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file outside the database, if there is one.
    pub(super) fn outside(&self) -> Option<&Arc<Outside>> {
        self.outside.as_ref()
    }

    /// What was committed since the file was told, the last entry of each org.
    pub(super) fn take_unheard(&self) -> HashMap<OrgId, (Epoch, EntryId)> {
        let mut numbers = self.numbers.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut numbers.unheard)
    }

    /// How far a writer has come in these orgs.
    fn known(&self, writer: &str, orgs: &[OrgId]) -> HashMap<OrgId, u64> {
        let numbers = self.numbers.read().unwrap_or_else(PoisonError::into_inner);
        let of_writer = numbers.last.get(writer);
        orgs.iter()
            .filter_map(|org| Some((*org, *of_writer?.get(org)?)))
            .collect()
    }

    fn wrote(&self, writer: &str, written: Vec<Written>, is_late: bool) {
        let Some(last) = written.iter().rev().find_map(Written::newest) else {
            return;
        };
        let mut numbers = self.numbers.write().unwrap_or_else(PoisonError::into_inner);
        if is_late {
            numbers.newest.entry(writer.to_owned()).or_insert(last);
        } else {
            numbers.newest.insert(writer.to_owned(), last);
        }
        if self.outside.is_some() {
            let entries = written
                .iter()
                .filter_map(|one| Some((one.org, (one.epoch, one.entry?))));
            numbers.unheard.extend(entries);
        }
        let ends = written.into_iter().map(|one| (one.org, one.seq));
        numbers.last.entry(writer.to_owned()).or_default().extend(ends);
    }
}

/// The other writer of this process, as it was before the transaction began: nothing of it may be missing, either.
#[derive(Debug)]
pub(super) struct OtherWriter {
    vigil: Arc<Vigil>,
    pub(super) name: String,
    known: HashMap<OrgId, u64>,
}

impl OtherWriter {
    /// Refuses to go on if the database has forgotten entries of it.
    pub(super) fn expect_number(&self, org: OrgId, found: u64) -> Result<(), StoreError> {
        if self.known.get(&org).is_none_or(|known| *known <= found) {
            return Ok(());
        }
        self.vigil.lose();
        Err(StoreError::Lost)
    }
}

impl Store {
    /// The hot lane's, beside a transaction outside of it. INVARIANT: as [`Journal::new`].
    pub(super) fn hot_writer(&self, orgs: &[OrgId]) -> OtherWriter {
        self.other_writer("hot", orgs)
    }

    /// Everything else's, beside the hot lane. INVARIANT: as [`Journal::new`].
    pub(super) fn cold_writer(&self, orgs: &[OrgId]) -> OtherWriter {
        self.other_writer("cold", orgs)
    }

    fn other_writer(&self, lane: &str, orgs: &[OrgId]) -> OtherWriter {
        let name = format!("{}/{lane}", self.replica());
        let known = self.vigil.known(&name, orgs);
        OtherWriter {
            vigil: Arc::clone(&self.vigil),
            name,
            known,
        }
    }
}

impl Store {
    /// From here on, keeps what must survive the database in `outside`.
    #[must_use]
    pub fn keeping(mut self, outside: Outside) -> Self {
        self.vigil = Arc::new(Vigil {
            outside: Some(Arc::new(outside)),
            ..Vigil::default()
        });
        self
    }

    /// Gives the database up for good, for what was found of this org: an older one was put in its place.
    pub fn found_older(&self, org: OrgId, cause: &dyn fmt::Display) -> StoreError {
        tracing::error!(org.id = %org, cause = %cause, "this database is given up: {org}: {cause}");
        self.vigil.lose();
        StoreError::Lost
    }

    /// From here on, no secret of the org leaves the database.
    pub fn seal(&self, org: OrgId) {
        self.seal_as(org, Word::Torn);
    }

    /// The same, with what is said of it to other replicas.
    pub fn seal_as(&self, org: OrgId, word: Word) {
        self.vigil.sealed_now().orgs.insert(org, word);
    }

    /// Lets the org go on after a recovery.
    pub fn unseal(&self, org: OrgId) {
        let mut sealed = self.vigil.sealed_now();
        sealed.orgs.remove(&org);
        sealed.unsettled.remove(&org);
    }

    /// Whether nothing of the org may be released: until an admin recovers, or at all over this database.
    #[must_use]
    pub fn is_sealed(&self, org: OrgId) -> bool {
        self.vigil.is_over() || self.holds_back(org)
    }

    /// Whether it is this process that holds the org back: because of what it knows itself of the org.
    #[must_use]
    pub fn holds_back(&self, org: OrgId) -> bool {
        self.vigil.sealed().holds_back(org)
    }

    /// How many orgs are sealed; at least one, where all are.
    #[must_use]
    pub fn sealed_orgs(&self) -> usize {
        self.vigil.sealed().orgs.len().max(self.vigil.is_over().into())
    }

    /// Whether another incarnation of the org was met that nobody has compared with what is kept outside.
    #[must_use]
    pub fn is_unsettled(&self, org: OrgId) -> bool {
        self.vigil.sealed().unsettled.contains(&org)
    }

    /// Those orgs.
    #[must_use]
    pub fn unsettled_orgs(&self) -> Vec<OrgId> {
        self.vigil.sealed().unsettled.iter().copied().collect()
    }

    /// Lets an org go on whose new incarnation was compared.
    pub fn settled(&self, org: OrgId) {
        self.vigil.sealed_now().unsettled.remove(&org);
    }

    /// Whether the database was found to have forgotten entries of this process. It never becomes false again.
    #[must_use]
    pub fn has_lost_entries(&self) -> bool {
        self.vigil.lost.load(Ordering::Acquire)
    }
}

/// Why every org is sealed when a process starts after one that found its database to be another one.
pub const LOST_ENTRIES: &str = "lost_entries";
