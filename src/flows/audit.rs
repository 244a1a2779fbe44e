//! Reading the log, and giving its entries their place.

use crate::{
    audit::{Checkpoint, LogHead, Pending, VerifierKey, checkpoint},
    crypto::jwk::PublicKey,
    domain::{EntryId, OrgId, entry::Entry},
    store::{EntryFilter, EntryRow, LogRow},
};

use super::{
    Deps, Refusal,
    record::{self, Details},
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

/// The signed head of the org's log, after every entry committed so far has its place.
///
/// # Errors
/// When the log is empty or cannot be sequenced.
pub async fn checkpoint(deps: &Deps, org: OrgId) -> Result<String, Refusal> {
    sequence(deps, org).await?;
    let row = deps
        .store
        .read(org)
        .await?
        .log_head(org)
        .await?
        .ok_or(Refusal::NotFound)?;
    Ok(row.checkpoint)
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

/// The public key of the org's log, as a C2SP verifier key.
///
/// # Errors
/// When the checkpoint key is not an Ed25519 key.
pub fn verifier_key(deps: &Deps, org: OrgId) -> Result<String, Refusal> {
    Ok(key(deps, org)?.to_string())
}

fn key(deps: &Deps, org: OrgId) -> Result<VerifierKey, Refusal> {
    let PublicKey::Ed25519(public) = deps.checkpoints.public().key() else {
        return Err(Refusal::KeyUnavailable);
    };
    VerifierKey::new(&checkpoint::origin(&deps.issuer, org), *public).map_err(|_| Refusal::KeyUnavailable)
}

/// Gives every entry that waits its place in the org's Merkle log and signs the new head; returns how many.
///
/// # Errors
/// When a chain is broken: nothing is sequenced then, and a person must look.
pub async fn sequence(deps: &Deps, org: OrgId) -> Result<usize, Refusal> {
    let mut placed = 0;
    loop {
        let mut tx = deps.store.write(org).await?;
        let waiting = tx.unsequenced(org, BATCH).await?;
        if waiting.is_empty() {
            return Ok(placed);
        }
        let count = waiting.len();
        let head = match tx.log_head(org).await? {
            Some(row) => {
                serde_json::from_str(&row.head).map_err(|_| broken(org, "the head of the log is damaged"))?
            }
            None => LogHead::new(org),
        };
        let pending = waiting
            .iter()
            .map(|entry| Pending::read(entry.bytes.as_bytes()))
            .collect::<Result<Vec<_>, _>>();
        let pending = pending.map_err(|error| broken(org, &error.to_string()))?;
        let batch = head
            .sequence(pending)
            .map_err(|error| broken(org, &error.to_string()))?;
        for leaf in &batch.leaves {
            tx.place_entry(org, leaf.id, leaf.index).await?;
        }
        let signed = sign(
            deps,
            org,
            &batch.head.checkpoint(&checkpoint::origin(&deps.issuer, org)),
        )?;
        let row = LogRow {
            size: batch.head.size(),
            head: serde_json::to_string(&batch.head).map_err(|_| Refusal::StoreUnavailable(None))?,
            checkpoint: signed,
        };
        tx.put_log_head(org, &row).await?;
        tx.commit().await?;
        placed += count;
        if count < usize::try_from(BATCH).unwrap_or(usize::MAX) {
            return Ok(placed);
        }
    }
}

fn sign(deps: &Deps, org: OrgId, head: &Checkpoint) -> Result<String, Refusal> {
    let key = key(deps, org)?;
    // A key of another purpose would sign nothing; the note's own check then refuses the zeros.
    head.sign(&key, |text| deps.checkpoints.sign_note(text).unwrap_or([0; 64]))
        .map_err(|_| Refusal::KeyUnavailable)
}

fn broken(org: OrgId, cause: &str) -> Refusal {
    tracing::error!(org.id = %org, cause, "the log of {org} cannot be sequenced: somebody may have changed its rows");
    Refusal::StoreUnavailable(Some(crate::store::StoreError::Inconsistent { table: "entries" }))
}

/// Entries placed in one transaction.
const BATCH: u64 = 500;
