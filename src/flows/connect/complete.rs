//! Host-managed persons: the host application says who was at its browser; only then does the grant live.

use crate::{
    domain::{
        ConnectSessionId, GrantId, OrgId, ServiceId, UserId, entry::EntryType, grant::GrantState,
        secret::LinkToken,
    },
    flows::{Deps, Refusal, record, upstream},
    store::{ConnectRow, ConnectStatus},
};

use super::discard::draft;

/// Activates the grant of a session whose code and person match; anything else discards it. `user` is `None` when the
/// host application named somebody nobody knows.
///
/// # Errors
/// When there is no such session for this service. A wrong code or person ends the session and its tokens.
pub async fn complete(
    deps: &Deps,
    org: OrgId,
    service: ServiceId,
    id: ConnectSessionId,
    code: &LinkToken,
    user: Option<UserId>,
) -> Result<GrantId, Refusal> {
    let mut tx = deps.store.write(org).await?;
    let now = tx.now();
    let mut session = tx.connect(org, id).await?.ok_or(Refusal::NotFound)?;
    if session.service != Some(service) {
        return Err(Refusal::NotFound);
    }
    if session.status != ConnectStatus::AwaitingComplete {
        return Err(Refusal::invalid(
            "/code",
            "the session is not waiting for its completion",
        ));
    }
    let right = session.code_hash == Some(deps.code_hash(code)?)
        && session.code_expires.is_some_and(|end| now < end)
        && user == Some(session.user);
    if !right {
        drop(tx);
        // Any mismatch discards the grant and revokes its tokens upstream (protocol §2).
        abandon(deps, session, "mismatch").await?;
        return Err(Refusal::invalid(
            "/code",
            "the code does not belong to this session and person",
        ));
    }
    let grant_id = session.grant.ok_or(Refusal::NotFound)?;
    tx.advance_epoch(org).await?;
    let mut grant = tx.grant(org, grant_id).await?.ok_or(Refusal::NotFound)?;
    match grant.state {
        GrantState::AwaitingComplete { until } if now < until => grant.state = GrantState::Active,
        GrantState::Revoked { at } => return Err(Refusal::Revoked { grant: grant_id, at }),
        _ => return Err(Refusal::NotFound),
    }
    tx.update_grant(&grant).await?;
    session.status = ConnectStatus::Completed;
    session.code_hash = None;
    if !tx.move_connect(ConnectStatus::AwaitingComplete, &session).await? {
        return Err(Refusal::NotFound);
    }
    let entry = record::open(
        deps,
        EntryType::Connect,
        draft(&session, Some(grant_id), "ok", "completed"),
    )?;
    tx.append_entry(org, entry).await?;
    tx.commit().await?;
    Ok(grant_id)
}

/// Ends a session that waited for its completion in vain: the grant never lived, its tokens go to the outbox.
///
/// # Errors
/// When the database is unavailable.
pub async fn abandon(deps: &Deps, mut session: ConnectRow, code: &str) -> Result<(), Refusal> {
    let mut tx = deps.store.write(session.org).await?;
    let now = tx.now();
    let entry = record::open(
        deps,
        EntryType::Connect,
        draft(&session, session.grant, "failed", code),
    )?;
    session.status = ConnectStatus::Failed;
    session.failure = Some(code.to_owned());
    session.code_hash = None;
    if !tx.move_connect(ConnectStatus::AwaitingComplete, &session).await? {
        return Ok(());
    }
    if let Some(id) = session.grant
        && let Some(mut grant) = tx.grant(session.org, id).await?
        // What a revocation ended has its place in the outbox under that revocation's name.
        && !matches!(grant.state, GrantState::Revoked { .. })
    {
        grant.state = GrantState::Revoked { at: now };
        tx.bury_grant(&grant, &upstream::outbox_row(&grant, now)).await?;
    }
    tx.append_entry(session.org, entry).await?;
    tx.commit().await?;
    Ok(())
}
