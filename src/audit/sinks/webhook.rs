//! A webhook, signed as Standard Webhooks say. One message holds one batch; its id names the org, the indexes in it and the
//! hash of its last entry, so that the same entries sent again in the same batch are the same message.

use std::fmt::Write as _;

use super::{Delivery, Sink, SinkBatch, SinkError, Standing};
use crate::{crypto::digest, egress::Webhook};

/// The receiver.
#[derive(Debug)]
pub struct WebhookSink {
    name: String,
    receiver: Webhook,
    standing: Standing,
}

impl WebhookSink {
    /// A sink of that name.
    #[must_use]
    pub fn new(name: String, receiver: Webhook) -> Self {
        Self {
            name,
            receiver,
            standing: Standing::default(),
        }
    }

    /// Id and body. The entries stand in it byte by byte as they were hashed: they are JSON themselves.
    fn message(batch: &SinkBatch) -> Result<(String, Vec<u8>), SinkError> {
        let (Some((first, _)), Some((last, end))) = (batch.entries.first(), batch.entries.last()) else {
            return Err(SinkError::Entry);
        };
        let (org, now) = (
            batch.org,
            serde_json::to_string(&batch.now).map_err(|_| SinkError::Entry)?,
        );
        let mut body =
            format!(r#"{{"type":"audit.entries","timestamp":{now},"data":{{"org":"{org}","entries":["#);
        for (index, entry) in &batch.entries {
            let comma = if index == first { "" } else { "," };
            // Writing to a `String` cannot fail.
            let _ = write!(body, r#"{comma}{{"index":{index},"entry":{entry}}}"#);
        }
        body.push_str("]}}");
        // After a recovery other entries have the same indexes.
        let [a, b, c, d, ..] = digest::sha256(end.as_bytes());
        let ending = digest::hex(&[a, b, c, d]);
        Ok((format!("{org}_{first}-{last}_{ending}"), body.into_bytes()))
    }
}

impl Sink for WebhookSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn standing(&self) -> &Standing {
        &self.standing
    }

    fn deliver<'a>(&'a self, batch: &'a SinkBatch) -> Delivery<'a> {
        Box::pin(async move {
            let (id, body) = Self::message(batch)?;
            Ok(self.receiver.send(&id, batch.now, body, None).await?)
        })
    }
}
