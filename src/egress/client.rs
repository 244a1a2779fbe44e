//! Sending.

use std::{error::Error as _, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::redirect;
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::{
    Credential, EgressError, EgressPolicy, InboundResponse, OutboundRequest, Purpose, Refusal,
    begin::{BeginBy, Beginning, TimedBody},
    resolver::{FilteringResolver, Lookup, NoGlobalAddress, SystemLookup},
};

/// The outbound client for everything that is not ours.
#[derive(Debug)]
pub struct Egress {
    policy: EgressPolicy,
    public: reqwest::Client,
    named: reqwest::Client,
}

impl Egress {
    /// Builds the client.
    ///
    /// # Errors
    /// [`EgressError::Setup`] when TLS has no trust anchors.
    pub fn new(policy: EgressPolicy) -> Result<Self, EgressError> {
        Self::with_lookup(policy, Arc::new(SystemLookup))
    }

    pub(super) fn with_lookup(policy: EgressPolicy, lookup: Arc<dyn Lookup>) -> Result<Self, EgressError> {
        // INVARIANT: `named` reaches any address and is used only for a `host:port` the policy names.
        Ok(Self {
            policy,
            public: build(
                Some(FilteringResolver {
                    lookup: Arc::clone(&lookup),
                    global_only: true,
                }),
                TOTAL_TIMEOUT,
            )?,
            named: build(
                Some(FilteringResolver {
                    lookup,
                    global_only: false,
                }),
                TOTAL_TIMEOUT,
            )?,
        })
    }

    /// Sends one request and reads its answer.
    ///
    /// # Errors
    /// [`EgressError`]; [`EgressError::may_have_been_sent`] tells the two kinds apart.
    pub async fn send(
        &self,
        purpose: &Purpose,
        request: OutboundRequest<'_>,
    ) -> Result<InboundResponse, EgressError> {
        let named = self
            .policy
            .admit(purpose, &request.url)
            .map_err(EgressError::Refused)?;
        let client = if named { &self.named } else { &self.public };
        deliver(client, request).await
    }
}

/// One client with every convenience switched off that would send something elsewhere or twice.
pub(super) fn build(
    resolver: Option<FilteringResolver>,
    total: Duration,
) -> Result<reqwest::Client, EgressError> {
    install_tls_provider();
    #[expect(clippy::disallowed_methods, reason = "this is the one outbound client")]
    let mut builder = reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        // INVARIANT: what `begin` promises holds for HTTP/1.1 only.
        .http1_only()
        .no_proxy()
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE)
        .timeout(total)
        .user_agent(USER_AGENT);
    if let Some(resolver) = resolver {
        builder = builder.dns_resolver(resolver);
    }
    builder.build().map_err(|_| EgressError::Setup)
}

/// Makes `ring` the TLS provider of the process; harmless when it already is.
pub(super) fn install_tls_provider() {
    // The error means that a provider is installed already.
    let _already = rustls::crypto::ring::default_provider().install_default();
}

pub(super) async fn deliver(
    client: &reqwest::Client,
    request: OutboundRequest<'_>,
) -> Result<InboundResponse, EgressError> {
    let OutboundRequest {
        method,
        mut url,
        mut headers,
        body,
        credential,
        max_body,
        begin_by,
    } = request;
    place(credential, &mut url, &mut headers).map_err(EgressError::Refused)?;
    let mut builder = client.request(method, url).headers(headers);
    let beginning = Beginning::default();
    if let Some(by) = begin_by.clone() {
        if by.has_passed() {
            return Err(EgressError::TooLate);
        }
        builder = builder.body(reqwest::Body::wrap(TimedBody::new(body, by, &beginning)));
    } else if let Some(body) = body {
        builder = builder.body(body);
    }
    let mut response = builder.send().await.map_err(|error| match begin_by {
        // Its connection ended, or the time did, before the head was written.
        Some(by) if beginning.give_up() => nothing_sent(error, &by),
        _ => classify(error),
    })?;
    let status = response.status().as_u16();
    let headers = std::mem::take(response.headers_mut());
    let mut body = Zeroizing::new(Vec::with_capacity(max_body.min(16 * 1024)));
    let mut truncated = false;
    while let Some(chunk) = response.chunk().await.map_err(|error| interrupted(&error))? {
        if body.len().saturating_add(chunk.len()) > max_body {
            truncated = true;
            body = Zeroizing::new(Vec::new());
            break;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(InboundResponse {
        status,
        headers,
        body,
        truncated,
    })
}

fn place(credential: Credential<'_>, url: &mut url::Url, headers: &mut HeaderMap) -> Result<(), Refusal> {
    let (name, value) = match credential {
        Credential::None => return Ok(()),
        Credential::Query { name, token } => {
            url.query_pairs_mut().append_pair(name, token.expose_secret());
            return Ok(());
        }
        Credential::Bearer(token) => (
            header::AUTHORIZATION,
            Zeroizing::new(format!("Bearer {}", token.expose_secret())),
        ),
        Credential::ApiKey(key) => (
            header::AUTHORIZATION,
            Zeroizing::new(format!("Bearer {}", key.expose_secret())),
        ),
        Credential::Header { name, token } => (
            HeaderName::try_from(name).map_err(|_| Refusal::Header)?,
            Zeroizing::new(token.expose_secret().to_owned()),
        ),
        Credential::ClientBasic { id, secret } => (header::AUTHORIZATION, basic(id, secret.expose_secret())),
    };
    let mut value = HeaderValue::from_str(&value).map_err(|_| Refusal::Header)?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

// RFC 6749 §2.3.1 and appendix B: id and secret are form-encoded before they become user name and password.
fn basic(id: &str, secret: &str) -> Zeroizing<String> {
    let encoded = |text: &str| -> Zeroizing<String> {
        Zeroizing::new(form_urlencoded::byte_serialize(text.as_bytes()).collect())
    };
    let pair = Zeroizing::new(format!("{}:{}", *encoded(id), *encoded(secret)));
    Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes())))
}

// SECURITY: the client's own error names the URL, which may hold a token; only its kind leaves this function.
fn classify(error: reqwest::Error) -> EgressError {
    if refused_by_resolver(&error) {
        EgressError::Refused(Refusal::Address)
    } else if error.is_connect() || error.is_builder() {
        EgressError::Unreachable
    } else {
        interrupted(&error)
    }
}

fn nothing_sent(error: reqwest::Error, by: &BeginBy) -> EgressError {
    match classify(error) {
        EgressError::Interrupted { .. } if by.has_passed() => EgressError::TooLate,
        EgressError::Interrupted { .. } => EgressError::Unreachable,
        other => other,
    }
}

fn interrupted(error: &reqwest::Error) -> EgressError {
    EgressError::Interrupted {
        timed_out: error.is_timeout(),
    }
}

fn refused_by_resolver(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if cause.is::<NoGlobalAddress>() {
            return true;
        }
        source = cause.source();
    }
    false
}

/// How long a name and a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may take from its beginning to the last byte of its answer.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may lie idle before it is used again. Many servers close after five seconds; a request sent
/// just then would end as one whose outcome nobody knows.
const IDLE: Duration = Duration::from_secs(4);
const USER_AGENT: &str = concat!("postern/", env!("CARGO_PKG_VERSION"));
