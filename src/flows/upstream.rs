//! Ending tokens at the provider: queued, retried, reported per grant. Our own copy is destroyed on the final answer.

use std::time::Duration;

use url::Url;

use crate::{
    connectors::oauth::{Client, OAuth},
    crypto::OdkHandle,
    domain::{
        GrantId, OrgId, Time,
        connector::{Connector, ConnectorId, IdentityHow, RevokeHow, RevokeKills},
        grant::{Grant, GrantState},
        secret::ClientSecret,
    },
    release::{
        open,
        seal::{self, Tokens},
    },
    store::{ConnectorClientRow, OrgRows, OutboxRow, SecretKind, Tx, UpstreamResult, Whose},
};

use super::{Deps, Refusal};

mod fan_out;
mod providers;

pub use fan_out::{bury_now, fan_out};
pub use providers::{Provider, drain, providers, round};

/// The org's client at a connector, its secret opened.
///
/// # Errors
/// When the org has none, or its key is unavailable.
pub async fn client(deps: &Deps, org: OrgId, connector: &ConnectorId) -> Result<OrgClient, Refusal> {
    let row = deps
        .store
        .read(org)
        .await?
        .connector_client(org, connector)
        .await?
        .ok_or(Refusal::NotFound)?;
    let key = match &row.secret {
        None => None,
        Some(sealed) => Some(deps.key_of(org, sealed.odk).await?),
    };
    opened(org, &row, key.as_ref())
}

/// The same among what was read of the org.
pub(super) async fn client_among(
    deps: &Deps,
    org: OrgId,
    connector: &ConnectorId,
    rows: &OrgRows,
) -> Result<OrgClient, Refusal> {
    let row = rows.client(connector).ok_or(Refusal::NotFound)?;
    let key = match &row.secret {
        None => None,
        Some(sealed) => Some(deps.unwrapped(rows.odk(sealed.odk)?).await?),
    };
    opened(org, row, key.as_ref())
}

fn opened(org: OrgId, row: &ConnectorClientRow, key: Option<&OdkHandle>) -> Result<OrgClient, Refusal> {
    let secret = match &row.secret {
        None => None,
        Some(sealed) => {
            let key = key.ok_or(Refusal::KeyUnavailable)?;
            Some(open::client_secret(key, org, row, sealed).map_err(|_| Refusal::KeyUnavailable)?)
        }
    };
    Ok(OrgClient {
        id: row.client_id.clone(),
        secret,
    })
}

/// The org's client at a connector.
#[derive(Debug)]
pub struct OrgClient {
    /// RFC 6749 §2.2.
    pub id: String,
    secret: Option<ClientSecret>,
}

impl OrgClient {
    /// Speaks to the connector's authorization server as this client.
    #[must_use]
    pub fn oauth<'a>(&'a self, deps: &'a Deps, connector: &'a Connector) -> OAuth<'a> {
        let client = Client {
            id: &self.id,
            secret: self.secret.as_ref(),
        };
        OAuth::new(&deps.egress, &*deps.clock, connector, client)
    }
}

/// Whether the provider ends tokens at all.
#[must_use]
pub fn can_revoke(connector: &Connector) -> bool {
    connector.revoke.how != RevokeHow::None
}

/// The place in the outbox of a grant that ended now.
pub(super) fn outbox_row(grant: &Grant, now: Time) -> OutboxRow {
    OutboxRow {
        org: grant.org,
        grant: grant.id,
        revocation: None,
        connector: grant.connector.clone(),
        due_at: now,
        give_up_at: now + GIVE_UP,
        attempts: 0,
        result: UpstreamResult::Pending,
    }
}

/// Keeps tokens for which there is no living grant under a grant of their own; one that has ended is queued.
///
/// # Errors
/// When the key or the database is unavailable.
pub async fn keep_apart(
    tx: &mut Tx,
    key: &OdkHandle,
    grant: &Grant,
    connector: &Connector,
    answer: &Tokens,
) -> Result<(), Refusal> {
    tx.insert_grant(grant).await?;
    if let Some(token) = &answer.access_token {
        let (kind, generation) = (SecretKind::AccessToken, grant.generation);
        let access = seal::access_token(key, grant, &kind, generation, token, None, answer.expires_at)?;
        tx.put_secret(grant.org, grant.id, &kind, &access).await?;
    }
    if let Some(token) = &answer.refresh_token {
        let refresh = seal::refresh_token(key, grant, grant.generation, token)?;
        tx.put_secret(grant.org, grant.id, &SecretKind::RefreshToken, &refresh)
            .await?;
    }
    if matches!(grant.state, GrantState::Revoked { .. }) {
        let can = can_revoke(connector);
        let result = if can {
            UpstreamResult::Pending
        } else {
            UpstreamResult::Unsupported
        };
        queue(tx, grant, result).await?;
    }
    Ok(())
}

/// Writes what becomes of a tombstone's tokens at the provider; unless it is still to be asked, our copy is destroyed.
///
/// # Errors
/// When the database is unavailable.
pub async fn queue(tx: &mut Tx, tombstone: &Grant, result: UpstreamResult) -> Result<(), Refusal> {
    let outbox = OutboxRow {
        result,
        ..outbox_row(tombstone, tx.now())
    };
    tx.put_outbox(&outbox).await?;
    if result != UpstreamResult::Pending {
        tx.shred_secrets(tombstone.org, tombstone.id).await?;
    }
    Ok(())
}

/// A grant of its own for tokens that `grant` no longer holds: it never lives, and its tokens open only to be ended.
///
/// # Errors
/// When the generator fails.
pub fn tombstone(deps: &Deps, grant: &Grant, now: Time) -> Result<Grant, Refusal> {
    Ok(Grant {
        id: GrantId::new(now, &*deps.random)?,
        state: GrantState::Revoked { at: now },
        connected_at: now,
        ..grant.clone()
    })
}

/// Whether ending one token could end others that its account gave the org's client: what the connector's file does not
/// rule out is assumed.
#[must_use]
pub fn ends_more_than_the_token(connector: &Connector) -> bool {
    can_revoke(connector) && connector.revoke.kills != Some(RevokeKills::Token)
}

/// Whose tokens those of this account are to the provider.
pub(super) fn whose<'a>(connector: &Connector, account: Option<&'a str>) -> Whose<'a> {
    match account {
        Some(account) => Whose::Account(account),
        None if connector.identity.how == IdentityHow::None => Whose::Person,
        None => Whose::Unknown,
    }
}

/// The connectors that are one client to one authorization server, this one among them. Those whose server is not known here
/// may be of the same.
pub(super) async fn of_one_client(
    deps: &Deps,
    tx: &mut Tx,
    org: OrgId,
    connector: &Connector,
) -> Result<Vec<ConnectorId>, Refusal> {
    let server = |connector: &Connector| {
        let url = Url::parse(&connector.server.token_url).ok();
        url.map(|url| url.authority().to_owned())
    };
    let mut found = tx.connectors_of_client(org, &connector.id).await?;
    found.retain(|other| {
        let other = deps.catalogue.get(other);
        other.is_none_or(|other| server(other) == server(connector))
    });
    Ok(found)
}

/// Why tokens were destroyed here and not ended at the provider: that could have ended a grant that lives.
pub const NOT_ALONE: &str = "not_revocable_alone";
/// How long the provider is asked before the answer is `unconfirmed` (architecture §4).
pub const GIVE_UP: Duration = Duration::from_secs(7 * 24 * 3600);
