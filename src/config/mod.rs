//! Typed configuration of `postern serve`: one TOML file and the environment, parsed once.
//!
//! Unknown keys and unknown `POSTERN_…` variables are refused; every complaint names file and line (or the variable)
//! and says what to write instead. Secrets come only from files or the environment, never from the TOML itself.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::SecretString;
use url::Url;

use crate::{audit::WitnessKey, domain::connector::ConnectorId};

mod environment;
mod file;
mod values;

pub use values::{HostPort, LogFormat, OrgPattern, PublicUrl, StoreUrl};

/// Everything `postern serve` is told.
#[derive(Debug)]
pub struct Settings {
    /// Where it listens and how the world calls it.
    pub server: Server,
    /// Where rows live.
    pub store: Database,
    /// Where files of its own live: lock file, spool, checkpoints.
    pub data_dir: PathBuf,
    /// The deployment's key.
    pub keys: Keys,
    /// Connector files beside the built-in ones.
    pub connectors_dir: Option<PathBuf>,
    /// Addresses outside the public internet that may be called.
    pub egress_allow: Vec<EgressAllow>,
    /// Where the audit log is copied to.
    pub sinks: Vec<SinkSettings>,
    /// Who cosigns the log's checkpoints.
    pub witness: Option<WitnessSettings>,
    /// Who is told of changes of grants' states.
    pub webhook: Option<WebhookSettings>,
    /// What is logged and how.
    pub log: Log,
    /// What connections and requests may cost.
    pub limits: Limits,
}

/// The operator's receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    /// https, or http on loopback.
    pub url: Url,
    /// The file that holds the secret shared with it.
    pub secret_file: PathBuf,
}

/// Where it listens and how the world calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The API and the pages.
    pub listen: SocketAddr,
    /// Health and readiness.
    pub ops_listen: SocketAddr,
    /// How people and agents reach it; the issuer of everything signed here.
    pub public_url: PublicUrl,
}

/// Where rows live and how to get there.
#[derive(Debug)]
pub struct Database {
    /// Which database.
    pub url: StoreUrl,
    /// A file with the password of PostgreSQL's role.
    pub password_file: Option<PathBuf>,
    /// That password, from `POSTERN_STORE_PASSWORD`.
    pub password: Option<SecretString>,
    /// The password of the role that owns the schema, for `postern migrate`, from `POSTERN_STORE_OWNER_PASSWORD`.
    pub owner_password: Option<SecretString>,
    /// The most connections to PostgreSQL beside those of the gate and of revocations.
    pub connections: usize,
    /// Whether a pooler that gives every transaction another connection stands in between.
    pub pooler: bool,
}

/// The deployment's key.
#[derive(Debug)]
pub struct Keys {
    /// Where the key-encryption key is.
    pub kek: Kek,
    /// How long a plaintext data key may live; zero asks the key service each time.
    pub cache_ttl: Duration,
    /// Whether to start although keys cannot be locked into memory.
    pub allow_unlocked: bool,
}

/// Where the key-encryption key is.
#[derive(Debug)]
pub enum Kek {
    /// A file holding a local key.
    KeyFile(PathBuf),
    /// A file holding a passphrase.
    PassphraseFile(PathBuf),
    /// A passphrase from `POSTERN_KEK_PASSPHRASE`.
    Passphrase(SecretString),
}

/// One address outside the public internet that one org's connector may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressAllow {
    /// Whose.
    pub org: OrgPattern,
    /// For which connector. There is no `*`: an address is opened for one purpose.
    pub connector: ConnectorId,
    /// The address.
    pub address: HostPort,
}

/// Who cosigns the log's checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessSettings {
    /// Its submission prefix: https, or http on loopback.
    pub url: Url,
    /// Its monitoring prefix, under which it shows what it has cosigned; the submission prefix unless said otherwise.
    pub monitoring_url: Url,
    /// Its name and public key.
    pub key: WitnessKey,
}

/// A receiver of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkSettings {
    /// The cursor is kept under it.
    pub name: String,
    /// What it is.
    pub kind: SinkKind,
}

/// What a receiver of the audit log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkKind {
    /// JSON lines of entries.
    File(PathBuf),
    /// JSON lines of OCSF events.
    Ocsf(PathBuf),
    /// A signed webhook.
    Webhook {
        /// Where to.
        url: Url,
        /// The file that holds the shared secret.
        secret_file: PathBuf,
    },
    /// An OpenTelemetry collector.
    Otlp(Url),
}

/// What is logged and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Lines for machines or for people.
    pub format: LogFormat,
    /// A `tracing` filter, as `info` or `postern=debug,warn`.
    pub level: String,
}

/// What connections and requests may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// How long the headers of a request may take.
    pub header_timeout: Duration,
    /// How long a connection may stay open between requests; no longer than headers may take while all are in use.
    pub idle_timeout: Duration,
    /// How long a handler may take that is neither a long poll nor a release.
    pub handler_timeout: Duration,
    /// Bytes in a body.
    pub body_bytes: usize,
    /// How long requests under way may go on after a stop signal.
    pub drain: Duration,
}

/// Why the configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error(
        "{path}: cannot be read: {cause}\n  fix: name an existing file with `--config`, readable by this user"
    )]
    Unreadable {
        /// Which file.
        path: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Something in the file is wrong.
    #[error("{path}:{line}: {problem}\n  fix: {fix}")]
    Wrong {
        /// Which file.
        path: String,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
        /// What to write instead.
        fix: String,
    },
    /// An argument is wrong.
    #[error("{argument}: {problem}\n  fix: {fix}")]
    Argument {
        /// Which.
        argument: &'static str,
        /// What is wrong. Never its value.
        problem: String,
        /// What to write instead.
        fix: String,
    },
    /// Something in the environment is wrong.
    #[error("environment variable {variable}: {problem}\n  fix: {fix}")]
    Environment {
        /// Which variable.
        variable: String,
        /// What is wrong. Never its value.
        problem: String,
        /// What to do.
        fix: String,
    },
}

impl Database {
    /// A database named by its URL, outside of any configuration; `argument` is named in complaints.
    ///
    /// # Errors
    /// When it is no URL of a database, or something in the environment is wrong.
    pub fn named(
        argument: &'static str,
        url: &str,
        password_file: Option<PathBuf>,
        env: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let environment = environment::Environment::read(env)?;
        let url = url
            .parse()
            .map_err(|values::Invalid { problem, fix }| ConfigError::Argument {
                argument,
                problem,
                fix,
            })?;
        Ok(Self {
            url,
            // A file that was named goes before what holds for every database.
            password: environment.store_password().filter(|_| password_file.is_none()),
            password_file,
            owner_password: None,
            connections: CONNECTIONS,
            pooler: false,
        })
    }
}

impl Settings {
    /// Reads `path`, lets `env` override it, and checks everything.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place and a fix.
    pub fn load(path: &Path, env: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::Unreadable {
            path: shown.clone(),
            cause,
        })?;
        Self::parse(&shown, &text, env)
    }

    /// As [`Settings::load`], of a text that is already read; `path` is only named in complaints.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place and a fix.
    pub fn parse(path: &str, text: &str, env: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let environment = environment::Environment::read(env)?;
        file::File::parse(path, text)?.settle(&environment)
    }
}

/// Connections to PostgreSQL beside the gate's own, unless said otherwise.
const CONNECTIONS: usize = 16;

#[cfg(test)]
mod tests;
