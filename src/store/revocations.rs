//! Revocations: one exclusive change whatever the number of grants, and the fan-out that follows it.

use serde::{Deserialize, Serialize};

use crate::domain::{
    AgentId, EntryId, GrantId, OrgId, RevocationId, Time, UserId, connector::ConnectorId, entry::Epoch,
    grant::Grant,
};

use super::{
    OutboxRow, SelectorCounts, StoreError,
    counts::of_selector,
    grants::{grant_columns, grant_of},
    outside::Fact,
    sql::{Fields, Tx, json, params},
};

/// What a revocation ends. Exactly one member in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// Every grant that exists now; only `true` is meant.
    All(bool),
    /// A person's grants, sessions, delegations, links and pending connects.
    User(UserId),
    /// An agent: disabled; its delegations end; grants stay.
    Agent(AgentId),
    /// Every grant at a connector.
    Connector(ConnectorId),
    /// One grant.
    Grant(GrantId),
}

impl Selector {
    /// The kind and id of its floor.
    #[must_use]
    pub fn floor(&self) -> (&'static str, String) {
        match self {
            Self::All(_) => ("all", String::new()),
            Self::User(id) => ("user", id.to_string()),
            Self::Agent(id) => ("agent", id.to_string()),
            Self::Connector(id) => ("connector", id.to_string()),
            Self::Grant(id) => ("grant", id.to_string()),
        }
    }

    /// The selector of a floor's kind and id; `None` if there is none.
    #[must_use]
    pub fn of(kind: &str, id: &str) -> Option<Self> {
        match kind {
            "all" if id.is_empty() => Some(Self::All(true)),
            "user" => id.parse().ok().map(Self::User),
            "agent" => id.parse().ok().map(Self::Agent),
            "connector" => id.parse().ok().map(Self::Connector),
            "grant" => id.parse().ok().map(Self::Grant),
            _ => None,
        }
    }

    /// Whether it names something in this org.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn exists(&self, tx: &mut Tx, org: OrgId) -> Result<bool, StoreError> {
        Ok(match self {
            Self::All(all) => *all,
            Self::User(user) => tx.user(org, *user).await?.is_some(),
            Self::Agent(agent) => tx.agent(org, *agent).await?.is_some(),
            Self::Grant(grant) => tx.grant(org, *grant).await?.is_some(),
            Self::Connector(_) => true,
        })
    }
}

/// A revocation.
#[derive(Debug, Clone)]
pub struct RevocationRow {
    /// Its id.
    pub id: RevocationId,
    /// What it ended.
    pub selector: Selector,
    /// Why, in the caller's words.
    pub reason: String,
    /// The counter of the epoch it began.
    pub epoch: i64,
    /// When it took effect.
    pub at: Time,
    /// How much it covered; `None` until it is counted, which is after it took effect.
    pub counts: Option<SelectorCounts>,
    /// Whether every grant has its tombstone and its place in the outbox.
    pub fanned_out: bool,
}

impl Tx {
    /// Ends everything the selector covers that was made before `epoch`: O(1), whatever the number of grants.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn insert_revocation(
        &mut self,
        org: OrgId,
        revocation: &RevocationRow,
        epoch: Epoch,
    ) -> Result<(), StoreError> {
        let (kind, id) = revocation.selector.floor();
        // Made at the epoch before counts as covered; what is made at the new epoch does not.
        let covered = epoch.counter - 1;
        self.change(
            "floors",
            "INSERT INTO floors (org_id, kind, id, epoch, at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (org_id, kind, id) DO UPDATE SET epoch = $4, at = $5",
            params![org, kind, id, covered, self.now],
        )
        .await?;
        self.change(
            "revocations",
            "INSERT INTO revocations (org_id, id, selector, reason, epoch, at, counts)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            params![
                org,
                revocation.id,
                json(&revocation.selector),
                &revocation.reason,
                epoch.counter,
                self.now,
                json(&revocation.counts)
            ],
        )
        .await
    }

    /// Remembers outside the database, once committed, what a recovery ends with `epoch`: an older database put back after
    /// that could else give it back, for the rest of what is known outside need not name it.
    pub fn remember_end(&mut self, org: OrgId, selector: &Selector, epoch: Epoch) {
        let (kind, id) = selector.floor();
        let kind = kind.to_owned();
        self.tell_outside(org, epoch, Fact::Moved { kind, id });
    }

    /// One revocation of the org.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn revocation(
        &mut self,
        org: OrgId,
        id: RevocationId,
    ) -> Result<Option<RevocationRow>, StoreError> {
        let row = self
            .row(
                "SELECT id, selector, reason, epoch, at, counts, fanned_out FROM revocations
                 WHERE org_id = $1 AND id = $2",
                params![org, id],
            )
            .await?;
        row.map(|row| read_revocation(row.fields("revocations")))
            .transpose()
    }

    /// Grants covered by a revocation that have no tombstone yet, each with how many refresh tokens and how many access tokens
    /// it has.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn grants_to_bury(
        &mut self,
        org: OrgId,
        revocation: &RevocationRow,
        limit: u64,
    ) -> Result<Vec<(Grant, u64, u64)>, StoreError> {
        let (kind, id) = revocation.selector.floor();
        let rows = self
            .rows(grants_to_bury(kind), params![org, id, revocation.epoch, limit])
            .await?;
        rows.into_iter()
            .map(|row| {
                let mut fields = row.fields("grants");
                Ok((grant_of(&mut fields)?, fields.count()?, fields.count()?))
            })
            .collect()
    }

    /// Whether the org ever had a grant at this connector.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn was_connected(&mut self, org: OrgId, connector: &ConnectorId) -> Result<bool, StoreError> {
        let row = self
            .row(
                "SELECT 1 FROM grants WHERE org_id = $1 AND connector = $2 LIMIT 1",
                params![org, connector.as_str()],
            )
            .await?;
        Ok(row.is_some())
    }

    /// Writes a grant's tombstone and queues its upstream revocation.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn bury_grant(&mut self, grant: &Grant, outbox: &OutboxRow) -> Result<(), StoreError> {
        let ended = crate::domain::grant::GrantState::Revoked { at: self.now };
        self.note_change(grant.org, grant.id, &ended, None).await?;
        self.change(
            "grants",
            "UPDATE grants SET state = 'revoked', state_reason = NULL, state_at = coalesce($3, $4)
             WHERE org_id = $1 AND id = $2",
            params![grant.org, grant.id, revoked_at(grant), self.now],
        )
        .await?;
        self.put_outbox(outbox).await.map(drop)
    }

    /// Writes down how much a revocation covered.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn set_revocation_counts(
        &mut self,
        org: OrgId,
        id: RevocationId,
        counts: &SelectorCounts,
    ) -> Result<(), StoreError> {
        self.change(
            "revocations",
            "UPDATE revocations SET counts = $3 WHERE org_id = $1 AND id = $2",
            params![org, id, json(counts)],
        )
        .await
    }

    /// Marks a revocation's fan-out as finished.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn finish_fan_out(&mut self, org: OrgId, id: RevocationId) -> Result<(), StoreError> {
        self.change(
            "revocations",
            "UPDATE revocations SET fanned_out = 1 WHERE org_id = $1 AND id = $2",
            params![org, id],
        )
        .await
    }

    /// Releases of the org by `execute` before an epoch whose outcome is not recorded yet, as their entries' canonical JSON:
    /// [`IN_FLIGHT_PAGE`] at a time, in the order of their ids.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn in_flight(
        &mut self,
        org: OrgId,
        before: i64,
        after: Option<EntryId>,
    ) -> Result<Vec<String>, StoreError> {
        let page = i64::try_from(IN_FLIGHT_PAGE).unwrap_or(i64::MAX);
        let after = after.map_or_else(String::new, |id| id.to_string());
        let rows = self.rows(IN_FLIGHT, params![org, before, after, page]).await?;
        rows.into_iter().map(|row| row.fields("entries").text()).collect()
    }

    /// Takes a call off the open ones; `false` if its outcome was recorded meanwhile.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn close_call(&mut self, org: OrgId, release: EntryId) -> Result<bool, StoreError> {
        let closed = self
            .execute(
                "DELETE FROM open_calls WHERE org_id = $1 AND entry_id = $2",
                params![org, release],
            )
            .await?;
        Ok(closed == 1)
    }
}

/// The open calls lead: the log is only asked for these.
pub(super) const IN_FLIGHT: &str = "SELECT e.bytes FROM open_calls c CROSS JOIN entries e
     WHERE c.org_id = $1 AND c.entry_id > $3
       AND e.org_id = c.org_id AND e.id = c.entry_id AND e.epoch < $2 ORDER BY c.entry_id LIMIT $4";
/// How many open calls are read at a time.
pub const IN_FLIGHT_PAGE: usize = 1000;

pub(super) fn grants_to_bury(kind: &str) -> &'static str {
    of_selector!(
        kind,
        [
            "SELECT ",
            grant_columns!(),
            ", (SELECT count(*) FROM secrets s WHERE s.org_id = g.org_id AND s.row_id = g.id AND s.kind = 'refresh_token'),
               (SELECT count(*) FROM secrets s WHERE s.org_id = g.org_id AND s.row_id = g.id AND s.kind <> 'refresh_token')
             FROM grants g WHERE g.org_id = $1 AND g.state <> 'revoked' AND g.connected_epoch < $3"
        ],
        // The order of the index of those that are not buried.
        [" ORDER BY g.connector, g.id LIMIT $4"]
    )
}

fn revoked_at(grant: &Grant) -> Option<Time> {
    match grant.state {
        crate::domain::grant::GrantState::Revoked { at } => Some(at),
        _ => None,
    }
}

fn read_revocation(mut fields: Fields) -> Result<RevocationRow, StoreError> {
    Ok(RevocationRow {
        id: fields.parse()?,
        selector: fields.json()?,
        reason: fields.text()?,
        epoch: fields.int()?,
        at: fields.time()?,
        counts: fields.json()?,
        fanned_out: fields.flag()?,
    })
}
