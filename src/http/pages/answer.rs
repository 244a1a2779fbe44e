//! How a page is sent: never stored, under the content security policy of pages without scripts.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};

use super::failure::Failure;
use crate::{
    http::security::{self, CSP_PAGE},
    web::Template,
};

/// A page.
pub(super) fn page(page: &impl Template) -> Result<Response, Failure> {
    page_with(StatusCode::OK, page)
}

/// A page with another status.
pub(super) fn page_with(status: StatusCode, page: &impl Template) -> Result<Response, Failure> {
    let text = page.render().map_err(Failure::internal)?;
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, CSP_PAGE),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// 303 to a page of ours.
pub(super) fn go_to(path: &str) -> Result<Response, Failure> {
    security::see_other(path).map_err(Failure::internal_problem)
}

/// The same answer with a cookie.
pub(super) fn with_cookie<E: std::fmt::Display>(
    mut response: Response,
    cookie: Result<HeaderValue, E>,
) -> Result<Response, Failure> {
    let cookie = cookie.map_err(Failure::internal)?;
    response.headers_mut().append(header::SET_COOKIE, cookie);
    Ok(response)
}
