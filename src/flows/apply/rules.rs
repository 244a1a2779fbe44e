//! What a document lays down about a connector: the ceiling of scopes, and whose accounts may be connected.

use std::collections::BTreeSet;

use crate::{
    domain::{ScopeSet, connector::Connector, rules::ConnectorRules, text},
    flows::{Refusal, connect},
};

use super::document::{AccountsDoc, ConnectorDoc};

/// Checks what can be checked without the database: a rule that could never be kept is refused, not kept.
pub(super) fn check(connector: &Connector, document: &ConnectorDoc) -> Result<(), Refusal> {
    let at = format!("/connector/{}", connector.id);
    let scopes = document.scopes.iter().flatten();
    for (index, scope) in scopes.enumerate().filter(|_| !is_every(document)) {
        if !connect::knows(connector, scope) {
            return Err(Refusal::invalid(
                &format!("{at}/scopes/{index}"),
                "the connector has no such scope",
            ));
        }
    }
    let Some(AccountsDoc { domains, tenants }) = &document.accounts else {
        return Ok(());
    };
    let identity = &connector.identity;
    let told = [
        (
            "domains",
            domains,
            identity.email.is_some(),
            "an account's e-mail address",
        ),
        (
            "tenants",
            tenants,
            identity.tenant.is_some(),
            "an account's tenant",
        ),
    ];
    for (name, list, tells, what) in told {
        if list.is_some() && !tells {
            return Err(Refusal::invalid(
                &format!("{at}/accounts/{name}"),
                format!("this connector does not tell {what}: no account would ever fit"),
            ));
        }
    }
    fits(
        &at,
        "domains",
        domains.as_deref(),
        text::is_mail_domain,
        "a domain is two or more ASCII labels",
    )?;
    fits(
        &at,
        "tenants",
        tenants.as_deref(),
        is_tenant,
        "a tenant is 1 to 256 characters, none that hides or moves others",
    )
}

fn fits(
    at: &str,
    name: &str,
    list: Option<&[String]>,
    fits: fn(&str) -> bool,
    words: &str,
) -> Result<(), Refusal> {
    match list.into_iter().flatten().position(|item| !fits(item)) {
        Some(index) => Err(Refusal::invalid(&format!("{at}/accounts/{name}/{index}"), words)),
        None => Ok(()),
    }
}

/// The rules as the document wants them: what it does not name stays.
pub(super) fn wanted(known: &ConnectorRules, document: &ConnectorDoc) -> ConnectorRules {
    let mut rules = known.clone();
    if let Some(scopes) = &document.scopes {
        rules.scopes = (!is_every(document)).then(|| scopes.iter().cloned().collect::<ScopeSet>());
    }
    if let Some(accounts) = &document.accounts {
        let set =
            |list: &Option<Vec<String>>| list.clone().map(|list| list.into_iter().collect::<BTreeSet<_>>());
        rules.accounts.domains = set(&accounts.domains)
            .map(|domains| domains.iter().map(|domain| domain.to_ascii_lowercase()).collect());
        rules.accounts.tenants = set(&accounts.tenants);
    }
    rules
}

/// In words.
pub(super) fn describe(rules: &ConnectorRules) -> String {
    let scopes = match &rules.scopes {
        None => "every scope may be asked for".to_owned(),
        Some(scopes) if scopes.is_empty() => "no scope may be asked for".to_owned(),
        Some(scopes) => format!("at most {} may be asked for", scopes.join(' ')),
    };
    let list = |what: &str, list: &Option<BTreeSet<String>>| {
        list.as_ref().map(|list| {
            let names: Vec<&str> = list.iter().map(String::as_str).collect();
            if names.is_empty() {
                format!("of no {what}")
            } else {
                format!("of {what} {}", names.join(", "))
            }
        })
    };
    let accounts: Vec<String> = [
        list("domain", &rules.accounts.domains),
        list("tenant", &rules.accounts.tenants),
    ]
    .into_iter()
    .flatten()
    .collect();
    if accounts.is_empty() {
        format!("{scopes}; any account")
    } else {
        format!("{scopes}; only accounts {}", accounts.join(" and "))
    }
}

/// Whether the document takes the ceiling away, as an engine's `tools = ["*"]` does.
fn is_every(document: &ConnectorDoc) -> bool {
    document.scopes.as_deref().is_some_and(|scopes| scopes == ["*"])
}

fn is_tenant(name: &str) -> bool {
    text::line(name, 256).is_ok()
}
