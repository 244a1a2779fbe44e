//! Whether the database is the one it was: compared, when it is opened, with what is kept outside of it (crypto §6).
//!
//! An org whose database is older than the last checkpoint kept outside, contradicts it, or about which nothing is
//! kept, is sealed: nothing is vended until an admin recovers. Revoking, pages and the log go on.

use std::{fmt, io, time::Duration};

use crate::{
    audit::{Checkpoint, LogHead, merkle::root_plan},
    domain::{OrgId, entry::Epoch},
    store::{Kept, LogRow, StoreError, Tx, Word},
};

use super::{Deps, Refusal, audit, witness};

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
}

impl Why {
    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRecord => "no_outside_checkpoint",
            Self::Older => "older_database",
            Self::Forked => "other_history",
            Self::Witnessed => "witness_has_more",
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
    /// The epoch of the last entry with a place: everything up to it is in this database.
    pub agreed: i64,
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
        let kept = self.kept.as_ref()?;
        Some(Side {
            size: self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size),
            epoch: kept.epoch,
        })
    }
}

/// Compares every org with what is kept outside and seals those that disagree.
///
/// # Errors
/// When the database or the file cannot be read.
pub async fn check(deps: &Deps) -> Result<Vec<Disagreement>, Refusal> {
    let Some(mut kept) = deps.store.kept_outside().await.map_err(unreadable)? else {
        return Ok(Vec::new());
    };
    let (mut found, mut strange) = (Vec::new(), Vec::new());
    let mut after = None;
    let (mut asking, until) = (deps.witness.is_some(), deps.clock.since_boot() + WITNESS_WITHIN);
    loop {
        let orgs = deps.store.due().await?.orgs(after, PAGE).await?;
        after = orgs.last().copied();
        for org in &orgs {
            let disagreement = compare(deps, *org, kept.remove(org)).await?;
            let is_strange = disagreement
                .as_ref()
                .is_some_and(|found| found.why == Why::NoRecord);
            let mut witnessed = None;
            if asking && (disagreement.is_none() || is_strange) {
                (witnessed, asking) = ask_witness(deps, *org, until).await?;
            }
            match (disagreement, witnessed) {
                (None, None) => {}
                (Some(disagreement), None) if is_strange => strange.push(disagreement),
                // Nobody's word outweighs the witness's.
                (Some(disagreement), _) | (None, Some(disagreement)) => found.push(disagreement),
            }
        }
        if orgs.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
            break;
        }
    }
    for (org, _) in kept {
        tracing::error!(org.id = %org, "{org} is kept outside and is not in the database at all");
    }
    // A replica that has found something itself takes nobody's word.
    if found.is_empty() && !strange.is_empty() && others_say_it_is_good(deps).await? {
        let orgs: Vec<OrgId> = strange.iter().map(|disagreement| disagreement.org).collect();
        adopt(deps, &orgs).await?;
    } else {
        found.extend(strange);
    }
    for Disagreement { org, why, .. } in &found {
        tracing::error!(org.id = %org, why = why.as_str(), "{org} is sealed: {why}");
        deps.store.seal(*org);
    }
    Ok(found)
}

/// What a replica that has found this says to others.
#[must_use]
pub fn word(found: &[Disagreement]) -> Word {
    if found.is_empty() {
        Word::Good
    } else if found.iter().all(|found| found.why == Why::NoRecord) {
        Word::Strange
    } else {
        Word::Bad
    }
}

/// Whether other replicas' word may be taken for what this one has never heard of: they watch the database they have been
/// writing to, and none of them has an org that is sealed. Those that start at the same time are waited for.
async fn others_say_it_is_good(deps: &Deps) -> Result<bool, Refusal> {
    let asking = async {
        loop {
            match deps.store.others_word().await? {
                Some(Word::Unsaid) => tokio::time::sleep(SHORTLY).await,
                said => return Ok(said == Some(Word::Good)),
            }
        }
    };
    tokio::time::timeout(WORD_WITHIN, asking)
        .await
        .unwrap_or(Ok(false))
}

/// Writes down what others did while this process ran: orgs they founded, moves, and logs they signed. It may never sign
/// the log of one, and would take it for a stranger, or an older database for the newest, when it starts again.
///
/// # Errors
/// When the database cannot be read or the file cannot be written.
pub async fn keep_up(deps: &Deps) -> Result<(), Refusal> {
    // A process that knows its database for another one learns nothing from it.
    if deps.store.outside().is_none() || deps.store.has_lost_entries() {
        return Ok(());
    }
    let (mut strange, mut ahead) = (Vec::new(), Vec::new());
    let mut after = None;
    loop {
        let orgs = deps.store.due().await?.reached(after, PAGE).await?;
        after = orgs.last().map(|(org, _)| *org);
        for (org, reached) in &orgs {
            match deps.store.known_outside(*org) {
                // One that is sealed waits for its admin.
                _ if deps.store.is_sealed(*org) => {}
                None => strange.push(*org),
                Some(known) if known.is_behind(*reached) => ahead.push(*org),
                Some(_) => {}
            }
        }
        if orgs.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
            break;
        }
    }
    adopt(deps, &strange).await?;
    if ahead.is_empty() {
        return Ok(());
    }
    let mut kept = deps
        .store
        .kept_outside()
        .await
        .map_err(unreadable)?
        .unwrap_or_default();
    let mut known = Vec::with_capacity(ahead.len());
    for org in ahead {
        // What does not go on from what is known is no news but evidence, and stays for the next start.
        match compare(deps, org, kept.remove(&org)).await? {
            None => known.push(state(deps, org).await?),
            Some(found) => tracing::error!(org.id = %org, "{org}: {}", found.why),
        }
    }
    deps.store.follow_outside(known).await.map_err(unwritable)
}

/// How far the database has come with an org.
async fn state(deps: &Deps, org: OrgId) -> Result<(OrgId, Epoch, Option<LogRow>), Refusal> {
    let mut tx = deps.store.read(org).await?;
    let (inside, head) = inside(&mut tx, org).await?;
    Ok((org, inside.epoch, head))
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

/// Asks the witness about one org, and says whether to go on asking: one that does not answer, or time that is up,
/// leave the rest to the worker, which seals as well.
async fn ask_witness(
    deps: &Deps,
    org: OrgId,
    until: Duration,
) -> Result<(Option<Disagreement>, bool), Refusal> {
    let Some(witness) = deps.witness.as_deref() else {
        return Ok((None, false));
    };
    let size = match witness::show(deps, witness, org).await {
        Ok(witness::Shown::HasMore(size)) => size,
        Ok(shown) => {
            if let witness::Shown::ClaimsMore(size) = shown {
                tracing::warn!(org.id = %org, witness.size = size, "the witness says that it has cosigned a longer log of {org} and shows none");
            }
            return Ok((None, deps.clock.since_boot() < until));
        }
        Err(witness::Failed::Witness(error)) => {
            tracing::warn!(cause = %error, "the witness cannot be asked whether this database is the newest");
            return Ok((None, !error.is_outage() && deps.clock.since_boot() < until));
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

async fn compare(deps: &Deps, org: OrgId, kept: Option<Kept>) -> Result<Option<Disagreement>, Refusal> {
    let mut tx = deps.store.read(org).await?;
    let (inside, head) = inside(&mut tx, org).await?;
    let (size, epoch) = (inside.size, inside.epoch);
    let key = audit::key(deps, org)?;
    let note = kept.as_ref().and_then(|kept| kept.checkpoint.as_deref());
    let checkpoint = note.and_then(|note| Checkpoint::open(note, &key).ok());
    let why = match (&kept, &checkpoint) {
        (None, _) => Some(Why::NoRecord),
        (Some(kept), _) if kept.epoch.counter > epoch.counter => Some(Why::Older),
        (Some(kept), _) if kept.epoch.counter == epoch.counter && kept.epoch != epoch => Some(Why::Forked),
        // A note of another key, or none at all: somebody changed the key or the file.
        (Some(_), None) if note.is_some() => Some(Why::Forked),
        (Some(_), None) => None,
        (Some(_), Some(checkpoint)) if checkpoint.size > size => Some(Why::Older),
        (Some(_), Some(checkpoint)) => {
            let root = audit::prove(&mut tx, org, &root_plan(checkpoint.size)).await;
            (root.ok().as_deref() != Some(&[checkpoint.root])).then_some(Why::Forked)
        }
    };
    let Some(why) = why else { return Ok(None) };
    Ok(Some(Disagreement {
        kept,
        checkpoint,
        ..disagreement(org, why, inside, head.as_ref())
    }))
}

/// How far the database is, and the head of its log.
async fn inside(tx: &mut Tx, org: OrgId) -> Result<(Side, Option<LogRow>), Refusal> {
    let epoch = tx
        .epoch(org)
        .await?
        .ok_or(StoreError::Inconsistent { table: "epochs" })?;
    let head = tx.log_head(org).await?;
    let size = head.as_ref().map_or(0, |row| row.size);
    Ok((Side { size, epoch }, head))
}

/// What the database says of an org that is sealed.
fn disagreement(org: OrgId, why: Why, inside: Side, head: Option<&LogRow>) -> Disagreement {
    // A head that cannot be read agrees with nothing.
    let state: Option<LogHead> = head.and_then(|row| serde_json::from_str(&row.head).ok());
    Disagreement {
        org,
        why,
        inside,
        agreed: state
            .as_ref()
            .and_then(LogHead::epoch)
            .map_or(0, |epoch| epoch.counter),
        writers: state
            .map(|state| {
                let writers = state.writers().iter();
                writers.map(|(name, head)| (name.clone(), head.seq)).collect()
            })
            .unwrap_or_default(),
        kept: None,
        checkpoint: None,
        witnessed: None,
    }
}

/// How long a start may spend on asking the witness about every org.
const WITNESS_WITHIN: Duration = Duration::from_secs(10);
/// How long a start waits for others that start as well.
const WORD_WITHIN: Duration = Duration::from_secs(10);
const SHORTLY: Duration = Duration::from_millis(250);
/// Orgs looked at in one page.
const PAGE: u64 = 500;
