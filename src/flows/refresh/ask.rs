//! Asking the provider, and holding the lease while it thinks.

use std::{convert::Infallible, future::Future, time::Duration};

use crate::{
    connectors::oauth::{self, OAuthError},
    crypto::OdkHandle,
    domain::{ScopeSet, connector::Connector, grant::Grant},
    failpoints::Failpoint,
    flows::{Deps, uncut, upstream},
    release::{open, seal::Tokens},
    store::{LONGEST_LEASE, Lease, OrgRows, SecretRow, StoreError},
};

use super::Want;

/// Asks the provider for what is wanted.
#[expect(
    clippy::too_many_arguments,
    reason = "the one place where everything a request needs comes together"
)]
pub(super) async fn ask(
    deps: &Deps,
    grant: &Grant,
    connector: &Connector,
    lease: &Lease,
    key: &OdkHandle,
    refresh_token: &SecretRow,
    rows: &OrgRows,
    want: &Want,
) -> Result<Tokens, OAuthError> {
    let token = open::refresh_token(lease, key, grant, refresh_token)
        .map_err(|_| OAuthError::Definition("the sealed refresh token does not open"))?;
    Failpoint::RefreshOpened.reached();
    let client = upstream::client_among(deps, grant.org, &grant.connector, rows)
        .await
        .map_err(|_| OAuthError::Definition("the organisation's client cannot be had"))?;
    let actor = oauth::actor(connector, None).map_err(|_| OAuthError::Definition("no such actor"))?;
    let oauth = client.oauth(deps, connector);
    let scopes = match want {
        Want::Renewed { .. } => None,
        Want::Narrowed(scopes) => Some(scopes),
    };
    Failpoint::RefreshAsking.reached();
    let set = oauth.refresh(&token, scopes, actor).await?;
    Failpoint::RefreshReceived.reached();
    let proven = match scopes {
        // A narrowing counts only as far as the provider proves it (protocol §5), and the tokens that came are not
        // kept waiting for the proof.
        Some(asked) => tokio::time::timeout(PROOF_WITHIN, oauth.prove_narrowed(&set, asked))
            .await
            .ok()
            .and_then(Result::ok)
            .flatten()
            .or_else(|| Some(ScopeSet::default())),
        None => set.scopes.clone(),
    };
    // OpenID Connect Core §12.2 for id tokens: the same `sub`.
    let named = oauth.named(&set);
    Ok(Tokens {
        scopes: proven,
        is_foreign: named.is_some() && grant.account.id.is_some() && named != grant.account.id,
        ..Tokens::from(set)
    })
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
    let renew = async || -> Result<bool, StoreError> {
        let mut tx = deps.store.write(grant.org).await?;
        let ours = tx
            .renew_refresh(grant.org, grant.id, lease.fence, life(connector))
            .await?;
        tx.commit().await?;
        Ok(ours)
    };
    let mut held = Duration::ZERO;
    // Whoever hangs for longer than any such work takes loses the lease.
    while held < uncut::LONGEST {
        tokio::time::sleep(RENEW_EVERY).await;
        held += RENEW_EVERY;
        match renew().await {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                tracing::debug!(grant.id = %grant.id, cause = %error, "the lease of {} was not renewed", grant.id);
            }
        }
    }
    std::future::pending().await
}

/// How long a lease is honoured without being renewed.
pub(super) fn life(connector: &Connector) -> Duration {
    let refresh = &connector.refresh;
    if refresh.rotates && Duration::from_secs(refresh.old_refresh_valid_s.into()) < GRACE {
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
/// Two renewals may fail before a lease ends.
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// How long the provider may take to prove a narrowing.
const PROOF_WITHIN: Duration = Duration::from_secs(10);
