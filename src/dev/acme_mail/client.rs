//! The registered client: how it proves itself (RFC 6749 §2.3) and where its answers may go.

use axum::http::{HeaderMap, StatusCode, header};
use base64::{Engine, engine::general_purpose::STANDARD};
use url::form_urlencoded;

use super::{Client, RedirectUri, answer::Answer, params::Params};
use crate::crypto::digest::{same, sha256};

/// The one client, its secret only as a digest.
pub(super) struct Registered {
    pub(super) id: String,
    pub(super) name: String,
    secret: Option<[u8; 32]>,
    redirect_uris: Vec<RedirectUri>,
}

impl Registered {
    pub(super) fn new(client: Client) -> Self {
        Self {
            id: client.id,
            name: client.name,
            secret: client.secret.map(|secret| sha256(secret.as_bytes())),
            redirect_uris: client.redirect_uris,
        }
    }

    pub(super) fn is_confidential(&self) -> bool {
        self.secret.is_some()
    }

    /// Whether an authorization response may go to `uri`.
    pub(super) fn may_redirect_to(&self, uri: &str) -> bool {
        self.redirect_uris.iter().any(|registered| match registered {
            // RFC 9700 §2.1: exact string matching.
            RedirectUri::Exact(exact) => exact == uri,
            RedirectUri::OneSegmentUnder(prefix) => {
                prefix.ends_with('/') && uri.strip_prefix(prefix.as_str()).is_some_and(is_segment)
            }
        })
    }

    /// Who calls the token, revocation or introspection endpoint.
    pub(super) fn authenticate(&self, headers: &HeaderMap, form: &Params) -> Result<(), Answer> {
        let in_body = form.get("client_id");
        let (id, secret) = match basic(headers)? {
            // RFC 6749 §2.3: no more than one authentication method per request.
            Some(_) if form.get("client_secret").is_some() => {
                return Err(Answer::invalid_request("the client authenticated twice"));
            }
            Some((id, _)) if in_body.is_some_and(|other| other != id) => return Err(invalid_client()),
            Some((id, secret)) => (id, Some(secret)),
            None => (
                in_body.ok_or_else(invalid_client)?.to_owned(),
                form.get("client_secret").map(str::to_owned),
            ),
        };
        let proven = match (&self.secret, secret) {
            (Some(expected), Some(given)) => same(&sha256(given.as_bytes()), expected),
            (None, None) => true,
            _ => false,
        };
        if proven && id == self.id {
            Ok(())
        } else {
            Err(invalid_client())
        }
    }
}

/// RFC 6749 §5.2: 401, and the scheme the client may use.
pub(super) fn invalid_client() -> Answer {
    Answer::error(
        StatusCode::UNAUTHORIZED,
        "invalid_client",
        "client authentication failed",
    )
    .with(header::WWW_AUTHENTICATE, "Basic realm=\"acme-mail\"")
}

fn basic(headers: &HeaderMap) -> Result<Option<(String, String)>, Answer> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let pair = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .and_then(|(_, encoded)| STANDARD.decode(encoded.trim()).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(invalid_client)?;
    let (id, secret) = pair.split_once(':').ok_or_else(invalid_client)?;
    Ok(Some((form_decode(id), form_decode(secret))))
}

// RFC 6749 §2.3.1: id and secret are form-encoded before they become user name and password.
fn form_decode(part: &str) -> String {
    let part = part.replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(part.as_bytes())
        .next()
        .map(|(text, _)| text.into_owned())
        .unwrap_or_default()
}

fn is_segment(text: &str) -> bool {
    !matches!(text, "" | "." | "..")
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}
