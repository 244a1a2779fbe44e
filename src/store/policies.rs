//! Policy versions and the org's own OAuth clients.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    crypto::keyring::SealedSecret,
    domain::{
        OrgId, ScopeSet,
        connector::ConnectorId,
        rules::{AccountRule, ConnectorRules},
    },
};

use super::{
    StoreError,
    entries::read_sealed,
    sql::{Fields, Row, Tx, json, params},
};

/// A policy file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyText {
    /// Its name, for findings and explanations.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// One version of the org's policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRow {
    /// Counts up by one.
    pub version: u64,
    /// The organisation layer.
    pub org: Vec<PolicyText>,
    /// The agent layer.
    pub agent: Vec<PolicyText>,
    /// `sha256:` hex over both.
    pub digest: String,
}

/// The org's own registration at a connector's authorization server.
#[derive(Debug, Clone)]
pub struct ConnectorClientRow {
    /// At which connector.
    pub connector: ConnectorId,
    /// RFC 6749 §2.2.
    pub client_id: String,
    /// Counts every new secret.
    pub generation: u64,
    /// RFC 6749 §2.3.1; `None`: a public client.
    pub secret: Option<SealedSecret>,
}

impl Tx {
    /// The policies in force.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn policies(&mut self, org: OrgId) -> Result<Option<PolicyRow>, StoreError> {
        let row = self
            .row(
                "SELECT version, texts, digest FROM policies WHERE org_id = $1 ORDER BY version DESC LIMIT 1",
                params![org],
            )
            .await?;
        row.map(read_policies).transpose()
    }

    /// Puts a new version of the policies in force.
    ///
    /// # Errors
    /// When the database is unavailable or the version exists.
    pub async fn insert_policies(&mut self, org: OrgId, policies: &PolicyRow) -> Result<(), StoreError> {
        let texts = Texts {
            org: policies.org.clone(),
            agent: policies.agent.clone(),
        };
        self.change(
            "policies",
            "INSERT INTO policies (org_id, version, texts, digest, created_at) VALUES ($1, $2, $3, $4, $5)",
            params![org, policies.version, json(&texts), &policies.digest, self.now],
        )
        .await
    }

    /// The org's client at a connector.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn connector_client(
        &mut self,
        org: OrgId,
        connector: &ConnectorId,
    ) -> Result<Option<ConnectorClientRow>, StoreError> {
        let row = self
            .row(
                "SELECT connector, client_id, generation, odk, sealed, wrapped_dek FROM connector_clients
                 WHERE org_id = $1 AND connector = $2",
                params![org, connector],
            )
            .await?;
        row.map(read_client).transpose()
    }

    /// Every client of the org.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn connector_clients(&mut self, org: OrgId) -> Result<Vec<ConnectorClientRow>, StoreError> {
        let rows = self
            .rows(
                "SELECT connector, client_id, generation, odk, sealed, wrapped_dek FROM connector_clients
                 WHERE org_id = $1 ORDER BY connector",
                params![org],
            )
            .await?;
        rows.into_iter().map(read_client).collect()
    }

    /// The org's rules about every connector it has a client at.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn connector_rules(
        &mut self,
        org: OrgId,
    ) -> Result<BTreeMap<ConnectorId, ConnectorRules>, StoreError> {
        let rows = self
            .rows(
                "SELECT connector, scopes, accounts FROM connector_clients WHERE org_id = $1",
                params![org],
            )
            .await?;
        rows.into_iter().map(read_rules).collect()
    }

    /// Lays down the org's rules about a connector it has a client at; those before are gone.
    ///
    /// # Errors
    /// When the database is unavailable or the org has no client there.
    pub async fn set_connector_rules(
        &mut self,
        org: OrgId,
        connector: &ConnectorId,
        rules: &ConnectorRules,
    ) -> Result<(), StoreError> {
        let accounts = (!rules.accounts.is_empty()).then_some(&rules.accounts);
        self.change(
            "connector_clients",
            "UPDATE connector_clients SET scopes = $3, accounts = $4, updated_at = $5
             WHERE org_id = $1 AND connector = $2",
            params![
                org,
                connector,
                rules.scopes.as_ref().map(json),
                accounts.map(json),
                self.now
            ],
        )
        .await
    }

    /// Keeps the org's client at a connector; the one before is gone.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn put_connector_client(
        &mut self,
        org: OrgId,
        client: &ConnectorClientRow,
    ) -> Result<(), StoreError> {
        let secret = client.secret.as_ref();
        self.change(
            "connector_clients",
            "INSERT INTO connector_clients (org_id, connector, client_id, generation, odk, sealed, wrapped_dek,
               updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (org_id, connector) DO UPDATE SET client_id = $3, generation = $4, odk = $5, sealed = $6,
               wrapped_dek = $7, updated_at = $8",
            params![
                org,
                &client.connector,
                &client.client_id,
                client.generation,
                secret.map(|secret| secret.odk),
                secret.map(|secret| secret.sealed.as_slice()),
                secret.map(|secret| secret.wrapped_dek.as_slice()),
                self.now
            ],
        )
        .await
    }
}

#[derive(Serialize, Deserialize)]
struct Texts {
    org: Vec<PolicyText>,
    agent: Vec<PolicyText>,
}

pub(super) fn read_policies(row: Row) -> Result<PolicyRow, StoreError> {
    let mut fields = row.fields("policies");
    let version = fields.count()?;
    let Texts { org, agent } = fields.json()?;
    Ok(PolicyRow {
        version,
        org,
        agent,
        digest: fields.text()?,
    })
}

fn read_rules(row: Row) -> Result<(ConnectorId, ConnectorRules), StoreError> {
    let mut fields = row.fields("connector_clients");
    let connector = fields.parse()?;
    let rules = ConnectorRules {
        scopes: fields.opt_json::<ScopeSet>()?,
        accounts: fields.opt_json::<AccountRule>()?.unwrap_or_default(),
    };
    Ok((connector, rules))
}

fn read_client(row: Row) -> Result<ConnectorClientRow, StoreError> {
    client_of(&mut row.fields("connector_clients"))
}

/// Reads the columns of a client.
pub(super) fn client_of(fields: &mut Fields) -> Result<ConnectorClientRow, StoreError> {
    Ok(ConnectorClientRow {
        connector: fields.parse()?,
        client_id: fields.text()?,
        generation: fields.count()?,
        secret: read_sealed(fields)?,
    })
}
