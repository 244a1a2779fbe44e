//! The server itself: does it answer, which version, what time is it there, does it take the key, is it ready.

use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::{
    ServerTime,
    finding::{Check, Finding},
    now,
};
use crate::{
    audit::{VerifierKey, checkpoint::org_of},
    cli::{client::Client, exit::Exit},
    domain::{Time, principal::KeyKind},
};

/// Whether a Postern answers, and what time it says it is.
pub(super) async fn reach(client: &Client) -> (Vec<Finding>, Option<ServerTime>) {
    let mut url = client.base().clone();
    url.set_path("/.well-known/postern/decision-keys");
    let before = now();
    let fix = "start it, or correct --url; behind a proxy, public_url must be what clients use";
    let probed = match client.probe(url).await {
        Ok(probed) => probed,
        Err(error) => return (vec![Finding::wrong(Check::Server, error.to_string(), fix)], None),
    };
    if !probed.body.get("keys").is_some_and(Value::is_array) {
        let found = match probed.body.get("code").and_then(Value::as_str) {
            Some(code) => format!("status {}: {code}", probed.status),
            None => format!("status {} of something else than Postern", probed.status),
        };
        return (vec![Finding::wrong(Check::Server, found, fix)], None);
    }
    let time = ServerTime {
        before,
        after: now(),
        said: probed.date.as_deref().and_then(Time::parse_http_date),
    };
    let found = Finding::ok(Check::Server, format!("{} answers", client.base()));
    (vec![found], Some(time))
}

/// Whether the server and this program are of one version.
pub(super) async fn version(client: &Client) -> Finding {
    let own = env!("CARGO_PKG_VERSION");
    let document = match client.get(&["openapi.json"], &[]).await {
        Ok(document) => document,
        Err(error) => return Finding::wrong(Check::Version, error.to_string(), "look at what is in between"),
    };
    match document.pointer("/info/version").and_then(Value::as_str) {
        Some(theirs) if theirs == own => Finding::ok(Check::Version, own),
        Some(theirs) => Finding::warning(
            Check::Version,
            format!("the server is {theirs}, this program {own}"),
            "use the program of the server's version",
        ),
        None => Finding::wrong(
            Check::Version,
            "the API document names no version",
            "is something else in between?",
        ),
    }
}

/// Whether the server's clock and this machine's agree.
pub(super) fn clock(time: &ServerTime) -> Finding {
    let Some(said) = time.said else {
        return Finding::unknown(
            Check::Clock,
            "the answer had no Date",
            "compare the clocks by hand: a proxy in between takes the header away",
        );
    };
    // What was said is a whole second that had begun, and was said between our two looks.
    let behind = time.before.since(said + Duration::from_secs(1));
    let ahead = said.since(time.after);
    let (skew, direction) = if behind > ahead {
        (behind, "behind")
    } else {
        (ahead, "ahead of")
    };
    if skew <= LARGEST_SKEW {
        Finding::ok(
            Check::Clock,
            format!("within {} s of this machine's", LARGEST_SKEW.as_secs()),
        )
    } else {
        Finding::wrong(
            Check::Clock,
            format!("{} s {direction} this machine's", skew.as_secs()),
            "let NTP set both clocks: decisions of engines and tokens of providers are held to the second",
        )
    }
}

/// Whether the key is one and is accepted, and which org it is of.
pub(super) async fn key(client: &Client) -> (Finding, Option<KeyKind>) {
    let fix = "set POSTERN_API_KEY or --api-key-file to a complete, active key";
    let wrong = |found: String, fix: &str| (Finding::wrong(Check::Key, found, fix), None);
    if !client.has_key() {
        return wrong("none given".to_owned(), fix);
    }
    let Some(kind) = client.key_kind() else {
        return wrong("not a key: cut short, or mistyped".to_owned(), fix);
    };
    // Every key may ask for this; the name of the log is `<issuer>/orgs/<org>/log`.
    let key = match client.text(&["v1", "audit", "key"]).await {
        Ok(key) => key,
        Err(error) if error.exit() == Exit::Unauthenticated => {
            let fix = "the key was revoked, its owner was disabled, or it is of another deployment: take an active one";
            return wrong(format!("not accepted: an unknown {} key", kind.as_str()), fix);
        }
        Err(error) => return wrong(error.to_string(), "look at the service's log for this moment"),
    };
    let org = key.trim_end().parse::<VerifierKey>().ok();
    let org = org.as_ref().and_then(|key| org_of(key.name()));
    match org {
        Some(org) => {
            let found = format!("an active {} key of {org}", kind.as_str());
            (Finding::ok(Check::Key, found), Some(kind))
        }
        None => wrong(
            "the log's key names no organisation".to_owned(),
            "is something else in between?",
        ),
    }
}

/// Whether the replica is ready; each obstacle is a finding of its own.
pub(super) async fn ready(client: &Client, ops_url: Option<Url>) -> Vec<Finding> {
    let Some(mut url) = ops_url else {
        return vec![Finding::unknown(
            Check::Replica,
            "the operations listener was not asked",
            "say --ops-url where `server.ops_listen` is, as http://127.0.0.1:8701",
        )];
    };
    url.set_path("/readyz");
    let probed = match client.probe(url).await {
        Ok(probed) => probed,
        Err(error) => {
            let fix = "correct --ops-url; it listens on `server.ops_listen` only";
            return vec![Finding::wrong(Check::Replica, error.to_string(), fix)];
        }
    };
    if probed.status == 200 && probed.body.get("status").and_then(Value::as_str) == Some("ok") {
        return vec![Finding::ok(Check::Replica, "ready")];
    }
    let obstacles: Vec<&str> = match probed.body.get("obstacles").and_then(Value::as_array) {
        Some(names) if !names.is_empty() => names.iter().filter_map(Value::as_str).collect(),
        _ => {
            let found = format!("status {} of something else than the probes", probed.status);
            return vec![Finding::wrong(Check::Replica, found, "correct --ops-url")];
        }
    };
    obstacles.into_iter().map(obstacle).collect()
}

fn obstacle(name: &str) -> Finding {
    let (found, fix) = match name {
        "store" => (
            "store: the database cannot be read or written",
            "look for a full disk or a read-only file system (SQLite), or at the server in `store.url` (PostgreSQL); nothing is released until it can",
        ),
        "clock" => (
            "clock: the clocks of the server and its database are more than five seconds apart",
            "let NTP set both",
        ),
        "keys" => (
            "keys: the key-encryption key cannot be had",
            "put the key file of `[keys]` back, or let the key service answer; without it no secret opens",
        ),
        "sealed" => (
            "sealed: the database of an organisation is older than what is known of it",
            "stop the service and look at `postern recover --config FILE`",
        ),
        "outside" => (
            "outside: the file beside the database cannot be written",
            "make `data_dir` writable, and look for a full disk or one that hangs: without the file a restored database would not be noticed",
        ),
        "starting" => (
            "starting: it has not looked at itself yet, or has to look again",
            "ask again in a few seconds",
        ),
        "draining" => ("draining: it is about to stop", "ask another replica"),
        other => {
            let fix = "use the program of the server's version: this one does not know the obstacle";
            return Finding::wrong(Check::Replica, other, fix);
        }
    };
    Finding::wrong(Check::Replica, found, fix)
}

/// As far as clocks may be apart: the leeway of decisions (protocol §4).
const LARGEST_SKEW: Duration = Duration::from_secs(5);
