//! Messages to addresses the operator named: JSON that is posted, and webhooks signed as Standard Webhooks say.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use url::Url;

use super::{BeginBy, EgressError, InboundResponse, OperatorClient, OutboundRequest};
use crate::{crypto::webhook::WebhookKey, domain::Time};

/// Why a receiver has not got a message, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// It cannot be reached, or did not answer.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// It answered with something else than success.
    #[error("the receiver answered {0}")]
    Status(u16),
    /// It has too much to do, or none who could (RFC 6585 §4, RFC 9110 §15.6.4), and says for how long.
    #[error("the receiver answered {status} and asks to be left alone for {} s", after.as_secs())]
    Busy {
        /// 429 or 503.
        status: u16,
        /// How long it asks for, an hour at most.
        after: Duration,
    },
    /// The id of the message cannot stand in a header.
    #[error("the message cannot be written")]
    Message,
}

impl OperatorClient {
    /// Posts a JSON body, before a moment if there is one; anything but 2xx is a failure.
    ///
    /// # Errors
    /// [`Undelivered`].
    pub async fn post_json(
        &self,
        url: &Url,
        mut headers: HeaderMap,
        body: Vec<u8>,
        now: Time,
        begin_by: Option<BeginBy>,
    ) -> Result<InboundResponse, Undelivered> {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let request = OutboundRequest {
            headers,
            body: Some(body.into()),
            max_body: MOST_ANSWERED,
            begin_by,
            ..OutboundRequest::new(Method::POST, url.clone())
        };
        let answer = self.send(request).await?;
        if answer.is_success() {
            return Ok(answer);
        }
        let status = answer.status;
        Err(match answer.retry_after(Some(now)) {
            Some(after) if matches!(status, 429 | 503) => Undelivered::Busy {
                status,
                after: after.min(LONGEST_ASKED),
            },
            _ => Undelivered::Status(status),
        })
    }
}

/// Until when a receiver is left alone, in time since the boot: that of the wall may be put back.
#[derive(Debug, Default)]
pub struct Rest(AtomicU64);

impl Rest {
    /// It is left alone until then, or longer if it asked for that before.
    pub fn until(&self, since_boot: Duration) {
        self.0.fetch_max(micros(since_boot), Ordering::SeqCst);
    }

    /// Whether it is left alone, so long after the boot.
    #[must_use]
    pub fn is_on(&self, since_boot: Duration) -> bool {
        micros(since_boot) < self.0.load(Ordering::SeqCst)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A receiver of signed messages.
#[derive(Debug)]
pub struct Webhook {
    url: Url,
    key: WebhookKey,
    client: OperatorClient,
    rest: Rest,
}

impl Webhook {
    /// A receiver at `url` that knows `key`.
    #[must_use]
    pub fn new(url: Url, key: WebhookKey, client: OperatorClient) -> Self {
        Self {
            url,
            key,
            client,
            rest: Rest::default(),
        }
    }

    /// Until when it is left alone.
    #[must_use]
    pub fn rest(&self) -> &Rest {
        &self.rest
    }

    /// Sends one message, before a moment if there is one. `id` is to be the same whenever the same thing is said.
    ///
    /// # Errors
    /// [`Undelivered`].
    pub async fn send(
        &self,
        id: &str,
        now: Time,
        body: Vec<u8>,
        begin_by: Option<BeginBy>,
    ) -> Result<(), Undelivered> {
        let seconds = now.unix_seconds();
        let mut headers = HeaderMap::new();
        // Standard Webhooks, "webhook headers".
        for (name, value) in [
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", seconds.to_string()),
            ("webhook-signature", self.key.sign(id, seconds, &body)),
        ] {
            let value = HeaderValue::from_str(&value).map_err(|_| Undelivered::Message)?;
            headers.insert(HeaderName::from_static(name), value);
        }
        let posted = self.client.post_json(&self.url, headers, body, now, begin_by);
        posted.await.map(drop)
    }
}

/// Bytes of an answer that are read.
const MOST_ANSWERED: usize = 64 * 1024;
/// No receiver is left alone for longer, whatever it asks for.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_is_as_long_as_the_longest_that_was_asked_for() {
        let (rest, at) = (Rest::default(), Duration::from_secs);
        assert!(!rest.is_on(at(0)));
        rest.until(at(60));
        rest.until(at(10));
        assert!(rest.is_on(at(59)) && !rest.is_on(at(60)));
    }
}
