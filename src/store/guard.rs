//! The guard as the database says it, and when it was.

use std::collections::HashMap;

use crate::domain::{OrgId, entry::Epoch};

use super::{
    StoreError,
    engine::Connection,
    entries::read_epoch,
    sql::{Tx, json},
};

impl Tx {
    /// Locks guards by one of the two statements for it; the epochs of the orgs whose guards are held.
    pub(super) async fn lock_guards(
        &mut self,
        sql: &'static str,
        orgs: &[OrgId],
    ) -> Result<HashMap<OrgId, Epoch>, StoreError> {
        let mut epochs = HashMap::with_capacity(orgs.len());
        let mut began = None;
        for row in self.rows(sql, vec![json(&orgs)]).await? {
            let mut fields = row.fields("epochs");
            epochs.insert(fields.parse()?, read_epoch(&mut fields)?);
            began = fields.opt_time()?;
        }
        if let Connection::Postgres(connection) = &self.connection
            && connection.guard_tells_time
            && let Some(at) = began
        {
            self.now = at;
        }
        Ok(epochs)
    }
}
