//! `apply`: an org described in one document. A plan first, then the same plan done, in one transaction.

mod document;
mod rules;
mod work;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    crypto::{digest, jwk::PinnedKey},
    domain::{
        OrgId,
        connector::ConnectorId,
        entry::{EntryDraft, EntryType},
        secret::ApiKey,
    },
    policy::PolicyFinding,
    store::{EngineRow, PolicyRow, PolicyText, Selector, Tx},
};

use super::{Deps, Fault, Refusal, record};
use document::{ConnectorDoc, Document, EngineDoc, PoliciesDoc, parse};
use work::Work;

/// What a document would change.
#[derive(Debug)]
pub struct Plan {
    /// One line per thing that differs; empty: nothing to change.
    pub changes: Vec<Change>,
    /// What the document names and apply leaves as it is.
    pub warnings: Vec<Warning>,
}

/// Something the document asks for that apply does not do.
#[derive(Debug)]
pub struct Warning {
    /// What it is.
    pub kind: &'static str,
    /// Which one.
    pub name: String,
    /// Why it stays as it is, and what to do instead.
    pub detail: String,
}

/// One thing that differs.
#[derive(Debug, Serialize)]
pub struct Change {
    /// `create` or `update`.
    pub change: &'static str,
    /// What it is.
    pub kind: &'static str,
    /// Which one.
    pub name: String,
    /// What about it.
    pub detail: String,
}

/// What was changed.
#[derive(Debug)]
pub struct Applied {
    /// One line per change.
    pub changes: Vec<Change>,
    /// What the document names and apply left as it is.
    pub warnings: Vec<Warning>,
    /// Keys just minted, shown this once.
    pub keys: Vec<NewKey>,
}

/// A key just minted.
#[derive(Debug)]
pub struct NewKey {
    /// `agent` or `service`.
    pub kind: &'static str,
    /// Whose.
    pub name: String,
    /// Its owner's id.
    pub id: String,
    /// The key.
    pub key: ApiKey,
}

/// What a document would change; changes nothing.
///
/// # Errors
/// When the document does not hold.
pub async fn plan(deps: &Deps, org: OrgId, toml: &str) -> Result<Plan, Refusal> {
    let document = checked(deps, org, toml).await?;
    let mut tx = deps.store.read(org).await?;
    let (work, warnings) = compare(&mut tx, org, document).await?;
    Ok(Plan {
        changes: work.iter().map(Work::describe).collect(),
        warnings,
    })
}

/// Does what a document says, all of it or nothing.
///
/// # Errors
/// When the document does not hold, or something of ours is unavailable.
pub async fn apply(deps: &Deps, org: OrgId, by: String, toml: &str) -> Result<Applied, Refusal> {
    checked(deps, org, toml).await?;
    // The key first: no key service is asked while the transaction is open.
    let key = deps.org_key(org).await?;
    deps.store
        .retry(|| async {
            let document = parse(toml)?;
            let mut tx = deps.store.write(org).await?;
            let (work, warnings) = compare(&mut tx, org, document).await?;
            let changes: Vec<Change> = work.iter().map(Work::describe).collect();
            if changes.is_empty() {
                return Ok(Applied {
                    changes,
                    warnings,
                    keys: Vec::new(),
                });
            }
            let epoch = tx.advance_epoch(org, &Selector::All(true)).await?;
            let mut keys = Vec::new();
            for one in work {
                if let Some(key) = one.run(deps, &mut tx, org, epoch.counter, &key).await? {
                    keys.push(key);
                }
            }
            let draft = EntryDraft {
                on_behalf: vec![by.clone()],
                outcome: Some("applied".to_owned()),
                ..EntryDraft::default()
            };
            let details = record::Details {
                note: serde_json::to_value(&changes).ok(),
                ..record::Details::default()
            };
            let entry = record::sealed(
                deps,
                &key,
                org,
                EntryType::Admin,
                draft,
                &record::Hashed::default(),
                details,
            )?;
            tx.append_entry(org, entry).await?;
            tx.commit().await?;
            Ok(Applied {
                changes,
                warnings,
                keys,
            })
        })
        .await
}

/// A document whose every part was looked at.
async fn checked(deps: &Deps, org: OrgId, toml: &str) -> Result<Document, Refusal> {
    let document = parse(toml)?;
    for (id, wanted) in &document.connector {
        let connector = id.parse::<ConnectorId>().ok();
        let connector = connector
            .and_then(|id| deps.catalogue.get(&id))
            .ok_or_else(|| Refusal::invalid(&format!("/connector/{id}"), "there is no such connector"))?;
        rules::check(connector, wanted)?;
    }
    for (index, engine) in document.engine.iter().enumerate() {
        pinned(engine)
            .filter(|key| key.algorithm().as_str() == engine.alg)
            .ok_or_else(|| {
                Refusal::invalid(
                    &format!("/engine/{index}/public_key_jwk"),
                    "not a public Ed25519 or P-256 key for this alg (EdDSA or ES256)",
                )
            })?;
        // INVARIANT: the notary's key has one owner; under an engine's name Postern's own decisions would not hold.
        let taken = |key: &PinnedKey| {
            let notary = deps.notary.public();
            key.kid() == notary.kid() || key.key() == notary.key()
        };
        if pinned(engine).is_some_and(|key| taken(&key)) {
            return Err(Refusal::invalid(
                &format!("/engine/{index}/public_key_jwk"),
                "this is Postern's own key, or has its name",
            ));
        }
        if engine.iss == deps.issuer {
            return Err(Refusal::invalid(
                &format!("/engine/{index}/iss"),
                "this is Postern's own issuer",
            ));
        }
    }
    if let Some(policies) = &document.policies {
        // A layer that is kept was checked when it came.
        let (of_org, of_agents) = (texts("org", &policies.org), texts("agent", &policies.agent));
        let findings = deps.facts.findings(deps, org, of_org, of_agents).await?;
        if !findings.is_empty() {
            let fault = |finding: PolicyFinding| Fault {
                pointer: "/policies".to_owned(),
                detail: finding.to_string(),
            };
            return Err(Refusal::InvalidRequest(findings.into_iter().map(fault).collect()));
        }
    }
    Ok(document)
}

fn pinned(engine: &EngineDoc) -> Option<PinnedKey> {
    PinnedKey::from_jwk(&engine.public_key_jwk).ok()
}

fn texts(layer: &str, texts: &Option<Vec<String>>) -> Vec<PolicyText> {
    let name = |(index, text): (usize, &String)| PolicyText {
        name: format!("{layer}-{}.cedar", index + 1),
        text: text.clone(),
    };
    texts.iter().flatten().enumerate().map(name).collect()
}

/// What the document asks for that is not so yet, and what of it apply does not do.
async fn compare(tx: &mut Tx, org: OrgId, document: Document) -> Result<(Vec<Work>, Vec<Warning>), Refusal> {
    let mut work = Vec::new();
    let mut warnings = Vec::new();
    if let Some(may_ask) = document.org.and_then(|org| org.agents_may_ask) {
        let known = tx.org(org).await?.ok_or(Refusal::NotFound)?;
        if known.agents_may_ask != may_ask {
            work.push(Work::SetMayAsk {
                name: known.name,
                may_ask,
            });
        }
    }
    let agents = tx.agents(org, None, ALL).await?;
    for agent in document.agent {
        match agents.iter().find(|known| known.name == agent.name) {
            None => work.push(Work::CreateAgent(agent.name)),
            Some(known) if known.disabled_at.is_some() => warnings.push(Warning {
                kind: "agent",
                name: agent.name,
                detail: "was revoked and stays so; an agent that is to work needs another name".to_owned(),
            }),
            Some(_) => {}
        }
    }
    let engines = tx.engines(org).await?;
    let mut kids: BTreeMap<String, String> = engines
        .iter()
        .map(|known| (known.kid.clone(), known.name.clone()))
        .collect();
    for engine in document.engine {
        if let Some(key) = pinned(&engine)
            && let Some(owner) = kids.insert(key.kid().to_owned(), engine.name.clone())
            && owner != engine.name
        {
            // A decision names its key by `kid` alone: one owner per org (protocol §4).
            return Err(Refusal::invalid(
                "/engine/public_key_jwk",
                "another engine has this key, or a key of this name",
            ));
        }
        match engines.iter().find(|known| known.name == engine.name) {
            None => work.push(Work::CreateEngine(engine)),
            Some(known) if same_engine(known, &engine) => {}
            Some(known) => work.push(Work::UpdateEngine(known.id, engine)),
        }
    }
    for person in document.person {
        let email = document::address_key(&person.email);
        match tx.user_by_email(org, &email).await? {
            None => work.push(Work::CreatePerson {
                email,
                role: person.role,
            }),
            Some(known) if known.role == person.role => {}
            Some(known) => work.push(Work::UpdateRole {
                user: known.id,
                email,
                role: person.role,
            }),
        }
    }
    let services = tx.services(org).await?;
    for service in document.service {
        match services.iter().find(|known| known.name == service.name) {
            None => work.push(Work::CreateService {
                name: service.name,
                return_urls: service.return_urls,
            }),
            Some(known) if known.return_urls == service.return_urls => {}
            Some(known) => work.push(Work::UpdateService {
                id: known.id,
                name: service.name,
                return_urls: service.return_urls,
            }),
        }
    }
    for (connector, wanted) in document.connector {
        let connector: ConnectorId = connector.parse().map_err(|_| Refusal::NotFound)?;
        compare_connector(tx, org, connector, wanted, &mut work).await?;
    }
    if let Some(policies) = document.policies {
        let known = tx.policies(org).await?;
        let row = in_force(known.as_ref(), &policies)?;
        if known.is_none_or(|known| known.digest != row.digest) {
            let named = (policies.org.is_some(), policies.agent.is_some());
            work.push(Work::PutPolicies { row, named });
        }
    }
    Ok((work, warnings))
}

async fn compare_connector(
    tx: &mut Tx,
    org: OrgId,
    connector: ConnectorId,
    wanted: ConnectorDoc,
    work: &mut Vec<Work>,
) -> Result<(), Refusal> {
    let known = tx.connector_client(org, &connector).await?;
    let rules = tx
        .connector_rules(org)
        .await?
        .remove(&connector)
        .unwrap_or_default();
    let lawful = rules::wanted(&rules, &wanted);
    match (wanted.client_id, &known) {
        (None, None) => {
            return Err(Refusal::invalid(
                &format!("/connector/{connector}/client_id"),
                "is needed: the organisation has no client at this connector yet",
            ));
        }
        (None, Some(_)) => {}
        (Some(client_id), Some(known))
            if known.client_id == client_id && known.secret.is_none() && wanted.client_secret.is_none() => {}
        // A secret cannot be compared without opening it: giving one always replaces it.
        (Some(client_id), known) => work.push(Work::PutClient {
            connector: connector.clone(),
            client_id,
            secret: wanted.client_secret,
            generation: known.as_ref().map_or(1, |known| known.generation + 1),
        }),
    }
    if lawful != rules {
        work.push(Work::PutRules {
            connector,
            rules: lawful,
        });
    }
    Ok(())
}

/// The next version: the layers that are named, and the others as they are.
fn in_force(known: Option<&PolicyRow>, policies: &PoliciesDoc) -> Result<PolicyRow, Refusal> {
    let layer = |name: &str, named: &Option<Vec<String>>, kept: fn(&PolicyRow) -> &Vec<PolicyText>| {
        if named.is_some() {
            texts(name, named)
        } else {
            known.map(kept).cloned().unwrap_or_default()
        }
    };
    let org = layer("org", &policies.org, |known| &known.org);
    let agent = layer("agent", &policies.agent, |known| &known.agent);
    let canonical = crate::crypto::jcs::canonicalize(&(&org, &agent))?;
    Ok(PolicyRow {
        version: known.map_or(1, |known| known.version + 1),
        digest: digest::sha256_text(&canonical),
        org,
        agent,
    })
}

fn same_engine(known: &EngineRow, engine: &EngineDoc) -> bool {
    known.iss == engine.iss
        && known.alg == engine.alg
        && pinned(engine).is_some_and(|key| key.kid() == known.kid)
        && known.connectors == engine.connectors
        && known.tools == engine.tools
        && known.disabled_at.is_none()
}

/// Agents of one org; more are not compared.
const ALL: u64 = 100_000;
