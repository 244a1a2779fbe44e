//! Changes of grants' states that the operator's webhook is to be told of. Written in the transaction of the change.

use std::time::Duration;

use crate::domain::{GrantId, OrgId, Time, grant::GrantState};

use super::{
    Store, StoreError,
    sql::{Tx, params},
    waits::{farthest, is_over},
};

/// What a receiver is to be told of a grant, by whoever took it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice {
    /// Whose state changed.
    pub grant: GrantId,
    /// How often the grant's state has changed: it makes a message's id.
    pub changes: u64,
    /// When it changed last.
    pub at: Time,
    /// How often this was tried to be told, this time included.
    pub attempts: u64,
    /// Nobody else tells the receiver of this grant before.
    pub until: Time,
}

impl Notice {
    /// A receiver that failed is told again after this long at the latest.
    pub const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
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
    /// clock says, now or when it is put right; but where the receiver is being told of the state before, once that is over.
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
               due_at = coalesce(CASE WHEN notices.under_way = 1 THEN notices.due_at END, excluded.due_at)",
            params![org, grant, state.as_str(), reason, self.now],
        )
        .await
        .map(drop)
    }

    /// Takes up what is to be told of an org's grants now, until a moment: who tells, tells alone. If the process dies, it is
    /// due again at that moment. What was tried before comes first: it changed first.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn take_notices(
        &mut self,
        org: OrgId,
        until: Time,
        most: u64,
    ) -> Result<Vec<Notice>, StoreError> {
        let (now, farthest) = (self.now, farthest(self.now, Notice::LONGEST_PAUSE));
        let mut taken: Vec<Notice> = Vec::new();
        for (behind, up_to) in [(NEW, now), (farthest, LAST), (FIRST, NEW)] {
            let room = most.saturating_sub(u64::try_from(taken.len()).unwrap_or(u64::MAX));
            if room == 0 {
                break;
            }
            for row in self.rows(DUE, params![org, behind, up_to, room]).await? {
                let grant: GrantId = row.fields("notices").parse()?;
                let row = self.row(TAKE, params![org, grant, until, now, farthest]).await?;
                let Some(row) = row else { continue };
                let mut fields = row.fields("notices");
                taken.push(Notice {
                    grant,
                    changes: fields.count()?,
                    at: fields.time()?,
                    attempts: fields.count()?,
                    until,
                });
            }
        }
        Ok(taken)
    }

    /// A notice was told, or is given up. A change that came meanwhile is told at once.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn end_notice(&mut self, org: OrgId, notice: &Notice) -> Result<(), StoreError> {
        self.execute(
            "UPDATE notices SET told = $3, under_way = 0, due_at = CASE WHEN changes > $3 THEN 0 END
             WHERE org_id = $1 AND grant_id = $2 AND under_way = 1 AND due_at = $4",
            params![org, notice.grant, notice.changes, notice.until],
        )
        .await
        .map(drop)
    }

    /// A notice could not be told and is to be tried again at a moment; a change that came meanwhile is told at once.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn put_off_notice(
        &mut self,
        org: OrgId,
        notice: &Notice,
        again_at: Time,
    ) -> Result<(), StoreError> {
        self.execute(
            "UPDATE notices SET under_way = 0, due_at = CASE WHEN changes > $3 THEN 0 ELSE CAST($5 AS BIGINT) END
             WHERE org_id = $1 AND grant_id = $2 AND under_way = 1 AND due_at = $4",
            params![org, notice.grant, notice.changes, notice.until, again_at],
        )
        .await
        .map(drop)
    }
}

pub(super) const DUE: &str = "SELECT grant_id FROM notices
     WHERE org_id = $1 AND due_at > $2 AND due_at <= $3 ORDER BY due_at, grant_id LIMIT $4";

pub(super) const TAKE: &str = concat!(
    "UPDATE notices SET due_at = $3, under_way = 1, attempts = attempts + 1
     WHERE org_id = $1 AND grant_id = $2 AND ",
    is_over!("due_at", "$4", "$5"),
    " RETURNING changes, at, attempts"
);

/// When what nobody has tried to tell is due.
const NEW: Time = Time::from_unix_micros(0);
/// Before and after all there is.
const FIRST: Time = Time::from_unix_micros(i64::MIN);
const LAST: Time = Time::from_unix_micros(i64::MAX);

/// The mark of the database that says whether there is a receiver.
const TOLD: &str = "state_changes";
const ON: &str = "told";
const OFF: &str = "not_told";
