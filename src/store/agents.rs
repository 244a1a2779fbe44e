//! Principals that are not persons: agents, host applications, policy engines.

use serde::Serialize;

use crate::domain::{AgentId, EngineId, OrgId, ServiceId, Time};

use super::{
    StoreError,
    sql::{Row, Tx, json, params},
};

/// An agent.
#[derive(Debug, Clone, Serialize)]
pub struct AgentRow {
    /// Its id.
    pub id: AgentId,
    /// What people call it.
    pub name: String,
    /// When it was added.
    pub created_at: Time,
    /// When it was disabled.
    pub disabled_at: Option<Time>,
    /// The epoch counter at which it was added.
    #[serde(skip)]
    pub made_epoch: i64,
}

/// A host application.
#[derive(Debug, Clone, Serialize)]
pub struct ServiceRow {
    /// Its id.
    pub id: ServiceId,
    /// What people call it.
    pub name: String,
    /// The exact addresses a browser may be sent back to.
    pub return_urls: Vec<String>,
    /// When it was added.
    pub created_at: Time,
}

/// An external policy engine and the ceiling of its key.
#[derive(Debug, Clone, Serialize)]
pub struct EngineRow {
    /// Its id.
    pub id: EngineId,
    /// What people call it.
    pub name: String,
    /// The `iss` of its decisions.
    pub iss: String,
    /// The one algorithm of its key: `EdDSA` or `ES256`.
    pub alg: String,
    /// RFC 7638 thumbprint of its key.
    pub kid: String,
    /// Its public key.
    pub public_jwk: serde_json::Value,
    /// The connectors it may decide about.
    pub connectors: Vec<String>,
    /// The tools it may decide about (`*`: every tool of those connectors).
    pub tools: Vec<String>,
    /// When it was added.
    pub created_at: Time,
    /// When it was disabled.
    pub disabled_at: Option<Time>,
}

impl Tx {
    /// Adds an agent.
    ///
    /// # Errors
    /// When the database is unavailable or the name is taken.
    pub async fn insert_agent(&mut self, org: OrgId, agent: &AgentRow) -> Result<(), StoreError> {
        self.change(
            "agents",
            "INSERT INTO agents (org_id, id, name, made_epoch, created_at) VALUES ($1, $2, $3, $4, $5)",
            params![org, agent.id, &agent.name, agent.made_epoch, self.now],
        )
        .await
    }

    /// One agent.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn agent(&mut self, org: OrgId, agent: AgentId) -> Result<Option<AgentRow>, StoreError> {
        let row = self
            .row(
                "SELECT id, name, created_at, disabled_at, made_epoch FROM agents WHERE org_id = $1 AND id = $2",
                params![org, agent],
            )
            .await?;
        row.map(read_agent).transpose()
    }

    /// Agents in the order of their ids.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn agents(
        &mut self,
        org: OrgId,
        after: Option<AgentId>,
        limit: u64,
    ) -> Result<Vec<AgentRow>, StoreError> {
        let rows = self
            .rows(
                "SELECT id, name, created_at, disabled_at, made_epoch FROM agents
                 WHERE org_id = $1 AND (CAST($2 AS TEXT) IS NULL OR id > $2) ORDER BY id LIMIT $3",
                params![org, after, limit],
            )
            .await?;
        rows.into_iter().map(read_agent).collect()
    }

    /// Disables an agent; it stays in the list.
    ///
    /// # Errors
    /// When the database is unavailable or there is no such agent.
    pub async fn disable_agent(&mut self, org: OrgId, agent: AgentId) -> Result<(), StoreError> {
        self.change(
            "agents",
            "UPDATE agents SET disabled_at = coalesce(disabled_at, $3) WHERE org_id = $1 AND id = $2",
            params![org, agent, self.now],
        )
        .await
    }

    /// Adds a host application.
    ///
    /// # Errors
    /// When the database is unavailable or the name is taken.
    pub async fn insert_service(&mut self, org: OrgId, service: &ServiceRow) -> Result<(), StoreError> {
        self.change(
            "services",
            "INSERT INTO services (org_id, id, name, return_urls, created_at) VALUES ($1, $2, $3, $4, $5)",
            params![
                org,
                service.id,
                &service.name,
                json(&service.return_urls),
                self.now
            ],
        )
        .await
    }

    /// Replaces the return addresses of a host application.
    ///
    /// # Errors
    /// When the database is unavailable or there is no such application.
    pub async fn set_return_urls(
        &mut self,
        org: OrgId,
        service: ServiceId,
        return_urls: &[String],
    ) -> Result<(), StoreError> {
        self.change(
            "services",
            "UPDATE services SET return_urls = $3 WHERE org_id = $1 AND id = $2",
            params![org, service, json(&return_urls)],
        )
        .await
    }

    /// Every host application of the org.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn services(&mut self, org: OrgId) -> Result<Vec<ServiceRow>, StoreError> {
        let rows = self
            .rows(
                "SELECT id, name, return_urls, created_at FROM services WHERE org_id = $1 ORDER BY id",
                params![org],
            )
            .await?;
        rows.into_iter()
            .map(|row| {
                let mut fields = row.fields("services");
                Ok(ServiceRow {
                    id: fields.parse()?,
                    name: fields.text()?,
                    return_urls: fields.json()?,
                    created_at: fields.time()?,
                })
            })
            .collect()
    }

    /// Registers a policy engine.
    ///
    /// # Errors
    /// When the database is unavailable or its name or key is taken.
    pub async fn insert_engine(&mut self, org: OrgId, engine: &EngineRow) -> Result<(), StoreError> {
        self.change(
            "engines",
            "INSERT INTO engines (org_id, id, name, iss, alg, kid, public_jwk, connectors, tools, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            params![
                org,
                engine.id,
                &engine.name,
                &engine.iss,
                &engine.alg,
                &engine.kid,
                json(&engine.public_jwk),
                json(&engine.connectors),
                json(&engine.tools),
                self.now
            ],
        )
        .await
    }

    /// Changes key and ceiling of an engine; a disabled one is registered again.
    ///
    /// # Errors
    /// When the database is unavailable, or there is no such engine, or the key is another's.
    pub async fn update_engine(&mut self, org: OrgId, engine: &EngineRow) -> Result<(), StoreError> {
        self.change(
            "engines",
            "UPDATE engines SET iss = $3, alg = $4, kid = $5, public_jwk = $6, connectors = $7, tools = $8,
               disabled_at = NULL
             WHERE org_id = $1 AND id = $2",
            params![
                org,
                engine.id,
                &engine.iss,
                &engine.alg,
                &engine.kid,
                json(&engine.public_jwk),
                json(&engine.connectors),
                json(&engine.tools)
            ],
        )
        .await
    }

    /// Disables an engine: its decisions stop counting.
    ///
    /// # Errors
    /// When the database is unavailable or there is no such engine.
    pub async fn disable_engine(&mut self, org: OrgId, engine: EngineId) -> Result<(), StoreError> {
        self.change(
            "engines",
            "UPDATE engines SET disabled_at = coalesce(disabled_at, $3) WHERE org_id = $1 AND id = $2",
            params![org, engine, self.now],
        )
        .await
    }

    /// How many engines of the org are not disabled.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn count_living_engines(&mut self, org: OrgId) -> Result<u64, StoreError> {
        let row = self
            .row(
                "SELECT count(*) FROM engines WHERE org_id = $1 AND disabled_at IS NULL",
                params![org],
            )
            .await?;
        row.map_or(Ok(0), |row| row.fields("engines").count())
    }

    /// Disables every engine of the org that is not, and says which these were.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn disable_every_engine(&mut self, org: OrgId) -> Result<Vec<EngineId>, StoreError> {
        let rows = self
            .rows(
                "UPDATE engines SET disabled_at = $2 WHERE org_id = $1 AND disabled_at IS NULL RETURNING id",
                params![org, self.now],
            )
            .await?;
        let mut engines = rows
            .into_iter()
            .map(|row| row.fields("engines").parse())
            .collect::<Result<Vec<EngineId>, _>>()?;
        engines.sort_unstable();
        Ok(engines)
    }

    /// Every engine of the org.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn engines(&mut self, org: OrgId) -> Result<Vec<EngineRow>, StoreError> {
        let rows = self
            .rows(
                "SELECT id, name, iss, alg, kid, public_jwk, connectors, tools, created_at, disabled_at FROM engines
                 WHERE org_id = $1 ORDER BY id",
                params![org],
            )
            .await?;
        rows.into_iter()
            .map(|row| {
                let mut fields = row.fields("engines");
                Ok(EngineRow {
                    id: fields.parse()?,
                    name: fields.text()?,
                    iss: fields.text()?,
                    alg: fields.text()?,
                    kid: fields.text()?,
                    public_jwk: fields.json()?,
                    connectors: fields.json()?,
                    tools: fields.json()?,
                    created_at: fields.time()?,
                    disabled_at: fields.opt_time()?,
                })
            })
            .collect()
    }
}

fn read_agent(row: Row) -> Result<AgentRow, StoreError> {
    let mut fields = row.fields("agents");
    Ok(AgentRow {
        id: fields.parse()?,
        name: fields.text()?,
        created_at: fields.time()?,
        disabled_at: fields.opt_time()?,
        made_epoch: fields.int()?,
    })
}
