//! Sending a batch to an address the operator named.

use bytes::Bytes;
use http::{HeaderMap, Method};
use url::Url;

use super::SinkError;
use crate::egress::{InboundResponse, OperatorClient, OutboundRequest};

/// Posts a JSON body; anything but 2xx is a failure.
pub(super) async fn post(
    client: &OperatorClient,
    url: &Url,
    mut headers: HeaderMap,
    body: Vec<u8>,
) -> Result<InboundResponse, SinkError> {
    headers.insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    let request = OutboundRequest {
        headers,
        body: Some(Bytes::from(body)),
        max_body: MOST_ANSWERED,
        ..OutboundRequest::new(Method::POST, url.clone())
    };
    let answer = client.send(request).await?;
    if answer.is_success() {
        Ok(answer)
    } else {
        Err(SinkError::Status(answer.status))
    }
}

/// Bytes of an answer that are read.
const MOST_ANSWERED: usize = 64 * 1024;
