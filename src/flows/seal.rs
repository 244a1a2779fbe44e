//! Whether the database is the one it was: compared, when it is opened, with what is kept outside of it (crypto §6).
//!
//! An org whose database is older than the last checkpoint kept outside, contradicts it, or about which nothing is
//! kept, is sealed: nothing is vended until an admin recovers. Revoking, pages and the log go on. That it is sealed is
//! kept outside as well: what is written meanwhile makes no older database the newest.

use std::{fmt, io, time::Duration};

use crate::{
    audit::{Checkpoint, witness::Witness},
    domain::{OrgId, entry::Epoch},
    store::{self, Kept, OrgState, Selector, Word},
};

use super::{Deps, Refusal, witness};
use compared::{Compared, compare, disagreement, inside};
use vouched::Newcomer;

pub use following::keep_up;
pub(super) use following::{examine, settle};
pub use renamed::former_issuer;

mod compared;
mod following;
mod renamed;
mod vouched;

/// Why an org is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nothing is kept outside about an org that has entries.
    NoRecord,
    /// The database is older than what is kept outside.
    Older,
    /// The database holds another history than the one that was signed.
    Forked,
    /// A witness shows a longer log than the database holds, signed by the log's own key.
    Witnessed,
    /// A process found, while it ran, that the database had forgotten what it knew.
    Lost,
}

impl Why {
    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRecord => store::NO_OUTSIDE_CHECKPOINT,
            Self::Older => "older_database",
            Self::Forked => "other_history",
            Self::Witnessed => "witness_has_more",
            Self::Lost => store::LOST_ENTRIES,
        }
    }

    /// The reason of this name.
    fn of(name: &str) -> Self {
        let known = [Self::NoRecord, Self::Older, Self::Forked, Self::Witnessed];
        let named = known.into_iter().find(|why| why.as_str() == name);
        named.unwrap_or(Self::Lost)
    }

    /// What is said to other replicas of a database in which this was found.
    fn word(self) -> Word {
        match self {
            Self::NoRecord => Word::Strange,
            Self::Older | Self::Lost => Word::Bad,
            Self::Forked | Self::Witnessed => Word::Torn,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRecord => "no checkpoint of it is kept outside the database",
            Self::Older => "the database is older than the checkpoint kept outside",
            Self::Forked => "the database holds another history than the one signed before",
            Self::Witnessed => "its witness has cosigned a longer log than the database holds",
            Self::Lost => "the database had forgotten, while the service ran, what it was known to hold",
        })
    }
}

/// One side of the comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// How many entries have a place in the log.
    pub size: u64,
    /// The epoch.
    pub epoch: Epoch,
}

/// An org whose database and outside record do not agree.
#[derive(Debug)]
pub struct Disagreement {
    /// Which org.
    pub org: OrgId,
    /// How.
    pub why: Why,
    /// What the database says.
    pub inside: Side,
    /// Whether it was only found before: now the database has what is known of the org.
    pub is_remembered: bool,
    /// Whether the database is older than what is known, whatever else it is: one whose log has grown again is another history as
    /// well, and no change of rows.
    pub is_older: bool,
    /// Whether there is a witness that was not asked, or gave no answer.
    pub is_witness_silent: bool,
    /// The counter of the last epoch up to which everything that is kept is in this database.
    pub agreed: i64,
    /// What recoveries of which the outside has not heard have ended since.
    pub ended: Vec<Selector>,
    /// Every writer's last number in the database's log.
    pub writers: std::collections::BTreeMap<String, u64>,
    /// What is kept outside.
    pub kept: Option<Kept>,
    /// The checkpoint in it, if it is one of this log.
    pub checkpoint: Option<Checkpoint>,
    /// How much the witness has cosigned, if that is more.
    pub witnessed: Option<u64>,
}

impl Disagreement {
    /// What the outside knows; `None` if nothing.
    #[must_use]
    pub fn outside(&self) -> Option<Side> {
        let kept = self.kept.as_ref().filter(|_| self.why != Why::NoRecord)?;
        Some(Side {
            size: self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size),
            epoch: kept.epoch,
        })
    }

    /// What is said of it to other replicas. Of what was found before and is not so now, only that the org is not open: it may
    /// have been found over another database, as when a copy was looked at.
    #[must_use]
    pub fn word(&self) -> Word {
        match self.why.word() {
            Word::Bad if self.is_remembered => Word::Torn,
            _ if self.is_older => Word::Bad,
            word => word,
        }
    }

    /// What is known to have been ended, as selectors by kind and id, and is not in this database.
    pub fn lost(&self) -> impl Iterator<Item = &(String, String)> {
        let moved = self.kept.iter().flat_map(|kept| &kept.moved);
        let lost = moved.filter(|(selector, counter)| **counter > self.agreed && !self.has_ended(selector));
        lost.map(|(selector, _)| selector)
    }

    fn has_ended(&self, (kind, id): &(String, String)) -> bool {
        self.ended.iter().any(|ended| match ended {
            // By its name an agent loses more than by that of all: it is disabled.
            Selector::All(_) => kind != "agent",
            ended => ended.floor() == (kind.as_str(), id.clone()),
        })
    }
}

/// Compares every org with what is kept outside and seals those that disagree.
///
/// # Errors
/// When the database or the file cannot be read.
pub async fn check(deps: &Deps) -> Result<Vec<Disagreement>, Refusal> {
    let until = deps.clock.since_boot() + WITNESS_WITHIN;
    check_asking(deps, Asking::new(deps, Some(until), 1)).await
}

/// The same for a recovery: the witness is asked about every org, however long that takes.
///
/// # Errors
/// As [`check`].
pub async fn check_for_recovery(deps: &Deps) -> Result<Vec<Disagreement>, Refusal> {
    check_asking(deps, Asking::new(deps, None, OUTAGES)).await
}

async fn check_asking(deps: &Deps, mut asking: Asking<'_>) -> Result<Vec<Disagreement>, Refusal> {
    let Some(mut kept) = deps.store.kept_outside().await.map_err(unreadable)? else {
        return Ok(Vec::new());
    };
    let newcomer = Newcomer::new(deps, kept.is_empty()).await?;
    let (mut found, mut strange, mut renewed) = (Vec::new(), Vec::new(), Vec::new());
    let mut after = None;
    loop {
        let orgs = deps.store.due().await?.orgs(after, PAGE).await?;
        after = orgs.last().copied();
        for org in &orgs {
            let mut disagreement = match compare(deps, *org, kept.remove(org)).await? {
                Compared::Same(_) => None,
                Compared::Renewed(incarnation) => {
                    let state = state(deps, *org).await?;
                    // Recovered once more since: what that one has ended is compared at the next look.
                    renewed.extend((state.epoch.incarnation == incarnation).then_some(state));
                    None
                }
                Compared::Differs(found) => Some(*found),
            };
            let is_strange = disagreement
                .as_ref()
                .is_some_and(|found| found.why == Why::NoRecord);
            let (witnessed, is_asked) = asking.about(deps, *org).await?;
            if let Some(found) = &mut disagreement {
                found.is_witness_silent = !is_asked;
            }
            match (disagreement, witnessed) {
                (None, None) => {}
                (Some(disagreement), None) if is_strange => strange.push(disagreement),
                // Nobody's word outweighs the witness's. Where more is known of what was lost than that, the recovery that
                // ends it answers the witness, too.
                (Some(disagreement), witnessed) => found.push(Disagreement {
                    witnessed: witnessed.and_then(|found| found.witnessed),
                    ..disagreement
                }),
                (None, Some(disagreement)) => found.push(disagreement),
            }
        }
        if orgs.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
            break;
        }
    }
    for (org, _) in kept {
        tracing::error!(org.id = %org, "{org} is kept outside and is not in the database at all");
        // INVARIANT: before a word is given: from then on each renewal looks for what the file knows, and would find it lost.
        deps.store.found_absent(org);
    }
    follow_recovered(deps, renewed).await?;
    // A replica that has found something itself takes nobody's word.
    if found.is_empty() && !strange.is_empty() && newcomer.takes_word(deps, &strange).await? {
        strange.clear();
    }
    found.extend(strange);
    for disagreement in &found {
        let Disagreement { org, why, .. } = disagreement;
        tracing::error!(org.id = %org, why = why.as_str(), "{org} is sealed: {why}");
        deps.store.seal_as(*org, disagreement.word());
    }
    keep_sealed(deps, &found).await?;
    Ok(found)
}

/// Writes down what was found: what is written over the database meanwhile, here or elsewhere, may bring its numbers to where
/// they were. The witness is asked again instead.
async fn keep_sealed(deps: &Deps, found: &[Disagreement]) -> Result<(), Refusal> {
    let unheard = found.iter().filter(|found| {
        let kept = found.kept.as_ref();
        found.why != Why::Witnessed && kept.is_none_or(|kept| kept.sealed.is_none())
    });
    let lines = unheard.map(|found| {
        let epoch = found.kept.as_ref().map_or(found.inside.epoch, |kept| kept.epoch);
        (found.org, epoch, found.why.as_str())
    });
    deps.store.seal_outside(lines.collect()).await.map_err(unwritable)
}

/// What a replica that has found this says to others.
#[must_use]
pub fn word(found: &[Disagreement]) -> Word {
    let said: Vec<Word> = found.iter().map(Disagreement::word).collect();
    Word::worst(&said).unwrap_or(Word::Good)
}

/// Goes on from where others have recovered orgs, or copied them.
async fn follow_recovered(deps: &Deps, states: Vec<OrgState>) -> Result<(), Refusal> {
    for OrgState { org, .. } in &states {
        tracing::info!(org.id = %org, "{org} was recovered or copied elsewhere: nothing that is known here is missing");
    }
    deps.store.follow_outside(states, true).await.map_err(unwritable)
}

async fn state(deps: &Deps, org: OrgId) -> Result<OrgState, Refusal> {
    let mut tx = deps.store.read(org).await?;
    let (inside, head) = inside(&mut tx, org).await?;
    let last = tx.last_entry(org).await?;
    let entry = last.filter(|(counter, _)| *counter == inside.epoch.counter);
    Ok(OrgState {
        org,
        epoch: inside.epoch,
        entry: entry.map(|(_, entry)| entry),
        head,
    })
}

fn unreadable(error: io::Error) -> Refusal {
    tracing::error!(cause = %error, "what is kept outside the database cannot be read");
    Refusal::StoreUnavailable(None)
}

fn unwritable(error: io::Error) -> Refusal {
    tracing::error!(cause = %error, "the file outside the database cannot be written");
    Refusal::StoreUnavailable(None)
}

/// Writes down orgs as the database has them, before anything else is: a replica that signs the log of one and ends before
/// it has signed another's is no stranger to that one when it starts again.
async fn adopt(deps: &Deps, orgs: &[OrgId]) -> Result<(), Refusal> {
    if orgs.is_empty() {
        return Ok(());
    }
    let mut known = Vec::with_capacity(orgs.len());
    for org in orgs {
        known.push(state(deps, *org).await?);
    }
    deps.store.adopt_outside(known).await.map_err(unwritable)
}

/// What is left of asking the witness.
struct Asking<'a> {
    witness: Option<&'a Witness>,
    until: Option<Duration>,
    /// So often may it still give no answer.
    outages: usize,
}

impl<'a> Asking<'a> {
    fn new(deps: &'a Deps, until: Option<Duration>, outages: usize) -> Self {
        Self {
            witness: deps.witness.as_deref(),
            until,
            outages,
        }
    }

    /// Asks about one org, and says whether there was an answer, or nobody to ask. A witness that does not answer, or time that
    /// is up, leave the rest to the worker, which seals as well.
    async fn about(&mut self, deps: &Deps, org: OrgId) -> Result<(Option<Disagreement>, bool), Refusal> {
        let Some(witness) = self.witness else {
            return Ok((None, true));
        };
        let is_late = self.until.is_some_and(|until| deps.clock.since_boot() >= until);
        if is_late || self.outages == 0 {
            return Ok((None, false));
        }
        let size = match witness::show(deps, witness, org).await {
            Ok(witness::Shown::HasMore(size)) => size,
            Ok(shown) => {
                if let witness::Shown::ClaimsMore(size) = shown {
                    tracing::warn!(org.id = %org, witness.size = size, "the witness says that it has cosigned a longer log of {org} and shows none");
                }
                return Ok((None, true));
            }
            Err(witness::Failed::Witness(error)) => {
                tracing::warn!(org.id = %org, cause = %error, "the witness cannot be asked whether this database is the newest");
                self.outages -= usize::from(error.is_outage());
                return Ok((None, !error.is_no_answer()));
            }
            Err(witness::Failed::Here(refusal)) => return Err(refusal),
        };
        let mut tx = deps.store.read(org).await?;
        // An admin has recovered with this size in view.
        if tx.sink_cursor(org, &witness::cursor(witness)).await? >= size {
            return Ok((None, true));
        }
        let (inside, head) = inside(&mut tx, org).await?;
        let found = Disagreement {
            witnessed: Some(size),
            ..disagreement(org, Why::Witnessed, inside, head.as_ref())
        };
        Ok((Some(found), true))
    }
}

/// How often the witness may give no answer before a recovery.
const OUTAGES: usize = 3;
/// How long a start may spend on asking the witness about every org.
const WITNESS_WITHIN: Duration = Duration::from_secs(10);
/// Orgs looked at in one page.
const PAGE: u64 = 500;
