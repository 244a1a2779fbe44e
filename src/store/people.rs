//! Orgs and persons.

use serde::Serialize;

use crate::domain::{OrgId, ServiceId, Time, UserId, entry::Epoch, principal::Role};

use super::{
    StoreError,
    outside::Fact,
    sql::{Row, Tx, params},
};

/// A tenant.
#[derive(Debug, Clone)]
pub struct OrgRow {
    /// Its id.
    pub id: OrgId,
    /// What people call it.
    pub name: String,
    /// Whether an agent may ask a person who has not connected yet to do so.
    pub agents_may_ask: bool,
}

/// A person.
#[derive(Debug, Clone, Serialize)]
pub struct UserRow {
    /// Their id.
    pub id: UserId,
    /// Their address; host-managed persons may have none.
    pub email: Option<String>,
    /// What they may do.
    pub role: Role,
    /// The host application that manages them; `None`: Postern's own login.
    pub managed_by: Option<ServiceId>,
    /// That application's own id for them.
    pub external_id: Option<String>,
    /// When they were added.
    pub created_at: Time,
}

impl UserRow {
    /// What people read: the address, else the host's id, else the id.
    #[must_use]
    pub fn display(&self) -> String {
        self.email
            .clone()
            .or_else(|| self.external_id.clone())
            .unwrap_or_else(|| self.id.to_string())
    }
}

impl Tx {
    /// Makes an org at the first epoch of a fresh incarnation.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn insert_org(&mut self, org: &OrgRow, incarnation: u32) -> Result<(), StoreError> {
        self.change(
            "orgs",
            "INSERT INTO orgs (org_id, name, agents_may_ask, created_at) VALUES ($1, $2, $3, $4)",
            params![org.id, &org.name, org.agents_may_ask, self.now],
        )
        .await?;
        self.change(
            "epochs",
            "INSERT INTO epochs (org_id, incarnation, counter) VALUES ($1, $2, 1)",
            params![org.id, i64::from(incarnation)],
        )
        .await?;
        let epoch = Epoch {
            incarnation,
            counter: 1,
        };
        self.tell_outside(org.id, epoch, Fact::Began);
        Ok(())
    }

    /// One org.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn org(&mut self, org: OrgId) -> Result<Option<OrgRow>, StoreError> {
        let row = self
            .row(
                "SELECT org_id, name, agents_may_ask FROM orgs WHERE org_id = $1",
                params![org],
            )
            .await?;
        row.map(read_org).transpose()
    }

    /// Says whether agents may ask people who have not connected yet.
    ///
    /// # Errors
    /// When the database is unavailable or there is no such org.
    pub async fn set_agents_may_ask(&mut self, org: OrgId, may_ask: bool) -> Result<(), StoreError> {
        self.change(
            "orgs",
            "UPDATE orgs SET agents_may_ask = $2 WHERE org_id = $1",
            params![org, may_ask],
        )
        .await
    }

    /// Adds a person; `Exists` if the address or host id is taken.
    ///
    /// # Errors
    /// When the database is unavailable or the person exists.
    pub async fn insert_user(&mut self, org: OrgId, user: &UserRow) -> Result<(), StoreError> {
        self.change(
            "users",
            "INSERT INTO users (org_id, id, email, role, service_id, external_id, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            params![
                org,
                user.id,
                user.email.as_deref(),
                user.role.as_str(),
                user.managed_by,
                user.external_id.as_deref(),
                self.now
            ],
        )
        .await
    }

    /// Changes what a person may do.
    ///
    /// # Errors
    /// When the database is unavailable or there is no such person.
    pub async fn set_role(&mut self, org: OrgId, user: UserId, role: Role) -> Result<(), StoreError> {
        self.change(
            "users",
            "UPDATE users SET role = $3 WHERE org_id = $1 AND id = $2",
            params![org, user, role.as_str()],
        )
        .await
    }

    /// One person.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn user(&mut self, org: OrgId, user: UserId) -> Result<Option<UserRow>, StoreError> {
        let row = self
            .row(
                "SELECT id, email, role, service_id, external_id, created_at FROM users WHERE org_id = $1 AND id = $2",
                params![org, user],
            )
            .await?;
        row.map(read_user).transpose()
    }

    /// The person with this address.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn user_by_email(&mut self, org: OrgId, email: &str) -> Result<Option<UserRow>, StoreError> {
        let row = self
            .row(
                "SELECT id, email, role, service_id, external_id, created_at FROM users
                 WHERE org_id = $1 AND email = $2",
                params![org, email],
            )
            .await?;
        row.map(read_user).transpose()
    }

    /// The person a host application knows by this id.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn user_by_external_id(
        &mut self,
        org: OrgId,
        service: ServiceId,
        external_id: &str,
    ) -> Result<Option<UserRow>, StoreError> {
        let row = self
            .row(
                "SELECT id, email, role, service_id, external_id, created_at FROM users
                 WHERE org_id = $1 AND service_id = $2 AND external_id = $3",
                params![org, service, external_id],
            )
            .await?;
        row.map(read_user).transpose()
    }

    /// Persons in the order of their ids.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn users(
        &mut self,
        org: OrgId,
        after: Option<UserId>,
        limit: u64,
    ) -> Result<Vec<UserRow>, StoreError> {
        let rows = self
            .rows(
                "SELECT id, email, role, service_id, external_id, created_at FROM users
                 WHERE org_id = $1 AND (CAST($2 AS TEXT) IS NULL OR id > $2) ORDER BY id LIMIT $3",
                params![org, after, limit],
            )
            .await?;
        rows.into_iter().map(read_user).collect()
    }
}

fn read_org(row: Row) -> Result<OrgRow, StoreError> {
    let mut fields = row.fields("orgs");
    Ok(OrgRow {
        id: fields.parse()?,
        name: fields.text()?,
        agents_may_ask: fields.flag()?,
    })
}

pub(super) fn read_user(row: Row) -> Result<UserRow, StoreError> {
    let mut fields = row.fields("users");
    Ok(UserRow {
        id: fields.parse()?,
        email: fields.opt_text()?,
        role: match fields.text()?.as_str() {
            "admin" => Role::Admin,
            "member" => Role::Member,
            _ => return Err(fields.bad()),
        },
        managed_by: fields.opt_parse()?,
        external_id: fields.opt_text()?,
        created_at: fields.time()?,
    })
}
