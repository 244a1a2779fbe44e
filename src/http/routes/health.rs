//! `/healthz` and `/readyz`, on the operations listener: is the process alive, and may it be given work?

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::Response,
    routing::get,
};
use serde::Serialize;
use tokio::sync::watch;
use utoipa::{OpenApi, ToSchema};

/// What stands between this replica and work; empty when nothing does.
///
/// `app` keeps it current through a `watch` channel, so that a probe never touches the database or the key service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Short stable names: `starting`, `store`, `clock`, `keys`, `sealed`, `outside`, `draining`.
    pub obstacles: Vec<&'static str>,
}

/// The answer of both probes.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `ok` or `unavailable`.
    status: &'static str,
    /// What is in the way, if anything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    obstacles: Vec<&'static str>,
}

/// Answers while the process can answer at all.
#[utoipa::path(
    get, path = "/healthz", tag = "operations", operation_id = "healthz",
    responses((status = 200, description = "The process is alive.", body = Health)),
)]
async fn healthz() -> Response {
    answer(&Readiness::default())
}

/// Says whether this replica may be given work.
#[utoipa::path(
    get, path = "/readyz", tag = "operations", operation_id = "readyz",
    responses(
        (status = 200, description = "Ready for work.", body = Health),
        (status = 503, description = "Not ready; `obstacles` says why.", body = Health),
    ),
)]
async fn readyz(State(readiness): State<watch::Receiver<Readiness>>) -> Response {
    answer(&readiness.borrow())
}

/// The probes in the document.
#[derive(OpenApi)]
#[openapi(paths(healthz, readyz), components(schemas(Health)))]
pub(in crate::http) struct Api;

/// The probes; mount them on the operations listener.
pub fn routes(readiness: watch::Receiver<Readiness>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(readiness)
}

fn answer(readiness: &Readiness) -> Response {
    let ready = readiness.obstacles.is_empty();
    let health = Health {
        status: if ready { "ok" } else { "unavailable" },
        obstacles: readiness.obstacles.clone(),
    };
    let mut response = Response::new(Body::from(serde_json::to_vec(&health).unwrap_or_default()));
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use axum::extract::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn probe(path: &str, obstacles: Vec<&'static str>) -> (u16, String) {
        let (_sender, receiver) = watch::channel(Readiness { obstacles });
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = routes(receiver).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_replica_with_an_obstacle_is_alive_but_not_ready() {
        assert_eq!(
            probe("/healthz", vec!["store"]).await,
            (200, r#"{"status":"ok"}"#.into())
        );
        assert_eq!(
            probe("/readyz", vec!["store"]).await,
            (503, r#"{"status":"unavailable","obstacles":["store"]}"#.into())
        );
    }

    #[tokio::test]
    async fn a_replica_without_obstacles_is_ready() {
        assert_eq!(
            probe("/readyz", Vec::new()).await,
            (200, r#"{"status":"ok"}"#.into())
        );
    }
}
