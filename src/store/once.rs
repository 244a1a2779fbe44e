//! Things that count once: login links, sessions, idempotency keys, spent decisions.

use crate::domain::{EntryId, OrgId, Time, UserId};

use super::{
    Store, StoreError,
    sql::{Tx, Value, params},
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
}

/// What outlives its purpose, and is then removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlived {
    /// Spent decisions, a day after their end.
    Decisions,
    /// Idempotency keys that are not remembered any more.
    Keys,
    /// Login links past their time.
    Links,
    /// Sessions past their time.
    Sessions,
}

impl Outlived {
    /// All there is.
    pub const ALL: [Self; 4] = [Self::Decisions, Self::Keys, Self::Links, Self::Sessions];

    /// The most that one transaction removes: whoever writes beside it waits for no more, and it ends long before its time
    /// limit.
    pub const STEP: u64 = 2000;

    pub(super) fn sql(self) -> &'static OutlivedSql {
        match self {
            Self::Decisions => &DECISIONS,
            Self::Keys => &KEYS,
            Self::Links => &LINKS,
            Self::Sessions => &SESSIONS,
        }
    }

    /// The place before all rows of a moment.
    fn before_all(self) -> Vec<Value> {
        let texts = |count| vec![Value::Text(String::new()); count];
        match self {
            Self::Decisions => texts(2),
            Self::Keys => texts(3),
            Self::Links | Self::Sessions => vec![Value::Blob(Vec::new())],
        }
    }
}

impl Store {
    /// Removes what has outlived its purpose in the org, the longest due first, at most [`Outlived::STEP`] rows; how many it
    /// was. It stands in no org's line: nobody needs these rows any more.
    ///
    /// # Errors
    /// When the database is unavailable, or somebody is in the way.
    pub async fn sweep(&self, org: OrgId, what: Outlived) -> Result<u64, StoreError> {
        let mut tx = self.write_rows(&[org]).await?;
        let (now, sql) = (tx.now(), what.sql());
        if !self.is_alone() {
            tx.rows(IN_ORDER, Vec::new()).await?;
        }
        // The first that stays. Where less is due, that is the moment itself.
        let first = tx
            .row(sql.first_to_stay, params![org, now, Outlived::STEP])
            .await?;
        let place = first.map_or_else(
            || {
                let mut place = params![now];
                place.extend(what.before_all());
                place
            },
            |row| row.0,
        );
        let mut before = params![org];
        before.extend(place);
        let gone = tx.execute(sql.remove, before).await?;
        tx.commit().await?;
        Ok(gone)
    }
}

/// How what has outlived its purpose is found and removed.
#[derive(Debug)]
pub(super) struct OutlivedSql {
    /// The orgs behind `$1` with rows due before `$2`, at most `$3`: one jump through the index for each org that has any rows,
    /// however many, and a glance at its first.
    pub(super) orgs: &'static str,
    /// The row of org `$1` behind the first `$3` that were due before `$2`: its moment and its key.
    pub(super) first_to_stay: &'static str,
    /// Removes the rows of org `$1` before the one of moment `$2` and key `$3` and on. It asks for the moment once more: a key
    /// that was taken anew meanwhile stays.
    pub(super) remove: &'static str,
}

macro_rules! outlived {
    ($table:literal, $until:literal, $key:literal, $place:literal) => {
        OutlivedSql {
            orgs: concat!(
                "WITH RECURSIVE holding (org_id) AS (
                   SELECT (SELECT r.org_id FROM ",
                $table,
                " r WHERE r.org_id > $1
                     ORDER BY r.org_id, r.",
                $until,
                " LIMIT 1)
                   UNION ALL
                   SELECT (SELECT r.org_id FROM ",
                $table,
                " r WHERE r.org_id > h.org_id
                     ORDER BY r.org_id, r.",
                $until,
                " LIMIT 1)
                   FROM holding h WHERE h.org_id IS NOT NULL
                 )
                 SELECT h.org_id FROM holding h WHERE h.org_id IS NOT NULL
                   AND (SELECT min(r.",
                $until,
                ") FROM ",
                $table,
                " r WHERE r.org_id = h.org_id) < $2
                 LIMIT $3"
            ),
            first_to_stay: concat!(
                "SELECT ",
                $until,
                ", ",
                $key,
                " FROM ",
                $table,
                " WHERE org_id = $1 AND ",
                $until,
                " < $2
                 ORDER BY ",
                $until,
                ", ",
                $key,
                " LIMIT 1 OFFSET $3"
            ),
            remove: concat!(
                "DELETE FROM ",
                $table,
                " WHERE org_id = $1 AND ",
                $until,
                " <= $2
                   AND (",
                $until,
                ", ",
                $key,
                ") < ($2, ",
                $place,
                ")"
            ),
        }
    };
}

/// However little PostgreSQL believes to be due, it walks the index to where the step ends and does not gather all of it to
/// sort it.
const IN_ORDER: &str =
    "SELECT set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true)";

const DECISIONS: OutlivedSql = outlived!("spent", "keep_until", "iss, jti", "$3, $4");
const KEYS: OutlivedSql = outlived!("idempotency", "keep_until", "principal, route, key", "$3, $4, $5");
const LINKS: OutlivedSql = outlived!("login_links", "expires_at", "hash", "$3");
const SESSIONS: OutlivedSql = outlived!("sessions", "expires_at", "hash", "$3");
