//! Answers that came while the database was gone: kept in the spool until it holds what came of them.

use crate::{
    connectors::Catalogue,
    domain::{
        GrantId,
        connector::Connector,
        grant::{Grant, GrantState},
    },
    failpoints::Failpoint,
    flows::{Deps, Refusal},
    release::{
        open::{self, Ended},
        seal::Tokens,
    },
    store::{Answered, SecretKind, SpoolError},
};

use super::keep::{self, Entered};

/// Enters every spooled answer; returns how many. One that has to wait does not hold up the others.
pub async fn drain(deps: &Deps) -> usize {
    let mut drained = 0;
    for grant in deps.spool.grants() {
        match drain_grant(deps, grant).await {
            Ok(Drained::Entered(count)) => drained += count,
            Ok(Drained::Waits) | Err(Refusal::Sealed) => {}
            Err(refusal) => {
                tracing::warn!(grant.id = %grant, cause = %refusal, "the spooled answer for {grant} has to wait");
            }
        }
    }
    drained
}

/// What became of a grant's spooled answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drained {
    /// So many were entered, and there are no more.
    Entered(usize),
    /// One waits: somebody else is asking for the grant.
    Waits,
}

/// Enters the spooled answers of one grant.
///
/// # Errors
/// When the database or the key service is unavailable, or the org is sealed: they wait in their files.
pub(super) async fn drain_grant(deps: &Deps, id: GrantId) -> Result<Drained, Refusal> {
    let waiting = deps.spool.of(id).await.map_err(|error| {
        tracing::error!(grant.id = %id, cause = %error, "the spooled answer for {id} cannot be read");
        Refusal::StoreUnavailable(None)
    })?;
    Failpoint::SpoolRead.reached();
    let count = waiting.len();
    for answered in waiting {
        if !enter(deps, &answered).await? {
            return Ok(Drained::Waits);
        }
    }
    Ok(Drained::Entered(count))
}

/// Whether it is entered, or ended where it came to nothing.
async fn enter(deps: &Deps, answered: &Answered) -> Result<bool, Refusal> {
    // Beside an older database it may be the only one that is good.
    if deps.store.is_sealed(answered.org) {
        return Err(Refusal::Sealed);
    }
    let found = deps
        .store
        .read(answered.org)
        .await?
        .grant(answered.org, answered.grant)
        .await?;
    let Some((grant, connector)) = found.and_then(|grant| known(&deps.catalogue, grant)) else {
        // Another database, or a connector that was taken away: nobody here can even end these tokens.
        tracing::error!(grant.id = %answered.grant, "nothing here knows {}: its spooled answer is put aside", answered.grant);
        tell(deps.spool.set_aside(answered).await);
        return Ok(true);
    };
    Failpoint::SpoolFound.reached();
    let entered = deps
        .store
        .retry(|| keep::enter(deps, &grant, connector, answered, Some("spooled")))
        .await?;
    match entered {
        Entered::Void => discard(deps, &grant, connector, answered).await?,
        Entered::Waits => return Ok(false),
        Entered::Kept | Entered::Unproven | Entered::Quarantined | Entered::Revoked { .. } => {}
    }
    Failpoint::SpoolEntered.reached();
    tell(deps.spool.remove(answered).await);
    Failpoint::SpoolRemoved.reached();
    Ok(true)
}

fn known(catalogue: &Catalogue, grant: Grant) -> Option<(Grant, &Connector)> {
    let connector = catalogue.get(&grant.connector)?;
    Some((grant, connector))
}

/// Ends the tokens of an answer that came to nothing.
async fn discard(
    deps: &Deps,
    grant: &Grant,
    connector: &Connector,
    answered: &Answered,
) -> Result<(), Refusal> {
    let then = answered.asked_for(grant);
    // Opened to be ended and for nothing else.
    let ended = Grant {
        state: GrantState::Revoked { at: deps.clock.now() },
        ..then.clone()
    };
    let Some(row) = answered.access.as_ref().or(answered.refresh.as_ref()) else {
        return Ok(());
    };
    let key = deps.key_of(grant.org, row.sealed.odk).await?;
    let open = |kind, row| open::for_revocation(&key, &ended, kind, row).map_err(|_| Refusal::KeyUnavailable);
    let access_token = match &answered.access {
        None => None,
        Some(row) => match open(&answered.kind, row)? {
            Ended::Access(token) => Some(token),
            Ended::Refresh(_) => return Err(Refusal::KeyUnavailable),
        },
    };
    let refresh_token = match &answered.refresh {
        None => None,
        Some(row) => match open(&SecretKind::RefreshToken, row)? {
            Ended::Refresh(token) => Some(token),
            Ended::Access(_) => return Err(Refusal::KeyUnavailable),
        },
    };
    let answer = Tokens {
        access_token,
        refresh_token,
        scopes: answered.access.as_ref().and_then(|row| row.scopes.clone()),
        expires_at: answered.access.as_ref().and_then(|row| row.expires_at),
        is_foreign: answered.is_foreign,
    };
    deps.store
        .retry(|| keep::discard(deps, &then, connector, &answer))
        .await
}

/// The database holds what came of it; a file that stays is compared again at the next start.
fn tell(done: Result<(), SpoolError>) {
    if let Err(error) = done {
        tracing::warn!(cause = %error, "a spooled answer stays behind");
    }
}
