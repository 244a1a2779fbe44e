//! The room as a whole: every file, the rendering corpus, the generic tool, digests, error classes.

mod catalogue;
mod digest;
mod errors;
mod generic;
mod rendering;

use std::sync::Arc;

use serde_json::Value;

use super::*;

pub(super) const ORIGIN: &str = "http://127.0.0.1:4701";

pub(super) fn catalogue() -> Catalogue {
    Catalogue::load(&Options {
        acme_mail_origin: Some(ORIGIN),
        ..Options::default()
    })
    .unwrap()
}

pub(super) fn connector(id: &str) -> Arc<Connector> {
    Arc::clone(catalogue().get(&id.parse().unwrap()).unwrap())
}

/// Validates and renders, as a caller would.
fn request(connector: &Connector, tool: &str, args: &Value) -> Result<Rendered, String> {
    let tool = Tool::find(connector, tool).unwrap();
    let args = validate(connector, tool, args).map_err(|errors| format!("{errors:?}"))?;
    render(connector, tool, &args).map_err(|refusal| refusal.to_string())
}
