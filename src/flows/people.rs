//! Persons a host application manages: known by the name the application gives them.

use crate::{
    domain::{
        OrgId, ServiceId, UserId,
        entry::{EntryDraft, EntryType},
        principal::Role,
        text::line,
    },
    store::UserRow,
};

use super::{Deps, Refusal, record};

/// The person a host application calls `external_id`; made, with an entry, if there is none yet.
///
/// # Errors
/// When the name is no line, or the database is unavailable.
pub async fn host_user(
    deps: &Deps,
    org: OrgId,
    service: ServiceId,
    external_id: &str,
) -> Result<UserId, Refusal> {
    line(external_id, LONGEST)
        .map_err(|refused| Refusal::invalid("/user/external_id", refused.to_string()))?;
    let known = deps
        .store
        .read(org)
        .await?
        .user_by_external_id(org, service, external_id)
        .await?;
    if let Some(user) = known {
        return Ok(user.id);
    }
    deps.store
        .retry(|| async {
            let mut tx = deps.store.write(org).await?;
            // Another call may have made the person since.
            if let Some(user) = tx.user_by_external_id(org, service, external_id).await? {
                return Ok(user.id);
            }
            let user = UserRow {
                id: UserId::new(tx.now(), &*deps.random)?,
                email: None,
                role: Role::Member,
                managed_by: Some(service),
                external_id: Some(external_id.to_owned()),
                created_at: tx.now(),
            };
            tx.insert_user(org, &user).await?;
            let draft = EntryDraft {
                user: Some(user.id),
                on_behalf: vec![service.to_string()],
                outcome: Some("person_added".to_owned()),
                ..EntryDraft::default()
            };
            tx.append_entry(org, record::open(deps, EntryType::Admin, draft)?)
                .await?;
            tx.commit().await?;
            Ok(user.id)
        })
        .await
}

/// The person a host application calls `external_id`, if there is one.
///
/// # Errors
/// When the database is unavailable.
pub async fn known_host_user(
    deps: &Deps,
    org: OrgId,
    service: ServiceId,
    external_id: &str,
) -> Result<Option<UserId>, Refusal> {
    let mut tx = deps.store.read(org).await?;
    let known = tx.user_by_external_id(org, service, external_id).await?;
    Ok(known.map(|user| user.id))
}

/// Characters in a host application's name for a person.
const LONGEST: usize = 200;
