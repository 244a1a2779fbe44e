//! Messages to addresses the operator named: JSON that is posted, and webhooks signed as Standard Webhooks say.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use url::Url;

use super::{EgressError, InboundResponse, OperatorClient, OutboundRequest};
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
    /// The id of the message cannot stand in a header.
    #[error("the message cannot be written")]
    Message,
}

impl OperatorClient {
    /// Posts a JSON body; anything but 2xx is a failure.
    ///
    /// # Errors
    /// [`Undelivered`].
    pub async fn post_json(
        &self,
        url: &Url,
        mut headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<InboundResponse, Undelivered> {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let request = OutboundRequest {
            headers,
            body: Some(body.into()),
            max_body: MOST_ANSWERED,
            ..OutboundRequest::new(Method::POST, url.clone())
        };
        let answer = self.send(request).await?;
        if answer.is_success() {
            Ok(answer)
        } else {
            Err(Undelivered::Status(answer.status))
        }
    }
}

/// A receiver of signed messages.
#[derive(Debug)]
pub struct Webhook {
    url: Url,
    key: WebhookKey,
    client: OperatorClient,
}

impl Webhook {
    /// A receiver at `url` that knows `key`.
    #[must_use]
    pub fn new(url: Url, key: WebhookKey, client: OperatorClient) -> Self {
        Self { url, key, client }
    }

    /// Sends one message. `id` is to be the same whenever the same thing is said.
    ///
    /// # Errors
    /// [`Undelivered`].
    pub async fn send(&self, id: &str, now: Time, body: Vec<u8>) -> Result<(), Undelivered> {
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
        self.client.post_json(&self.url, headers, body).await.map(drop)
    }
}

/// Bytes of an answer that are read.
const MOST_ANSWERED: usize = 64 * 1024;
