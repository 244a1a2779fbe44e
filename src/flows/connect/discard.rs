//! Sessions that end without a living grant: their tokens are ended at the provider, not only here.

use std::time::Duration;

use serde_json::json;

use crate::{
    connectors::oauth::{OAuth, RevokeOutcome, TokenToEnd},
    domain::{
        GrantId, ScopeSet,
        connector::Connector,
        entry::{EntryDraft, EntryType},
        grant::{Account, Grant, GrantState},
    },
    flows::{Deps, Refusal, record, upstream},
    release::seal::Tokens,
    store::{ConnectRow, ConnectStatus, REVOKED, Tx, UpstreamResult},
};

/// What becomes of tokens that find no living grant.
#[derive(Debug)]
pub enum Fate {
    /// Wider than asked: kept apart for the person to see, revoked upstream when its time is over.
    Quarantine {
        /// The account that came back.
        account: Account,
        /// What came back.
        granted: ScopeSet,
    },
    /// Revoked upstream at once, unless that could end a grant that lives.
    Revoke,
    /// The same of what nobody could read: it may be the very token of a grant of the account that lives.
    RevokeUnread,
}

/// Ends a session that has no tokens.
///
/// # Errors
/// When the database is unavailable.
pub async fn fail(
    deps: &Deps,
    mut session: ConnectRow,
    from: ConnectStatus,
    code: &str,
) -> Result<(), Refusal> {
    let failed = draft(&session, None, "failed", code);
    session.status = ConnectStatus::Failed;
    session.failure = Some(code.to_owned());
    deps.store
        .retry(|| async {
            let mut tx = deps.store.write(session.org).await?;
            if tx.move_connect(from, &session).await? {
                let entry = record::open(deps, EntryType::Connect, failed.clone())?;
                tx.append_entry(session.org, entry).await?;
                tx.commit().await?;
            }
            Ok(())
        })
        .await
}

/// Ends a session whose tokens nobody will use: they go to the outbox. `false` if somebody else moved it on meanwhile, who
/// then has the tokens.
///
/// # Errors
/// When the key service or the database is unavailable.
pub async fn tokens(
    deps: &Deps,
    session: ConnectRow,
    from: ConnectStatus,
    answer: &Tokens,
    code: &str,
) -> Result<bool, Refusal> {
    let ended = grant(deps, session, from, answer, Fate::Revoke, code).await?;
    Ok(ended.is_some())
}

/// Ends a session by a grant that never lived: a tombstone, or one in quarantine. `None` if somebody else moved it on
/// meanwhile and has the tokens; those of an exchange nobody else has, whatever became of its session.
///
/// # Errors
/// When the key service or the database is unavailable.
pub async fn grant(
    deps: &Deps,
    session: ConnectRow,
    from: ConnectStatus,
    answer: &Tokens,
    fate: Fate,
    code: &str,
) -> Result<Option<GrantId>, Refusal> {
    let key = deps.org_key(session.org).await?;
    let now = deps.clock.now();
    let connector = deps.catalogue.get(&session.connector);
    let is_unread = matches!(fate, Fate::RevokeUnread);
    let (state, account, wider) = match fate {
        Fate::Quarantine { account, granted } => (
            GrantState::Quarantined {
                until: now + QUARANTINE,
            },
            account,
            Some(granted),
        ),
        Fate::Revoke | Fate::RevokeUnread => {
            let nobody = Account {
                id: None,
                label: "discarded".to_owned(),
                email: None,
                tenant: None,
            };
            (
                GrantState::Revoked { at: now },
                session.account.clone().unwrap_or(nobody),
                None,
            )
        }
    };
    deps.store
        .retry(|| async {
            let mut session = session.clone();
            let mut tx = deps.store.write(session.org).await?;
            let epoch = tx.epoch(session.org).await?.ok_or(Refusal::NotFound)?;
            let grant = Grant {
                id: GrantId::new(now, &*deps.random)?,
                org: session.org,
                user: session.user,
                connector: session.connector.clone(),
                account: account.clone(),
                label: session.label.clone(),
                // Never what came back beyond that: a reconnect asks for what is kept here.
                scopes: session.scopes.clone(),
                state,
                connected_epoch: epoch.counter,
                generation: 1,
                // Without its connector's file it holds nothing that would be bound.
                binding: deps.binding(&session.connector).unwrap_or_default(),
                access_expires_at: answer.expires_at,
                has_refresh_token: answer.refresh_token.is_some(),
                connected_at: now,
                last_used_at: None,
            };
            // What somebody began and did not finish never cuts off who is connected.
            let alone = match connector {
                Some(connector) if is_unread => !lives_beside(deps, &mut tx, &session, connector).await?,
                Some(connector) if wider.is_none() => is_alone(deps, &mut tx, &session, connector).await?,
                _ => true,
            };
            match connector {
                Some(connector) if alone => {
                    upstream::keep_apart(&mut tx, &key, &grant, connector, answer).await?
                }
                _ => {
                    tx.insert_grant(&grant).await?;
                    // Where the file is gone, nobody knows any more how its tokens are ended.
                    let result =
                        connector.map_or(UpstreamResult::Unsupported, |_| UpstreamResult::Unconfirmed);
                    upstream::queue(&mut tx, &grant, result).await?;
                }
            }
            session.status = ConnectStatus::Failed;
            session.failure = Some(code.to_owned());
            session.grant = Some(grant.id);
            session.verifier = None;
            session.tokens = None;
            let failed = draft(&session, Some(grant.id), "failed", code);
            let details = record::Details {
                note: wider.as_ref().map(|granted| json!({"granted": granted})),
                ..record::Details::default()
            };
            let hashed = record::Hashed::default();
            let entry = record::sealed(
                deps,
                &key,
                grant.org,
                EntryType::Connect,
                failed,
                &hashed,
                details,
            )?;
            // Whoever moved the session meanwhile has its tokens too, unless they came only now: nothing is kept twice.
            if !tx.move_connect(from, &session).await? && from != ConnectStatus::Exchanging {
                return Ok(None);
            }
            tx.append_entry(session.org, entry).await?;
            if !alone {
                let left = draft(&session, Some(grant.id), "discarded", upstream::NOT_ALONE);
                tx.append_entry(session.org, record::open(deps, EntryType::Connect, left)?)
                    .await?;
            }
            tx.commit().await?;
            Ok(Some(grant.id))
        })
        .await
}

/// Ends the tokens of an exchange that could be kept nowhere, while they are in hand. `alone` as it was before they came.
pub(super) async fn at_once(oauth: &OAuth<'_>, session: &ConnectRow, alone: bool, answer: &Tokens) {
    // The refresh token first: it is the one that could make more.
    let refresh = answer.refresh_token.as_ref().map(TokenToEnd::Refresh);
    let access = answer.access_token.as_ref().map(TokenToEnd::Access);
    let tokens = refresh.into_iter().chain(access);
    let mut ended = false;
    for token in tokens.filter(|_| alone) {
        match oauth.revoke(token).await {
            RevokeOutcome::Revoked => ended = true,
            RevokeOutcome::Unsupported => {}
            RevokeOutcome::Retry { .. } | RevokeOutcome::Unclear { .. } | RevokeOutcome::Refused { .. } => {
                ended = false;
                break;
            }
        }
    }
    if ended {
        tracing::warn!(connect.id = %session.id, connector.id = %session.connector,
            "the tokens of {} were ended at the provider", session.id);
    } else {
        tracing::error!(connect.id = %session.id, connector.id = %session.connector, user.id = %session.user,
            "the tokens of {} could be neither kept nor ended at the provider", session.id);
    }
}

/// Whether ending a session's tokens cuts off nobody who is connected.
///
/// # Errors
/// When the database is unavailable.
async fn is_alone(
    deps: &Deps,
    tx: &mut Tx,
    session: &ConnectRow,
    connector: &Connector,
) -> Result<bool, Refusal> {
    Ok(!upstream::ends_more_than_the_token(connector) || !lives_beside(deps, tx, session, connector).await?)
}

/// Whether a grant lives that may be of the same account as a session's tokens, whoever's it is.
pub(super) async fn lives_beside(
    deps: &Deps,
    tx: &mut Tx,
    session: &ConnectRow,
    connector: &Connector,
) -> Result<bool, Refusal> {
    let account = session.account.as_ref().and_then(|account| account.id.as_deref());
    let account = upstream::whose(connector, account);
    let connectors = upstream::of_one_client(deps, tx, session.org, connector).await?;
    Ok(tx
        .lives_beside(session.org, &connectors, session.user, account, None)
        .await?)
}

/// Why a session that is past its time ended.
pub(super) fn end_of(session: &ConnectRow) -> &'static str {
    if session.revoked { REVOKED } else { "expired" }
}

/// The entry of a session's end.
pub(super) fn draft(session: &ConnectRow, grant: Option<GrantId>, outcome: &str, reason: &str) -> EntryDraft {
    EntryDraft {
        user: Some(session.user),
        agent: None,
        on_behalf: session
            .service
            .map(|service| service.to_string())
            .into_iter()
            .collect(),
        grant,
        connector: Some(session.connector.clone()),
        outcome: Some(outcome.to_owned()),
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        correlation: Some(session.id.to_string()),
        ..EntryDraft::default()
    }
}

/// How long a grant wider than asked is kept apart (protocol §2).
const QUARANTINE: Duration = Duration::from_secs(7 * 24 * 3600);
