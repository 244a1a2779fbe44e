//! How far each sink has copied each org's log.

use crate::domain::OrgId;

use super::{
    StoreError,
    sql::{Tx, params},
};

impl Tx {
    /// The first index the sink does not have.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn sink_cursor(&mut self, org: OrgId, sink: &str) -> Result<u64, StoreError> {
        let row = self
            .row(
                "SELECT next_index FROM sink_cursors WHERE org_id = $1 AND sink = $2",
                params![org, sink],
            )
            .await?;
        row.map_or(Ok(0), |row| row.fields("sink_cursors").count())
    }

    /// Moves the cursor on, if it still stands where it was read; says whether it did.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn move_sink_cursor(
        &mut self,
        org: OrgId,
        sink: &str,
        from: u64,
        to: u64,
    ) -> Result<bool, StoreError> {
        let moved = self
            .execute(
                "INSERT INTO sink_cursors (org_id, sink, next_index, moved_at) VALUES ($1, $2, $4, $5)
                 ON CONFLICT (org_id, sink) DO UPDATE SET next_index = $4, moved_at = $5
                 WHERE sink_cursors.next_index = $3",
                params![org, sink, from, to, self.now],
            )
            .await?;
        Ok(moved == 1)
    }
}
