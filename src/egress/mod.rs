//! The one outbound HTTP client.

use crate::domain::secret::ApiKey;

/// Placeholder of the client for an operator's own calls to a Postern server; the `egress` room brings the real one.
///
/// # Errors
/// When TLS cannot be set up.
#[expect(
    clippy::disallowed_methods,
    reason = "this is egress: the one place that builds outbound clients"
)]
pub fn operator_client() -> Result<reqwest::Client, reqwest::Error> {
    // A second call finds the provider installed; that is all right.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(std::time::Duration::from_secs(10))
        .timeout(std::time::Duration::from_secs(90))
        .build()
}

/// Puts an API key on a request (RFC 6750 §2.1), marked sensitive so that it never shows in debug output.
pub fn with_api_key(request: reqwest::RequestBuilder, key: &ApiKey) -> reqwest::RequestBuilder {
    request.bearer_auth(key.expose_secret())
}
