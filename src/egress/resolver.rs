//! Name resolution that yields only addresses the request may go to.
//!
//! A name is resolved once per connection, and the connection goes to an address of that very answer: between the
//! check and the connect there is no second look-up that could be answered differently (DNS rebinding).

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::address::is_global;

/// Every address of the name is special-purpose.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the name resolves to no global address")]
pub(super) struct NoGlobalAddress;

type Answer = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Where addresses come from: the system, or a test's table.
pub(super) trait Lookup: Send + Sync {
    /// All addresses of `name`.
    fn lookup(&self, name: String) -> Answer;
}

/// The operating system's resolver.
pub(super) struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, name: String) -> Answer {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name, 0)).await?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    }
}

/// Resolves through `lookup`; with `global_only` drops every special-purpose address.
pub(super) struct FilteringResolver {
    pub(super) lookup: Arc<dyn Lookup>,
    pub(super) global_only: bool,
}

impl Resolve for FilteringResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let answer = self.lookup.lookup(name.as_str().to_owned());
        let global_only = self.global_only;
        Box::pin(async move {
            let mut addresses = answer.await?;
            if global_only {
                addresses.retain(|address| is_global(*address));
            }
            if addresses.is_empty() {
                return Err(NoGlobalAddress.into());
            }
            // Port 0 means: the port of the URL.
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}
