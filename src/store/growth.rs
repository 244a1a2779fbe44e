//! Letting the logs of many orgs grow together: one snapshot to read what waits, one transaction to write what came of
//! it, however many orgs have new entries.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::domain::{EntryId, OrgId};

use super::{
    LogRow, Store, StoreError, TileRow,
    engine::{Mode, Reach},
    sql::{Tx, Value, json},
};

/// A writer with entries that have no place yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingWriter {
    /// Its org.
    pub org: OrgId,
    /// Its name.
    pub name: String,
    /// Its last number with a place; 0 for none.
    pub placed: u64,
    /// The number of its last entry.
    pub last: u64,
    /// The hash of its last entry.
    pub hash: [u8; 32],
}

/// What one step of the sequencer adds to one log, all or nothing.
#[derive(Debug)]
pub struct LogGrowth {
    /// Whose log.
    pub org: OrgId,
    /// How many leaves the log had; 0: there was none.
    pub before: u64,
    /// The new head.
    pub head: LogRow,
    /// The entries that get a place, in log order, the first at `before`.
    pub entries: Vec<EntryId>,
    /// Each writer of these, with its last number among them.
    pub writers: BTreeMap<String, u64>,
    /// Every tile that changed.
    pub tiles: Vec<TileRow>,
}

impl Store {
    /// A snapshot of some orgs for reading.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn read_orgs(&self, orgs: &[OrgId]) -> Result<Tx, StoreError> {
        self.begin(Mode::Read, Reach::Orgs(orgs)).await
    }

    /// The one writing transaction of some orgs outside the gate. Of several it gives up soon where somebody is in its way:
    /// whoever waits for one of them holds up the others'.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn write_orgs(&self, orgs: &[OrgId]) -> Result<Tx, StoreError> {
        let mode = if orgs.len() > 1 { Mode::Hasty } else { Mode::Write };
        self.begin(mode, Reach::Orgs(orgs)).await
    }
}

impl Tx {
    /// The writers of these orgs with entries that wait, by org and name.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn waiting_writers(&mut self, orgs: &[OrgId]) -> Result<Vec<WaitingWriter>, StoreError> {
        let sql = self.connection.batch_sql().waiting;
        let rows = self.rows(sql, vec![json(&orgs)]).await?;
        rows.into_iter()
            .map(|row| {
                let mut fields = row.fields("writers");
                Ok(WaitingWriter {
                    org: fields.parse()?,
                    name: fields.text()?,
                    placed: fields.count()?,
                    last: fields.count()?,
                    hash: fields.hash()?,
                })
            })
            .collect()
    }

    /// The canonical JSON of what waits: of each writer the next `most` entries, in its own order; the answers stand
    /// in the order of the writers.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn waiting_entries(
        &mut self,
        writers: &[WaitingWriter],
        most: u64,
    ) -> Result<Vec<Vec<String>>, StoreError> {
        #[derive(Serialize)]
        struct Ask<'a>(OrgId, &'a str, u64, u64);

        let asks: Vec<Ask<'_>> = writers
            .iter()
            .map(|writer| Ask(writer.org, &writer.name, writer.placed, writer.placed + most))
            .collect();
        let mut found: Vec<Vec<String>> = writers.iter().map(|_| Vec::new()).collect();
        let sql = self.connection.batch_sql().waiting_entries;
        for row in self.rows(sql, vec![json(&asks)]).await? {
            let mut fields = row.fields("entries");
            let at = usize::try_from(fields.count()?).map_err(|_| fields.bad())?;
            let of_writer = found
                .get_mut(at)
                .ok_or(StoreError::Inconsistent { table: "entries" })?;
            of_writer.push(fields.text()?);
        }
        Ok(found)
    }

    /// The heads of these logs, of those that have one.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn log_heads(&mut self, orgs: &[OrgId]) -> Result<HashMap<OrgId, LogRow>, StoreError> {
        let sql = self.connection.batch_sql().log_heads;
        let rows = self.rows(sql, vec![json(&orgs)]).await?;
        rows.into_iter()
            .map(|row| {
                let mut fields = row.fields("logs");
                let org = fields.parse()?;
                let head = LogRow {
                    size: fields.count()?,
                    head: fields.text()?,
                    checkpoint: fields.text()?,
                };
                Ok((org, head))
            })
            .collect()
    }

    /// The hashes of these tiles, of those that are there: org, level, index.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn tiles(&mut self, tiles: &[(OrgId, u8, u64)]) -> Result<Vec<(OrgId, TileRow)>, StoreError> {
        let sql = self.connection.batch_sql().tiles;
        let rows = self.rows(sql, vec![json(&tiles)]).await?;
        rows.into_iter()
            .map(|row| {
                let mut fields = row.fields("tiles");
                let org = fields.parse()?;
                let tile = TileRow {
                    level: u8::try_from(fields.int()?).map_err(|_| fields.bad())?,
                    index: fields.count()?,
                    hashes: fields.blob()?,
                };
                Ok((org, tile))
            })
            .collect()
    }

    /// Lets logs grow. Those that somebody else let grow meanwhile are left as they are; the answer names them not.
    ///
    /// # Errors
    /// When the database is unavailable, or an entry has a place already: then nothing may be committed.
    pub async fn grow_logs<'a>(
        &mut self,
        growths: &'a [LogGrowth],
    ) -> Result<Vec<&'a LogGrowth>, StoreError> {
        #[derive(Serialize)]
        struct Put<'b> {
            org: OrgId,
            size: u64,
            head: &'b str,
            checkpoint: &'b str,
        }

        let orgs: Vec<OrgId> = growths.iter().map(|growth| growth.org).collect();
        // Whoever writes here is alone in these orgs: what is read now stays true until the commit.
        let heads = self.log_heads(&orgs).await?;
        let growths: Vec<&LogGrowth> = growths
            .iter()
            .filter(|growth| heads.get(&growth.org).map_or(0, |head| head.size) == growth.before)
            .collect();
        let sql = self.connection.batch_sql();
        let now = self.now;
        let logs: Vec<Put<'_>> = growths
            .iter()
            .map(|growth| Put {
                org: growth.org,
                size: growth.head.size,
                head: &growth.head.head,
                checkpoint: &growth.head.checkpoint,
            })
            .collect();
        self.execute(sql.put_logs, vec![json(&logs), Value::from(now)])
            .await?;
        let places: Vec<_> = growths
            .iter()
            .flat_map(|growth| {
                (growth.before..)
                    .zip(&growth.entries)
                    .map(|(index, id)| (growth.org, index, id))
            })
            .collect();
        self.execute(sql.place, vec![json(&places)]).await?;
        let mut tiles = Vec::new();
        for growth in &growths {
            tiles.extend(growth.tiles.iter().map(|tile| (growth.org, tile)));
        }
        self.put_tiles(&tiles).await?;
        // INVARIANT: last. Over PostgreSQL the gate's next batch with one of these orgs waits for these rows, and with it what
        // it serves of others: for this statement and the commit, however much grows.
        let writers: Vec<_> = growths
            .iter()
            .flat_map(|growth| {
                growth
                    .writers
                    .iter()
                    .map(|(writer, seq)| (growth.org, writer, seq))
            })
            .collect();
        let moved = self.execute(sql.placed, vec![json(&writers)]).await?;
        if usize::try_from(moved) != Ok(writers.len()) {
            return Err(StoreError::Inconsistent { table: "writers" });
        }
        Ok(growths)
    }

    /// Writes tiles, also over shorter ones.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn put_tiles(&mut self, tiles: &[(OrgId, &TileRow)]) -> Result<(), StoreError> {
        let mut hashes: Vec<u8> = Vec::with_capacity(tiles.iter().map(|(_, tile)| tile.hashes.len()).sum());
        let rows: Vec<_> = tiles
            .iter()
            .map(|(org, tile)| {
                let begin = hashes.len() + 1;
                hashes.extend_from_slice(&tile.hashes);
                (org, tile.level, tile.index, begin, tile.hashes.len())
            })
            .collect();
        let sql = self.connection.batch_sql().put_tiles;
        self.execute(sql, vec![json(&rows), Value::Blob(hashes)])
            .await
            .map(drop)
    }
}
