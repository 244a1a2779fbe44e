//! Orgs with very many grants whose access tokens have ended: kept by the program's own functions, each sealed for its own
//! place, without anybody having gone through a consent page.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use postern::{
    app,
    crypto::lookup::show_api_key,
    domain::{
        AgentId, DelegationId, GrantId, OrgId, ScopeSet, UserId,
        connector::Category,
        delegation::Delegation,
        grant::{Account, Grant, GrantState},
        principal::{KeyOwner, Role},
        secret::{AccessToken, RefreshToken},
    },
    flows::{Deps, apply, found, upstream},
    release::seal::Tokens,
    store::{Keyed, UserRow},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    plan::{Orders, PROVIDERS, connector},
    provider::{access_token, refresh_token},
};

/// What was made of one grant.
#[derive(Debug, Clone)]
pub(crate) struct Seeded {
    pub(crate) id: GrantId,
    /// The key of the agent that may use it.
    pub(crate) agent_key: String,
}

/// An org with its agents.
struct Tenant {
    org: OrgId,
    agents: Vec<(AgentId, String)>,
}

/// Founds the orgs and makes the grants; tells the orders which orgs there are.
pub(crate) async fn grants(orders: &mut Orders, count: usize) -> Vec<Seeded> {
    let deps = app::open(orders.parts()).await.unwrap();
    let mut orgs = JoinSet::new();
    for number in 0..ORGS {
        let tenant = tenant(&deps, number).await;
        orders.orgs.push(tenant.org.to_string());
        orgs.spawn(fill(Arc::clone(&deps), tenant, number, count));
    }
    let mut seeded: Vec<(usize, Seeded)> = orgs.join_all().await.into_iter().flatten().collect();
    seeded.sort_by_key(|(grant, _)| *grant);
    deps.store.close().await;
    assert_eq!(seeded.len(), count);
    seeded.into_iter().map(|(_, seeded)| seeded).collect()
}

async fn tenant(deps: &Deps, number: usize) -> Tenant {
    let founded = found::found(
        deps,
        &format!("Org {number}"),
        &format!("admin@org{number}.example"),
    )
    .await
    .unwrap();
    let tools: Vec<String> = (0..PROVIDERS)
        .map(|provider| format!("Action::\"{}:messages.list\"", connector(provider)))
        .collect();
    let permit = format!(
        "@id(\"read\") permit (principal, action in [{}], resource);",
        tools.join(", ")
    );
    let agents: Vec<Value> = (0..AGENTS)
        .map(|agent| json!({"name": format!("Agent {agent}")}))
        .collect();
    let clients: serde_json::Map<String, Value> = (0..PROVIDERS)
        .map(|provider| (connector(provider).to_string(), json!({"client_id": "storm"})))
        .collect();
    let document = toml::to_string(&json!({
        "agent": agents, "connector": clients, "policies": {"org": [permit], "agent": [permit]},
    }))
    .unwrap();
    let applied = apply::apply(deps, founded.org, "storm".to_owned(), &document)
        .await
        .unwrap();
    let mut agents = Vec::new();
    for key in applied.keys.iter().filter(|key| key.kind == "agent") {
        let hash = deps.lookup.api_key(&key.key).unwrap();
        let (org, mut tx) = deps.store.find(Keyed::ApiKey(&hash)).await.unwrap().unwrap();
        let KeyOwner::Agent(agent) = tx.api_key(org, &hash).await.unwrap().unwrap().owner else {
            panic!("not an agent's key");
        };
        agents.push((agent, show_api_key(&key.key)));
    }
    Tenant {
        org: founded.org,
        agents,
    }
}

/// Makes the org's share of the grants: four to a person, one at each provider.
async fn fill(deps: Arc<Deps>, tenant: Tenant, number: usize, count: usize) -> Vec<(usize, Seeded)> {
    let org = tenant.org;
    let mut tx = deps.store.write(org).await.unwrap();
    let now = tx.now();
    let epoch = tx.epoch(org).await.unwrap().unwrap().counter;
    let mut seeded = Vec::new();
    for person in (0..count.div_ceil(PROVIDERS)).filter(|person| person % ORGS == number) {
        // Asked for each time: it may be had for half a minute only.
        let key = deps.org_key(org).await.unwrap();
        let user = UserRow {
            id: UserId::new(now, &*deps.random).unwrap(),
            email: Some(format!("person-{person}@storm.example")),
            role: Role::Member,
            managed_by: None,
            external_id: None,
            created_at: now,
        };
        tx.insert_user(org, &user).await.unwrap();
        for provider in 0..PROVIDERS {
            let number = person * PROVIDERS + provider;
            if number >= count {
                break;
            }
            let connector = connector(provider);
            let grant = Grant {
                id: GrantId::new(now, &*deps.random).unwrap(),
                org,
                user: user.id,
                account: Account {
                    // The provider's own number of it.
                    id: Some(number.to_string()),
                    label: format!("account {number}"),
                    email: None,
                    tenant: None,
                },
                label: None,
                scopes: ScopeSet::parse("mail.read", ' ').unwrap(),
                state: GrantState::Active,
                connected_epoch: epoch,
                generation: 1,
                binding: deps.binding(&connector).unwrap(),
                access_expires_at: Some(now - ENDED),
                has_refresh_token: true,
                connected_at: now - ENDED * 2,
                last_used_at: None,
                connector,
            };
            let tokens = Tokens {
                access_token: Some(AccessToken::new(access_token(number, 1))),
                refresh_token: Some(RefreshToken::new(refresh_token(number, 1))),
                scopes: Some(grant.scopes.clone()),
                expires_at: grant.access_expires_at,
                is_foreign: false,
            };
            let known = deps.catalogue.get(&grant.connector).unwrap();
            upstream::keep_apart(&mut tx, &key, &grant, known, &tokens)
                .await
                .unwrap();
            let (agent, agent_key) = &tenant.agents[person / ORGS % AGENTS];
            tx.replace_delegation(&Delegation {
                id: DelegationId::new(now, &*deps.random).unwrap(),
                org,
                user: user.id,
                agent: *agent,
                grant: grant.id,
                categories: BTreeSet::from([Category::Read]),
                tools: BTreeSet::new(),
                raw: false,
                expires_at: None,
                made_epoch: epoch,
                ended_at: None,
            })
            .await
            .unwrap();
            let (id, agent_key) = (grant.id, agent_key.clone());
            seeded.push((number, Seeded { id, agent_key }));
        }
    }
    tx.commit().await.unwrap();
    seeded
}

const ORGS: usize = 8;
/// Of each org.
const AGENTS: usize = 8;
/// How long ago the access tokens ended.
const ENDED: Duration = Duration::from_secs(3600);
