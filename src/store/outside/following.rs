//! What a store writes into the file outside of its database beside what every commit brings there, and what it asks of it.

use std::{
    collections::{BTreeMap, HashMap},
    io,
};

use super::{Fact, Kept, Line, Outside, Reached, anything};
use crate::{
    domain::{EntryId, OrgId, entry::Epoch},
    store::{LogRow, Store, outside},
};

/// How far the database has come with an org.
#[derive(Debug)]
pub struct OrgState {
    /// The tenant.
    pub org: OrgId,
    /// Its epoch.
    pub epoch: Epoch,
    /// An entry of that epoch, if there is one.
    pub entry: Option<EntryId>,
    /// The head of its log.
    pub head: Option<LogRow>,
}

impl Store {
    /// The file outside the database, if there is one.
    #[must_use]
    pub fn outside(&self) -> Option<&Outside> {
        self.vigil.outside().map(|outside| &**outside)
    }

    /// Everything the file outside the database says, by org; `None` without a file.
    ///
    /// # Errors
    /// When it cannot be read, or its directory hangs, or a line is damaged.
    pub async fn kept_outside(&self) -> io::Result<Option<BTreeMap<OrgId, Kept>>> {
        let Some(outside) = self.vigil.outside() else {
            return Ok(None);
        };
        let kept = outside.on_disk(&outside.reading, |outside| {
            outside.kept().map_err(io::Error::other)
        });
        kept.await.map(Some)
    }

    /// How far an org had come when the file outside the database last heard of it; `None` if it never has.
    #[must_use]
    pub fn known_outside(&self, org: OrgId) -> Option<Reached> {
        Some(self.outside()?.knows(org)?.reached())
    }

    /// How far every org had come of which the file outside the database has heard.
    #[must_use]
    pub fn all_known_outside(&self) -> HashMap<OrgId, Reached> {
        self.outside().map(Outside::knows_all).unwrap_or_default()
    }

    /// Writes how far the database has come with orgs that the file outside it says nothing of: with all of these or with none,
    /// whenever the process dies. Of an org that is left out the next start says that it came from elsewhere.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub async fn adopt_outside(&self, orgs: Vec<OrgState>) -> io::Result<()> {
        let Some(outside) = self.vigil.outside() else {
            return Ok(());
        };
        outside
            .adopt(orgs.into_iter().flat_map(moved_by_others).collect())
            .await
    }

    /// Writes how far others have brought orgs that the file outside the database knows. Of those that they recovered it
    /// begins anew: `are_recovered`.
    ///
    /// # Errors
    /// When the disk does not take it now; it is tried again.
    pub async fn follow_outside(&self, orgs: Vec<OrgState>, are_recovered: bool) -> io::Result<()> {
        let Some(outside) = self.vigil.outside() else {
            return Ok(());
        };
        outside.add(orgs.into_iter().flat_map(|reached| {
            let OrgState {
                org, epoch, entry, ..
            } = reached;
            let anew = are_recovered.then_some(Line {
                org,
                epoch,
                entry,
                fact: Fact::Recovered,
            });
            // What moved it there may be known: it was this process.
            let is_heard = !are_recovered && outside.knows(org).is_some_and(|heard| heard.has_reached(epoch));
            let moved = moved_by_others(reached).filter(move |line| !is_heard || !line.is_move());
            anew.into_iter().chain(moved)
        }));
        outside.flush().await
    }

    /// Writes that these orgs are sealed, and why: whatever their numbers say later, they are until they are recovered.
    ///
    /// # Errors
    /// When the disk does not take it now; it is tried again.
    pub async fn seal_outside(&self, orgs: Vec<(OrgId, Epoch, &'static str)>) -> io::Result<()> {
        let Some(outside) = self.vigil.outside() else {
            return Ok(());
        };
        outside.add(orgs.into_iter().map(|(org, epoch, why)| Line {
            org,
            epoch,
            entry: None,
            fact: Fact::Sealed { why: why.to_owned() },
        }));
        outside.flush().await
    }

    /// Takes what this process has committed since for the file outside the database; [`Store::flush_outside`] brings it
    /// there. Of releases nothing else is said there if another replica signs the log.
    pub fn note_written(&self) {
        let Some(outside) = self.outside() else {
            return;
        };
        let unheard = self.vigil.take_unheard();
        outside.add(unheard.into_iter().map(|(org, (epoch, entry))| Line {
            org,
            epoch,
            entry: Some(entry),
            fact: Fact::Wrote,
        }));
    }

    /// Brings to the disk what was taken; what cannot be written is tried again.
    pub async fn try_to_flush_outside(&self) {
        outside::waits(self.flush_outside().await);
    }

    /// Brings to the disk what an earlier attempt could not.
    ///
    /// # Errors
    /// When the disk still does not take it.
    pub async fn flush_outside(&self) -> io::Result<()> {
        match self.vigil.outside() {
            Some(outside) => outside.flush().await,
            None => Ok(()),
        }
    }
}

/// What others did to an org until now. It is not known what may have lost something by it: anything.
fn moved_by_others(state: OrgState) -> impl Iterator<Item = Line> {
    let OrgState {
        org,
        epoch,
        entry,
        head,
    } = state;
    let (kind, id) = anything();
    let moved = Fact::Moved { kind, id };
    let signed = head.map(|LogRow { size, checkpoint, .. }| Fact::Checkpoint {
        size,
        note: checkpoint,
    });
    let line = move |fact| Line {
        org,
        epoch,
        entry,
        fact,
    };
    std::iter::once(moved).chain(signed).map(line)
}
