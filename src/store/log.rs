//! The org's Merkle log as it stands: the signed head, the tiles, the entries in their order.

use crate::domain::OrgId;

use super::{
    StoreError,
    sql::{Row, Tx, params},
};

/// The head of an org's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow {
    /// How many leaves.
    pub size: u64,
    /// The state from which the next leaf is appended, as `audit` serialised it.
    pub head: String,
    /// The signed note over it.
    pub checkpoint: String,
}

/// A hash tile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TileRow {
    /// Its level, from 0.
    pub level: u8,
    /// Its index in the level, from 0.
    pub index: u64,
    /// Its hashes side by side.
    pub hashes: Vec<u8>,
}

impl Tx {
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

    /// Keeps a cosigned note as the last one, and in the place of the one that was shown unless the log has grown meanwhile;
    /// `false` if a later head is kept already, or the log is not that long any more.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn keep_cosigned(
        &mut self,
        org: OrgId,
        shown: &LogRow,
        cosigned: &str,
    ) -> Result<bool, StoreError> {
        let kept = self
            .execute(
                "UPDATE logs SET checkpoint = CASE WHEN checkpoint = $2 THEN $3 ELSE checkpoint END,
                   cosigned = $3, cosigned_size = $4
                 WHERE org_id = $1 AND size >= $4 AND cosigned_size <= $4",
                params![org, &shown.checkpoint, cosigned, shown.size],
            )
            .await?;
        Ok(kept == 1)
    }

    /// The last head that was cosigned, with its cosignature; `None` if none was yet.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn cosigned_head(&mut self, org: OrgId) -> Result<Option<String>, StoreError> {
        let row = self
            .row("SELECT cosigned FROM logs WHERE org_id = $1", params![org])
            .await?;
        row.map_or(Ok(None), |row| row.fields("logs").opt_text())
    }

    /// The hashes of a tile, as many as it has.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn tile(&mut self, org: OrgId, level: u8, index: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let row = self
            .row(
                "SELECT hashes FROM tiles WHERE org_id = $1 AND level = $2 AND tile = $3",
                params![org, u64::from(level), index],
            )
            .await?;
        row.map(|row| row.fields("tiles").blob()).transpose()
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
                "SELECT l.log_index, e.bytes FROM leaves l JOIN entries e ON e.org_id = l.org_id AND e.id = l.entry_id
                 WHERE l.org_id = $1 AND l.log_index >= $2 ORDER BY l.log_index LIMIT $3",
                params![org, start, limit],
            )
            .await?;
        rows.into_iter().map(read_indexed).collect()
    }
}

fn read_indexed(row: Row) -> Result<(u64, String), StoreError> {
    let mut fields = row.fields("entries");
    Ok((fields.count()?, fields.text()?))
}
