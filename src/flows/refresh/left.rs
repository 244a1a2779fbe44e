//! Questions whose asker fell silent: its lease ended, and it said neither what was answered nor that nothing was. It may be
//! dead, or have the answer in its spool and no database.
//!
//! While the provider takes the old refresh token again they are asked again at once: what comes of that is as good as what may
//! be spooled. After that a provider that sees the old one may end every token there is, those in the spool as well. So the
//! asker is given time to come back and enter what it has, however long nobody had the database; and if it does not, they are
//! asked again all the same, for the old token is all that is known then.

use std::time::Duration;

use crate::{
    domain::{Time, connector::Connector, grant::Grant},
    flows::{Deps, Refusal},
    store::{StoreError, Tx},
};

use super::ask;

/// A question that may be asked again, though its asker may have the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    asked: Time,
    ended: Time,
    /// Until when the request has to begin, by the time since the boot.
    pub(super) begin_by: Duration,
}

impl Left {
    /// Nothing came of asking again: it is as open as it was before the lease of this fence.
    pub(super) async fn stays(self, tx: &mut Tx, grant: &Grant, fence: i64) -> Result<(), StoreError> {
        tx.leave_refresh(grant.org, grant.id, fence, self.asked, self.ended)
            .await
    }
}

/// The question about a grant that was left, if there is one and it may be asked now; else it is put off, and refused.
pub(super) async fn left(deps: &Deps, grant: &Grant, connector: &Connector) -> Result<Option<Left>, Refusal> {
    // On SQLite whoever asked has this very spool, which was looked into before.
    if deps.store.is_alone() || !connector.refresh.rotates {
        return Ok(None);
    }
    let since_boot = deps.clock.since_boot();
    let mut tx = deps.store.read(grant.org).await?;
    let (found, now) = (tx.refresh_left(grant.org, grant.id).await?, tx.now());
    drop(tx);
    let Some((fence, asked, ended)) = found else {
        return Ok(None);
    };
    let grace = connector.refresh.grace().unwrap_or_default();
    let rest = grace.saturating_sub(now.since(asked));
    if !rest.is_zero() {
        return Ok(Some(Left {
            asked,
            ended,
            begin_by: since_boot + rest,
        }));
    }
    let put_off = deps.store.retry(|| async {
        let mut tx = deps.store.write(grant.org).await?;
        let not_before = tx.now() + SILENT.saturating_sub(ask::life(connector));
        tx.put_off_refresh(grant.org, grant.id, fence, not_before).await?;
        tx.commit().await
    });
    put_off.await?;
    tracing::warn!(grant.id = %grant.id, connector.id = %grant.connector,
        "whoever asked for {} may have the answer in its spool and is waited for", grant.id);
    Err(Refusal::ProviderUnavailable)
}

/// How long whoever asked may be silent in all: for as long as its lease lives, and then from when that is found to have ended.
const SILENT: Duration = Duration::from_secs(90);
