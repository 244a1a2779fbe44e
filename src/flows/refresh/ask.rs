//! Asking the provider, and holding the lease while it thinks.

use std::{convert::Infallible, future::Future, time::Duration};

use tokio::time::Instant;

use crate::{
    connectors::oauth::{self, Leftover, OAuth, OAuthError},
    crypto::OdkHandle,
    domain::{ScopeSet, connector::Connector, grant::Grant, secret::RefreshToken},
    egress::BeginBy,
    failpoints::Failpoint,
    flows::{Deps, uncut::PROVED_WITHIN},
    release::{open, seal::Tokens},
    store::{LONGEST_LEASE, Lease, SecretRow, StoreError},
};

use super::Want;

/// The refresh token, for whoever holds the lease.
pub(super) fn opened(
    lease: &Lease,
    key: &OdkHandle,
    grant: &Grant,
    sealed: &SecretRow,
) -> Result<RefreshToken, OAuthError> {
    let token = open::refresh_token(lease, key, grant, sealed)
        .map_err(|_| OAuthError::Definition("the sealed refresh token does not open"))?;
    Failpoint::RefreshOpened.reached();
    Ok(token)
}

/// Asks the provider for what is wanted, by that moment or not at all. What comes may be nothing but a new refresh token.
pub(super) async fn ask(
    oauth: &OAuth<'_>,
    grant: &Grant,
    connector: &Connector,
    token: &RefreshToken,
    want: &Want,
    begin_by: BeginBy,
) -> Result<Tokens, OAuthError> {
    let actor = oauth::actor(connector, None).map_err(|_| OAuthError::Definition("no such actor"))?;
    let scopes = match want {
        Want::Renewed { .. } => None,
        Want::Narrowed(scopes) => Some(scopes),
    };
    Failpoint::RefreshAsking.reached();
    let set = match oauth.refresh(token, scopes, actor, Some(begin_by)).await {
        Err(OAuthError::Leftover { why, left }) => {
            Failpoint::RefreshReceived.reached();
            return Ok(only_rotated(oauth, grant, why, *left));
        }
        answered => answered?,
    };
    Failpoint::RefreshReceived.reached();
    let proven = match scopes {
        // A narrowing counts only as far as the provider proves it (protocol §5), and the tokens that came are not
        // kept waiting for the proof.
        Some(asked) => tokio::time::timeout(PROVED_WITHIN, oauth.prove_narrowed(&set, asked))
            .await
            .ok()
            .and_then(Result::ok)
            .flatten()
            .or_else(|| Some(ScopeSet::default())),
        None => set.scopes.clone(),
    };
    Ok(Tokens {
        scopes: proven,
        is_foreign: is_foreign(grant, oauth.named(&set).as_deref()),
        ..Tokens::from(set)
    })
}

/// The refresh token of an answer whose access token cannot be used: the one before it may be spent (I3).
fn only_rotated(oauth: &OAuth<'_>, grant: &Grant, why: &'static str, left: Leftover) -> Tokens {
    let is_foreign = is_foreign(grant, oauth.named_beside(&left).as_deref());
    tracing::warn!(grant.id = %grant.id, connector.id = %grant.connector, cause = why,
        "the provider did not renew the token of {}; the refresh token that came is to be kept", grant.id);
    Tokens {
        is_foreign,
        ..Tokens::from(left)
    }
}

/// Whether the answer names another account than the grant's. OpenID Connect Core §12.2 for id tokens: the same `sub`.
fn is_foreign(grant: &Grant, named: Option<&str>) -> bool {
    named
        .zip(grant.account.id.as_deref())
        .is_some_and(|(named, ours)| named != ours)
}

/// Works while the lease is renewed, so that no sibling takes the holder for dead.
pub(super) async fn holding<T>(
    deps: &Deps,
    grant: &Grant,
    connector: &Connector,
    lease: &Lease,
    work: impl Future<Output = T>,
) -> T {
    tokio::select! {
        done = work => done,
        never = renewing(deps, grant, connector, lease) => match never {},
    }
}

async fn renewing(deps: &Deps, grant: &Grant, connector: &Connector, lease: &Lease) -> Infallible {
    let renew = || async {
        let mut tx = deps.store.write(grant.org).await?;
        let ours = tx
            .renew_refresh(grant.org, grant.id, lease.fence, life(connector))
            .await?;
        tx.commit().await?;
        Ok::<_, StoreError>(ours)
    };
    let began = Instant::now();
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        let left = HELD_AT_MOST.saturating_sub(began.elapsed());
        if left.is_zero() {
            break;
        }
        match tokio::time::timeout(left.min(LIFE), deps.store.retry(renew)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => break,
            Ok(Err(error)) => {
                tracing::debug!(grant.id = %grant.id, cause = %error, "the lease of {} was not renewed", grant.id);
            }
            Err(_) => {
                tracing::debug!(grant.id = %grant.id, "the lease of {} was not renewed in time", grant.id);
            }
        }
    }
    std::future::pending().await
}

/// How long a lease is honoured without being renewed.
pub(super) fn life(connector: &Connector) -> Duration {
    let refresh = &connector.refresh;
    if refresh.rotates && refresh.grace().unwrap_or_default() < GRACE {
        // Where the old refresh token is spent, asking again soon saves nothing, and its holder may have the answer.
        LIFE_WITHOUT_GRACE
    } else {
        LIFE
    }
}

/// I3: where a provider takes the old refresh token at least this long, no rotation is lost.
const GRACE: Duration = Duration::from_secs(60);
/// Well below [`GRACE`], also after the longest wait for an answer ([`crate::egress`] gives up after 30 s).
const LIFE: Duration = Duration::from_secs(10);
/// As long as whoever holds an answer may need to keep it.
const LIFE_WITHOUT_GRACE: Duration = LONGEST_LEASE;
/// Whoever hangs for longer loses the lease while there is time left to ask again (I3).
const HELD_AT_MOST: Duration = Duration::from_secs(45);
/// Two renewals may fail at once before a lease ends.
const RENEW_EVERY: Duration = Duration::from_secs(3);
