//! A writer's start and its orderly stop are entries of each org it writes for (crypto §6): a start without a stop
//! before it is a process that died.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use crate::domain::{
    EntryId, OrgId, Randomness, Time,
    entry::{EntryDraft, EntryType},
};

use super::{NewEntry, StoreError, sql::Tx};

/// The writers of this process and the orgs in which their start is durable.
#[derive(Debug)]
pub(super) struct Begun {
    random: Arc<dyn Randomness>,
    writers: Mutex<BTreeSet<(OrgId, String)>>,
}

impl Begun {
    pub(super) fn new(random: Arc<dyn Randomness>) -> Self {
        Self {
            random,
            writers: Mutex::default(),
        }
    }

    fn knows(&self, org: OrgId, writer: &str) -> bool {
        self.held().contains(&(org, writer.to_owned()))
    }

    pub(super) fn add(&self, orgs: Vec<OrgId>, writer: &str) {
        self.held()
            .extend(orgs.into_iter().map(|org| (org, writer.to_owned())));
    }

    /// Everything begun, which then has to be begun anew.
    pub(super) fn take(&self) -> BTreeSet<(OrgId, String)> {
        std::mem::take(&mut self.held())
    }

    pub(super) fn entry(&self, now: Time, outcome: &str) -> Result<NewEntry, StoreError> {
        Ok(NewEntry {
            id: EntryId::new(now, &*self.random).map_err(|_| StoreError::Randomness)?,
            kind: EntryType::Writer,
            draft: EntryDraft {
                outcome: Some(outcome.to_owned()),
                ..EntryDraft::default()
            },
            sealed: None,
        })
    }

    fn held(&self) -> std::sync::MutexGuard<'_, BTreeSet<(OrgId, String)>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tx {
    /// The entry that has to precede this writer's next one in the org, if it has not begun there; it counts as begun
    /// when this transaction commits.
    pub(super) fn start_in(&mut self, org: OrgId) -> Result<Option<NewEntry>, StoreError> {
        let Some(begun) = &self.begun else { return Ok(None) };
        if self.starting.contains(&org) || begun.knows(org, &self.writer) {
            return Ok(None);
        }
        let started = begun.entry(self.now, "started")?;
        self.starting.push(org);
        Ok(Some(started))
    }
}
