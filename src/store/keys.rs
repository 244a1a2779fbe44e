//! Keys: org data keys, instance keys and API keys.

use crate::{
    crypto::{OdkRecord, instance::InstanceKeyRecord},
    domain::{KeyId, OrgId, Time, principal::KeyKind},
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
    /// What it is for.
    pub kind: KeyKind,
    /// The agent or service; the org for admin keys.
    pub owner: String,
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
                "SELECT org_id, id, kind, owner_id, revoked_at FROM api_keys WHERE org_id = $1 AND hash = $2",
                params![org, hash],
            )
            .await?;
        row.map(|row| {
            let mut fields = row.fields("api_keys");
            Ok(ApiKeyRow {
                org: fields.parse()?,
                id: fields.parse()?,
                kind: read_kind(&mut fields)?,
                owner: fields.text()?,
                revoked_at: fields.opt_time()?,
            })
        })
        .transpose()
    }

    /// Keeps a new API key's hash.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn insert_api_key(&mut self, key: &ApiKeyRow, hash: &[u8; 32]) -> Result<(), StoreError> {
        self.change(
            "api_keys",
            "INSERT INTO api_keys (org_id, id, kind, owner_id, hash, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
            params![key.org, key.id, kind_name(key.kind), &key.owner, hash, self.now],
        )
        .await
    }
}

/// The deployment's own keys stand under the empty org.
fn odk_org(org: Option<OrgId>) -> String {
    org.map(|org| org.to_string()).unwrap_or_default()
}

fn read_odk(org: Option<OrgId>, row: Row) -> Result<OdkRecord, StoreError> {
    let mut fields = row.fields("odks");
    Ok(OdkRecord {
        id: fields.parse()?,
        org,
        kek_ref: fields.text()?,
        wrapped: fields.blob()?,
        commitment: fields.hash()?,
    })
}

fn kind_name(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Admin => "admin",
        KeyKind::Service => "service",
        KeyKind::Agent => "agent",
    }
}

fn read_kind(fields: &mut Fields) -> Result<KeyKind, StoreError> {
    match fields.text()?.as_str() {
        "admin" => Ok(KeyKind::Admin),
        "service" => Ok(KeyKind::Service),
        "agent" => Ok(KeyKind::Agent),
        _ => Err(fields.bad()),
    }
}
