//! Founding an org: its data key, its first admin, the admin key.

use crate::{
    crypto::{OdkRecord, api_key, random},
    domain::{
        OrgId, UserId,
        entry::{EntryDraft, EntryType},
        principal::{KeyOwner, Role},
        secret::{ApiKey, LinkToken},
        text::{LONGEST_NAME, is_mail_address, line},
    },
    store::{OrgRow, UserRow},
};

use super::{Deps, Refusal, keys, login, record};

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

/// An org about to be founded. Its admin key is there before it is: shown only afterwards it would be lost with a process that
/// ends right after the commit, and nobody could administer the org.
#[derive(Debug)]
pub struct Founding {
    founded: Founded,
    org: OrgRow,
    incarnation: u32,
    odk: OdkRecord,
    admin: UserRow,
    invitation: Option<Invitation>,
}

#[derive(Debug)]
struct Invitation {
    token: LinkToken,
    by: String,
}

/// Makes an org with its data key, one admin and one admin key.
///
/// # Errors
/// When the name is no line or the address no plain one, or the key service or the database is unavailable.
pub async fn found(deps: &Deps, name: &str, admin_email: &str) -> Result<Founded, Refusal> {
    begin(deps, name, admin_email).await?.finish(deps).await
}

/// Makes all of an org but the org: nothing is in the database yet.
///
/// # Errors
/// When the name is no line or the address no plain one, or the key service is unavailable.
pub async fn begin(deps: &Deps, name: &str, admin_email: &str) -> Result<Founding, Refusal> {
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
    Ok(Founding {
        founded: Founded {
            org: org.id,
            admin: admin.id,
            admin_key: api_key::mint(KeyOwner::Admin.kind(), &*deps.random)?,
        },
        org,
        incarnation: u32::from_be_bytes(incarnation),
        odk,
        admin,
        invitation: None,
    })
}

impl Founding {
    /// What is founded once [`Founding::finish`] is done.
    #[must_use]
    pub fn founded(&self) -> &Founded {
        &self.founded
    }

    /// A login link for the admin, which is good from then on.
    ///
    /// # Errors
    /// When the generator cannot deliver.
    pub fn invite(&mut self, deps: &Deps, by: &str) -> Result<String, Refusal> {
        let token = random::link_token(&*deps.random)?;
        let url = deps.link_url("login", &token);
        self.invitation = Some(Invitation {
            token,
            by: by.to_owned(),
        });
        Ok(url)
    }

    /// Writes all of it, or nothing.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn finish(self, deps: &Deps) -> Result<Founded, Refusal> {
        let Founded { org, admin, .. } = self.founded;
        let draft = EntryDraft {
            user: Some(admin),
            outcome: Some("org_created".to_owned()),
            ..EntryDraft::default()
        };
        deps.store
            .retry(|| async {
                let mut tx = deps.store.write(org).await?;
                tx.insert_org(&self.org, self.incarnation).await?;
                tx.insert_odk(&self.odk).await?;
                tx.insert_user(org, &self.admin).await?;
                keys::insert(deps, &mut tx, org, KeyOwner::Admin, &self.founded.admin_key).await?;
                tx.append_entry(org, record::open(deps, EntryType::Admin, draft.clone())?)
                    .await?;
                if let Some(Invitation { token, by }) = &self.invitation {
                    login::insert_link(deps, &mut tx, org, admin, token, by).await?;
                }
                tx.commit().await?;
                Ok::<_, Refusal>(())
            })
            .await?;
        Ok(self.founded)
    }
}
