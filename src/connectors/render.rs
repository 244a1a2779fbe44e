//! From an action to the one request it means.
//!
//! Promises: the URL has its template's origin and segment count, survives parse → serialise byte for byte, and its
//! host is one of the connector's. What does not fit is refused before anything is sent.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::{Map, Value, json};
use url::{Url, form_urlencoded};

use super::{Tool, args::ValidArgs, http_request, mime, path, template};
use crate::{
    domain::{
        connector::{ActionDefinition, BodyKind, Connector, TokenPlacement},
        secret::AccessToken,
    },
    egress::{Credential, OutboundRequest},
};

/// Why no request was made. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderRefusal {
    /// An argument cannot stand in a path.
    #[error("the argument {arg} cannot stand in a path")]
    Path {
        /// Which argument.
        arg: String,
    },
    /// The URL changed when it was parsed, or left its template.
    #[error("the rendered url is not canonical")]
    NotCanonical,
    /// The host is none of the connector's.
    #[error("the rendered url leaves the connector's hosts")]
    Host,
    /// The definition and the arguments do not fit each other.
    #[error("the tool's definition cannot be rendered")]
    Template,
}

/// A request without its credential.
#[derive(Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The method.
    pub method: Method,
    /// The URL.
    pub url: Url,
    /// The headers, without a credential.
    pub headers: HeaderMap,
    /// The body.
    pub body: Option<Bytes>,
}

impl Rendered {
    pub(super) fn new(
        connector: &Connector,
        method: Method,
        url: Url,
        mut headers: HeaderMap,
        body: Option<Bytes>,
    ) -> Result<Self, RenderRefusal> {
        // Building the query must not have touched the rest, and the whole must read back as itself.
        if Url::parse(url.as_str()).map(String::from).as_deref() != Ok(url.as_str()) {
            return Err(RenderRefusal::NotCanonical);
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(RenderRefusal::NotCanonical);
        }
        // INVARIANT: I11, checked at the last moment before egress takes over.
        if !super::vars::is_api_host(connector, &url) {
            return Err(RenderRefusal::Host);
        }
        headers
            .entry(header::ACCEPT)
            .or_insert(HeaderValue::from_static("application/json"));
        Ok(Self {
            method,
            url,
            headers,
            body,
        })
    }

    /// The request with the token where the connector wants it.
    #[must_use]
    pub fn with_token<'a>(self, connector: &'a Connector, token: &'a AccessToken) -> OutboundRequest<'a> {
        let mut request = OutboundRequest::new(self.method, self.url);
        request.headers = self.headers;
        request.body = self.body;
        request.credential = credential(connector, token);
        request
    }
}

impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rendered")
            .field("method", &self.method)
            .field("host", &self.url.host_str())
            .finish_non_exhaustive()
    }
}

/// Where the connector wants an access token.
#[must_use]
pub fn credential<'a>(connector: &'a Connector, token: &'a AccessToken) -> Credential<'a> {
    match &connector.api.token_in {
        TokenPlacement::Bearer => Credential::Bearer(token),
        TokenPlacement::Header(name) => Credential::Header { name, token },
        TokenPlacement::Query(name) => Credential::Query { name, token },
    }
}

/// Makes the request that the tool and the arguments mean. `connector` has its variables filled in.
///
/// # Errors
/// [`RenderRefusal`]; nothing was sent.
pub fn render(connector: &Connector, tool: Tool<'_>, args: &ValidArgs) -> Result<Rendered, RenderRefusal> {
    match tool {
        Tool::HttpRequest => http_request::render(connector, args),
        Tool::Typed(action) => typed(connector, action, args),
    }
}

fn typed(
    connector: &Connector,
    action: &ActionDefinition,
    args: &ValidArgs,
) -> Result<Rendered, RenderRefusal> {
    let template = &action.request;
    let method = Method::from_bytes(template.method.as_bytes()).map_err(|_| RenderRefusal::Template)?;
    let mut url = render_url(action, args)?;
    let pairs: Vec<(&str, String)> = template
        .query
        .iter()
        .flat_map(|(name, value)| query_pairs(name, value, args))
        .collect();
    if !pairs.is_empty() {
        url.query_pairs_mut().extend_pairs(pairs);
    }
    let mut headers = HeaderMap::new();
    fixed_headers(&connector.api.headers, &mut headers)?;
    fixed_headers(&template.headers, &mut headers)?;
    let body = render_body(action, args)?;
    if let Some((content_type, _)) = &body {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    Rendered::new(connector, method, url, headers, body.map(|(_, bytes)| bytes))
}

fn render_url(action: &ActionDefinition, args: &ValidArgs) -> Result<Url, RenderRefusal> {
    let (origin, path) = template::split_origin(&action.request.url).ok_or(RenderRefusal::Template)?;
    let mut text = origin.to_owned();
    let mut segments = 0_usize;
    for segment in path.split('/').skip(1) {
        let Some(name) = template::placeholder(segment) else {
            text.push('/');
            text.push_str(segment);
            segments += 1;
            continue;
        };
        let value = args.get(name).and_then(scalar).ok_or(RenderRefusal::Template)?;
        let many = action.args.get(name).is_some_and(|spec| spec.multi_segment);
        let parts: Vec<&str> = if many {
            value.split('/').collect()
        } else {
            vec![&value]
        };
        for part in parts {
            path::check_parameter(part).map_err(|_| RenderRefusal::Path { arg: name.to_owned() })?;
            text.push('/');
            text.push_str(&path::encode_segment(part));
            segments += 1;
        }
    }
    let url = Url::parse(&text).map_err(|_| RenderRefusal::NotCanonical)?;
    let home = Url::parse(origin).map_err(|_| RenderRefusal::Template)?;
    // SECURITY: a URL that reads differently from how it was written might go elsewhere than what was approved.
    let kept = url.as_str() == text
        && url.origin() == home.origin()
        && url.path_segments().is_some_and(|parts| parts.count() == segments);
    if kept {
        Ok(url)
    } else {
        Err(RenderRefusal::NotCanonical)
    }
}

fn query_pairs<'n>(name: &'n str, value: &str, args: &ValidArgs) -> Vec<(&'n str, String)> {
    match template::placeholder(value) {
        None => vec![(name, value.to_owned())],
        Some(arg) => match args.get(arg) {
            Some(Value::Array(items)) => items.iter().filter_map(scalar).map(|item| (name, item)).collect(),
            Some(value) => scalar(value).map(|value| (name, value)).into_iter().collect(),
            None => Vec::new(),
        },
    }
}

type Body = Option<(&'static str, Bytes)>;

fn render_body(action: &ActionDefinition, args: &ValidArgs) -> Result<Body, RenderRefusal> {
    const JSON: &str = "application/json";
    let json_bytes = |value: &Value| {
        serde_json::to_vec(value)
            .map(Bytes::from)
            .map_err(|_| RenderRefusal::Template)
    };
    Ok(match action.request.body {
        BodyKind::None => None,
        BodyKind::Json => Some((JSON, json_bytes(&Value::Object(members(action, args)))?)),
        BodyKind::Form => {
            let mut form = form_urlencoded::Serializer::new(String::new());
            for (name, value) in members(action, args) {
                form.append_pair(&name, &scalar(&value).ok_or(RenderRefusal::Template)?);
            }
            Some(("application/x-www-form-urlencoded", Bytes::from(form.finish())))
        }
        BodyKind::MimeRaw | BodyKind::MimeRawMessage => {
            let mut message = members(action, args);
            message.insert("raw".to_owned(), Value::String(mime::raw(&mail(args)?)));
            let value = if action.request.body == BodyKind::MimeRaw {
                Value::Object(message)
            } else {
                json!({ "message": message })
            };
            Some((JSON, json_bytes(&value)?))
        }
    })
}

/// The arguments a mail is made of.
pub(super) const MAIL_ARGS: [&str; 5] = ["to", "cc", "bcc", "subject", "body"];

fn mail(args: &ValidArgs) -> Result<mime::Mail<'_>, RenderRefusal> {
    let list = |name: &str| -> Vec<&str> {
        match args.get(name) {
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(one)) => vec![one],
            _ => Vec::new(),
        }
    };
    let text = |name: &str| args.get(name).and_then(Value::as_str);
    let mail = mime::Mail {
        to: list("to"),
        cc: list("cc"),
        bcc: list("bcc"),
        subject: text("subject").ok_or(RenderRefusal::Template)?,
        body: text("body").ok_or(RenderRefusal::Template)?,
    };
    if mail.fits_headers() {
        Ok(mail)
    } else {
        Err(RenderRefusal::Template)
    }
}

/// The members of a body: as the template says, or every argument that goes nowhere else.
fn members(action: &ActionDefinition, args: &ValidArgs) -> Map<String, Value> {
    if let Some(template) = &action.request.members {
        return template
            .iter()
            .filter_map(|(name, value)| fill(value, args).map(|value| (name.clone(), value)))
            .collect();
    }
    let elsewhere = used_elsewhere(action);
    args.canonical()
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| !elsewhere.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The arguments that stand in the path, the query or a mail.
pub(super) fn used_elsewhere(action: &ActionDefinition) -> Vec<&str> {
    let path = template::split_origin(&action.request.url).map_or("", |(_, path)| path);
    let mail: &[&str] = match action.request.body {
        BodyKind::MimeRaw | BodyKind::MimeRawMessage => &MAIL_ARGS,
        BodyKind::None | BodyKind::Json | BodyKind::Form => &[],
    };
    path.split('/')
        .chain(action.request.query.values().map(String::as_str))
        .filter_map(template::placeholder)
        .chain(mail.iter().copied())
        .collect()
}

/// A literal with its `{arg}`s filled; what names an absent argument is left out.
fn fill(template: &Value, args: &ValidArgs) -> Option<Value> {
    match template {
        Value::String(text) => match template::placeholder(text) {
            Some(name) => args.get(name).cloned(),
            None => Some(template.clone()),
        },
        Value::Array(items) => Some(items.iter().filter_map(|item| fill(item, args)).collect()),
        Value::Object(members) => Some(Value::Object(
            members
                .iter()
                .filter_map(|(name, value)| fill(value, args).map(|value| (name.clone(), value)))
                .collect(),
        )),
        literal => Some(literal.clone()),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

pub(super) fn fixed_headers(
    from: &BTreeMap<String, String>,
    to: &mut HeaderMap,
) -> Result<(), RenderRefusal> {
    for (name, value) in from {
        let name = HeaderName::try_from(name.as_str()).map_err(|_| RenderRefusal::Template)?;
        let value = HeaderValue::from_str(value).map_err(|_| RenderRefusal::Template)?;
        to.insert(name, value);
    }
    Ok(())
}
