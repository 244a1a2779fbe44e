//! The environment: a fixed list of variables, each named in the documentation; a misspelt one is refused.

use std::collections::BTreeMap;

use secrecy::SecretString;

use super::ConfigError;

/// Variables that override a key of the file: (variable, table, key).
const OVERRIDES: [(&str, &str, &str); 13] = [
    ("POSTERN_SERVER_LISTEN", "server", "listen"),
    ("POSTERN_SERVER_OPS_LISTEN", "server", "ops_listen"),
    ("POSTERN_SERVER_PUBLIC_URL", "server", "public_url"),
    ("POSTERN_STORE_URL", "store", "url"),
    ("POSTERN_DATA_DIR", "data", "dir"),
    ("POSTERN_KEYS_CACHE_TTL", "keys", "cache_ttl"),
    ("POSTERN_CONNECTORS_DIR", "connectors", "dir"),
    ("POSTERN_LOG_FORMAT", "log", "format"),
    ("POSTERN_LOG_LEVEL", "log", "level"),
    ("POSTERN_LIMITS_HEADER_TIMEOUT", "limits", "header_timeout"),
    ("POSTERN_LIMITS_HANDLER_TIMEOUT", "limits", "handler_timeout"),
    ("POSTERN_LIMITS_DRAIN", "limits", "drain"),
    (KEK_PASSPHRASE, "keys", "kek"),
];

/// Variables of the other verbs; not ours, but not misspelt either.
const OF_OTHER_VERBS: [&str; 3] = ["POSTERN_URL", "POSTERN_API_KEY", "POSTERN_OPS_URL"];

const KEK_PASSPHRASE: &str = "POSTERN_KEK_PASSPHRASE";

/// What the environment says.
pub(super) struct Environment {
    overrides: BTreeMap<(&'static str, &'static str), (&'static str, String)>,
    kek_passphrase: Option<SecretString>,
}

impl Environment {
    pub(super) fn read(env: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let mut read = Self {
            overrides: BTreeMap::new(),
            kek_passphrase: None,
        };
        for (name, value) in env.iter().filter(|(name, _)| name.starts_with("POSTERN_")) {
            if OF_OTHER_VERBS.contains(&name.as_str()) {
                continue;
            }
            let Some((variable, table, key)) = OVERRIDES.into_iter().find(|(variable, ..)| variable == name)
            else {
                return Err(ConfigError::Environment {
                    variable: name.clone(),
                    problem: "is not a variable of postern".into(),
                    fix: format!(
                        "unset it, or use one of: {}",
                        OVERRIDES.map(|(variable, ..)| variable).join(", ")
                    ),
                });
            };
            if variable == KEK_PASSPHRASE {
                read.kek_passphrase = Some(SecretString::from(value.clone()));
            } else {
                read.overrides.insert((table, key), (variable, value.clone()));
            }
        }
        Ok(read)
    }

    /// The variable that overrides `[table] key`, and its value.
    pub(super) fn get(&self, table: &'static str, key: &'static str) -> Option<(&'static str, &str)> {
        self.overrides
            .get(&(table, key))
            .map(|(variable, value)| (*variable, value.as_str()))
    }

    pub(super) fn kek_passphrase(&self) -> Option<SecretString> {
        self.kek_passphrase.clone()
    }
}
