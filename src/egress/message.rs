//! What goes out and what comes back. Neither prints its contents.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, header};
use url::Url;
use zeroize::Zeroizing;

use super::BeginBy;
use crate::domain::{
    Time,
    secret::{AccessToken, ApiKey, ClientSecret},
};

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

    /// How long the sender asks to be left alone (RFC 9110 §10.2.3). A date counts from the answer's own, or else from
    /// `now`.
    #[must_use]
    pub fn retry_after(&self, now: Option<Time>) -> Option<Duration> {
        let text = |name: HeaderName| self.headers.get(name)?.to_str().ok().map(str::trim);
        let asked = text(header::RETRY_AFTER)?;
        if !asked.is_empty() && asked.bytes().all(|byte| byte.is_ascii_digit()) {
            // More digits than any number has are a long time, too.
            return Some(asked.parse::<u64>().map_or(Duration::MAX, Duration::from_secs));
        }
        let said = text(header::DATE).and_then(Time::parse_http_date).or(now)?;
        Some(Time::parse_http_date(asked)?.since(said))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_says_in_seconds_or_by_a_date_how_long_it_is_to_be_left_alone() {
        let now = Time::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT");
        assert!(now.is_some());
        let answer = |headers: &[(HeaderName, &str)]| InboundResponse {
            status: 503,
            headers: headers
                .iter()
                .map(|(name, value)| (name.clone(), value.parse().unwrap()))
                .collect(),
            body: Zeroizing::new(Vec::new()),
            truncated: false,
        };
        let asked = |after: &str, date: Option<&str>, now: Option<Time>| {
            let mut headers = vec![(header::RETRY_AFTER, after)];
            headers.extend(date.map(|date| (header::DATE, date)));
            answer(&headers).retry_after(now).map(|after| after.as_secs())
        };
        let ahead = Some("Sun, 06 Nov 1994 10:49:00 GMT");
        for (after, date, seconds) in [
            ("0", None, Some(0)),
            ("120", ahead, Some(120)),
            ("3601", None, Some(3601)),
            ("99999999999999999999999", None, Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", None, Some(60)),
            ("Sun, 06 Nov 1994 10:50:00 GMT", ahead, Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", None, Some(0)),
            ("Mon, 07 Nov 1994 08:49:37 GMT", None, Some(86_400)),
            ("", None, None),
            ("-1", None, None),
            ("1.5", None, None),
            ("soon", None, None),
        ] {
            assert_eq!(asked(after, date, now), seconds, "{after}");
        }
        assert_eq!(answer(&[]).retry_after(now), None);
        // Without either, a date says nothing of how long.
        let date = "Sun, 06 Nov 1994 10:50:00 GMT";
        assert_eq!(asked(date, ahead, None), Some(60));
        assert_eq!(asked(date, None, None), None);
    }
}
