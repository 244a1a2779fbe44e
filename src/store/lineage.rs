//! Where an org's epochs begin in its entries, found without walking them: there is no index over epochs, for every release
//! would pay for it.

use crate::domain::{OrgId, entry::Entry};

use super::{
    StoreError,
    sql::{Tx, params},
};

/// Where an epoch begins.
#[derive(Debug)]
pub struct EpochBegin {
    /// An entry of the last epoch before it that has any.
    pub before: Option<Entry>,
    /// The place of its first entry in the log, if that has one.
    pub place: Option<u64>,
}

/// What is read of an entry to find out where its epoch begins.
struct Numbered {
    epoch: i64,
    bytes: String,
    log_index: Option<u64>,
}

impl Tx {
    /// Where the epoch with this counter begins. A writer's entries are in the order of their epochs: few of them are looked at,
    /// however many there are.
    ///
    /// # Errors
    /// When the database is unavailable, or entries are missing.
    pub async fn epoch_begin(&mut self, org: OrgId, counter: i64) -> Result<EpochBegin, StoreError> {
        let sql = "SELECT writer, seq FROM writers WHERE org_id = $1";
        let (mut before, mut place) = (None::<Numbered>, None::<u64>);
        for row in self.rows(sql, params![org]).await? {
            let mut fields = row.fields("writers");
            let (writer, last) = (fields.text()?, fields.count()?);
            let (mut earlier, mut later) = (0, last + 1);
            while later - earlier > 1 {
                let middle = u64::midpoint(earlier, later);
                if self.entry_numbered(org, &writer, middle).await?.epoch < counter {
                    earlier = middle;
                } else {
                    later = middle;
                }
            }
            if earlier > 0 {
                let found = self.entry_numbered(org, &writer, earlier).await?;
                if before.as_ref().is_none_or(|before| before.epoch < found.epoch) {
                    before = Some(found);
                }
            }
            if later <= last {
                let found = self.entry_numbered(org, &writer, later).await?;
                if let (Some(index), true) = (found.log_index, found.epoch == counter) {
                    place = Some(place.map_or(index, |place| place.min(index)));
                }
            }
        }
        let before = before.map(|before| serde_json::from_str(&before.bytes));
        Ok(EpochBegin {
            before: before
                .transpose()
                .map_err(|_| StoreError::Inconsistent { table: "entries" })?,
            place,
        })
    }

    /// An entry by its number in its writer's chain.
    async fn entry_numbered(&mut self, org: OrgId, writer: &str, seq: u64) -> Result<Numbered, StoreError> {
        let row = self.row(NUMBERED, params![org, writer, seq]).await?;
        let mut fields = row
            .ok_or(StoreError::Inconsistent { table: "entries" })?
            .fields("entries");
        Ok(Numbered {
            epoch: fields.int()?,
            bytes: fields.text()?,
            log_index: fields.opt_int()?.and_then(|index| u64::try_from(index).ok()),
        })
    }
}

/// An entry by its number, with its place.
pub(super) const NUMBERED: &str = "SELECT e.epoch, e.bytes, l.log_index FROM entries e
     LEFT JOIN leaves l ON l.org_id = e.org_id AND l.entry_id = e.id
     WHERE e.org_id = $1 AND e.writer = $2 AND e.writer_seq = $3";
