//! Keys: org data keys, instance keys and API keys.

use crate::{
    crypto::{OdkRecord, instance::InstanceKeyRecord},
    domain::{AgentId, KeyId, OrgId, Time, principal::KeyOwner},
};

use super::{
    StoreError,
    entries::read_sealed,
    sql::{Fields, Row, Tx, params},
};

/// An API key, without the key.
#[derive(Debug, Clone)]
pub struct ApiKeyRow {
    /// The tenant.
    pub org: OrgId,
    /// Its id.
    pub id: KeyId,
    /// Whom it speaks for.
    pub owner: KeyOwner,
    /// When it was made.
    pub created_at: Time,
    /// When it stopped working.
    pub revoked_at: Option<Time>,
}

/// Something a caller holds, by the keyed hash it is known under.
#[derive(Debug, Clone, Copy)]
pub enum Keyed<'a> {
    /// An API key.
    ApiKey(&'a [u8; 32]),
    /// The cookie of a browser session.
    Session(&'a [u8; 32]),
    /// A login link.
    LoginLink(&'a [u8; 32]),
    /// The link of a connect session.
    ConnectLink(&'a [u8; 32]),
    /// The `state` of a connect session.
    ConnectState(&'a [u8; 32]),
}

impl<'a> Keyed<'a> {
    /// The statement that finds its org, and the hash.
    pub(super) fn look_up(self) -> (&'static str, &'a [u8; 32]) {
        match self {
            Self::ApiKey(hash) => ("SELECT org_id FROM api_keys WHERE hash = $1", hash),
            Self::Session(hash) => ("SELECT org_id FROM sessions WHERE hash = $1", hash),
            Self::LoginLink(hash) => ("SELECT org_id FROM login_links WHERE hash = $1", hash),
            Self::ConnectLink(hash) => ("SELECT org_id FROM connect_sessions WHERE link_hash = $1", hash),
            Self::ConnectState(hash) => ("SELECT org_id FROM connect_sessions WHERE state_hash = $1", hash),
        }
    }
}

/// The columns of a key, as [`read_api_key`] takes them; never its hash.
macro_rules! key_columns {
    () => {
        "org_id, id, kind, owner_id, created_at, revoked_at"
    };
}

impl Tx {
    /// The data key new secrets of the org (`None`: of the deployment) are sealed under.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn current_odk(&mut self, org: Option<OrgId>) -> Result<Option<OdkRecord>, StoreError> {
        let row = self
            .row(
                "SELECT id, kek_ref, wrapped, commitment FROM odks WHERE org_id = $1 AND retired_at IS NULL
                 ORDER BY created_at DESC, id DESC LIMIT 1",
                params![odk_org(org)],
            )
            .await?;
        row.map(|row| read_odk(org, row)).transpose()
    }

    /// One data key of the org (`None`: of the deployment).
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn odk(&mut self, org: Option<OrgId>, id: KeyId) -> Result<Option<OdkRecord>, StoreError> {
        let row = self
            .row(
                "SELECT id, kek_ref, wrapped, commitment FROM odks WHERE org_id = $1 AND id = $2",
                params![odk_org(org), id],
            )
            .await?;
        row.map(|row| read_odk(org, row)).transpose()
    }

    /// Keeps a new data key.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn insert_odk(&mut self, odk: &OdkRecord) -> Result<(), StoreError> {
        self.change(
            "odks",
            "INSERT INTO odks (org_id, id, kek_ref, wrapped, commitment, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
            params![odk_org(odk.org), odk.id, &odk.kek_ref, odk.wrapped.as_slice(), &odk.commitment, self.now],
        )
        .await
    }

    /// Every instance key, oldest first.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn instance_keys(&mut self) -> Result<Vec<InstanceKeyRecord>, StoreError> {
        let rows = self
            .rows(
                "SELECT id, purpose, public_jwk, odk, sealed, wrapped_dek, created_at, retired_at FROM instance_keys
                 ORDER BY created_at, id",
                params![],
            )
            .await?;
        rows.into_iter()
            .map(|row| {
                let mut fields = row.fields("instance_keys");
                Ok(InstanceKeyRecord {
                    id: fields.parse()?,
                    purpose: fields.parse()?,
                    public_jwk: fields.opt_text()?,
                    secret: read_sealed(&mut fields)?.ok_or_else(|| fields.bad())?,
                    created_at: fields.time()?,
                    retired_at: fields.opt_time()?,
                })
            })
            .collect()
    }

    /// Keeps a new instance key.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn insert_instance_key(&mut self, key: &InstanceKeyRecord) -> Result<(), StoreError> {
        self.change(
            "instance_keys",
            "INSERT INTO instance_keys (id, purpose, public_jwk, odk, sealed, wrapped_dek, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            params![
                key.id,
                key.purpose.as_str(),
                key.public_jwk.as_deref(),
                key.secret.odk,
                key.secret.sealed.as_slice(),
                key.secret.wrapped_dek.as_slice(),
                key.created_at
            ],
        )
        .await
    }

    /// The API key with this keyed hash.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn api_key(&mut self, org: OrgId, hash: &[u8; 32]) -> Result<Option<ApiKeyRow>, StoreError> {
        let row = self
            .row(
                concat!(
                    "SELECT ",
                    key_columns!(),
                    " FROM api_keys WHERE org_id = $1 AND hash = $2"
                ),
                params![org, hash],
            )
            .await?;
        row.map(read_api_key).transpose()
    }

    /// One API key of the org, revoked or not.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn api_key_by_id(&mut self, org: OrgId, key: KeyId) -> Result<Option<ApiKeyRow>, StoreError> {
        let row = self
            .row(
                concat!(
                    "SELECT ",
                    key_columns!(),
                    " FROM api_keys WHERE org_id = $1 AND id = $2"
                ),
                params![org, key],
            )
            .await?;
        row.map(read_api_key).transpose()
    }

    /// API keys in the order of their ids, revoked ones too.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn api_keys(
        &mut self,
        org: OrgId,
        after: Option<KeyId>,
        limit: u64,
    ) -> Result<Vec<ApiKeyRow>, StoreError> {
        let rows = self
            .rows(
                concat!(
                    "SELECT ",
                    key_columns!(),
                    " FROM api_keys WHERE org_id = $1 AND (CAST($2 AS TEXT) IS NULL OR id > $2) ORDER BY id LIMIT $3"
                ),
                params![org, after, limit],
            )
            .await?;
        rows.into_iter().map(read_api_key).collect()
    }

    /// The keys of an agent that still work.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn living_keys_of(&mut self, org: OrgId, agent: AgentId) -> Result<Vec<KeyId>, StoreError> {
        let rows = self
            .rows(
                "SELECT id FROM api_keys WHERE org_id = $1 AND kind = 'agent' AND owner_id = $2 AND revoked_at IS NULL",
                params![org, agent],
            )
            .await?;
        rows.into_iter()
            .map(|row| row.fields("api_keys").parse())
            .collect()
    }

    /// Keeps a new API key's hash.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn insert_api_key(&mut self, key: &ApiKeyRow, hash: &[u8; 32]) -> Result<(), StoreError> {
        self.change(
            "api_keys",
            "INSERT INTO api_keys (org_id, id, kind, owner_id, hash, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
            params![
                key.org,
                key.id,
                key.owner.kind().as_str(),
                key.owner.id().unwrap_or_else(|| key.org.to_string()),
                hash,
                key.created_at
            ],
        )
        .await
    }

    /// Ends an API key; it stays in the list.
    ///
    /// # Errors
    /// When the database is unavailable or there is no such key.
    pub async fn revoke_api_key(&mut self, org: OrgId, key: KeyId) -> Result<(), StoreError> {
        self.change(
            "api_keys",
            "UPDATE api_keys SET revoked_at = coalesce(revoked_at, $3) WHERE org_id = $1 AND id = $2",
            params![org, key, self.now],
        )
        .await
    }

    /// How many API keys of the org work.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn count_living_api_keys(&mut self, org: OrgId) -> Result<u64, StoreError> {
        let row = self
            .row(
                "SELECT count(*) FROM api_keys WHERE org_id = $1 AND revoked_at IS NULL",
                params![org],
            )
            .await?;
        row.map_or(Ok(0), |row| row.fields("api_keys").count())
    }

    /// Ends every API key of the org that works, and says which these were.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn revoke_every_api_key(&mut self, org: OrgId) -> Result<Vec<ApiKeyRow>, StoreError> {
        let rows = self
            .rows(
                concat!(
                    "UPDATE api_keys SET revoked_at = $2 WHERE org_id = $1 AND revoked_at IS NULL RETURNING ",
                    key_columns!()
                ),
                params![org, self.now],
            )
            .await?;
        let mut keys = rows
            .into_iter()
            .map(read_api_key)
            .collect::<Result<Vec<_>, _>>()?;
        keys.sort_unstable_by_key(|key| key.id);
        Ok(keys)
    }
}

/// The deployment's own keys stand under the empty org.
fn odk_org(org: Option<OrgId>) -> String {
    org.map(|org| org.to_string()).unwrap_or_default()
}

fn read_odk(org: Option<OrgId>, row: Row) -> Result<OdkRecord, StoreError> {
    odk_of(org, &mut row.fields("odks"))
}

/// Reads the columns of a data key.
pub(super) fn odk_of(org: Option<OrgId>, fields: &mut Fields) -> Result<OdkRecord, StoreError> {
    Ok(OdkRecord {
        id: fields.parse()?,
        org,
        kek_ref: fields.text()?,
        wrapped: fields.blob()?,
        commitment: fields.hash()?,
    })
}

fn read_api_key(row: Row) -> Result<ApiKeyRow, StoreError> {
    let mut fields = row.fields("api_keys");
    Ok(ApiKeyRow {
        org: fields.parse()?,
        id: fields.parse()?,
        owner: match fields.text()?.as_str() {
            "admin" => {
                // The column holds the org, which has been read already.
                fields.text()?;
                KeyOwner::Admin
            }
            "service" => KeyOwner::Service(fields.parse()?),
            "agent" => KeyOwner::Agent(fields.parse()?),
            _ => return Err(fields.bad()),
        },
        created_at: fields.time()?,
        revoked_at: fields.opt_time()?,
    })
}
