//! Reading the log: entries, the signed head, tiles and proofs.

use crate::{
    audit::{
        VerifierKey, checkpoint,
        encoding::leaf_hash,
        merkle::{ProofPlan, consistency_plan, inclusion_plan},
        tiles::{self, TilePath, Tiles, WIDTH},
    },
    crypto::jwk::PublicKey,
    domain::{EntryId, OrgId, entry::Entry},
    store::{EntryFilter, EntryRow, LogRow, StoreError, Tx},
};

use super::{
    Deps, Refusal,
    record::{self, Details},
    sequence,
};

/// Entries of the org, newest first, with what was sealed beside them where its key can be had.
///
/// # Errors
/// When the database is unavailable.
pub async fn entries(
    deps: &Deps,
    org: OrgId,
    filter: &EntryFilter,
) -> Result<Vec<(Entry, Option<Details>)>, Refusal> {
    let rows = deps.store.read(org).await?.entries(org, filter).await?;
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        entries.push(record::read(deps, &row).await?);
    }
    Ok(entries)
}

/// One entry of the org.
///
/// # Errors
/// When there is no such entry.
pub async fn entry(
    deps: &Deps,
    org: OrgId,
    id: EntryId,
) -> Result<(EntryRow, Entry, Option<Details>), Refusal> {
    let row = deps
        .store
        .read(org)
        .await?
        .entry(org, id)
        .await?
        .ok_or(Refusal::NotFound)?;
    let (entry, details) = record::read(deps, &row).await?;
    Ok((row, entry, details))
}

/// The signed head of the org's log, after every entry committed so far has its place; the one signed last where what waits
/// was changed or is gone.
///
/// # Errors
/// When nothing was signed yet or the database is unavailable.
pub async fn checkpoint(deps: &Deps, org: OrgId) -> Result<String, Refusal> {
    grow(deps, org).await?;
    let mut tx = deps.store.read(org).await?;
    Ok(head(&mut tx, org).await?.checkpoint)
}

/// The last head that the witness has cosigned, with its cosignature: mostly not the newest, for a busy log has grown by the
/// time a cosignature comes.
///
/// # Errors
/// When none was cosigned yet or the database is unavailable.
pub async fn cosigned_checkpoint(deps: &Deps, org: OrgId) -> Result<String, Refusal> {
    let cosigned = deps.store.read(org).await?.cosigned_head(org).await?;
    cosigned.ok_or(Refusal::NotFound)
}

/// Lets the log grow by what waits. Where a waiting row was changed or is gone the log stays as it was signed last, and can
/// still be shown and proved: `sequence` has logged why.
async fn grow(deps: &Deps, org: OrgId) -> Result<(), Refusal> {
    match sequence::run(deps, org).await {
        Ok(_) | Err(Refusal::StoreUnavailable(Some(StoreError::Inconsistent { .. }))) => Ok(()),
        // It has grown, and the data directory hangs.
        Err(refusal) if refusal.is_unheard() => Ok(()),
        Err(error) => Err(error),
    }
}

/// A page of the log in its own order, up to the checkpoint.
///
/// # Errors
/// When the database is unavailable.
pub async fn log_page(
    deps: &Deps,
    org: OrgId,
    start: u64,
    limit: u64,
) -> Result<Vec<(u64, String)>, Refusal> {
    Ok(deps.store.read(org).await?.log_page(org, start, limit).await?)
}

/// The leaf hashes that were signed, from `start`: a row that hashes to something else was changed or moved since.
///
/// # Errors
/// When the database is unavailable.
pub async fn signed_leaves(
    deps: &Deps,
    org: OrgId,
    start: u64,
    count: u64,
) -> Result<Vec<[u8; 32]>, Refusal> {
    let mut tx = deps.store.read(org).await?;
    let mut leaves = Vec::new();
    for index in start / WIDTH..=start.saturating_add(count) / WIDTH {
        let tile = tx.tile(org, 0, index).await?.unwrap_or_default();
        leaves.extend_from_slice(tile.as_chunks::<32>().0);
    }
    let skipped = usize::try_from(start % WIDTH).unwrap_or(0);
    Ok(leaves.into_iter().skip(skipped).collect())
}

/// The public key of the org's log, as a C2SP verifier key.
///
/// # Errors
/// When the checkpoint key is not an Ed25519 key.
pub fn verifier_key(deps: &Deps, org: OrgId) -> Result<String, Refusal> {
    Ok(key(deps, org)?.to_string())
}

pub(super) fn key(deps: &Deps, org: OrgId) -> Result<VerifierKey, Refusal> {
    let PublicKey::Ed25519(public) = deps.checkpoints.public().key() else {
        return Err(Refusal::KeyUnavailable);
    };
    VerifierKey::new(&checkpoint::origin(&deps.issuer, org), *public).map_err(|_| Refusal::KeyUnavailable)
}

/// A hash tile or an entry bundle (C2SP tlog-tiles), of exactly the width asked for.
///
/// # Errors
/// When the log has no such tile yet.
pub async fn tile(deps: &Deps, org: OrgId, path: TilePath) -> Result<Vec<u8>, Refusal> {
    let width = usize::try_from(path.width).map_err(|_| Refusal::NotFound)?;
    let mut tx = deps.store.read(org).await?;
    if let Some(level) = path.level {
        let tile = tx.tile(org, level, path.index).await?.ok_or(Refusal::NotFound)?;
        return Ok(tile.get(..width * 32).ok_or(Refusal::NotFound)?.to_vec());
    }
    let start = path.index.checked_mul(WIDTH).ok_or(Refusal::NotFound)?;
    let entries = tx.log_page(org, start, path.width).await?;
    if entries.len() != width {
        return Err(Refusal::NotFound);
    }
    let bundle = tiles::bundle(entries.iter().map(|(_, entry)| entry.as_bytes()));
    bundle.ok_or(Refusal::StoreUnavailable(Some(StoreError::Inconsistent {
        table: "entries",
    })))
}

/// That an entry is in the log of the checkpoint (RFC 9162 §2.1.3).
#[derive(Debug)]
pub struct Inclusion {
    /// Its place.
    pub index: u64,
    /// Its leaf hash.
    pub leaf: [u8; 32],
    /// The size of the tree it is in.
    pub size: u64,
    /// The proof.
    pub hashes: Vec<[u8; 32]>,
    /// The signed head of that size.
    pub checkpoint: String,
}

/// Proves that an entry the caller may see is in the log.
///
/// # Errors
/// When there is no such entry.
pub async fn inclusion(deps: &Deps, org: OrgId, entry: EntryId) -> Result<Inclusion, Refusal> {
    grow(deps, org).await?;
    let mut tx = deps.store.read(org).await?;
    let LogRow { size, checkpoint, .. } = head(&mut tx, org).await?;
    let row = tx.entry(org, entry).await?.ok_or(Refusal::NotFound)?;
    let index = row.log_index.ok_or(Refusal::NotFound)?;
    let plan = inclusion_plan(index, size).ok_or_else(|| broken("an index behind the end of the log"))?;
    Ok(Inclusion {
        index,
        leaf: leaf_hash(row.bytes.as_bytes()),
        size,
        hashes: prove(&mut tx, org, &plan).await?,
        checkpoint,
    })
}

/// That one size of the log is the beginning of a later one (RFC 9162 §2.1.4).
#[derive(Debug)]
pub struct Consistency {
    /// The earlier size.
    pub first: u64,
    /// The later size.
    pub second: u64,
    /// The proof.
    pub hashes: Vec<[u8; 32]>,
    /// The signed head, whose size is the later one unless another was asked for.
    pub checkpoint: String,
}

/// Proves that the log of `first` entries is the beginning of the one of `second`, or of the signed one.
///
/// # Errors
/// When the log is not that long.
pub async fn consistency(
    deps: &Deps,
    org: OrgId,
    first: u64,
    second: Option<u64>,
) -> Result<Consistency, Refusal> {
    grow(deps, org).await?;
    let mut tx = deps.store.read(org).await?;
    let LogRow { size, checkpoint, .. } = head(&mut tx, org).await?;
    let second = second.unwrap_or(size);
    if second > size {
        return Err(Refusal::invalid("?to", "the log is not that long yet"));
    }
    let plan = consistency_plan(first, second)
        .ok_or_else(|| Refusal::invalid("?from", "not behind the size it is compared with"))?;
    Ok(Consistency {
        first,
        second,
        hashes: prove(&mut tx, org, &plan).await?,
        checkpoint,
    })
}

/// Reads the tiles a proof needs, and makes it.
pub(super) async fn prove(tx: &mut Tx, org: OrgId, plan: &ProofPlan) -> Result<Vec<[u8; 32]>, Refusal> {
    let mut read = Tiles::new();
    for id in tiles::tiles_of(plan) {
        if let Some(tile) = tx.tile(org, id.level, id.index).await? {
            read.insert(id, tile);
        }
    }
    plan.assemble(|node| tiles::node(&read, node))
        .map_err(|error| broken(&error.to_string()))
}

async fn head(tx: &mut Tx, org: OrgId) -> Result<LogRow, Refusal> {
    tx.log_head(org).await?.ok_or(Refusal::NotFound)
}

fn broken(cause: &str) -> Refusal {
    tracing::error!(
        cause,
        "a proof cannot be made: somebody may have changed rows of the log"
    );
    Refusal::StoreUnavailable(Some(StoreError::Inconsistent { table: "tiles" }))
}
