//! Whose grants: those of a person, and those that a provider may take for one, because they are of one account and were given
//! to one client, whoever of the org connected them and as whichever connector.
//!
//! Two of known accounts are of one if the accounts are the same. Where one was not told this once, it may be any. A grant that
//! lives without one is of a connector that never tells: there the person stands for the account.

use crate::domain::{
    ConnectSessionId, GrantId, OrgId, Time, UserId,
    connector::ConnectorId,
    grant::{Account, Grant},
};

use super::{floors_over_grant, grant_columns, read_grant};
use crate::store::{
    StoreError,
    sql::{Tx, params},
};

/// A grant that lives, for all that its own row and the floors say.
macro_rules! living {
    () => {
        concat!(
            // The condition of the indexes of those that are not buried.
            "g.state <> 'revoked' AND g.state IN ('active', 'needs_reconnect') AND NOT EXISTS (SELECT 1 ",
            floors_over_grant!(),
            ")"
        )
    };
}

/// Whose tokens are to be ended, as far as the provider is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose<'a> {
    /// Those of this account.
    Account(&'a str),
    /// Those of an account that was not told this once.
    Unknown,
    /// Those of a connector that never tells: the person stands for the account.
    Person,
}

impl Tx {
    /// The grants of a person (at one connector), newest first, floors applied. Where there are too many, the ended ones are
    /// left out first.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn grants_of(
        &mut self,
        org: OrgId,
        user: UserId,
        connector: Option<&ConnectorId>,
    ) -> Result<Vec<Grant>, StoreError> {
        let rows = self
            .rows(
                concat!(
                    "SELECT ",
                    grant_columns!(),
                    " FROM grants g WHERE g.org_id = $1 AND g.user_id = $2 AND (CAST($3 AS TEXT) IS NULL OR g.connector = $3)
                     ORDER BY CASE g.state WHEN 'revoked' THEN 1 ELSE 0 END, g.id DESC LIMIT 500"
                ),
                params![org, user, connector],
            )
            .await?;
        let mut grants = rows.into_iter().map(read_grant).collect::<Result<Vec<_>, _>>()?;
        grants.sort_unstable_by_key(|grant| std::cmp::Reverse(grant.id));
        Ok(grants)
    }

    /// A person's living grant of an account at a connector, the newest if there were several.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn living_grant_of(
        &mut self,
        org: OrgId,
        user: UserId,
        connector: &ConnectorId,
        account: &str,
    ) -> Result<Option<Grant>, StoreError> {
        let row = self
            .row(LIVING_OF_PERSON, params![org, user, connector, account])
            .await?;
        row.map(read_grant).transpose()
    }

    /// The connectors at which the org is the same client as at this one, which is among them.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn connectors_of_client(
        &mut self,
        org: OrgId,
        connector: &ConnectorId,
    ) -> Result<Vec<ConnectorId>, StoreError> {
        let rows = self.rows(OF_CLIENT, params![org, connector]).await?;
        let mut found = vec![connector.clone()];
        for row in rows {
            found.push(row.fields("connector_clients").parse()?);
        }
        Ok(found)
    }

    /// Whether a grant, other than `but`, lives at these connectors that may be of a person's account, whoever's it is. Beside an
    /// account that was not told this once, one that a revocation covers counts until it is buried: nobody walks over all of
    /// them to find another.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn lives_beside(
        &mut self,
        org: OrgId,
        connectors: &[ConnectorId],
        user: UserId,
        account: Whose<'_>,
        but: Option<GrantId>,
    ) -> Result<bool, StoreError> {
        for connector in connectors {
            let told = match account {
                Whose::Account(account) => {
                    self.row(LIVING_OF_ACCOUNT, params![org, connector, but, account])
                        .await?
                }
                Whose::Unknown => self.row(LIVING_OF_ANY, params![org, connector, but]).await?,
                Whose::Person => {
                    self.row(LIVING_OF_USER, params![org, connector, but, user])
                        .await?
                }
            };
            let untold = self.row(LIVING_UNTOLD, params![org, connector, but, user]);
            if told.is_some() || untold.await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Until when a connect at these connectors that is back from the provider may still become a grant that may be of a
    /// person's account. While its own account is not known, it counts for its person alone: somebody is always connecting.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn connecting_beside(
        &mut self,
        org: OrgId,
        connectors: &[ConnectorId],
        user: UserId,
        account: Whose<'_>,
    ) -> Result<Option<Time>, StoreError> {
        let mut last = None;
        for connector in connectors {
            let rows = self.rows(BACK, params![org, connector, user, self.now]).await?;
            for row in rows {
                let mut fields = row.fields("connect_sessions");
                let id: ConnectSessionId = fields.parse()?;
                let is_own = fields.parse::<UserId>()? == user;
                let other = fields.opt_json::<Account>()?.and_then(|other| other.id);
                let may_be_same = match (account, other.as_deref()) {
                    (Whose::Account(account), Some(other)) => account == other,
                    (Whose::Unknown, Some(_)) => true,
                    (Whose::Person, Some(_)) | (_, None) => is_own,
                };
                if may_be_same {
                    // Read as everywhere: one under a revocation is over.
                    let session = self.connect(org, id).await?;
                    last = last.max(session.map(|session| session.expires_at));
                }
            }
        }
        Ok(last.filter(|until| *until > self.now))
    }
}

pub(in crate::store) const LIVING_OF_PERSON: &str = concat!(
    "SELECT ",
    grant_columns!(),
    " FROM grants g WHERE g.org_id = $1 AND g.user_id = $2 AND g.connector = $3 AND g.account_id = $4 AND ",
    living!(),
    " ORDER BY g.id DESC"
);

/// Those that a floor of the org or of the connector ended lie behind the others in the index, and are not walked: very many
/// may be of one account.
pub(in crate::store) const LIVING_OF_ACCOUNT: &str = concat!(
    "SELECT 1 FROM grants g WHERE g.org_id = $1 AND g.connector = $2 AND g.account_id = $4
       AND g.connected_epoch > (SELECT coalesce(max(f.epoch), -1) FROM floors f WHERE f.org_id = $1
         AND ((f.kind = 'all' AND f.id = '') OR (f.kind = 'connector' AND f.id = $2)))
       AND (CAST($3 AS TEXT) IS NULL OR g.id <> $3) AND ",
    living!(),
    " ORDER BY g.connected_epoch DESC LIMIT 1"
);

/// Every known account is behind the empty text.
pub(in crate::store) const LIVING_OF_ANY: &str =
    "SELECT 1 FROM grants g WHERE g.org_id = $1 AND g.connector = $2 AND g.account_id >= ''
       AND (CAST($3 AS TEXT) IS NULL OR g.id <> $3)
       AND g.state <> 'revoked' AND g.state IN ('active', 'needs_reconnect') ORDER BY g.account_id LIMIT 1";

pub(in crate::store) const LIVING_OF_USER: &str = concat!(
    "SELECT 1 FROM grants g WHERE g.org_id = $1 AND g.user_id = $4 AND g.connector = $2
       AND (CAST($3 AS TEXT) IS NULL OR g.id <> $3) AND ",
    living!(),
    " LIMIT 1"
);

pub(in crate::store) const LIVING_UNTOLD: &str = concat!(
    "SELECT 1 FROM grants g WHERE g.org_id = $1 AND g.user_id = $4 AND g.connector = $2 AND g.account_id IS NULL
       AND (CAST($3 AS TEXT) IS NULL OR g.id <> $3) AND ",
    living!(),
    " LIMIT 1"
);

pub(in crate::store) const OF_CLIENT: &str =
    "SELECT o.connector FROM connector_clients c JOIN connector_clients o
       ON o.org_id = c.org_id AND o.client_id = c.client_id AND o.connector <> c.connector
     WHERE c.org_id = $1 AND c.connector = $2 ORDER BY o.connector";

/// The first condition on the status and the epoch, which every session has, are for the index of those under way.
pub(in crate::store) const BACK: &str = "SELECT c.id, c.user_id, c.account FROM connect_sessions c
     WHERE c.org_id = $1 AND c.made_epoch >= 0 AND c.connector = $2 AND c.status NOT IN ('completed', 'failed')
       AND c.status IN ('exchanging', 'confirming', 'awaiting_complete') AND c.expires_at > $4
       AND (c.user_id = $3 OR c.account IS NOT NULL)";
