//! The deployment of a directory: how it is opened, beside which Acme Mail, and how it is copied into another database.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use postern::{
    app::{self, AppError, Kind, Parts},
    audit::witness::Witness,
    connectors::{Catalogue, Options},
    crypto::OsRandomness,
    domain::clock::FixedClock,
    egress::{EgressPolicy, operator_client},
    flows::Deps,
    store::{CopyError, Copying, Location, Report, TimeSource},
};

use super::{ISSUER, acme_mail, breakable::Breakable};
use crate::shared::{loopback, parts::parts};

/// What a connector of one's own for Acme Mail is called.
pub(super) const OTHER: &str = "acme-other";

/// Opens the deployment of a directory as `dev` or as `serve` would, if it can be opened.
pub async fn open_as(
    kind: Kind,
    dir: &Path,
    location: &Location,
    clock: &Arc<FixedClock>,
    acme: &str,
) -> Result<Arc<Deps>, AppError> {
    let address = acme.trim_start_matches("http://");
    let elsewhere: Vec<String> = std::fs::read_to_string(elsewhere(dir)).into_iter().collect();
    let mut policy = EgressPolicy::strict().allow(&acme_mail(), address).unwrap();
    for address in elsewhere.iter().map(String::as_str).chain([address]) {
        policy = policy.allow(&OTHER.parse().unwrap(), address).unwrap();
    }
    let plain_http: Vec<String> = elsewhere
        .iter()
        .map(|address| format!("http://{address}"))
        .collect();
    let own = own_connectors(dir);
    let connectors = Options {
        acme_mail_origin: Some(acme),
        dir: own.exists().then_some(own.as_path()),
        plain_http_allowed: &plain_http,
    };
    let catalogue = Catalogue::load(&connectors).unwrap();
    let parts = parts(dir, location.clone(), ISSUER, catalogue, policy);
    let opening = app::open(Parts {
        kind,
        time: TimeSource::Process,
        witness: witness_of(dir),
        clock: Arc::clone(clock) as _,
        keys: Arc::new(Breakable::new(parts.keys, dir)),
        ..parts
    });
    // On the heap: a test that opens several would not fit on its thread's stack.
    Box::pin(opening).await
}

/// The witness of a deployment, if its directory names one: submission prefix and key, a line each.
fn witness_of(dir: &Path) -> Option<Witness> {
    let named = std::fs::read_to_string(dir.join("witness")).ok()?;
    let (url, key) = named.split_once('\n').unwrap();
    let url: url::Url = url.parse().unwrap();
    let client = operator_client().unwrap();
    Some(Witness::new(key.parse().unwrap(), url.clone(), url, client))
}

/// The text of a connector of one's own: Acme Mail's, changed.
pub(super) fn own_connector(changes: &[(&str, &str)]) -> String {
    let mut text = include_str!("../../../connectors/acme-mail.toml")
        .replace("id = \"acme-mail\"", &format!("id = \"{OTHER}\""));
    for (before, after) in changes {
        assert!(text.contains(before), "{before}");
        text = text.replace(before, after);
    }
    text
}

/// Names the other address of a deployment's own connector, if it has one.
pub(super) fn elsewhere(dir: &Path) -> PathBuf {
    dir.join("elsewhere")
}

/// Where a deployment's own connector files are, if it has any.
pub(super) fn own_connectors(dir: &Path) -> PathBuf {
    dir.join("connectors")
}

/// An Acme Mail for both connectors, on the world's clock. It takes each refresh token once if that is what the text of the
/// connector of one's own says.
pub(super) async fn start_acme(clock: &Arc<FixedClock>, own: Option<&str>) -> String {
    let (listener, origin) = loopback::listen().await;
    let acme = loopback::acme(&origin, Arc::clone(clock) as _, ISSUER, &["acme-mail", OTHER]);
    let is_strict = own.is_some_and(|text| text.contains("\nold_refresh_valid_s = 0\n"));
    let acme = if is_strict {
        acme.with_rotation_grace(Duration::ZERO)
    } else {
        acme
    };
    tokio::spawn(loopback::serve(listener, acme.router()));
    origin
}

/// Copies a database nobody has into another one.
pub async fn copied(clock: &Arc<FixedClock>, from: &Location, to: &Location) -> Result<Report, CopyError> {
    copying(clock, from, to).await?.run(&mut |_| ()).await
}

/// A copy that may begin, or go on, once the tasks of whoever had the files have let go of them.
pub async fn copying(clock: &Arc<FixedClock>, from: &Location, to: &Location) -> Result<Copying, CopyError> {
    let random = Arc::new(OsRandomness::new());
    for _ in 0..500 {
        let clock = Arc::clone(clock) as _;
        match Copying::open(from, to, clock, TimeSource::Process, Arc::clone(&random) as _).await {
            Err(CopyError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            ended => return ended,
        }
    }
    let clock = Arc::clone(clock) as _;
    Copying::open(from, to, clock, TimeSource::Process, random).await
}
