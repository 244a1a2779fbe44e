//! A renewed token that came too late: the grant was reconnected, ended, or asked for by another holder of the lease.
//!
//! The tokens go to the outbox under a tombstone of their own. They are not sent there when the provider, told to end
//! them, would end more: whoever is connected now must not be cut off by an answer nobody waited for. That is recorded.

use crate::{
    crypto::OdkHandle,
    domain::{
        connector::Connector,
        entry::{EntryDraft, EntryType},
        grant::{Grant, GrantState},
    },
    flows::{Deps, Refusal, record, upstream},
    release::seal::Tokens,
    store::Tx,
};

use super::foreign;

/// Ends what cannot be kept, as far as that harms nobody, and commits. `current` is the grant as it is now.
pub(super) async fn discard(
    deps: &Deps,
    mut tx: Tx,
    grant: &Grant,
    current: &Grant,
    connector: &Connector,
    key: &OdkHandle,
    answer: &Tokens,
) -> Result<(), Refusal> {
    let now = tx.now();
    let mut draft = EntryDraft {
        user: Some(grant.user),
        grant: Some(grant.id),
        connector: Some(grant.connector.clone()),
        outcome: Some("discarded".to_owned()),
        ..EntryDraft::default()
    };
    let lives = !matches!(current.state, GrantState::Revoked { .. });
    // A sibling that asked with the same refresh token may have been given the very same tokens, and keeps them.
    let kept_by_a_sibling =
        current.connected_epoch == grant.connected_epoch && current.generation > grant.generation;
    if lives && (kept_by_a_sibling || upstream::ends_more_than_the_token(connector)) {
        draft.reason = Some(upstream::NOT_ALONE.to_owned());
        tracing::warn!(grant.id = %grant.id, connector.id = %grant.connector,
            "the renewed token of {} came too late; revoking it would end the grant that lives", grant.id);
    } else {
        let tombstone = Grant {
            generation: 1,
            access_expires_at: answer.expires_at,
            has_refresh_token: answer.refresh_token.is_some(),
            account: if answer.is_foreign {
                foreign::somebody()
            } else {
                grant.account.clone()
            },
            ..upstream::tombstone(deps, grant, now)?
        };
        upstream::keep_apart(&mut tx, key, &tombstone, connector, answer).await?;
        draft.reason = Some("came_too_late".to_owned());
        // The entry of the upstream revocation names the tombstone.
        draft.correlation = Some(tombstone.id.to_string());
        tracing::warn!(grant.id = %grant.id, tombstone.id = %tombstone.id,
            "the renewed token of {} came too late and is to be revoked", grant.id);
    }
    tx.append_entry(grant.org, record::open(deps, EntryType::Refresh, draft)?)
        .await?;
    Ok(tx.commit().await?)
}
