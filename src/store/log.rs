//! The org's Merkle log: which entries wait for their place, where they stand, the tiles and the signed head.

use crate::domain::{EntryId, OrgId};

use super::{
    StoreError,
    sql::{Row, Tx, json, params},
};

/// A writer with entries that have no place yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingWriter {
    /// Its name.
    pub name: String,
    /// Its last number with a place; 0 for none.
    pub placed: u64,
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

/// What one run of the sequencer adds, all or nothing.
#[derive(Debug)]
pub struct LogGrowth {
    /// How many leaves the log had; 0: there was none.
    pub before: u64,
    /// The new head.
    pub head: LogRow,
    /// The entries that get a place, in log order, the first at `before`.
    pub entries: Vec<EntryId>,
    /// Each writer of these, with its last number among them.
    pub writers: std::collections::BTreeMap<String, u64>,
    /// Every tile that changed.
    pub tiles: Vec<TileRow>,
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
    /// The org's writers with entries that wait.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn waiting_writers(&mut self, org: OrgId) -> Result<Vec<WaitingWriter>, StoreError> {
        let rows = self
            .rows(
                "SELECT writer, placed FROM writers WHERE org_id = $1 AND seq > placed ORDER BY writer",
                params![org],
            )
            .await?;
        rows.into_iter()
            .map(|row| {
                let mut fields = row.fields("writers");
                Ok(WaitingWriter {
                    name: fields.text()?,
                    placed: fields.count()?,
                })
            })
            .collect()
    }

    /// The canonical JSON of a writer's entries behind number `after`, in its own order.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn entries_of_writer(
        &mut self,
        org: OrgId,
        writer: &str,
        after: u64,
        limit: u64,
    ) -> Result<Vec<String>, StoreError> {
        let rows = self
            .rows(
                "SELECT bytes FROM entries WHERE org_id = $1 AND writer = $2 AND writer_seq > $3
                 ORDER BY writer_seq LIMIT $4",
                params![org, writer, after, limit],
            )
            .await?;
        rows.into_iter().map(|row| row.fields("entries").text()).collect()
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

    /// Lets the log grow; `false`, and nothing changed, when somebody else did so meanwhile.
    ///
    /// # Errors
    /// When the database is unavailable, or an entry has a place already.
    pub async fn grow_log(&mut self, org: OrgId, growth: &LogGrowth) -> Result<bool, StoreError> {
        let LogGrowth { before, head, .. } = growth;
        let moved = if *before == 0 {
            self.execute(
                "INSERT INTO logs (org_id, size, head, checkpoint, updated_at) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (org_id) DO NOTHING",
                params![org, head.size, &head.head, &head.checkpoint, self.now],
            )
            .await?
        } else {
            self.execute(
                "UPDATE logs SET size = $2, head = $3, checkpoint = $4, updated_at = $5
                 WHERE org_id = $1 AND size = $6",
                params![org, head.size, &head.head, &head.checkpoint, self.now, *before],
            )
            .await?
        };
        if moved == 0 {
            return Ok(false);
        }
        let sql = self.connection.batch_sql();
        self.execute(sql.place, params![org, *before, json(&growth.entries)])
            .await?;
        let writers = self
            .execute(sql.placed, params![org, json(&growth.writers)])
            .await?;
        if usize::try_from(writers) != Ok(growth.writers.len()) {
            return Err(StoreError::Inconsistent { table: "writers" });
        }
        self.put_tiles(org, &growth.tiles).await?;
        Ok(true)
    }

    /// Puts a cosigned note in the place of the one that was shown; `false` if the log has grown meanwhile.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn keep_cosigned(
        &mut self,
        org: OrgId,
        shown: &str,
        cosigned: &str,
    ) -> Result<bool, StoreError> {
        let kept = self
            .execute(
                "UPDATE logs SET checkpoint = $3 WHERE org_id = $1 AND checkpoint = $2",
                params![org, shown, cosigned],
            )
            .await?;
        Ok(kept == 1)
    }

    /// Writes tiles, also over shorter ones.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn put_tiles(&mut self, org: OrgId, tiles: &[TileRow]) -> Result<(), StoreError> {
        for tile in tiles {
            self.change(
                "tiles",
                "INSERT INTO tiles (org_id, level, tile, hashes) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (org_id, level, tile) DO UPDATE SET hashes = $4",
                params![org, u64::from(tile.level), tile.index, tile.hashes.as_slice()],
            )
            .await?;
        }
        Ok(())
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
