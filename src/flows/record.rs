//! Drafting entries: who, what and why in the clear, the particulars sealed beside it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    crypto::{AadParts, OdkHandle, digest},
    domain::{
        EntryId, OrgId, UserId,
        action::ActionHash,
        connector::ConnectorId,
        entry::{Entry, EntryDraft, EntryType},
    },
    store::{EntryRow, NewEntry},
};

use super::{Deps, Refusal};

/// What is sealed beside an entry, so that shredding it erases the person and leaves the proof (crypto §6).
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Details {
    /// Keys the hashes in the entry.
    pub salt: String,
    /// The arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Value>,
    /// Who was who at that time.
    #[serde(default)]
    pub names: Names,
    /// What the policy lets a model know, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_message: Option<String>,
    /// What else a reader needs: a reason, a plan, a count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Value>,
}

/// Names at the time of the entry; display only.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Names {
    /// The person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The account at the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

/// What an entry hashes under its salt.
#[derive(Debug, Default)]
pub struct Hashed<'a> {
    /// The action.
    pub action: Option<ActionHash>,
    /// The provider's id of the account.
    pub account: Option<&'a str>,
}

/// An entry with its details sealed under the org's key.
///
/// # Errors
/// When the generator fails.
pub fn sealed(
    deps: &Deps,
    key: &OdkHandle,
    org: OrgId,
    kind: EntryType,
    draft: EntryDraft,
    hashed: &Hashed<'_>,
    details: Details,
) -> Result<NewEntry, Refusal> {
    seal(deps, key, org, open(deps, kind, draft)?, hashed, details)
}

/// Seals the details of an entry beside it.
///
/// # Errors
/// When the generator fails.
pub fn seal(
    deps: &Deps,
    key: &OdkHandle,
    org: OrgId,
    mut entry: NewEntry,
    hashed: &Hashed<'_>,
    mut details: Details,
) -> Result<NewEntry, Refusal> {
    let draft = &mut entry.draft;
    let mut salt = [0_u8; 32];
    deps.random.fill(&mut salt)?;
    draft.action_hash = hashed
        .action
        .map(|hash| digest::base64url(&digest::hmac_sha256(&salt, &[&hash.0])));
    draft.account_hash = hashed
        .account
        .map(|account| digest::base64url(&digest::hmac_sha256(&salt, &[account.as_bytes()])));
    details.salt = digest::base64url(&salt);
    let plain = serde_json::to_vec(&details).map_err(|_| Refusal::KeyUnavailable)?;
    let row = entry.id.to_string();
    let place = place(org, draft.user, draft.connector.as_ref(), &row);
    entry.sealed = Some(key.seal(&place, &plain)?);
    Ok(entry)
}

/// An entry without particulars: needs no org key, so that logging in and `revoke` never wait for one.
///
/// # Errors
/// When the generator fails.
pub fn open(deps: &Deps, kind: EntryType, draft: EntryDraft) -> Result<NewEntry, Refusal> {
    Ok(NewEntry {
        id: EntryId::new(deps.clock.now(), &*deps.random)?,
        kind,
        draft,
        sealed: None,
    })
}

/// An entry with what was sealed beside it, if its key can still be had.
///
/// # Errors
/// When the entry's bytes are not an entry.
pub async fn read(deps: &Deps, row: &EntryRow) -> Result<(Entry, Option<Details>), Refusal> {
    let entry: Entry = serde_json::from_str(&row.bytes)
        .map_err(|_| crate::store::StoreError::Inconsistent { table: "entries" })?;
    let Some(sealed) = &row.sealed else {
        return Ok((entry, None));
    };
    let Ok(key) = deps.key_of(entry.org, sealed.odk).await else {
        return Ok((entry, None));
    };
    let id = entry.id.to_string();
    let place = place(entry.org, entry.draft.user, entry.draft.connector.as_ref(), &id);
    let details = key
        .open(&place, sealed)
        .ok()
        .and_then(|plain| serde_json::from_slice(&plain).ok());
    Ok((entry, details))
}

fn place<'a>(
    org: OrgId,
    user: Option<UserId>,
    connector: Option<&'a ConnectorId>,
    row: &'a str,
) -> AadParts<'a> {
    AadParts {
        org: Some(org),
        user,
        connector,
        account: "",
        row,
        kind: "entry",
        binding: None,
        generation: 0,
    }
}
