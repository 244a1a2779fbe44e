//! The environment: a fixed list of variables, each named in the documentation; a misspelt one is refused.

use std::collections::BTreeMap;

use secrecy::SecretString;

use super::ConfigError;

/// Variables that override a key of the file: (variable, table, key).
const OVERRIDES: [(&str, &str, &str); 17] = [
    ("POSTERN_SERVER_LISTEN", "server", "listen"),
    ("POSTERN_SERVER_OPS_LISTEN", "server", "ops_listen"),
    ("POSTERN_SERVER_PUBLIC_URL", "server", "public_url"),
    ("POSTERN_STORE_URL", "store", "url"),
    ("POSTERN_STORE_PASSWORD_FILE", "store", "password_file"),
    ("POSTERN_DATA_DIR", "data", "dir"),
    ("POSTERN_KEYS_CACHE_TTL", "keys", "cache_ttl"),
    ("POSTERN_CONNECTORS_DIR", "connectors", "dir"),
    ("POSTERN_LOG_FORMAT", "log", "format"),
    ("POSTERN_LOG_LEVEL", "log", "level"),
    ("POSTERN_LIMITS_HEADER_TIMEOUT", "limits", "header_timeout"),
    ("POSTERN_LIMITS_IDLE_TIMEOUT", "limits", "idle_timeout"),
    ("POSTERN_LIMITS_HANDLER_TIMEOUT", "limits", "handler_timeout"),
    ("POSTERN_LIMITS_DRAIN", "limits", "drain"),
    (KEK_PASSPHRASE, "keys", "kek"),
    (STORE_PASSWORD, "store", "password"),
    (STORE_OWNER_PASSWORD, "store", "owner_password"),
];

/// Variables that are secrets; they are in no file.
const SECRETS: [&str; 3] = [KEK_PASSPHRASE, STORE_PASSWORD, STORE_OWNER_PASSWORD];

/// Variables of the other verbs; not ours, but not misspelt either.
const OF_OTHER_VERBS: [&str; 3] = ["POSTERN_URL", "POSTERN_API_KEY", "POSTERN_OPS_URL"];

const KEK_PASSPHRASE: &str = "POSTERN_KEK_PASSPHRASE";
const STORE_PASSWORD: &str = "POSTERN_STORE_PASSWORD";
const STORE_OWNER_PASSWORD: &str = "POSTERN_STORE_OWNER_PASSWORD";

/// What the environment says.
pub(super) struct Environment {
    overrides: BTreeMap<(&'static str, &'static str), (&'static str, String)>,
    secrets: BTreeMap<&'static str, SecretString>,
}

impl Environment {
    pub(super) fn read(env: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let mut read = Self {
            overrides: BTreeMap::new(),
            secrets: BTreeMap::new(),
        };
        for (name, value) in env.iter().filter(|(name, _)| name.starts_with("POSTERN_")) {
            // Only a build for tests of faults looks at it, and `serve` refuses that build.
            let of_tests = cfg!(feature = "failpoints") && name == "POSTERN_FAILPOINT";
            if of_tests || OF_OTHER_VERBS.contains(&name.as_str()) {
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
            if SECRETS.contains(&variable) {
                read.secrets.insert(variable, SecretString::from(value.clone()));
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
        self.secrets.get(KEK_PASSPHRASE).cloned()
    }

    pub(super) fn store_password(&self) -> Option<SecretString> {
        self.secrets.get(STORE_PASSWORD).cloned()
    }

    pub(super) fn store_owner_password(&self) -> Option<SecretString> {
        self.secrets.get(STORE_OWNER_PASSWORD).cloned()
    }
}
