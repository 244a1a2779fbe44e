//! Things that count once: login links, sessions, idempotency keys, spent decisions.

use crate::domain::{EntryId, OrgId, Time, UserId};

use super::{
    Store, StoreError,
    sql::{Tx, params},
};

/// A login link that can still be used.
#[derive(Debug, Clone, Copy)]
pub struct LoginLinkRow {
    /// The tenant.
    pub org: OrgId,
    /// For whom.
    pub user: UserId,
    /// When it ends by itself.
    pub expires_at: Time,
}

/// A browser session of a person.
#[derive(Debug, Clone)]
pub struct SessionRow {
    /// The tenant.
    pub org: OrgId,
    /// Who.
    pub user: UserId,
    /// When it ends by itself.
    pub expires_at: Time,
    /// When it was last used, as far as that was noted.
    pub seen_at: Time,
}

/// What is known of an idempotency key.
#[derive(Debug, Clone)]
pub struct IdempotencyRecord {
    /// Of the body of the first call.
    pub digest: String,
    /// The entry of the first call.
    pub entry: EntryId,
    /// How it ended; `None` while it runs.
    pub status: Option<u16>,
    /// The stable code of how it ended.
    pub code: Option<String>,
}

impl Store {
    /// Notes that a living session was used, if that was not noted since `before`. It changes that row and stands in no
    /// org's line: nobody who only looks at a page waits for who changes the org.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn touch_session(&self, org: OrgId, hash: &[u8; 32], before: Time) -> Result<(), StoreError> {
        let mut tx = self.write_rows(&[org]).await?;
        let now = tx.now();
        tx.execute(
            "UPDATE sessions SET seen_at = $3 WHERE org_id = $1 AND hash = $2 AND seen_at <= $4 AND expires_at > $3",
            params![org, hash, now, before],
        )
        .await?;
        tx.commit().await
    }
}

impl Tx {
    /// Keeps a login link by the hash of its token.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn insert_login_link(
        &mut self,
        hash: &[u8; 32],
        org: OrgId,
        user: UserId,
        expires_at: Time,
    ) -> Result<(), StoreError> {
        self.change(
            "login_links",
            "INSERT INTO login_links (hash, org_id, user_id, made_epoch, expires_at)
             SELECT $1, $2, $3, counter, $4 FROM epochs WHERE org_id = $2",
            params![hash, org, user, expires_at],
        )
        .await
    }

    /// For whom a link is, while it can still be used.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn login_link(
        &mut self,
        org: OrgId,
        hash: &[u8; 32],
    ) -> Result<Option<LoginLinkRow>, StoreError> {
        let row = self
            .row(
                "SELECT l.org_id, l.user_id, l.expires_at FROM login_links l
                 WHERE l.org_id = $1 AND l.hash = $2 AND l.spent_at IS NULL AND l.expires_at > $3
                   AND NOT EXISTS (SELECT 1 FROM floors f WHERE f.org_id = l.org_id AND f.kind = 'user'
                                   AND f.id = l.user_id AND f.epoch >= l.made_epoch)",
                params![org, hash, self.now],
            )
            .await?;
        row.map(|row| {
            let mut fields = row.fields("login_links");
            Ok(LoginLinkRow {
                org: fields.parse()?,
                user: fields.parse()?,
                expires_at: fields.time()?,
            })
        })
        .transpose()
    }

    /// Spends a link; `false` if somebody else did, or a revocation of its person came in between.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn spend_login_link(&mut self, org: OrgId, hash: &[u8; 32]) -> Result<bool, StoreError> {
        let changed = self
            .execute(
                "UPDATE login_links SET spent_at = $3
                 WHERE org_id = $1 AND hash = $2 AND spent_at IS NULL AND expires_at > $3
                   AND NOT EXISTS (SELECT 1 FROM floors f WHERE f.org_id = login_links.org_id AND f.kind = 'user'
                                   AND f.id = login_links.user_id AND f.epoch >= login_links.made_epoch)",
                params![org, hash, self.now],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Begins a session.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn insert_session(
        &mut self,
        hash: &[u8; 32],
        org: OrgId,
        user: UserId,
        expires_at: Time,
    ) -> Result<(), StoreError> {
        self.change(
            "sessions",
            "INSERT INTO sessions (hash, org_id, user_id, made_epoch, created_at, seen_at, expires_at)
             SELECT $1, $2, $3, counter, $4, $4, $5 FROM epochs WHERE org_id = $2",
            params![hash, org, user, self.now, expires_at],
        )
        .await
    }

    /// A living session.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn session(&mut self, org: OrgId, hash: &[u8; 32]) -> Result<Option<SessionRow>, StoreError> {
        let row = self
            .row(
                "SELECT s.org_id, s.user_id, s.expires_at, s.seen_at FROM sessions s
                 WHERE s.org_id = $1 AND s.hash = $2 AND s.expires_at > $3
                   AND NOT EXISTS (SELECT 1 FROM floors f WHERE f.org_id = s.org_id AND f.kind = 'user'
                                   AND f.id = s.user_id AND f.epoch >= s.made_epoch)",
                params![org, hash, self.now],
            )
            .await?;
        row.map(|row| {
            let mut fields = row.fields("sessions");
            Ok(SessionRow {
                org: fields.parse()?,
                user: fields.parse()?,
                expires_at: fields.time()?,
                seen_at: fields.time()?,
            })
        })
        .transpose()
    }

    /// Ends a session.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn delete_session(&mut self, org: OrgId, hash: &[u8; 32]) -> Result<(), StoreError> {
        self.execute(
            "DELETE FROM sessions WHERE org_id = $1 AND hash = $2",
            params![org, hash],
        )
        .await
        .map(drop)
    }

    /// What is known of an idempotency key of this caller on this route.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn idempotency(
        &mut self,
        org: OrgId,
        principal: &str,
        route: &str,
        key: &str,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        let row = self
            .row(
                "SELECT digest, entry_id, status, code FROM idempotency
                 WHERE org_id = $1 AND principal = $2 AND route = $3 AND key = $4 AND keep_until > $5",
                params![org, principal, route, key, self.now],
            )
            .await?;
        row.map(|row| {
            let mut fields = row.fields("idempotency");
            Ok(IdempotencyRecord {
                digest: fields.text()?,
                entry: fields.parse()?,
                status: fields.opt_int()?.and_then(|status| u16::try_from(status).ok()),
                code: fields.opt_text()?,
            })
        })
        .transpose()
    }

    /// Records how the call of an idempotency key ended. A release may still turn into a refusal, because its token died
    /// before it left; a refusal stays one, however late the word of a release arrives.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn finish_idempotency(
        &mut self,
        org: OrgId,
        entry: EntryId,
        status: u16,
        code: &str,
    ) -> Result<(), StoreError> {
        self.execute(
            "UPDATE idempotency SET status = $3, code = $4
             WHERE org_id = $1 AND entry_id = $2 AND (status IS NULL OR $3 >= 400)",
            params![org, entry, i64::from(status), code],
        )
        .await
        .map(drop)
    }

    /// Says of the call of an idempotency key that its outcome is unknown, if nobody has said yet how it ended; whether
    /// nobody had.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn give_up_idempotency(&mut self, org: OrgId, entry: EntryId) -> Result<bool, StoreError> {
        // No `finish_idempotency`: what somebody has said meanwhile stands.
        let changed = self
            .execute(
                "UPDATE idempotency SET status = 504, code = 'outcome_unknown'
                 WHERE org_id = $1 AND entry_id = $2 AND status IS NULL",
                params![org, entry],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Ends every browser session and login link of the org.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn end_all_sessions(&mut self, org: OrgId) -> Result<(), StoreError> {
        self.execute("DELETE FROM sessions WHERE org_id = $1", params![org])
            .await?;
        self.execute("DELETE FROM login_links WHERE org_id = $1", params![org])
            .await?;
        Ok(())
    }

    /// Removes what has outlived its purpose in the org: spent decisions, idempotency keys, links and sessions.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn sweep_spent(&mut self, org: OrgId) -> Result<u64, StoreError> {
        let mut gone = 0;
        for sql in [
            // `org_id || ''` keeps the planner from walking all of the org instead of what is due.
            "DELETE FROM spent WHERE org_id || '' = $1 AND keep_until < $2",
            "DELETE FROM idempotency WHERE org_id || '' = $1 AND keep_until < $2",
            "DELETE FROM login_links WHERE org_id = $1 AND expires_at < $2",
            "DELETE FROM sessions WHERE org_id = $1 AND expires_at < $2",
        ] {
            gone += self.execute(sql, params![org, self.now]).await?;
        }
        Ok(gone)
    }
}
