//! Ending a token at the provider: RFC 7009, a call of the provider's own, or not at all.

use std::{borrow::Cow, time::Duration};

use http::Method;
use serde_json::Value;
use url::Url;

use super::{OAuth, OAuthError, answer, request};
use crate::{
    connectors::{errors, errors::ErrorClass, lookup, path},
    domain::{
        connector::{ClientAuth, Revoke, RevokeAccepts, RevokeAuth, RevokeHow, TokenBody},
        secret::{AccessToken, RefreshToken},
    },
    egress::{Credential, InboundResponse, OutboundRequest},
};

/// The token to end.
#[derive(Debug, Clone, Copy)]
pub enum TokenToEnd<'a> {
    /// First, where the provider takes it: it is the longer-lived one.
    Refresh(&'a RefreshToken),
    /// Then this one.
    Access(&'a AccessToken),
}

impl TokenToEnd<'_> {
    /// Whether a request is sent for a token of this kind: so much it costs of the pace at which the provider is asked.
    #[must_use]
    pub fn is_sent(rules: &Revoke, is_refresh: bool) -> bool {
        let taken = match rules.accepts {
            None => true,
            Some(RevokeAccepts::Access) => !is_refresh,
            Some(RevokeAccepts::Refresh) => is_refresh,
        };
        // A bearer call with a refresh token is not a thing: it never was a credential for the API.
        let bears = !(is_refresh && rules.auth == Some(RevokeAuth::Bearer));
        rules.how != RevokeHow::None && taken && bears
    }

    fn expose(&self) -> &str {
        match self {
            Self::Refresh(token) => token.expose_secret(),
            Self::Access(token) => token.expose_secret(),
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevokeOutcome {
    /// The provider says that the token is no longer good.
    Revoked,
    /// The provider ends no tokens, or none of this kind.
    Unsupported,
    /// Nobody knows yet; worth another try.
    Retry {
        /// How long the provider asks to wait.
        after: Option<Duration>,
    },
    /// What answered was not clearly the provider's endpoint: worth another try, and no word about other tokens.
    Unclear {
        /// How long it asks to wait.
        after: Option<Duration>,
    },
    /// The provider refused, and will again.
    Refused {
        /// Its code, if it looks like one.
        code: Option<String>,
    },
}

pub(super) async fn revoke(oauth: &OAuth<'_>, token: TokenToEnd<'_>) -> RevokeOutcome {
    let rules = &oauth.connector.revoke;
    if !TokenToEnd::is_sent(rules, matches!(token, TokenToEnd::Refresh(_))) {
        return RevokeOutcome::Unsupported;
    }
    let bearer = match (rules.auth, token) {
        (Some(RevokeAuth::Bearer), TokenToEnd::Access(token)) => Some(token),
        _ => None,
    };
    let request = match build(oauth, token, bearer) {
        Ok(request) => request,
        // What the operator set up can be mended in the days that are tried.
        Err(_) => return RevokeOutcome::Retry { after: None },
    };
    match oauth.send(request).await {
        Ok(response) => judge(oauth, &response),
        Err(_) => RevokeOutcome::Retry { after: None },
    }
}

fn build<'r>(
    oauth: &OAuth<'r>,
    token: TokenToEnd<'_>,
    bearer: Option<&'r AccessToken>,
) -> Result<OutboundRequest<'r>, OAuthError> {
    let (connector, client) = (oauth.connector, oauth.client);
    let rules = &connector.revoke;
    let url = rules
        .url
        .as_deref()
        .map(|url| url.replace("{client_id}", &path::encode_segment(client.id)))
        .and_then(|url| Url::parse(&url).ok())
        .ok_or(OAuthError::Definition("the revocation url is no url"))?;
    let method = match (rules.how, rules.method.as_deref()) {
        (RevokeHow::Call, Some("DELETE")) => Method::DELETE,
        (RevokeHow::Call, Some("GET")) => Method::GET,
        _ => Method::POST,
    };
    let mut request = OutboundRequest::new(method, url);
    let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
    match rules.how {
        RevokeHow::Call => {
            if let Some(param) = &rules.param {
                pairs.push((param.into(), token.expose().into()));
            }
        }
        // RFC 7009 §2.1.
        RevokeHow::Rfc7009 | RevokeHow::None => {
            let hint = match token {
                TokenToEnd::Refresh(_) => "refresh_token",
                TokenToEnd::Access(_) => "access_token",
            };
            pairs.push(("token".into(), token.expose().into()));
            pairs.push(("token_type_hint".into(), hint.into()));
        }
    }
    let as_token_requests = match (connector.client.auth, client.secret) {
        (ClientAuth::Basic, Some(_)) => RevokeAuth::ClientBasic,
        _ => RevokeAuth::None,
    };
    match (rules.auth.unwrap_or(as_token_requests), bearer, client.secret) {
        (RevokeAuth::Bearer, Some(token), _) => request.credential = Credential::Bearer(token),
        (RevokeAuth::ClientBasic, _, Some(secret)) => {
            request.credential = Credential::ClientBasic {
                id: client.id,
                secret,
            };
        }
        (RevokeAuth::None, ..) => {
            // The client shows itself in the body as it does at the token endpoint, unless the file says `none`.
            if rules.auth.is_none() {
                pairs.push((connector.client.id_param.as_str().into(), client.id.into()));
                if let (ClientAuth::Body, Some(secret)) = (connector.client.auth, client.secret) {
                    pairs.push(("client_secret".into(), secret.expose_secret().into()));
                }
            }
        }
        _ => {
            return Err(OAuthError::Definition(
                "the client cannot authenticate the revocation",
            ));
        }
    }
    if pairs.is_empty() {
        request::add_headers(connector, &mut request)?;
    } else {
        request::with_body(
            connector,
            &mut request,
            rules.body.unwrap_or(TokenBody::Form),
            &pairs,
        )?;
    }
    Ok(request)
}

fn judge(oauth: &OAuth<'_>, response: &InboundResponse) -> RevokeOutcome {
    let rules = &oauth.connector.revoke;
    let body = answer::json(response).unwrap_or(Value::Null);
    if response.is_success() && lookup::succeeds(rules.success.as_ref(), &body) {
        return RevokeOutcome::Revoked;
    }
    match errors::classify_revoke(oauth.connector, response.status, &body) {
        // Ended already, which is what was wanted.
        Some(ErrorClass::Dead) => return RevokeOutcome::Revoked,
        // That the client is not known or may not is the operator's to mend, and no word about the token.
        Some(ErrorClass::Transient | ErrorClass::Config) => {
            return RevokeOutcome::Retry {
                after: super::retry_after(response),
            };
        }
        Some(_) => {
            return RevokeOutcome::Refused {
                code: errors::safe_code(&body),
            };
        }
        None => {}
    }
    match (response.status, errors::code(&body)) {
        // RFC 6749 §5.2 for the client, RFC 7009 §2.2.1 for both.
        (408 | 425 | 429 | 500..=599, _) | (_, Some("invalid_client" | "unauthorized_client")) => {
            RevokeOutcome::Retry {
                after: super::retry_after(response),
            }
        }
        // RFC 7009 §2.2.1.
        (_, Some("unsupported_token_type")) => RevokeOutcome::Unsupported,
        // Without a code it was not the revocation endpoint that refused (RFC 7009 §2.2.1) but a proxy, or a server that is
        // being changed: nobody said anything about the token.
        (_, None) if !response.is_success() => RevokeOutcome::Unclear {
            after: super::retry_after(response),
        },
        _ => RevokeOutcome::Refused {
            code: errors::safe_code(&body),
        },
    }
}
