//! Having the log witnessed: every checkpoint is shown to the witness, with a proof that it builds on the last one it
//! cosigned; its cosignature is kept with the checkpoint, also where the log has grown by the time it comes.
//!
//! A witness that is gone, slow or does not know the log holds up nothing: releases never ask it. One that shows a
//! longer log than this database holds, signed by the log's own key, proves that the database is older than it was: that
//! seals the org. One that only says so proves nothing.

use std::time::Duration;

use crate::{
    audit::{
        merkle::consistency_plan,
        witness::{Answer, Witness, WitnessError},
    },
    domain::OrgId,
    store::{LogRow, StoreError},
};

use super::{Deps, Refusal, audit, walk::begin_anywhere};

/// What came of showing one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// It has cosigned the log as it is.
    Cosigned,
    /// It shows a longer log than there is here, signed by the log's own key.
    HasMore(u64),
    /// It says that it has cosigned a longer log, and shows none.
    ClaimsMore(u64),
    /// It has cosigned another history.
    Contradicts,
    /// There is no log yet.
    Nothing,
}

/// Shows the witness every log that is longer than what it has cosigned; returns how many it cosigned. What is wrong with
/// one log holds up no other.
///
/// # Errors
/// When the database is unavailable, or the witness was for some log, or something of ours: that waits for the next look, and
/// where the database is gone, or the witness seems to be, everything else too.
pub async fn round(deps: &Deps, witness: &Witness) -> Result<usize, Refusal> {
    let (mut cosigned, mut outages, mut failed) = (0, 0, None);
    for org in orgs_behind(deps, witness).await? {
        if deps.uncut.is_stopping() {
            return Ok(cosigned);
        }
        if deps.store.is_sealed(org) {
            continue;
        }
        match show(deps, witness, org).await {
            Ok(Shown::Cosigned) => {
                witness.agrees(org);
                cosigned += 1;
            }
            Ok(Shown::HasMore(size)) => {
                tracing::error!(org.id = %org, witness.size = size, "{org} is sealed: its witness has cosigned a longer log than the database holds");
                deps.store.seal(org);
            }
            // Once: it will say so at every look.
            Ok(Shown::ClaimsMore(_) | Shown::Contradicts) if !witness.disagrees(org) => {}
            Ok(Shown::ClaimsMore(size)) => {
                tracing::error!(org.id = %org, witness.size = size, "the witness says that it has cosigned a longer log of {org} and shows none: either it is wrong, or this database is older than it was");
            }
            Ok(Shown::Contradicts) => {
                tracing::error!(org.id = %org, "the witness has cosigned another history of the log of {org} and cosigns this one no more");
            }
            Ok(Shown::Nothing) => {}
            Err(Failed::Witness(error)) => {
                tracing::warn!(org.id = %org, cause = %error, "the witness cosigned nothing of {org}");
                outages += usize::from(error.is_outage());
                // RFC 6585 §4: it was asked too much.
                if outages >= OUTAGES || matches!(error, WitnessError::Status(429)) {
                    break;
                }
            }
            Err(Failed::Here(refusal)) if refusal.is_outage() => return Err(refusal),
            Err(Failed::Here(refusal)) => {
                tracing::warn!(org.id = %org, cause = %refusal, "the log of {org} could not be shown to the witness");
                failed.get_or_insert(refusal);
            }
        }
    }
    match failed {
        Some(refusal) => Err(refusal),
        None if outages > 0 => Err(Refusal::ProviderUnavailable),
        None => Ok(cosigned),
    }
}

/// Those whose log is longer than what the witness has, beginning anywhere.
async fn orgs_behind(deps: &Deps, witness: &Witness) -> Result<Vec<OrgId>, Refusal> {
    let (cursor, mut orgs) = (cursor(witness), Vec::<OrgId>::new());
    loop {
        let mut due = deps.store.due().await?;
        let page = due.orgs_behind(&cursor, orgs.last().copied(), PAGE).await?;
        if page.is_empty() {
            break;
        }
        orgs.extend(page);
    }
    begin_anywhere(&mut orgs, &*deps.random)?;
    Ok(orgs)
}

/// Why one log was not shown.
#[derive(Debug)]
pub enum Failed {
    /// The witness.
    Witness(WitnessError),
    /// Anything of ours.
    Here(Refusal),
}

impl<E: Into<Refusal>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Here(error.into())
    }
}

/// Shows the witness one log as it is now.
///
/// # Errors
/// When the witness cannot be asked, or the database.
pub async fn show(deps: &Deps, witness: &Witness, org: OrgId) -> Result<Shown, Failed> {
    let mut tx = deps.store.read(org).await?;
    let seen = tx.sink_cursor(org, &cursor(witness)).await?;
    let Some(mut head) = tx.log_head(org).await? else {
        return Ok(Shown::Nothing);
    };
    drop(tx);
    let mut old = seen.min(head.size);
    let until = deps.clock.since_boot() + SHOWN_WITHIN;
    for _ in 0..TRIES {
        // One that takes its time for each answer holds up every other log.
        if deps.clock.since_boot() > until {
            return Err(Failed::Witness(WitnessError::Slow));
        }
        match ask(deps, witness, org, old, &head).await? {
            Answer::Cosigned(note) => {
                let keep = deps.store.retry(|| async {
                    let mut tx = deps.store.write(org).await?;
                    // If the log has grown meanwhile, the next look shows the longer one.
                    tx.keep_cosigned(org, &head, &note).await?;
                    tx.move_sink_cursor(org, &cursor(witness), seen, head.size)
                        .await?;
                    tx.commit().await
                });
                keep.await?;
                return Ok(Shown::Cosigned);
            }
            Answer::Claims(size) if size <= head.size => {
                if size < old {
                    tracing::warn!(org.id = %org, witness.size = size, "the witness has less of the log of {org} than it had cosigned: it was set back, or two of them have one key");
                }
                old = size;
            }
            Answer::Claims(size) => {
                // SECURITY: nobody signed that size. Believed, it would let whoever answers here stop every release.
                let log = audit::key(deps, org)?;
                let shown = witness.shown(&log).await.map_err(Failed::Witness)?;
                // Another replica may have shown it a log that has grown since this one was read.
                let now = deps.store.read(org).await?.log_head(org).await?;
                let Some(now) = now else {
                    return Ok(Shown::Nothing);
                };
                match shown {
                    _ if now.size >= size => (old, head) = (size, now),
                    Some(shown) if shown.size > now.size => return Ok(Shown::HasMore(shown.size)),
                    _ => return Ok(Shown::ClaimsMore(size)),
                }
            }
            Answer::Contradicts => return Ok(Shown::Contradicts),
        }
    }
    // Somebody else is always faster, or it plays for time. The next look tries again.
    Err(Failed::Witness(WitnessError::Unsettled))
}

async fn ask(deps: &Deps, witness: &Witness, org: OrgId, old: u64, head: &LogRow) -> Result<Answer, Failed> {
    let plan = consistency_plan(old, head.size).ok_or(Refusal::NotFound)?;
    let proof = match audit::prove(&mut deps.store.read(org).await?, org, &plan).await {
        // What is wrong with one log's tiles is no reason not to start, or to show no other.
        Err(Refusal::StoreUnavailable(Some(StoreError::Inconsistent { .. }))) => {
            return Err(Failed::Witness(WitnessError::Unproved));
        }
        proof => proof?,
    };
    witness
        .add_checkpoint(old, head.size, &proof, &head.checkpoint)
        .await
        .map_err(Failed::Witness)
}

/// Under which name it is kept how much the witness has cosigned; no sink can have it.
pub(super) fn cursor(witness: &Witness) -> String {
    format!("witness:{}", witness.key().name())
}

/// Orgs read at once.
const PAGE: u64 = 1000;
/// Logs that a witness may give no answer about in one look: one that is gone is not asked about every log there is.
const OUTAGES: usize = 3;
/// How often a log is shown in one look, each time building on what the witness said it has.
const TRIES: usize = 4;
/// How long after it was begun a log is still shown once more. An answer has a limit of its own.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);
