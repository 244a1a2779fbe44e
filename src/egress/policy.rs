//! Which destinations the operator's file names, and for which connector.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use url::{Host, Url};

use super::{Refusal, address::is_global};
use crate::domain::connector::ConnectorId;

/// On whose behalf a request leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purpose {
    /// The connector the destination belongs to.
    pub connector: ConnectorId,
}

impl Purpose {
    /// A request of this connector.
    #[must_use]
    pub fn connector(id: &ConnectorId) -> Self {
        Self {
            connector: id.clone(),
        }
    }
}

/// The operator's exceptions: `host:port` that a connector may reach although it is private or not https.
#[derive(Debug, Clone, Default)]
pub struct EgressPolicy {
    named: BTreeMap<ConnectorId, BTreeSet<String>>,
}

/// The text is not `host:port` in normal form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a host:port in normal form")]
pub struct InvalidAuthority;

impl EgressPolicy {
    /// No exceptions.
    #[must_use]
    pub fn strict() -> Self {
        Self::default()
    }

    /// Lets `connector` reach exactly `host:port`, whatever its address, also without TLS.
    ///
    /// # Errors
    /// When the text is not `host:port` as a URL would spell it.
    pub fn allow(mut self, connector: &ConnectorId, host_port: &str) -> Result<Self, InvalidAuthority> {
        let url = Url::parse(&format!("https://{host_port}/")).map_err(|_| InvalidAuthority)?;
        let (host, port) = host_port.rsplit_once(':').ok_or(InvalidAuthority)?;
        let same_host = url.host_str() == Some(host);
        let same_port = url
            .port_or_known_default()
            .map(|known| known.to_string())
            .as_deref()
            == Some(port);
        if !same_host || !same_port {
            return Err(InvalidAuthority);
        }
        self.named
            .entry(connector.clone())
            .or_default()
            .insert(host_port.to_owned());
        Ok(self)
    }

    /// Decides before anything is resolved. `Ok(true)`: a named destination; `Ok(false)`: a public one.
    pub(super) fn admit(&self, purpose: &Purpose, url: &Url) -> Result<bool, Refusal> {
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::Userinfo);
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(Refusal::Scheme);
        };
        if !matches!(url.scheme(), "https" | "http") {
            return Err(Refusal::Scheme);
        }
        let authority = format!("{host}:{port}");
        if self
            .named
            .get(&purpose.connector)
            .is_some_and(|named| named.contains(&authority))
        {
            return Ok(true);
        }
        if url.scheme() != "https" {
            return Err(Refusal::Scheme);
        }
        // The connector dials an IP literal without asking the resolver, so it is judged here.
        let literal = match host {
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
            Host::Domain(_) => None,
        };
        match literal {
            Some(address) if !is_global(address) => Err(Refusal::Address),
            _ => Ok(false),
        }
    }
}
