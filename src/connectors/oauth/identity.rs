//! Whose account it is: by the provider's own id, never by e-mail or name.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use url::Url;

use super::{OAuth, OAuthError, TokenSet, answer, refused, request};
use crate::{
    connectors::{lookup, render},
    domain::{
        Time,
        connector::{Connector, IdentityHow},
        grant::Account,
    },
    egress::OutboundRequest,
};

/// How far the clocks of two machines may be apart.
const SKEW_S: i64 = 30;

/// Longer ids are refused, longer labels cut.
const MAX_TEXT: usize = 256;

pub(super) async fn identify(oauth: &OAuth<'_>, tokens: &TokenSet) -> Result<Option<Account>, OAuthError> {
    let facts = match oauth.connector.identity.how {
        IdentityHow::None => return Ok(None),
        IdentityHow::TokenResponse | IdentityHow::IdToken => {
            told(oauth, tokens.id_token.as_ref(), &tokens.facts)?
        }
        IdentityHow::Userinfo | IdentityHow::Call => call(oauth, tokens).await?,
    };
    account(oauth.connector, &facts).map(Some)
}

/// The account that an answer to a refresh names by itself; nothing is asked for it.
pub(super) fn named(oauth: &OAuth<'_>, id_token: Option<&SecretString>, facts: &Value) -> Option<String> {
    account(oauth.connector, &told(oauth, id_token, facts).ok()?)
        .ok()?
        .id
}

/// What the provider said of the account together with the tokens.
fn told(oauth: &OAuth<'_>, id_token: Option<&SecretString>, facts: &Value) -> Result<Value, OAuthError> {
    if oauth.connector.identity.how == IdentityHow::TokenResponse {
        return Ok(facts.clone());
    }
    let token = id_token
        .filter(|_| oauth.connector.identity.how == IdentityHow::IdToken)
        .ok_or(OAuthError::Unusable("no id token"))?;
    claims(
        oauth.connector,
        oauth.client.id,
        token.expose_secret(),
        oauth.clock.now(),
    )
}

async fn call(oauth: &OAuth<'_>, tokens: &TokenSet) -> Result<Value, OAuthError> {
    let connector = oauth.connector;
    let identity = &connector.identity;
    let url = identity.url.as_deref().and_then(|url| Url::parse(url).ok());
    let url = url.ok_or(OAuthError::Definition("the identity url is no url"))?;
    let method = if identity.method.as_deref() == Some("POST") {
        Method::POST
    } else {
        Method::GET
    };
    let mut request = OutboundRequest::new(method, url);
    request::add_headers(connector, &mut request)?;
    render::fixed_headers(&connector.api.headers, &mut request.headers)
        .map_err(|_| OAuthError::Definition("a header cannot be sent"))?;
    request.credential = render::credential(connector, &tokens.access_token);
    let response = oauth.send(request).await?;
    let body = answer::json(&response).or_else(|error| {
        if response.is_success() {
            Err(error)
        } else {
            Ok(Value::Null)
        }
    })?;
    if response.is_success() && lookup::succeeds(identity.success.as_ref(), &body) {
        Ok(body)
    } else {
        Err(refused(connector, &response, &body))
    }
}

/// The claims of an id token that came straight from the token endpoint.
///
/// OpenID Connect Core §3.1.3.7 (6): TLS to the token endpoint may stand in for the signature. Issuer (2), audience
/// (3, 4, 5) and expiry (9) are checked; the token is used for nothing but telling the account.
fn claims(connector: &Connector, client_id: &str, token: &str, now: Time) -> Result<Value, OAuthError> {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(OAuthError::Unusable("the id token is no jwt"));
    };
    let claims: Value = BASE64_URL_SAFE_NO_PAD
        .decode(payload)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or(OAuthError::Unusable("the id token is no jwt"))?;
    let issuer = connector
        .server
        .issuer
        .as_deref()
        .ok_or(OAuthError::Definition("no issuer to compare with"))?;
    if claims.get("iss").and_then(Value::as_str) != Some(issuer) {
        return Err(OAuthError::Unusable("the id token is from another issuer"));
    }
    let for_us = match claims.get("aud") {
        Some(Value::String(audience)) => audience == client_id,
        // Several audiences: we are one of them, and the token was issued to us.
        Some(Value::Array(audiences)) => {
            audiences.iter().any(|audience| audience == client_id)
                && (audiences.len() == 1 || claims.get("azp").and_then(Value::as_str) == Some(client_id))
        }
        _ => false,
    };
    let issued_to_us = claims.get("azp").is_none_or(|party| party == client_id);
    if !for_us || !issued_to_us {
        return Err(OAuthError::Unusable("the id token is for another client"));
    }
    match claims.get("exp").and_then(Value::as_i64) {
        Some(end) if now.unix_seconds() <= end.saturating_add(SKEW_S) => Ok(claims),
        _ => Err(OAuthError::Unusable("the id token has expired")),
    }
}

fn account(connector: &Connector, facts: &Value) -> Result<Account, OAuthError> {
    let identity = &connector.identity;
    let id = lookup::joined(facts, &identity.id)
        .filter(|id| id.len() <= MAX_TEXT && !id.chars().any(char::is_control))
        .ok_or(OAuthError::Unusable("no account id"))?;
    let label = identity.label.as_deref().and_then(|paths| {
        let parts: Vec<String> = paths
            .split('/')
            .filter_map(|path| lookup::text(facts, path))
            .collect();
        (!parts.is_empty()).then(|| parts.join(" · ").chars().take(MAX_TEXT).collect())
    });
    let tenant = identity
        .tenant
        .as_deref()
        .and_then(|path| lookup::text(facts, path))
        .filter(|tenant| tenant.len() <= MAX_TEXT && !tenant.chars().any(char::is_control));
    // OpenID Connect Core §5.1: `email_verified`.
    let vouched = identity
        .email_verified
        .as_deref()
        .is_none_or(|path| lookup::at(facts, path) == Some(&Value::Bool(true)));
    let email = identity
        .email
        .as_deref()
        .filter(|_| vouched)
        .and_then(|path| lookup::text(facts, path))
        .filter(|email| email.len() <= MAX_TEXT && !email.chars().any(char::is_control));
    Ok(Account {
        label: label.unwrap_or_else(|| id.clone()),
        email,
        id: Some(id),
        tenant,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::connectors::{Catalogue, Options};

    fn token(claims: &Value) -> String {
        format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    fn read(claims_: &Value) -> Result<Value, OAuthError> {
        let catalogue = Catalogue::load(&Options::default()).unwrap();
        let gmail = catalogue.get(&"gmail".parse().unwrap()).unwrap();
        claims(gmail, "client-1", &token(claims_), Time::from_unix_seconds(1_000))
    }

    fn good() -> Value {
        json!({"iss": "https://accounts.google.com", "aud": "client-1", "exp": 1_500, "sub": "7"})
    }

    #[test]
    fn claims_for_us_are_read() {
        assert_eq!(read(&good()).unwrap().get("sub"), Some(&json!("7")));
        let mut several = good();
        several["aud"] = json!(["other", "client-1"]);
        several["azp"] = json!("client-1");
        assert!(read(&several).is_ok());
    }

    #[test]
    fn claims_for_others_from_others_or_expired_are_refused() {
        for (name, value) in [
            ("iss", json!("https://evil.example")),
            ("iss", json!("https://accounts.google.com/")),
            ("iss", json!(null)),
            ("aud", json!("client-2")),
            ("aud", json!(["client-2"])),
            ("aud", json!(["client-1", "client-2"])),
            ("aud", json!(null)),
            ("azp", json!("client-2")),
            ("exp", json!(900)),
            ("exp", json!("1500")),
            ("exp", json!(null)),
        ] {
            let mut claims = good();
            claims[name] = value.clone();
            assert!(read(&claims).is_err(), "{name} = {value}");
        }
    }

    #[test]
    fn an_account_is_told_by_its_id_and_shown_by_its_label() {
        let catalogue = Catalogue::load(&Options::default()).unwrap();
        let slack = catalogue.get(&"slack".parse().unwrap()).unwrap();
        let facts =
            json!({"ok": true, "team": "Acme / Mail", "user": "ada", "team_id": "T1", "user_id": "U1"});
        let account = account(slack, &facts).unwrap();
        assert_eq!(account.id.as_deref(), Some("T1/U1"));
        assert_eq!(account.label, "Acme / Mail · ada");
        assert_eq!(account.tenant.as_deref(), Some("T1"));
        assert_eq!(account.email, None, "a name is no address");
        assert!(super::account(slack, &json!({"team_id": "T1"})).is_err());
        assert!(super::account(slack, &json!({"team_id": "T1\n", "user_id": "U1"})).is_err());
    }

    #[test]
    fn an_address_counts_only_if_the_provider_verified_it() {
        let catalogue = Catalogue::load(&Options::default()).unwrap();
        let gmail = catalogue.get(&"gmail".parse().unwrap()).unwrap();
        let read = |verified: Value| {
            let facts = json!({"sub": "7", "email": "ada@acme.example", "email_verified": verified});
            account(gmail, &facts).unwrap().email
        };
        assert_eq!(read(json!(true)).as_deref(), Some("ada@acme.example"));
        for verified in [json!(false), json!("true"), json!(1), json!(null)] {
            assert_eq!(read(verified.clone()), None, "{verified}");
        }
    }
}
