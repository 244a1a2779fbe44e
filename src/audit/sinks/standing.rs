//! What a process remembers of a receiver from one look to the next. Nothing is lost with it: where each copy goes on is in
//! the database.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{domain::OrgId, egress::Rest};

/// Behind whom the next look at a receiver begins, of whom it did not take what came last, and until when it is left alone.
#[derive(Debug, Default)]
pub struct Standing {
    state: Mutex<State>,
    rest: Rest,
}

#[derive(Debug, Default)]
struct State {
    behind: Option<OrgId>,
    not_taken: BTreeSet<OrgId>,
    /// Whom of them it was asked about last.
    asked: Option<OrgId>,
    /// Entries in a delivery, where it refused more of them together.
    sizes: BTreeMap<OrgId, u64>,
}

impl Standing {
    /// Behind whom the next look begins; `None`: with the first.
    #[must_use]
    pub fn behind(&self) -> Option<OrgId> {
        self.state().behind
    }

    /// Lets the next look begin behind this org, or with the first.
    pub fn begin_behind(&self, org: Option<OrgId>) {
        self.state().behind = org;
    }

    /// The receiver did not take what comes next of this org: it is asked again apart from the others.
    pub fn not_taken(&self, org: OrgId) {
        self.state().not_taken.insert(org);
    }

    /// The receiver takes what comes next of this org.
    pub fn taken(&self, org: OrgId) {
        self.state().not_taken.remove(&org);
    }

    /// Whether the receiver did not take what came last of this org.
    #[must_use]
    pub fn is_waiting(&self, org: OrgId) -> bool {
        self.state().not_taken.contains(&org)
    }

    /// All of whom it did not take what came last, in turn: behind whom it was asked about last comes first.
    #[must_use]
    pub fn waiting(&self) -> Vec<OrgId> {
        let state = self.state();
        let asked = state.asked;
        let all = state.not_taken.iter().copied();
        let (again, mut first): (Vec<_>, Vec<_>) = all.partition(|org| Some(*org) <= asked);
        first.extend(again);
        first
    }

    /// The receiver was asked again about this org.
    pub fn asked_again(&self, org: OrgId) {
        self.state().asked = Some(org);
    }

    /// How many entries of an org go into a delivery, if fewer than usual.
    #[must_use]
    pub fn size(&self, org: OrgId) -> Option<u64> {
        self.state().sizes.get(&org).copied()
    }

    /// So many go into one from now on; `None`: as usual.
    pub fn set_size(&self, org: OrgId, size: Option<u64>) {
        let mut state = self.state();
        match size {
            Some(size) => state.sizes.insert(org, size),
            None => state.sizes.remove(&org),
        };
    }

    /// Until when the receiver is left alone.
    #[must_use]
    pub fn rest(&self) -> &Rest {
        &self.rest
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
