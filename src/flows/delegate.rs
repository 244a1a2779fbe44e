//! What a person lets an agent do with one grant: made only in their own session, ended by them or an admin.

use std::collections::BTreeSet;

use serde_json::json;

use crate::{
    connectors::Tool,
    domain::{
        AgentId, DelegationId, GrantId, OrgId, Time, UserId,
        connector::Category,
        delegation::Delegation,
        entry::{EntryDraft, EntryType},
        grant::GrantState,
    },
    store::Selector,
};

use super::{Deps, Refusal, record};

/// What the person wants to allow.
#[derive(Debug, Clone)]
pub struct Ask {
    /// To which agent.
    pub agent: AgentId,
    /// With which grant of theirs.
    pub grant: GrantId,
    /// What kinds of action.
    pub categories: BTreeSet<Category>,
    /// Only these tools of those categories; empty: all of them.
    pub tools: BTreeSet<String>,
    /// Whether a raw token may be released.
    pub raw: bool,
    /// When it ends by itself.
    pub expires_at: Option<Time>,
}

/// Keeps a delegation; an earlier one for the same agent and grant ends with it.
///
/// # Errors
/// When the grant is not this person's or is over, or the delegation would allow nothing.
pub async fn make(deps: &Deps, org: OrgId, user: UserId, ask: Ask) -> Result<Delegation, Refusal> {
    // The key first: no key service is asked while the transaction is open.
    let key = deps.org_key(org).await?;
    deps.store
        .retry(|| async {
            let mut tx = deps.store.write(org).await?;
            let now = tx.now();
            // INVARIANT: an earlier delegation may be narrowed by this one, so it goes through the guard.
            let epoch = tx.advance_epoch(org, &Selector::Grant(ask.grant)).await?;
            let grant = tx.grant(org, ask.grant).await?.ok_or(Refusal::NotFound)?;
            if grant.user != user {
                return Err(Refusal::NotFound);
            }
            match grant.state {
                GrantState::Active | GrantState::NeedsReconnect { .. } => {}
                GrantState::Revoked { at } => return Err(Refusal::Revoked { grant: grant.id, at }),
                GrantState::Quarantined { .. } => {
                    return Err(Refusal::invalid("/grant", "this grant is not in use"));
                }
            }
            let agent = tx.agent(org, ask.agent).await?.ok_or(Refusal::NotFound)?;
            if agent.disabled_at.is_some() {
                return Err(Refusal::invalid("/agent", "this agent is disabled"));
            }
            if ask.categories.is_empty() && ask.tools.is_empty() {
                return Err(Refusal::invalid("/categories", "nothing would be allowed"));
            }
            if ask.expires_at.is_some_and(|end| end <= now) {
                return Err(Refusal::invalid("/expires_at", "this time has passed"));
            }
            let connector = deps.catalogue.get(&grant.connector).ok_or(Refusal::NotFound)?;
            for (index, tool) in ask.tools.iter().enumerate() {
                if Tool::find(connector, tool).is_none() {
                    return Err(Refusal::invalid(
                        &format!("/tools/{index}"),
                        "the connector has no such tool",
                    ));
                }
            }
            let delegation = Delegation {
                id: DelegationId::new(now, &*deps.random)?,
                org,
                user,
                agent: ask.agent,
                grant: ask.grant,
                categories: ask.categories.clone(),
                tools: ask.tools.clone(),
                raw: ask.raw,
                expires_at: ask.expires_at,
                made_epoch: epoch.counter,
                ended_at: None,
            };
            tx.replace_delegation(&delegation).await?;
            let draft = EntryDraft {
                connector: Some(grant.connector.clone()),
                ..draft(&delegation, "made")
            };
            let details = record::Details {
                note: Some(json!({
                    "categories": delegation.categories,
                    "tools": delegation.tools,
                    "raw": delegation.raw,
                    "expires_at": delegation.expires_at,
                })),
                ..record::Details::default()
            };
            let hashed = record::Hashed::default();
            let entry = record::sealed(deps, &key, org, EntryType::Delegation, draft, &hashed, details)?;
            tx.append_entry(org, entry).await?;
            tx.commit().await?;
            Ok(delegation)
        })
        .await
}

/// Ends a delegation; one that is over already stays as it is.
///
/// # Errors
/// When there is none, or it is another person's and `owner` says that only theirs may be ended.
pub async fn end(
    deps: &Deps,
    org: OrgId,
    id: DelegationId,
    owner: Option<UserId>,
    by: String,
) -> Result<Delegation, Refusal> {
    deps.store
        .retry(|| async {
            let mut tx = deps.store.write(org).await?;
            let now = tx.now();
            let grant = tx.delegation(org, id).await?.ok_or(Refusal::NotFound)?.grant;
            tx.advance_epoch(org, &Selector::Grant(grant)).await?;
            let mut delegation = tx.delegation(org, id).await?.ok_or(Refusal::NotFound)?;
            if owner.is_some_and(|owner| owner != delegation.user) {
                return Err(Refusal::NotFound);
            }
            if delegation.ended_at.is_some() {
                return Ok(delegation);
            }
            tx.end_delegation(org, id).await?;
            delegation.ended_at = Some(now);
            let draft = EntryDraft {
                on_behalf: vec![by.clone()],
                ..draft(&delegation, "ended")
            };
            tx.append_entry(org, record::open(deps, EntryType::Delegation, draft)?)
                .await?;
            tx.commit().await?;
            Ok(delegation)
        })
        .await
}

fn draft(delegation: &Delegation, outcome: &str) -> EntryDraft {
    EntryDraft {
        user: Some(delegation.user),
        agent: Some(delegation.agent),
        grant: Some(delegation.grant),
        outcome: Some(outcome.to_owned()),
        correlation: Some(delegation.id.to_string()),
        ..EntryDraft::default()
    }
}
