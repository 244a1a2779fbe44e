//! `/problems/{code}`: the page behind the `type` of every problem.

use axum::{
    Router,
    extract::Path,
    response::{Html, IntoResponse as _, Response},
    routing::get,
};
use utoipa::OpenApi;

use crate::{
    http::problem::{Body, Code, Problem},
    web::{Template as _, pages::problem::ProblemPage},
};

/// Explains a code to a person.
#[utoipa::path(
    get, path = "/problems/{code}", tag = "operations", operation_id = "problem_page",
    params(("code" = String, Path, description = "The `code` of a problem.")),
    responses(
        (status = 200, description = "What the code means and what to do.", content_type = "text/html", body = String),
        (status = 404, description = "No such code.", body = Body, content_type = "application/problem+json"),
    ),
)]
async fn page(Path(name): Path<String>) -> Result<Response, Problem> {
    let code = Code::parse(&name).ok_or_else(Problem::not_found)?;
    let help = code.help();
    let page = ProblemPage {
        code: code.as_str(),
        status: code.status().as_u16(),
        title: help.title,
        meaning: help.meaning,
        remedy: help.remedy,
    };
    let text = page.render().map_err(Problem::internal)?;
    Ok(Html(text).into_response())
}

/// The page in the document.
#[derive(OpenApi)]
#[openapi(paths(page))]
pub(in crate::http) struct Api;

/// The pages of all codes.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/problems/{code}", get(page))
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, extract::Request};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn at(path: &str) -> (u16, String) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = routes::<()>().with_state(()).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn every_type_of_a_problem_leads_to_a_page() {
        for code in Code::ALL {
            let (status, page) = at(&code.type_uri()).await;
            assert_eq!(status, 200);
            assert!(
                page.contains(code.as_str()) && page.contains("What to do"),
                "{page}"
            );
        }
    }

    #[tokio::test]
    async fn an_unknown_code_is_not_found() {
        assert_eq!(at("/problems/no_such").await.0, 404);
    }
}
