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
    LogRow, Store, StoreError, Word,
    entries::Chain,
    outside::{self, Fact, Line, Outside},
    sql::{Tx, params},
};

/// Shared by every transaction of one store.
#[derive(Debug, Default)]
pub(super) struct Vigil {
    outside: Option<Arc<Outside>>,
    numbers: RwLock<Numbers>,
    sealed: RwLock<Sealed>,
    lost: AtomicBool,
    /// Whether another replica has said that it knows the database for an older one.
    told: AtomicBool,
}

/// How far this process has come.
#[derive(Debug, Default)]
struct Numbers {
    /// By writer, then by org.
    last: HashMap<String, HashMap<OrgId, u64>>,
    /// By writer, the org of what it committed last: an older database that lacks anything of the writer lacks that. A process
    /// whose name was lost keeps what it wrote under that name.
    newest: BTreeMap<String, OrgId>,
    /// By org, what was committed last and the file outside the database has not heard of.
    unheard: HashMap<OrgId, (Epoch, EntryId)>,
}

/// The orgs of which nothing may be released.
#[derive(Debug, Default)]
struct Sealed {
    /// Until an admin recovers, each with what is said of it to other replicas.
    orgs: BTreeMap<OrgId, Word>,
    /// Until it was compared: another incarnation of its epoch was met.
    unsettled: BTreeSet<OrgId>,
}

impl Vigil {
    /// Of every writer the org of what it committed last.
    fn newest(&self) -> Vec<(String, OrgId)> {
        let numbers = self.numbers.read().unwrap_or_else(PoisonError::into_inner);
        numbers
            .newest
            .iter()
            .map(|(writer, org)| (writer.clone(), *org))
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

    /// There was a recovery since.
    pub(super) fn forget_what_was_told(&self) {
        self.told.store(false, Ordering::Release);
    }

    /// Whether nothing at all may be released.
    fn is_over(&self) -> bool {
        self.lost.load(Ordering::Acquire) || self.told.load(Ordering::Acquire)
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

    fn wrote(&self, writer: &str, written: Vec<Written>) {
        let Some(last) = written.last() else { return };
        let mut numbers = self.numbers.write().unwrap_or_else(PoisonError::into_inner);
        numbers.newest.insert(writer.to_owned(), last.org);
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

/// What a transaction will have to remember once it is committed.
#[derive(Debug)]
pub(super) struct Journal {
    vigil: Arc<Vigil>,
    /// How far the writer was known to have come, org by org.
    known: HashMap<OrgId, u64>,
    /// The orgs' epochs, as far as they are known outside the database. Without those that are sealed: these
    /// wait for their admin over a database that is known to be another one.
    epochs: HashMap<OrgId, Epoch>,
    written: Vec<Written>,
    lines: Vec<Line>,
}

/// The end of a writer's chain in an org.
#[derive(Debug)]
struct Written {
    org: OrgId,
    seq: u64,
    epoch: Epoch,
    /// The last entry.
    entry: Option<EntryId>,
}

impl Journal {
    /// INVARIANT: made before the transaction begins. What is committed after its snapshot was taken it does not see, and
    /// must not miss.
    pub(super) fn new(vigil: &Arc<Vigil>, writer: &str, orgs: &[OrgId]) -> Self {
        let numbers = vigil.numbers.read().unwrap_or_else(PoisonError::into_inner);
        let of_writer = numbers.last.get(writer);
        let known = orgs
            .iter()
            .filter_map(|org| Some((*org, *of_writer?.get(org)?)))
            .collect();
        drop(numbers);
        let sealed = vigil.sealed();
        let epochs = orgs
            .iter()
            .filter(|org| !sealed.orgs.contains_key(org))
            .filter_map(|org| Some((*org, vigil.outside.as_ref()?.knows(*org)?.epoch)))
            .collect();
        drop(sealed);
        Self {
            vigil: Arc::clone(vigil),
            known,
            epochs,
            written: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// Called right after the commit, before anybody is told of it.
    pub(super) async fn keep(self, writer: &str) {
        let Self {
            vigil,
            written,
            mut lines,
            known: _,
            epochs: _,
        } = self;
        for line in &mut lines {
            let of_org = written.iter().rev().find(|one| one.org == line.org);
            line.entry = line.entry.or_else(|| of_org?.entry);
        }
        let outside = vigil.outside.as_ref().filter(|_| !lines.is_empty());
        if let Some(outside) = outside {
            // In two steps: a caller that hangs up during the second leaves the lines to the next flush.
            outside.add(lines);
        }
        // Behind the lines: an entry of an epoch of which the file has not heard would say that others moved it on.
        vigil.wrote(writer, written);
        let Some(outside) = outside else { return };
        outside::waits(outside.flush().await);
    }
}

impl Tx {
    /// Refuses to go on if the database has forgotten entries of this process.
    pub(super) fn expect_number(&self, org: OrgId, found: u64) -> Result<(), StoreError> {
        self.expect(|journal| journal.known.get(&org).is_none_or(|known| *known <= found))
    }

    /// Refuses to go on if the database has forgotten that the org's epoch moved on, whoever moved it; and for as long as
    /// nobody has compared an incarnation that another replica's recovery began.
    pub(super) fn expect_epoch(&self, org: OrgId, found: Epoch) -> Result<(), StoreError> {
        self.expect_epoch_behind(org, found, 0)
    }

    /// The same of an epoch that this transaction has begun: that one nobody can know.
    pub(super) fn expect_new_epoch(&self, org: OrgId, begun: Epoch) -> Result<(), StoreError> {
        self.expect_epoch_behind(org, begun, 1)
    }

    fn expect_epoch_behind(&self, org: OrgId, found: Epoch, by: i64) -> Result<(), StoreError> {
        let known = |journal: &Journal| journal.epochs.get(&org).copied();
        match &self.journal {
            // Whoever compares finds out whether anything is missing.
            Some(journal) if known(journal).is_some_and(|known| known.incarnation != found.incarnation) => {
                journal.vigil.sealed_now().unsettled.insert(org);
                Err(StoreError::Conflict)
            }
            _ => {
                self.expect(|journal| known(journal).is_none_or(|known| known.counter + by <= found.counter))
            }
        }
    }

    fn expect(&self, holds: impl FnOnce(&Journal) -> bool) -> Result<(), StoreError> {
        match &self.journal {
            Some(journal) if !holds(journal) => {
                journal.vigil.lose();
                Err(StoreError::Lost)
            }
            _ => Ok(()),
        }
    }

    /// Remembers, once committed, how far this writer has come for the org.
    pub(super) fn numbered(&mut self, chain: &Chain) {
        if let Some(journal) = &mut self.journal {
            journal.written.push(Written {
                org: chain.org,
                seq: chain.seq,
                epoch: chain.epoch,
                entry: chain.last,
            });
        }
    }

    /// Writes a fact, once committed, into the file outside the database.
    pub(super) fn tell_outside(&mut self, org: OrgId, epoch: Epoch, fact: Fact) {
        if let Some(journal) = &mut self.journal {
            journal.lines.push(Line {
                org,
                epoch,
                entry: None,
                fact,
            });
        }
    }

    /// Remembers a signed head outside the database, once committed: of which epoch its last entry is, and which that is.
    pub fn keep_checkpoint(&mut self, org: OrgId, epoch: Epoch, last: Option<EntryId>, growth: &LogRow) {
        if let Some(journal) = &mut self.journal {
            journal.lines.push(Line {
                org,
                epoch,
                entry: last,
                fact: Fact::Checkpoint {
                    size: growth.size,
                    note: growth.checkpoint.clone(),
                },
            });
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
        let sealed = self.vigil.sealed();
        sealed.orgs.contains_key(&org) || sealed.unsettled.contains(&org)
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

    /// What this process has found out about its database itself.
    pub(super) fn found(&self) -> Word {
        if self.has_lost_entries() {
            return Word::Bad;
        }
        let sealed = self.vigil.sealed();
        let said: Vec<Word> = sealed.orgs.values().copied().collect();
        Word::worst(&said).unwrap_or(Word::Good)
    }

    /// Whether the database was found to have forgotten entries of this process. It never becomes false again.
    #[must_use]
    pub fn has_lost_entries(&self) -> bool {
        self.vigil.lost.load(Ordering::Acquire)
    }

    /// Compares the last number of each of its writers that this process wrote with the database, so that an idle replica
    /// notices too.
    ///
    /// # Errors
    /// [`StoreError::Lost`] if the database knows less, or when it is unavailable.
    pub async fn look_for_lost_entries(&self) -> Result<(), StoreError> {
        for (writer, org) in self.vigil.newest() {
            let journal = Journal::new(&self.vigil, &writer, &[org]);
            let mut tx = self.read(org).await?;
            tx.journal = Some(journal);
            let row = tx
                .row(
                    "SELECT seq FROM writers WHERE org_id = $1 AND writer = $2",
                    params![org, writer],
                )
                .await?;
            let found = row.map_or(Ok(0), |row| row.fields("writers").count())?;
            tx.expect_number(org, found)?;
        }
        Ok(())
    }
}

/// Why every org is sealed when a process starts after one that found its database to be another one.
pub const LOST_ENTRIES: &str = "lost_entries";
