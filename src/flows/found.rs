//! Founding an org: its data key, its first admin, the admin key.

use crate::{
    domain::{
        OrgId, UserId,
        entry::{EntryDraft, EntryType},
        principal::{KeyOwner, Role},
        secret::ApiKey,
        text::{LONGEST_NAME, is_mail_address, line},
    },
    store::{OrgRow, UserRow},
};

use super::{Deps, Refusal, keys, record};

/// An org as founded.
#[derive(Debug)]
pub struct Founded {
    /// The org.
    pub org: OrgId,
    /// Its first admin.
    pub admin: UserId,
    /// The admin key, shown this once.
    pub admin_key: ApiKey,
}

/// Makes an org with its data key, one admin and one admin key.
///
/// # Errors
/// When the name is no line or the address no plain one, or the key service or the database is unavailable.
pub async fn found(deps: &Deps, name: &str, admin_email: &str) -> Result<Founded, Refusal> {
    line(name, LONGEST_NAME).map_err(|refused| Refusal::invalid("/name", refused.to_string()))?;
    if !is_mail_address(admin_email) {
        return Err(Refusal::invalid("/admin", "an email is one plain address"));
    }
    let now = deps.clock.now();
    let org = OrgRow {
        id: OrgId::new(now, &*deps.random)?,
        name: name.to_owned(),
        agents_may_ask: true,
    };
    let odk = deps.keyring.create_odk(Some(org.id), &deps.kek_ref).await?;
    let mut incarnation = [0_u8; 4];
    deps.random.fill(&mut incarnation)?;
    let admin = UserRow {
        id: UserId::new(now, &*deps.random)?,
        email: Some(admin_email.to_lowercase()),
        role: Role::Admin,
        managed_by: None,
        external_id: None,
        created_at: now,
    };
    let draft = EntryDraft {
        user: Some(admin.id),
        outcome: Some("org_created".to_owned()),
        ..EntryDraft::default()
    };
    deps.store
        .retry(|| async {
            let mut tx = deps.store.write(org.id).await?;
            tx.insert_org(&org, u32::from_be_bytes(incarnation)).await?;
            tx.insert_odk(&odk).await?;
            tx.insert_user(org.id, &admin).await?;
            let admin_key = keys::mint(deps, &mut tx, org.id, KeyOwner::Admin).await?;
            tx.append_entry(org.id, record::open(deps, EntryType::Admin, draft.clone())?)
                .await?;
            tx.commit().await?;
            Ok(Founded {
                org: org.id,
                admin: admin.id,
                admin_key: admin_key.key,
            })
        })
        .await
}
