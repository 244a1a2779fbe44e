//! Grants and their sealed secrets.

use std::{fmt, str::FromStr};

use crate::{
    crypto::keyring::SealedSecret,
    domain::{
        GrantId, OrgId, ScopeSet, Time,
        grant::{Account, Grant, GrantState, ReconnectReason},
    },
};

use super::{
    StoreError,
    entries::read_sealed,
    sql::{Fields, Row, Tx, json, params},
};

pub(super) mod whose;

/// Which secret of a grant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretKind {
    /// RFC 6749 §1.5.
    RefreshToken,
    /// The access token as wide as the grant.
    AccessToken,
    /// An access token narrowed to a scope set, by the base64url SHA-256 of its text.
    Narrowed(String),
}

impl fmt::Display for SecretKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RefreshToken => f.write_str("refresh_token"),
            Self::AccessToken => f.write_str("access_token"),
            Self::Narrowed(hash) => write!(f, "narrowed:{hash}"),
        }
    }
}

/// The text names no kind of secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a kind of secret")]
pub struct NotASecretKind;

impl FromStr for SecretKind {
    type Err = NotASecretKind;

    fn from_str(text: &str) -> Result<Self, NotASecretKind> {
        match text {
            "refresh_token" => Ok(Self::RefreshToken),
            "access_token" => Ok(Self::AccessToken),
            other => other
                .strip_prefix("narrowed:")
                .map(|hash| Self::Narrowed(hash.to_owned()))
                .ok_or(NotASecretKind),
        }
    }
}

/// A sealed secret of a grant.
#[derive(Debug, Clone)]
pub struct SecretRow {
    /// The generation it is bound to.
    pub generation: u64,
    /// The ciphertext and its wrapped key.
    pub sealed: SealedSecret,
    /// The scopes the provider said it has.
    pub scopes: Option<ScopeSet>,
    /// When it ends, if known.
    pub expires_at: Option<Time>,
}

/// The columns of a grant; the last one is when a floor ended it, if one did.
macro_rules! grant_columns {
    () => {
        concat!(
            "g.id, g.org_id, g.user_id, g.connector, g.account_id, g.account_label, g.account_tenant, g.label, g.scopes, \
             g.state, g.state_reason, g.state_at, g.connected_epoch, g.generation, g.binding, g.access_expires_at, \
             g.has_refresh_token, g.connected_at, g.last_used_at, (SELECT max(f.at) ",
            $crate::store::grants::floors_over_grant!(),
            ")"
        )
    };
}
pub(super) use grant_columns;

/// The floors `f` that a grant `g` is under: what they cover of its epoch or an earlier one is dead.
macro_rules! floors_over_grant {
    () => {
        "FROM floors f WHERE f.org_id = g.org_id AND f.epoch >= g.connected_epoch \
         AND ((f.kind = 'all' AND f.id = '') OR (f.kind = 'user' AND f.id = g.user_id) \
           OR (f.kind = 'connector' AND f.id = g.connector) OR (f.kind = 'grant' AND f.id = g.id))"
    };
}
pub(super) use floors_over_grant;

impl Tx {
    /// One grant, floors applied.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn grant(&mut self, org: OrgId, grant: GrantId) -> Result<Option<Grant>, StoreError> {
        let row = self
            .row(
                concat!(
                    "SELECT ",
                    grant_columns!(),
                    " FROM grants g WHERE g.org_id = $1 AND g.id = $2"
                ),
                params![org, grant],
            )
            .await?;
        row.map(read_grant).transpose()
    }

    /// Grants of the org in the order of their ids, floors applied.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn grants(
        &mut self,
        org: OrgId,
        after: Option<GrantId>,
        limit: u64,
    ) -> Result<Vec<Grant>, StoreError> {
        let rows = self
            .rows(
                concat!(
                    "SELECT ",
                    grant_columns!(),
                    " FROM grants g WHERE g.org_id = $1 AND (CAST($2 AS TEXT) IS NULL OR g.id > $2) ORDER BY g.id LIMIT $3"
                ),
                params![org, after, limit],
            )
            .await?;
        rows.into_iter().map(read_grant).collect()
    }

    /// Grants of the org that have no tombstone, app by app; one that a revocation covers reads as revoked until it has one.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn unburied_grants(&mut self, org: OrgId, limit: u64) -> Result<Vec<Grant>, StoreError> {
        let rows = self
            .rows(
                concat!(
                    "SELECT ",
                    grant_columns!(),
                    " FROM grants g WHERE g.org_id = $1 AND g.state <> 'revoked' ORDER BY g.connector, g.id LIMIT $2"
                ),
                params![org, limit],
            )
            .await?;
        rows.into_iter().map(read_grant).collect()
    }

    /// Keeps a new grant.
    ///
    /// # Errors
    /// When the database is unavailable, or the person has a living grant for that account.
    pub async fn insert_grant(&mut self, grant: &Grant) -> Result<(), StoreError> {
        let (reason, at) = state_details(&grant.state);
        self.change(
            "grants",
            "INSERT INTO grants (org_id, id, user_id, connector, account_id, account_label, account_tenant, label,
               scopes, state, state_reason, state_at, connected_epoch, generation, binding, access_expires_at,
               has_refresh_token, connected_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
            params![
                grant.org,
                grant.id,
                grant.user,
                &grant.connector,
                grant.account.id.as_deref(),
                &grant.account.label,
                grant.account.tenant.as_deref(),
                grant.label.as_deref(),
                json(&grant.scopes),
                grant.state.as_str(),
                reason,
                at,
                grant.connected_epoch,
                grant.generation,
                &grant.binding,
                grant.access_expires_at,
                grant.has_refresh_token,
                grant.connected_at
            ],
        )
        .await
    }

    /// Writes what a reconnect, a refresh or a change of state changes; it is then looked at again.
    ///
    /// # Errors
    /// When the database is unavailable or there is no such grant.
    pub async fn update_grant(&mut self, grant: &Grant) -> Result<(), StoreError> {
        let (reason, at) = state_details(&grant.state);
        self.note_change(grant.org, grant.id, &grant.state, reason)
            .await?;
        self.change(
            "grants",
            "UPDATE grants SET scopes = $3, state = $4, state_reason = $5, state_at = $6, connected_epoch = $7,
               generation = $8, binding = $9, access_expires_at = $10, has_refresh_token = $11, account_label = $12,
               label = $13, renew_at = 0
             WHERE org_id = $1 AND id = $2",
            params![
                grant.org,
                grant.id,
                json(&grant.scopes),
                grant.state.as_str(),
                reason,
                at,
                grant.connected_epoch,
                grant.generation,
                &grant.binding,
                grant.access_expires_at,
                grant.has_refresh_token,
                &grant.account.label,
                grant.label.as_deref()
            ],
        )
        .await
    }

    /// A secret of a grant.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn secret(
        &mut self,
        org: OrgId,
        grant: GrantId,
        kind: &SecretKind,
    ) -> Result<Option<SecretRow>, StoreError> {
        let row = self
            .row(
                "SELECT generation, scopes, expires_at, odk, sealed, wrapped_dek FROM secrets
                 WHERE org_id = $1 AND row_id = $2 AND kind = $3",
                params![org, grant, kind.to_string()],
            )
            .await?;
        row.map(|row| read_secret(&mut row.fields("secrets"))).transpose()
    }

    /// Keeps a secret of a grant; the one before is gone.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn put_secret(
        &mut self,
        org: OrgId,
        grant: GrantId,
        kind: &SecretKind,
        secret: &SecretRow,
    ) -> Result<(), StoreError> {
        self.change(
            "secrets",
            "INSERT INTO secrets (org_id, row_id, kind, generation, odk, sealed, wrapped_dek, scopes, expires_at,
               created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (org_id, row_id, kind) DO UPDATE SET generation = $4, odk = $5, sealed = $6,
               wrapped_dek = $7, scopes = $8, expires_at = $9, created_at = $10",
            params![
                org,
                grant,
                kind.to_string(),
                secret.generation,
                secret.sealed.odk,
                secret.sealed.sealed.as_slice(),
                secret.sealed.wrapped_dek.as_slice(),
                secret.scopes.as_ref().map(json),
                secret.expires_at,
                self.now
            ],
        )
        .await
    }

    /// When a secret of a grant was kept.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn secret_made_at(
        &mut self,
        org: OrgId,
        grant: GrantId,
        kind: &SecretKind,
    ) -> Result<Option<Time>, StoreError> {
        let row = self
            .row(
                "SELECT created_at FROM secrets WHERE org_id = $1 AND row_id = $2 AND kind = $3",
                params![org, grant, kind.to_string()],
            )
            .await?;
        row.map_or(Ok(None), |row| row.fields("secrets").opt_time())
    }

    /// When the provider last gave tokens for a grant.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn renewed_at(&mut self, org: OrgId, grant: GrantId) -> Result<Option<Time>, StoreError> {
        let row = self
            .row(
                "SELECT max(created_at) FROM secrets
                 WHERE org_id = $1 AND row_id = $2 AND kind IN ('access_token', 'refresh_token')",
                params![org, grant],
            )
            .await?;
        row.map_or(Ok(None), |row| row.fields("secrets").opt_time())
    }

    /// Says when a grant is looked at again; `false` if its time has not come, because another replica was faster. One without a
    /// time is due.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn look_again(&mut self, org: OrgId, grant: GrantId, at: Time) -> Result<bool, StoreError> {
        let changed = self
            .execute(
                "UPDATE grants SET renew_at = $3
                 WHERE org_id = $1 AND id = $2 AND (renew_at IS NULL OR renew_at <= $4)",
                params![org, grant, at, self.now],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Destroys a grant's wrapped keys: what was sealed under them cannot be opened again.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn shred_secrets(&mut self, org: OrgId, grant: GrantId) -> Result<u64, StoreError> {
        self.execute(
            "DELETE FROM secrets WHERE org_id = $1 AND row_id = $2",
            params![org, grant],
        )
        .await
    }

    /// The kinds of secret a grant has.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn secrets_of(
        &mut self,
        org: OrgId,
        grant: GrantId,
    ) -> Result<Vec<(SecretKind, SecretRow)>, StoreError> {
        let rows = self
            .rows(
                "SELECT kind, generation, scopes, expires_at, odk, sealed, wrapped_dek FROM secrets
                 WHERE org_id = $1 AND row_id = $2 ORDER BY kind DESC",
                params![org, grant],
            )
            .await?;
        rows.into_iter()
            .map(|row| {
                let mut fields = row.fields("secrets");
                Ok((fields.parse()?, read_secret(&mut fields)?))
            })
            .collect()
    }

    /// Marks a token as ended: the provider killed it when it gave another one.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn expire_secret(
        &mut self,
        org: OrgId,
        grant: GrantId,
        kind: &SecretKind,
    ) -> Result<(), StoreError> {
        self.execute(
            "UPDATE secrets SET expires_at = 0 WHERE org_id = $1 AND row_id = $2 AND kind = $3",
            params![org, grant, kind.to_string()],
        )
        .await
        .map(drop)
    }
}

pub(super) fn read_secret(fields: &mut Fields) -> Result<SecretRow, StoreError> {
    Ok(SecretRow {
        generation: fields.count()?,
        scopes: fields.opt_json()?,
        expires_at: fields.opt_time()?,
        sealed: read_sealed(fields)?.ok_or_else(|| fields.bad())?,
    })
}

/// The same columns, all NULL if there is none.
pub(super) fn read_opt_secret(fields: &mut Fields) -> Result<Option<SecretRow>, StoreError> {
    let generation = fields.opt_int()?;
    let (scopes, expires_at, sealed) = (fields.opt_json()?, fields.opt_time()?, read_sealed(fields)?);
    let (Some(generation), Some(sealed)) = (generation, sealed) else {
        return Ok(None);
    };
    Ok(Some(SecretRow {
        generation: u64::try_from(generation).map_err(|_| fields.bad())?,
        scopes,
        expires_at,
        sealed,
    }))
}

fn state_details(state: &GrantState) -> (Option<&'static str>, Option<Time>) {
    match state {
        GrantState::Active => (None, None),
        GrantState::NeedsReconnect { reason } => (Some(reason.as_str()), None),
        GrantState::Quarantined { until } => (None, Some(*until)),
        GrantState::Revoked { at } => (None, Some(*at)),
    }
}

pub(super) fn read_grant(row: Row) -> Result<Grant, StoreError> {
    grant_of(&mut row.fields("grants"))
}

/// Reads the columns of a grant, floors applied.
pub(super) fn grant_of(fields: &mut Fields) -> Result<Grant, StoreError> {
    let mut grant = Grant {
        id: fields.parse()?,
        org: fields.parse()?,
        user: fields.parse()?,
        connector: fields.parse()?,
        account: Account {
            id: fields.opt_text()?,
            label: fields.text()?,
            email: None,
            tenant: fields.opt_text()?,
        },
        label: fields.opt_text()?,
        scopes: fields.json()?,
        state: read_state(fields)?,
        connected_epoch: fields.int()?,
        generation: fields.count()?,
        binding: fields.hash()?,
        access_expires_at: fields.opt_time()?,
        has_refresh_token: fields.flag()?,
        connected_at: fields.time()?,
        last_used_at: fields.opt_time()?,
    };
    // INVARIANT: a floor covering the grant ends it, whatever its own row still says.
    if let Some(at) = fields.opt_time()? {
        grant.state = GrantState::Revoked { at };
    }
    Ok(grant)
}

fn read_state(fields: &mut Fields) -> Result<GrantState, StoreError> {
    let (state, reason, at) = (fields.text()?, fields.opt_text()?, fields.opt_time()?);
    let reason = || match reason.as_deref() {
        Some("refresh_token_dead") => Some(ReconnectReason::RefreshTokenDead),
        Some("rotation_lost") => Some(ReconnectReason::RotationLost),
        Some("binding_changed") => Some(ReconnectReason::BindingChanged),
        Some("consent_required") => Some(ReconnectReason::ConsentRequired),
        Some("expired") => Some(ReconnectReason::Expired),
        _ => None,
    };
    match (state.as_str(), at) {
        ("active", _) => Some(GrantState::Active),
        ("needs_reconnect", _) => reason().map(|reason| GrantState::NeedsReconnect { reason }),
        ("quarantined", Some(until)) => Some(GrantState::Quarantined { until }),
        ("revoked", Some(at)) => Some(GrantState::Revoked { at }),
        _ => None,
    }
    .ok_or_else(|| fields.bad())
}
