//! What a process remembers of a receiver from one look to the next. Nothing is lost with it: where each copy goes on is in
//! the database.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::domain::OrgId;

/// Behind whom the next look at a receiver begins, and until when it is left alone.
#[derive(Debug, Default)]
pub struct Standing(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    behind: Option<OrgId>,
    rests_until: Duration,
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

    /// Leaves the receiver alone until then, in time since the boot: that of the wall may be put back.
    pub fn rest(&self, until: Duration) {
        self.state().rests_until = until;
    }

    /// Whether the receiver is left alone, so long after the boot.
    #[must_use]
    pub fn is_resting(&self, since_boot: Duration) -> bool {
        since_boot < self.state().rests_until
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
