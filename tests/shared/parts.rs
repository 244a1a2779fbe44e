//! What a deployment of a test or a measurement is made of.

use std::{path::Path, sync::Arc, time::Duration};

use postern::{
    app::{Kind, Parts, clock::SystemClock},
    connectors::Catalogue,
    crypto::hardening,
    egress::{Egress, EgressPolicy},
    store::{Location, TimeSource},
};
use postern_kms::local::{LocalKeys, create_key_file};

/// The parts of one that keeps its files in a directory, `kek` among them, and tells nobody anything.
pub(crate) fn parts(
    dir: &Path,
    database: Location,
    issuer: &str,
    catalogue: Catalogue,
    policy: EgressPolicy,
) -> Parts {
    let kek = dir.join("kek");
    if !kek.exists() {
        create_key_file(&kek).unwrap();
    }
    let mut keys = LocalKeys::new(hardening::keep_preferably_locked);
    keys.add_key_file("local", &kek).unwrap();
    Parts {
        kind: Kind::Dev,
        database,
        time: TimeSource::Database,
        data_dir: dir.to_owned(),
        keys: Arc::new(keys),
        kek_ref: "local".to_owned(),
        key_words: "a test key".to_owned(),
        cache_ttl: Duration::from_secs(30),
        locking: hardening::Locking::Preferred,
        issuer: issuer.to_owned(),
        catalogue,
        egress: Egress::new(policy).unwrap(),
        sinks: Vec::new(),
        witness: None,
        webhook: None,
        clock: Arc::new(SystemClock),
    }
}
