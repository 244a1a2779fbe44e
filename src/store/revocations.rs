//! Revocations: one exclusive change whatever the number of grants, and the fan-out that follows it.

use serde::{Deserialize, Serialize};

use crate::domain::{
    AgentId, GrantId, OrgId, RevocationId, Time, UserId, connector::ConnectorId, entry::Epoch, grant::Grant,
};

use super::{
    OutboxRow, StoreError,
    grants::{grant_columns, read_grant},
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
}

/// How much a selector covers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelectorCounts {
    /// Living grants.
    pub grants: u64,
    /// Living delegations.
    pub delegations: u64,
    /// Browser sessions.
    pub sessions: u64,
    /// Connect sessions under way.
    pub connects: u64,
    /// Agents.
    pub agents: u64,
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
    /// How much it covered.
    pub counts: SelectorCounts,
    /// Whether every grant has its tombstone and its place in the outbox.
    pub fanned_out: bool,
}

impl Tx {
    /// How much a selector covers now.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn count_selector(
        &mut self,
        org: OrgId,
        selector: &Selector,
    ) -> Result<SelectorCounts, StoreError> {
        let (kind, id) = selector.floor();
        let row = self
            .row(
                "SELECT
                   (SELECT count(*) FROM grants g WHERE g.org_id = $1 AND g.state <> 'revoked'
                      AND NOT EXISTS (SELECT 1 FROM floors f WHERE f.org_id = $1 AND f.epoch >= g.connected_epoch
                        AND ((f.kind = 'all') OR (f.kind = 'user' AND f.id = g.user_id)
                          OR (f.kind = 'connector' AND f.id = g.connector) OR (f.kind = 'grant' AND f.id = g.id)))
                      AND ($2 = 'all' OR ($2 = 'user' AND g.user_id = $3) OR ($2 = 'connector' AND g.connector = $3)
                        OR ($2 = 'grant' AND g.id = $3))),
                   (SELECT count(*) FROM delegations d WHERE d.org_id = $1 AND d.ended_at IS NULL
                      AND NOT EXISTS (SELECT 1 FROM floors f WHERE f.org_id = $1 AND f.epoch >= d.made_epoch
                        AND ((f.kind = 'all') OR (f.kind = 'user' AND f.id = d.user_id)
                          OR (f.kind = 'agent' AND f.id = d.agent_id)))
                      AND ($2 = 'all' OR ($2 = 'user' AND d.user_id = $3) OR ($2 = 'agent' AND d.agent_id = $3)
                        OR ($2 = 'grant' AND d.grant_id = $3)
                        OR ($2 = 'connector' AND d.grant_id IN
                          (SELECT id FROM grants WHERE org_id = $1 AND connector = $3)))),
                   (SELECT count(*) FROM sessions s WHERE s.org_id = $1 AND s.expires_at > $4
                      AND NOT EXISTS (SELECT 1 FROM floors f WHERE f.org_id = $1 AND f.kind = 'user'
                        AND f.id = s.user_id AND f.epoch >= s.made_epoch)
                      AND $2 = 'user' AND s.user_id = $3),
                   (SELECT count(*) FROM connect_sessions c WHERE c.org_id = $1 AND c.expires_at > $4
                      AND c.status NOT IN ('completed', 'failed')
                      AND NOT EXISTS (SELECT 1 FROM floors f WHERE f.org_id = $1 AND f.epoch >= c.made_epoch
                        AND ((f.kind = 'all') OR (f.kind = 'user' AND f.id = c.user_id)
                          OR (f.kind = 'connector' AND f.id = c.connector)
                          OR (f.kind = 'agent' AND f.id = c.agent_id)))
                      AND ($2 = 'all' OR ($2 = 'user' AND c.user_id = $3) OR ($2 = 'connector' AND c.connector = $3)
                        OR ($2 = 'agent' AND c.agent_id = $3))),
                   (SELECT count(*) FROM agents a WHERE a.org_id = $1 AND a.disabled_at IS NULL
                      AND $2 = 'agent' AND a.id = $3)",
                params![org, kind, id, self.now],
            )
            .await?;
        row.map_or(Ok(SelectorCounts::default()), |row| {
            let mut fields = row.fields("grants");
            Ok(SelectorCounts {
                grants: fields.count()?,
                delegations: fields.count()?,
                sessions: fields.count()?,
                connects: fields.count()?,
                agents: fields.count()?,
            })
        })
    }

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

    /// Grants covered by a revocation that have no tombstone yet.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn grants_to_bury(
        &mut self,
        org: OrgId,
        revocation: &RevocationRow,
        limit: u64,
    ) -> Result<Vec<Grant>, StoreError> {
        let (kind, id) = revocation.selector.floor();
        let rows = self
            .rows(
                concat!(
                    "SELECT ",
                    grant_columns!(),
                    " FROM grants g WHERE g.org_id = $1 AND g.state <> 'revoked' AND g.connected_epoch < $4
                       AND ($2 = 'all' OR ($2 = 'user' AND g.user_id = $3) OR ($2 = 'connector' AND g.connector = $3)
                         OR ($2 = 'grant' AND g.id = $3))
                     ORDER BY g.id LIMIT $5"
                ),
                params![org, kind, id, revocation.epoch, limit],
            )
            .await?;
        rows.into_iter().map(read_grant).collect()
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
            "UPDATE grants SET state = 'revoked', state_reason = NULL, state_at = coalesce($3, $4), upstream = $5
             WHERE org_id = $1 AND id = $2",
            params![grant.org, grant.id, revoked_at(grant), self.now, outbox.result.as_str()],
        )
        .await?;
        self.put_outbox(outbox).await
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

    /// Releases of the selection whose outcome is not recorded yet: calls already sent.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn in_flight(&mut self, org: OrgId, since: Time) -> Result<Vec<(String, String)>, StoreError> {
        let rows = self
            .rows(
                "SELECT e.id, e.bytes FROM entries e WHERE e.org_id = $1 AND e.kind = 'release' AND e.mode = 'execute' AND e.ts >= $2
                   AND NOT EXISTS (SELECT 1 FROM entries o WHERE o.org_id = $1 AND o.correlation = e.id
                                   AND o.kind IN ('outcome', 'dropped'))
                 ORDER BY e.ts DESC LIMIT 1000",
                params![org, since],
            )
            .await?;
        rows.into_iter()
            .map(|row| {
                let mut fields = row.fields("entries");
                Ok((fields.text()?, fields.text()?))
            })
            .collect()
    }
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
