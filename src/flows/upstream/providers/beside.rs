//! Who else could be cut off when a grant's tokens are ended at the provider: another grant of the same account that lives, or
//! is about to. That one is spared, and what could not be ended alone is told as unconfirmed, never as revoked.

use std::time::Duration;

use crate::{
    flows::{Deps, Refusal, upstream},
    store::OutboxRow,
};

/// Who is spared, and therefore why the provider is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spared {
    /// A grant that lives.
    Living,
    /// A connect under way that may become one, for as long as it may.
    UnderWay(Duration),
}

/// Looks for whom to spare before the provider is asked; `None` if it may be. What comes back from the provider between
/// this look and the provider's answer is not seen.
///
/// # Errors
/// When the database is unavailable.
pub(super) async fn spared(deps: &Deps, row: &OutboxRow) -> Result<Option<Spared>, Refusal> {
    let connector = deps.catalogue.get(&row.connector);
    let ends_more = connector.is_some_and(|connector| upstream::ends_more_than_the_token(connector));
    if !ends_more {
        return Ok(None);
    }
    let mut tx = deps.store.read(row.org).await?;
    let Some(ended) = tx.grant(row.org, row.grant).await? else {
        return Ok(None);
    };
    // The connects first: one that becomes a grant in between is then seen as the one or the other.
    let connects = tx.connects_under_way(row.org, ended.user, &row.connector).await?;
    let grants = tx.grants_of(row.org, ended.user, Some(&row.connector)).await?;
    let now = tx.now();
    drop(tx);
    let account = ended.account.id.as_deref();
    if upstream::lives(&grants, account, Some(ended.id)) {
        return Ok(Some(Spared::Living));
    }
    let until = connects
        .iter()
        .filter(|session| {
            let other = session.account.as_ref().and_then(|account| account.id.as_deref());
            upstream::may_be_same(account, other)
        })
        .map(|session| session.expires_at)
        .max();
    // A session under a revocation bears 0 as its end, and one past its time becomes no grant any more.
    Ok(until
        .filter(|until| *until > now)
        .map(|until| Spared::UnderWay(until.since(now))))
}
