//! Answers as plain data, so that faults can reshape them before they become responses.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use url::Url;

use crate::domain::RandomnessUnavailable;

/// What an endpoint wants to say.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Boxed, so that an answer is small enough to travel as an `Err`.
    pub(super) content: Box<Content>,
    /// The error code for the log.
    pub(super) error: Option<String>,
}

/// The body, or where to go.
#[derive(Debug)]
pub(super) enum Content {
    Empty,
    Json(Map<String, Value>),
    Html(String),
    /// An authorization response: parameters to append to a redirect URI.
    Redirect {
        to: String,
        params: Vec<(String, String)>,
    },
}

impl Answer {
    pub(super) fn json(status: StatusCode, value: Value) -> Self {
        let members = match value {
            Value::Object(members) => members,
            other => Map::from_iter([("value".to_owned(), other)]),
        };
        Self::new(status, Content::Json(members))
    }

    pub(super) fn empty(status: StatusCode) -> Self {
        Self::new(status, Content::Empty)
    }

    pub(super) fn html(status: StatusCode, page: String) -> Self {
        Self::new(status, Content::Html(page))
    }

    /// RFC 6749 §4.1.2: the authorization response, by way of the browser.
    pub(super) fn redirect(to: &str, params: Vec<(&str, String)>) -> Self {
        let error = params
            .iter()
            .find(|(name, _)| *name == "error")
            .map(|(_, code)| code.clone());
        let content = Content::Redirect {
            to: to.to_owned(),
            params: params
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        };
        Self {
            error,
            ..Self::new(StatusCode::SEE_OTHER, content)
        }
    }

    /// RFC 6749 §5.2.
    pub(super) fn error(status: StatusCode, code: &str, description: &str) -> Self {
        let body = json!({ "error": code, "error_description": description });
        Self::json(status, body).failing(code)
    }

    pub(super) fn invalid_request(description: &str) -> Self {
        Self::error(StatusCode::BAD_REQUEST, "invalid_request", description)
    }

    pub(super) fn failing(self, code: &str) -> Self {
        Self {
            error: Some(code.to_owned()),
            ..self
        }
    }

    /// Adds a header; a value that is not one is left out.
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    fn new(status: StatusCode, content: Content) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content: Box::new(content),
            error: None,
        }
    }
}

impl From<RandomnessUnavailable> for Answer {
    fn from(_: RandomnessUnavailable) -> Self {
        Self::error(
            StatusCode::SERVICE_UNAVAILABLE,
            "temporarily_unavailable",
            "no randomness",
        )
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = match *self.content {
            Content::Empty => Body::empty().into_response(),
            Content::Html(page) => Html(page).into_response(),
            Content::Json(members) => (
                [(header::CONTENT_TYPE, "application/json")],
                Value::Object(members).to_string(),
            )
                .into_response(),
            Content::Redirect { to, params } => match location(&to, &params) {
                Some(location) => [(header::LOCATION, location)].into_response(),
                None => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            },
        };
        *response.status_mut() = self.status;
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

fn location(to: &str, params: &[(String, String)]) -> Option<HeaderValue> {
    let mut url = Url::parse(to).ok()?;
    // RFC 6749 §3.1.2: a query the redirect URI already has is kept.
    url.query_pairs_mut().extend_pairs(params);
    HeaderValue::from_str(url.as_str()).ok()
}
