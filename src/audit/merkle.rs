//! The Merkle tree of RFC 9162 §2.1, grown at its right edge.
//!
//! Promises: appending costs O(log n) and needs only the [`Frontier`]; every complete node is handed out once, when it
//! becomes complete, so that a store (or tiles) can keep it and proofs are read, not recomputed.

mod proof;

pub use proof::{
    ProofPlan, consistency_plan, inclusion_plan, root_plan, verify_consistency, verify_inclusion,
};

use serde::{Deserialize, Serialize};

use crate::crypto::{
    digest::{hex, sha256},
    entry_bytes::parse_hex32,
};

/// A complete subtree: 2^`level` leaves, the `index`-th of its level, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// 0 for leaves.
    pub level: u8,
    /// Counted from the left.
    pub index: u64,
}

/// The right edge of the tree: all that is needed to append and to know the root.
///
/// INVARIANT: one peak for each set bit of `size`, greatest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FrontierText", into = "FrontierText")]
pub struct Frontier {
    size: u64,
    peaks: Vec<[u8; 32]>,
}

impl Frontier {
    /// How many leaves there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf (already hashed) and tells `completed` each node that became complete, the leaf first.
    pub fn append(&mut self, leaf: [u8; 32], mut completed: impl FnMut(NodeId, [u8; 32])) {
        let mut id = NodeId {
            level: 0,
            index: self.size,
        };
        let mut node = leaf;
        completed(id, node);
        while id.index & 1 == 1
            && let Some(left) = self.peaks.pop()
        {
            node = node_hash(&left, &node);
            id = NodeId {
                level: id.level + 1,
                index: id.index >> 1,
            };
            completed(id, node);
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// The root; SHA-256 of nothing for the empty tree (RFC 9162 §2.1.1).
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        fold(&self.peaks).unwrap_or_else(empty_root)
    }
}

/// The root of the empty tree.
#[must_use]
pub fn empty_root() -> [u8; 32] {
    sha256(b"")
}

/// RFC 9162 §2.1.1: SHA-256 of 0x01, left and right.
#[must_use]
pub fn node_hash(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut bytes = [0x01; 65];
    let (_, children) = bytes.split_at_mut(1);
    let (first, second) = children.split_at_mut(32);
    first.copy_from_slice(left);
    second.copy_from_slice(right);
    sha256(&bytes)
}

/// The hash over complete subtrees that stand side by side, greatest first; `None` for none.
fn fold(subtrees: &[[u8; 32]]) -> Option<[u8; 32]> {
    let (last, rest) = subtrees.split_last()?;
    Some(
        rest.iter()
            .rev()
            .fold(*last, |right, left| node_hash(left, &right)),
    )
}

/// The stored form: size and peaks in hexadecimal.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FrontierText {
    size: u64,
    peaks: Vec<String>,
}

/// The stored frontier contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a frontier: peaks and size do not belong together")]
pub struct InvalidFrontier;

impl TryFrom<FrontierText> for Frontier {
    type Error = InvalidFrontier;

    fn try_from(text: FrontierText) -> Result<Self, InvalidFrontier> {
        let peaks: Vec<_> = text
            .peaks
            .iter()
            .map(|peak| parse_hex32(peak).ok_or(InvalidFrontier))
            .collect::<Result<_, _>>()?;
        if u32::try_from(peaks.len()) == Ok(text.size.count_ones()) {
            Ok(Self {
                size: text.size,
                peaks,
            })
        } else {
            Err(InvalidFrontier)
        }
    }
}

impl From<Frontier> for FrontierText {
    fn from(frontier: Frontier) -> Self {
        Self {
            size: frontier.size,
            peaks: frontier.peaks.iter().map(|peak| hex(peak)).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
