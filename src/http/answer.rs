//! Answers as JSON, lists as pages, and work that a client who hangs up cannot stop half-way.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use tracing::Instrument as _;
use utoipa::ToSchema;

use super::problem::Problem;
use crate::flows::Refusal;

/// 200 with `value`.
///
/// # Errors
/// 500 when it does not serialise, which values of ours do.
pub fn ok<T: Serialize>(value: &T) -> Result<Response, Problem> {
    json(StatusCode::OK, value)
}

/// 201 with `value`.
///
/// # Errors
/// As [`ok`].
pub fn created<T: Serialize>(value: &T) -> Result<Response, Problem> {
    json(StatusCode::CREATED, value)
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Result<Response, Problem> {
    let bytes = serde_json::to_vec(value).map_err(Problem::internal)?;
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// 200 with a text that is not JSON.
#[must_use]
pub fn text(text: String) -> Response {
    (
        [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
        ],
        text,
    )
        .into_response()
}

/// 200 with bytes that never change: whoever was let in may keep them, caches on the way may not.
#[must_use]
pub fn immutable(bytes: Vec<u8>) -> Response {
    (
        [
            (header::CONTENT_TYPE, "application/octet-stream"),
            (header::CACHE_CONTROL, "private, max-age=31536000, immutable"),
        ],
        bytes,
    )
        .into_response()
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// What to give as `after` for the next page; absent on the last one.
    pub next: Option<String>,
}

/// How many items a page has, within its bounds.
///
/// # Errors
/// 400 when it is zero or more than [`MOST`].
pub fn limit(asked: Option<u64>) -> Result<u64, Problem> {
    match asked {
        None => Ok(USUAL),
        Some(limit) if (1..=MOST).contains(&limit) => Ok(limit),
        Some(_) => Err(Problem::invalid("?limit", format!("between 1 and {MOST}"))),
    }
}

/// A page of what a query for `limit + 1` rows found; `id` names a row for the next page.
pub fn page<R, T>(mut rows: Vec<R>, limit: u64, id: impl Fn(&R) -> String, view: impl Fn(R) -> T) -> Page<T> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = more.then(|| rows.last().map(id)).flatten();
    Page {
        items: rows.into_iter().map(view).collect(),
        next,
    }
}

/// Runs a flow in a task of its own: a client that hangs up, or a deadline, cannot stop it half-way (architecture §3).
///
/// # Errors
/// The flow's refusal; 500 when it panicked.
pub async fn to_its_end<T: Send + 'static>(
    flow: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::spawn(flow.in_current_span()).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Problem::internal("a flow stopped unexpectedly")),
    }
}

/// The most items of a page.
pub const MOST: u64 = 1000;
const USUAL: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Code;

    fn pages(rows: Vec<u8>, limit: u64) -> (Vec<u8>, Option<String>) {
        let page = page(rows, limit, u8::to_string, |row| row);
        (page.items, page.next)
    }

    #[test]
    fn only_a_page_with_more_behind_it_names_the_next() {
        assert_eq!(pages(vec![1, 2, 3], 2), (vec![1, 2], Some("2".to_owned())));
        assert_eq!(pages(vec![1, 2], 2), (vec![1, 2], None));
        assert_eq!(pages(vec![], 2), (vec![], None));
    }

    #[test]
    fn a_limit_stays_within_its_bounds() {
        assert_eq!(limit(None).unwrap(), USUAL);
        assert_eq!(limit(Some(MOST)).unwrap(), MOST);
        for asked in [0, MOST + 1] {
            assert_eq!(limit(Some(asked)).unwrap_err().code(), Code::InvalidRequest);
        }
    }

    #[tokio::test]
    async fn a_flow_that_panics_is_a_fault_of_ours() {
        let problem = to_its_end(async { panic!("canary") as Result<(), Refusal> })
            .await
            .unwrap_err();
        assert_eq!(problem.code(), Code::Internal);
    }
}
