//! What a connector file must not say. Run once, when the catalogue is loaded; everything wrong is named.

mod actions;
mod facts;

use std::collections::BTreeSet;

use url::Url;

use super::{
    template,
    vars::{self, Vars},
};
use crate::domain::connector::Connector;

/// Everything wrong with a definition.
pub(super) fn problems(connector: &Connector, plain_http: &BTreeSet<String>) -> Vec<String> {
    let mut report = Report {
        connector,
        plain_http,
        samples: samples(connector),
        problems: Vec::new(),
    };
    facts::check(&mut report);
    actions::check(&mut report);
    report.problems
}

/// What is being checked, and what was found.
struct Report<'c> {
    connector: &'c Connector,
    plain_http: &'c BTreeSet<String>,
    samples: Vars,
    problems: Vec<String>,
}

impl Report<'_> {
    fn require(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(problem());
        }
    }

    /// Checks a URL with variables; `extra` are names that stand for something else here.
    fn url(&mut self, what: &str, text: &str, extra: &[&str]) -> Option<Url> {
        let Some(names) = template::names(text) else {
            self.problems.push(format!("{what}: braces do not match"));
            return None;
        };
        for name in names {
            let known = self.samples.contains_key(name) || extra.contains(&name);
            self.require(known, || format!("{what}: {{{name}}} is not declared"));
        }
        let mut values = self.samples.clone();
        values.extend(extra.iter().map(|&name| (name.to_owned(), "x".to_owned())));
        let sample = vars::fill(text, &values);
        let Ok(url) = Url::parse(&sample) else {
            self.problems.push(format!("{what}: is not an absolute url"));
            return None;
        };
        // An origin is written without its slash.
        let canonical = url.as_str() == sample || url.as_str().strip_suffix('/') == Some(sample.as_str());
        self.require(canonical, || format!("{what}: is not in canonical form"));
        let secure = url.scheme() == "https" || self.plain_http.contains(&url.origin().ascii_serialization());
        self.require(secure, || format!("{what}: is not https"));
        let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        self.require(plain, || format!("{what}: holds credentials or a fragment"));
        Some(url)
    }

    /// Whether the authority is one of `[api].hosts`, variables filled with their samples.
    fn is_api_host(&self, url: &Url) -> bool {
        vars::authority(url).is_some_and(|authority| {
            self.connector
                .api
                .hosts
                .iter()
                .any(|host| vars::fill(host, &self.samples) == authority)
        })
    }
}

/// One allowed value for each variable.
fn samples(connector: &Connector) -> Vars {
    connector
        .vars
        .iter()
        .map(|(name, spec)| {
            (
                name.clone(),
                spec.host_suffixes
                    .first()
                    .cloned()
                    .unwrap_or_else(|| "x".to_owned()),
            )
        })
        .collect()
}

/// Whether a header may be fixed by a file: it is one, and says nothing about who calls or where to.
fn is_free_header(name: &str, value: &str) -> bool {
    const TAKEN: [&str; 9] = [
        "authorization",
        "cookie",
        "host",
        "content-length",
        "content-type",
        "transfer-encoding",
        "connection",
        "proxy-authorization",
        "user-agent",
    ];
    http::HeaderName::try_from(name).is_ok()
        && http::HeaderValue::from_str(value).is_ok()
        && !TAKEN.contains(&name.to_ascii_lowercase().as_str())
}
