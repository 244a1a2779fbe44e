//! What one transaction remembers and expects: what it must find, and what it will have written once it is committed.

use std::{collections::HashMap, io, sync::Arc};

use super::{Newest, Vigil};
use crate::{
    domain::{EntryId, OrgId, entry::Epoch},
    store::{
        LogRow, StoreError,
        entries::Chain,
        outside::{self, Fact, Line},
        sql::Tx,
    },
};

/// What a transaction will have to remember once it is committed.
#[derive(Debug)]
pub(in crate::store) struct Journal {
    vigil: Arc<Vigil>,
    /// How far the writer was known to have come, org by org.
    known: HashMap<OrgId, u64>,
    /// The orgs' epochs, as far as they are known outside the database. Without those that are sealed: these
    /// wait for their admin over a database that is known to be another one.
    epochs: HashMap<OrgId, Epoch>,
    written: Vec<Written>,
    /// Whether it began although nobody had looked whether what was written before is still there.
    is_late: bool,
    lines: Vec<Line>,
}

/// The end of a writer's chain in an org.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) org: OrgId,
    pub(super) seq: u64,
    pub(super) epoch: Epoch,
    /// The last entry.
    pub(super) entry: Option<EntryId>,
}

impl Written {
    pub(super) fn newest(&self) -> Option<Newest> {
        let (org, seq) = (self.org, self.seq);
        self.entry.map(|entry| Newest { org, seq, entry })
    }
}

impl Journal {
    /// INVARIANT: made before the transaction begins. What is committed after its snapshot was taken it does not see, and
    /// must not miss.
    pub(in crate::store) fn new(vigil: &Arc<Vigil>, writer: &str, orgs: &[OrgId]) -> Self {
        let known = vigil.known(writer, orgs);
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
            is_late: false,
            lines: Vec::new(),
        }
    }

    /// What is written says nothing of what was written before: that is still to be looked for.
    pub(in crate::store) fn mark_late(&mut self) {
        self.is_late = true;
    }

    /// Called right after the commit, before anybody is told of it.
    ///
    /// # Errors
    /// When the directory hangs. INVARIANT: then nobody is told that it is done; the lines are written when that is over.
    pub(in crate::store) async fn keep(self, writer: &str) -> Result<(), StoreError> {
        let Self {
            vigil,
            written,
            is_late,
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
        vigil.wrote(writer, written, is_late);
        let Some(outside) = outside else { return Ok(()) };
        match outside.flush().await {
            // A file server's own time-out counts as a hang, too: the careful side.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Err(StoreError::Unheard(Arc::new(error)))
            }
            flushed => {
                outside::waits(flushed);
                Ok(())
            }
        }
    }
}

impl Tx {
    /// Refuses to go on if the database has forgotten entries of this process.
    pub(in crate::store) fn expect_number(&self, org: OrgId, found: u64) -> Result<(), StoreError> {
        self.expect(|journal| journal.known.get(&org).is_none_or(|known| *known <= found))
    }

    /// Refuses to go on if the database has forgotten that the org's epoch moved on, whoever moved it; and for as long as
    /// nobody has compared an incarnation that another replica's recovery began.
    pub(in crate::store) fn expect_epoch(&self, org: OrgId, found: Epoch) -> Result<(), StoreError> {
        self.expect_epoch_behind(org, found, 0)
    }

    /// The same of an epoch that this transaction has begun: that one nobody can know.
    pub(in crate::store) fn expect_new_epoch(&self, org: OrgId, begun: Epoch) -> Result<(), StoreError> {
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

    pub(super) fn expect(&self, holds: impl FnOnce(&Journal) -> bool) -> Result<(), StoreError> {
        match &self.journal {
            Some(journal) if !holds(journal) => {
                journal.vigil.lose();
                Err(StoreError::Lost)
            }
            _ => Ok(()),
        }
    }

    /// Remembers, once committed, how far this writer has come for the org.
    pub(in crate::store) fn numbered(&mut self, chain: &Chain) {
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
    pub(in crate::store) fn tell_outside(&mut self, org: OrgId, epoch: Epoch, fact: Fact) {
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
