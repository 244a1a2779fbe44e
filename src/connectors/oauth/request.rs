//! Token and introspection requests. The `oauth2` crate writes them; what a file says otherwise is changed here.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, Method, header};
use oauth2::{
    AuthType, ClientId, ClientSecret as WireSecret, HttpRequest, HttpResponse, IntrospectionUrl,
    PkceCodeVerifier, RedirectUrl, RequestTokenError, Scope, TokenUrl,
    basic::{BasicClient, BasicErrorResponse},
};
use serde_json::{Map, Value};
use url::{Url, form_urlencoded};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Client, CodeExchange, OAuthError, authorize, wire};
use crate::{
    domain::{
        ScopeSet,
        connector::{ClientAuth, Connector, TokenBody},
        secret::{AccessToken, RefreshToken},
    },
    egress::{OutboundRequest, secret_body},
};

/// Token answers are small.
const MAX_ANSWER: usize = 256 * 1024;

/// The request that exchanges a code (RFC 6749 §4.1.3).
pub(super) fn exchange<'a>(
    connector: &Connector,
    client: Client<'_>,
    exchange: CodeExchange<'_>,
) -> Result<OutboundRequest<'a>, OAuthError> {
    let base = base(connector, client);
    let with_url = base.set_token_uri(token_url(&connector.server.token_url)?);
    let redirect = RedirectUrl::new(exchange.redirect_uri.to_owned())
        .map_err(|_| OAuthError::Definition("the redirect uri is no url"))?;
    let mut request = with_url
        .exchange_code(wire::AuthorizationCode::new(
            exchange.code.expose_secret().to_owned(),
        ))
        .set_redirect_uri(Cow::Owned(redirect));
    if authorize::uses_pkce(connector) {
        // INVARIANT: I9; without the verifier a stolen code would be enough.
        let verifier = exchange
            .verifier
            .ok_or(OAuthError::Definition("the code verifier is missing"))?;
        let verifier = authorize::checked_verifier(verifier)
            .map_err(|_| OAuthError::Definition("the code verifier is malformed"))?;
        request = request.set_pkce_verifier(PkceCodeVerifier::new(verifier.to_owned()));
    }
    finish(connector, written(request.request(&Writer)))
}

/// The request that refreshes (RFC 6749 §6), with fewer scopes only where that is safe.
pub(super) fn refresh<'a>(
    connector: &Connector,
    client: Client<'_>,
    refresh_token: &RefreshToken,
    narrowed: Option<&ScopeSet>,
) -> Result<OutboundRequest<'a>, OAuthError> {
    let url = connector
        .server
        .refresh_url
        .as_ref()
        .unwrap_or(&connector.server.token_url);
    let client = base(connector, client).set_token_uri(token_url(url)?);
    let token = wire::RefreshToken::new(refresh_token.expose_secret().to_owned());
    let mut request = client.exchange_refresh_token(&token);
    if let Some(scopes) = narrowed {
        // SECURITY: on some servers a `scope` here narrows the refresh token for good.
        if !connector.narrows_by_refresh() || scopes.is_empty() {
            return Err(OAuthError::Definition("the connector does not narrow by refresh"));
        }
        let separator = connector.authorize.scope_separator;
        request = if separator == ' ' {
            request.add_scopes(scopes.iter().map(|scope| Scope::new(scope.to_owned())))
        } else {
            request.add_extra_param("scope", scopes.join(separator))
        };
    }
    finish(connector, written(request.request(&Writer)))
}

/// The request that introspects (RFC 7662 §2.1).
pub(super) fn introspect<'a>(
    connector: &Connector,
    client: Client<'_>,
    token: &AccessToken,
) -> Result<OutboundRequest<'a>, OAuthError> {
    let url = connector
        .narrow
        .introspect_url
        .clone()
        .ok_or(OAuthError::Definition("the connector has no introspection"))?;
    let url = IntrospectionUrl::new(url).map_err(|_| OAuthError::Definition("an endpoint is no url"))?;
    let client = base(connector, client).set_introspection_url(url);
    let token = wire::AccessToken::new(token.expose_secret().to_owned());
    let request = client.introspect(&token).set_token_type_hint("access_token");
    finish(connector, written(request.request(&Writer)))
}

/// Puts the parameters of a request into the body, as the file says, and adds its headers.
pub(super) fn with_body(
    connector: &Connector,
    request: &mut OutboundRequest<'_>,
    how: TokenBody,
    pairs: &[(Cow<'_, str>, Cow<'_, str>)],
) -> Result<(), OAuthError> {
    let (content_type, bytes) = match how {
        TokenBody::Form => {
            let text = form_urlencoded::Serializer::new(String::new())
                .extend_pairs(pairs)
                .finish();
            ("application/x-www-form-urlencoded", text.into_bytes())
        }
        TokenBody::Json => {
            let mut members: Map<String, Value> = pairs
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string().into()))
                .collect();
            let bytes = serde_json::to_vec(&members);
            for value in members.values_mut() {
                if let Value::String(text) = value {
                    text.zeroize();
                }
            }
            (
                "application/json",
                bytes.map_err(|_| OAuthError::Definition("the body is no json"))?,
            )
        }
    };
    request
        .headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    request.body = Some(secret_body(bytes));
    add_headers(connector, request)
}

/// Adds `Accept` and the file's own headers.
pub(super) fn add_headers(
    connector: &Connector,
    request: &mut OutboundRequest<'_>,
) -> Result<(), OAuthError> {
    request
        .headers
        .insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    for (name, value) in &connector.client.headers {
        let name = HeaderName::try_from(name.as_str())
            .map_err(|_| OAuthError::Definition("a header has no name"))?;
        let value =
            HeaderValue::from_str(value).map_err(|_| OAuthError::Definition("a header has no value"))?;
        request.headers.insert(name, value);
    }
    request.max_body = MAX_ANSWER;
    Ok(())
}

fn base(connector: &Connector, client: Client<'_>) -> BasicClient {
    let id = ClientId::new(client.id.to_owned());
    let (auth_type, secret) = match connector.client.auth {
        ClientAuth::Basic => (AuthType::BasicAuth, client.secret),
        ClientAuth::Body => (AuthType::RequestBody, client.secret),
        ClientAuth::None => (AuthType::RequestBody, None),
    };
    let base = BasicClient::new(id).set_auth_type(auth_type);
    match secret {
        Some(secret) => base.set_client_secret(WireSecret::new(secret.expose_secret().to_owned())),
        None => base,
    }
}

fn token_url(text: &str) -> Result<TokenUrl, OAuthError> {
    TokenUrl::new(text.to_owned()).map_err(|_| OAuthError::Definition("an endpoint is no url"))
}

/// Stands where the crate expects an HTTP client and hands the finished request back: sending is egress's part.
struct Writer;

/// A request the crate has written.
struct Written(HttpRequest);

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Written(..)")
    }
}

impl std::fmt::Display for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a request, not sent")
    }
}

impl std::error::Error for Written {}

impl oauth2::SyncHttpClient for Writer {
    type Error = Written;

    fn call(&self, request: HttpRequest) -> Result<HttpResponse, Written> {
        Err(Written(request))
    }
}

fn written<T>(
    outcome: Result<T, RequestTokenError<Written, BasicErrorResponse>>,
) -> Result<HttpRequest, OAuthError> {
    match outcome {
        Err(RequestTokenError::Request(Written(request))) => Ok(request),
        _ => Err(OAuthError::Definition("the request cannot be written")),
    }
}

/// Turns the crate's request into ours: the file's name for `client_id`, the file's kind of body, its headers.
fn finish<'a>(
    connector: &Connector,
    request: Result<HttpRequest, OAuthError>,
) -> Result<OutboundRequest<'a>, OAuthError> {
    let (parts, body) = request?.into_parts();
    let body = Zeroizing::new(body);
    let url =
        Url::parse(&parts.uri.to_string()).map_err(|_| OAuthError::Definition("an endpoint is no url"))?;
    let mut request = OutboundRequest::new(Method::POST, url);
    if let Some(mut value) = parts.headers.get(header::AUTHORIZATION).cloned() {
        value.set_sensitive(true);
        request.headers.insert(header::AUTHORIZATION, value);
    }
    let id_param = connector.client.id_param.as_str();
    let pairs: Vec<_> = form_urlencoded::parse(&body)
        .map(|(name, value)| {
            (
                if name == "client_id" {
                    id_param.to_owned().into()
                } else {
                    name
                },
                value,
            )
        })
        .collect();
    with_body(connector, &mut request, connector.client.body, &pairs)?;
    Ok(request)
}
