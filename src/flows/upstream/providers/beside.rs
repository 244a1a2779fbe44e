//! Who else could be cut off when a grant's tokens are ended at the provider: another grant of the same account that lives, or
//! is about to, whoever of the org connected it. That one is spared, and what could not be ended alone is told as unconfirmed,
//! never as revoked.
//!
//! What ends with a token is bounded by the account and the client, says `[revoke] kills`; the provider knows neither our
//! persons nor our connectors. So all connectors of its server count at which the org has the same client. `family` would be both too much,
//! where an org has a client for each of its connectors, and too little, as a file need not name one.

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
    let Some(connector) = connector.filter(|connector| upstream::ends_more_than_the_token(connector)) else {
        return Ok(None);
    };
    let mut tx = deps.store.read(row.org).await?;
    let Some(ended) = tx.grant(row.org, row.grant).await? else {
        return Ok(None);
    };
    let account = upstream::whose(connector, ended.account.id.as_deref());
    let connectors = upstream::of_one_client(deps, &mut tx, row.org, connector).await?;
    // The connects first: one that becomes a grant in between is then seen as the one or the other.
    let until = tx
        .connecting_beside(row.org, &connectors, ended.user, account)
        .await?;
    if tx
        .lives_beside(row.org, &connectors, ended.user, account, Some(ended.id))
        .await?
    {
        return Ok(Some(Spared::Living));
    }
    let now = tx.now();
    Ok(until.map(|until| Spared::UnderWay(until.since(now))))
}
