//! OAuth 2 as connector files say it: RFC 6749, 7636, 7009, 7662, 9207, OpenID Connect where a file names it.
//!
//! The `oauth2` crate builds authorization URLs and token requests; [`Egress`] sends them; answers are read here, by
//! the file's look-ups, because that is where providers differ. Secrets arrive and leave as the domain's types.

mod answer;
mod authorize;
mod identity;
mod request;
mod revoke;
#[cfg(test)]
mod tests;

use std::time::Duration;

use oauth2 as wire;
use serde_json::Value;

pub use answer::{Leftover, TokenSet};
pub use authorize::{Authorization, AuthorizeError, actor, authorize_url, check_issuer, uses_pkce};
pub use revoke::{RevokeOutcome, TokenToEnd};

use super::errors::{self, ErrorClass};
use crate::{
    domain::{
        Clock, ScopeSet,
        connector::{Actor, Connector, Proof},
        grant::Account,
        secret::{AccessToken, AuthorizationCode, ClientSecret, CodeVerifier, RefreshToken},
    },
    egress::{BeginBy, Egress, EgressError, InboundResponse, OutboundRequest, Purpose},
    failpoints::Failpoint,
};

/// The organisation's client at a provider.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// RFC 6749 §2.2.
    pub id: &'a str,
    /// Absent for a public client.
    pub secret: Option<&'a ClientSecret>,
}

/// A code to be exchanged.
#[derive(Debug, Clone, Copy)]
pub struct CodeExchange<'a> {
    /// RFC 6749 §4.1.2.
    pub code: &'a AuthorizationCode,
    /// RFC 7636 §4.5; absent only where the connector refuses PKCE.
    pub verifier: Option<&'a CodeVerifier>,
    /// The very one of the authorization request (RFC 6749 §4.1.3).
    pub redirect_uri: &'a str,
    /// The principal that was asked for.
    pub actor: Option<&'a Actor>,
}

/// Why there is no token, no account or no proof.
#[derive(Debug, thiserror::Error)]
pub enum OAuthError {
    /// The request did not leave or its answer did not come.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// The provider said no.
    #[error("the provider refused: {class:?} {}", code.as_deref().unwrap_or("without a known code"))]
    Refused {
        /// What to do about it.
        class: ErrorClass,
        /// The HTTP status.
        status: u16,
        /// The provider's code, if it looks like one.
        code: Option<String>,
        /// How long the provider asks to wait.
        retry_after: Option<Duration>,
    },
    /// The provider said yes, but the answer is not what it should be.
    #[error("the provider's answer is unusable: {0}")]
    Unusable(&'static str),
    /// The same, but a token came with it: whoever can keeps it, or ends it.
    #[error("the provider's answer is unusable, and a token came with it: {why}")]
    Leftover {
        /// What is wrong with the answer.
        why: &'static str,
        /// What is left of it.
        left: Box<Leftover>,
    },
    /// The connector's definition or the client does not allow this request. Nothing was sent.
    #[error("the request cannot be made: {0}")]
    Definition(&'static str),
}

impl OAuthError {
    /// What to do about it. An answer that is lost or unusable is transient: on a rotating grant, in doubt.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Egress(_) | Self::Unusable(_) | Self::Leftover { .. } => ErrorClass::Transient,
            Self::Refused { class, .. } => *class,
            Self::Definition(_) => ErrorClass::Config,
        }
    }

    /// How long the provider asks to be left alone.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Egress(_) | Self::Unusable(_) | Self::Leftover { .. } | Self::Definition(_) => None,
        }
    }

    /// Whether the request was not begun, because its moment had passed.
    #[must_use]
    pub fn came_too_late(&self) -> bool {
        matches!(self, Self::Egress(EgressError::TooLate))
    }

    /// Whether the provider may have acted on the request without us knowing the result.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        match self {
            Self::Egress(error) => error.may_have_been_sent(),
            Self::Unusable(_) | Self::Leftover { .. } => true,
            // A server that failed may have rotated before it did; one that throttles did not.
            Self::Refused { class, status, .. } => *class == ErrorClass::Transient && *status != 429,
            Self::Definition(_) => false,
        }
    }
}

/// Speaks to the authorization server of one connector (variables filled in) as one client.
#[derive(Debug, Clone, Copy)]
pub struct OAuth<'a> {
    egress: &'a Egress,
    clock: &'a dyn Clock,
    connector: &'a Connector,
    client: Client<'a>,
}

impl<'a> OAuth<'a> {
    /// Ties egress, clock, definition and client together; sends nothing.
    #[must_use]
    pub fn new(
        egress: &'a Egress,
        clock: &'a dyn Clock,
        connector: &'a Connector,
        client: Client<'a>,
    ) -> Self {
        Self {
            egress,
            clock,
            connector,
            client,
        }
    }

    /// Exchanges a code for tokens (RFC 6749 §4.1.3). Never repeated by itself: a code is good once.
    ///
    /// # Errors
    /// [`OAuthError`].
    pub async fn exchange(&self, exchange: CodeExchange<'_>) -> Result<TokenSet, OAuthError> {
        let request = request::exchange(self.connector, self.client, exchange)?;
        let response = self.send(request).await?;
        answer::read(
            self.connector,
            answer::Origin::Code(exchange.actor),
            &response,
            self.clock.now(),
        )
    }

    /// Refreshes (RFC 6749 §6). With `narrowed`, asks for fewer scopes, which only a connector that
    /// [`narrows_by_refresh`](Connector::narrows_by_refresh) allows; the caller proves it by
    /// [`prove_narrowed`](Self::prove_narrowed). Given a moment to begin by, it begins by then or not at all.
    ///
    /// # Errors
    /// [`OAuthError`].
    pub async fn refresh(
        &self,
        refresh_token: &RefreshToken,
        narrowed: Option<&ScopeSet>,
        actor: Option<&Actor>,
        begin_by: Option<BeginBy>,
    ) -> Result<TokenSet, OAuthError> {
        let mut request = request::refresh(self.connector, self.client, refresh_token, narrowed)?;
        request.begin_by = begin_by;
        let response = self.send(request).await?;
        Failpoint::RefreshHeard.reached();
        let read = answer::read(
            self.connector,
            answer::Origin::Refresh(actor),
            &response,
            self.clock.now(),
        );
        match read {
            Err(OAuthError::Leftover { why, left }) => {
                // Where the provider does not rotate, the one that was sent is as good as ever.
                let left = left
                    .rotated(refresh_token)
                    .filter(|_| self.connector.refresh.rotates);
                Err(match left.map(Box::new) {
                    Some(left) => OAuthError::Leftover { why, left },
                    None => OAuthError::Unusable(why),
                })
            }
            read => read,
        }
    }

    /// The scopes a token proves to carry, if they are within `asked`; `None` when it does not prove that.
    ///
    /// # Errors
    /// When introspection fails.
    pub async fn prove_narrowed(
        &self,
        tokens: &TokenSet,
        asked: &ScopeSet,
    ) -> Result<Option<ScopeSet>, OAuthError> {
        let proven = match self.connector.narrow.proof {
            Proof::None => None,
            // An answer without `scope` proves nothing (protocol §5), whatever RFC 6749 §5.1 lets one assume.
            Proof::ReturnedScope => tokens.scopes.clone(),
            Proof::Introspect => self.introspect(&tokens.access_token).await?,
        };
        Ok(proven.filter(|scopes| !scopes.is_empty() && scopes.is_subset(asked)))
    }

    /// The scopes of a token by introspection (RFC 7662 §2.2); `None` when it is not active or has no scope.
    ///
    /// # Errors
    /// [`OAuthError`].
    pub async fn introspect(&self, token: &AccessToken) -> Result<Option<ScopeSet>, OAuthError> {
        let request = request::introspect(self.connector, self.client, token)?;
        let response = self.send(request).await?;
        let body = answer::json(&response)?;
        if !response.is_success() {
            return Err(refused(self.connector, &response, &body));
        }
        if body.get("active") != Some(&Value::Bool(true)) {
            return Ok(None);
        }
        match body.get("scope").and_then(Value::as_str) {
            Some(text) => ScopeSet::parse(text, ' ')
                .map(Some)
                .map_err(|_| OAuthError::Unusable("scope")),
            None => Ok(None),
        }
    }

    /// Reads which account the tokens belong to; `None` where the provider tells none.
    ///
    /// # Errors
    /// [`OAuthError`]; also when the provider should tell and does not.
    pub async fn identify(&self, tokens: &TokenSet) -> Result<Option<Account>, OAuthError> {
        identity::identify(self, tokens).await
    }

    /// Whose the tokens are by the provider's own id, if the answer to a refresh says it by itself.
    #[must_use]
    pub fn named(&self, tokens: &TokenSet) -> Option<String> {
        identity::named(self, tokens.id_token.as_ref(), &tokens.facts)
    }

    /// The same of what is left of one.
    #[must_use]
    pub fn named_beside(&self, left: &Leftover) -> Option<String> {
        identity::named(self, left.id_token.as_ref(), &left.facts)
    }

    /// Ends a token at the provider, as far as it offers that.
    pub async fn revoke(&self, token: TokenToEnd<'_>) -> RevokeOutcome {
        revoke::revoke(self, token).await
    }

    async fn send(&self, request: OutboundRequest<'_>) -> Result<InboundResponse, OAuthError> {
        Ok(self
            .egress
            .send(&Purpose::connector(&self.connector.id), request)
            .await?)
    }
}

fn refused(connector: &Connector, response: &InboundResponse, body: &Value) -> OAuthError {
    OAuthError::Refused {
        class: errors::classify_token(connector, response.status, body),
        status: response.status,
        code: errors::safe_code(body),
        retry_after: retry_after(response),
    }
}

// At most a day.
fn retry_after(response: &InboundResponse) -> Option<Duration> {
    response
        .retry_after(None)
        .map(|after| after.min(Duration::from_secs(86_400)))
}
