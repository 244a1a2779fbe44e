//! The boxes a person ticks for a grant: what each agent may do with it, saved together.

use serde_json::json;

use crate::{
    domain::{
        DelegationId, GrantId, OrgId, UserId,
        delegation::Delegation,
        entry::{EntryDraft, EntryType, Epoch},
        grant::{Grant, GrantState},
    },
    store::{Selector, Tx},
};

use super::{Deps, Refusal, record};

pub use crate::domain::delegation::Choice;

/// Saves what the person chose for several agents, in one transaction; returns for how many it changed something.
///
/// # Errors
/// When the grant is not this person's or is over, or an agent is not of this org or is disabled.
pub async fn save(
    deps: &Deps,
    org: OrgId,
    user: UserId,
    grant: GrantId,
    choices: &[Choice],
) -> Result<usize, Refusal> {
    // The key first: no key service is asked while the transaction is open.
    let key = deps.org_key(org).await?;
    deps.store
        .retry(|| async {
            let mut tx = deps.store.write(org).await?;
            let grant = tx.grant(org, grant).await?.ok_or(Refusal::NotFound)?;
            if grant.user != user {
                return Err(Refusal::NotFound);
            }
            if let GrantState::Revoked { at } = grant.state {
                return Err(Refusal::Revoked { grant: grant.id, at });
            }
            // INVARIANT: an agent may lose something by this, so it goes through the guard.
            let epoch = tx.advance_epoch(org, &Selector::Grant(grant.id)).await?;
            let mut entries = Vec::new();
            for choice in choices {
                let Some(outcome) = put(deps, &mut tx, &grant, epoch, choice).await? else {
                    continue;
                };
                let draft = EntryDraft {
                    user: Some(user),
                    agent: Some(choice.agent),
                    grant: Some(grant.id),
                    connector: Some(grant.connector.clone()),
                    outcome: Some(outcome.to_owned()),
                    ..EntryDraft::default()
                };
                let details = record::Details {
                    note: Some(json!({"categories": choice.categories, "raw": choice.raw})),
                    ..record::Details::default()
                };
                let hashed = record::Hashed::default();
                entries.push(record::sealed(
                    deps,
                    &key,
                    org,
                    EntryType::Delegation,
                    draft,
                    &hashed,
                    details,
                )?);
            }
            let changed = entries.len();
            if changed == 0 {
                return Ok(0);
            }
            for entry in entries {
                tx.append_entry(org, entry).await?;
            }
            tx.commit().await?;
            Ok(changed)
        })
        .await
}

/// Makes a choice hold; returns `made` or `ended`, or nothing if it held before. The caller holds the guard.
///
/// # Errors
/// When the agent is not of this org or is disabled, or the database is unavailable.
pub(super) async fn put(
    deps: &Deps,
    tx: &mut Tx,
    grant: &Grant,
    epoch: Epoch,
    choice: &Choice,
) -> Result<Option<&'static str>, Refusal> {
    let agent = tx
        .agent(grant.org, choice.agent)
        .await?
        .ok_or(Refusal::NotFound)?;
    let now = tx.now();
    let mut living = tx.delegations_of(grant.org, grant.id, Some(choice.agent)).await?;
    living.retain(|delegation| delegation.is_live(now));
    if choice.is_what_holds(&living) {
        return Ok(None);
    }
    if choice.allows_nothing() {
        for delegation in living {
            tx.end_delegation(grant.org, delegation.id).await?;
        }
        return Ok(Some("ended"));
    }
    if agent.disabled_at.is_some() {
        return Err(Refusal::invalid("/agent", "this agent is disabled"));
    }
    // What the boxes do not show, a list of tools and an end, is never widened by ticking one.
    let before = living.pop();
    let delegation = Delegation {
        id: DelegationId::new(now, &*deps.random)?,
        org: grant.org,
        user: grant.user,
        agent: choice.agent,
        grant: grant.id,
        categories: choice.categories.clone(),
        tools: before
            .as_ref()
            .map(|before| before.tools.clone())
            .unwrap_or_default(),
        raw: choice.raw,
        expires_at: before.and_then(|before| before.expires_at),
        made_epoch: epoch.counter,
        ended_at: None,
    };
    tx.replace_delegation(&delegation).await?;
    Ok(Some("made"))
}
