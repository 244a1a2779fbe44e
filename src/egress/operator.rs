//! The client for what the operator named: the command line's own Postern, and receivers of the log, wherever they are.

use std::time::Duration;

use url::{Host, Url};

use super::{
    EgressError, InboundResponse, OutboundRequest, Refusal,
    client::{build, deliver},
};

// Long polls wait 50 s, exports are large.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(120);

/// A client for addresses of the operator: loopback and private addresses are allowed, redirects and proxies are not.
#[derive(Debug)]
pub struct OperatorClient(reqwest::Client);

/// Builds the client for addresses of the operator.
///
/// # Errors
/// [`EgressError::Setup`] when TLS has no trust anchors.
pub fn operator_client() -> Result<OperatorClient, EgressError> {
    Ok(OperatorClient(build(None, TOTAL_TIMEOUT)?))
}

impl OperatorClient {
    /// Sends one request. Without TLS only to loopback: an API key goes with it.
    ///
    /// # Errors
    /// [`EgressError`].
    pub async fn send(&self, request: OutboundRequest<'_>) -> Result<InboundResponse, EgressError> {
        if request.url.scheme() == "https" || (request.url.scheme() == "http" && is_loopback(&request.url)) {
            deliver(&self.0, request).await
        } else {
            Err(EgressError::Refused(Refusal::Scheme))
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
