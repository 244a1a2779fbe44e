//! The only caller of unseal-for-use. A secret is opened against a live proof, never against a wish.

use crate::{
    crypto::{AadParts, CryptoError, OdkHandle, SealedSecret},
    domain::{
        OrgId,
        connector::ConnectorId,
        grant::{Grant, GrantState},
        secret::{AccessToken, ClientSecret, RefreshToken},
    },
    store::{ConnectorClientRow, Lease, SecretKind, SecretRow},
};

use super::gate::{AuditReceipt, DeadReceipt};

/// Why nothing was opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The receipt is older than five seconds.
    #[error("the receipt is dead")]
    Dead(#[from] DeadReceipt),
    /// The receipt came without a secret.
    #[error("no secret came with the receipt")]
    Nothing,
    /// The value does not open at its place: tampered with, moved, or of another generation.
    #[error("the sealed value does not open at its place")]
    Sealed(#[from] CryptoError),
    /// Not text.
    #[error("the secret is not text")]
    NotText,
}

/// Opens the access token that came with a live receipt.
///
/// # Errors
/// When the receipt is dead or the value does not open at its place.
pub fn access_token(
    receipt: &AuditReceipt,
    odk: &OdkHandle,
    grant: &Grant,
    kind: &SecretKind,
) -> Result<AccessToken, OpenError> {
    let row = receipt.secret()?.ok_or(OpenError::Nothing)?;
    unseal(odk, grant, kind, row).map(AccessToken::new)
}

/// Opens the refresh token for the holder of the grant's lease, to be sent to the provider's token endpoint only.
///
/// # Errors
/// When the value does not open at its place.
pub fn refresh_token(
    _lease: &Lease,
    odk: &OdkHandle,
    grant: &Grant,
    row: &SecretRow,
) -> Result<RefreshToken, OpenError> {
    unseal(odk, grant, &SecretKind::RefreshToken, row).map(RefreshToken::new)
}

/// Opens a secret of a grant that has ended, to be revoked at the provider and for nothing else.
///
/// # Errors
/// When the grant has not ended or the value does not open at its place.
pub fn for_revocation(
    odk: &OdkHandle,
    grant: &Grant,
    kind: &SecretKind,
    row: &SecretRow,
) -> Result<Ended, OpenError> {
    // INVARIANT: living grants are opened by the gate and the lease only.
    if !matches!(grant.state, GrantState::Revoked { .. }) {
        return Err(OpenError::Nothing);
    }
    let text = unseal(odk, grant, kind, row)?;
    Ok(match kind {
        SecretKind::RefreshToken => Ended::Refresh(RefreshToken::new(text)),
        SecretKind::AccessToken | SecretKind::Narrowed(_) => Ended::Access(AccessToken::new(text)),
    })
}

/// A token of a grant that has ended.
#[derive(Debug)]
pub enum Ended {
    /// RFC 6749 §1.5.
    Refresh(RefreshToken),
    /// RFC 6749 §1.4.
    Access(AccessToken),
}

/// Opens the org's client secret, to be sent to the connector's own endpoints only.
///
/// # Errors
/// When the value does not open at its place.
pub fn client_secret(
    odk: &OdkHandle,
    org: OrgId,
    client: &ConnectorClientRow,
    sealed: &SealedSecret,
) -> Result<ClientSecret, OpenError> {
    let plain = odk.open(&client_place(org, &client.connector, client.generation), sealed)?;
    std::str::from_utf8(&plain)
        .map(|text| ClientSecret::new(text.to_owned()))
        .map_err(|_| OpenError::NotText)
}

/// Where an org's client secret lives.
#[must_use]
pub fn client_place(org: OrgId, connector: &ConnectorId, generation: u64) -> AadParts<'_> {
    AadParts {
        org: Some(org),
        user: None,
        connector: Some(connector),
        account: "",
        row: connector.as_str(),
        kind: "client_secret",
        binding: None,
        generation,
    }
}

/// Opens a token renewed while a receipt lives, for the one resend after the provider called the first one dead.
///
/// # Errors
/// When the receipt is dead, or the renewed token is not a later generation of the one released.
pub fn renewed_access_token(
    receipt: &AuditReceipt,
    odk: &OdkHandle,
    grant: &Grant,
    row: &SecretRow,
) -> Result<AccessToken, OpenError> {
    let first = receipt.secret()?.ok_or(OpenError::Nothing)?;
    if receipt.decision().claims().grant != grant.id || row.generation <= first.generation {
        return Err(OpenError::Nothing);
    }
    unseal(odk, grant, &SecretKind::AccessToken, row).map(AccessToken::new)
}

/// Where a grant's secret lives: what it is sealed for and opens at.
#[must_use]
pub fn place<'a>(grant: &'a Grant, row: &'a str, kind: &'a str, generation: u64) -> AadParts<'a> {
    AadParts {
        org: Some(grant.org),
        user: Some(grant.user),
        connector: Some(&grant.connector),
        account: grant.account.id.as_deref().unwrap_or_default(),
        row,
        kind,
        binding: Some(&grant.binding),
        generation,
    }
}

pub(super) fn unseal(
    odk: &OdkHandle,
    grant: &Grant,
    kind: &SecretKind,
    row: &SecretRow,
) -> Result<String, OpenError> {
    let (id, kind) = (grant.id.to_string(), kind.to_string());
    let plain = odk.open(&place(grant, &id, &kind, row.generation), &row.sealed)?;
    std::str::from_utf8(&plain)
        .map(str::to_owned)
        .map_err(|_| OpenError::NotText)
}
