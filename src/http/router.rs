//! PLACEHOLDER until the routes land.
use std::sync::Arc;

use axum::Router;

use super::security::Site;
use crate::flows::Deps;

/// The whole app.
pub fn app(_deps: Arc<Deps>, _site: Site) -> Router {
    Router::new()
}
