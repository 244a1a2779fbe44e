//! Variables of endpoints and hosts (`{subdomain}`): filled once, checked whenever they are filled.

use std::{borrow::Cow, collections::BTreeMap};

use url::Url;

use super::{
    formats,
    template::{self, Piece},
};
use crate::domain::connector::{Connector, VarSpec};

/// The values of a grant's variables.
pub type Vars = BTreeMap<String, String>;

/// Why a connector's variables cannot be filled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VarError {
    /// A variable has no value and no default.
    #[error("the variable {0} is missing")]
    Missing(String),
    /// A value is neither one lower-case label nor a host the file allows.
    #[error("the variable {0} has a value that is not allowed")]
    Invalid(String),
}

/// The connector with every variable of its endpoints and hosts filled in.
///
/// # Errors
/// When a value is missing or not allowed.
pub fn filled<'c>(connector: &'c Connector, vars: &Vars) -> Result<Cow<'c, Connector>, VarError> {
    if connector.vars.is_empty() {
        return Ok(Cow::Borrowed(connector));
    }
    let mut values = Vars::new();
    for (name, spec) in &connector.vars {
        let value = vars
            .get(name)
            .or(spec.default.as_ref())
            .ok_or_else(|| VarError::Missing(name.clone()))?;
        if !fits(spec, value) {
            return Err(VarError::Invalid(name.clone()));
        }
        values.insert(name.clone(), value.clone());
    }
    let mut connector = connector.clone();
    for url in texts(&mut connector) {
        *url = fill(url, &values);
    }
    Ok(Cow::Owned(connector))
}

/// Whether a value may stand for the variable.
///
/// SECURITY: it becomes part of a host that receives client secrets and tokens. One label cannot leave the host the
/// file names; a host must be one of the suffixes or lie below one, by whole labels.
pub(super) fn fits(spec: &VarSpec, value: &str) -> bool {
    if spec.host_suffixes.is_empty() {
        return formats::is_label(value);
    }
    formats::host(value).as_deref() == Ok(value)
        && spec.host_suffixes.iter().any(|suffix| {
            value == suffix
                || value
                    .strip_suffix(suffix.as_str())
                    .is_some_and(|rest| rest.ends_with('.'))
        })
}

/// Fills the names that have a value; the others (arguments) stay.
pub(super) fn fill(text: &str, values: &Vars) -> String {
    let Some(pieces) = template::pieces(text) else {
        return text.to_owned();
    };
    let mut out = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Name(name) => match values.get(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push('{');
                    out.push_str(name);
                    out.push('}');
                }
            },
        }
    }
    out
}

/// Every text of a connector that variables may stand in.
pub(super) fn texts(connector: &mut Connector) -> impl Iterator<Item = &mut String> {
    let server = &mut connector.server;
    [&mut server.authorize_url, &mut server.token_url]
        .into_iter()
        .chain(server.issuer.as_mut())
        .chain(server.refresh_url.as_mut())
        .chain(server.device_url.as_mut())
        .chain(connector.identity.url.as_mut())
        .chain(connector.narrow.introspect_url.as_mut())
        .chain(connector.revoke.url.as_mut())
        .chain(connector.api.origin.as_mut())
        .chain(connector.api.hosts.iter_mut())
        .chain(connector.actions.iter_mut().map(|action| &mut action.request.url))
}

/// Whether the URL's authority is one of the connector's API hosts.
pub(super) fn is_api_host(connector: &Connector, url: &Url) -> bool {
    authority(url).is_some_and(|authority| connector.api.hosts.contains(&authority))
}

/// `host`, or `host:port` where the port is not the scheme's own.
pub(super) fn authority(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::connector::VarSource;

    fn spec(host_suffixes: &[&str]) -> VarSpec {
        VarSpec {
            label: "x".to_owned(),
            host_suffixes: host_suffixes.iter().map(|&suffix| suffix.to_owned()).collect(),
            default: None,
            source: VarSource::User,
        }
    }

    #[test]
    fn a_variable_is_one_lower_case_label() {
        for value in ["acme", "a-1", "x9"] {
            assert!(fits(&spec(&[]), value), "{value}");
        }
        for value in [
            "",
            "Acme",
            "a.b",
            "a/b",
            "a@b",
            "a?b",
            "a#b",
            "a:1",
            "-a",
            "a-",
            "a b",
            "ä",
            "a\n",
            "a%2e",
            "evil.com/x",
            "{x}",
            "a_b",
        ] {
            assert!(!fits(&spec(&[]), value), "{value:?}");
        }
    }

    #[test]
    fn a_host_variable_matches_suffixes_by_whole_labels() {
        let spec = spec(&["zendesk.com", "login.example.org"]);
        for value in [
            "zendesk.com",
            "acme.zendesk.com",
            "a.b.zendesk.com",
            "login.example.org",
        ] {
            assert!(fits(&spec, value), "{value}");
        }
        for value in [
            "evilzendesk.com",
            "zendesk.com.evil.example",
            "example.org",
            "xlogin.example.org",
            "zendesk.com:8443",
            "zendesk.com/x",
            "a@zendesk.com",
            "Acme.zendesk.com",
            ".zendesk.com",
            "zendesk.com.",
            "127.0.0.1",
        ] {
            assert!(!fits(&spec, value), "{value}");
        }
    }
}
