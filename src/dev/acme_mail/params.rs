//! Form and query parameters, each at most once.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::{HeaderMap, header};
use url::form_urlencoded;

use super::answer::Answer;

/// Parameters by name. One that came more than once has no value at all.
#[derive(Debug, Default)]
pub(super) struct Params {
    values: BTreeMap<String, String>,
    repeated: BTreeSet<String>,
}

impl Params {
    /// Reads a query or an `application/x-www-form-urlencoded` body.
    pub(super) fn parse(raw: &[u8]) -> Self {
        let mut params = Self::default();
        let mut seen = BTreeSet::new();
        for (name, value) in form_urlencoded::parse(raw) {
            let name = name.into_owned();
            if !seen.insert(name.clone()) {
                params.values.remove(&name);
                params.repeated.insert(name);
            } else if !value.is_empty() {
                // RFC 6749 §3.1: a parameter sent without a value is treated as if it were omitted.
                params.values.insert(name, value.into_owned());
            }
        }
        params
    }

    /// Reads the body of a POST to an OAuth endpoint.
    pub(super) fn from_form(headers: &HeaderMap, body: &[u8]) -> Result<Self, Answer> {
        let is_form = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .is_some_and(|kind| {
                kind.trim()
                    .eq_ignore_ascii_case("application/x-www-form-urlencoded")
            });
        if !is_form {
            return Err(Answer::invalid_request("send application/x-www-form-urlencoded"));
        }
        let params = Self::parse(body);
        // RFC 6749 §3.2: request parameters must not be included more than once.
        if params.has_repeated() {
            return Err(Answer::invalid_request("a parameter is repeated"));
        }
        Ok(params)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    pub(super) fn has_repeated(&self) -> bool {
        !self.repeated.is_empty()
    }

    /// The named parameters that are present, in the order of `names`.
    pub(super) fn pick<'a>(&'a self, names: &[&'a str]) -> Vec<(&'a str, &'a str)> {
        names
            .iter()
            .filter_map(|name| self.get(name).map(|value| (*name, value)))
            .collect()
    }
}
