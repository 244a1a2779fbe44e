//! OpenTelemetry logs over HTTP with JSON (OTLP 1.x, `/v1/logs`).

use http::HeaderMap;
use serde_json::{Value, json};
use url::Url;

use super::{Delivery, Sink, SinkBatch, SinkError, Standing};
use crate::{
    domain::{Time, entry::Entry},
    egress::OperatorClient,
};

/// The collector.
#[derive(Debug)]
pub struct OtlpSink {
    name: String,
    url: Url,
    client: OperatorClient,
    standing: Standing,
}

impl OtlpSink {
    /// A sink that posts to `url`, the whole address with its path.
    #[must_use]
    pub fn new(name: String, url: Url, client: OperatorClient) -> Self {
        Self {
            name,
            url,
            client,
            standing: Standing::default(),
        }
    }
}

impl Sink for OtlpSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn standing(&self) -> &Standing {
        &self.standing
    }

    fn deliver<'a>(&'a self, batch: &'a SinkBatch) -> Delivery<'a> {
        Box::pin(async move {
            let body = serde_json::to_vec(&logs(batch)?).map_err(|_| SinkError::Entry)?;
            let answer = self
                .client
                .post_json(&self.url, HeaderMap::new(), body, batch.now, None)
                .await?;
            let answer: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
            let rejected = answer.pointer("/partialSuccess/rejectedLogRecords");
            // The protocol forbids to send again what a collector rejected: it would reject it again.
            if rejected.is_some_and(|count| {
                !matches!(
                    count.as_str().map_or(count.as_i64(), |text| text.parse().ok()),
                    Some(0)
                )
            }) {
                tracing::warn!(
                    sink.name = self.name,
                    "the collector of {} rejected some records",
                    self.name
                );
            }
            Ok(())
        })
    }
}

/// `ExportLogsServiceRequest` in JSON: 64-bit numbers are strings there.
fn logs(batch: &SinkBatch) -> Result<Value, SinkError> {
    let records = batch
        .entries
        .iter()
        .map(|(index, bytes)| record(*index, bytes, batch.now))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(json!({"resourceLogs": [{
        "resource": {"attributes": [text("service.name", "postern"), text("postern.org", &batch.org.to_string())]},
        "scopeLogs": [{
            "scope": {"name": "postern.audit", "version": env!("CARGO_PKG_VERSION")},
            "logRecords": records,
        }],
    }]}))
}

fn record(index: u64, bytes: &str, now: Time) -> Result<Value, SinkError> {
    let entry: Entry = serde_json::from_str(bytes).map_err(|_| SinkError::Entry)?;
    let draft = &entry.draft;
    let mut attributes = vec![
        text("postern.entry", &entry.id.to_string()),
        text("postern.type", entry.kind.as_str()),
        json!({"key": "postern.index", "value": {"intValue": index.to_string()}}),
    ];
    for (name, value) in [
        ("postern.user", draft.user.map(|id| id.to_string())),
        ("postern.agent", draft.agent.map(|id| id.to_string())),
        ("postern.grant", draft.grant.map(|id| id.to_string())),
        (
            "postern.connector",
            draft.connector.as_ref().map(|id| id.as_str().to_owned()),
        ),
        ("postern.tool", draft.tool.clone()),
        ("postern.outcome", draft.outcome.clone()),
        ("postern.reason", draft.reason.clone()),
    ] {
        attributes.extend(value.map(|value| text(name, &value)));
    }
    Ok(json!({
        "timeUnixNano": nanos(entry.ts),
        "observedTimeUnixNano": nanos(now),
        "severityNumber": 9,
        "severityText": "INFO",
        "eventName": format!("postern.audit.{}", entry.kind.as_str()),
        "body": {"stringValue": bytes},
        "attributes": attributes,
    }))
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn nanos(time: Time) -> String {
    i128::from(time.unix_micros()).saturating_mul(1_000).to_string()
}
