//! API keys: made and ended one by one, so that a leaked one is replaced without ending its agent (protocol §10).
//!
//! The text of a key is in the answer that makes it and nowhere else.

use crate::{
    crypto::api_key,
    domain::{
        KeyId, OrgId,
        entry::{EntryDraft, EntryType},
        principal::{KeyOwner, Principal},
        secret::ApiKey,
    },
    store::{ApiKeyRow, Selector, Tx},
};

use super::{Deps, Refusal, record, sight};

/// A key just made.
#[derive(Debug)]
pub struct Made {
    /// What is kept of it.
    pub row: ApiKeyRow,
    /// The key, to be shown this once.
    pub key: ApiKey,
}

/// Makes a key for the administration, a host application or an agent; their other keys go on working.
///
/// # Errors
/// When there is no such owner, the agent is disabled, or the caller's own key has ended.
pub async fn make(deps: &Deps, who: &Principal, owner: KeyOwner) -> Result<Made, Refusal> {
    let org = who.org();
    deps.store
        .retry(|| async {
            let mut tx = deps.store.write(org).await?;
            still_in_force(&mut tx, who).await?;
            match owner {
                KeyOwner::Admin => {}
                KeyOwner::Service(service) => {
                    let services = tx.services(org).await?;
                    if !services.iter().any(|known| known.id == service) {
                        return Err(Refusal::NotFound);
                    }
                }
                KeyOwner::Agent(agent) => {
                    let agent = tx.agent(org, agent).await?.ok_or(Refusal::NotFound)?;
                    if agent.disabled_at.is_some() {
                        return Err(Refusal::invalid("/owner", "this agent is disabled"));
                    }
                }
            }
            // INVARIANT: the facts of an agent hold its living keys, so a new one moves the epoch on as a lost one does.
            tx.advance_epoch(org, &whose(&owner)).await?;
            let made = mint(deps, &mut tx, org, owner).await?;
            let draft = draft(sight::id_of(who), &made.row, "key_created");
            tx.append_entry(org, record::open(deps, EntryType::Admin, draft)?)
                .await?;
            tx.commit().await?;
            Ok(made)
        })
        .await
}

/// Who has to be ended with certainty if this change is lost to an older database: an agent alone, else everything.
fn whose(owner: &KeyOwner) -> Selector {
    match owner {
        KeyOwner::Agent(agent) => Selector::Agent(*agent),
        KeyOwner::Admin | KeyOwner::Service(_) => Selector::All(true),
    }
}

/// Ends a key, the caller's own too; one that has ended already stays as it is.
///
/// # Errors
/// When there is none in this org, or the caller's own key has ended.
pub async fn revoke(deps: &Deps, who: &Principal, id: KeyId) -> Result<ApiKeyRow, Refusal> {
    let org = who.org();
    deps.store
        .retry(|| async {
            let mut tx = deps.store.write(org).await?;
            still_in_force(&mut tx, who).await?;
            let mut key = tx.api_key_by_id(org, id).await?.ok_or(Refusal::NotFound)?;
            if key.revoked_at.is_some() {
                return Ok(key);
            }
            // INVARIANT: through the guard, so that what was let in by this key reads its facts again before a release.
            tx.advance_epoch(org, &whose(&key.owner)).await?;
            tx.revoke_api_key(org, id).await?;
            key.revoked_at = Some(tx.now());
            let draft = draft(sight::id_of(who), &key, "key_revoked");
            // Without sealed particulars: ending a key never waits for the org's key service.
            tx.append_entry(org, record::open(deps, EntryType::Admin, draft)?)
                .await?;
            tx.commit().await?;
            Ok(key)
        })
        .await
}

/// Mints a key inside a transaction; its text is in the answer and nowhere else.
pub(super) async fn mint(deps: &Deps, tx: &mut Tx, org: OrgId, owner: KeyOwner) -> Result<Made, Refusal> {
    let key = api_key::mint(owner.kind(), &*deps.random)?;
    let row = insert(deps, tx, org, owner, &key).await?;
    Ok(Made { row, key })
}

/// Writes the row of a key that was minted before, perhaps before the transaction.
pub(super) async fn insert(
    deps: &Deps,
    tx: &mut Tx,
    org: OrgId,
    owner: KeyOwner,
    key: &ApiKey,
) -> Result<ApiKeyRow, Refusal> {
    let row = ApiKeyRow {
        org,
        id: KeyId::new(tx.now(), &*deps.random)?,
        owner,
        created_at: tx.now(),
        revoked_at: None,
    };
    tx.insert_api_key(&row, &deps.lookup.api_key(key)?).await?;
    Ok(row)
}

/// Ends every key of the org, for a recovery that cannot tell which of them were ended before.
pub(super) async fn revoke_all(deps: &Deps, tx: &mut Tx, org: OrgId, by: &str) -> Result<(), Refusal> {
    for key in tx.revoke_every_api_key(org).await? {
        let draft = draft(by.to_owned(), &key, "key_revoked");
        tx.append_entry(org, record::open(deps, EntryType::Admin, draft)?)
            .await?;
    }
    Ok(())
}

/// Lets the administration go on with a key whose text somebody has already.
pub(super) async fn insert_admin(
    deps: &Deps,
    tx: &mut Tx,
    org: OrgId,
    key: &ApiKey,
    by: &str,
) -> Result<(), Refusal> {
    let row = insert(deps, tx, org, KeyOwner::Admin, key).await?;
    let draft = draft(by.to_owned(), &row, "key_created");
    tx.append_entry(org, record::open(deps, EntryType::Admin, draft)?)
        .await?;
    Ok(())
}

/// SECURITY: a key that was revoked after it let this call in makes no successor and ends no other.
async fn still_in_force(tx: &mut Tx, who: &Principal) -> Result<(), Refusal> {
    let Principal::Admin { org, key } = who else {
        return Ok(());
    };
    match tx.api_key_by_id(*org, *key).await? {
        Some(own) if own.revoked_at.is_none() => Ok(()),
        _ => Err(Refusal::Unauthenticated),
    }
}

fn draft(by: String, key: &ApiKeyRow, outcome: &str) -> EntryDraft {
    EntryDraft {
        agent: match key.owner {
            KeyOwner::Agent(agent) => Some(agent),
            KeyOwner::Admin | KeyOwner::Service(_) => None,
        },
        on_behalf: vec![by],
        outcome: Some(outcome.to_owned()),
        correlation: Some(key.id.to_string()),
        ..EntryDraft::default()
    }
}
