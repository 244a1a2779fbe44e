//! What an org lays down about a connector: how much is asked of people at most, and whose accounts they may connect.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{connector::Connector, grant::Account, scope::ScopeSet};

/// An org's rules about one connector.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectorRules {
    /// The scopes that may be asked for besides those the connector always asks for; `None`: every one.
    pub scopes: Option<ScopeSet>,
    /// Whose accounts may be connected.
    pub accounts: AccountRule,
}

impl ConnectorRules {
    /// Whether nothing of `scopes` is above the ceiling. What the connector always asks for never is: without it the
    /// account could not be told.
    #[must_use]
    pub fn allow(&self, connector: &Connector, scopes: &ScopeSet) -> bool {
        self.above(connector, scopes).is_empty()
    }

    /// What of `scopes` is above the ceiling.
    #[must_use]
    pub fn above(&self, connector: &Connector, scopes: &ScopeSet) -> ScopeSet {
        match &self.scopes {
            None => ScopeSet::default(),
            Some(ceiling) => scopes.difference(&ceiling.union(&always(connector))),
        }
    }

    /// Whether people may connect at all: an empty ceiling leaves nothing to ask for.
    #[must_use]
    pub fn allow_connecting(&self) -> bool {
        self.scopes.as_ref().is_none_or(|ceiling| !ceiling.is_empty())
    }
}

/// The scopes a connector asks for whatever it is asked for.
#[must_use]
pub fn always(connector: &Connector) -> ScopeSet {
    connector.authorize.scopes_always.iter().cloned().collect()
}

/// Whose accounts may be connected: every list that is there must hold the account's own. An empty list allows nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountRule {
    /// The domain of the account's e-mail address, lower-case; exactly that one, none below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domains: Option<BTreeSet<String>>,
    /// The provider's own id of the account's tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<BTreeSet<String>>,
}

impl AccountRule {
    /// Whether there is none: every account may be connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.domains.is_none() && self.tenants.is_none()
    }

    /// Whether this account may be connected. What the provider does not tell does not match.
    #[must_use]
    pub fn admits(&self, account: &Account) -> bool {
        let domain = account.email.as_deref().and_then(domain);
        listed(self.domains.as_ref(), domain.as_deref())
            && listed(self.tenants.as_ref(), account.tenant.as_deref())
    }
}

fn listed(list: Option<&BTreeSet<String>>, value: Option<&str>) -> bool {
    list.is_none_or(|list| value.is_some_and(|value| list.contains(value)))
}

/// The domain of an address, lower-case.
///
/// SECURITY: an address with a second `@` is read by some as of one domain and by others as of another; it has none here.
fn domain(email: &str) -> Option<String> {
    let (local, domain) = email.split_once('@')?;
    (!local.is_empty() && !domain.is_empty() && !domain.contains('@')).then(|| domain.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(email: Option<&str>, tenant: Option<&str>) -> Account {
        Account {
            id: Some("1".to_owned()),
            label: "ada@acme.example".to_owned(),
            email: email.map(str::to_owned),
            tenant: tenant.map(str::to_owned),
        }
    }

    fn rule(domains: Option<&[&str]>, tenants: Option<&[&str]>) -> AccountRule {
        let set = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        AccountRule {
            domains: domains.map(set),
            tenants: tenants.map(set),
        }
    }

    #[test]
    fn without_a_rule_every_account_is_admitted() {
        assert!(rule(None, None).admits(&account(None, None)));
    }

    #[test]
    fn a_domain_is_that_of_the_address_and_of_nothing_else() {
        let acme = rule(Some(&["acme.example"]), None);
        for email in ["ada@acme.example", "Ada@ACME.Example"] {
            assert!(acme.admits(&account(Some(email), None)), "{email}");
        }
        for email in [
            "ada@else.example",
            "ada@sub.acme.example",
            "ada@xacme.example",
            "ada@acme.example.evil.example",
            "ada@evil.example@acme.example",
            "ada@acme.example@evil.example",
            "@acme.example",
            "acme.example",
            "ada@acme.example.",
            "ada@acme.example ",
            "",
        ] {
            assert!(!acme.admits(&account(Some(email), None)), "{email:?}");
        }
    }

    #[test]
    fn what_the_provider_does_not_tell_does_not_match() {
        // The label reads like an address; it is none.
        assert!(!rule(Some(&["acme.example"]), None).admits(&account(None, Some("acme.example"))));
        assert!(!rule(None, Some(&["T1"])).admits(&account(Some("ada@acme.example"), None)));
    }

    #[test]
    fn both_lists_must_hold_and_an_empty_one_admits_nobody() {
        let both = rule(Some(&["acme.example"]), Some(&["T1", "T2"]));
        assert!(both.admits(&account(Some("ada@acme.example"), Some("T2"))));
        assert!(!both.admits(&account(Some("ada@acme.example"), Some("T3"))));
        assert!(!both.admits(&account(Some("ada@else.example"), Some("T1"))));
        assert!(!both.admits(&account(Some("ada@acme.example"), Some("t1"))));
        assert!(!rule(Some(&[]), None).admits(&account(Some("ada@acme.example"), None)));
    }
}
