//! `GET /.well-known/oauth-authorization-server` (RFC 8414).

use axum::{extract::State, http::StatusCode};
use serde_json::json;

use super::{AcmeMail, answer::Answer, scopes};

/// What this server can do, for clients that ask.
pub(super) async fn endpoint(State(acme): State<AcmeMail>) -> Answer {
    let issuer = acme.issuer();
    let is_confidential = acme.0.client.is_confidential();
    let methods: &[&str] = if is_confidential { SECRET } else { &["none"] };
    let mut body = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "token_endpoint_auth_methods_supported": methods,
        "revocation_endpoint": format!("{issuer}/revoke"),
        "revocation_endpoint_auth_methods_supported": methods,
        "userinfo_endpoint": format!("{issuer}/userinfo"),
        "scopes_supported": scopes::ALL.iter().map(|scope| scope.name).collect::<Vec<_>>(),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        // RFC 9207 §3.
        "authorization_response_iss_parameter_supported": true,
    });
    // A public client cannot introspect, so it is not told of the endpoint.
    if let (true, Some(members)) = (is_confidential, body.as_object_mut()) {
        members.insert(
            "introspection_endpoint".to_owned(),
            json!(format!("{issuer}/introspect")),
        );
        members.insert(
            "introspection_endpoint_auth_methods_supported".to_owned(),
            json!(methods),
        );
    }
    Answer::json(StatusCode::OK, body)
}

const SECRET: &[&str] = &["client_secret_basic", "client_secret_post"];
