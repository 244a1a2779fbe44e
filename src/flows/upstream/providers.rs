//! Asking the providers: each at its own pace, kept in the database for all replicas together, and none behind another.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use url::Url;

use crate::{
    connectors::oauth::{RevokeOutcome, TokenToEnd},
    domain::{
        GrantId, OrgId,
        connector::{Connector, ConnectorId, Revoke, RevokeKills},
        entry::{EntryDraft, EntryType},
    },
    failpoints::Failpoint,
    flows::{Deps, Refusal, record, walk::begin_anywhere},
    release::open::{self, Ended},
    store::{
        LONGEST_BACKOFF, OutboxLine, OutboxRow, Resting, SecretKind, SecretRow, StoreError, UpstreamResult,
    },
};

use super::{NOT_ALONE, client};

mod beside;

use beside::Spared;

/// A provider at which tokens are to be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Its host and port; several connectors may share them.
    pub host: String,
    connectors: Vec<ConnectorId>,
    per_second: u32,
}

/// What one try came to.
#[derive(Debug, Default)]
struct Tried {
    finished: bool,
    requests: u64,
    /// The provider answered to what it was asked.
    is_served: bool,
    /// It wants to be left alone by this client.
    is_told: bool,
}

/// What is to be entered of one try.
enum Word {
    /// The provider's answer, or why it could not be asked.
    Said(Result<RevokeOutcome, Refusal>),
    /// It was not asked, for somebody else's sake.
    Spared(Spared),
}

/// The providers at which something waits to be ended.
///
/// # Errors
/// When the database is unavailable.
pub async fn providers(deps: &Deps) -> Result<Vec<Provider>, Refusal> {
    let mut found: BTreeMap<String, Provider> = BTreeMap::new();
    for connector in deps.store.due().await?.outbox_connectors().await? {
        let revoke = deps.catalogue.get(&connector).map(|known| &known.revoke);
        let host = revoke.and_then(host).unwrap_or_else(|| connector.to_string());
        let per_second = revoke.map_or_else(|| Revoke::default().per_second, |revoke| revoke.per_second);
        let provider = found.entry(host.clone()).or_insert(Provider {
            host,
            connectors: Vec::new(),
            per_second,
        });
        provider.per_second = provider.per_second.min(per_second);
        provider.connectors.push(connector);
    }
    Ok(found.into_values().collect())
}

/// Asks every provider to end what is due, side by side, and waits for all; returns how many got a final answer.
///
/// # Errors
/// When the database is unavailable.
pub async fn drain(deps: &Arc<Deps>) -> Result<usize, Refusal> {
    let mut rounds = tokio::task::JoinSet::new();
    for provider in providers(deps).await? {
        let deps = Arc::clone(deps);
        rounds.spawn(async move { round(&deps, &provider).await });
    }
    let mut finished = 0;
    while let Some(done) = rounds.join_next().await {
        finished += done.unwrap_or(Ok(0))?;
    }
    Ok(finished)
}

/// Asks one provider to end what is due, while it has turns left; returns how many got a final answer.
///
/// # Errors
/// When the database is unavailable.
pub async fn round(deps: &Arc<Deps>, provider: &Provider) -> Result<usize, Refusal> {
    let mut finished = 0;
    loop {
        // What is left is another replica's, or the next start's.
        if deps.uncut.is_stopping() {
            return Ok(finished);
        }
        let resting = deps.store.resting_clients(&provider.host).await?;
        let mut due = due(deps, provider, &resting).await?;
        let wanted = u64::try_from(due.len()).unwrap_or(u64::MAX);
        if wanted == 0 {
            return Ok(finished);
        }
        let turns = deps
            .store
            .take_turns(&provider.host, wanted, provider.per_second)
            .await?;
        due.truncate(usize::try_from(turns).unwrap_or(usize::MAX));
        let mut tasks = tokio::task::JoinSet::new();
        for (org, grant) in claim(deps, due).await? {
            let (deps, host) = (Arc::clone(deps), provider.host.clone());
            tasks.spawn(async move { settle(&deps, org, grant, &host).await });
        }
        let (mut claimed, mut requests) = (0, 0);
        let (mut is_served, mut is_told) = (false, !resting.is_empty());
        while let Some(done) = tasks.join_next().await {
            claimed += 1;
            match done {
                Ok(Ok(tried)) => {
                    finished += usize::from(tried.finished);
                    requests += tried.requests;
                    is_served |= tried.is_served;
                    is_told |= tried.is_told;
                }
                Ok(Err(refusal)) => tracing::warn!(cause = %refusal, "an upstream revocation has to wait"),
                Err(_) => tracing::error!("an upstream revocation stopped unexpectedly"),
            }
        }
        if is_served && is_told {
            deps.store.provider_served(&provider.host).await?;
        }
        // A grant may have several tokens: what was asked beyond one request each is owed.
        if requests > claimed {
            deps.store
                .owe_turns(&provider.host, requests - claimed, provider.per_second)
                .await?;
        }
        if turns < wanted {
            return Ok(finished);
        }
    }
}

/// What is to be tried next. The connectors take turns, and at each of them the orgs, beginning with any: where there are fewer
/// turns than these, none is left out for long, however much waits of another. What lies far ahead comes behind what is due at
/// all of them.
async fn due(deps: &Deps, provider: &Provider, resting: &Resting) -> Result<Vec<(OrgId, GrantId)>, Refusal> {
    let mut connectors: Vec<_> = provider.connectors.iter().collect();
    begin_anywhere(&mut connectors, &*deps.random)?;
    let mut due = Vec::new();
    for line in [OutboxLine::Due, OutboxLine::FarAhead] {
        if due.len() < AT_ONCE {
            let mut lines = Vec::with_capacity(connectors.len());
            for connector in &connectors {
                lines.push(of_orgs(deps, connector, line, resting).await?);
            }
            due.extend(in_turn(lines));
        }
    }
    due.truncate(AT_ONCE);
    Ok(due)
}

/// What waits in a line at one connector, of each org in turn. One whose client rests has none; very many of those are not all
/// looked at each time.
async fn of_orgs(
    deps: &Deps,
    connector: &ConnectorId,
    line: OutboxLine,
    resting: &Resting,
) -> Result<Vec<(OrgId, GrantId)>, Refusal> {
    let mut waiting = deps.store.due().await?.outbox_orgs(connector, line).await?;
    begin_anywhere(&mut waiting, &*deps.random)?;
    let mut orgs = Vec::new();
    for org in waiting.into_iter().take(LOOKED_AT) {
        if orgs.len() == AT_ONCE {
            break;
        }
        // Of whom that cannot be read now holds up nobody else.
        if !is_resting(deps, org, connector, resting).await.unwrap_or(true) {
            orgs.push(org);
        }
    }
    let mut lines = Vec::with_capacity(orgs.len());
    if !orgs.is_empty() {
        let most = u64::try_from(AT_ONCE).unwrap_or(u64::MAX);
        let mut look = deps.store.due().await?;
        for org in orgs {
            lines.push(look.outbox(connector, org, line, most).await?);
        }
    }
    Ok(in_turn(lines))
}

async fn is_resting(
    deps: &Deps,
    org: OrgId,
    connector: &ConnectorId,
    resting: &Resting,
) -> Result<bool, Refusal> {
    if resting.is_empty() {
        return Ok(false);
    }
    let client = deps
        .store
        .read(org)
        .await?
        .connector_client(org, connector)
        .await?;
    Ok(client.is_some_and(|client| resting.holds(&client.client_id)))
}

/// One of each line, then the next of each, until there are no more.
fn in_turn<T>(lines: Vec<Vec<T>>) -> Vec<T> {
    let mut lines: Vec<_> = lines.into_iter().map(Vec::into_iter).collect();
    let mut all = Vec::new();
    loop {
        let before = all.len();
        all.extend(lines.iter_mut().filter_map(Iterator::next));
        if all.len() == before {
            return all;
        }
    }
}

/// Takes what is due for this process; what another replica took meanwhile is left out.
async fn claim(deps: &Deps, due: Vec<(OrgId, GrantId)>) -> Result<Vec<(OrgId, GrantId)>, Refusal> {
    let mut orgs: BTreeMap<OrgId, Vec<GrantId>> = BTreeMap::new();
    for (org, grant) in due {
        orgs.entry(org).or_default().push(grant);
    }
    let (mut claimed, mut failed) = (Vec::new(), None);
    for (org, grants) in orgs {
        let ours = deps.store.retry(|| async {
            let mut tx = deps.store.write(org).await?;
            let until = tx.now() + CLAIM;
            let ours = tx.claim_outbox(org, &grants, until).await?;
            tx.commit().await?;
            Ok::<_, StoreError>(ours)
        });
        match ours.await {
            Ok(ours) => claimed.extend(ours.into_iter().map(|grant| (org, grant))),
            // What was claimed of others is asked all the same: until the claim is over nobody else does.
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if claimed.is_empty() => Err(error.into()),
        _ => Ok(claimed),
    }
}

/// One try.
async fn settle(deps: &Deps, org: OrgId, grant: GrantId, host: &str) -> Result<Tried, Refusal> {
    let Some(row) = deps.store.read(org).await?.outbox(org, grant).await? else {
        return Ok(Tried::default());
    };
    let asked = newest(deps, &row).await?;
    let mut requests = 0;
    // INVARIANT: what ends here never ends a grant that lives there without a word.
    let word = match beside::spared(deps, &row).await? {
        Some(spared) => Word::Spared(spared),
        None => {
            let answer = ask(deps, &row, &mut requests).await;
            Failpoint::UpstreamAnswered.reached();
            Word::Said(answer)
        }
    };
    let told = match word {
        Word::Said(Ok(RevokeOutcome::Retry { after })) => after,
        _ => None,
    };
    if let Some(after) = told {
        rest(deps, &row, host, after).await?;
    }
    let finished = deps
        .store
        .retry(|| enter(deps, row.clone(), asked, &word))
        .await?;
    if finished && matches!(word, Word::Spared(_)) {
        tracing::warn!(grant.id = %grant, connector.id = %row.connector,
            "the tokens of {grant} are not ended at the provider: that could have ended a grant that lives, or is being connected");
    }
    let is_unanswered = matches!(
        word,
        Word::Said(Err(_) | Ok(RevokeOutcome::Retry { .. } | RevokeOutcome::Unclear { .. }))
    );
    Ok(Tried {
        finished,
        requests,
        is_served: requests > 0 && !is_unanswered,
        is_told: told.is_some(),
    })
}

/// RFC 9110 §10.2.3: said to one who asked as this client, it is meant for all who do.
async fn rest(deps: &Deps, row: &OutboxRow, host: &str, after: Duration) -> Result<(), Refusal> {
    let mut tx = deps.store.read(row.org).await?;
    let client = tx.connector_client(row.org, &row.connector).await?;
    drop(tx);
    if let Some(client) = client {
        deps.store.rest_client(host, &client.client_id, after).await?;
    }
    Ok(())
}

/// Enters what came of a try to end the tokens up to a generation; `true` if that was the last word.
async fn enter(deps: &Deps, mut row: OutboxRow, asked: Option<u64>, word: &Word) -> Result<bool, Refusal> {
    let mut tx = deps.store.write(row.org).await?;
    // The database's time, by which what is due is looked for.
    let now = tx.now();
    row.attempts += u64::from(matches!(word, Word::Said(_)));
    row.result = match word {
        Word::Said(Ok(RevokeOutcome::Revoked)) => UpstreamResult::Revoked,
        Word::Said(Ok(RevokeOutcome::Unsupported)) => UpstreamResult::Unsupported,
        Word::Said(Ok(RevokeOutcome::Refused { .. })) | Word::Spared(Spared::Living) => {
            UpstreamResult::Unconfirmed
        }
        Word::Said(Ok(RevokeOutcome::Retry { .. } | RevokeOutcome::Unclear { .. }) | Err(_))
        | Word::Spared(Spared::UnderWay(_)) => {
            if now >= row.give_up_at {
                UpstreamResult::Unconfirmed
            } else {
                UpstreamResult::Pending
            }
        }
    };
    row.due_at = match word {
        // A longer rest is the provider's, kept for all that waits there.
        Word::Said(Ok(RevokeOutcome::Retry { after: Some(after) })) => {
            now + backoff(row.attempts).max((*after).min(LONGEST_BACKOFF))
        }
        Word::Said(_) | Word::Spared(Spared::Living) => now + backoff(row.attempts),
        // This one alone has to wait.
        Word::Spared(Spared::UnderWay(left)) => now + (*left).min(LONGEST_BACKOFF),
    };
    let last = row.result != UpstreamResult::Pending;
    let mut draft = EntryDraft {
        grant: Some(row.grant),
        connector: Some(row.connector.clone()),
        outcome: Some(row.result.as_str().to_owned()),
        reason: matches!(word, Word::Spared(_)).then(|| NOT_ALONE.to_owned()),
        correlation: row.revocation.map(|id| id.to_string()),
        ..EntryDraft::default()
    };
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
    // Another process may have asked as well and heard the last word first.
    let last = tx.put_outbox(&row).await? && last;
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

/// The refresh token first: it is the one that could make more. Counts what it sends.
async fn ask(deps: &Deps, row: &OutboxRow, requests: &mut u64) -> Result<RevokeOutcome, Refusal> {
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
    // A refresh token that is not taken may end with an access token that lives.
    let (mut is_left, mut is_ended_too) = (false, false);
    let mut unclear = None;
    let now = deps.clock.now();
    for (kind, secret) in refresh.iter().chain(&access) {
        let key = deps.key_of(row.org, secret.sealed.odk).await?;
        let token = open::for_revocation(&key, &grant, kind, secret).map_err(|_| Refusal::KeyUnavailable)?;
        let token = match &token {
            Ended::Refresh(token) => TokenToEnd::Refresh(token),
            Ended::Access(token) => TokenToEnd::Access(token),
        };
        let is_refresh = *kind == SecretKind::RefreshToken;
        *requests += u64::from(TokenToEnd::is_sent(&connector.revoke, is_refresh));
        match oauth.revoke(token).await {
            RevokeOutcome::Unsupported => is_left |= is_refresh,
            retry @ RevokeOutcome::Retry { .. } => return Ok(retry),
            RevokeOutcome::Unclear { after } => unclear = Some(RevokeOutcome::Retry { after }),
            // One that is refused leaves the others to be ended; it is said in the end.
            outcome => {
                let lived = secret.expires_at.is_none_or(|end| end > now);
                is_ended_too |= lived && outcome == RevokeOutcome::Revoked && ends_with_any(connector);
                if !matches!(answer, RevokeOutcome::Refused { .. }) {
                    answer = outcome;
                }
            }
        }
    }
    // What ended with another token needs no other try.
    if !is_ended_too && let Some(retry) = unclear {
        return Ok(retry);
    }
    // INVARIANT: a refresh token that the provider ended neither by itself nor with another is not said to be ended.
    if is_left && !is_ended_too && answer == RevokeOutcome::Revoked {
        answer = RevokeOutcome::Refused { code: None };
    }
    Ok(answer)
}

/// Whether the refresh token ends with an access token of the same grant.
fn ends_with_any(connector: &Connector) -> bool {
    matches!(
        connector.revoke.kills,
        Some(RevokeKills::Grant | RevokeKills::AllTokensOfUserAndClient)
    )
}

fn host(revoke: &Revoke) -> Option<String> {
    // The client's id has its place in the path, never in the host.
    let url = Url::parse(&revoke.url.as_deref()?.replace("{client_id}", "")).ok()?;
    Some(url.authority().to_owned())
}

/// 2 s, doubling, at most an hour.
fn backoff(attempts: u64) -> Duration {
    let doublings = u32::try_from(attempts.min(11)).unwrap_or(11);
    Duration::from_secs(2_u64.saturating_pow(doublings)).min(LONGEST_BACKOFF)
}

/// Grants whose tokens one provider is asked to end at a time.
const AT_ONCE: usize = 16;
/// Orgs of which it is asked at a time whether their clients rest.
const LOOKED_AT: usize = 256;
/// Longer than any try takes; afterwards it is due again.
const CLAIM: Duration = Duration::from_secs(180);
