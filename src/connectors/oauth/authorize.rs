//! The authorization request (RFC 6749 §4.1.1, RFC 7636 §4.3) and the issuer check of its answer (RFC 9207).

use oauth2::{AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope};
use url::Url;

use super::wire;
use crate::{
    crypto::digest::same,
    domain::{
        ScopeSet,
        connector::{Actor, Connector, Pkce},
        secret::CodeVerifier,
    },
};

/// What an authorization request is made of.
#[derive(Debug, Clone, Copy)]
pub struct Authorization<'a> {
    /// The client id.
    pub client_id: &'a str,
    /// Where the person comes back, with the connector context in its path.
    pub redirect_uri: &'a str,
    /// One-time; the row keeps its hash.
    pub state: &'a str,
    /// RFC 7636 §4.1: 43 to 128 unreserved characters, fresh.
    pub verifier: &'a CodeVerifier,
    /// What the actions need; the file's `scopes_always` are added.
    pub scopes: &'a ScopeSet,
    /// The principal asked for.
    pub actor: Option<&'a Actor>,
}

/// Why there is no authorization URL, or a callback is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizeError {
    /// The definition or a part of the request is not usable.
    #[error("the authorization request cannot be built")]
    Unusable,
    /// The connector has no such actor.
    #[error("the connector has no such actor")]
    UnknownActor,
    /// RFC 9207 §2.4: the answer is from another server, or does not say from which.
    #[error("the callback's issuer is not the connector's")]
    WrongIssuer,
}

/// Whether the verifier is sent: everywhere but where the file says that it does harm.
#[must_use]
pub fn uses_pkce(connector: &Connector) -> bool {
    connector.client.pkce != Pkce::Refuse
}

/// The connector's actor called `name`; where there are several and none is named, `user`: an agent acts as the
/// person who consented. `None` for connectors without actors.
///
/// # Errors
/// [`AuthorizeError::UnknownActor`].
pub fn actor<'c>(connector: &'c Connector, name: Option<&str>) -> Result<Option<&'c Actor>, AuthorizeError> {
    if connector.actors.is_empty() && name.is_none() {
        return Ok(None);
    }
    connector
        .actors
        .get(name.unwrap_or("user"))
        .map(Some)
        .ok_or(AuthorizeError::UnknownActor)
}

/// The URL the person's browser is sent to.
///
/// # Errors
/// When the definition or a part is unusable.
pub fn authorize_url(connector: &Connector, request: &Authorization<'_>) -> Result<Url, AuthorizeError> {
    let unusable = |_| AuthorizeError::Unusable;
    let rules = &connector.authorize;
    let client = wire::basic::BasicClient::new(ClientId::new(request.client_id.to_owned()))
        .set_auth_uri(AuthUrl::new(connector.server.authorize_url.clone()).map_err(unusable)?)
        .set_redirect_uri(RedirectUrl::new(request.redirect_uri.to_owned()).map_err(unusable)?);
    let always: ScopeSet = rules.scopes_always.iter().cloned().collect();
    let scopes = request.scopes.union(&always);
    let scope_param = request
        .actor
        .map_or(rules.scope_param.as_str(), |actor| &actor.scope_param);
    let state = CsrfToken::new(request.state.to_owned());
    let mut authorization = client.authorize_url(move || state);
    if scope_param == "scope" && rules.scope_separator == ' ' {
        authorization = authorization.add_scopes(scopes.iter().map(|scope| Scope::new(scope.to_owned())));
    } else if !scopes.is_empty() {
        authorization = authorization.add_extra_param(scope_param, scopes.join(rules.scope_separator));
    }
    for (name, value) in &rules.params {
        authorization = authorization.add_extra_param(name, value);
    }
    if uses_pkce(connector) {
        // RFC 9700 §2.1.1: PKCE also for confidential clients, always S256.
        let verifier = PkceCodeVerifier::new(checked_verifier(request.verifier)?.to_owned());
        authorization =
            authorization.set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier));
    }
    let (url, _state) = authorization.url();
    Ok(rename(url, "client_id", &connector.client.id_param))
}

// RFC 7636 §4.1. The crate panics on other lengths; a short verifier is also a weak one.
pub(super) fn checked_verifier(verifier: &CodeVerifier) -> Result<&str, AuthorizeError> {
    let text = verifier.expose_secret();
    let fits = (43..=128).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'));
    if fits {
        Ok(text)
    } else {
        Err(AuthorizeError::Unusable)
    }
}

fn rename(mut url: Url, from: &str, to: &str) -> Url {
    if from == to {
        return url;
    }
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    url.query_pairs_mut().clear().extend_pairs(
        pairs
            .iter()
            .map(|(name, value)| (if name == from { to } else { name }, value)),
    );
    url
}

/// Checks the `iss` of a callback (RFC 9207 §2.4) by simple string comparison.
///
/// Where the file knows no issuer an `iss` cannot be compared, so an answer that carries one is refused (RFC 9207 §2.4:
/// such answers SHOULD be discarded); without one, the redirect URI, which is the connector's own, keeps answers of
/// different servers apart (RFC 9700 §4.4.2.2).
///
/// # Errors
/// [`AuthorizeError::WrongIssuer`].
pub fn check_issuer(connector: &Connector, iss: Option<&str>) -> Result<(), AuthorizeError> {
    let server = &connector.server;
    let believed = match (&server.issuer, iss) {
        (Some(issuer), Some(iss)) => same(issuer.as_bytes(), iss.as_bytes()),
        (Some(_), None) => !server.iss_required,
        (None, iss) => iss.is_none(),
    };
    if believed {
        Ok(())
    } else {
        Err(AuthorizeError::WrongIssuer)
    }
}
