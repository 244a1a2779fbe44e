//! The thin client of the API: one base URL, one key, JSON in and out.

mod log;

use std::{collections::BTreeMap, path::Path};

use http::{HeaderValue, Method, header};
use serde_json::Value;
use url::Url;

use super::{
    Global,
    exit::{CliError, Refusal},
};
use crate::{
    crypto::api_key,
    domain::{loopback::is_loopback, principal::KeyKind, secret::ApiKey},
    egress::{self, Credential, EgressError, InboundResponse, OperatorClient, OutboundRequest},
    http::problem::PROBLEM_JSON,
};

/// A client of one server.
#[derive(Debug)]
pub(super) struct Client {
    http: OperatorClient,
    base: Url,
    key: Option<ApiKey>,
}

/// An answer as it came, whatever its status.
#[derive(Debug)]
pub(super) struct Probed {
    pub(super) status: u16,
    /// RFC 9110 §6.6.1.
    pub(super) date: Option<String>,
    /// `null` if it was not JSON.
    pub(super) body: Value,
}

impl Client {
    pub(super) fn new(global: &Global, env: &BTreeMap<String, String>) -> Result<Self, CliError> {
        let base = parse_base(&global.url)?;
        let key = match &global.api_key_file {
            Some(path) => Some(read_key(path)?),
            None => env
                .get("POSTERN_API_KEY")
                .filter(|key| !key.is_empty())
                .map(|key| ApiKey::new(key.trim().to_owned())),
        };
        let http = egress::operator_client()
            .map_err(|error| CliError::Failed(format!("TLS could not be set up: {error}")))?;
        Ok(Self { http, base, key })
    }

    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    pub(super) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// What the key says it is for; nothing if it is no whole key.
    pub(super) fn key_kind(&self) -> Option<KeyKind> {
        self.key.as_ref().and_then(api_key::kind)
    }

    pub(super) async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, CliError> {
        let request = self.request(Method::GET, &self.address(path, query)?);
        self.json(request).await
    }

    /// A text that is not JSON, as a signed note.
    pub(super) async fn text(&self, path: &[&str]) -> Result<String, CliError> {
        self.text_of(path, &[]).await
    }

    async fn text_of(&self, path: &[&str], query: &[(&str, &str)]) -> Result<String, CliError> {
        let request = self.request(Method::GET, &self.address(path, query)?);
        let bytes = self.send(request).await?;
        String::from_utf8(bytes).map_err(|_| CliError::Answer("not a text".into()))
    }

    pub(super) async fn post(&self, path: &[&str], body: &Value) -> Result<Value, CliError> {
        let mut request = self.request(Method::POST, &self.address(path, &[])?);
        request
            .headers
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request.body = Some(body.to_string().into());
        self.json(request).await
    }

    pub(super) async fn delete(&self, path: &[&str]) -> Result<Value, CliError> {
        let request = self.request(Method::DELETE, &self.address(path, &[])?);
        self.json(request).await
    }

    /// Every page of a list, at most `limit` items.
    pub(super) async fn list(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        limit: usize,
    ) -> Result<Vec<Value>, CliError> {
        let mut items = Vec::new();
        let mut after: Option<String> = None;
        while items.len() < limit {
            let page_size = (limit - items.len()).min(PAGE).to_string();
            let mut query = query.to_vec();
            query.push(("limit", &page_size));
            if let Some(after) = &after {
                query.push(("after", after));
            }
            let mut page = self.get(path, &query).await?;
            let Some(Value::Array(found)) = page.get_mut("items").map(Value::take) else {
                return Err(CliError::Answer("a list without `items`".into()));
            };
            let next = page.get("next").and_then(Value::as_str).map(ToOwned::to_owned);
            let stuck = found.is_empty() || next == after;
            items.extend(found);
            match next {
                Some(next) if !stuck => after = Some(next),
                _ => break,
            }
        }
        Ok(items)
    }

    /// Whatever an address of the same operator says; without the key.
    pub(super) async fn probe(&self, url: Url) -> Result<Probed, CliError> {
        let request = OutboundRequest::new(Method::GET, url.clone());
        let answer = self
            .http
            .send(request)
            .await
            .map_err(|error| unreachable(&url, error))?;
        Ok(Probed {
            status: answer.status,
            date: header_text(&answer, "date"),
            body: serde_json::from_slice(&answer.body).unwrap_or(Value::Null),
        })
    }

    fn request(&self, method: Method, url: &Url) -> OutboundRequest<'_> {
        let mut request = OutboundRequest::new(method, url.clone());
        request
            .headers
            .insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        request.max_body = LONGEST_ANSWER;
        request.credential = self.key.as_ref().map_or(Credential::None, Credential::ApiKey);
        request
    }

    fn address(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Url, CliError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| CliError::Usage("the URL of the server cannot have a path".into()))?
            .pop_if_empty()
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    async fn json(&self, request: OutboundRequest<'_>) -> Result<Value, CliError> {
        let bytes = self.send(request).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|_| CliError::Answer("not JSON".into()))
    }

    async fn send(&self, request: OutboundRequest<'_>) -> Result<Vec<u8>, CliError> {
        let answer = self
            .http
            .send(request)
            .await
            .map_err(|error| unreachable(&self.base, error))?;
        let is_problem =
            header_text(&answer, "content-type").is_some_and(|text| text.starts_with(PROBLEM_JSON));
        let request_id = header_text(&answer, "x-request-id");
        if answer.truncated {
            return Err(CliError::Answer("it is too long".into()));
        }
        let (status, bytes) = (answer.status, answer.body.to_vec());
        if is_problem {
            let document = serde_json::from_slice(&bytes)
                .map_err(|_| CliError::Answer("a problem that is not JSON".into()))?;
            return Err(CliError::Refused(Refusal { document, request_id }));
        }
        if (300..400).contains(&status) {
            return Err(CliError::Answer(format!(
                "status {status}: is --url the right address?"
            )));
        }
        if !(200..300).contains(&status) {
            return Err(CliError::Answer(format!(
                "status {status} without a problem document: is this a Postern?"
            )));
        }
        Ok(bytes)
    }
}

/// SECURITY: a key never travels in the clear, so plain http is for loopback only.
fn parse_base(text: &str) -> Result<Url, CliError> {
    let url = Url::parse(text)
        .map_err(|_| CliError::Usage("--url is not a URL; write it as https://postern.example".into()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(CliError::Usage(
            "--url must not hold a name or password; use POSTERN_API_KEY".into(),
        ));
    }
    match (url.scheme(), is_loopback(&url)) {
        ("https", _) | ("http", true) => Ok(url),
        _ => Err(CliError::Usage(
            "--url must be https, unless it is loopback".into(),
        )),
    }
}

fn read_key(path: &Path) -> Result<ApiKey, CliError> {
    let text = std::fs::read_to_string(path).map_err(|cause| CliError::File {
        path: path.display().to_string(),
        cause,
    })?;
    Ok(ApiKey::new(text.trim().to_owned()))
}

fn header_text(answer: &InboundResponse, name: &str) -> Option<String> {
    answer
        .headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .map(ToOwned::to_owned)
}

fn unreachable(url: &Url, error: EgressError) -> CliError {
    let cause = match error {
        EgressError::Interrupted { timed_out: true } => "no answer in time",
        EgressError::Unreachable => "nothing answers there; is it running, and is --url right?",
        _ => "the connection failed",
    };
    CliError::Unreachable {
        url: url.origin().ascii_serialization(),
        cause: cause.to_owned(),
    }
}

const PAGE: usize = 200;
const LONGEST_ANSWER: usize = 32 * 1024 * 1024;
