//! More orgs of the same deployment.

use postern::{
    dev::acme_mail::DEMO_CLIENT_ID,
    domain::{
        GrantId,
        connector::Category,
        principal::{KeyKind, Principal},
        secret::ApiKey,
    },
    flows::{Deps, actions::Caller, apply, authenticate, connect::begin, found},
    policy::demo,
};
use serde_json::json;

use super::{Journey, World};

/// The agent whose key this is, as a caller.
pub async fn agent_with(deps: &Deps, key: &ApiKey) -> Caller {
    match authenticate::by_key(deps, KeyKind::Agent, key).await {
        Ok(Principal::Agent { org, agent, key }) => Caller { org, agent, key },
        other => panic!("not an agent's key: {other:?}"),
    }
}

impl World {
    /// Founds one more org: its agent, and a grant of its admin that this agent may read with.
    pub async fn another_org(&self, name: &str) -> (Caller, GrantId) {
        let founded = found::found(&self.deps, name, "eve@other.example").await.unwrap();
        let document = toml::to_string(&json!({
            "agent": [{"name": "Mail Assistant"}],
            "connector": {"acme-mail": {"client_id": DEMO_CLIENT_ID}},
            "policies": {"org": [demo::ORG], "agent": [demo::AGENT]},
        }))
        .unwrap();
        let applied = apply::apply(&self.deps, founded.org, "test".to_owned(), &document)
            .await
            .unwrap();
        let caller = agent_with(&self.deps, &applied.keys[0].key).await;
        let ask = begin::Ask::new(founded.admin, self.connector.clone());
        let journey = Journey::begin_in(&self.deps, caller.org, ask).await;
        let answer = journey.consent(self, "ben@acme.example", false).await;
        journey.come_back(self, answer).await.unwrap();
        let grant = journey
            .confirm_for(self, caller.agent, &[Category::Read])
            .await
            .unwrap();
        (caller, grant)
    }
}
