//! Connect sessions: from the opaque link to the confirmed grant.

use std::time::Duration;

use crate::{
    crypto::keyring::SealedSecret,
    domain::{
        AgentId, ConnectSessionId, GrantId, KeyId, OrgId, ScopeSet, ServiceId, Time, UserId,
        connector::ConnectorId, grant::Account,
    },
};

use super::{
    RevocationRow, StoreError,
    sql::{Fields, Row, Tx, json, params},
};

/// Where a connect session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectStatus {
    /// The link was made and not used.
    Pending,
    /// The person went on to the provider.
    Spent,
    /// Back from the provider; the code is being exchanged.
    Exchanging,
    /// Back from the provider, tokens held sealed; the person has to confirm.
    Confirming,
    /// Confirmed; the host application has to say who was at the browser.
    AwaitingComplete,
    /// There is a grant.
    Completed,
    /// Ended without one.
    Failed,
}

impl ConnectStatus {
    /// The name in storage.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Spent => "spent",
            Self::Exchanging => "exchanging",
            Self::Confirming => "confirming",
            Self::AwaitingComplete => "awaiting_complete",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

/// A connect session.
#[derive(Debug, Clone)]
pub struct ConnectRow {
    /// The tenant.
    pub org: OrgId,
    /// Its id.
    pub id: ConnectSessionId,
    /// Keyed hash of the token in the link.
    pub link_hash: [u8; 32],
    /// For whom.
    pub user: UserId,
    /// At which connector.
    pub connector: ConnectorId,
    /// What is asked.
    pub scopes: ScopeSet,
    /// The person's own name for the grant.
    pub label: Option<String>,
    /// The agent that asked, if one did.
    pub agent: Option<AgentId>,
    /// The host application that minted it.
    pub service: Option<ServiceId>,
    /// Where the browser goes back to.
    pub return_url: Option<String>,
    /// The grant it renews.
    pub reconnect: Option<GrantId>,
    /// Where it stands.
    pub status: ConnectStatus,
    /// Why it failed.
    pub failure: Option<String>,
    /// The epoch counter at which it was made.
    pub made_epoch: i64,
    /// When it was made.
    pub created_at: Time,
    /// When it ends by itself.
    pub expires_at: Time,
    /// Whether a revocation ended it.
    pub revoked: bool,
    /// Keyed hash of `state`.
    pub state_hash: Option<[u8; 32]>,
    /// Keyed hash of the binding cookie.
    pub browser_hash: Option<[u8; 32]>,
    /// Sealed PKCE verifier (kind `code_verifier`, row = `id`).
    pub verifier: Option<SealedSecret>,
    /// Sealed token answer (kind `pending_tokens`, row = `id`).
    pub tokens: Option<SealedSecret>,
    /// The account that came back.
    pub account: Option<Account>,
    /// The scopes that came back.
    pub granted: Option<ScopeSet>,
    /// The grant it became.
    pub grant: Option<GrantId>,
    /// Keyed hash of the completion code.
    pub code_hash: Option<[u8; 32]>,
    /// When the completion code ends.
    pub code_expires: Option<Time>,
}

const INSERT: &str =
    "INSERT INTO connect_sessions (org_id, id, link_hash, user_id, connector, scopes, label, agent_id,
     service_id, return_url, reconnect, status, made_epoch, created_at, expires_at)
   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";

/// Ids are in the order of their making, so that only what is old is looked at.
const FORGET: &str = "DELETE FROM connect_sessions WHERE org_id = $1 AND id < $2 AND expires_at < $3
     AND status IN ('completed', 'failed')";

const UPDATE: &str = "UPDATE connect_sessions SET status = $4, failure = $5, expires_at = $6,
     state_hash = $7, browser_hash = $8, odk = $9, verifier = $10, verifier_dek = $11, tokens = $12,
     tokens_dek = $13, account = $14, granted = $15, grant_id = $16, code_hash = $17, code_expires = $18
   WHERE org_id = $1 AND id = $2 AND status = $3";

macro_rules! connect_columns {
    () => {
        "c.org_id, c.id, c.link_hash, c.user_id, c.connector, c.scopes, c.label, c.agent_id, c.service_id, \
         c.return_url, c.reconnect, c.status, c.failure, c.made_epoch, c.created_at, c.expires_at, c.state_hash, c.browser_hash, c.odk, c.verifier, c.verifier_dek, c.tokens, c.tokens_dek, c.account, \
         c.granted, c.grant_id, c.code_hash, c.code_expires, \
         EXISTS (SELECT 1 FROM floors f WHERE f.org_id = c.org_id AND f.epoch >= c.made_epoch \
           AND ((f.kind = 'all' AND f.id = '') OR (f.kind = 'user' AND f.id = c.user_id) \
             OR (f.kind = 'connector' AND f.id = c.connector) OR (f.kind = 'agent' AND f.id = c.agent_id)))"
    };
}

impl Tx {
    /// Keeps a new session, and forgets those of the org that came to an end long ago: an agent that asks day after day
    /// for somebody who never connects makes one each time. Those nobody finished are failed by the sweep first.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn insert_connect(&mut self, row: &ConnectRow) -> Result<(), StoreError> {
        let over = self.now - ENDED_KEPT_FOR;
        self.execute(FORGET, params![row.org, first_made_at(over), over])
            .await?;
        self.change(
            "connect_sessions",
            INSERT,
            params![
                row.org,
                row.id,
                &row.link_hash,
                row.user,
                &row.connector,
                json(&row.scopes),
                row.label.as_deref(),
                row.agent,
                row.service,
                row.return_url.as_deref(),
                row.reconnect,
                row.status.as_str(),
                row.made_epoch,
                row.created_at,
                row.expires_at
            ],
        )
        .await
    }

    /// Moves a session on from `from`; `false` if it is no longer there: somebody else moved it.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn move_connect(&mut self, from: ConnectStatus, row: &ConnectRow) -> Result<bool, StoreError> {
        let odk: Option<KeyId> = row
            .verifier
            .as_ref()
            .or(row.tokens.as_ref())
            .map(|secret| secret.odk);
        let changed = self
            .execute(
                UPDATE,
                params![
                    row.org,
                    row.id,
                    from.as_str(),
                    row.status.as_str(),
                    row.failure.as_deref(),
                    row.expires_at,
                    row.state_hash.as_ref(),
                    row.browser_hash.as_ref(),
                    odk,
                    row.verifier.as_ref().map(|secret| secret.sealed.as_slice()),
                    row.verifier.as_ref().map(|secret| secret.wrapped_dek.as_slice()),
                    row.tokens.as_ref().map(|secret| secret.sealed.as_slice()),
                    row.tokens.as_ref().map(|secret| secret.wrapped_dek.as_slice()),
                    row.account.as_ref().map(json),
                    row.granted.as_ref().map(json),
                    row.grant,
                    row.code_hash.as_ref(),
                    row.code_expires
                ],
            )
            .await?;
        Ok(changed == 1)
    }

    /// The session of a link, by the keyed hash of its token.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn connect_by_link(
        &mut self,
        org: OrgId,
        hash: &[u8; 32],
    ) -> Result<Option<ConnectRow>, StoreError> {
        let row = self
            .row(
                concat!(
                    "SELECT ",
                    connect_columns!(),
                    " FROM connect_sessions c WHERE c.org_id = $1 AND c.link_hash = $2"
                ),
                params![org, hash],
            )
            .await?;
        row.map(read).transpose()
    }

    /// The session a callback's `state` names, by its keyed hash.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn connect_by_state(
        &mut self,
        org: OrgId,
        hash: &[u8; 32],
    ) -> Result<Option<ConnectRow>, StoreError> {
        let row = self
            .row(
                concat!(
                    "SELECT ",
                    connect_columns!(),
                    " FROM connect_sessions c WHERE c.org_id = $1 AND c.state_hash = $2"
                ),
                params![org, hash],
            )
            .await?;
        row.map(read).transpose()
    }

    /// One session of the org.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn connect(
        &mut self,
        org: OrgId,
        id: ConnectSessionId,
    ) -> Result<Option<ConnectRow>, StoreError> {
        let row = self
            .row(
                concat!(
                    "SELECT ",
                    connect_columns!(),
                    " FROM connect_sessions c WHERE c.org_id = $1 AND c.id = $2"
                ),
                params![org, id],
            )
            .await?;
        row.map(read).transpose()
    }

    /// Sessions under way that a revocation covers, and where each stands, behind the first `skip` of them.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn connects_to_end(
        &mut self,
        org: OrgId,
        revocation: &RevocationRow,
        skip: u64,
        limit: u64,
    ) -> Result<Vec<(ConnectSessionId, ConnectStatus)>, StoreError> {
        let (kind, id) = revocation.selector.floor();
        let rows = self
            .rows(
                connects_to_end(kind),
                params![org, id, revocation.epoch, limit, skip],
            )
            .await?;
        rows.into_iter()
            .map(|row| {
                let mut fields = row.fields("connect_sessions");
                Ok((fields.parse()?, status(&mut fields)?))
            })
            .collect()
    }

    /// How many links an agent had made for a person since `since`.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn connects_asked_since(
        &mut self,
        org: OrgId,
        user: UserId,
        agent: AgentId,
        since: Time,
    ) -> Result<u64, StoreError> {
        let row = self
            .row(
                "SELECT count(*) FROM connect_sessions
                 WHERE org_id = $1 AND user_id = $2 AND agent_id = $3 AND created_at > $4",
                params![org, user, agent, since],
            )
            .await?;
        row.map_or(Ok(0), |row| row.fields("connect_sessions").count())
    }
}

fn read(row: Row) -> Result<ConnectRow, StoreError> {
    let mut fields = row.fields("connect_sessions");
    let mut session = ConnectRow {
        org: fields.parse()?,
        id: fields.parse()?,
        link_hash: fields.hash()?,
        user: fields.parse()?,
        connector: fields.parse()?,
        scopes: fields.json()?,
        label: fields.opt_text()?,
        agent: fields.opt_parse()?,
        service: fields.opt_parse()?,
        return_url: fields.opt_text()?,
        reconnect: fields.opt_parse()?,
        status: status(&mut fields)?,
        failure: fields.opt_text()?,
        made_epoch: fields.int()?,
        created_at: fields.time()?,
        expires_at: fields.time()?,
        revoked: false,
        state_hash: fields.opt_hash()?,
        browser_hash: fields.opt_hash()?,
        verifier: None,
        tokens: None,
        account: None,
        granted: None,
        grant: None,
        code_hash: None,
        code_expires: None,
    };
    let odk: Option<KeyId> = fields.opt_parse()?;
    session.verifier = secret(odk, fields.opt_blob()?, fields.opt_blob()?);
    session.tokens = secret(odk, fields.opt_blob()?, fields.opt_blob()?);
    session.account = fields.opt_json()?;
    session.granted = fields.opt_json()?;
    session.grant = fields.opt_parse()?;
    session.code_hash = fields.opt_hash()?;
    session.code_expires = fields.opt_time()?;
    // INVARIANT: a floor covering the session ends it, as it ends grants.
    let covered = fields.flag()?;
    session.revoked = match session.status {
        ConnectStatus::Completed => false,
        ConnectStatus::Failed => session.failure.as_deref() == Some(REVOKED),
        _ => covered,
    };
    if session.revoked {
        session.expires_at = Time::from_unix_micros(0);
    }
    Ok(session)
}

fn status(fields: &mut Fields) -> Result<ConnectStatus, StoreError> {
    Ok(match fields.text()?.as_str() {
        "pending" => ConnectStatus::Pending,
        "spent" => ConnectStatus::Spent,
        "exchanging" => ConnectStatus::Exchanging,
        "confirming" => ConnectStatus::Confirming,
        "awaiting_complete" => ConnectStatus::AwaitingComplete,
        "completed" => ConnectStatus::Completed,
        "failed" => ConnectStatus::Failed,
        _ => return Err(fields.bad()),
    })
}

/// The `failure` of a session that a revocation ended.
pub const REVOKED: &str = "revoked";

pub(super) fn connects_to_end(kind: &str) -> &'static str {
    macro_rules! open_connects {
        ($which:literal) => {
            concat!(
                "SELECT c.id, c.status FROM connect_sessions c WHERE c.org_id = $1 AND c.made_epoch < $3 \
                   AND c.status NOT IN ('completed', 'failed') AND ",
                $which,
                " ORDER BY c.id LIMIT $4 OFFSET $5"
            )
        };
    }
    match kind {
        "all" => open_connects!("$2 = ''"),
        "user" => open_connects!("c.user_id = $2"),
        "connector" => open_connects!("c.connector = $2"),
        "agent" => open_connects!("c.agent_id = $2"),
        // What a grant's end covers is not under way any more.
        _ => open_connects!("CAST($2 AS TEXT) IS NULL"),
    }
}

fn secret(odk: Option<KeyId>, sealed: Option<Vec<u8>>, wrapped_dek: Option<Vec<u8>>) -> Option<SealedSecret> {
    Some(SealedSecret {
        odk: odk?,
        sealed: sealed?,
        wrapped_dek: wrapped_dek?,
    })
}

/// The id before all that were made at this moment or later (RFC 9562 §5.7).
fn first_made_at(at: Time) -> ConnectSessionId {
    let millis = u128::try_from(at.unix_millis()).unwrap_or(0);
    ConnectSessionId::from_bytes((millis << 80).to_be_bytes())
}

/// How long a session that came to an end can be asked for.
const ENDED_KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
