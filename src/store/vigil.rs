//! What this process knows of the database without asking it: the last number of each of its writers, and which orgs
//! are sealed. A database that knows fewer entries than the process that wrote them was put back or swapped under it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::domain::{OrgId, entry::Epoch};

use super::{
    LogRow, Store, StoreError,
    outside::{Fact, Kept, Line, Outside, Reached},
    sql::{Tx, params},
};

/// Shared by every transaction of one store.
#[derive(Debug, Default)]
pub(super) struct Vigil {
    outside: Option<Arc<Outside>>,
    numbers: RwLock<Numbers>,
    sealed: RwLock<BTreeSet<OrgId>>,
    lost: AtomicBool,
}

/// How far this process has come.
#[derive(Debug, Default)]
struct Numbers {
    /// By writer, then by org.
    last: HashMap<String, HashMap<OrgId, u64>>,
    /// The writer and the org of what was committed last: an older database that lacks anything of this process lacks that.
    newest: Option<(String, OrgId)>,
}

impl Vigil {
    /// The writer and the org of what this process committed last.
    fn newest(&self) -> Option<(String, OrgId)> {
        let numbers = self.numbers.read().unwrap_or_else(PoisonError::into_inner);
        numbers.newest.clone()
    }

    /// From here on, the database is not the one this process wrote to.
    pub(super) fn lose(&self) {
        self.lost.store(true, Ordering::Release);
    }
}

/// What a transaction will have to remember once it is committed.
#[derive(Debug)]
pub(super) struct Journal {
    vigil: Arc<Vigil>,
    /// How far the writer was known to have come, org by org.
    known: HashMap<OrgId, u64>,
    /// The counters of the orgs' epochs, as far as they are known outside the database. Without those that are sealed: these
    /// wait for their admin over a database that is known to be another one.
    counters: HashMap<OrgId, i64>,
    numbers: Vec<(OrgId, u64)>,
    lines: Vec<Line>,
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
        let sealed = vigil.sealed.read().unwrap_or_else(PoisonError::into_inner);
        let counters = orgs
            .iter()
            .filter(|org| !sealed.contains(org))
            .filter_map(|org| Some((*org, vigil.outside.as_ref()?.knows(*org)?.counter)))
            .collect();
        Self {
            vigil: Arc::clone(vigil),
            known,
            counters,
            numbers: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// Called right after the commit, before anybody is told of it.
    pub(super) async fn keep(self, writer: &str) {
        let Self {
            vigil,
            numbers,
            lines,
            known: _,
            counters: _,
        } = self;
        if let Some((org, _)) = numbers.last() {
            let mut known = vigil.numbers.write().unwrap_or_else(PoisonError::into_inner);
            known.newest = Some((writer.to_owned(), *org));
            known.last.entry(writer.to_owned()).or_default().extend(numbers);
        }
        let Some(outside) = vigil.outside.as_ref().filter(|_| !lines.is_empty()) else {
            return;
        };
        // In two steps: a caller that hangs up during the second leaves the lines to the next flush.
        outside.add(lines);
        if let Err(error) = outside.flush().await {
            tracing::error!(cause = %error, "the file outside the database cannot be written; it is tried again");
        }
    }
}

impl Tx {
    /// Refuses to go on if the database has forgotten entries of this process.
    pub(super) fn expect_number(&self, org: OrgId, found: u64) -> Result<(), StoreError> {
        self.expect(|journal| journal.known.get(&org).is_none_or(|known| *known <= found))
    }

    /// Refuses to go on if the database has forgotten that the org's epoch moved on, whoever moved it.
    pub(super) fn expect_epoch(&self, org: OrgId, found: Epoch) -> Result<(), StoreError> {
        self.expect(|journal| {
            journal
                .counters
                .get(&org)
                .is_none_or(|known| *known <= found.counter)
        })
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
    pub(super) fn numbered(&mut self, org: OrgId, seq: u64) {
        if let Some(journal) = &mut self.journal {
            journal.numbers.push((org, seq));
        }
    }

    /// Writes a fact, once committed, into the file outside the database.
    pub(super) fn tell_outside(&mut self, org: OrgId, epoch: Epoch, fact: Fact) {
        if let Some(journal) = &mut self.journal {
            journal.lines.push(Line { org, epoch, fact });
        }
    }

    /// Remembers a signed head outside the database, once committed.
    pub fn keep_checkpoint(&mut self, org: OrgId, epoch: Epoch, size: u64, note: &str) {
        let note = note.to_owned();
        self.tell_outside(org, epoch, Fact::Checkpoint { size, note });
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

    /// The file outside the database, if there is one.
    #[must_use]
    pub fn outside(&self) -> Option<&Outside> {
        self.vigil.outside.as_deref()
    }

    /// Everything the file outside the database says, by org; `None` without a file.
    ///
    /// # Errors
    /// When it cannot be read or a line is damaged.
    pub async fn kept_outside(&self) -> io::Result<Option<BTreeMap<OrgId, Kept>>> {
        let Some(outside) = &self.vigil.outside else {
            return Ok(None);
        };
        let kept = outside.on_disk(|outside| outside.kept().map_err(io::Error::other));
        kept.await.map(Some)
    }

    /// How far an org had come when the file outside the database last heard of it; `None` if it never has.
    #[must_use]
    pub fn known_outside(&self, org: OrgId) -> Option<Reached> {
        self.outside()?.knows(org)
    }

    /// Writes how far the database has come with orgs that the file outside it says nothing of: with all of them or with
    /// none. A file that knew some of them would say of the others that they came from elsewhere.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub async fn adopt_outside(&self, orgs: Vec<(OrgId, Epoch, Option<LogRow>)>) -> io::Result<()> {
        let Some(outside) = &self.vigil.outside else {
            return Ok(());
        };
        outside
            .adopt(orgs.into_iter().flat_map(moved_by_others).collect())
            .await
    }

    /// Writes how far others have brought orgs that the file outside the database knows.
    ///
    /// # Errors
    /// When the disk does not take it now; it is tried again.
    pub async fn follow_outside(&self, orgs: Vec<(OrgId, Epoch, Option<LogRow>)>) -> io::Result<()> {
        let Some(outside) = &self.vigil.outside else {
            return Ok(());
        };
        outside.add(orgs.into_iter().flat_map(moved_by_others));
        outside.flush().await
    }

    /// Brings to the disk what an earlier attempt could not.
    ///
    /// # Errors
    /// When the disk still does not take it.
    pub async fn flush_outside(&self) -> io::Result<()> {
        match &self.vigil.outside {
            Some(outside) => outside.flush().await,
            None => Ok(()),
        }
    }

    /// From here on, no secret of the org leaves the database.
    pub fn seal(&self, org: OrgId) {
        let mut sealed = self.vigil.sealed.write().unwrap_or_else(PoisonError::into_inner);
        sealed.insert(org);
    }

    /// Lets the org go on after a recovery.
    pub fn unseal(&self, org: OrgId) {
        let mut sealed = self.vigil.sealed.write().unwrap_or_else(PoisonError::into_inner);
        sealed.remove(&org);
    }

    /// Whether nothing of the org may be released until an admin recovers.
    #[must_use]
    pub fn is_sealed(&self, org: OrgId) -> bool {
        let sealed = self.vigil.sealed.read().unwrap_or_else(PoisonError::into_inner);
        sealed.contains(&org)
    }

    /// How many orgs are sealed.
    #[must_use]
    pub fn sealed_orgs(&self) -> usize {
        let sealed = self.vigil.sealed.read().unwrap_or_else(PoisonError::into_inner);
        sealed.len()
    }

    /// Whether the database was found to have forgotten entries of this process. It never becomes false again.
    #[must_use]
    pub fn has_lost_entries(&self) -> bool {
        self.vigil.lost.load(Ordering::Acquire)
    }

    /// Compares the last number that this process wrote with the database, so that an idle replica notices too.
    ///
    /// # Errors
    /// [`StoreError::Lost`] if the database knows less, or when it is unavailable.
    pub async fn look_for_lost_entries(&self) -> Result<(), StoreError> {
        let Some((writer, org)) = self.vigil.newest() else {
            return Ok(());
        };
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
        tx.expect_number(org, found)
    }
}

/// What others did to an org until now. It is not known what may have lost something by it: anything.
fn moved_by_others((org, epoch, head): (OrgId, Epoch, Option<LogRow>)) -> impl Iterator<Item = Line> {
    let moved = Fact::Moved {
        kind: "all".to_owned(),
        id: String::new(),
    };
    let signed = head.map(|LogRow { size, checkpoint, .. }| Fact::Checkpoint {
        size,
        note: checkpoint,
    });
    let line = move |fact| Line { org, epoch, fact };
    std::iter::once(moved).chain(signed).map(line)
}
