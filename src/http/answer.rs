//! Answers as JSON, lists as pages, and work that a client who hangs up cannot stop half-way.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use tracing::Instrument as _;
use utoipa::{
    IntoParams, ToSchema,
    openapi::path::{Parameter, ParameterIn},
};

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

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// What to give as `after` for the next page; absent on the last one.
    pub next: Option<String>,
}

/// How many items a page has: 1 to [`MOST`], 100 unless said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct Limit(u64);

/// No page has so few or so many items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("between 1 and {MOST}")]
pub struct OutOfBounds;

impl Default for Limit {
    fn default() -> Self {
        Self(USUAL)
    }
}

impl TryFrom<u64> for Limit {
    type Error = OutOfBounds;

    fn try_from(asked: u64) -> Result<Self, OutOfBounds> {
        if (1..=MOST).contains(&asked) {
            Ok(Self(asked))
        } else {
            Err(OutOfBounds)
        }
    }
}

impl Limit {
    /// How many rows to look for: one more than is shown tells whether another page follows.
    #[must_use]
    pub fn rows(self) -> u64 {
        self.0 + 1
    }

    /// How many of them are shown.
    #[must_use]
    pub fn shown(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// 200 with a page of what a query for [`Limit::rows`] found; `id` names a row for the next page.
    ///
    /// # Errors
    /// As [`ok`].
    pub fn answer<R, T: Serialize>(
        self,
        rows: Vec<R>,
        id: impl Fn(&R) -> String,
        view: impl Fn(R) -> T,
    ) -> Result<Response, Problem> {
        ok(&self.page(rows, id, view))
    }

    /// The same page, for an answer that says more.
    pub fn page<R, T>(self, mut rows: Vec<R>, id: impl Fn(&R) -> String, view: impl Fn(R) -> T) -> Page<T> {
        let more = rows.len() > self.shown();
        rows.truncate(self.shown());
        let next = more.then(|| rows.last().map(id)).flatten();
        Page {
            items: rows.into_iter().map(view).collect(),
            next,
        }
    }
}

/// The parameters of a list that filters nothing: `?limit=&after=`.
#[derive(Debug, Deserialize)]
pub struct Listing<Id> {
    /// How many.
    #[serde(default)]
    pub limit: Limit,
    /// The `next` of the page before.
    pub after: Option<Id>,
}

/// The same in the API document, where every id is a string.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its description is used")]
struct Described {
    /// At most so many; 100 unless said.
    limit: Option<u64>,
    /// The `next` of the page before.
    after: Option<String>,
}

impl<Id> IntoParams for Listing<Id> {
    fn into_params(place: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        Described::into_params(place)
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
    use crate::http::{Code, query};

    fn pages(rows: Vec<u8>, limit: u64) -> (Vec<u8>, Option<String>) {
        let limit = Limit::try_from(limit).unwrap();
        let page = limit.page(rows, u8::to_string, |row| row);
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
        let asked = |query: &str| query::parse::<Listing<u64>>(query).map(|listing| listing.limit.shown());
        assert_eq!(asked("").unwrap(), 100);
        assert_eq!(asked("limit=1000").unwrap(), 1000);
        for query in ["limit=0", "limit=1001"] {
            assert_eq!(asked(query).unwrap_err().pointer(), "?limit", "{query}");
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
