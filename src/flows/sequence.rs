//! Giving committed entries their place in the org's log, and signing its head.
//!
//! Reading, hashing and signing happen outside of any writing transaction; what is left to write is small and goes in
//! one transaction, which takes effect only if the log is still as long as it was read. Two sequencers of one org are
//! therefore harmless: the later one looks again.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::{
    audit::{
        Batch, Checkpoint, LogHead, Pending, Waiting, checkpoint,
        encoding::leaf_hash,
        in_reach,
        merkle::Frontier,
        tiles::{self, TileId, Tiles},
    },
    domain::OrgId,
    store::{LogGrowth, LogRow, StoreError, TileRow},
};

use super::{Deps, Refusal, audit};

/// Lets the log of every org grow that has entries waiting: one short writing transaction per org, few at a time.
///
/// # Errors
/// When the database is unavailable. An org whose log cannot grow is logged and does not hold up the others.
pub async fn round(deps: &Arc<Deps>) -> Result<(), Refusal> {
    let mut after = None;
    loop {
        let orgs = deps.store.due().await?.orgs_to_sequence(after, PAGE).await?;
        let last_page = orgs.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
        after = orgs.last().copied();
        let mut under_way = JoinSet::new();
        for org in orgs {
            while under_way.len() >= PARALLEL && under_way.join_next().await.is_some() {}
            let deps = Arc::clone(deps);
            under_way.spawn(async move {
                if let Err(refusal) = run(&deps, org).await {
                    tracing::warn!(org.id = %org, cause = %refusal, "the log of {org} has to wait");
                }
            });
        }
        while under_way.join_next().await.is_some() {}
        if last_page {
            return Ok(());
        }
    }
}

/// Gives every entry of the org that waits its place and signs the new head; returns how many.
///
/// # Errors
/// When a chain is broken: nothing is sequenced then, and a person must look.
pub async fn run(deps: &Deps, org: OrgId) -> Result<usize, Refusal> {
    let mut placed = 0;
    loop {
        match step(deps, org).await? {
            Step::Nothing => return Ok(placed),
            Step::Raced => {}
            Step::Placed { entries, more } => {
                placed += entries;
                if !more {
                    return Ok(placed);
                }
            }
        }
    }
}

enum Step {
    /// Nothing waits.
    Nothing,
    /// Another sequencer was faster: look again.
    Raced,
    Placed {
        entries: usize,
        more: bool,
    },
}

/// What was read of a log, and what waits.
struct Read {
    org: OrgId,
    head: Option<String>,
    edge: Tiles,
    chains: Vec<(Vec<String>, bool)>,
}

async fn step(deps: &Deps, org: OrgId) -> Result<Step, Refusal> {
    // What a sealed org writes gets its place after the recovery, which says where its log goes on.
    if deps.store.is_sealed(org) {
        return Ok(Step::Nothing);
    }
    let Some(read) = read(deps, org).await? else {
        return Ok(Step::Nothing);
    };
    let more = read.chains.iter().any(|(_, more)| *more);
    // Parsing and hashing thousands of entries is work for a thread of its own.
    let made = tokio::task::spawn_blocking(move || make(read))
        .await
        .map_err(|_| Refusal::StoreUnavailable(None))?;
    let (before, batch, grown) = match made {
        Ok(made) => made,
        Err(Broken::Tiles(size)) => {
            rebuild_tiles(deps, org, size).await?;
            return Ok(Step::Raced);
        }
        Err(Broken::Log(cause)) => return Err(broken(org, &cause)),
    };
    let entries = batch.leaves.len();
    let head = batch.head.checkpoint(&checkpoint::origin(&deps.issuer, org));
    let growth = LogGrowth {
        before: before.size(),
        head: LogRow {
            size: batch.head.size(),
            head: serde_json::to_string(&batch.head).map_err(|_| Refusal::StoreUnavailable(None))?,
            checkpoint: sign(deps, org, &head)?,
        },
        entries: batch.leaves.iter().map(|leaf| leaf.id).collect(),
        writers: moved_on(&before, &batch.head),
        tiles: rows(grown),
    };
    let mut tx = deps.store.write(org).await?;
    if !tx.grow_log(org, &growth).await? {
        return Ok(Step::Raced);
    }
    if let Some(epoch) = batch.head.epoch() {
        tx.keep_checkpoint(org, epoch, growth.head.size, &growth.head.checkpoint);
    }
    tx.commit().await?;
    Ok(Step::Placed { entries, more })
}

/// One snapshot of everything the next step needs; `None` if nothing waits.
async fn read(deps: &Deps, org: OrgId) -> Result<Option<Read>, Refusal> {
    let mut tx = deps.store.read(org).await?;
    let writers = tx.waiting_writers(org).await?;
    let share = BATCH / u64::try_from(writers.len().max(1)).unwrap_or(u64::MAX);
    let share = share.max(LEAST_SHARE);
    let mut chains = Vec::with_capacity(writers.len());
    for writer in &writers {
        let texts = tx
            .entries_of_writer(org, &writer.name, writer.placed, share)
            .await?;
        let more = u64::try_from(texts.len()).is_ok_and(|count| count == share);
        chains.push((texts, more));
    }
    if chains.is_empty() {
        return Ok(None);
    }
    let head = tx.log_head(org).await?;
    let mut edge = Tiles::new();
    for id in tiles::right_edge(head.as_ref().map_or(0, |row| row.size)) {
        if let Some(tile) = tx.tile(org, id.level, id.index).await? {
            edge.insert(id, tile);
        }
    }
    Ok(Some(Read {
        org,
        head: head.map(|row| row.head),
        edge,
        chains,
    }))
}

enum Broken {
    /// A person must look.
    Log(String),
    /// The tiles of a log of this size are not all there: it was made before there were tiles.
    Tiles(u64),
}

/// Checks every chain, orders the entries and lets the tree and its tiles grow.
fn make(read: Read) -> Result<(LogHead, Batch, Tiles), Broken> {
    let damaged = |error: &dyn std::fmt::Display| Broken::Log(error.to_string());
    let before = match &read.head {
        Some(text) => serde_json::from_str(text).map_err(|error| damaged(&error))?,
        None => LogHead::new(read.org),
    };
    let mut chains = Vec::with_capacity(read.chains.len());
    for (texts, more) in read.chains {
        let entries = texts
            .iter()
            .map(|text| Pending::read(text.as_bytes()))
            .collect::<Result<_, _>>()
            .map_err(|error| damaged(&error))?;
        chains.push(Waiting { entries, more });
    }
    let batch = before
        .sequence(in_reach(chains))
        .map_err(|error| damaged(&error))?;
    if batch.leaves.is_empty() {
        return Err(Broken::Log("numbers of a writer are missing".to_owned()));
    }
    let grown = tiles::grow(&read.edge, &batch.nodes).map_err(|_| Broken::Tiles(before.size()))?;
    Ok((before, batch, grown))
}

/// The writers whose last number in the log changed.
fn moved_on(before: &LogHead, after: &LogHead) -> std::collections::BTreeMap<String, u64> {
    after
        .writers()
        .iter()
        .filter(|(name, head)| before.writer(name) != Some(*head))
        .map(|(name, head)| (name.clone(), head.seq))
        .collect()
}

/// Makes the tiles of a log anew from its entries.
async fn rebuild_tiles(deps: &Deps, org: OrgId, size: u64) -> Result<(), Refusal> {
    let mut frontier = Frontier::default();
    let mut made = Tiles::new();
    while frontier.size() < size {
        let page = deps
            .store
            .read(org)
            .await?
            .log_page(org, frontier.size(), PAGE)
            .await?;
        if page.is_empty() {
            return Err(broken(org, "entries that have a place are gone"));
        }
        for (index, entry) in page {
            if index != frontier.size() {
                return Err(broken(org, "entries that have a place are gone"));
            }
            if index == size {
                break;
            }
            let mut nodes = Vec::new();
            frontier.append(leaf_hash(entry.as_bytes()), |id, hash| nodes.push((id, hash)));
            let grown = tiles::grow(&made, &nodes).map_err(|error| broken(org, &error.to_string()))?;
            made.extend(grown);
        }
    }
    let mut tx = deps.store.write(org).await?;
    tx.put_tiles(org, &rows(made)).await?;
    tx.commit().await?;
    Ok(())
}

fn rows(tiles: Tiles) -> Vec<TileRow> {
    let row = |(TileId { level, index }, hashes)| TileRow { level, index, hashes };
    tiles.into_iter().map(row).collect()
}

fn sign(deps: &Deps, org: OrgId, head: &Checkpoint) -> Result<String, Refusal> {
    let key = audit::key(deps, org)?;
    // A key of another purpose would sign nothing; the note's own check then refuses the zeros.
    head.sign(&key, |text| deps.checkpoints.sign_note(text).unwrap_or([0; 64]))
        .map_err(|_| Refusal::KeyUnavailable)
}

fn broken(org: OrgId, cause: &str) -> Refusal {
    tracing::error!(org.id = %org, cause, "the log of {org} cannot be sequenced: somebody may have changed its rows");
    Refusal::StoreUnavailable(Some(StoreError::Inconsistent { table: "entries" }))
}

/// Entries placed in one transaction, shared among the writers that wait.
const BATCH: u64 = 2048;
/// So many of each writer, however many writers there are.
const LEAST_SHARE: u64 = 32;
/// Orgs, or entries of a log, read at once.
const PAGE: u64 = 1000;
/// Orgs sequenced at a time. On SQLite the gate waits for its turn behind at most so many writing transactions.
const PARALLEL: usize = 2;
