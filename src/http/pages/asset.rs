//! The two files pages load. Their addresses carry a hash of their content, so they may be kept for ever.

use axum::{
    http::header,
    response::{IntoResponse, Response},
};

use crate::web::assets::{Asset, ICON, STYLESHEET};

/// `GET /assets/postern.css`.
pub(super) async fn stylesheet() -> Response {
    file(STYLESHEET)
}

/// `GET /assets/postern.svg`.
pub(super) async fn icon() -> Response {
    file(ICON)
}

fn file(asset: Asset) -> Response {
    let headers = [
        (header::CONTENT_TYPE, asset.content_type),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    (headers, asset.text).into_response()
}
