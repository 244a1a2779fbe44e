//! `doctor`, over a server that answers as one does that is not well in ways no real one is made to be.

use super::*;
use crate::{
    audit::{Checkpoint, VerifierKey},
    crypto::api_key,
    crypto::{OsRandomness, lookup::show_api_key},
    domain::{OrgId, principal::KeyKind},
};

/// What the server says besides being well.
#[derive(Debug, Clone, Default)]
struct Ill {
    date: Option<&'static str>,
    version: Option<&'static str>,
    grants: Vec<Value>,
    entries: Vec<Value>,
    /// Whether `ent_old` has no place in the log.
    waits: bool,
    obstacles: Vec<&'static str>,
}

const CONNECTOR: &str = "acme-mail";
const GRANT: &str = "grt_01h2xcejqtf2nbrexx3vqjhp41";

impl Ill {
    fn answer(&self, path: &str) -> Response {
        let page = |items: &[Value]| json!({"items": items, "next": null});
        let key = || {
            let seed = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
            let public = ring::signature::KeyPair::public_key(&seed)
                .as_ref()
                .try_into()
                .unwrap();
            let org = OrgId::from_bytes([1; 16]);
            let origin = crate::audit::origin("https://p.example", org);
            (seed, VerifierKey::new(&origin, public).unwrap())
        };
        let body = match path {
            "/.well-known/postern/decision-keys" => {
                let mut response = ok(json!({"keys": []}))("");
                if let Some(date) = self.date {
                    response.headers_mut().insert("date", date.parse().unwrap());
                }
                return response;
            }
            "/openapi.json" => {
                json!({"info": {"version": self.version.unwrap_or(env!("CARGO_PKG_VERSION"))}})
            }
            "/v1/audit/key" => return key().1.to_string().into_response(),
            "/v1/audit/checkpoint" => {
                let (seed, key) = key();
                let head = Checkpoint {
                    origin: key.name().to_owned(),
                    size: 0,
                    root: crate::crypto::digest::sha256(b""),
                    writers: Default::default(),
                };
                let sign = |text: &[u8]| seed.sign(text).as_ref().try_into().unwrap();
                return head.sign(&key, sign).unwrap().into_response();
            }
            "/v1/policies" => page(&[json!({"id": 1, "org": [{}], "agent": [{}]})]),
            "/v1/agents" => page(&[json!({"state": "active"})]),
            "/v1/connectors" => page(&[json!({
                "id": CONNECTOR, "configured": true, "secret_missing": false, "manage_url": "https://acme.example/apps",
            })]),
            "/v1/grants" => page(&self.grants),
            "/v1/audit/entries?limit=200" => page(&self.entries),
            "/v1/audit/entries/ent_old" if self.waits => json!({"id": "ent_old"}),
            "/v1/audit/entries/ent_old" => json!({"id": "ent_old", "log_index": 0}),
            "/readyz" => {
                let body = json!({"status": "unavailable", "obstacles": self.obstacles}).to_string();
                return (StatusCode::SERVICE_UNAVAILABLE, body).into_response();
            }
            other => panic!("{other}"),
        };
        ok(body)("")
    }

    /// The lines that are not `ok`, without the replica nobody asked, and the exit code.
    async fn findings(self) -> (u8, Vec<Value>) {
        let key = api_key::mint(KeyKind::Admin, &OsRandomness::new()).unwrap();
        let env = [("POSTERN_API_KEY", show_api_key(&key))];
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let ran = ran(&["--json", "doctor"], &env, move |path| self.answer(path)).await;
        let lines = ran.data.lines().map(|line| serde_json::from_str(line).unwrap());
        let lines = lines.filter(|line: &Value| line["result"] != "ok" && line["check"] != "replica");
        (ran.exit, lines.collect())
    }

    async fn finding(self) -> (u8, Value) {
        let (exit, mut lines) = self.findings().await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        (exit, lines.remove(0))
    }
}

fn says(line: &Value, check: &str, result: &str, found: &str) {
    assert_eq!(
        (&line["check"], &line["result"]),
        (&json!(check), &json!(result)),
        "{line}"
    );
    assert!(line["found"].as_str().unwrap().contains(found), "{line}");
    assert!(!line["fix"].as_str().unwrap().is_empty(), "{line}");
}

#[tokio::test]
async fn what_is_well_is_not_complained_about() {
    let (exit, lines) = Ill::default().findings().await;
    assert_eq!((exit, lines), (0, vec![]));
}

#[tokio::test]
async fn clocks_that_differ_are_wrong() {
    for (date, found) in [
        ("Sat, 01 Jan 2000 00:00:00 GMT", "behind"),
        ("Fri, 01 Jan 2100 00:00:00 GMT", "ahead of"),
    ] {
        let ill = Ill {
            date: Some(date),
            ..Ill::default()
        };
        let (exit, line) = ill.finding().await;
        says(&line, "clock", "wrong", found);
        assert_eq!(exit, 1);
    }
}

#[tokio::test]
async fn another_version_is_a_warning() {
    let ill = Ill {
        version: Some("0.0.9"),
        ..Ill::default()
    };
    let (exit, line) = ill.finding().await;
    says(&line, "version", "warning", "0.0.9");
    assert_eq!(exit, 0);
}

#[tokio::test]
async fn an_entry_that_waits_for_the_log_is_wrong_once_it_is_old() {
    let entry = |id: &str, ts: &str| json!({"id": id, "ts": ts});
    let entries = vec![
        entry("ent_young", "2100-01-01T00:00:00.000Z"),
        entry("ent_old", "2000-01-01T00:00:00.000Z"),
        entry("ent_older", "2000-01-01T00:00:00.000Z"),
    ];
    for waits in [true, false] {
        let ill = Ill {
            entries: entries.clone(),
            waits,
            ..Ill::default()
        };
        let (exit, lines) = ill.findings().await;
        if waits {
            says(&lines[0], "log", "wrong", "ent_old has waited");
        }
        assert_eq!(
            (exit, lines.len()),
            (u8::from(waits), usize::from(waits)),
            "{lines:?}"
        );
    }
}

#[tokio::test]
async fn what_providers_did_not_confirm_is_a_warning_and_what_never_reached_them_is_wrong() {
    let ended = |upstream: &str, at: &str| json!({"id": GRANT, "connector": CONNECTOR, "state": "revoked", "upstream": upstream, "revoked_at": at});
    let (old, young) = ("2000-01-01T00:00:00.000Z", "2100-01-01T00:00:00.000Z");
    let ill = Ill {
        grants: vec![
            ended("unconfirmed", old),
            ended("pending", old),
            ended("pending", young),
            ended("revoked", old),
        ],
        ..Ill::default()
    };
    let (exit, lines) = ill.findings().await;
    says(&lines[0], "upstream", "wrong", "1 revocations have not");
    says(
        &lines[1],
        "upstream",
        "warning",
        "1 revocations the provider did not confirm",
    );
    assert!(
        lines[1]["fix"]
            .as_str()
            .unwrap()
            .contains("https://acme.example/apps")
    );
    assert_eq!((exit, lines.len()), (1, 2));
}

#[tokio::test]
async fn a_quarantined_grant_is_a_warning() {
    let ill = Ill {
        grants: vec![json!({"id": GRANT, "connector": CONNECTOR, "state": "quarantined"})],
        ..Ill::default()
    };
    let (exit, line) = ill.finding().await;
    says(&line, "grants", "warning", GRANT);
    assert_eq!(exit, 0);
}

#[tokio::test]
async fn every_obstacle_is_a_finding_with_a_fix_of_its_own() {
    let names = [
        "store",
        "clock",
        "keys",
        "sealed",
        "outside",
        "starting",
        "draining",
        "something new",
    ];
    let ill = Ill {
        obstacles: names.to_vec(),
        ..Ill::default()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answers = ill.clone();
    let probes =
        Router::new().fallback(move |uri: axum::http::Uri| async move { answers.answer(uri.path()) });
    let server = tokio::spawn(async move { axum::serve(listener, probes).await });
    let line = ["--json", "doctor", "--ops-url", &url];
    let ran = ran(&line, &[], move |path| ill.answer(path)).await;
    server.abort();
    let lines: Vec<Value> = ran
        .data
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let lines: Vec<&Value> = lines.iter().filter(|line| line["check"] == "replica").collect();
    let mut fixes: Vec<&str> = lines.iter().map(|line| line["fix"].as_str().unwrap()).collect();
    for (line, name) in lines.iter().zip(names) {
        says(line, "replica", "wrong", name);
    }
    fixes.sort_unstable();
    fixes.dedup();
    assert_eq!((ran.exit, fixes.len()), (1, names.len()));
}
