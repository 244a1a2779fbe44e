//! What waits for the workers, across all orgs: ids only. The work itself is done in a transaction of its org.

use std::collections::HashSet;

use crate::domain::{ConnectSessionId, EntryId, GrantId, OrgId, RevocationId, Time, connector::ConnectorId};

use super::{
    Notice, StoreError,
    once::Outlived,
    outside::Reached,
    sql::{Row, Tx, Value, json, params},
    waits::{LONGEST_BACKOFF, LONGEST_COOLDOWN, LONGEST_LEASE, farthest, is_over},
};

/// A look across orgs. It sees ids, states and times, never what is kept for anybody.
#[derive(Debug)]
pub struct Due(pub(super) Tx);

impl Due {
    /// The database's time, taken when the look began.
    #[must_use]
    pub fn now(&self) -> Time {
        self.0.now
    }

    /// Every org, in the order of their ids.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn orgs(&mut self, after: Option<OrgId>, limit: u64) -> Result<Vec<OrgId>, StoreError> {
        self.list(
            "SELECT org_id FROM epochs WHERE org_id > $1 ORDER BY org_id LIMIT $2",
            params![behind(after), limit],
            org,
        )
        .await
    }

    /// How far every org has come, in the order of their ids: the counter of its epoch and the size of its log.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn reached(
        &mut self,
        after: Option<OrgId>,
        limit: u64,
    ) -> Result<Vec<(OrgId, Reached)>, StoreError> {
        self.list(
            "SELECT e.org_id, e.counter, coalesce(l.size, 0) FROM epochs e LEFT JOIN logs l ON l.org_id = e.org_id
             WHERE e.org_id > $1 ORDER BY e.org_id LIMIT $2",
            params![behind(after), limit],
            |row| {
                let mut fields = row.fields("epochs");
                let org = fields.parse()?;
                let (counter, size) = (fields.int()?, fields.count()?);
                Ok((org, Reached { counter, size }))
            },
        )
        .await
    }

    /// Orgs with entries that wait for their place in the log, behind `after`.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn orgs_to_sequence(
        &mut self,
        after: Option<OrgId>,
        limit: u64,
    ) -> Result<Vec<OrgId>, StoreError> {
        self.list(
            "SELECT DISTINCT org_id FROM writers WHERE waits = 1 AND org_id > $1 ORDER BY org_id LIMIT $2",
            params![behind(after), limit],
            org,
        )
        .await
    }

    /// Orgs whose log is longer than what the sink has, behind `after`.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn orgs_behind(
        &mut self,
        sink: &str,
        after: Option<OrgId>,
        limit: u64,
    ) -> Result<Vec<OrgId>, StoreError> {
        self.list(
            "SELECT l.org_id FROM logs l LEFT JOIN sink_cursors c ON c.org_id = l.org_id AND c.sink = $1
             WHERE l.size > coalesce(c.next_index, 0) AND l.org_id > $2 ORDER BY l.org_id LIMIT $3",
            params![sink, behind(after), limit],
            org,
        )
        .await
    }

    /// Orgs with rows that have outlived their purpose, in the order of their ids, behind `after`.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn orgs_to_sweep(
        &mut self,
        what: Outlived,
        after: Option<OrgId>,
        limit: u64,
    ) -> Result<Vec<OrgId>, StoreError> {
        let params = params![behind(after), self.0.now, limit];
        self.list(what.sql().orgs, params, org).await
    }

    /// Connect sessions past their time that are not at an end, behind the first `skip` of them: their tokens have to be
    /// revoked upstream.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn connects(
        &mut self,
        skip: u64,
        limit: u64,
    ) -> Result<Vec<(OrgId, ConnectSessionId)>, StoreError> {
        self.list(
            "SELECT org_id, id FROM connect_sessions WHERE expires_at < $1 AND status NOT IN ('completed', 'failed')
             ORDER BY expires_at LIMIT $2 OFFSET $3",
            params![self.0.now, limit, skip],
            pair,
        )
        .await
    }

    /// Revocations whose fan-out is not finished, the oldest first, behind `after`.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn revocations(
        &mut self,
        after: Option<Unfinished>,
        limit: u64,
    ) -> Result<Vec<Unfinished>, StoreError> {
        let (at, org, id) = place(after.map(|after| (after.at, after.org, after.id)));
        self.list(
            "SELECT org_id, id, at FROM revocations WHERE fanned_out = 0
               AND at >= $1 AND (at > $1 OR (org_id, id) > ($2, $3))
             ORDER BY at, org_id, id LIMIT $4",
            params![at, org, id, limit],
            |row| {
                let mut fields = row.fields("revocations");
                Ok(Unfinished {
                    org: fields.parse()?,
                    id: fields.parse()?,
                    at: fields.time()?,
                })
            },
        )
        .await
    }

    /// Connectors at which upstream revocations wait, due or not.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn outbox_connectors(&mut self) -> Result<Vec<ConnectorId>, StoreError> {
        let mut found: Vec<ConnectorId> = Vec::new();
        loop {
            let after = found.last().map_or_else(String::new, ToString::to_string);
            let row = self.0.row(NEXT_CONNECTOR, params![after]).await?;
            // One jump through the index for each connector, however much waits at it.
            match row
                .map(|row| row.fields("outbox").opt_parse())
                .transpose()?
                .flatten()
            {
                Some(next) => found.push(next),
                None => return Ok(found),
            }
        }
    }

    /// Orgs of which upstream revocations at one connector are in this line, in the order of their ids.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn outbox_orgs(
        &mut self,
        connector: &ConnectorId,
        line: OutboxLine,
    ) -> Result<Vec<OrgId>, StoreError> {
        let (behind, until) = line.within(self.0.now);
        self.list(OUTBOX_ORGS, params![connector, behind, until], org)
            .await
    }

    /// Those of one org: its grants, the longest due first.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn outbox(
        &mut self,
        connector: &ConnectorId,
        org: OrgId,
        line: OutboxLine,
        limit: u64,
    ) -> Result<Vec<(OrgId, GrantId)>, StoreError> {
        let (behind, until) = line.within(self.0.now);
        self.list(OUTBOX, params![connector, org, behind, until, limit], pair)
            .await
    }

    /// Grants of which nobody knows what the provider answered to a refresh, and nobody is asking, the oldest question first,
    /// behind `after`.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn refreshes_in_doubt(
        &mut self,
        after: Option<InDoubt>,
        limit: u64,
    ) -> Result<Vec<InDoubt>, StoreError> {
        let (asked, org, grant) = place(after.map(|after| (after.asked, after.org, after.grant)));
        let now = self.0.now;
        self.list(
            concat!(
                "SELECT org_id, grant_id, intent_at FROM refresh_leases WHERE intent IS NOT NULL AND ",
                is_over!("expires_at", "$1", "$6"),
                " AND ",
                is_over!("not_before", "$1", "$7"),
                " AND intent_at >= $2 AND (intent_at > $2 OR (org_id, grant_id) > ($3, $4))
                 ORDER BY intent_at, org_id, grant_id LIMIT $5"
            ),
            params![
                now,
                asked,
                org,
                grant,
                limit,
                farthest(now, LONGEST_LEASE),
                farthest(now, LONGEST_COOLDOWN)
            ],
            |row| {
                let mut fields = row.fields("refresh_leases");
                Ok(InDoubt {
                    org: fields.parse()?,
                    grant: fields.parse()?,
                    asked: fields.time()?,
                })
            },
        )
        .await
    }

    /// Connectors that have grants which are to be looked at again.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn renewal_connectors(&mut self) -> Result<Vec<ConnectorId>, StoreError> {
        let read = |row: Row| row.fields("grants").parse();
        let mut connectors: Vec<ConnectorId> =
            self.list(RENEWAL_CONNECTORS, params![self.0.now], read).await?;
        connectors.extend(self.list(CONNECTORS_WITHOUT_TIME, Vec::new(), read).await?);
        connectors.sort_unstable();
        connectors.dedup();
        Ok(connectors)
    }

    /// Grants at one connector whose time to be looked at has come, the longest overdue first, then those without a time; none of
    /// some orgs. Versions before migration 0020 left no time on grants that needed nothing; a connector's file may since say that
    /// these die of idleness.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn renewals(
        &mut self,
        connector: &ConnectorId,
        but_for: &HashSet<OrgId>,
        limit: u64,
    ) -> Result<Vec<(OrgId, GrantId)>, StoreError> {
        let (sql, but_for) = (self.0.connection.refresh_sql(), json(but_for));
        let params = params![connector, self.0.now, limit, but_for.clone()];
        let mut due = self.list(sql.renewals, params, pair).await?;
        let left = limit.saturating_sub(u64::try_from(due.len()).unwrap_or(limit));
        if left > 0 {
            due.extend(
                self.list(sql.renewals_without_time, params![connector, left, but_for], pair)
                    .await?,
            );
        }
        Ok(due)
    }

    /// Orgs with a change that the operator's webhook is to be told now, in the order of their ids, behind `after`.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn orgs_to_tell(&mut self, after: Option<OrgId>, limit: u64) -> Result<Vec<OrgId>, StoreError> {
        let now = self.0.now;
        let farthest = farthest(now, Notice::LONGEST_PAUSE);
        let params = params![behind(after), now, farthest, limit];
        self.list(ORGS_TO_TELL, params, org).await
    }

    /// Grants whose time in quarantine is over.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn quarantines(&mut self, limit: u64) -> Result<Vec<(OrgId, GrantId)>, StoreError> {
        self.list(QUARANTINES, params![self.0.now, limit], pair).await
    }

    /// Calls that were sent before `before` and have no outcome.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn outcomes(&mut self, before: Time, limit: u64) -> Result<Vec<(OrgId, EntryId)>, StoreError> {
        self.list(OUTCOMES, params![before, limit], pair).await
    }

    /// Calls whose idempotency key does not say yet how they ended and is kept until before `until`, the oldest first,
    /// behind the first `skip` of them.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn unfinished_keys(
        &mut self,
        until: Time,
        skip: u64,
        limit: u64,
    ) -> Result<Vec<(OrgId, EntryId)>, StoreError> {
        self.list(
            "SELECT org_id, entry_id FROM idempotency WHERE status IS NULL AND keep_until < $1
             ORDER BY keep_until LIMIT $2 OFFSET $3",
            params![until, limit, skip],
            pair,
        )
        .await
    }

    async fn list<T>(
        &mut self,
        sql: &'static str,
        params: Vec<Value>,
        read: impl Fn(Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        self.0.rows(sql, params).await?.into_iter().map(read).collect()
    }
}

/// Which of the upstream revocations that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboxLine {
    /// Those to be tried now.
    Due,
    /// Those that lie so far ahead that only a clock that was wrong or the pace of a very large fan-out can have put them there:
    /// they may be tried when nothing else is to be, and are in nobody's way.
    FarAhead,
}

impl OutboxLine {
    /// Behind which moment they are due, and until when.
    fn within(self, now: Time) -> (Time, Time) {
        match self {
            Self::Due => (FIRST, now),
            Self::FarAhead => (farthest(now, LONGEST_BACKOFF), LAST),
        }
    }
}

/// A grant of which nobody knows what the provider answered.
#[derive(Debug, Clone, Copy)]
pub struct InDoubt {
    /// Whose.
    pub org: OrgId,
    /// Which.
    pub grant: GrantId,
    /// When the provider was asked.
    pub asked: Time,
}

/// A revocation whose fan-out is not finished.
#[derive(Debug, Clone, Copy)]
pub struct Unfinished {
    /// Whose.
    pub org: OrgId,
    /// Which.
    pub id: RevocationId,
    /// When it took effect.
    pub at: Time,
}

/// A place in a line that goes by moment, org and id; without one, before the first.
fn place(after: Option<(Time, OrgId, impl ToString)>) -> (Time, String, String) {
    after.map_or_else(
        || (FIRST, String::new(), String::new()),
        |(at, org, id)| (at, org.to_string(), id.to_string()),
    )
}

/// Every org's id is behind the empty text.
fn behind(after: Option<OrgId>) -> String {
    after.map_or_else(String::new, |org| org.to_string())
}

pub(super) const NEXT_CONNECTOR: &str =
    "SELECT min(connector) FROM outbox WHERE result = 'pending' AND connector > $1";

/// One jump through the index for each org, however much of it waits.
pub(super) const OUTBOX_ORGS: &str = "WITH RECURSIVE waiting (org_id) AS (
       SELECT (SELECT o.org_id FROM outbox o WHERE o.result = 'pending' AND o.connector = $1
         ORDER BY o.org_id, o.due_at LIMIT 1)
       UNION ALL
       SELECT (SELECT o.org_id FROM outbox o WHERE o.result = 'pending' AND o.connector = $1 AND o.org_id > w.org_id
         ORDER BY o.org_id, o.due_at LIMIT 1)
       FROM waiting w WHERE w.org_id IS NOT NULL
     )
     SELECT w.org_id FROM waiting w WHERE w.org_id IS NOT NULL AND EXISTS (SELECT 1 FROM outbox o
       WHERE o.result = 'pending' AND o.connector = $1 AND o.org_id = w.org_id AND o.due_at > $2 AND o.due_at <= $3)";

pub(super) const OUTBOX: &str = "SELECT org_id, grant_id FROM outbox
     WHERE result = 'pending' AND connector = $1 AND org_id = $2 AND due_at > $3 AND due_at <= $4
     ORDER BY due_at LIMIT $5";

/// One jump through the index for each org with something to tell, however much, and a glance at its first and its last:
/// what is due, and what only a clock that was ahead can have put off so far.
pub(super) const ORGS_TO_TELL: &str = "WITH RECURSIVE waiting (org_id) AS (
       SELECT (SELECT n.org_id FROM notices n WHERE n.due_at IS NOT NULL AND n.org_id > $1
         ORDER BY n.org_id, n.due_at LIMIT 1)
       UNION ALL
       SELECT (SELECT n.org_id FROM notices n WHERE n.due_at IS NOT NULL AND n.org_id > w.org_id
         ORDER BY n.org_id, n.due_at LIMIT 1)
       FROM waiting w WHERE w.org_id IS NOT NULL
     )
     SELECT w.org_id FROM waiting w WHERE w.org_id IS NOT NULL
       AND ((SELECT min(n.due_at) FROM notices n WHERE n.org_id = w.org_id AND n.due_at IS NOT NULL) <= $2
         OR (SELECT max(n.due_at) FROM notices n WHERE n.org_id = w.org_id AND n.due_at IS NOT NULL) > $3)
     LIMIT $4";

/// One jump through the index for each connector, however many grants wait at it.
pub(super) const RENEWAL_CONNECTORS: &str = "WITH RECURSIVE at (connector) AS (
       SELECT min(connector) FROM grants WHERE renew_at IS NOT NULL AND state = 'active'
       UNION ALL
       SELECT (SELECT min(g.connector) FROM grants g
         WHERE g.renew_at IS NOT NULL AND g.state = 'active' AND g.connector > at.connector)
       FROM at WHERE at.connector IS NOT NULL)
     SELECT connector FROM at WHERE connector IS NOT NULL AND EXISTS (SELECT 1 FROM grants g
       WHERE g.renew_at IS NOT NULL AND g.state = 'active' AND g.connector = at.connector AND g.renew_at <= $1)";

pub(super) const CONNECTORS_WITHOUT_TIME: &str = "WITH RECURSIVE at (connector) AS (
       SELECT min(connector) FROM grants WHERE renew_at IS NULL AND state = 'active'
       UNION ALL
       SELECT (SELECT min(g.connector) FROM grants g
         WHERE g.renew_at IS NULL AND g.state = 'active' AND g.connector > at.connector)
       FROM at WHERE at.connector IS NOT NULL)
     SELECT connector FROM at WHERE connector IS NOT NULL";

pub(super) const QUARANTINES: &str =
    "SELECT org_id, id FROM grants WHERE state = 'quarantined' AND state_at < $1 ORDER BY state_at LIMIT $2";

pub(super) const OUTCOMES: &str =
    "SELECT org_id, entry_id FROM open_calls WHERE sent_at < $1 ORDER BY sent_at LIMIT $2";

/// Before and after all there is.
const FIRST: Time = Time::from_unix_micros(i64::MIN);
const LAST: Time = Time::from_unix_micros(i64::MAX);

fn org(row: Row) -> Result<OrgId, StoreError> {
    row.fields("due").parse()
}

fn pair<T: std::str::FromStr>(row: Row) -> Result<(OrgId, T), StoreError> {
    let mut fields = row.fields("due");
    Ok((fields.parse()?, fields.parse()?))
}
