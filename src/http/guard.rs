//! What every request has in common: an id, a span, ceilings, and a panic that stays where it happened.
//!
//! [`protect`] wraps the whole router (`server::serve` does it for you); [`deadline`] wraps a group of routes, because a
//! long poll and a vend may take longer than a page. SECURITY: spans carry the route's template, never the path: paths
//! hold one-time tokens.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http_body_util::Limited;
use hyper::body::{Frame, SizeHint};
use tracing::Instrument as _;

use super::{
    problem::{Code, Problem, Refusal, internal_with_id},
    server::Limits,
};
use crate::domain::{Randomness, RandomnessUnavailable};

/// The header that names a request to the operator. Never taken from the client.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of one request, for logs and for people who report a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The text, ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Hands out request ids: 64 random bits of this process and a counter.
#[derive(Debug, Clone)]
pub struct RequestIds {
    process: u64,
    next: Arc<AtomicU64>,
}

impl RequestIds {
    /// Ids of one process.
    ///
    /// # Errors
    /// When the generator cannot deliver.
    pub fn new(random: &dyn Randomness) -> Result<Self, RandomnessUnavailable> {
        let mut seed = [0_u8; 8];
        random.fill(&mut seed)?;
        Ok(Self {
            process: u64::from_be_bytes(seed),
            next: Arc::new(AtomicU64::new(1)),
        })
    }

    fn next(&self) -> RequestId {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        RequestId(format!("req_{:016x}{count:08x}", self.process).into())
    }
}

#[derive(Debug, Clone)]
struct Guard {
    ids: RequestIds,
    body_ceiling: usize,
    body_timeout: Duration,
}

/// Wraps a router so that every request has an id, ceilings, and a typed answer even to a panic.
///
/// Bodies are limited to `limits.body_bytes` wherever an extractor reads them; a route that needs more says so with
/// `.layer(DefaultBodyLimit::max(n))` and still meets `limits.body_ceiling`. A body that takes longer than
/// `limits.body_timeout` is not read to its end.
pub fn protect(app: Router, limits: &Limits, ids: RequestIds) -> Router {
    let guard = Guard {
        ids,
        body_ceiling: limits.body_ceiling,
        body_timeout: limits.body_timeout,
    };
    app.layer(DefaultBodyLimit::max(limits.body_bytes))
        .layer(middleware::from_fn_with_state(guard, around))
}

/// Bounds how long the handlers of `routes` may take. A request that runs out of time is dropped; what must finish runs
/// in a task of its own (architecture §3).
pub fn deadline<S: Clone + Send + Sync + 'static>(routes: Router<S>, after: Duration) -> Router<S> {
    routes.layer(middleware::from_fn(
        move |request: Request, next: Next| async move {
            let changes_nothing = matches!(*request.method(), Method::GET | Method::HEAD);
            match tokio::time::timeout(after, next.run(request)).await {
                Ok(response) => response,
                Err(_) if changes_nothing => Problem::store_unavailable()
                    .caused_by("handler ran out of time")
                    .into_response(),
                // Whether anything left is not known here, so this must not say that nothing did.
                Err(_) => Problem::outcome_unknown(None)
                    .caused_by("handler ran out of time")
                    .into_response(),
            }
        },
    ))
}

async fn around(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let id = guard.ids.next();
    request.extensions_mut().insert(id.clone());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("-", MatchedPath::as_str);
    let span = tracing::info_span!(
        "request",
        request.id = %id,
        http.method = %request.method(),
        http.route = route,
    );
    let (ceiling, timeout) = (guard.body_ceiling, guard.body_timeout);
    async move {
        let request = request.map(|body| Body::new(InTime::new(Limited::new(body, ceiling), timeout)));
        let mut response = match CatchPanic::new(next.run(request)).await {
            Ok(response) => typed(response),
            // SECURITY: the payload may hold what the handler held; it is dropped unread. The panic hook
            // (`telemetry`) has printed the location.
            Err(_payload) => {
                tracing::error!("a handler panicked");
                internal_with_id(id.to_string())
            }
        };
        if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
            log(&refusal);
            if refusal.code == Code::Internal {
                response = internal_with_id(id.to_string());
            }
        }
        if let Ok(value) = HeaderValue::try_from(id.as_str()) {
            response.headers_mut().insert(X_REQUEST_ID, value);
        }
        response
    }
    .instrument(span)
    .await
}

/// The router's own bare 404 and 405 become the one `not_found`.
fn typed(response: Response) -> Response {
    let bare = !response.headers().contains_key(header::CONTENT_TYPE);
    if bare && matches!(response.status().as_u16(), 404 | 405) {
        return Problem::not_found().into_response();
    }
    response
}

fn log(refusal: &Refusal) {
    let code = refusal.code.as_str();
    match (&refusal.cause, refusal.code.status().is_server_error()) {
        (Some(cause), true) => {
            tracing::error!(problem.code = code, problem.cause = %cause, "answered {code}: {cause}")
        }
        (Some(cause), false) => {
            tracing::info!(problem.code = code, problem.cause = %cause, "answered {code}: {cause}")
        }
        (None, true) => tracing::warn!(problem.code = code, "answered {code}"),
        (None, false) => tracing::debug!(problem.code = code, "answered {code}"),
    }
}

/// A body that has to arrive in time, however small its steps are.
struct InTime<B> {
    body: B,
    over: Pin<Box<tokio::time::Sleep>>,
}

impl<B> InTime<B> {
    fn new(body: B, within: Duration) -> Self {
        Self {
            body,
            over: Box::pin(tokio::time::sleep(within)),
        }
    }
}

impl<B> HttpBody for InTime<B>
where
    B: HttpBody<Error: Into<axum::BoxError>> + Unpin,
{
    type Data = B::Data;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
            Poll::Pending => match self.over.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Some(Err("the body took too long".into()))),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct CatchPanic<F>(Pin<Box<F>>);

impl<F: Future> CatchPanic<F> {
    fn new(future: F) -> Self {
        Self(Box::pin(future))
    }
}

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Unwind safety: the future is never polled again after a panic, and what it shares with others (pools, locks)
        // is poisoned or reset by its own room.
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(payload) => Poll::Ready(Err(payload)),
        }
    }
}
