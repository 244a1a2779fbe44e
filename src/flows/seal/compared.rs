//! One org's database beside what is kept outside of it.
//!
//! Numbers can be caught up with other content. What counts is whether the database has the entries that are known, and
//! where its epoch is of another incarnation, whether that one goes on from the known one, and what the recoveries between
//! have ended again.

use crate::{
    audit::{Checkpoint, LogHead, merkle::root_plan},
    domain::{
        OrgId,
        entry::{Entry, Epoch},
    },
    flows::{Deps, Refusal, audit},
    store::{Kept, LogRow, Selector, StoreError, Tx},
};

use super::{Disagreement, Side, Why};

/// What comes of comparing.
#[derive(Debug)]
pub(super) enum Compared {
    /// It goes on from what is kept, in this incarnation.
    Same(u32),
    /// The same, in an incarnation that another process began, and with all that was known lost ended again.
    Renewed(u32),
    /// It does not.
    Differs(Box<Disagreement>),
}

/// How the database's epoch comes from the one that is kept.
enum Lineage {
    /// It is of the same incarnation.
    Same,
    /// Of a later one.
    Later(Later),
    /// The database has never been in the incarnation that is kept.
    Unknown,
}

struct Later {
    /// The counter of the last epoch that it has of the kept incarnation.
    branched: i64,
    /// Where in its log the first recovery since begins.
    recovered_at: Option<u64>,
    /// What the recoveries since have ended.
    ended: Vec<Selector>,
}

pub(super) async fn compare(deps: &Deps, org: OrgId, kept: Option<Kept>) -> Result<Compared, Refusal> {
    let mut tx = deps.store.read(org).await?;
    let (inside, head) = inside(&mut tx, org).await?;
    let Some(kept) = kept else {
        let found = disagreement(org, Why::NoRecord, inside, head.as_ref());
        return Ok(Compared::Differs(Box::new(found)));
    };
    let lineage = lineage(&mut tx, org, kept.epoch, inside.epoch).await?;
    let recovered_at = match &lineage {
        Lineage::Later(later) => later.recovered_at,
        Lineage::Same | Lineage::Unknown => None,
    };
    let key = audit::key(deps, org)?;
    let note = kept.checkpoint.as_deref();
    let checkpoint = note.and_then(|note| Checkpoint::open(note, &key).ok());
    let is_behind = kept.epoch.counter > inside.epoch.counter;
    let mut why = match (&lineage, &checkpoint) {
        (Lineage::Same | Lineage::Unknown, _) if is_behind => Some(Why::Older),
        (Lineage::Unknown, _) => Some(Why::Forked),
        // A note of another key, or none at all: somebody changed the key or the file.
        (_, None) if note.is_some() => Some(Why::Forked),
        (_, None) => None,
        // What was signed behind the place where a recovery goes on is lost, as that recovery has said.
        (_, Some(checkpoint)) if recovered_at.is_some_and(|at| checkpoint.size > at) => None,
        (_, Some(checkpoint)) if checkpoint.size > inside.size => Some(Why::Older),
        (_, Some(checkpoint)) => {
            let root = audit::prove(&mut tx, org, &root_plan(checkpoint.size)).await;
            match root {
                Err(Refusal::StoreUnavailable(Some(StoreError::Inconsistent { .. }))) => Some(Why::Forked),
                Err(refusal) => return Err(refusal),
                Ok(root) if root == [checkpoint.root] => None,
                // Signed over entries that a recovery gave up. Where they stood stand others by now, written while the org was
                // sealed, that have their places before that of the recovery.
                Ok(_) if recovered_at.is_some() && !has_last_entries(&mut tx, org, &kept).await? => None,
                Ok(_) => Some(Why::Forked),
            }
        }
    };
    // What a recovery gave up, nobody misses; of an incarnation that the database was never in, it may have been one's own.
    let goes_on = recovered_at.is_none() && !matches!(lineage, Lineage::Unknown);
    let is_asked = goes_on && matches!(why, None | Some(Why::Forked));
    let lacks_known = is_asked && !has_last_entries(&mut tx, org, &kept).await?;
    if why.is_none() && lacks_known {
        why = Some(Why::Older);
    }
    let incarnation = inside.epoch.incarnation;
    let mut found = disagreement(org, Why::Older, inside, head.as_ref());
    let is_same = matches!(lineage, Lineage::Same);
    // Whoever has caught up with them, or was recovered beyond them, shows nothing by them.
    let numbers_count = is_behind && !matches!(lineage, Lineage::Later(_));
    if let Lineage::Later(later) = lineage {
        found.agreed = later.branched;
        found.ended = later.ended;
    }
    let sealed = kept.sealed.as_deref().map(Why::of);
    if why.is_some() || sealed.is_some() || !is_same {
        found.agreed = agreed(&mut tx, org, &kept, found.agreed, numbers_count).await?;
    }
    found.checkpoint = checkpoint;
    let shows_entries = kept.last_entries().next().is_some();
    found.kept = Some(kept);
    if why.is_none() && !is_same && found.lost().next().is_some() {
        why = Some(Why::Older);
    }
    found.is_older = lacks_known || why == Some(Why::Older);
    found.is_remembered = sealed.is_some() && why.is_none() && shows_entries;
    why = match (why, sealed) {
        // An admin has recovered since: what was found before is what that was about.
        (why, _) if recovered_at.is_some() => why,
        (why, None) | (why @ Some(_), Some(Why::NoRecord)) => why,
        // It was another history then, and is not now: what counts is what is missing.
        (None, Some(Why::Forked)) => Some(Why::Lost),
        // Whatever else was found before, nothing in it is known to be as it was left.
        (why @ Some(Why::Forked), Some(_)) => why,
        // It still lacks what was known.
        (why @ Some(Why::Older), Some(Why::Lost)) => why,
        (_, sealed) => sealed,
    };
    Ok(match why {
        Some(why) => Compared::Differs(Box::new(Disagreement { why, ..found })),
        None if is_same => Compared::Same(incarnation),
        None => Compared::Renewed(incarnation),
    })
}

async fn lineage(tx: &mut Tx, org: OrgId, kept: Epoch, inside: Epoch) -> Result<Lineage, Refusal> {
    if kept.incarnation == inside.incarnation {
        return Ok(Lineage::Same);
    }
    match later(tx, org, kept).await {
        Ok(Some(later)) => Ok(Lineage::Later(later)),
        // Entries that somebody changed lead nowhere.
        Ok(None) | Err(StoreError::Inconsistent { .. }) => Ok(Lineage::Unknown),
        Err(error) => Err(error.into()),
    }
}

/// What began since the incarnation that is kept; `None` if the database has nothing of that one.
async fn later(tx: &mut Tx, org: OrgId, kept: Epoch) -> Result<Option<Later>, StoreError> {
    let mut later: Option<Later> = None;
    for Entry { epoch, draft, .. } in tx.incarnations(org).await? {
        // A copy ends nothing: what its source lacked, it lacks.
        let is_recovery = draft.outcome.as_deref() == Some("recovered");
        let begin = match &later {
            Some(later) if !is_recovery || later.recovered_at.is_some() => None,
            _ => Some(tx.epoch_begin(org, epoch.counter).await?),
        };
        if later.is_none() {
            let before = begin.as_ref().and_then(|begin| begin.before.as_ref());
            later = before
                .filter(|before| before.epoch.incarnation == kept.incarnation)
                .map(|before| Later {
                    branched: before.epoch.counter,
                    recovered_at: None,
                    ended: Vec::new(),
                });
        }
        let Some(later) = &mut later else { continue };
        if is_recovery {
            later.ended.extend(tx.ended_at(org, epoch.counter).await?);
            if let (None, Some(begin)) = (later.recovered_at, begin) {
                let size = tx.log_head(org).await?.map_or(0, |head| head.size);
                later.recovered_at = Some(begin.place.unwrap_or(size));
            }
        }
    }
    Ok(later)
}

async fn has_last_entries(tx: &mut Tx, org: OrgId, kept: &Kept) -> Result<bool, Refusal> {
    for entry in kept.last_entries() {
        if !tx.has_entry(org, entry).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Up to which epoch the database has every move that is kept. If it has none of the entries that show one, its own number says
/// so where that counts; of a move whose entry was left out when the file was compacted nothing else does.
async fn agreed(
    tx: &mut Tx,
    org: OrgId,
    kept: &Kept,
    by_number: i64,
    numbers_count: bool,
) -> Result<i64, Refusal> {
    let traces: Vec<_> = kept.traces().collect();
    // Whoever has one has all before.
    let (mut has, mut lacks) = (0, traces.len());
    while has < lacks {
        let middle = usize::midpoint(has, lacks);
        match traces.get(middle) {
            Some((_, entry)) if tx.has_entry(org, *entry).await? => has = middle + 1,
            _ => lacks = middle,
        }
    }
    let agreed = has.checked_sub(1).and_then(|last| traces.get(last));
    Ok(match (agreed, traces.get(lacks)) {
        (Some((counter, _)), _) => *counter,
        (None, Some((counter, _))) if numbers_count => by_number.min(counter - 1),
        (None, Some(_)) => 0,
        (None, None) => by_number,
    })
}

/// How far the database is, and the head of its log.
pub(super) async fn inside(tx: &mut Tx, org: OrgId) -> Result<(Side, Option<LogRow>), Refusal> {
    let epoch = tx
        .epoch(org)
        .await?
        .ok_or(StoreError::Inconsistent { table: "epochs" })?;
    let head = tx.log_head(org).await?;
    let size = head.as_ref().map_or(0, |row| row.size);
    Ok((Side { size, epoch }, head))
}

/// What the database says of an org that is sealed.
pub(super) fn disagreement(org: OrgId, why: Why, inside: Side, head: Option<&LogRow>) -> Disagreement {
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
        is_remembered: false,
        is_older: false,
        is_witness_silent: false,
        ended: Vec::new(),
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
