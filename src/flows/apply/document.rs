//! The document of `apply`: TOML in which every file and secret it names was put already; unknown keys are refused.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};

use crate::{
    crypto::Gate,
    domain::{
        loopback::is_loopback,
        principal::Role,
        secret::ClientSecret,
        text::{LONGEST_NAME, is_mail_address, line},
    },
    flows::Refusal,
};

/// An org, as far as the document says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) org: Option<OrgDoc>,
    #[serde(default)]
    pub(super) agent: Vec<AgentDoc>,
    #[serde(default)]
    pub(super) engine: Vec<EngineDoc>,
    #[serde(default)]
    pub(super) person: Vec<PersonDoc>,
    #[serde(default)]
    pub(super) service: Vec<ServiceDoc>,
    #[serde(default)]
    pub(super) connector: BTreeMap<String, ConnectorDoc>,
    pub(super) policies: Option<PoliciesDoc>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AgentDoc {
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EngineDoc {
    pub(super) name: String,
    pub(super) iss: String,
    pub(super) alg: String,
    /// RFC 7517, as JSON text or as a table.
    #[serde(deserialize_with = "jwk")]
    pub(super) public_key_jwk: serde_json::Value,
    pub(super) connectors: Vec<String>,
    pub(super) tools: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PersonDoc {
    pub(super) email: String,
    pub(super) role: Role,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServiceDoc {
    pub(super) name: String,
    #[serde(default)]
    pub(super) return_urls: Vec<String>,
}

/// A connector of the org: its client there, and its rules. What is not named stays as it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConnectorDoc {
    pub(super) client_id: Option<String>,
    #[serde(default, deserialize_with = "client_secret")]
    pub(super) client_secret: Option<ClientSecret>,
    /// The most that may be asked of people; `["*"]`: every scope, `[]`: none.
    pub(super) scopes: Option<Vec<String>>,
    /// Whose accounts may be connected; `{}`: anybody's.
    pub(super) accounts: Option<AccountsDoc>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountsDoc {
    pub(super) domains: Option<Vec<String>>,
    pub(super) tenants: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OrgDoc {
    pub(super) agents_may_ask: Option<bool>,
}

/// Policy texts: one or several a layer. A layer that is not named stays as it is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PoliciesDoc {
    #[serde(default, deserialize_with = "one_or_more")]
    pub(super) org: Option<Vec<String>>,
    #[serde(default, deserialize_with = "one_or_more")]
    pub(super) agent: Option<Vec<String>>,
}

fn jwk<'de, D: Deserializer<'de>>(deserializer: D) -> Result<serde_json::Value, D::Error> {
    match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::String(text) => Gate::STRICT
            .check(text.as_bytes())
            .map_err(|error| serde::de::Error::custom(format!("not a JWK: {error}"))),
        table => Ok(table),
    }
}

fn client_secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ClientSecret>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if is_client_text(&text) {
        Ok(Some(ClientSecret::new(text)))
    } else {
        Err(serde::de::Error::custom(CLIENT_TEXT))
    }
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMore {
        One(String),
        More(Vec<String>),
    }
    Ok(Some(match OneOrMore::deserialize(deserializer)? {
        OneOrMore::One(text) => vec![text],
        OneOrMore::More(texts) => texts,
    }))
}

/// Parses a document and checks what can be checked without the database.
pub(super) fn parse(text: &str) -> Result<Document, Refusal> {
    let document: Document = toml::from_str(text).map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
        Refusal::invalid(
            "/toml",
            format!("line {line}: {}", without_value(error.message())),
        )
    })?;
    names("agent", document.agent.iter().map(|agent| &*agent.name))?;
    names("engine", document.engine.iter().map(|engine| &*engine.name))?;
    for (index, engine) in document.engine.iter().enumerate() {
        line(&engine.iss, LONGEST_ISSUER)
            .map_err(|refused| Refusal::invalid(&format!("/engine/{index}/iss"), refused.to_string()))?;
    }
    names("service", document.service.iter().map(|service| &*service.name))?;
    let emails: Vec<String> = document
        .person
        .iter()
        .map(|person| address_key(&person.email))
        .collect();
    unique("person", "email", emails.iter().map(String::as_str))?;
    for (id, connector) in &document.connector {
        let wrong = match &connector.client_id {
            Some(text) if is_client_text(text) => continue,
            Some(_) => CLIENT_TEXT,
            None if connector.client_secret.is_some() => "a secret goes with its client's id",
            None => continue,
        };
        return Err(Refusal::invalid(&format!("/connector/{id}/client_id"), wrong));
    }
    for person in &document.person {
        if !is_mail_address(&person.email) {
            return Err(Refusal::invalid("/person", "an email is one plain address"));
        }
    }
    for url in document.service.iter().flat_map(|service| &service.return_urls) {
        if !is_return_url(url) {
            return Err(Refusal::invalid(
                "/service/return_urls",
                "a return address is an absolute https url (http on loopback) without fragment",
            ));
        }
    }
    Ok(document)
}

/// What is wrong, without the value that was found: a secret that stands in the wrong place stays there. Keys are named.
fn without_value(message: &str) -> String {
    for kind in ["invalid type", "invalid value", "unknown variant"] {
        if message.starts_with(kind) {
            // The last one: what stands before it may be the value.
            return match message.rsplit_once(", expected ") {
                Some((_, expected)) => format!("{kind}, expected {expected}"),
                None => kind.to_owned(),
            };
        }
    }
    message.to_owned()
}

/// What people and rules call the things of a table: each can be read for what it is, and is the only one.
fn names<'a>(table: &str, names: impl Iterator<Item = &'a str> + Clone) -> Result<(), Refusal> {
    for (index, name) in names.clone().enumerate() {
        line(name, LONGEST_NAME)
            .map_err(|refused| Refusal::invalid(&format!("/{table}/{index}/name"), refused.to_string()))?;
    }
    unique(table, "name", names)
}

/// One thing has one table: which of two would hold is nobody's to guess.
fn unique<'a>(table: &str, member: &str, names: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for (index, name) in names.enumerate() {
        if !seen.insert(name) {
            return Err(Refusal::invalid(
                &format!("/{table}/{index}/{member}"),
                format!("another [[{table}]] of this document has the same {member}"),
            ));
        }
    }
    Ok(())
}

/// An address as people are found by it.
pub(super) fn address_key(email: &str) -> String {
    email.to_lowercase()
}

// RFC 6749 §A.1, §A.2: visible characters and blanks; nobody's id or secret is empty.
fn is_client_text(text: &str) -> bool {
    (1..=2048).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
}

fn is_return_url(text: &str) -> bool {
    // SECURITY: where browsers take a `\` for a `/` and leave line breaks out, whoever reads the plan sees another host.
    if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        return false;
    }
    let Ok(url) = url::Url::parse(text) else {
        return false;
    };
    let scheme = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
    scheme && url.fragment().is_none() && url.username().is_empty() && url.password().is_none()
}

/// Characters in the name that an engine signs with.
const LONGEST_ISSUER: usize = 512;
const CLIENT_TEXT: &str = "a client's id or secret has 1 to 2048 characters, ASCII without controls";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_document_is_answered_without_the_values_in_it() {
        for (text, words) in [
            ("[org]\nagents_may_ask = \"s3cret\"", "expected a boolean"),
            ("[connector.slack]\nscopes = \"s3cret\"", "expected a sequence"),
            (
                "[connector.slack]\nscopes = \"s3cret, expected s3cret\"",
                "expected a sequence",
            ),
            (
                "[[person]]\nemail = \"a@b.c\"\nrole = \"s3cret\"",
                "expected `member` or `admin`",
            ),
            ("[org]\nother = \"s3cret\"", "unknown field `other`"),
        ] {
            let Err(Refusal::InvalidRequest(faults)) = parse(text) else {
                panic!("{text} was not refused");
            };
            let said = format!("{faults:?}");
            assert!(said.contains(words), "{said}");
            assert!(!said.contains("s3cret"), "{said}");
        }
    }
}
