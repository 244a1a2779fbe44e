//! The pure part of the sequencer: committed entries become leaves of their org's one log.
//!
//! Order: by epoch counter; inside an epoch a revocation first (it opened the epoch), then by writer and number.
//! Promises: an entry is taken only if it follows its writer's last one; nothing is taken when one entry does not.
//! What it must never do: skip, repair or reorder a writer's entries.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    chain::{BrokenLink, ChainHead, Writers, epoch_may_follow, follow},
    checkpoint::Checkpoint,
    encoding::{EntryError, entry_hash, leaf_hash, parse, parse_hex32},
    merkle::{Frontier, NodeId},
};
use crate::domain::{
    EntryId, OrgId,
    entry::{EntryType, Epoch},
};

/// A committed entry that has no place in the log yet. Made from its stored bytes alone, so that a row whose columns
/// were edited gains nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    id: EntryId,
    org: OrgId,
    epoch: Epoch,
    writer: String,
    seq: u64,
    prev: [u8; 32],
    hash: [u8; 32],
    leaf: [u8; 32],
    revokes: bool,
}

impl Pending {
    /// Reads an entry's bytes strictly.
    ///
    /// # Errors
    /// When they are not an entry.
    pub fn read(bytes: &[u8]) -> Result<Self, EntryError> {
        let entry = parse(bytes)?;
        Ok(Self {
            id: entry.id,
            org: entry.org,
            epoch: entry.epoch,
            seq: entry.writer_seq,
            prev: parse_hex32(&entry.prev).ok_or(EntryError::Form { field: "prev" })?,
            writer: entry.writer,
            hash: entry_hash(bytes),
            leaf: leaf_hash(bytes),
            revokes: entry.kind == EntryType::Revoke,
        })
    }
}

/// One writer's entries that wait, in its own order, or the first of them.
#[derive(Debug)]
pub struct Waiting {
    /// Whose they are.
    pub writer: String,
    /// The entries.
    pub entries: Vec<Pending>,
    /// Its last entry, as it was when it was committed.
    pub end: ChainHead,
}

impl Waiting {
    /// Its last entry that was read, if that can be: nothing else builds on the very last one yet, so only `end` says that
    /// it is there and what it was.
    fn last(&self) -> Result<&Pending, SequenceError> {
        match self.entries.last() {
            Some(last) if last.seq < self.end.seq => Ok(last),
            Some(last) if (last.seq, last.hash) == (self.end.seq, self.end.hash) => Ok(last),
            _ => Err(SequenceError::End {
                writer: self.writer.clone(),
                seq: self.end.seq,
            }),
        }
    }
}

/// The entries that can have their place now. A writer that was read only in part holds back the epochs behind its
/// last entry read: what it has there must not come after what others have.
///
/// # Errors
/// When a writer's last entry is missing or another one than was committed.
pub fn in_reach(chains: Vec<Waiting>) -> Result<Vec<Pending>, SequenceError> {
    let mut reach = i64::MAX;
    for chain in &chains {
        let last = chain.last()?;
        if last.seq < chain.end.seq {
            reach = reach.min(last.epoch.counter);
        }
    }
    Ok(chains
        .into_iter()
        .flat_map(|chain| chain.entries)
        .filter(|entry| entry.epoch.counter <= reach)
        .collect())
}

/// Where an org's log stands. Stored as its JSON, in the transaction that numbers the entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogHead {
    org: OrgId,
    frontier: Frontier,
    epoch: Option<Epoch>,
    writers: Writers,
}

/// What one run of the sequencer adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The log's head behind it.
    pub head: LogHead,
    /// The entries with their places, in log order.
    pub leaves: Vec<Leaf>,
    /// Every node of the tree that became complete, leaves included; proofs are made of these.
    pub nodes: Vec<(NodeId, [u8; 32])>,
}

/// An entry with its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// The entry.
    pub id: EntryId,
    /// Its place in the log, from 0.
    pub index: u64,
    /// Its leaf hash.
    pub hash: [u8; 32],
}

/// Why the log does not grow. Each means that rows were lost or changed: a person must look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// A writer's numbers are missing.
    #[error("writer {writer}: number {expected} is missing before {found}")]
    Gap {
        /// Which writer.
        writer: String,
        /// The first missing number.
        expected: u64,
        /// The number found instead.
        found: u64,
    },
    /// A writer's entry does not build on the one the log holds.
    #[error("writer {writer}: entry {seq} does not follow the log's last entry of this writer")]
    Fork {
        /// Which writer.
        writer: String,
        /// The number of the entry that does not follow.
        seq: u64,
    },
    /// A writer's last entry is missing, or is not the one that was committed.
    #[error(
        "writer {writer}: its last entries, up to number {seq}, are not all there as they were committed"
    )]
    End {
        /// Which writer.
        writer: String,
        /// The number of its last entry.
        seq: u64,
    },
    /// An entry of an epoch the log has left behind.
    #[error("entry {entry} is of epoch {found}, the log is at {last}")]
    EpochBackward {
        /// Which entry.
        entry: EntryId,
        /// Its epoch.
        found: Epoch,
        /// The log's.
        last: Epoch,
    },
    /// An entry of another org.
    #[error("entry {entry} belongs to another org")]
    WrongOrg {
        /// Which entry.
        entry: EntryId,
    },
}

impl LogHead {
    /// The empty log of an org.
    #[must_use]
    pub fn new(org: OrgId) -> Self {
        Self {
            org,
            frontier: Frontier::default(),
            epoch: None,
            writers: Writers::new(),
        }
    }

    /// How many entries the log has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The epoch of the last entry; `None` for an empty log.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// Every writer with its last entry, as the log has them.
    #[must_use]
    pub fn writers(&self) -> &Writers {
        &self.writers
    }

    /// The last entry of `writer`, as the log has it.
    #[must_use]
    pub fn writer(&self, writer: &str) -> Option<&ChainHead> {
        self.writers.get(writer)
    }

    /// The root of its tree.
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        self.frontier.root()
    }

    /// The checkpoint to sign for this head.
    #[must_use]
    pub fn checkpoint(&self, origin: &str) -> Checkpoint {
        Checkpoint {
            origin: origin.to_owned(),
            size: self.size(),
            root: self.root(),
            writers: self.writers.clone(),
        }
    }

    /// Gives each pending entry its place. Takes all of them or, on the first that does not fit, none.
    ///
    /// # Errors
    /// When an entry does not follow what the log holds.
    pub fn sequence(&self, pending: Vec<Pending>) -> Result<Batch, SequenceError> {
        let mut head = self.clone();
        let mut leaves = Vec::with_capacity(pending.len());
        let mut nodes = Vec::with_capacity(pending.len() * 2);
        for entry in in_log_order(pending) {
            leaves.push(Leaf {
                id: entry.id,
                index: head.size(),
                hash: entry.leaf,
            });
            head.take(entry, &mut nodes)?;
        }
        Ok(Batch { head, leaves, nodes })
    }

    fn take(&mut self, entry: Pending, nodes: &mut Vec<(NodeId, [u8; 32])>) -> Result<(), SequenceError> {
        if entry.org != self.org {
            return Err(SequenceError::WrongOrg { entry: entry.id });
        }
        if let Some(last) = self.epoch
            && !epoch_may_follow(self.epoch, entry.epoch)
        {
            return Err(SequenceError::EpochBackward {
                entry: entry.id,
                found: entry.epoch,
                last,
            });
        }
        let Pending { writer, seq, .. } = entry;
        match follow(self.writers.get(&writer), seq, &entry.prev) {
            Ok(()) => {}
            Err(BrokenLink::Gap { expected }) => {
                return Err(SequenceError::Gap {
                    writer,
                    expected,
                    found: seq,
                });
            }
            Err(BrokenLink::Repeat { .. } | BrokenLink::Prev) => {
                return Err(SequenceError::Fork { writer, seq });
            }
        }
        self.frontier
            .append(entry.leaf, |id, hash| nodes.push((id, hash)));
        self.epoch = Some(entry.epoch);
        self.writers.insert(
            writer,
            ChainHead {
                seq,
                hash: entry.hash,
            },
        );
        Ok(())
    }
}

/// Sorts by (epoch counter, writer, number), then lets each epoch begin with its revocation: many writers share an
/// epoch, and the one that opened it need not have the smallest name. A writer's own order is never touched.
fn in_log_order(pending: Vec<Pending>) -> Vec<Pending> {
    let mut epochs: BTreeMap<i64, Vec<Pending>> = BTreeMap::new();
    for entry in pending {
        epochs.entry(entry.epoch.counter).or_default().push(entry);
    }
    let mut ordered = Vec::new();
    for mut epoch in epochs.into_values() {
        epoch.sort_by(|a, b| (&a.writer, a.seq).cmp(&(&b.writer, b.seq)));
        let opener = epoch.iter().position(|entry| entry.revokes).filter(|&at| {
            at.checked_sub(1)
                .and_then(|before| epoch.get(before))
                .zip(epoch.get(at))
                .is_none_or(|(before, opener)| before.writer != opener.writer)
        });
        if let Some(part) = opener.and_then(|at| epoch.get_mut(..=at)) {
            part.rotate_right(1);
        }
        ordered.append(&mut epoch);
    }
    ordered
}

#[cfg(test)]
mod tests;
