//! What an org needs to get anything done: policies, agents, apps, and connections that still work.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, de::DeserializeOwned};
use std::time::Duration;

use super::{
    finding::{Check, Finding},
    or_why,
};
use crate::{
    cli::{CliError, client::Client},
    domain::{GrantId, Time, connector::ConnectorId},
};

#[derive(Deserialize)]
struct Policies {
    id: u64,
    org: Vec<serde_json::Value>,
    agent: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Agent {
    state: String,
}

#[derive(Deserialize)]
struct Connector {
    id: ConnectorId,
    configured: bool,
    secret_missing: bool,
    manage_url: Option<String>,
}

#[derive(Deserialize)]
struct Grant {
    id: GrantId,
    connector: ConnectorId,
    state: String,
    #[serde(default)]
    revoked_at: Option<Time>,
    #[serde(default)]
    upstream: Option<String>,
}

/// Whether both sets that an admin writes are there: without a permit in each, everything is denied.
pub(super) async fn policies(client: &Client) -> Vec<Finding> {
    or_why(Check::Policies, looked_at_policies(client).await)
}

async fn looked_at_policies(client: &Client) -> Result<Vec<Finding>, CliError> {
    let versions: Vec<Policies> = all(client, "policies").await?;
    let fix = "name the files in `[policies]` and run `postern apply`";
    let wrong = |found: &str| vec![Finding::wrong(Check::Policies, found, fix)];
    Ok(match versions.last() {
        None => wrong("none: everything is denied"),
        Some(last) if last.org.is_empty() => wrong("the organisation's set is empty: everything is denied"),
        Some(last) if last.agent.is_empty() => wrong("the agents' set is empty: everything is denied"),
        Some(last) => vec![Finding::ok(
            Check::Policies,
            format!("version {} is in force", last.id),
        )],
    })
}

/// Whether there is anybody to act.
pub(super) async fn agents(client: &Client) -> Vec<Finding> {
    or_why(Check::Agents, looked_at_agents(client).await)
}

async fn looked_at_agents(client: &Client) -> Result<Vec<Finding>, CliError> {
    let agents: Vec<Agent> = all(client, "agents").await?;
    let active = agents.iter().filter(|agent| agent.state == "active").count();
    Ok(vec![if active == 0 {
        Finding::warning(
            Check::Agents,
            "none is active: nobody can act",
            "register one with `[[agent]]` and `postern apply`",
        )
    } else {
        Finding::ok(Check::Agents, format!("{active} active"))
    }])
}

/// Apps that can be connected, connections that wait for their person, and providers that were not told of an end.
pub(super) async fn connections(client: &Client, now: Time) -> Vec<Finding> {
    or_why(Check::Grants, looked_at_connections(client, now).await)
}

async fn looked_at_connections(client: &Client, now: Time) -> Result<Vec<Finding>, CliError> {
    let connectors: Vec<Connector> = all(client, "connectors").await?;
    let grants: Vec<Grant> = all(client, "grants").await?;
    let mut findings = of_connectors(&connectors, &grants);
    findings.extend(of_grants(&grants));
    findings.extend(of_upstream(&connectors, &grants, now));
    Ok(findings)
}

fn of_connectors(connectors: &[Connector], grants: &[Grant]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let living: BTreeSet<&ConnectorId> = grants
        .iter()
        .filter(|grant| grant.state != "revoked")
        .map(|grant| &grant.connector)
        .collect();
    for connector in connectors {
        let id = &connector.id;
        if connector.secret_missing {
            findings.push(Finding::wrong(
                Check::Connectors,
                format!("{id} has a client id and no secret: its authorization server gives it no token"),
                format!("set `client_secret_env` in `[connector.{id}]` and run `postern apply`"),
            ));
        }
        if !connector.configured && living.contains(id) {
            findings.push(Finding::wrong(
                Check::Connectors,
                format!("{id} has connections and no client: their tokens cannot be renewed or revoked"),
                format!("set `client_id` in `[connector.{id}]` and run `postern apply`"),
            ));
        }
    }
    for id in living {
        if connectors.iter().all(|connector| connector.id != *id) {
            findings.push(Finding::wrong(
                Check::Connectors,
                format!("{id} has connections and no connector file"),
                "put its file back into `[connectors] dir`",
            ));
        }
    }
    if connectors.iter().all(|connector| !connector.configured) {
        findings.push(Finding::warning(
            Check::Connectors,
            "none is configured: nobody can connect anything",
            "set `client_id` in `[connector.<id>]` and run `postern apply`",
        ));
    }
    if findings.is_empty() {
        let configured = connectors.iter().filter(|connector| connector.configured).count();
        findings.push(Finding::ok(Check::Connectors, format!("{configured} configured")));
    }
    findings
}

fn of_grants(grants: &[Grant]) -> Vec<Finding> {
    let ids = |state: &str| -> Vec<String> {
        let found = grants.iter().filter(|grant| grant.state == state);
        found.map(|grant| grant.id.to_string()).collect()
    };
    let (waiting, quarantined) = (ids("needs_reconnect"), ids("quarantined"));
    let mut findings = Vec::new();
    if !waiting.is_empty() {
        findings.push(Finding::warning(
            Check::Grants,
            format!("{} to be connected again: {}", waiting.len(), some_of(&waiting)),
            "their people reconnect on the Connections page, or by a link of `postern connect`",
        ));
    }
    if !quarantined.is_empty() {
        findings.push(Finding::warning(
            Check::Grants,
            format!(
                "{} came back wider than asked: {}",
                quarantined.len(),
                some_of(&quarantined)
            ),
            "their people connect again; what is not is discarded",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            Check::Grants,
            format!("{} active", ids("active").len()),
        ));
    }
    findings
}

fn of_upstream(connectors: &[Connector], grants: &[Grant], now: Time) -> Vec<Finding> {
    let ended = |result: &str| {
        let found = grants
            .iter()
            .filter(move |grant| grant.upstream.as_deref() == Some(result));
        found.collect::<Vec<_>>()
    };
    let mut findings = Vec::new();
    let stuck: Vec<String> = ended("pending")
        .into_iter()
        .filter(|grant| grant.revoked_at.is_some_and(|at| now.since(at) > LONGEST_PENDING))
        .map(|grant| grant.id.to_string())
        .collect();
    if !stuck.is_empty() {
        findings.push(Finding::wrong(
            Check::Upstream,
            format!(
                "{} revocations have not reached their provider: {}",
                stuck.len(),
                some_of(&stuck)
            ),
            "nothing is released with them; see the service's log for why the provider cannot be reached",
        ));
    }
    let mut unconfirmed: BTreeMap<&ConnectorId, usize> = BTreeMap::new();
    for grant in ended("unconfirmed") {
        *unconfirmed.entry(&grant.connector).or_default() += 1;
    }
    for (id, count) in unconfirmed {
        let known = connectors.iter().find(|connector| connector.id == *id);
        let place = known.and_then(|connector| connector.manage_url.as_deref());
        findings.push(Finding::warning(
            Check::Upstream,
            format!("{id}: {count} revocations the provider did not confirm"),
            match place {
                Some(url) => format!("their people can end the access at {url}"),
                None => "their people can end the access in the provider's own settings".to_owned(),
            },
        ));
    }
    if findings.is_empty() {
        let revoked = ended("revoked").len();
        findings.push(Finding::ok(
            Check::Upstream,
            format!("{revoked} confirmed, none stuck"),
        ));
    }
    findings
}

async fn all<T: DeserializeOwned>(client: &Client, noun: &str) -> Result<Vec<T>, CliError> {
    let items = client.list(&["v1", noun], &[], usize::MAX).await?;
    items
        .into_iter()
        .map(|item| {
            serde_json::from_value(item).map_err(|_| CliError::Answer(format!("{noun} of another form")))
        })
        .collect()
}

/// The first few, so that a line stays a line.
fn some_of(ids: &[String]) -> String {
    let shown = ids.get(..SHOWN).unwrap_or(ids).join(", ");
    if ids.len() > SHOWN {
        format!("{shown} …")
    } else {
        shown
    }
}

const SHOWN: usize = 3;
/// Tries back off to minutes; what waits for longer waits for somebody.
const LONGEST_PENDING: Duration = Duration::from_secs(15 * 60);
