//! The org's Merkle log: which entries wait for their place, and the signed head.

use crate::domain::{EntryId, OrgId};

use super::{
    StoreError,
    sql::{Tx, params},
};

/// An entry that has no place in the log yet.
#[derive(Debug)]
pub struct UnsequencedEntry {
    /// Its id.
    pub id: EntryId,
    /// Its writer.
    pub writer: String,
    /// Its number in the writer's chain.
    pub writer_seq: u64,
    /// The canonical JSON.
    pub bytes: String,
}

/// The head of an org's log.
#[derive(Debug, Clone)]
pub struct LogRow {
    /// How many leaves.
    pub size: u64,
    /// The state from which the next leaf is appended, as `audit` serialised it.
    pub head: String,
    /// The signed note over it.
    pub checkpoint: String,
}

impl Tx {
    /// The entries that wait, in the order of the log: epoch, writer, number.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn unsequenced(&mut self, org: OrgId, limit: u64) -> Result<Vec<UnsequencedEntry>, StoreError> {
        let rows = self
            .rows(
                "SELECT id, writer, writer_seq, bytes FROM entries WHERE org_id = $1 AND log_index IS NULL
                 ORDER BY epoch, writer, writer_seq LIMIT $2",
                params![org, limit],
            )
            .await?;
        rows.into_iter()
            .map(|row| {
                let mut fields = row.fields("entries");
                Ok(UnsequencedEntry {
                    id: fields.parse()?,
                    writer: fields.text()?,
                    writer_seq: fields.count()?,
                    bytes: fields.text()?,
                })
            })
            .collect()
    }

    /// Gives an entry its place, once.
    ///
    /// # Errors
    /// When the database is unavailable or the entry has a place already.
    pub async fn place_entry(&mut self, org: OrgId, entry: EntryId, index: u64) -> Result<(), StoreError> {
        self.change(
            "entries",
            "UPDATE entries SET log_index = $3 WHERE org_id = $1 AND id = $2 AND log_index IS NULL",
            params![org, entry, index],
        )
        .await
    }

    /// The org's head; `None` before the first entry.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn log_head(&mut self, org: OrgId) -> Result<Option<LogRow>, StoreError> {
        let row = self
            .row(
                "SELECT size, head, checkpoint FROM logs WHERE org_id = $1",
                params![org],
            )
            .await?;
        row.map(|row| {
            let mut fields = row.fields("logs");
            Ok(LogRow {
                size: fields.count()?,
                head: fields.text()?,
                checkpoint: fields.text()?,
            })
        })
        .transpose()
    }

    /// Writes the org's head.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn put_log_head(&mut self, org: OrgId, head: &LogRow) -> Result<(), StoreError> {
        self.change(
            "logs",
            "INSERT INTO logs (org_id, size, head, checkpoint, updated_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (org_id) DO UPDATE SET size = $2, head = $3, checkpoint = $4, updated_at = $5",
            params![org, head.size, &head.head, &head.checkpoint, self.now],
        )
        .await
    }

    /// A page of the log in its own order, from `start`: index and canonical JSON.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn log_page(
        &mut self,
        org: OrgId,
        start: u64,
        limit: u64,
    ) -> Result<Vec<(u64, String)>, StoreError> {
        let rows = self
            .rows(
                "SELECT log_index, bytes FROM entries WHERE org_id = $1 AND log_index >= $2
                 ORDER BY log_index LIMIT $3",
                params![org, start, limit],
            )
            .await?;
        rows.into_iter()
            .map(|row| {
                let mut fields = row.fields("entries");
                Ok((fields.count()?, fields.text()?))
            })
            .collect()
    }
}
