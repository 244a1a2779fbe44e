//! One thing a document asks for: in words, and done.

use crate::{
    crypto::OdkHandle,
    domain::{
        AgentId, EngineId, OrgId, ServiceId, Time, UserId,
        connector::ConnectorId,
        principal::{KeyOwner, Role},
        rules::ConnectorRules,
        secret::ClientSecret,
    },
    flows::{Deps, Refusal, keys},
    release::seal,
    store::{
        AgentRow, ConnectorClientRow, EngineRow, PolicyRow, PolicyText, ServiceRow, StoreError, Tx, UserRow,
    },
};

use super::{Change, NewKey, document::EngineDoc, pinned, rules};

/// One thing to do.
pub(super) enum Work {
    SetMayAsk {
        name: String,
        may_ask: bool,
    },
    CreateAgent(String),
    CreateEngine(EngineDoc),
    UpdateEngine(EngineId, EngineDoc),
    CreatePerson {
        email: String,
        role: Role,
    },
    UpdateRole {
        user: UserId,
        email: String,
        role: Role,
    },
    CreateService {
        name: String,
        return_urls: Vec<String>,
    },
    UpdateService {
        id: ServiceId,
        name: String,
        return_urls: Vec<String>,
    },
    PutClient {
        connector: ConnectorId,
        client_id: String,
        secret: Option<ClientSecret>,
        generation: u64,
    },
    PutRules {
        connector: ConnectorId,
        rules: ConnectorRules,
    },
    PutPolicies {
        row: PolicyRow,
        /// Whether the document names the organisation's layer, and the agents'.
        named: (bool, bool),
    },
}

impl Work {
    /// In words.
    pub(super) fn describe(&self) -> Change {
        let (change, kind, name, detail) = match self {
            Self::SetMayAsk { name, may_ask } => {
                let detail = if *may_ask {
                    "agents may ask people who have not connected yet to connect"
                } else {
                    "agents may not ask people who have not connected yet"
                };
                ("update", "org", name.clone(), detail.to_owned())
            }
            Self::CreateAgent(name) => ("create", "agent", name.clone(), "with a new key".to_owned()),
            Self::CreateEngine(engine) | Self::UpdateEngine(_, engine) => {
                let change = if matches!(self, Self::CreateEngine(_)) {
                    "create"
                } else {
                    "update"
                };
                let ceiling = match (&*engine.tools, &*engine.connectors) {
                    ([], _) | (_, []) => "nothing".to_owned(),
                    (tools, connectors) => format!("{} at {}", tools.join(", "), connectors.join(", ")),
                };
                let detail = format!("{}, may decide about {ceiling}", engine.alg);
                (change, "engine", engine.name.clone(), detail)
            }
            Self::CreatePerson { email, role } => {
                ("create", "person", email.clone(), role.as_str().to_owned())
            }
            Self::UpdateRole { email, role, .. } => (
                "update",
                "person",
                email.clone(),
                format!("role becomes {}", role.as_str()),
            ),
            Self::CreateService { name, return_urls } => (
                "create",
                "service",
                name.clone(),
                format!("with a new key; returns to {}", return_urls.join(", ")),
            ),
            Self::UpdateService {
                name, return_urls, ..
            } => (
                "update",
                "service",
                name.clone(),
                format!("returns to {}", return_urls.join(", ")),
            ),
            Self::PutClient {
                connector,
                client_id,
                secret,
                generation,
            } => {
                let secret = if secret.is_some() {
                    "with a secret"
                } else {
                    "public, without a secret"
                };
                let change = if *generation == 1 { "create" } else { "update" };
                (
                    change,
                    "connector",
                    connector.to_string(),
                    format!("client {client_id}, {secret}"),
                )
            }
            Self::PutRules { connector, rules } => (
                "update",
                "connector",
                connector.to_string(),
                rules::describe(rules),
            ),
            Self::PutPolicies { row, named } => {
                let layer = |texts: &[PolicyText], named: bool| match (named, texts.len()) {
                    (true, count) => count.to_string(),
                    (false, 0) => "none".to_owned(),
                    (false, count) => format!("{count} kept"),
                };
                let detail = format!(
                    "version {}: {} for the organisation, {} for agents",
                    row.version,
                    layer(&row.org, named.0),
                    layer(&row.agent, named.1)
                );
                let change = if row.version == 1 { "create" } else { "update" };
                (change, "policies", "policies".to_owned(), detail)
            }
        };
        Change {
            change,
            kind,
            name,
            detail,
        }
    }

    /// Does it; a key minted on the way is in the answer.
    pub(super) async fn run(
        self,
        deps: &Deps,
        tx: &mut Tx,
        org: OrgId,
        epoch: i64,
        key: &OdkHandle,
    ) -> Result<Option<NewKey>, Refusal> {
        let now = tx.now();
        match self {
            Self::SetMayAsk { may_ask, .. } => tx.set_agents_may_ask(org, may_ask).await?,
            Self::CreateAgent(name) => {
                let agent = AgentRow {
                    id: AgentId::new(now, &*deps.random)?,
                    name,
                    created_at: now,
                    disabled_at: None,
                    made_epoch: epoch,
                };
                tx.insert_agent(org, &agent).await?;
                let made = keys::mint(deps, tx, org, KeyOwner::Agent(agent.id)).await?;
                return Ok(Some(NewKey {
                    kind: "agent",
                    name: agent.name,
                    id: agent.id.to_string(),
                    key: made.key,
                }));
            }
            Self::CreateService { name, return_urls } => {
                let service = ServiceRow {
                    id: ServiceId::new(now, &*deps.random)?,
                    name,
                    return_urls,
                    created_at: now,
                };
                tx.insert_service(org, &service).await?;
                let made = keys::mint(deps, tx, org, KeyOwner::Service(service.id)).await?;
                return Ok(Some(NewKey {
                    kind: "service",
                    name: service.name,
                    id: service.id.to_string(),
                    key: made.key,
                }));
            }
            Self::UpdateService { id, return_urls, .. } => tx.set_return_urls(org, id, &return_urls).await?,
            Self::CreateEngine(engine) => {
                let id = EngineId::new(now, &*deps.random)?;
                tx.insert_engine(org, &engine_row(id, engine, now)?).await?;
            }
            Self::UpdateEngine(id, engine) => tx.update_engine(org, &engine_row(id, engine, now)?).await?,
            Self::CreatePerson { email, role } => {
                let user = UserRow {
                    id: UserId::new(now, &*deps.random)?,
                    email: Some(email),
                    role,
                    managed_by: None,
                    external_id: None,
                    created_at: now,
                };
                tx.insert_user(org, &user).await?;
            }
            Self::UpdateRole { user, role, .. } => tx.set_role(org, user, role).await?,
            Self::PutClient {
                connector,
                client_id,
                secret,
                generation,
            } => {
                let secret = match secret {
                    None => None,
                    Some(secret) => Some(seal::client_secret(key, org, &connector, generation, &secret)?),
                };
                let row = ConnectorClientRow {
                    connector,
                    client_id,
                    generation,
                    secret,
                };
                tx.put_connector_client(org, &row).await?;
            }
            Self::PutRules { connector, rules } => tx.set_connector_rules(org, &connector, &rules).await?,
            Self::PutPolicies { row, .. } => tx.insert_policies(org, &row).await?,
        }
        Ok(None)
    }
}

fn engine_row(id: EngineId, engine: EngineDoc, now: Time) -> Result<EngineRow, Refusal> {
    let kid = pinned(&engine)
        .ok_or(StoreError::Inconsistent { table: "engines" })?
        .kid()
        .to_owned();
    Ok(EngineRow {
        id,
        name: engine.name,
        iss: engine.iss,
        alg: engine.alg,
        kid,
        public_jwk: engine.public_key_jwk,
        connectors: engine.connectors,
        tools: engine.tools,
        created_at: now,
        disabled_at: None,
    })
}
