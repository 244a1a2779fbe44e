//! Inclusion and consistency proofs: which nodes they need, and whether one holds.

use super::{NodeId, empty_root, fold, node_hash};

/// What a proof is made of: for each of its hashes, the complete nodes it is folded from. Fetch the
/// [`nodes`](Self::nodes) wherever they are kept, then [`assemble`](Self::assemble).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofPlan {
    hashes: Vec<Vec<NodeId>>,
}

impl ProofPlan {
    /// Every node to fetch: at most two per level.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.hashes.iter().flatten().copied()
    }

    /// Makes the proof from the fetched nodes.
    ///
    /// # Errors
    /// Whatever `fetch` says.
    pub fn assemble<E>(
        &self,
        mut fetch: impl FnMut(NodeId) -> Result<[u8; 32], E>,
    ) -> Result<Vec<[u8; 32]>, E> {
        let mut proof = Vec::with_capacity(self.hashes.len());
        for ids in &self.hashes {
            let nodes = ids.iter().map(|&id| fetch(id)).collect::<Result<Vec<_>, E>>()?;
            proof.extend(fold(&nodes));
        }
        Ok(proof)
    }
}

/// RFC 9162 §2.1.3.1: that leaf `index` is in the tree of `size` leaves. `None` when it cannot be.
#[must_use]
pub fn inclusion_plan(index: u64, size: u64) -> Option<ProofPlan> {
    let (mut low, mut high) = (0, size);
    if index >= size {
        return None;
    }
    let mut hashes = Vec::new();
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            hashes.push(cover(middle, high));
            high = middle;
        } else {
            hashes.push(cover(low, middle));
            low = middle;
        }
    }
    hashes.reverse();
    Some(ProofPlan { hashes })
}

/// RFC 9162 §2.1.4.1: that the tree of `first` leaves is a prefix of the one of `second`. `None` when it cannot be.
#[must_use]
pub fn consistency_plan(first: u64, second: u64) -> Option<ProofPlan> {
    if first > second {
        return None;
    }
    let mut hashes = Vec::new();
    if first == 0 || first == second {
        return Some(ProofPlan { hashes });
    }
    // SUBPROOF(m, D[n], b) of the RFC, walked down: `whole` is its b.
    let (mut low, mut high, mut whole) = (0, second, true);
    while first < high {
        let middle = low + split(high - low);
        if first <= middle {
            hashes.push(cover(middle, high));
            high = middle;
        } else {
            hashes.push(cover(low, middle));
            low = middle;
            whole = false;
        }
    }
    if !whole {
        hashes.push(cover(low, high));
    }
    hashes.reverse();
    Some(ProofPlan { hashes })
}

/// The root of the tree of `size` leaves, which is at least 1: one hash, folded from its complete nodes.
#[must_use]
pub fn root_plan(size: u64) -> ProofPlan {
    ProofPlan {
        hashes: vec![cover(0, size)],
    }
}

/// RFC 9162 §2.1.3.2.
#[must_use]
pub fn verify_inclusion(leaf: &[u8; 32], index: u64, size: u64, proof: &[[u8; 32]], root: &[u8; 32]) -> bool {
    if index >= size {
        return false;
    }
    let mut walk = Walk {
        node: index,
        last: size - 1,
    };
    let mut hash = *leaf;
    for sibling in proof {
        if walk.last == 0 {
            return false;
        }
        hash = if walk.joins_left() {
            node_hash(sibling, &hash)
        } else {
            node_hash(&hash, sibling)
        };
        walk.up();
    }
    walk.last == 0 && hash == *root
}

/// RFC 9162 §2.1.4.2; every tree is consistent with the empty one.
#[must_use]
pub fn verify_consistency(
    first: u64,
    second: u64,
    proof: &[[u8; 32]],
    first_root: &[u8; 32],
    second_root: &[u8; 32],
) -> bool {
    if first == 0 && *first_root != empty_root() {
        return false;
    }
    if first == second {
        return proof.is_empty() && first_root == second_root;
    }
    if first == 0 {
        return proof.is_empty();
    }
    // A first tree that is complete is itself the first node of the path.
    let mut path = first
        .is_power_of_two()
        .then_some(first_root)
        .into_iter()
        .chain(proof);
    let Some(start) = path.next() else { return false };
    if first > second || proof.is_empty() {
        return false;
    }
    let mut walk = Walk {
        node: first - 1,
        last: second - 1,
    };
    while walk.node & 1 == 1 {
        walk.shift();
    }
    let (mut old, mut new) = (*start, *start);
    for sibling in path {
        if walk.last == 0 {
            return false;
        }
        if walk.joins_left() {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
        } else {
            new = node_hash(&new, sibling);
        }
        walk.up();
    }
    walk.last == 0 && old == *first_root && new == *second_root
}

/// `fn` and `sn` of the RFC's algorithms.
struct Walk {
    node: u64,
    last: u64,
}

impl Walk {
    fn joins_left(&self) -> bool {
        self.node & 1 == 1 || self.node == self.last
    }

    fn up(&mut self) {
        if self.node == self.last {
            while self.node & 1 == 0 && self.node != 0 {
                self.shift();
            }
        }
        self.shift();
    }

    fn shift(&mut self) {
        self.node >>= 1;
        self.last >>= 1;
    }
}

/// The largest power of two smaller than `count`, which is at least 2.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

/// The complete subtrees over leaves `low..high`, where `low` begins a subtree of the whole tree.
fn cover(mut low: u64, high: u64) -> Vec<NodeId> {
    let mut nodes = Vec::new();
    while low < high {
        let level = (high - low).ilog2();
        nodes.push(NodeId {
            level: u8::try_from(level).unwrap_or(u8::MAX),
            index: low >> level,
        });
        low += 1 << level;
    }
    nodes
}
