//! The TOML file: its shape, and how it becomes [`Settings`].

mod audit;

use std::{ops::Range, path::PathBuf, str::FromStr, time::Duration};

use serde::Deserialize;
use toml::Spanned;

use super::{
    CONNECTIONS, ConfigError, Database, EgressAllow, Kek, Keys, Limits, Log, Server, Settings,
    WebhookSettings,
    environment::Environment,
    values::{self, Invalid},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    server: RawServer,
    #[serde(default)]
    store: RawStore,
    #[serde(default)]
    data: RawData,
    #[serde(default)]
    keys: RawKeys,
    #[serde(default)]
    connectors: RawConnectors,
    #[serde(default)]
    egress: RawEgress,
    #[serde(default)]
    webhooks: Option<Spanned<RawWebhooks>>,
    #[serde(default)]
    log: RawLog,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    audit: audit::RawAudit,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawServer {
    listen: Option<Spanned<String>>,
    ops_listen: Option<Spanned<String>>,
    public_url: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawStore {
    url: Option<Spanned<String>>,
    password_file: Option<Spanned<String>>,
    connections: Option<Spanned<u32>>,
    #[serde(default)]
    pooler: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawData {
    dir: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawKeys {
    kek: Option<Spanned<RawKek>>,
    cache_ttl: Option<Spanned<String>>,
    #[serde(default)]
    allow_unlocked: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKek {
    kind: Spanned<String>,
    file: Option<PathBuf>,
    passphrase_file: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawConnectors {
    dir: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawEgress {
    #[serde(default)]
    allow: Vec<RawAllow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAllow {
    org: Spanned<String>,
    connector: Spanned<String>,
    address: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWebhooks {
    url: Option<Spanned<String>>,
    secret_file: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawLog {
    format: Option<Spanned<String>>,
    level: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    connections: Option<Spanned<u32>>,
    header_timeout: Option<Spanned<String>>,
    idle_timeout: Option<Spanned<String>>,
    handler_timeout: Option<Spanned<String>>,
    body_bytes: Option<Spanned<u32>>,
    drain: Option<Spanned<String>>,
}

/// A parsed file that still knows where everything stood.
pub(super) struct File<'t> {
    path: &'t str,
    text: &'t str,
    raw: Raw,
}

impl<'t> File<'t> {
    pub(super) fn parse(path: &'t str, text: &'t str) -> Result<Self, ConfigError> {
        match toml::from_str(text) {
            Ok(raw) => Ok(Self { path, text, raw }),
            Err(error) => Err(ConfigError::Wrong {
                path: path.to_owned(),
                line: line_of(text, &error.span().unwrap_or(0..0)),
                problem: error.message().replace('\n', ", "),
                fix: "see deploy/postern.example.toml for every table and key".into(),
            }),
        }
    }

    pub(super) fn settle(self, env: &Environment) -> Result<Settings, ConfigError> {
        let Raw {
            server,
            store,
            data,
            keys,
            connectors,
            egress,
            webhooks,
            log,
            limits,
            audit: _,
        } = &self.raw;
        let server = Server {
            listen: self.or(env, "server", "listen", server.listen.as_ref(), "127.0.0.1:8700")?,
            ops_listen: self.or(
                env,
                "server",
                "ops_listen",
                server.ops_listen.as_ref(),
                "127.0.0.1:8701",
            )?,
            public_url: self.must(env, "server", "public_url", server.public_url.as_ref())?,
        };
        Ok(Settings {
            server,
            store: Database {
                url: self.must(env, "store", "url", store.url.as_ref())?,
                password_file: self
                    .maybe::<values::Dir>(env, "store", "password_file", store.password_file.as_ref())?
                    .map(|file| file.0),
                password: env.store_password(),
                owner_password: env.store_owner_password(),
                connections: self.count(store.connections.as_ref(), 4..=1000, CONNECTIONS)?,
                pooler: store.pooler,
            },
            data_dir: self.must::<values::Dir>(env, "data", "dir", data.dir.as_ref())?.0,
            keys: Keys {
                kek: self.kek(keys.kek.as_ref(), env)?,
                cache_ttl: self
                    .or::<values::Span>(env, "keys", "cache_ttl", keys.cache_ttl.as_ref(), "30s")?
                    .within("keys.cache_ttl", Duration::ZERO, Duration::from_secs(3600))
                    .map_err(|invalid| self.wrong(keys.cache_ttl.as_ref().map(Spanned::span), invalid))?,
                allow_unlocked: keys.allow_unlocked,
            },
            connectors_dir: self
                .maybe::<values::Dir>(env, "connectors", "dir", connectors.dir.as_ref())?
                .map(|dir| dir.0),
            egress_allow: egress
                .allow
                .iter()
                .map(|allow| {
                    Ok(EgressAllow {
                        org: self.value(&allow.org)?,
                        connector: self.value(&allow.connector)?,
                        address: self.value(&allow.address)?,
                    })
                })
                .collect::<Result<_, ConfigError>>()?,
            sinks: self.sinks()?,
            witness: self.witness()?,
            webhook: webhooks
                .as_ref()
                .map(|webhooks| self.webhook(webhooks))
                .transpose()?,
            log: Log {
                format: self.or(env, "log", "format", log.format.as_ref(), "json")?,
                level: self
                    .or::<values::Level>(env, "log", "level", log.level.as_ref(), "info")?
                    .0,
            },
            limits: Limits {
                connections: self.count(limits.connections.as_ref(), 16..=1_000_000, 1024)?,
                body_bytes: self.count(limits.body_bytes.as_ref(), 4096..=1_048_576, 64 * 1024)?,
                header_timeout: self.span(env, "header_timeout", limits.header_timeout.as_ref(), "5s")?,
                idle_timeout: self.span(env, "idle_timeout", limits.idle_timeout.as_ref(), "75s")?,
                handler_timeout: self.span(env, "handler_timeout", limits.handler_timeout.as_ref(), "15s")?,
                drain: self.span(env, "drain", limits.drain.as_ref(), "10s")?,
            },
        })
    }

    fn webhook(&self, raw: &Spanned<RawWebhooks>) -> Result<WebhookSettings, ConfigError> {
        let RawWebhooks { url, secret_file } = raw.get_ref();
        let (Some(url), Some(secret_file)) = (url, secret_file) else {
            let missing = Invalid::new(
                "[webhooks] needs both `url` and `secret_file`",
                "see [webhooks] in deploy/postern.example.toml",
            );
            return Err(self.wrong(Some(raw.span()), missing));
        };
        Ok(WebhookSettings {
            url: self.value::<values::ReceiverUrl>(url)?.0,
            secret_file: self.value::<values::Dir>(secret_file)?.0,
        })
    }

    fn kek(&self, raw: Option<&Spanned<RawKek>>, env: &Environment) -> Result<Kek, ConfigError> {
        let fix = "write `kek = { kind = \"local\", file = \"/etc/postern/kek\" }`, or `passphrase_file = …`, or set \
                   POSTERN_KEK_PASSPHRASE";
        let Some(spanned) = raw else {
            return env
                .kek_passphrase()
                .map(Kek::Passphrase)
                .ok_or_else(|| self.wrong(None, Invalid::new("`kek` is missing in [keys]", fix)));
        };
        let kek = spanned.get_ref();
        if kek.kind.get_ref() != "local" {
            let problem = format!(
                "no key service of kind `{}` in this build",
                shown(kek.kind.get_ref())
            );
            return Err(self.wrong(Some(kek.kind.span()), Invalid::new(problem, fix)));
        }
        match (&kek.file, &kek.passphrase_file, env.kek_passphrase()) {
            (Some(file), None, None) => Ok(Kek::KeyFile(file.clone())),
            (None, Some(file), None) => Ok(Kek::PassphraseFile(file.clone())),
            (None, None, Some(passphrase)) => Ok(Kek::Passphrase(passphrase)),
            (None, None, None) => Err(self.wrong(
                Some(spanned.span()),
                Invalid::new("the local key has no source", fix),
            )),
            _ => Err(self.wrong(
                Some(spanned.span()),
                Invalid::new("the local key has more than one source", fix),
            )),
        }
    }

    fn maybe<T: FromStr<Err: Into<Invalid>>>(
        &self,
        env: &Environment,
        table: &'static str,
        key: &'static str,
        raw: Option<&Spanned<String>>,
    ) -> Result<Option<T>, ConfigError> {
        if let Some((variable, text)) = env.get(table, key) {
            return text.parse().map(Some).map_err(|error: T::Err| {
                let Invalid { problem, fix } = error.into();
                ConfigError::Environment {
                    variable: variable.to_owned(),
                    problem,
                    fix,
                }
            });
        }
        raw.map(|spanned| self.value(spanned)).transpose()
    }

    fn or<T: FromStr<Err: Into<Invalid>>>(
        &self,
        env: &Environment,
        table: &'static str,
        key: &'static str,
        raw: Option<&Spanned<String>>,
        default: &str,
    ) -> Result<T, ConfigError> {
        match self.maybe(env, table, key, raw)? {
            Some(value) => Ok(value),
            None => default
                .parse()
                .map_err(|error: T::Err| self.wrong(None, error.into())),
        }
    }

    fn must<T: FromStr<Err: Into<Invalid>>>(
        &self,
        env: &Environment,
        table: &'static str,
        key: &'static str,
        raw: Option<&Spanned<String>>,
    ) -> Result<T, ConfigError> {
        self.maybe(env, table, key, raw)?.ok_or_else(|| {
            let fix = format!("add `{key} = \"…\"` under [{table}], as in deploy/postern.example.toml");
            ConfigError::Wrong {
                path: self.path.to_owned(),
                line: self.line_of_table(table),
                problem: format!("`{key}` is missing in [{table}]"),
                fix,
            }
        })
    }

    fn span(
        &self,
        env: &Environment,
        key: &'static str,
        raw: Option<&Spanned<String>>,
        default: &str,
    ) -> Result<Duration, ConfigError> {
        self.or::<values::Span>(env, "limits", key, raw, default)?
            .within(key, Duration::from_millis(100), Duration::from_secs(600))
            .map_err(|invalid| self.wrong(raw.map(Spanned::span), invalid))
    }

    fn count(
        &self,
        raw: Option<&Spanned<u32>>,
        range: std::ops::RangeInclusive<u32>,
        default: usize,
    ) -> Result<usize, ConfigError> {
        let Some(spanned) = raw else {
            return Ok(default);
        };
        let value = *spanned.get_ref();
        if !range.contains(&value) {
            let fix = format!("use a number from {} to {}", range.start(), range.end());
            return Err(self.wrong(
                Some(spanned.span()),
                Invalid::new(format!("{value} is out of range"), fix),
            ));
        }
        usize::try_from(value)
            .map_err(|_| self.wrong(Some(spanned.span()), Invalid::new("too large", "use less")))
    }

    fn value<T: FromStr<Err: Into<Invalid>>>(&self, spanned: &Spanned<String>) -> Result<T, ConfigError> {
        spanned
            .get_ref()
            .parse()
            .map_err(|error: T::Err| self.wrong(Some(spanned.span()), error.into()))
    }

    fn wrong(&self, span: Option<Range<usize>>, invalid: Invalid) -> ConfigError {
        ConfigError::Wrong {
            path: self.path.to_owned(),
            line: line_of(self.text, &span.unwrap_or(0..0)),
            problem: invalid.problem,
            fix: invalid.fix,
        }
    }

    fn line_of_table(&self, table: &str) -> usize {
        let header = format!("[{table}]");
        self.text
            .lines()
            .position(|line| line.trim_start().starts_with(&header))
            .map_or(1, |index| index + 1)
    }
}

/// The 1-based line a span begins on.
fn line_of(text: &str, span: &Range<usize>) -> usize {
    1 + text
        .bytes()
        .take(span.start)
        .filter(|byte| *byte == b'\n')
        .count()
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}
