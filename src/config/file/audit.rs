//! `[audit]`: where the log is copied to, and who cosigns it.

use std::{collections::BTreeSet, path::PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::{
    File,
    values::{self, Invalid},
};
use crate::config::{ConfigError, SinkKind, SinkSettings, WitnessSettings};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAudit {
    #[serde(default)]
    sink: Vec<RawSink>,
    witness: Option<RawWitness>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWitness {
    url: Spanned<String>,
    monitoring_url: Option<Spanned<String>>,
    key: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSink {
    name: Spanned<String>,
    kind: Spanned<String>,
    path: Option<Spanned<String>>,
    url: Option<Spanned<String>>,
    secret_file: Option<Spanned<String>>,
}

impl File<'_> {
    pub(super) fn sinks(&self) -> Result<Vec<SinkSettings>, ConfigError> {
        let mut names = BTreeSet::new();
        let mut sinks = Vec::new();
        for raw in &self.raw.audit.sink {
            let name: values::Name = self.value(&raw.name)?;
            if !names.insert(name.0.clone()) {
                let twice = Invalid::new(
                    "two sinks have this name",
                    "give each its own: the cursor is kept under it",
                );
                return Err(self.wrong(Some(raw.name.span()), twice));
            }
            sinks.push(SinkSettings {
                name: name.0,
                kind: self.sink_kind(raw)?,
            });
        }
        Ok(sinks)
    }

    pub(super) fn witness(&self) -> Result<Option<WitnessSettings>, ConfigError> {
        let Some(raw) = &self.raw.audit.witness else {
            return Ok(None);
        };
        let key = raw.key.get_ref().parse().map_err(|_| {
            let odd = Invalid::new(
                "not the key of a witness",
                "write the one line its operator gives out, as `witness.example/w1+3f2a…+BA…`",
            );
            self.wrong(Some(raw.key.span()), odd)
        })?;
        // C2SP tlog-witness: a witness may use one prefix for both.
        let monitoring = raw.monitoring_url.as_ref().unwrap_or(&raw.url);
        Ok(Some(WitnessSettings {
            url: self.value::<values::ReceiverUrl>(&raw.url)?.0,
            monitoring_url: self.value::<values::ReceiverUrl>(monitoring)?.0,
            key,
        }))
    }

    fn sink_kind(&self, raw: &RawSink) -> Result<SinkKind, ConfigError> {
        let path = || {
            self.needed(raw, raw.path.as_ref(), "path")
                .and_then(|text| self.path_of(text))
        };
        let url = || {
            self.needed(raw, raw.url.as_ref(), "url")
                .and_then(|text| self.value::<values::ReceiverUrl>(text))
                .map(|url| url.0)
        };
        let (kind, takes): (SinkKind, &[&str]) = match raw.kind.get_ref().as_str() {
            "file" => (SinkKind::File(path()?), &["path"]),
            "ocsf" => (SinkKind::Ocsf(path()?), &["path"]),
            "otlp" => (SinkKind::Otlp(url()?), &["url"]),
            "webhook" => {
                let secret = self.needed(raw, raw.secret_file.as_ref(), "secret_file")?;
                let kind = SinkKind::Webhook {
                    url: url()?,
                    secret_file: self.path_of(secret)?,
                };
                (kind, &["url", "secret_file"])
            }
            _ => {
                let unknown = Invalid::new("not a kind of sink", "write `file`, `webhook`, `ocsf` or `otlp`");
                return Err(self.wrong(Some(raw.kind.span()), unknown));
            }
        };
        let given = [
            ("path", &raw.path),
            ("url", &raw.url),
            ("secret_file", &raw.secret_file),
        ];
        for (key, value) in given {
            if let Some(value) = value.as_ref().filter(|_| !takes.contains(&key)) {
                let odd = Invalid::new(
                    format!("a sink of this kind has no `{key}`"),
                    format!("leave it out; it takes {}", takes.join(" and ")),
                );
                return Err(self.wrong(Some(value.span()), odd));
            }
        }
        Ok(kind)
    }

    fn path_of(&self, text: &Spanned<String>) -> Result<PathBuf, ConfigError> {
        self.value::<values::Dir>(text).map(|path| path.0)
    }

    fn needed<'r>(
        &self,
        raw: &RawSink,
        value: Option<&'r Spanned<String>>,
        key: &str,
    ) -> Result<&'r Spanned<String>, ConfigError> {
        value.ok_or_else(|| {
            let missing = Invalid::new(
                format!("`{key}` is missing"),
                "see [[audit.sink]] in deploy/postern.example.toml",
            );
            self.wrong(Some(raw.kind.span()), missing)
        })
    }
}
