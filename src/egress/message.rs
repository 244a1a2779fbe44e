//! What goes out and what comes back. Neither prints its contents.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, Method};
use url::Url;
use zeroize::Zeroizing;

use super::BeginBy;
use crate::domain::secret::{AccessToken, ApiKey, ClientSecret};

/// The largest answer that is read, unless a request asks for less.
pub const MAX_BODY: usize = 1 << 20;

/// A secret that goes with a request, placed by egress alone.
#[derive(Debug, Clone, Copy)]
pub enum Credential<'a> {
    /// None.
    None,
    /// RFC 6750 §2.1.
    Bearer(&'a AccessToken),
    /// The token in a header of the provider's own.
    Header {
        /// Its name.
        name: &'a str,
        /// Its value.
        token: &'a AccessToken,
    },
    /// The token as a query parameter.
    Query {
        /// Its name.
        name: &'a str,
        /// Its value.
        token: &'a AccessToken,
    },
    /// An API key of ours, from the command line to its own server.
    ApiKey(&'a ApiKey),
    /// RFC 6749 §2.3.1: both parts form-encoded, then Basic.
    ClientBasic {
        /// The client id.
        id: &'a str,
        /// The client secret.
        secret: &'a ClientSecret,
    },
}

/// A request about to leave.
pub struct OutboundRequest<'a> {
    /// The method.
    pub method: Method,
    /// The whole URL, without credentials.
    pub url: Url,
    /// Headers without credentials.
    pub headers: HeaderMap,
    /// The body. May hold secrets: build it with [`secret_body`] then.
    pub body: Option<Bytes>,
    /// The secret that goes with it.
    pub credential: Credential<'a>,
    /// Where reading the answer stops.
    pub max_body: usize,
    /// The last moment to begin, if there is one.
    pub begin_by: Option<BeginBy>,
}

impl OutboundRequest<'_> {
    /// A request without headers, body or credential.
    #[must_use]
    pub fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: None,
            credential: Credential::None,
            max_body: MAX_BODY,
            begin_by: None,
        }
    }
}

impl fmt::Debug for OutboundRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SECURITY: path, query, headers and body may hold what a person wrote, or a secret.
        f.debug_struct("OutboundRequest")
            .field("method", &self.method)
            .field("host", &self.url.host_str())
            .finish_non_exhaustive()
    }
}

/// Wraps bytes that hold a secret, so that they are wiped when the last reader is done.
#[must_use]
pub fn secret_body(bytes: Vec<u8>) -> Bytes {
    Bytes::from_owner(Zeroizing::new(bytes))
}

/// An answer, read to its end or to the limit.
pub struct InboundResponse {
    /// The HTTP status.
    pub status: u16,
    /// The headers as they came.
    pub headers: HeaderMap,
    /// The body; wiped when dropped, for it may hold tokens.
    pub body: Zeroizing<Vec<u8>>,
    /// Whether the body was longer than the limit; `body` is empty then.
    pub truncated: bool,
}

impl InboundResponse {
    /// Whether the status is 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl fmt::Debug for InboundResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InboundResponse")
            .field("status", &self.status)
            .field("body_len", &self.body.len())
            .field("truncated", &self.truncated)
            .finish_non_exhaustive()
    }
}
