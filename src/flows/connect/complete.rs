//! Host-managed persons: the host application says who was at its browser; only then is there a grant.

use crate::{
    domain::{ConnectSessionId, GrantId, OrgId, ServiceId, UserId, secret::LinkToken},
    flows::{Deps, Refusal},
    release::seal::Pending,
    store::{ConnectStatus, Tx},
};

use super::{ConnectFailure, discard, keep, pending};

/// Makes the grant of a session whose code and person match; anything else discards its tokens. `user` is `None` when
/// the host application named somebody nobody knows.
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
    let mut tx = deps.store.read(org).await?;
    let now = tx.now();
    let session = tx.connect(org, id).await?.ok_or(Refusal::NotFound)?;
    drop(tx);
    if session.service != Some(service) {
        return Err(Refusal::NotFound);
    }
    if session.status != ConnectStatus::AwaitingComplete {
        return Err(not_waiting());
    }
    let right = session.code_hash == Some(deps.code_hash(code)?)
        && session.code_expires.is_some_and(|end| now < end)
        && user == Some(session.user);
    let mut pending = pending::open(deps, &session).await?;
    if !right {
        // Any mismatch discards the tokens and revokes them upstream (protocol §2).
        let from = ConnectStatus::AwaitingComplete;
        return Err(
            match discard::tokens(deps, session, from, &pending.tokens, "mismatch").await {
                Ok(true) => Refusal::invalid("/code", "the code does not belong to this session and person"),
                // Another call was faster.
                Ok(false) => not_waiting(),
                Err(refusal) => refusal,
            },
        );
    }
    still_there(&mut deps.store.read(org).await?, org, &mut pending).await?;
    keep::grant(deps, &session, &pending)
        .await
        .map_err(|failure| match failure {
            ConnectFailure::Refused(refusal) => refusal,
            _ => not_waiting(),
        })
}

/// Leaves out the agents that were disabled since the person chose: they would get nothing anyway.
async fn still_there(tx: &mut Tx, org: OrgId, pending: &mut Pending) -> Result<(), Refusal> {
    let mut kept = Vec::with_capacity(pending.choices.len());
    for choice in std::mem::take(&mut pending.choices) {
        let agent = tx.agent(org, choice.agent).await?;
        if agent.is_some_and(|agent| agent.disabled_at.is_none()) {
            kept.push(choice);
        }
    }
    pending.choices = kept;
    Ok(())
}

fn not_waiting() -> Refusal {
    Refusal::invalid("/code", "the session is not waiting for its completion")
}
