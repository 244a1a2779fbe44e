//! An answer that names another account. Its tokens never become the grant's, whose own may still be good: they are ended at
//! the provider under a tombstone of their own. Whose they are is not known here, so whoever lives there may be spared.

use std::collections::HashMap;

use crate::{
    crypto::OdkHandle,
    domain::{
        GrantId, KeyId,
        connector::Connector,
        grant::{Account, Grant},
    },
    flows::{Deps, Refusal, upstream},
    release::seal,
    store::{Answered, SecretKind, SecretRow, Tx, UpstreamResult},
};

/// The data keys under which such an answer is sealed, and will be: no key service is asked while a transaction is open.
pub(super) struct Keys {
    opening: HashMap<KeyId, OdkHandle>,
    sealing: OdkHandle,
}

impl Keys {
    /// Unwraps them; `None` where the answer is the grant's own.
    ///
    /// # Errors
    /// When the database or the key service is unavailable.
    pub(super) async fn of(deps: &Deps, answered: &Answered) -> Result<Option<Self>, Refusal> {
        if !answered.is_foreign {
            return Ok(None);
        }
        let mut opening = HashMap::new();
        for row in answered.access.iter().chain(&answered.refresh) {
            let odk = row.sealed.odk;
            opening.insert(odk, deps.key_of(answered.org, odk).await?);
        }
        let sealing = deps.org_key(answered.org).await?;
        Ok(Some(Self { opening, sealing }))
    }
}

/// Hands the tokens of such an answer to the outbox; returns the tombstone they are under.
///
/// # Errors
/// When the database is unavailable.
pub(super) async fn bury(
    deps: &Deps,
    tx: &mut Tx,
    keys: &Keys,
    grant: &Grant,
    connector: &Connector,
    answered: &Answered,
    access: Option<&SecretRow>,
) -> Result<GrantId, Refusal> {
    let then = answered.asked_for(grant);
    let tombstone = Grant {
        account: somebody(),
        generation: answered.next_generation(),
        access_expires_at: access.and_then(|row| row.expires_at),
        has_refresh_token: answered.refresh.is_some(),
        ..upstream::tombstone(deps, &then, tx.now())?
    };
    tx.insert_grant(&tombstone).await?;
    let access = access.map(|row| (&answered.kind, row));
    let refresh = answered.refresh.as_ref();
    let refresh = refresh.map(|row| (&SecretKind::RefreshToken, row));
    for (kind, row) in access.into_iter().chain(refresh) {
        let opening = keys.opening.get(&row.sealed.odk);
        let opening = opening.ok_or(Refusal::StoreUnavailable(None))?;
        match seal::buried(opening, &keys.sealing, &then, &tombstone, kind, row) {
            Ok(moved) => tx.put_secret(grant.org, tombstone.id, kind, &moved).await?,
            Err(cause) => {
                tracing::error!(grant.id = %grant.id, cause = %cause, "a token that came for {} and is another account's cannot be ended at the provider", grant.id);
            }
        }
    }
    let result = if upstream::can_revoke(connector) {
        UpstreamResult::Pending
    } else {
        UpstreamResult::Unsupported
    };
    upstream::queue(tx, &tombstone, result).await?;
    Ok(tombstone.id)
}

/// The account of such tokens.
pub(super) fn somebody() -> Account {
    Account {
        id: None,
        label: "another account".to_owned(),
        email: None,
        tenant: None,
    }
}
