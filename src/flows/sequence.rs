//! Giving committed entries their place in the org's log, and signing its head.
//!
//! Reading, hashing and signing happen outside of any writing transaction; what is left to write is small and goes in
//! one transaction, which takes effect only if the log is still as long as it was read. Two sequencers of one org are
//! therefore harmless: the later one looks again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    audit::{
        Batch, Checkpoint, LogHead, Pending, VerifierKey, Waiting,
        chain::ChainHead,
        checkpoint,
        encoding::leaf_hash,
        in_reach,
        merkle::Frontier,
        tiles::{self, TileId, Tiles},
    },
    domain::OrgId,
    store::{LogGrowth, LogRow, StoreError, TileRow, WaitingWriter},
};

pub use self::signed::SignedHeads;
use super::{Deps, Refusal, audit, seal};

mod signed;

/// Lets the log of every org grow that has entries waiting: one short writing transaction for many of them. Returns whether
/// there is more, for which to come again at once.
///
/// # Errors
/// When the database is unavailable. An org whose log cannot grow is logged and does not hold up the others.
pub async fn round(deps: &Arc<Deps>) -> Result<bool, Refusal> {
    // Whoever else signs the log: what this process wrote is known outside as soon.
    deps.store.note_written();
    let more = turns(deps).await;
    deps.store.try_to_flush_outside().await;
    more
}

async fn turns(deps: &Arc<Deps>) -> Result<bool, Refusal> {
    if let Err(refusal) = seal::settle(deps).await {
        tracing::warn!(cause = %refusal, "orgs that another process recovered have to wait");
    }
    let mut stuck = BTreeSet::new();
    for _ in 0..TURNS {
        if !turn(deps, &mut stuck).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Everybody's turn, once: a few steps, so that no org waits for all that another one has. Whoever cannot grow gets no other
/// turn. Returns whether there is more.
async fn turn(deps: &Deps, stuck: &mut BTreeSet<OrgId>) -> Result<bool, Refusal> {
    let (mut after, mut more) = (None, false);
    loop {
        let mut orgs = deps.store.due().await?.orgs_to_sequence(after, PAGE).await?;
        let last_page = orgs.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
        after = orgs.last().copied();
        orgs.retain(|org| !stuck.contains(org));
        for group in orgs.chunks(GROUP) {
            if let Ok(came) = some_steps(deps, group).await {
                more |= !came.again.is_empty();
                continue;
            }
            // Whoever spoils it for the others is found by asking each alone.
            for org in group {
                match some_steps(deps, &[*org]).await {
                    Ok(came) => more |= !came.again.is_empty(),
                    // It has grown, and the data directory hangs.
                    Err(refusal) if refusal.is_unheard() => more = true,
                    Err(refusal) => {
                        tracing::warn!(org.id = %org, cause = %refusal, "the log of {org} has to wait");
                        stuck.insert(*org);
                    }
                }
            }
        }
        if last_page {
            return Ok(more);
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
        let came = some_steps(deps, &[org]).await?;
        placed += came.placed;
        if came.again.is_empty() {
            return Ok(placed);
        }
    }
}

/// At most [`STEPS`] for some orgs, all or nothing at each.
async fn some_steps(deps: &Deps, orgs: &[OrgId]) -> Result<Step, Refusal> {
    // What a sealed org writes gets its place after the recovery, which says where its log goes on.
    let open = orgs.iter().copied().filter(|org| !deps.store.is_sealed(*org));
    let mut came = Step {
        placed: 0,
        again: open.collect(),
    };
    for _ in 0..STEPS {
        if came.again.is_empty() || came.placed >= MOST_PLACED {
            break;
        }
        let next = if came.again.len() > 1 {
            // Where somebody is in the way of one of them, each goes on alone.
            step(deps, &came.again).await?
        } else {
            deps.store.retry(|| step(deps, &came.again)).await?
        };
        came.placed += next.placed;
        came.again = next.again;
    }
    Ok(came)
}

/// What a transaction came to, or some of them.
struct Step {
    placed: usize,
    /// The orgs that have more, or whose log somebody else let grow meanwhile.
    again: Vec<OrgId>,
}

/// What was read of a log, and what waits.
struct Read {
    org: OrgId,
    head: Option<LogRow>,
    edge: Tiles,
    chains: Vec<(WaitingWriter, Vec<String>)>,
}

impl Read {
    fn size(&self) -> u64 {
        self.head.as_ref().map_or(0, |head| head.size)
    }

    fn has_more(&self) -> bool {
        self.chains.iter().any(|(writer, texts)| {
            u64::try_from(texts.len()).is_ok_and(|read| writer.placed + read < writer.last)
        })
    }
}

async fn step(deps: &Deps, orgs: &[OrgId]) -> Result<Step, Refusal> {
    // INVARIANT: before the snapshot is taken, which has to show what is known then.
    let known: HashMap<OrgId, u64> = orgs
        .iter()
        .filter_map(|org| Some((*org, deps.store.known_outside(*org)?.size)))
        .collect();
    let read = read(deps, orgs).await?;
    let is_behind = |log: &&Read| known.get(&log.org).is_some_and(|size| log.size() < *size);
    let behind: Vec<OrgId> = read.iter().filter(is_behind).map(|log| log.org).collect();
    if !behind.is_empty() {
        // SECURITY: a log that goes on from less than was signed would be a second history, and take the place of the only
        // proof of the first.
        seal::examine(deps, &behind).await?;
        return Ok(Step {
            placed: 0,
            again: Vec::new(),
        });
    }
    let mut again: Vec<OrgId> = read
        .iter()
        .filter(|log| log.has_more())
        .map(|log| log.org)
        .collect();
    // Parsing and hashing thousands of entries is work for a thread of its own.
    let read = read
        .into_iter()
        .map(|read| {
            let key = audit::key(deps, read.org)?;
            let known = read
                .head
                .as_ref()
                .and_then(|row| deps.signed.take(read.org, row, &key));
            Ok((key, known, read))
        })
        .collect::<Result<Vec<_>, Refusal>>()?;
    let made = tokio::task::spawn_blocking(move || {
        let make_one = |(key, known, read): (VerifierKey, Option<LogHead>, Read)| {
            (read.org, make(read, known, &key), key)
        };
        read.into_iter().map(make_one).collect::<Vec<_>>()
    })
    .await
    .map_err(|_| Refusal::StoreUnavailable(None))?;
    let mut growths = Vec::with_capacity(made.len());
    let mut heads = HashMap::new();
    for (org, made, key) in made {
        match made {
            Ok((before, batch, grown)) => {
                growths.push(growth(deps, org, &before, &batch, grown)?);
                heads.insert(org, (key, batch.head));
            }
            Err(Broken::Tiles(head)) => {
                rebuild_tiles(deps, org, &head).await?;
                again.push(org);
            }
            Err(Broken::Log(cause)) => return Err(broken(org, &cause)),
        }
    }
    if growths.is_empty() {
        return Ok(Step { placed: 0, again });
    }
    let of: Vec<OrgId> = growths.iter().map(|growth| growth.org).collect();
    let mut tx = deps.store.write_orgs(&of).await?;
    let grown = tx.grow_logs(&growths).await?;
    let placed = grown.iter().map(|growth| growth.entries.len()).sum();
    for growth in &grown {
        if let Some(epoch) = heads.get(&growth.org).and_then(|(_, head)| head.epoch()) {
            let last = growth.entries.last().copied();
            tx.keep_checkpoint(growth.org, epoch, last, &growth.head);
        }
    }
    // Another sequencer was faster with these: look again.
    let raced = of
        .into_iter()
        .filter(|org| grown.iter().all(|growth| growth.org != *org));
    again.extend(raced);
    tx.commit().await?;
    for growth in grown {
        if let Some((key, head)) = heads.remove(&growth.org) {
            deps.signed.put(growth.org, growth.head.clone(), key, head);
        }
    }
    again.sort_unstable();
    again.dedup();
    Ok(Step { placed, again })
}

fn growth(
    deps: &Deps,
    org: OrgId,
    before: &LogHead,
    batch: &Batch,
    grown: Tiles,
) -> Result<LogGrowth, Refusal> {
    let head = batch.head.checkpoint(&checkpoint::origin(&deps.issuer, org));
    Ok(LogGrowth {
        org,
        before: before.size(),
        head: LogRow {
            size: batch.head.size(),
            head: serde_json::to_string(&batch.head).map_err(|_| Refusal::StoreUnavailable(None))?,
            checkpoint: sign(deps, org, &head)?,
        },
        entries: batch.leaves.iter().map(|leaf| leaf.id).collect(),
        writers: moved_on(before, &batch.head),
        tiles: rows(grown),
    })
}

/// One snapshot of everything the next step needs, of the orgs with anything that waits.
async fn read(deps: &Deps, orgs: &[OrgId]) -> Result<Vec<Read>, Refusal> {
    let mut tx = deps.store.read_orgs(orgs).await?;
    let writers = tx.waiting_writers(orgs).await?;
    let share = share_of_writer(&writers, deps.store.is_alone());
    let entries = tx.waiting_entries(&writers, share).await?;
    let mut logs: BTreeMap<OrgId, Read> = BTreeMap::new();
    for (writer, texts) in writers.into_iter().zip(entries) {
        let log = logs.entry(writer.org).or_insert_with(|| Read {
            org: writer.org,
            head: None,
            edge: Tiles::new(),
            chains: Vec::new(),
        });
        log.chains.push((writer, texts));
    }
    let waiting: Vec<OrgId> = logs.keys().copied().collect();
    let mut edges = Vec::new();
    for (org, row) in tx.log_heads(&waiting).await? {
        edges.extend(
            tiles::right_edge(row.size)
                .into_iter()
                .map(|id| (org, id.level, id.index)),
        );
        if let Some(log) = logs.get_mut(&org) {
            log.head = Some(row);
        }
    }
    for (org, TileRow { level, index, hashes }) in tx.tiles(&edges).await? {
        if let Some(log) = logs.get_mut(&org) {
            log.edge.insert(TileId { level, index }, hashes);
        }
    }
    Ok(logs.into_values().collect())
}

/// Entries of each writer in one transaction. SQLite releases nothing meanwhile: all orgs share one [`BATCH`]. Over PostgreSQL a
/// release waits for the end only (`Tx::grow_logs`), and a transaction costs an org more than its entries: each org has one.
fn share_of_writer(writers: &[WaitingWriter], is_alone: bool) -> u64 {
    let count = |some: usize| u64::try_from(some.max(1)).unwrap_or(u64::MAX);
    let orgs: BTreeSet<OrgId> = writers.iter().map(|writer| writer.org).collect();
    let most = if is_alone {
        BATCH
    } else {
        BATCH * count(orgs.len())
    };
    (most / count(writers.len())).max(LEAST_SHARE)
}

enum Broken {
    /// A person must look.
    Log(String),
    /// The tiles of this log are not all there: it was made before there were tiles, or somebody removed them.
    Tiles(Box<LogHead>),
}

/// Checks every chain, orders the entries and lets the tree and its tiles grow. Of a head that is known nothing is checked again.
fn make(read: Read, known: Option<LogHead>, key: &VerifierKey) -> Result<(LogHead, Batch, Tiles), Broken> {
    let damaged = |error: &dyn std::fmt::Display| Broken::Log(error.to_string());
    let before = match (known, &read.head) {
        (Some(head), _) => head,
        (None, Some(row)) => signed_head(row, key)?,
        (None, None) => LogHead::new(read.org),
    };
    let mut chains = Vec::with_capacity(read.chains.len());
    for (writer, texts) in read.chains {
        let entries = texts
            .iter()
            .map(|text| Pending::read(text.as_bytes()))
            .collect::<Result<_, _>>()
            .map_err(|error| damaged(&error))?;
        chains.push(Waiting {
            writer: writer.name,
            entries,
            end: ChainHead {
                seq: writer.last,
                hash: writer.hash,
            },
        });
    }
    let batch = in_reach(chains)
        .and_then(|entries| before.sequence(entries))
        .map_err(|error| damaged(&error))?;
    let grown = tiles::grow(&read.edge, &batch.nodes).map_err(|_| Broken::Tiles(Box::new(before.clone())))?;
    Ok((before, batch, grown))
}

/// The head that was signed last.
///
/// INVARIANT: I6; a log goes on from what its own key has signed, and from nothing else that the database says. What comes of it
/// depends on nothing but the two.
fn signed_head(row: &LogRow, key: &VerifierKey) -> Result<LogHead, Broken> {
    let damaged = |error: &dyn std::fmt::Display| Broken::Log(error.to_string());
    let head: LogHead = serde_json::from_str(&row.head).map_err(|error| damaged(&error))?;
    let signed = Checkpoint::open(&row.checkpoint, key).map_err(|error| damaged(&error))?;
    if head.size() != row.size || head.checkpoint(key.name()) != signed {
        return Err(damaged(&"its head is not the one that was signed"));
    }
    Ok(head)
}

/// The writers whose last number in the log changed.
fn moved_on(before: &LogHead, after: &LogHead) -> BTreeMap<String, u64> {
    after
        .writers()
        .iter()
        .filter(|(name, head)| before.writer(name) != Some(*head))
        .map(|(name, head)| (name.clone(), head.seq))
        .collect()
}

/// Makes the tiles of a log anew from its entries, if these are the ones that were signed.
async fn rebuild_tiles(deps: &Deps, org: OrgId, head: &LogHead) -> Result<(), Refusal> {
    let size = head.size();
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
    if frontier.root() != head.root() {
        return Err(broken(
            org,
            "entries that have a place are not those that were signed",
        ));
    }
    let made = rows(made);
    let of_org: Vec<(OrgId, &TileRow)> = made.iter().map(|tile| (org, tile)).collect();
    for some in of_org.chunks(TILES) {
        let mut tx = deps.store.write(org).await?;
        // Whoever made them anew meanwhile and went on has longer ones.
        if tx.log_head(org).await?.is_none_or(|now| now.size != size) {
            return Ok(());
        }
        tx.put_tiles(some).await?;
        tx.commit().await?;
    }
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

/// Entries placed in one transaction, shared among the writers that wait (`share_of_writer`).
const BATCH: u64 = 128;
/// So many of each writer, however many writers there are.
const LEAST_SHARE: u64 = 32;
/// Transactions for the same orgs in one turn: about a thousand entries of one alone. Whoever has more waits until all others
/// had theirs.
const STEPS: usize = 8;
/// No further one for them in this turn once so many entries have their places.
const MOST_PLACED: usize = 4096;
/// Turns in one round: whoever cannot grow is logged about once a second, however much the others have.
const TURNS: usize = 16;
/// Orgs, or entries of a log, read at once.
const PAGE: u64 = 1000;
/// Orgs whose logs grow in one transaction. On SQLite no release commits meanwhile: a few, rather than all at once.
const GROUP: usize = 16;
/// Tiles made anew that are written together.
const TILES: usize = 1000;
