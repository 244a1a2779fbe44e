//! A world that answers on loopback as `postern serve` does, workers included.

use std::{sync::Arc, time::Duration};

use postern::{
    app::{AppError, Parts},
    domain::{GrantId, OrgId},
    flows::Deps,
    http::{router, security::Site},
    workers::Workers,
};
use serde_json::json;

use crate::{
    load::{self, Requests, Seen},
    measure::{Done, failed},
    world::{World, shared::loopback, tenant},
};

pub(crate) struct Served {
    pub(crate) world: World,
    pub(crate) address: String,
    /// Those that take turns.
    pub(crate) tenants: Vec<Tenant>,
}

/// An org whose agent asks.
pub(crate) struct Tenant {
    pub(crate) org: OrgId,
    pub(crate) grant: GrantId,
    pub(crate) key: String,
}

impl Served {
    pub(crate) async fn start<F>(open: impl FnOnce(Parts) -> F, orgs: usize) -> Done<Self>
    where
        F: Future<Output = Result<Arc<Deps>, AppError>>,
    {
        let (listener, url) = loopback::listen().await;
        let address = listener.local_addr()?.to_string();
        let (world, key, acme) = World::new(&url, open).await?;
        let mut tenants = vec![Tenant {
            org: world.agent.org,
            grant: world.grant,
            key,
        }];
        while tenants.len() < orgs {
            let (agent, grant, key) = tenant(&world.deps, &acme).await?;
            let org = agent.org;
            tenants.push(Tenant { org, grant, key });
        }
        let site = Site::new(&url::Url::parse(&url)?).map_err(failed)?;
        let app = router::app(Arc::clone(&world.deps), site);
        let workers = Workers::start(&world.deps);
        tokio::spawn(async move {
            // The workers live as long as the server: for good.
            let _workers = workers;
            loopback::serve(listener, app).await;
        });
        Ok(Self {
            world,
            address,
            tenants,
        })
    }

    /// The request that is measured, as each org's agent sends it.
    pub(crate) fn requests(&self, path: &str) -> Requests {
        self.tenants
            .iter()
            .map(|tenant| self.request(path, tenant))
            .collect::<Vec<_>>()
            .into()
    }

    /// One org's alone.
    pub(crate) fn request(&self, path: &str, tenant: &Tenant) -> Vec<u8> {
        self.request_for(path, tenant, tenant.grant)
    }

    /// The same for another grant of the org.
    pub(crate) fn request_for(&self, path: &str, tenant: &Tenant, grant: GrantId) -> Vec<u8> {
        let body = json!({
            "grant": grant.to_string(), "tool": "messages.list", "args": {"limit": 3}, "mode": "token",
        })
        .to_string();
        format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            tenant.key,
            body.len()
        )
        .into_bytes()
    }

    /// The first vend of each org narrows its token at the provider; all later ones find it warm.
    pub(crate) fn warm(&self) -> Done<()> {
        for request in &*self.requests("/v1/vend") {
            let once: Requests = vec![request.clone()].into();
            load::run(&self.address, once, 1, Duration::ZERO)?;
        }
        Ok(())
    }

    /// Keeps `connections` busy with requests of every org in turn.
    pub(crate) fn load(&self, path: &str, connections: usize, time: Duration) -> Done<Seen> {
        load::run(&self.address, self.requests(path), connections, time)
    }
}
