//! Values of the configuration that have rules of their own.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use url::{Host, Url};

use crate::domain::{OrgId, connector::InvalidConnectorId, loopback::is_loopback};

/// What is wrong with a value and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    pub(super) problem: String,
    pub(super) fix: String,
}

impl Invalid {
    pub(super) fn new(problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            fix: fix.into(),
        }
    }
}

/// The public base URL: https, or http on loopback; no path, query, fragment or user. The issuer (protocol, preamble).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(Url);

impl PublicUrl {
    /// The URL.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// The URL without trailing slash.
    #[must_use]
    pub fn issuer(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.issuer())
    }
}

impl FromStr for PublicUrl {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = |problem: &str| {
            Invalid::new(
                problem,
                "write it as `https://postern.example`, with nothing after the host",
            )
        };
        let url = Url::parse(text).map_err(|_| refuse("the public URL is not a URL"))?;
        let bare = matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !bare {
            return Err(refuse("the public URL has more than scheme, host and port"));
        }
        match (url.scheme(), is_loopback(&url)) {
            ("https", _) | ("http", true) => Ok(Self(url)),
            ("http", false) => Err(refuse("the public URL is plain http and not loopback")),
            _ => Err(refuse("the public URL is neither https nor http")),
        }
    }
}

/// Where rows live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// An embedded database in a file.
    Sqlite(PathBuf),
    /// A PostgreSQL server.
    Postgres(Url),
}

impl FromStr for StoreUrl {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        // SECURITY: the text may hold a password, so it never goes into the message.
        let fix = "write it as `sqlite:///var/lib/postern/postern.db`, or as \
                   `postgres://postern@db.example/postern?sslmode=verify-full` with the password in `password_file`";
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            let url = Url::parse(text).map_err(|_| Invalid::new("the store URL is not a URL", fix))?;
            if url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password") {
                return Err(Invalid::new("the store URL holds a password", fix));
            }
            if url.username().is_empty() {
                return Err(Invalid::new("the store URL names no role", fix));
            }
            return Ok(Self::Postgres(url));
        }
        let path = text
            .strip_prefix("sqlite://")
            .ok_or_else(|| Invalid::new("the store URL is of a kind this build does not have", fix))?;
        if !path.starts_with('/') || path.len() < 2 || path.contains(['?', '#', '\0']) {
            return Err(Invalid::new("the store URL does not hold an absolute path", fix));
        }
        Ok(Self::Sqlite(PathBuf::from(path)))
    }
}

/// Which orgs a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrgPattern {
    /// `*`: all of them.
    Any,
    /// This one.
    One(OrgId),
}

impl FromStr for OrgPattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text == "*" {
            return Ok(Self::Any);
        }
        text.parse()
            .map(Self::One)
            .map_err(|_| Invalid::new("not an org", "write an id `org_…`, or `*` for every org"))
    }
}

impl From<InvalidConnectorId> for Invalid {
    fn from(_: InvalidConnectorId) -> Self {
        Self::new(
            "not a connector id",
            "write it as in the connector's file, as `acme-mail`",
        )
    }
}

/// `host:port`, exactly as it will be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A name, an IPv4 address or an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = || {
            Invalid::new(
                "not a `host:port`",
                "write it as `10.0.0.7:8443`, `mail.internal:443` or `[fd00::1]:443`",
            )
        };
        let (raw_host, raw_port) = text.rsplit_once(':').ok_or_else(refuse)?;
        let port = raw_port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(refuse)?;
        let host = match Host::parse(raw_host).map_err(|_| refuse())? {
            Host::Domain(name) => name,
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        if host.contains('*') {
            return Err(refuse());
        }
        Ok(Self { host, port })
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Human,
}

impl FromStr for LogFormat {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "json" => Ok(Self::Json),
            "human" => Ok(Self::Human),
            _ => Err(Invalid::new("not a log format", "write `json` or `human`")),
        }
    }
}

pub(super) struct Level(pub(super) String);

impl FromStr for Level {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match tracing_subscriber::EnvFilter::builder().parse(text) {
            Ok(_) if !text.trim().is_empty() => Ok(Self(text.to_owned())),
            _ => Err(Invalid::new(
                "not a log level",
                "write `error`, `warn`, `info`, `debug` or a filter as `postern=debug,warn`",
            )),
        }
    }
}

pub(super) struct Dir(pub(super) PathBuf);

impl FromStr for Dir {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let path = PathBuf::from(text);
        if path.is_absolute() {
            Ok(Self(path))
        } else {
            Err(Invalid::new(
                "the directory is not an absolute path",
                "write it from the root, as `/var/lib/postern`",
            ))
        }
    }
}

/// A short name: letters, digits and `-`.
pub(super) struct Name(pub(super) String);

impl FromStr for Name {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let plain = text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if plain && (1..=40).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::new(
                "not a name",
                "use 1 to 40 of the letters a-z, digits and `-`",
            ))
        }
    }
}

/// Where copies of the log and notices go: https, or http on loopback.
#[derive(Debug)]
pub(super) struct ReceiverUrl(pub(super) Url);

impl FromStr for ReceiverUrl {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let fix =
            "write it as `https://receiver.example/in`, without user or password; http only on loopback";
        let url = Url::parse(text).map_err(|_| Invalid::new("not a URL", fix))?;
        let bare = url.username().is_empty() && url.password().is_none() && url.host().is_some();
        match url.scheme() {
            "https" if bare => Ok(Self(url)),
            "http" if bare && is_loopback(&url) => Ok(Self(url)),
            _ => Err(Invalid::new("not an address anything may be sent to", fix)),
        }
    }
}

/// `500ms`, `30s`, `5m`, `1h`, `0s`.
pub(super) struct Span(Duration);

impl Span {
    pub(super) fn within(self, what: &str, least: Duration, most: Duration) -> Result<Duration, Invalid> {
        if self.0 < least || self.0 > most {
            return Err(Invalid::new(
                format!("{what} is out of range"),
                format!("use {least:?} to {most:?}"),
            ));
        }
        Ok(self.0)
    }
}

impl FromStr for Span {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).unwrap_or((text, ""));
        let unit_ms = match unit {
            "ms" => Some(1),
            "s" => Some(1_000),
            "m" => Some(60_000),
            "h" => Some(3_600_000),
            _ => None,
        };
        number
            .parse::<u64>()
            .ok()
            .zip(unit_ms)
            .and_then(|(number, unit_ms)| number.checked_mul(unit_ms))
            .map(|millis| Self(Duration::from_millis(millis)))
            .ok_or_else(|| {
                Invalid::new(
                    "not a length of time",
                    "write a number and a unit, as `500ms`, `30s` or `5m`",
                )
            })
    }
}

impl From<std::net::AddrParseError> for Invalid {
    fn from(_: std::net::AddrParseError) -> Self {
        Self::new(
            "not an address to listen on",
            "write it as `127.0.0.1:8700` or `[::]:8700`",
        )
    }
}
