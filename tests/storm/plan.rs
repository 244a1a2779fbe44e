//! Who waits for what and where, and what a replica is told of it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use postern::{
    app::{Kind, Parts, clock::SystemClock},
    connectors::{Catalogue, Options},
    crypto::hardening,
    domain::connector::ConnectorId,
    egress::{Egress, EgressPolicy},
    store::{Isolation, Location, PostgresSettings, TimeSource},
};
use postern_kms::local::LocalKeys;
use serde::{Deserialize, Serialize};

/// Replica processes.
pub(crate) const REPLICAS: usize = 3;
/// Waiters of each grant.
pub(crate) const WAITERS_EACH: usize = 10;
/// Calls to providers that a replica may have under way.
pub(crate) const CALLS: usize = 64;
/// How long the provider takes.
pub(crate) const LATENCY: Duration = Duration::from_millis(200);
/// Authorization servers, a connector for each: one alone is never given all of a replica's calls.
pub(crate) const PROVIDERS: usize = 4;
/// The address the deployment is known by.
pub(crate) const ISSUER: &str = "http://127.0.0.1:8700";
/// The header of token requests that tells the provider who calls.
pub(crate) const REPLICA_HEADER: &str = "x-replica";

/// How many grants end at once.
pub(crate) fn grants() -> usize {
    let usual = if is_long() { 10_000 } else { 500 };
    std::env::var("POSTERN_TEST_GRANTS").map_or(usual, |asked| asked.parse().unwrap())
}

/// Whether this is the form whose time counts.
pub(crate) fn is_long() -> bool {
    std::env::var_os("POSTERN_LONG").is_some()
}

/// Whether one of the grant's waiters comes over HTTP.
pub(crate) fn is_asked_over_http(grant: usize) -> bool {
    grant.is_multiple_of(10)
}

/// How many wait for a grant inside a replica.
pub(crate) fn waiters(grant: usize, replica: usize) -> usize {
    (usize::from(is_asked_over_http(grant))..WAITERS_EACH)
        .filter(|waiter| (grant + waiter) % REPLICAS == replica)
        .count()
}

/// What the providers alone would need: every replica calls all the time.
pub(crate) fn floor(grants: usize) -> Duration {
    LATENCY.mul_f64(grants as f64 / (REPLICAS * CALLS) as f64)
}

/// The connector of a provider.
pub(crate) fn connector(provider: usize) -> ConnectorId {
    format!("storm-{provider}").parse().unwrap()
}

/// What a replica process is told, in a file whose name is in its environment.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) number: usize,
    pub(crate) home: PathBuf,
    pub(crate) database: String,
    pub(crate) providers: Vec<SocketAddr>,
    pub(crate) orgs: Vec<String>,
}

impl Orders {
    /// What this process was told; nothing, if it is the one that tells.
    pub(crate) fn given() -> Option<Self> {
        let file = std::env::var_os(VARIABLE)?;
        Some(serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap())
    }

    /// Writes them down for a process; the variable and the file it is to be given.
    pub(crate) fn written(&self) -> (&'static str, PathBuf) {
        let file = self.home.join(format!("{}.json", self.number));
        std::fs::write(&file, serde_json::to_vec(self).unwrap()).unwrap();
        (VARIABLE, file)
    }

    /// What the replica is built of, as `postern serve` would.
    pub(crate) fn parts(&self) -> Parts {
        let mut keys = LocalKeys::new(hardening::keep_preferably_locked);
        keys.add_key_file("local", &self.home.join("kek")).unwrap();
        let mut policy = EgressPolicy::strict();
        for (number, address) in self.providers.iter().enumerate() {
            policy = policy.allow(&connector(number), &address.to_string()).unwrap();
        }
        let data_dir = self.home.join(self.number.to_string());
        std::fs::create_dir_all(&data_dir).unwrap();
        Parts {
            kind: Kind::Serve,
            database: Location::Postgres(PostgresSettings {
                url: self.database.clone(),
                password: None,
                connections: 16,
                pooler: false,
                isolation: Isolation::default(),
            }),
            time: TimeSource::Database,
            catalogue: self.catalogue(&data_dir),
            data_dir,
            keys: Arc::new(keys),
            kek_ref: "local".to_owned(),
            key_words: "a test key".to_owned(),
            cache_ttl: Duration::from_secs(30),
            locking: hardening::Locking::Preferred,
            issuer: ISSUER.to_owned(),
            egress: Egress::new(policy).unwrap(),
            sinks: Vec::new(),
            witness: None,
            webhook: None,
            clock: Arc::new(SystemClock),
        }
    }

    /// Acme Mail's file for each provider; a refresh token is good once, and a token request says who sends it.
    fn catalogue(&self, data_dir: &Path) -> Catalogue {
        let dir = data_dir.join("connectors");
        std::fs::create_dir_all(&dir).unwrap();
        let mut origins = Vec::new();
        for (number, address) in self.providers.iter().enumerate() {
            let id = connector(number);
            let origin = format!("http://{address}");
            let header = format!("headers = {{ {REPLICA_HEADER} = \"{}\" }}", self.number);
            let text = include_str!("../../connectors/acme-mail.toml")
                .replace("id = \"acme-mail\"", &format!("id = \"{id}\""))
                .replace("old_refresh_valid_s = 60", "old_refresh_valid_s = 0")
                // Narrowing needs a grace, and nothing is narrowed here.
                .replace(
                    "[narrow]\nhow = \"refresh_scope\"\nproof = \"returned_scope\"\n",
                    "",
                )
                .replace("[client]", &format!("[client]\n{header}"))
                .replace("{origin}", &origin)
                .replace("{authority}", &address.to_string());
            std::fs::write(dir.join(format!("{id}.toml")), text).unwrap();
            origins.push(origin);
        }
        Catalogue::load(&Options {
            acme_mail_origin: None,
            dir: Some(&dir),
            plain_http_allowed: &origins,
        })
        .unwrap()
    }
}

/// Names the file with the orders. Postern's own variables begin otherwise.
const VARIABLE: &str = "STORM_ORDERS";
