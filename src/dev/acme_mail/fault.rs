//! Misbehaviour on demand, so that tests can see what Postern makes of a bad provider.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::body::SizeHint;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::Sleep;

use super::{
    accounts,
    answer::{Answer, Content},
    log::Entry,
};

/// Which requests a fault waits for. `authorize` means the redirect back to the client, not the pages before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Target {
    Authorize,
    Token,
    Revoke,
    Introspect,
    Api,
}

/// One fault, as `POST /admin/fault` takes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fault {
    next: Target,
    /// Only requests of this grant type.
    grant_type: Option<String>,
    /// Only requests for this path, as `/userinfo`.
    path: Option<String>,
    #[serde(default = "once")]
    times: u32,
    /// Wait this long before doing anything, or, with `after`, before saying anything.
    #[serde(default)]
    delay_ms: u64,
    /// Do the work first, then lose the true answer: what a client sees when the connection dies at the wrong time.
    #[serde(default)]
    after: bool,
    /// Answer this status instead.
    status: Option<u16>,
    /// Answer this instead: a string is sent as it is, anything else as JSON.
    body: Option<Value>,
    /// Call what is answered this, also the true answer; empty: the true answer has no content type.
    content_type: Option<String>,
    retry_after: Option<u32>,
    /// Close the connection instead of answering.
    #[serde(default)]
    hang_up: bool,
    /// Send the answer in pieces, so long apart.
    drip_ms: Option<u64>,
    /// Close the connection in the middle of the answer.
    #[serde(default)]
    cut: bool,
    /// Redirect there: instead of answering, or, for `authorize`, instead of the client's redirect URI.
    redirect_to: Option<String>,
    /// Leave these members out of the true answer.
    #[serde(default)]
    omit: Vec<String>,
    /// Put these into the true answer.
    #[serde(default)]
    set: Map<String, Value>,
    /// Give the access token every scope and one more, and say so.
    #[serde(default)]
    pub(super) widen_scope: bool,
    /// Bind what a code buys, or what `/userinfo` says, to this account.
    pub(super) wrong_account: Option<String>,
}

impl Fault {
    /// What is wrong with this fault as an order, if anything.
    pub(super) fn complaint(&self) -> Option<&'static str> {
        let is_odd_status = |status| !(200..=599).contains(&status);
        let is_header = |text: &String| HeaderValue::from_str(text).is_ok();
        if self.times == 0 {
            return Some("times starts at 1");
        }
        if self.delay_ms > MAX_DELAY_MS {
            return Some("delay_ms is at most 120000");
        }
        if self.drip_ms.is_some_and(|pause| pause > MAX_DRIP_MS) {
            return Some("drip_ms is at most 10000");
        }
        if self.status.is_some_and(is_odd_status) {
            return Some("status is 200 to 599");
        }
        if self
            .wrong_account
            .as_deref()
            .is_some_and(|email| accounts::find(email).is_none())
        {
            return Some("wrong_account is not an account");
        }
        if ![&self.redirect_to, &self.content_type]
            .into_iter()
            .flatten()
            .all(is_header)
        {
            return Some("redirect_to or content_type does not fit into a header");
        }
        None
    }

    /// Waits, then answers in place of the endpoint or lets it work and spoils what it says.
    pub(super) async fn impose<F>(&self, entry: &mut Entry, answer: F) -> Response
    where
        F: FnOnce(&mut Entry, Option<&Self>) -> Answer + Send,
    {
        if !self.after {
            self.wait().await;
        }
        let replacement = self.replacement();
        if !self.after
            && let Some(response) = replacement
        {
            return self.slowly(response).await;
        }
        let answer = answer(entry, Some(self));
        entry.error.clone_from(&answer.error);
        if self.after {
            self.wait().await;
        }
        let response = replacement.unwrap_or_else(|| self.called(self.reshape(answer).into_response()));
        self.slowly(response).await
    }

    /// The answer, sent in pieces or in part only where that is ordered.
    async fn slowly(&self, response: Response) -> Response {
        if !self.cut && self.drip_ms.is_none() {
            return response;
        }
        let (head, body) = response.into_parts();
        // What breaks off by itself goes on doing so.
        match axum::body::to_bytes(body, usize::MAX).await {
            Ok(whole) => Response::from_parts(head, Body::new(self.pieces(whole))),
            Err(_) => Response::from_parts(head, Body::new(HangUp)),
        }
    }

    fn pieces(&self, whole: Bytes) -> Pieces {
        let size = whole.len().div_ceil(PIECES).max(1);
        let wanted = if self.cut { whole.len() / 2 } else { whole.len() };
        let pause = Duration::from_millis(self.drip_ms.unwrap_or(SENT_BY_THEN_MS));
        Pieces {
            promised: whole.len() as u64,
            left: whole.slice(..wanted),
            size,
            cut: self.cut,
            pause,
            waits: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    async fn wait(&self) {
        if self.delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(self.delay_ms)).await;
        }
    }

    fn replacement(&self) -> Option<Response> {
        if self.hang_up {
            return Some(Body::new(HangUp).into_response());
        }
        let redirect = self
            .redirect_to
            .as_ref()
            .filter(|_| self.next != Target::Authorize);
        if self.status.is_none() && self.body.is_none() && redirect.is_none() {
            return None;
        }
        let (kind, body) = match &self.body {
            None => ("text/plain", String::new()),
            Some(Value::String(text)) => ("text/plain", text.clone()),
            Some(value) => ("application/json", value.to_string()),
        };
        let usual = if redirect.is_some() { 307 } else { 200 };
        let mut response = body.into_response();
        *response.status_mut() =
            StatusCode::from_u16(self.status.unwrap_or(usual)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        let mut put = |name, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        };
        put(header::CONTENT_TYPE, self.content_type.as_deref().unwrap_or(kind));
        if let Some(location) = redirect {
            put(header::LOCATION, location);
        }
        if let Some(seconds) = self.retry_after {
            put(header::RETRY_AFTER, &seconds.to_string());
        }
        Some(response)
    }

    /// The true answer under the content type that is ordered.
    fn called(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        match self.content_type.as_deref().map(HeaderValue::from_str) {
            Some(Ok(kind)) if kind.is_empty() => {
                headers.remove(header::CONTENT_TYPE);
            }
            Some(Ok(kind)) => {
                headers.insert(header::CONTENT_TYPE, kind);
            }
            // What is no header was complained of when it was ordered.
            Some(Err(_)) | None => {}
        }
        response
    }

    fn reshape(&self, mut answer: Answer) -> Answer {
        match &mut *answer.content {
            Content::Json(members) => {
                members.retain(|name, _| !self.omit.contains(name));
                members.extend(self.set.clone());
            }
            Content::Redirect { to, params } => {
                if let Some(elsewhere) = &self.redirect_to {
                    to.clone_from(elsewhere);
                }
                params.retain(|(name, _)| !self.omit.contains(name) && !self.set.contains_key(name));
                params.extend(self.set.iter().map(|(name, value)| (name.clone(), plain(value))));
            }
            Content::Empty | Content::Html(_) => {}
        }
        answer
    }
}

/// Faults that wait for their request, first come first served.
#[derive(Debug, Default)]
pub(super) struct Faults(VecDeque<Fault>);

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push_back(fault);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault for this request, if one waits.
    pub(super) fn take(&mut self, target: Target, path: &str, grant_type: Option<&str>) -> Option<Fault> {
        let index = self.0.iter().position(|fault| {
            fault.next == target
                && fault.path.as_deref().is_none_or(|wanted| wanted == path)
                && fault
                    .grant_type
                    .as_deref()
                    .is_none_or(|wanted| Some(wanted) == grant_type)
        })?;
        let fault = self.0.get_mut(index)?;
        fault.times = fault.times.saturating_sub(1);
        if fault.times == 0 {
            self.0.remove(index)
        } else {
            Some(fault.clone())
        }
    }
}

/// A body that breaks off at once, which makes the server close the connection.
struct HangUp;

impl hyper::body::Body for HangUp {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, io::Error>>> {
        Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())))
    }
}

/// A body in pieces, and perhaps less of it than was promised.
struct Pieces {
    promised: u64,
    left: Bytes,
    size: usize,
    cut: bool,
    pause: Duration,
    waits: Pin<Box<Sleep>>,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, io::Error>>> {
        if self.left.is_empty() && !self.cut {
            return Poll::Ready(None);
        }
        // While nothing comes, what came before is sent.
        ready!(self.waits.as_mut().poll(context));
        if self.left.is_empty() {
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
        }
        let size = self.size.min(self.left.len());
        let piece = self.left.split_to(size);
        self.promised -= piece.len() as u64;
        self.waits = Box::pin(tokio::time::sleep(self.pause));
        Poll::Ready(Some(Ok(hyper::body::Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.promised)
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn once() -> u32 {
    1
}

const MAX_DELAY_MS: u64 = 120_000;
const MAX_DRIP_MS: u64 = 10_000;
const PIECES: usize = 16;
const SENT_BY_THEN_MS: u64 = 20;
