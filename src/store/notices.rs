//! Changes of grants' states that the operator's webhook is to be told of. Written in the transaction of the change.

use crate::domain::{GrantId, OrgId, Time, grant::GrantState};

use super::{
    Store, StoreError,
    sql::{Tx, params},
};

/// What a receiver is to be told of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice {
    /// How often the grant's state has changed: it makes a message's id.
    pub changes: u64,
    /// When it changed last.
    pub at: Time,
    /// How often this was tried to be told.
    pub attempts: u64,
}

impl Store {
    /// Says whether there is a receiver. Without one, changes are not written down.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn tell_changes(&self, told: bool) -> Result<(), StoreError> {
        let value = if told { ON } else { OFF };
        let before = self.meta(TOLD).await?;
        // Nothing is written where nothing changes: replicas start all the time.
        if before.as_deref().unwrap_or(OFF) == value {
            return Ok(());
        }
        self.set_meta(TOLD, value).await
    }
}

impl Tx {
    /// Writes down that a grant is about to be in another state, if it is and somebody is to be told: at once, whatever the
    /// clock says, now or when it is put right.
    pub(super) async fn note_change(
        &mut self,
        org: OrgId,
        grant: GrantId,
        state: &GrantState,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO notices (org_id, grant_id, changes, at, told, attempts, due_at)
             SELECT g.org_id, g.id, 1, CAST($5 AS BIGINT), 0, 0, 0 FROM grants g
             WHERE g.org_id = $1 AND g.id = $2 AND (g.state <> $3 OR coalesce(g.state_reason, '') <> coalesce($4, ''))
               AND EXISTS (SELECT 1 FROM meta m WHERE m.name = 'state_changes' AND m.value = 'told')
             ON CONFLICT (org_id, grant_id) DO UPDATE SET changes = notices.changes + 1, at = excluded.at, attempts = 0,
               due_at = excluded.due_at",
            params![org, grant, state.as_str(), reason, self.now],
        )
        .await
        .map(drop)
    }

    /// What is to be told of a grant; `None` when all is told.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn notice(&mut self, org: OrgId, grant: GrantId) -> Result<Option<Notice>, StoreError> {
        let row = self
            .row(
                "SELECT changes, at, attempts FROM notices WHERE org_id = $1 AND grant_id = $2 AND due_at IS NOT NULL",
                params![org, grant],
            )
            .await?;
        row.map(|row| {
            let mut fields = row.fields("notices");
            Ok(Notice {
                changes: fields.count()?,
                at: fields.time()?,
                attempts: fields.count()?,
            })
        })
        .transpose()
    }

    /// Takes up a notice that is due; `false` if it is another replica's meanwhile.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn take_notice(
        &mut self,
        org: OrgId,
        grant: GrantId,
        again_at: Time,
    ) -> Result<bool, StoreError> {
        let changed = self
            .execute(
                "UPDATE notices SET due_at = $3, attempts = attempts + 1
                 WHERE org_id = $1 AND grant_id = $2 AND due_at <= $4",
                params![org, grant, again_at, self.now],
            )
            .await?;
        Ok(changed == 1)
    }

    /// A notice was told, or is given up. A change that came meanwhile stays to be told.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn end_notice(
        &mut self,
        org: OrgId,
        grant: GrantId,
        notice: &Notice,
    ) -> Result<(), StoreError> {
        self.execute(
            "UPDATE notices SET told = $3, due_at = CASE WHEN changes > $3 THEN due_at END
             WHERE org_id = $1 AND grant_id = $2",
            params![org, grant, notice.changes],
        )
        .await
        .map(drop)
    }
}

/// The mark of the database that says whether there is a receiver.
const TOLD: &str = "state_changes";
const ON: &str = "told";
const OFF: &str = "not_told";
