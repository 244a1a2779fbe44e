//! The generic tool `http.request`: method, path, query and body from the caller; host, headers and token from us.
//!
//! SECURITY: it must not become a way around typed actions. A path that a typed action owns is refused whatever the
//! method, for some servers (Slack) take any method on any path, and HEAD or a trailing slash often reach the same
//! code.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::{Map, Value};
use url::{Url, form_urlencoded};

use super::{
    args::{ArgError, ValidArgs, pointer},
    path,
    render::{RenderRefusal, Rendered, fixed_headers},
    template,
};
use crate::domain::connector::{ActionDefinition, Connector, TokenPlacement};

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
const MEMBERS: [&str; 6] = ["method", "path", "query", "content_type", "body", "body_b64"];

/// Names that change the method, or bring a credential that is not the grant's.
const RESERVED_NAMES: [&str; 10] = [
    "_method",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "$httpmethod",
    "token",
    "access_token",
    "oauth_token",
    "bearer_token",
    "client_secret",
];

/// Checks the arguments of `http.request`.
pub(super) fn validate(
    connector: &Connector,
    members: &Map<String, Value>,
) -> Result<ValidArgs, Vec<ArgError>> {
    let mut errors: Vec<ArgError> = members
        .keys()
        .filter(|name| !MEMBERS.contains(&name.as_str()))
        .map(|name| ArgError::new(pointer(name), "is not an argument of this tool"))
        .collect();
    let mut canonical = members.clone();
    let mut note = |pointer: &str, outcome: Result<(), &'static str>| {
        if let Err(problem) = outcome {
            errors.push(ArgError::new(pointer, problem));
        }
    };
    let method = members.get("method").and_then(Value::as_str);
    note(
        "/method",
        match method {
            Some(method) if METHODS.contains(&method) => Ok(()),
            _ => Err("is not GET, HEAD, POST, PUT, PATCH or DELETE"),
        },
    );
    note(
        "/path",
        match members.get("path").and_then(Value::as_str) {
            Some(path) => check_path(connector, path),
            None => Err("is missing or not text"),
        },
    );
    if let Some(query) = members.get("query") {
        note("/query", check_query(connector, query));
    }
    match check_body(connector, members, method) {
        Ok(Some(content_type)) => {
            canonical.insert("content_type".to_owned(), Value::String(content_type));
        }
        Ok(None) => {}
        Err((pointer, problem)) => note(pointer, Err(problem)),
    }
    if errors.is_empty() {
        Ok(ValidArgs::new(canonical.clone(), canonical))
    } else {
        Err(errors)
    }
}

fn check_path(connector: &Connector, path: &str) -> Result<(), &'static str> {
    let origin = connector
        .api
        .origin
        .as_deref()
        .ok_or("cannot be called: the connector has no generic tool")?;
    let segments = path::canonical_segments(path)?;
    let text = format!("{origin}{path}");
    if Url::parse(&text).is_ok_and(|url| url.as_str() != text) {
        return Err("is not in canonical form");
    }
    let covered = |pattern: &str| path::matches(pattern, &segments);
    if !connector.api.paths.is_empty() && !connector.api.paths.iter().any(|pattern| covered(pattern)) {
        return Err("is outside the connector's API");
    }
    if connector.api.deny.iter().any(|pattern| covered(pattern))
        || oauth_paths(connector).any(|path| covered(&path))
    {
        return Err("is never called for an agent");
    }
    if connector
        .actions
        .iter()
        .filter_map(|action| route(connector, action))
        .any(|route| covered(&route))
    {
        return Err("belongs to a typed tool");
    }
    Ok(())
}

/// The pattern of the paths a typed action renders, if they lie on the generic tool's origin.
fn route(connector: &Connector, action: &ActionDefinition) -> Option<String> {
    let (origin, path) = template::split_origin(&action.request.url)?;
    let pattern = path
        .split('/')
        .map(|segment| match template::placeholder(segment) {
            Some(name) if action.args.get(name).is_some_and(|spec| spec.multi_segment) => "**",
            Some(_) => "*",
            None => segment,
        })
        .collect::<Vec<_>>()
        .join("/");
    (connector.api.origin.as_deref() == Some(origin)).then_some(pattern)
}

/// The paths of the connector's OAuth endpoints that lie on the API's origin.
fn oauth_paths(connector: &Connector) -> impl Iterator<Item = String> {
    let origin = connector
        .api
        .origin
        .as_deref()
        .and_then(|origin| Url::parse(origin).ok());
    let server = &connector.server;
    [
        Some(&server.authorize_url),
        Some(&server.token_url),
        server.refresh_url.as_ref(),
        server.device_url.as_ref(),
        connector.revoke.url.as_ref(),
        connector.narrow.introspect_url.as_ref(),
    ]
    .into_iter()
    .flatten()
    .filter_map(|url| Url::parse(&url.replace("{client_id}", "*")).ok())
    .filter(move |url| {
        origin
            .as_ref()
            .is_some_and(|origin| origin.origin() == url.origin())
    })
    .map(|url| url.path().to_owned())
}

fn check_query(connector: &Connector, query: &Value) -> Result<(), &'static str> {
    let pairs = query.as_array().ok_or("is not a list of pairs")?;
    for pair in pairs {
        let Some([Value::String(name), Value::String(_)]) = pair.as_array().map(Vec::as_slice) else {
            return Err("is not a list of pairs of texts");
        };
        check_name(connector, name)?;
    }
    Ok(())
}

fn check_name(connector: &Connector, name: &str) -> Result<(), &'static str> {
    let folded = name.trim().to_ascii_lowercase();
    let token_name = match &connector.api.token_in {
        TokenPlacement::Query(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    if RESERVED_NAMES.contains(&folded.as_str()) || token_name.as_deref() == Some(folded.as_str()) {
        Err("names a method override or a credential")
    } else {
        Ok(())
    }
}

/// Checks the body; yields its content type.
fn check_body(
    connector: &Connector,
    members: &Map<String, Value>,
    method: Option<&str>,
) -> Result<Option<String>, (&'static str, &'static str)> {
    let content_type = match members.get("content_type") {
        None => None,
        Some(Value::String(text)) => Some(text.as_str()),
        Some(_) => return Err(("/content_type", "is not text")),
    };
    let (pointer, bytes, default) = match (members.get("body"), members.get("body_b64")) {
        (None, None) if content_type.is_some() => return Err(("/content_type", "comes without a body")),
        (None, None) => return Ok(None),
        (Some(Value::String(text)), None) => ("/body", text.clone().into_bytes(), "application/json"),
        (None, Some(Value::String(text))) => (
            "/body_b64",
            BASE64_STANDARD
                .decode(text)
                .map_err(|_| ("/body_b64", "is not base64"))?,
            "application/octet-stream",
        ),
        (Some(_), Some(_)) => return Err(("/body", "comes with body_b64 too")),
        (Some(_), None) => return Err(("/body", "is not text")),
        (None, Some(_)) => return Err(("/body_b64", "is not text")),
    };
    if matches!(method, Some("GET" | "HEAD")) {
        return Err((pointer, "goes with no GET or HEAD"));
    }
    let content_type = content_type.unwrap_or(default);
    check_content_type(content_type).map_err(|problem| ("/content_type", problem))?;
    check_content(connector, content_type, &bytes).map_err(|problem| (pointer, problem))?;
    Ok(Some(content_type.to_owned()))
}

// `multipart` and `message` types carry requests or parts of their own (batch endpoints): nothing here reads them.
fn check_content_type(text: &str) -> Result<(), &'static str> {
    let token = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'+' | b'-'))
    };
    match text.split_once('/') {
        Some(("application", "http")) => Err("may carry requests of its own"),
        Some(("application" | "text" | "image" | "audio" | "video", subtype))
            if token(subtype) && text.len() <= 127 =>
        {
            Ok(())
        }
        Some(("multipart" | "message", _)) => Err("may carry requests of its own"),
        _ => Err("is not a plain media type in lower case"),
    }
}

fn check_content(connector: &Connector, content_type: &str, bytes: &[u8]) -> Result<(), &'static str> {
    if content_type == "application/json" || content_type.ends_with("+json") {
        let value: Value = serde_json::from_slice(bytes).map_err(|_| "is not JSON")?;
        for name in value.as_object().into_iter().flat_map(Map::keys) {
            check_name(connector, name)?;
        }
    } else if content_type == "application/x-www-form-urlencoded" {
        for (name, _) in form_urlencoded::parse(bytes) {
            check_name(connector, &name)?;
        }
    }
    Ok(())
}

/// Makes the request of valid arguments.
pub(super) fn render(connector: &Connector, args: &ValidArgs) -> Result<Rendered, RenderRefusal> {
    let text = |name: &str| args.get(name).and_then(Value::as_str);
    let origin = connector.api.origin.as_deref().ok_or(RenderRefusal::Template)?;
    let path = text("path").ok_or(RenderRefusal::Template)?;
    let method = text("method")
        .and_then(|method| Method::from_bytes(method.as_bytes()).ok())
        .ok_or(RenderRefusal::Template)?;
    // Checked again: rendering trusts the type, not the caller's path to it.
    check_path(connector, path).map_err(|_| RenderRefusal::Path {
        arg: "path".to_owned(),
    })?;
    let target = format!("{origin}{path}");
    let mut url = Url::parse(&target).map_err(|_| RenderRefusal::NotCanonical)?;
    if url.as_str() != target {
        return Err(RenderRefusal::NotCanonical);
    }
    if let Some(pairs) = args
        .get("query")
        .and_then(Value::as_array)
        .filter(|pairs| !pairs.is_empty())
    {
        let mut query = url.query_pairs_mut();
        for pair in pairs {
            if let Some([Value::String(name), Value::String(value)]) = pair.as_array().map(Vec::as_slice) {
                query.append_pair(name, value);
            }
        }
    }
    let mut headers = HeaderMap::new();
    fixed_headers(&connector.api.headers, &mut headers)?;
    let body = match (text("body"), text("body_b64")) {
        (Some(body), _) => Some(Bytes::from(body.to_owned().into_bytes())),
        (None, Some(body)) => Some(Bytes::from(
            BASE64_STANDARD
                .decode(body)
                .map_err(|_| RenderRefusal::Template)?,
        )),
        (None, None) => None,
    };
    if let Some(content_type) = text("content_type") {
        let value = HeaderValue::from_str(content_type).map_err(|_| RenderRefusal::Template)?;
        headers.insert(header::CONTENT_TYPE, value);
    }
    Rendered::new(connector, method, url, headers, body)
}
