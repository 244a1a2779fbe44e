//! The client for what the operator named: the command line's own Postern, and receivers of the log, wherever they are.

use std::time::Duration;

use super::{
    EgressError, InboundResponse, OutboundRequest, Refusal,
    client::{build, deliver},
};
use crate::domain::loopback::is_loopback;

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
