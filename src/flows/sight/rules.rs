//! What the org has laid down: settings, keys, engines, policies, connectors. All but connectors are for admins; the
//! routes say so.

use std::collections::BTreeMap;

use crate::{
    domain::{
        EngineId, KeyId, OrgId,
        connector::{ClientType, ConnectorId},
        rules::ConnectorRules,
    },
    flows::{Deps, Refusal},
    store::{ApiKeyRow, ConnectorClientRow, EngineRow, OrgRow, PolicyRow},
};

/// The org's own settings, and its client and rules at every connector it has one at.
#[derive(Debug)]
pub struct Settings {
    /// The org.
    pub org: OrgRow,
    /// In the order of their ids.
    pub connectors: Vec<(ConnectorClientRow, ConnectorRules)>,
}

/// The settings of the org.
///
/// # Errors
/// When the database is unavailable.
pub async fn settings(deps: &Deps, org: OrgId) -> Result<Settings, Refusal> {
    let mut tx = deps.store.read(org).await?;
    let row = tx.org(org).await?.ok_or(Refusal::NotFound)?;
    let mut rules = tx.connector_rules(org).await?;
    let clients = tx.connector_clients(org).await?;
    let connectors = clients.into_iter().map(|client| {
        let rules = rules.remove(&client.connector).unwrap_or_default();
        (client, rules)
    });
    Ok(Settings {
        org: row,
        connectors: connectors.collect(),
    })
}

/// The API keys of the org behind `after`, revoked ones too.
///
/// # Errors
/// When the database is unavailable.
pub async fn keys(
    deps: &Deps,
    org: OrgId,
    after: Option<KeyId>,
    limit: u64,
) -> Result<Vec<ApiKeyRow>, Refusal> {
    Ok(deps.store.read(org).await?.api_keys(org, after, limit).await?)
}

/// One API key of the org.
///
/// # Errors
/// When there is none.
pub async fn key(deps: &Deps, org: OrgId, id: KeyId) -> Result<ApiKeyRow, Refusal> {
    let key = deps.store.read(org).await?.api_key_by_id(org, id).await?;
    key.ok_or(Refusal::NotFound)
}

/// The engines of the org behind `after`.
///
/// # Errors
/// When the database is unavailable.
pub async fn engines(
    deps: &Deps,
    org: OrgId,
    after: Option<EngineId>,
    limit: u64,
) -> Result<Vec<EngineRow>, Refusal> {
    let engines = deps.store.read(org).await?.engines(org).await?;
    Ok(engines
        .into_iter()
        .filter(|engine| after.is_none_or(|after| engine.id > after))
        .take(usize::try_from(limit).unwrap_or(usize::MAX))
        .collect())
}

/// One engine of the org.
///
/// # Errors
/// When there is none.
pub async fn engine(deps: &Deps, org: OrgId, id: EngineId) -> Result<EngineRow, Refusal> {
    let engines = deps.store.read(org).await?.engines(org).await?;
    engines
        .into_iter()
        .find(|engine| engine.id == id)
        .ok_or(Refusal::NotFound)
}

/// The policy versions of the org behind `after`, oldest first.
///
/// # Errors
/// When the database is unavailable.
pub async fn policies(
    deps: &Deps,
    org: OrgId,
    after: Option<u64>,
    limit: u64,
) -> Result<Vec<PolicyRow>, Refusal> {
    let mut tx = deps.store.read(org).await?;
    Ok(tx.policy_versions(org, after, limit).await?)
}

/// One policy version of the org.
///
/// # Errors
/// When there is none.
pub async fn policy(deps: &Deps, org: OrgId, version: u64) -> Result<PolicyRow, Refusal> {
    let before = version.checked_sub(1).ok_or(Refusal::NotFound)?;
    let found = policies(deps, org, Some(before), 1).await?;
    found
        .into_iter()
        .find(|row| row.version == version)
        .ok_or(Refusal::NotFound)
}

/// The connectors at which the org has a client, and of which type.
///
/// # Errors
/// When the database is unavailable.
pub async fn configured(deps: &Deps, org: OrgId) -> Result<BTreeMap<ConnectorId, ClientType>, Refusal> {
    let clients = deps.store.read(org).await?.connector_clients(org).await?;
    let kind = |has_secret| match has_secret {
        true => ClientType::Confidential,
        false => ClientType::Public,
    };
    Ok(clients
        .into_iter()
        .map(|client| (client.connector, kind(client.secret.is_some())))
        .collect())
}
