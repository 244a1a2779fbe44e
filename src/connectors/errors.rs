//! What a refusal means: dead, transient, config or consent. The file's rules first, then the standards' own codes.

use serde_json::Value;

use super::lookup;
use crate::domain::connector::{Connector, ErrorAt, ErrorRule};

/// What to do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The token that was sent has ended. Of a refresh token: the person connects again, after a look whether a
    /// sibling has a newer one. Of an access token: one refresh, one resend.
    Dead,
    /// Later it may work.
    Transient,
    /// The operator's client is at fault; reconnecting helps nobody.
    Config,
    /// The person must consent again.
    Consent,
    /// The scopes asked for were refused; without narrowing it may work.
    Scope,
    /// Nothing known. Never reason enough to call a grant dead.
    Unknown,
}

/// What a refusal of the token endpoint means.
pub(super) fn classify_token(connector: &Connector, status: u16, body: &Value) -> ErrorClass {
    by_rules(connector, ErrorAt::Token, status, body).unwrap_or_else(|| by_standard(status, body))
}

/// What a refusal of the revocation endpoint means; `None` when no rule knows it.
pub(super) fn classify_revoke(connector: &Connector, status: u16, body: &Value) -> Option<ErrorClass> {
    by_rules(connector, ErrorAt::Revoke, status, body)
}

/// What an answer of the API says about the token; `None` when it is about something else. `body` is JSON or null.
#[must_use]
pub fn classify_api(connector: &Connector, status: u16, body: &Value) -> Option<ErrorClass> {
    by_rules(connector, ErrorAt::Api, status, body).or(match status {
        // RFC 6750 §3.1: the access token is expired, revoked or malformed.
        401 => Some(ErrorClass::Dead),
        403 if code(body) == Some("insufficient_scope") => Some(ErrorClass::Consent),
        408 | 425 | 429 | 500..=599 => Some(ErrorClass::Transient),
        _ => None,
    })
}

/// The `error` member, if there is one (RFC 6749 §5.2).
pub(super) fn code(body: &Value) -> Option<&str> {
    lookup::at(body, "error").and_then(Value::as_str)
}

/// The code if it looks like one: what goes into errors and entries must hold no text of the remote's choosing.
pub(super) fn safe_code(body: &Value) -> Option<String> {
    code(body)
        .filter(|code| {
            (1..=64).contains(&code.len())
                && code
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        })
        .map(str::to_owned)
}

fn by_rules(connector: &Connector, at: ErrorAt, status: u16, body: &Value) -> Option<ErrorClass> {
    let errors = &connector.errors;
    // `dead` comes last: it is the one class that costs the person something.
    [
        (&errors.transient, ErrorClass::Transient),
        (&errors.config, ErrorClass::Config),
        (&errors.consent, ErrorClass::Consent),
        (&errors.dead, ErrorClass::Dead),
    ]
    .into_iter()
    .find(|(rules, _)| rules.iter().any(|rule| applies(rule, at, status, body)))
    .map(|(_, class)| class)
}

fn applies(rule: &ErrorRule, at: ErrorAt, status: u16, body: &Value) -> bool {
    // A rule about values alone says nothing about a failing server: 5xx means nobody decided anything.
    let status_fits = match rule.status {
        Some(wanted) => wanted == status,
        None => status < 500,
    };
    let value_fits = || {
        rule.is.is_empty()
            || lookup::text(body, rule.path.as_deref().unwrap_or("error"))
                .is_some_and(|value| rule.is.contains(&value))
    };
    rule.at.is_none_or(|wanted| wanted == at) && status_fits && value_fits()
}

fn by_standard(status: u16, body: &Value) -> ErrorClass {
    if matches!(status, 408 | 425 | 429 | 500..=599) {
        return ErrorClass::Transient;
    }
    match code(body) {
        // RFC 6749 §5.2.
        Some("invalid_grant") => ErrorClass::Dead,
        Some(
            "invalid_client" | "unauthorized_client" | "unsupported_grant_type" | "redirect_uri_mismatch",
        ) => ErrorClass::Config,
        // RFC 6749 §5.2, RFC 8707 §2.
        Some("invalid_scope" | "invalid_target") => ErrorClass::Scope,
        // RFC 6749 §4.1.2.1, RFC 8628 §3.5.
        Some("temporarily_unavailable" | "server_error" | "slow_down") => ErrorClass::Transient,
        // OpenID Connect Core §3.1.2.6.
        Some(
            "interaction_required" | "consent_required" | "login_required" | "account_selection_required",
        ) => ErrorClass::Consent,
        _ => ErrorClass::Unknown,
    }
}
