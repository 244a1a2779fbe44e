//! The tree as tiles (C2SP tlog-tiles): every eighth level of it, 256 hashes to a tile.
//!
//! Promises: a tile only ever grows at its end; every node of the tree is folded from one tile, so that a proof reads
//! a tile or two per eight levels. What it must never do: accept a tile that is not as long as the tree's size says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use super::{
    checkpoint::parse_decimal,
    merkle::{NodeId, ProofPlan, node_hash},
};

/// One tile: the `index`-th of its level, both from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    /// 0: leaf hashes; above: each hash is the root of a full tile of the level below.
    pub level: u8,
    /// Counted from the left.
    pub index: u64,
}

/// Tiles by id, each as its hashes side by side.
pub type Tiles = BTreeMap<TileId, Vec<u8>>;

/// A tile is not as long as the log's size says: rows were lost or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("tile {0} is missing or has another length than the log's size says")]
pub struct BrokenTile(pub TileId);

impl TileId {
    /// The tile that holds a node, or the hashes it is folded from.
    #[must_use]
    pub fn of(node: NodeId) -> Self {
        let (level, inner) = (node.level / HEIGHT, node.level % HEIGHT);
        Self {
            level,
            index: (node.index << inner) / WIDTH,
        }
    }

    /// How many hashes the tile has in a tree of `size` leaves; 0 if it is not there yet.
    #[must_use]
    pub fn width(self, size: u64) -> u64 {
        hashes_at(self.level, size)
            .saturating_sub(self.index.saturating_mul(WIDTH))
            .min(WIDTH)
    }
}

/// Level and index, as in a path of the specification without its groups of three.
impl fmt::Display for TileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.level, self.index)
    }
}

/// The tiles that are not full in a tree of `size` leaves: all that is needed to let them grow.
#[must_use]
pub fn right_edge(size: u64) -> Vec<TileId> {
    (0..=MAX_LEVEL)
        .map(|level| TileId {
            level,
            index: hashes_at(level, size) / WIDTH,
        })
        .filter(|tile| tile.width(size) > 0)
        .collect()
}

/// Adds the nodes that became complete to the tiles of the right edge and returns every tile that changed.
///
/// # Errors
/// When a tile of the edge is not as long as it must be.
pub fn grow(edge: &Tiles, nodes: &[(NodeId, [u8; 32])]) -> Result<Tiles, BrokenTile> {
    let mut grown = Tiles::new();
    for (node, hash) in nodes {
        if node.level % HEIGHT != 0 {
            continue;
        }
        let id = TileId::of(*node);
        let tile = grown
            .entry(id)
            .or_insert_with(|| edge.get(&id).cloned().unwrap_or_default());
        if bytes(node.index % WIDTH) != Some(tile.len()) {
            return Err(BrokenTile(id));
        }
        tile.extend_from_slice(hash);
    }
    Ok(grown)
}

/// The tiles a proof reads.
#[must_use]
pub fn tiles_of(plan: &ProofPlan) -> BTreeSet<TileId> {
    plan.nodes().map(TileId::of).collect()
}

/// A complete node, folded from its tile.
///
/// # Errors
/// When the tile is missing or too short.
pub fn node(tiles: &Tiles, node: NodeId) -> Result<[u8; 32], BrokenTile> {
    let id = TileId::of(node);
    let inner = node.level % HEIGHT;
    let first = (node.index << inner) % WIDTH;
    let hashes = tiles
        .get(&id)
        .and_then(|tile| tile.get(bytes(first)?..bytes(first + (1 << inner))?))
        .ok_or(BrokenTile(id))?;
    let (hashes, _) = hashes.as_chunks::<32>();
    let mut level = hashes.to_vec();
    while level.len() > 1 {
        level = level
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[left, right]| node_hash(left, right))
            .collect();
    }
    level.pop().ok_or(BrokenTile(id))
}

/// What a path behind `tile/` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TilePath {
    /// `None`: the entries under a tile of level 0.
    pub level: Option<u8>,
    /// The tile's index in its level.
    pub index: u64,
    /// How many hashes or entries are asked for; 256 without `.p/`.
    pub width: u64,
}

/// The path names no tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the path of a tile")]
pub struct NotATile;

/// `<L>/<N>` or `entries/<N>`, with `.p/<W>` for a partial one; exactly one path for each tile.
impl FromStr for TilePath {
    type Err = NotATile;

    fn from_str(path: &str) -> Result<Self, NotATile> {
        let (level, rest) = path.split_once('/').ok_or(NotATile)?;
        let level = match level {
            "entries" => None,
            level => Some(
                parse_decimal(level)
                    .and_then(|level| u8::try_from(level).ok())
                    .filter(|level| *level <= MAX_LEVEL)
                    .ok_or(NotATile)?,
            ),
        };
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => {
                let width = parse_decimal(width).ok_or(NotATile)?;
                (
                    number,
                    Some(width)
                        .filter(|width| (1..WIDTH).contains(width))
                        .ok_or(NotATile)?,
                )
            }
            None => (rest, WIDTH),
        };
        Ok(Self {
            level,
            index: parse_number(number).ok_or(NotATile)?,
            width,
        })
    }
}

/// Groups of three digits, all but the last behind an `x`.
fn parse_number(text: &str) -> Option<u64> {
    let mut groups = text.split('/').rev();
    let last = groups.next()?;
    let mut number = group(last)?;
    let mut unit = 1_u64;
    let mut first = None;
    for text in groups {
        let value = group(text.strip_prefix('x')?)?;
        unit = unit.checked_mul(1000)?;
        number = number.checked_add(value.checked_mul(unit)?)?;
        first = Some(value);
    }
    // One number has one path: no group of zeros leads it.
    (first != Some(0)).then_some(number)
}

fn group(text: &str) -> Option<u64> {
    let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// An entry bundle: each entry behind its length, 16 bits big-endian. `None` if an entry is too long for one.
#[must_use]
pub fn bundle<'e>(entries: impl Iterator<Item = &'e [u8]>) -> Option<Vec<u8>> {
    let mut bundle = Vec::new();
    for entry in entries {
        bundle.extend_from_slice(&u16::try_from(entry.len()).ok()?.to_be_bytes());
        bundle.extend_from_slice(entry);
    }
    Some(bundle)
}

/// How many complete nodes of a tile's level a tree of `size` leaves has.
fn hashes_at(level: u8, size: u64) -> u64 {
    size.checked_shr(u32::from(level) * u32::from(HEIGHT))
        .unwrap_or(0)
}

/// How many bytes so many hashes take.
fn bytes(hashes: u64) -> Option<usize> {
    usize::try_from(hashes).ok()?.checked_mul(32)
}

/// Hashes of a full tile.
pub const WIDTH: u64 = 256;
/// Levels of the tree between two levels of tiles.
const HEIGHT: u8 = 8;
/// 2^64 leaves have no tile above this level.
const MAX_LEVEL: u8 = 7;

#[cfg(test)]
mod tests;
