//! The digests that tie a grant and a decision to a definition.

use serde::Serialize;
use serde_json::json;

use super::{Tool, Vars};
use crate::{
    crypto::{
        digest::{hex, sha256},
        jcs::canonicalize,
    },
    domain::connector::{Connector, HTTP_REQUEST},
};

/// SHA-256 of the endpoints, API hosts, token placement and variables that a person consents to (crypto §2). Takes
/// the definition as the catalogue holds it: variables are filled with their defaults there, so those are covered, too.
///
/// `None` only if the definition has no canonical form, which a loaded one has.
pub(super) fn binding(connector: &Connector, vars: &Vars) -> Option<[u8; 32]> {
    let server = &connector.server;
    canonical_digest(&json!({
        "issuer": server.issuer,
        "authorize_url": server.authorize_url,
        "token_url": server.token_url,
        "refresh_url": server.refresh_url,
        "device_url": server.device_url,
        "introspect_url": connector.narrow.introspect_url,
        "identity_url": connector.identity.url,
        "revoke_url": connector.revoke.url,
        "hosts": connector.api.hosts,
        "origin": connector.api.origin,
        "token_in": connector.api.token_in,
        "vars": vars,
    }))
}

/// The `tool_digest` of an action (protocol §3).
///
/// For `http.request`, which has no table in the file, the table is its name and where it may go.
pub(super) fn tool_digest(connector: &Connector, tool: Tool<'_>, binding: &[u8; 32]) -> Option<String> {
    let binding = hex(binding);
    let digest = match tool {
        Tool::Typed(action) => canonical_digest(&json!({"action": action, "binding": binding})),
        Tool::HttpRequest => canonical_digest(&json!({
            "action": {"name": HTTP_REQUEST, "paths": connector.api.paths, "deny": connector.api.deny},
            "binding": binding,
        })),
    }?;
    Some(format!("sha256:{}", hex(&digest)))
}

/// SHA-256 of the canonical form (RFC 8785).
fn canonical_digest<T: Serialize>(value: &T) -> Option<[u8; 32]> {
    canonicalize(value).ok().map(|bytes| sha256(&bytes))
}
