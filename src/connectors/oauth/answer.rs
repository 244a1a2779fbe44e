//! Reading token answers by the file's look-ups (RFC 6749 §5.1, and what providers make of it).

use std::{fmt, time::Duration};

use secrecy::SecretString;
use serde_json::{Map, Value};
use url::form_urlencoded;
use zeroize::Zeroize as _;

use super::{OAuthError, refused};
use crate::{
    connectors::{ErrorClass, lookup},
    crypto::digest::same,
    domain::{
        ScopeSet, Time,
        connector::{Actor, Connector, Expiry},
        secret::{AccessToken, RefreshToken},
    },
    egress::InboundResponse,
};

/// Longer tokens than this are a mistake or an attack (Canva's have 4 KB).
const MAX_TOKEN: usize = 16 * 1024;

/// Nothing a provider says about time reaches further than this.
const MAX_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Tokens as an answer gave them.
pub struct TokenSet {
    /// The access token.
    pub access_token: AccessToken,
    /// A new refresh token; absent: the old one stays (RFC 6749 §6).
    pub refresh_token: Option<RefreshToken>,
    /// The granted scopes as the answer names them; `None` when it names none, which is not "none".
    pub scopes: Option<ScopeSet>,
    /// When the access token ends; `None` when it does not, or nobody knows.
    pub expires_at: Option<Time>,
    pub(super) id_token: Option<SecretString>,
    /// The rest of the answer, tokens taken out.
    pub(super) facts: Value,
}

impl TokenSet {
    /// What was granted: as the answer says, or as asked when it is silent (RFC 6749 §5.1).
    #[must_use]
    pub fn granted(&self, asked: &ScopeSet) -> ScopeSet {
        self.scopes.clone().unwrap_or_else(|| asked.clone())
    }
}

impl fmt::Debug for TokenSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `facts` may name the person.
        f.debug_struct("TokenSet")
            .field("scopes", &self.scopes)
            .field("expires_at", &self.expires_at)
            .field("has_refresh_token", &self.refresh_token.is_some())
            .finish_non_exhaustive()
    }
}

/// What is left of an answer that cannot be used: at least one token.
pub struct Leftover {
    /// An access token of a kind or with scopes that nobody here understands: to be ended, never to be used (RFC 6749 §7.1).
    /// Only with the answer to a code.
    pub access_token: Option<AccessToken>,
    /// The new refresh token; always there with the answer to a refresh.
    pub refresh_token: Option<RefreshToken>,
    pub(super) id_token: Option<SecretString>,
    /// The rest of the answer, tokens taken out.
    pub(super) facts: Value,
}

impl Leftover {
    /// What is left of an answer to a refresh, if a refresh token came that is not the one that was sent.
    pub(super) fn rotated(self, sent: &RefreshToken) -> Option<Self> {
        let came = self.refresh_token.as_ref()?.expose_secret();
        let is_new = !same(came.as_bytes(), sent.expose_secret().as_bytes());
        // The grant lives, and ending one of its tokens could end it: the access token is left to end by itself.
        is_new.then_some(Self {
            access_token: None,
            ..self
        })
    }
}

impl fmt::Debug for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `facts` may name the person.
        f.debug_struct("Leftover").finish_non_exhaustive()
    }
}

/// Which request is answered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin<'a> {
    /// A code.
    Code(Option<&'a Actor>),
    /// A refresh token.
    Refresh(Option<&'a Actor>),
}

/// Reads a token answer.
pub(super) fn read(
    connector: &Connector,
    origin: Origin<'_>,
    response: &InboundResponse,
    now: Time,
) -> Result<TokenSet, OAuthError> {
    let mut body = match json(response) {
        Ok(body) => body,
        // Not JSON at all: the status alone decides.
        Err(_) if !response.is_success() => Value::Null,
        Err(error) => return Err(error),
    };
    let result = read_body(connector, origin, response, &mut body, now);
    if result.is_err() {
        wipe(&mut body);
    }
    result
}

fn read_body(
    connector: &Connector,
    origin: Origin<'_>,
    response: &InboundResponse,
    body: &mut Value,
    now: Time,
) -> Result<TokenSet, OAuthError> {
    let rules = &connector.token;
    let said_no = lookup::at(body, "error")
        .is_some_and(|error| !error.is_null() && error != "" && error != false && error != 0);
    let fields = &rules.fields;
    let root = root(connector, origin, body);
    let path = |field: &str| {
        if root.is_empty() {
            field.to_owned()
        } else {
            format!("{root}.{field}")
        }
    };
    // A refusal may come with status 200 (GitHub, Slack), a success with 201.
    if !response.is_success() || said_no || !lookup::succeeds(rules.success.as_ref(), body) {
        let refusal = refused(connector, response, body);
        let has_token = lookup::text(body, &path(&fields.refresh)).is_some();
        return Err(if has_token && refusal.class() == ErrorClass::Unknown {
            OAuthError::Unusable("a token beside a refusal")
        } else {
            refusal
        });
    }
    // Before the access token is judged: a provider that rotates hands it out once, whatever is wrong with the rest (I3).
    let refresh_token = take_token(body, &path(&fields.refresh)).map(|token| token.map(RefreshToken::new));
    let id_token = lookup::take(body, &path(&fields.id_token)).map(SecretString::from);
    let access_token = take_token(body, &path(&fields.access))
        .and_then(|token| token.ok_or("no access token"))
        .map(AccessToken::new);
    let scopes = understood(connector, body, &path);
    let expires_at = expiry(connector, body, &path, now);
    // What is left must hold no second principal's token (Slack sends bot and user token together).
    drop_tokens(body, &[&fields.access, &fields.refresh, &fields.id_token]);
    let (access_token, refresh_token, why) = match (access_token, refresh_token, scopes) {
        (Ok(access_token), Ok(refresh_token), Ok(scopes)) => {
            return Ok(TokenSet {
                access_token,
                refresh_token,
                scopes,
                expires_at,
                id_token,
                facts: body.take(),
            });
        }
        (access_token, Err(why), _) => (access_token.ok(), None, why),
        (Err(why), Ok(refresh_token), _) => (None, refresh_token, why),
        (Ok(access_token), Ok(refresh_token), Err(why)) => (Some(access_token), refresh_token, why),
    };
    if access_token.is_none() && refresh_token.is_none() {
        return Err(OAuthError::Unusable(why));
    }
    let left = Leftover {
        access_token,
        refresh_token,
        id_token,
        facts: body.take(),
    };
    let left = Box::new(left);
    Err(OAuthError::Leftover { why, left })
}

/// The scopes of the access token, if it is of a type that may be used.
fn understood(
    connector: &Connector,
    body: &Value,
    path: &dyn Fn(&str) -> String,
) -> Result<Option<ScopeSet>, &'static str> {
    let (rules, fields) = (&connector.token, &connector.token.fields);
    // RFC 6749 §7.1: a token of a type one does not understand must not be used.
    if let Some(kind) = lookup::text(body, &path(&fields.token_type))
        && !kind.eq_ignore_ascii_case("bearer")
        && !rules.types.contains(&kind)
    {
        return Err("unknown token type");
    }
    scopes(connector, lookup::at(body, &path(&fields.scope)))
}

/// Where the tokens are: the actor's place for a code. A refresh concerns one principal and may answer at the top.
fn root(connector: &Connector, origin: Origin<'_>, body: &Value) -> String {
    match origin {
        Origin::Code(None) | Origin::Refresh(None) => connector.token.root.clone(),
        Origin::Code(Some(actor)) => actor.token_path.clone(),
        Origin::Refresh(Some(actor)) => {
            let (there, top) = (&actor.token_path, &connector.token.root);
            let fields = &connector.token.fields;
            let has = |place: &str, field: &str| {
                lookup::at(body, place).is_some_and(|place| lookup::text(place, field).is_some())
            };
            // The access token says where; where there is none, the refresh token does.
            let is_there =
                has(there, &fields.access) || !has(top, &fields.access) && has(there, &fields.refresh);
            if is_there { there.clone() } else { top.clone() }
        }
    }
}

fn take_token(body: &mut Value, path: &str) -> Result<Option<String>, &'static str> {
    let Some(mut token) = lookup::take(body, path) else {
        return Ok(None);
    };
    // RFC 6749 appendix A.12 and A.17: VSCHAR; what goes into a header must not end it.
    if token.len() <= MAX_TOKEN && token.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) {
        Ok(Some(token))
    } else {
        token.zeroize();
        Err("a token holds forbidden characters or is too long")
    }
}

fn scopes(connector: &Connector, value: Option<&Value>) -> Result<Option<ScopeSet>, &'static str> {
    let separator = connector
        .token
        .scope_separator
        .unwrap_or(connector.authorize.scope_separator);
    let text = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            let items: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
            items.ok_or("scope")?.join(&separator.to_string())
        }
        Some(_) => return Err("scope"),
    };
    // A provider that separates by commas may add spaces; no scope token holds one.
    let text = if separator == ' ' {
        text
    } else {
        text.replace(' ', &separator.to_string())
    };
    ScopeSet::parse(&text, separator).map(Some).map_err(|_| "scope")
}

fn expiry(connector: &Connector, body: &Value, path: &dyn Fn(&str) -> String, now: Time) -> Option<Time> {
    if connector.refresh.expiry == Expiry::Never {
        return None;
    }
    let fields = &connector.token.fields;
    let latest = now + MAX_LIFE;
    let at = lookup::at(body, &path(&fields.expires_at)).and_then(moment);
    let within = || {
        lookup::at(body, &path(&fields.expires_in))
            .and_then(seconds)
            .map(|life| now + life)
    };
    let default = || {
        connector
            .token
            .expires_default_s
            .map(|life| now + Duration::from_secs(u64::from(life)))
    };
    at.or_else(within).or_else(default).map(|at| at.min(latest))
}

// Seconds as a number, also with a fraction, or as digits in a string. Negative: over already.
fn seconds(value: &Value) -> Option<Duration> {
    let life = match value {
        Value::Number(number) => Duration::try_from_secs_f64(number.as_f64()?.max(0.0)).unwrap_or(MAX_LIFE),
        Value::String(digits) => Duration::from_secs(digits.trim().parse().ok()?),
        _ => return None,
    };
    Some(life.min(MAX_LIFE))
}

// RFC 3339, or Unix seconds, or Unix milliseconds (from 10^11 on: as seconds that would be the year 5138).
fn moment(value: &Value) -> Option<Time> {
    let number = match value {
        Value::Number(number) => number.as_i64()?,
        Value::String(text) => match text.parse::<i64>() {
            Ok(number) => number,
            Err(_) => return Time::parse_rfc3339(text),
        },
        _ => return None,
    };
    Some(if number >= 100_000_000_000 {
        Time::from_unix_micros(number.saturating_mul(1000))
    } else {
        Time::from_unix_seconds(number)
    })
}

/// Reads a body as JSON, or as a form, which some providers answer with.
pub(super) fn json(response: &InboundResponse) -> Result<Value, OAuthError> {
    if response.truncated {
        return Err(OAuthError::Unusable("too long"));
    }
    if let Ok(value) = serde_json::from_slice::<Value>(&response.body) {
        return if value.is_object() {
            Ok(value)
        } else {
            Err(OAuthError::Unusable("not an object"))
        };
    }
    let is_form = response
        .headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| {
            kind.to_ascii_lowercase()
                .starts_with("application/x-www-form-urlencoded")
        });
    if !is_form {
        return Err(OAuthError::Unusable("not json"));
    }
    let members: Map<String, Value> = form_urlencoded::parse(&response.body)
        .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
        .collect();
    Ok(Value::Object(members))
}

/// Wipes every member of these names, at any depth.
fn drop_tokens(value: &mut Value, names: &[&String]) {
    match value {
        Value::Object(members) => {
            for (name, value) in members.iter_mut() {
                if names.iter().any(|token| token.rsplit('.').next() == Some(name)) {
                    wipe(value);
                } else {
                    drop_tokens(value, names);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| drop_tokens(item, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    *value = Value::Null;
}
