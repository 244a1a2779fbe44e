//! Ending tokens at the provider: queued, retried, reported per grant. Our own copy is destroyed on the final answer.

use std::{sync::Arc, time::Duration};

use crate::{
    connectors::oauth::{Client, OAuth, RevokeOutcome, TokenToEnd},
    crypto::OdkHandle,
    domain::{
        GrantId, OrgId, Time,
        connector::{Connector, ConnectorId, RevokeHow, RevokeKills},
        entry::{EntryDraft, EntryType},
        grant::{Grant, GrantState},
        secret::ClientSecret,
    },
    release::{
        open::{self, Ended},
        seal::{self, Tokens},
    },
    store::{ConnectStatus, OutboxRow, RevocationRow, SecretKind, SecretRow, Tx, UpstreamResult},
};

use super::{Deps, Refusal, connect::discard, record};

/// The org's client at a connector, its secret opened.
///
/// # Errors
/// When the org has none, or its key is unavailable.
pub async fn client(deps: &Deps, org: OrgId, connector: &ConnectorId) -> Result<OrgClient, Refusal> {
    let row = deps
        .store
        .read(org)
        .await?
        .connector_client(org, connector)
        .await?
        .ok_or(Refusal::NotFound)?;
    let secret = match &row.secret {
        None => None,
        Some(sealed) => {
            let key = deps.key_of(org, sealed.odk).await?;
            Some(open::client_secret(&key, org, &row, sealed).map_err(|_| Refusal::KeyUnavailable)?)
        }
    };
    Ok(OrgClient {
        id: row.client_id,
        secret,
    })
}

/// The org's client at a connector.
#[derive(Debug)]
pub struct OrgClient {
    /// RFC 6749 §2.2.
    pub id: String,
    secret: Option<ClientSecret>,
}

impl OrgClient {
    /// Speaks to the connector's authorization server as this client.
    #[must_use]
    pub fn oauth<'a>(&'a self, deps: &'a Deps, connector: &'a Connector) -> OAuth<'a> {
        let client = Client {
            id: &self.id,
            secret: self.secret.as_ref(),
        };
        OAuth::new(&deps.egress, &*deps.clock, connector, client)
    }
}

/// Whether the provider ends tokens at all.
#[must_use]
pub fn can_revoke(connector: &Connector) -> bool {
    connector.revoke.how != RevokeHow::None
}

/// The place in the outbox of a grant that ended now.
pub(super) fn outbox_row(grant: &Grant, now: Time) -> OutboxRow {
    OutboxRow {
        org: grant.org,
        grant: grant.id,
        revocation: None,
        connector: grant.connector.clone(),
        due_at: now,
        give_up_at: now + GIVE_UP,
        attempts: 0,
        result: UpstreamResult::Pending,
    }
}

/// Keeps tokens for which there is no living grant under a grant of their own; one that has ended is queued.
///
/// # Errors
/// When the key or the database is unavailable.
pub async fn keep_apart(
    tx: &mut Tx,
    key: &OdkHandle,
    grant: &Grant,
    connector: &Connector,
    answer: &Tokens,
) -> Result<(), Refusal> {
    tx.insert_grant(grant).await?;
    let kind = SecretKind::AccessToken;
    let access = seal::access_token(
        key,
        grant,
        &kind,
        grant.generation,
        &answer.access_token,
        None,
        answer.expires_at,
    )?;
    tx.put_secret(grant.org, grant.id, &kind, &access).await?;
    if let Some(token) = &answer.refresh_token {
        let refresh = seal::refresh_token(key, grant, grant.generation, token)?;
        tx.put_secret(grant.org, grant.id, &SecretKind::RefreshToken, &refresh)
            .await?;
    }
    if matches!(grant.state, GrantState::Revoked { .. }) {
        let can = can_revoke(connector);
        let result = if can {
            UpstreamResult::Pending
        } else {
            UpstreamResult::Unsupported
        };
        queue(tx, grant, result).await?;
    }
    Ok(())
}

/// Writes what becomes of a tombstone's tokens at the provider; unless it is still to be asked, our copy is destroyed.
///
/// # Errors
/// When the database is unavailable.
pub async fn queue(tx: &mut Tx, tombstone: &Grant, result: UpstreamResult) -> Result<(), Refusal> {
    let outbox = OutboxRow {
        result,
        ..outbox_row(tombstone, tx.now())
    };
    tx.put_outbox(&outbox).await?;
    if result != UpstreamResult::Pending {
        tx.shred_secrets(tombstone.org, tombstone.id).await?;
    }
    Ok(())
}

/// A grant of its own for tokens that `grant` no longer holds: it never lives, and its tokens open only to be ended.
///
/// # Errors
/// When the generator fails.
pub fn tombstone(deps: &Deps, grant: &Grant, now: Time) -> Result<Grant, Refusal> {
    Ok(Grant {
        id: GrantId::new(now, &*deps.random)?,
        state: GrantState::Revoked { at: now },
        connected_at: now,
        ..grant.clone()
    })
}

/// Whether ending one token could end others of the same person too: what the connector's file does not rule out is
/// assumed.
#[must_use]
pub fn ends_more_than_the_token(connector: &Connector) -> bool {
    can_revoke(connector) && connector.revoke.kills != Some(RevokeKills::Token)
}

/// Writes tombstones for what was revoked and queues every grant; returns how many were queued.
/// Writes tombstones for what was revoked and queues every grant, and ends the connects that were under way; returns how
/// many grants were queued.
///
/// # Errors
/// When the database is unavailable; what was done stays done, the rest follows on the next call.
pub async fn fan_out(deps: &Deps) -> Result<usize, Refusal> {
    let mut queued = 0;
    let pending = deps.store.due().await?.revocations(BATCH).await?;
    for (org, id) in pending {
        let Some(revocation) = deps.store.read(org).await?.revocation(org, id).await? else {
            continue;
        };
        match fan_out_one(deps, org, &revocation).await {
            Ok(buried) => queued += buried,
            // What cannot be done yet must not hold up the other revocations.
            Err(refusal) => {
                tracing::warn!(revocation.id = %id, cause = %refusal, "the fan-out of {id} has to wait");
            }
        }
    }
    Ok(queued)
}

async fn fan_out_one(deps: &Deps, org: OrgId, revocation: &RevocationRow) -> Result<usize, Refusal> {
    let mut queued = 0;
    loop {
        let buried = bury(deps, org, revocation).await?;
        queued += buried;
        if buried < usize::try_from(CHUNK).unwrap_or(usize::MAX) {
            break;
        }
    }
    if end_connects(deps, org, revocation).await? {
        let mut tx = deps.store.write(org).await?;
        tx.finish_fan_out(org, revocation.id).await?;
        tx.commit().await?;
    }
    Ok(queued)
}

/// Buries some of a revocation's grants; returns how many.
async fn bury(deps: &Deps, org: OrgId, revocation: &RevocationRow) -> Result<usize, Refusal> {
    let mut tx = deps.store.write(org).await?;
    let grants = tx.grants_to_bury(org, revocation, CHUNK).await?;
    for grant in &grants {
        let can = deps
            .catalogue
            .get(&grant.connector)
            .is_some_and(|connector| can_revoke(connector));
        let mut outbox = outbox_row(grant, tx.now());
        outbox.revocation = Some(revocation.id);
        if !can {
            outbox.result = UpstreamResult::Unsupported;
        }
        tx.bury_grant(grant, &outbox).await?;
        if !can {
            tx.shred_secrets(org, grant.id).await?;
        }
    }
    tx.commit().await?;
    Ok(grants.len())
}

/// Ends the connects a revocation covers: tokens that wait for their person go to the outbox. `false` while some have to
/// wait.
async fn end_connects(deps: &Deps, org: OrgId, revocation: &RevocationRow) -> Result<bool, Refusal> {
    let mut waiting = false;
    loop {
        let connects = deps
            .store
            .read(org)
            .await?
            .connects_to_end(org, revocation, CHUNK)
            .await?;
        let mut ended = 0;
        for (id, status) in connects {
            // Its tokens are on their way here: they are ended once they have come.
            if status == ConnectStatus::Exchanging {
                waiting = true;
            } else {
                ended += discard::overdue(deps, org, id).await?;
            }
        }
        if ended == 0 {
            return Ok(!waiting);
        }
    }
}

/// Asks the providers to end what is due; returns how many got a final answer.
///
/// # Errors
/// When the database is unavailable.
pub async fn drain(deps: &Arc<Deps>) -> Result<usize, Refusal> {
    let due = deps.store.due().await?.outbox(BATCH).await?;
    let mut tasks = tokio::task::JoinSet::new();
    for (org, grant) in due {
        let deps = Arc::clone(deps);
        tasks.spawn(async move { settle(&deps, org, grant).await });
    }
    let mut finished = 0;
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok(Ok(true)) => finished += 1,
            Ok(Ok(false)) => {}
            Ok(Err(refusal)) => tracing::warn!(cause = %refusal, "an upstream revocation has to wait"),
            Err(_) => tracing::error!("an upstream revocation stopped unexpectedly"),
        }
    }
    Ok(finished)
}

/// One try; `true` if the answer is final.
async fn settle(deps: &Deps, org: OrgId, grant: GrantId) -> Result<bool, Refusal> {
    let Some(mut row) = deps.store.read(org).await?.outbox(org, grant).await? else {
        return Ok(false);
    };
    let asked = newest(deps, &row).await?;
    let answer = ask(deps, &row).await;
    let now = deps.clock.now();
    row.attempts += 1;
    row.result = match answer {
        Ok(RevokeOutcome::Revoked) => UpstreamResult::Revoked,
        Ok(RevokeOutcome::Unsupported) => UpstreamResult::Unsupported,
        Ok(RevokeOutcome::Refused { .. }) => UpstreamResult::Unconfirmed,
        Ok(RevokeOutcome::Retry { .. }) | Err(_) if now >= row.give_up_at => UpstreamResult::Unconfirmed,
        Ok(RevokeOutcome::Retry { .. }) | Err(_) => UpstreamResult::Pending,
    };
    row.due_at = now + backoff(row.attempts);
    let last = row.result != UpstreamResult::Pending;
    let mut draft = EntryDraft {
        grant: Some(row.grant),
        connector: Some(row.connector.clone()),
        outcome: Some(row.result.as_str().to_owned()),
        correlation: row.revocation.map(|id| id.to_string()),
        ..EntryDraft::default()
    };
    let mut tx = deps.store.write(row.org).await?;
    // INVARIANT: a token that came while the provider was asked is asked about too, before anything is final.
    let held = tx.secrets_of(row.org, row.grant).await?;
    let newer = |secret: &(SecretKind, SecretRow)| asked.is_some_and(|asked| secret.1.generation > asked);
    let last = if last && held.iter().any(newer) {
        row.result = UpstreamResult::Pending;
        row.due_at = now;
        false
    } else {
        last
    };
    tx.put_outbox(&row).await?;
    if last {
        draft.user = tx.grant(row.org, row.grant).await?.map(|grant| grant.user);
        tx.shred_secrets(row.org, row.grant).await?;
        tx.append_entry(row.org, record::open(deps, EntryType::UpstreamRevoke, draft)?)
            .await?;
    }
    tx.commit().await?;
    Ok(last)
}

/// The newest generation among the tokens the provider is about to be asked to end.
async fn newest(deps: &Deps, row: &OutboxRow) -> Result<Option<u64>, Refusal> {
    let held = deps
        .store
        .read(row.org)
        .await?
        .secrets_of(row.org, row.grant)
        .await?;
    Ok(held.iter().map(|(_, secret)| secret.generation).max())
}

/// The refresh token first: it is the one that could make more.
async fn ask(deps: &Deps, row: &OutboxRow) -> Result<RevokeOutcome, Refusal> {
    let mut tx = deps.store.read(row.org).await?;
    let grant = tx.grant(row.org, row.grant).await?.ok_or(Refusal::NotFound)?;
    let secrets = tx.secrets_of(row.org, row.grant).await?;
    drop(tx);
    let connector = deps.catalogue.get(&row.connector).ok_or(Refusal::NotFound)?;
    let client = client(deps, row.org, &row.connector).await?;
    let (refresh, access): (Vec<_>, Vec<_>) = secrets
        .into_iter()
        .partition(|(kind, _)| *kind == SecretKind::RefreshToken);
    let oauth = client.oauth(deps, connector);
    let mut answer = RevokeOutcome::Unsupported;
    for (kind, secret) in refresh.iter().chain(&access) {
        let key = deps.key_of(row.org, secret.sealed.odk).await?;
        let token = open::for_revocation(&key, &grant, kind, secret).map_err(|_| Refusal::KeyUnavailable)?;
        let token = match &token {
            Ended::Refresh(token) => TokenToEnd::Refresh(token),
            Ended::Access(token) => TokenToEnd::Access(token),
        };
        match oauth.revoke(token).await {
            RevokeOutcome::Revoked => answer = RevokeOutcome::Revoked,
            RevokeOutcome::Unsupported => {}
            unfinished => return Ok(unfinished),
        }
    }
    Ok(answer)
}

/// 2 s, doubling, at most an hour.
fn backoff(attempts: u64) -> Duration {
    let doublings = u32::try_from(attempts.min(11)).unwrap_or(11);
    Duration::from_secs(2_u64.saturating_pow(doublings).min(3600))
}

/// Why tokens were destroyed here and not ended at the provider: that could have ended a grant that lives.
pub const NOT_ALONE: &str = "not_revocable_alone";
/// How long the provider is asked before the answer is `unconfirmed` (architecture §4).
pub const GIVE_UP: Duration = Duration::from_secs(7 * 24 * 3600);
/// Grants buried in one transaction.
const CHUNK: u64 = 500;
/// Upstream calls at a time.
const BATCH: u64 = 16;
