//! The tokens a reconnect replaces: ended at the provider under a tombstone of their own, unless ending them could end
//! what replaces them. Either way our copy goes, and an entry says which it was.

use std::collections::{HashMap, hash_map::Entry};

use crate::{
    crypto::OdkHandle,
    domain::{
        KeyId,
        connector::Connector,
        entry::{EntryDraft, EntryType},
        grant::Grant,
    },
    flows::{Deps, Refusal, record, upstream},
    release::seal,
    store::{NewEntry, Tx, UpstreamResult},
};

/// The data keys a grant's secrets are sealed under, unwrapped: no key service is asked while a transaction is open.
pub(super) struct Keys(HashMap<KeyId, OdkHandle>);

impl Keys {
    /// Unwraps the keys of what `grant` holds now.
    ///
    /// # Errors
    /// When the database or the key service is unavailable.
    pub(super) async fn of(deps: &Deps, grant: Option<&Grant>) -> Result<Self, Refusal> {
        let mut keys = HashMap::new();
        let Some(grant) = grant else {
            return Ok(Self(keys));
        };
        let held = deps
            .store
            .read(grant.org)
            .await?
            .secrets_of(grant.org, grant.id)
            .await?;
        for (_, secret) in held {
            let odk = secret.sealed.odk;
            if let Entry::Vacant(missing) = keys.entry(odk) {
                missing.insert(deps.key_of(grant.org, odk).await?);
            }
        }
        Ok(Self(keys))
    }
}

/// Takes everything `grant` holds away from it; the entry returned belongs into the same transaction.
///
/// # Errors
/// When a secret came meanwhile whose key is not at hand: nothing may be committed, another try will do.
pub(super) async fn retire(
    deps: &Deps,
    tx: &mut Tx,
    grant: &Grant,
    connector: &Connector,
    keys: &Keys,
    sealing: &OdkHandle,
) -> Result<Option<NewEntry>, Refusal> {
    let held = tx.secrets_of(grant.org, grant.id).await?;
    if held.is_empty() {
        return Ok(None);
    }
    tx.shred_secrets(grant.org, grant.id).await?;
    let mut draft = EntryDraft {
        user: Some(grant.user),
        grant: Some(grant.id),
        generation: Some(grant.generation),
        connector: Some(grant.connector.clone()),
        outcome: Some("discarded".to_owned()),
        ..EntryDraft::default()
    };
    if !upstream::can_revoke(connector) {
        draft.reason = Some(UpstreamResult::Unsupported.as_str().to_owned());
    } else if upstream::ends_more_than_the_token(connector) {
        draft.reason = Some(upstream::NOT_ALONE.to_owned());
    } else {
        let tombstone = upstream::tombstone(deps, grant, tx.now())?;
        tx.insert_grant(&tombstone).await?;
        for (kind, secret) in &held {
            let opening = keys
                .0
                .get(&secret.sealed.odk)
                .ok_or(Refusal::StoreUnavailable(None))?;
            match seal::buried(opening, sealing, grant, &tombstone, kind, secret) {
                Ok(moved) => tx.put_secret(grant.org, tombstone.id, kind, &moved).await?,
                // A grant whose secrets were tampered with is mended by connecting it again, not held up by them.
                Err(cause) => {
                    tracing::error!(grant.id = %grant.id, cause = %cause, "a replaced token of {} cannot be ended at the provider", grant.id);
                }
            }
        }
        upstream::queue(tx, &tombstone, UpstreamResult::Pending).await?;
        draft.reason = Some("superseded".to_owned());
        // The entry of the upstream revocation names the tombstone.
        draft.correlation = Some(tombstone.id.to_string());
    }
    record::open(deps, EntryType::Connect, draft).map(Some)
}
