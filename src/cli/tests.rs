//! Verbs, run against a server that answers as told.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use clap::{CommandFactory as _, Parser as _};
use serde_json::{Value, json};

use super::*;
use crate::{
    domain::{ApprovalId, ConnectSessionId, GrantId, ModeSet, Time},
    http::problem::{ApprovalLink, ConnectLink, FieldError, Problem},
};

mod doctor;
mod log;
mod tail;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a server saw: method, path with query, authorization, body.
type Seen = Arc<Mutex<Vec<(String, String, String, Value)>>>;

struct Ran {
    exit: u8,
    data: String,
    messages: String,
    seen: Vec<(String, String, String, Value)>,
}

/// Runs a command line against a server that answers with `answer`.
async fn ran(
    line: &[&str],
    env: &[(&str, &str)],
    answer: impl Fn(&str) -> Response + Clone + Send + Sync + 'static,
) -> Ran {
    let data = Captured::default();
    let ran = ran_into(line, env, answer, Box::new(data.clone())).await;
    Ran {
        data: data.text(),
        ..ran
    }
}

/// The same, with somebody else who reads the data.
async fn ran_into(
    line: &[&str],
    env: &[(&str, &str)],
    answer: impl Fn(&str) -> Response + Clone + Send + Sync + 'static,
    data: Box<dyn Write + Send>,
) -> Ran {
    let seen: Seen = Arc::default();
    let log = Arc::clone(&seen);
    let app = Router::new().fallback(
        move |method: axum::http::Method, uri: axum::http::Uri, headers: HeaderMap, body: Bytes| {
            let (log, answer) = (Arc::clone(&log), answer.clone());
            async move {
                let authorization = headers
                    .get("authorization")
                    .map_or("", |value| value.to_str().unwrap());
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                log.lock().unwrap().push((
                    method.to_string(),
                    uri.to_string(),
                    authorization.to_owned(),
                    body,
                ));
                // Only pages differ by their query.
                let paged = matches!(uri.path(), "/v1/audit/log" | "/v1/audit/entries");
                answer(if paged {
                    uri.path_and_query().unwrap().as_str()
                } else {
                    uri.path()
                })
            }
        },
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    let line = ["postern", "--url", &url].into_iter().chain(line.iter().copied());
    let cli = Cli::try_parse_from(line).unwrap();
    let style = Style {
        json: cli.global.json,
        quiet: cli.global.quiet,
        colour: false,
        may_ask: false,
        to_terminal: false,
        messages_to_terminal: false,
    };
    let messages = Captured::default();
    let mut output = Output::new(style, data, Box::new(messages.clone()));
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let ended = run(cli, &env, &mut output).await;
    server.abort();
    let exit = ended.map_or_else(
        |error| {
            output.error(&error);
            error.exit()
        },
        |()| Exit::Ok,
    );
    let seen = seen.lock().unwrap().clone();
    Ran {
        exit: exit as u8,
        data: String::new(),
        messages: messages.text(),
        seen,
    }
}

fn ok(body: Value) -> impl Fn(&str) -> Response + Clone + Send + Sync + 'static {
    move |_| {
        (
            StatusCode::OK,
            [("content-type", "application/json")],
            body.to_string(),
        )
            .into_response()
    }
}

const KEY: [(&str, &str); 1] = [("POSTERN_API_KEY", "psa_canary")];
const VEND: [&str; 7] = [
    "vend",
    "acme-mail",
    "messages.list",
    "--user",
    "usr_1",
    "--arg",
    "limit:=5",
];

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_shows_an_example() {
    fn check(command: &clap::Command) {
        if command.has_subcommands() {
            command.get_subcommands().for_each(check);
        } else {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(help.contains("Example"), "{}", command.get_name());
        }
    }
    check(&Cli::command());
}

#[test]
fn no_flag_takes_a_key() {
    fn check(command: &clap::Command) {
        for argument in command.get_arguments() {
            let name = argument.get_id().as_str();
            let secret = ["key", "token", "secret", "password"]
                .iter()
                .any(|word| name.ends_with(word));
            assert!(
                !secret || matches!(name, "idempotency_key" | "public_key" | "witness_key"),
                "{name}"
            );
        }
        command.get_subcommands().for_each(check);
    }
    check(&Cli::command());
}

#[test]
fn a_revocation_names_exactly_one_selection() {
    for line in [
        &["postern", "revoke", "--reason", "r"][..],
        &["postern", "revoke", "--all", "--user", "usr_1", "--reason", "r"],
        &["postern", "revoke", "--all"],
    ] {
        assert!(Cli::try_parse_from(line).is_err(), "{line:?}");
    }
}

#[tokio::test]
async fn a_vend_sends_what_the_protocol_says_and_prints_the_body() {
    let ran = ran(
        &VEND,
        &KEY,
        ok(json!({"mode": "execute", "status": 200, "body": {"n": 1}, "entry_id": "ent_1"})),
    )
    .await;
    assert_eq!(ran.exit, 0, "{}", ran.messages);
    assert_eq!(
        ran.seen,
        [(
            "POST".into(),
            "/v1/vend".into(),
            "Bearer psa_canary".into(),
            json!({"connector": "acme-mail", "user": "usr_1", "tool": "messages.list", "args": {"limit": 5}})
        )]
    );
    assert_eq!(ran.data, "{\n  \"n\": 1\n}\n");
    assert_eq!(ran.messages, "entry: ent_1\n");
}

#[tokio::test]
async fn refusals_have_typed_exit_codes() {
    type Make = fn() -> Problem;
    let link = || ConnectLink {
        session: ConnectSessionId::from_bytes([0; 16]),
        url: "https://p.example/connect/x".into(),
        expires_at: Time::from_unix_seconds(0),
    };
    let table: [(Make, u8); 12] = [
        (|| Problem::invalid("", "x"), 2),
        (
            || Problem::invalid_args(vec![FieldError::new("/args/to", "missing")]),
            2,
        ),
        (|| Problem::connection_required(None), 3),
        (|| Problem::reconnect_required(None), 3),
        (|| Problem::account_selection_required(Vec::new()), 3),
        (
            || {
                Problem::approval_pending(ApprovalLink {
                    id: ApprovalId::from_bytes([0; 16]),
                    url: "u".into(),
                    expires_at: Time::from_unix_seconds(0),
                })
            },
            4,
        ),
        (|| Problem::denied("recipient_outside_company", None, None), 5),
        (|| Problem::mode_unavailable(ModeSet::DEFAULT), 5),
        (|| Problem::revoked(GrantId::from_bytes([0; 16]), None), 6),
        (Problem::provider_unavailable, 7),
        (Problem::unauthenticated, 8),
        (Problem::store_unavailable, 1),
    ];
    for (make, exit) in table {
        let ran = ran(&VEND, &KEY, move |_| make().into_response()).await;
        assert_eq!(ran.exit, exit, "{}", ran.messages);
        assert_eq!(ran.data, "");
    }
    let ran = ran(&VEND, &KEY, move |_| {
        Problem::connection_required(Some(link())).into_response()
    })
    .await;
    assert!(
        ran.messages.contains("open: https://p.example/connect/x"),
        "{}",
        ran.messages
    );
}

#[tokio::test]
async fn with_json_a_refusal_is_its_document() {
    let line: Vec<&str> = VEND.into_iter().chain(["--json"]).collect();
    let ran = ran(&line, &KEY, |_| Problem::denied("r", None, None).into_response()).await;
    let document: Value = serde_json::from_str(&ran.messages).unwrap();
    assert_eq!(document["code"], "denied");
}

#[tokio::test]
async fn a_denied_decision_is_exit_5_and_an_escalation_4() {
    let line = ["decide", "acme-mail", "messages.list", "--user", "usr_1"];
    for (outcome, exit) in [("allow", 0), ("deny", 5), ("escalate", 4)] {
        assert_eq!(
            ran(&line, &KEY, ok(json!({"outcome": outcome, "reason": "r"})))
                .await
                .exit,
            exit
        );
    }
}

#[tokio::test]
async fn hostile_names_reach_the_terminal_harmless() {
    let item = json!({"id": "grt_1", "account": {"label": "a\u{1b}[31m\u{202e}b"}, "state": "active"});
    let ran = ran(
        &["grants", "list"],
        &KEY,
        ok(json!({"items": [item], "next": null})),
    )
    .await;
    assert!(
        ran.data.contains("grt_1") && !ran.data.contains('\u{1b}') && !ran.data.contains('\u{202e}'),
        "{:?}",
        ran.data
    );
}

#[tokio::test]
async fn lists_follow_their_pages() {
    let ran = ran(&["agents", "list", "--json", "--limit", "3"], &KEY, {
        let calls = Arc::new(Mutex::new(0));
        move |_| {
            let mut calls = calls.lock().unwrap();
            *calls += 1;
            ok(json!({"items": [{"id": format!("agt_{calls}")}], "next": format!("c{calls}")}))("")
        }
    })
    .await;
    assert_eq!(ran.data.lines().count(), 3);
    let paths: Vec<&str> = ran.seen.iter().map(|(_, path, ..)| path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/v1/agents?limit=3",
            "/v1/agents?limit=2&after=c1",
            "/v1/agents?limit=1&after=c2"
        ]
    );
}

#[tokio::test]
async fn a_revocation_counts_before_it_acts_and_needs_a_yes() {
    let line = ["revoke", "--agent", "agt_1", "--reason", "leaked"];
    let asked = ran(&line, &KEY, ok(json!({"counts": {"grants": 2}}))).await;
    assert_eq!(asked.exit, 2);
    assert_eq!(asked.seen.len(), 1);
    assert_eq!(
        asked.seen[0].3,
        json!({"selector": {"agent": "agt_1"}, "reason": "leaked", "dry_run": true})
    );
    assert!(asked.messages.contains("2 grants"), "{}", asked.messages);

    let line: Vec<&str> = line.into_iter().chain(["--yes"]).collect();
    let done = ran(&line, &KEY, ok(json!({"id": "rev_1"}))).await;
    assert_eq!(done.exit, 0);
    assert_eq!(
        done.seen[0].3,
        json!({"selector": {"agent": "agt_1"}, "reason": "leaked", "drain": false})
    );
}

#[tokio::test]
async fn a_key_is_made_for_exactly_one_owner_and_printed_once() {
    for (line, body) in [
        (&["keys", "create", "--admin"][..], json!({"kind": "admin"})),
        (
            &["keys", "create", "--agent", "agt_1"],
            json!({"kind": "agent", "owner": "agt_1"}),
        ),
        (
            &["keys", "create", "--service", "svc_1"],
            json!({"kind": "service", "owner": "svc_1"}),
        ),
    ] {
        let ran = ran(line, &KEY, ok(json!({"id": "key_1", "key": "psa_new"}))).await;
        assert_eq!(ran.exit, 0, "{}", ran.messages);
        assert_eq!(ran.seen.len(), 1);
        assert_eq!((ran.seen[0].1.as_str(), &ran.seen[0].3), ("/v1/keys", &body));
        assert_eq!(ran.data, "id: key_1\nkey: psa_new\n");
        assert!(!ran.messages.contains("psa_"), "{}", ran.messages);
    }
    for line in [
        &["postern", "keys", "create"][..],
        &["postern", "keys", "create", "--admin", "--agent", "agt_1"],
    ] {
        assert!(Cli::try_parse_from(line).is_err(), "{line:?}");
    }
}

#[tokio::test]
async fn ending_one_thing_shows_it_first_or_needs_a_yes() {
    for (line, path) in [
        (["keys", "revoke", "key_1"], "/v1/keys/key_1"),
        (["engines", "disable", "eng_1"], "/v1/engines/eng_1"),
        (["grants", "disconnect", "grt_1"], "/v1/grants/grt_1"),
    ] {
        let with = |flag: &'static str| -> Vec<&str> { line.into_iter().chain([flag]).collect() };
        let asked = ran(&line, &KEY, ok(json!({}))).await;
        assert_eq!((asked.exit, asked.seen.len()), (2, 0), "{}", asked.messages);
        let dry = ran(&with("--dry-run"), &KEY, ok(json!({"state": "active"}))).await;
        assert_eq!((dry.exit, dry.data.as_str()), (0, "state: active\n"));
        assert_eq!(dry.seen.len(), 1);
        assert_eq!((dry.seen[0].0.as_str(), dry.seen[0].1.as_str()), ("GET", path));
        let done = ran(&with("--yes"), &KEY, ok(json!({"state": "over"}))).await;
        assert_eq!(done.seen.len(), 1);
        assert_eq!(
            (done.seen[0].0.as_str(), done.seen[0].1.as_str()),
            ("DELETE", path)
        );
        assert_eq!((done.exit, done.data.as_str()), (0, "state: over\n"));
        let missing = ran(&with("--dry-run"), &KEY, |_| Problem::not_found().into_response()).await;
        assert_eq!(missing.exit, 1, "{}", missing.messages);
    }
}

#[tokio::test]
async fn lists_of_keys_and_engines_are_json_on_request() {
    for (noun, path) in [
        ("keys", "/v1/keys?limit=200"),
        ("engines", "/v1/engines?limit=200"),
    ] {
        let item = json!({"id": "x_1", "state": "active"});
        let ran = ran(
            &[noun, "list", "--json"],
            &KEY,
            ok(json!({"items": [item], "next": null})),
        )
        .await;
        assert_eq!((ran.exit, ran.seen[0].1.as_str()), (0, path));
        assert_eq!(serde_json::from_str::<Value>(&ran.data).unwrap(), item);
    }
}

#[tokio::test]
async fn ids_cannot_lead_to_another_path() {
    let ran = ran(&["grants", "show", "../agents?x=1"], &KEY, ok(json!({}))).await;
    assert_eq!(ran.seen[0].1, "/v1/grants/..%2Fagents%3Fx=1");
}

#[tokio::test]
async fn connecting_waits_for_the_person() {
    let ran = ran(&["connect", "acme-mail", "--user", "usr_1"], &KEY, |path| {
        if path == "/v1/connect-sessions" {
            ok(json!({"id": "con_1", "url": "https://p.example/c", "expires_at": "soon"}))("")
        } else {
            ok(json!({"status": "completed", "grant": "grt_1"}))("")
        }
    })
    .await;
    assert_eq!(ran.exit, 0, "{}", ran.messages);
    assert_eq!(ran.seen[0].3, json!({"connector": "acme-mail", "user": "usr_1"}));
    assert_eq!(ran.seen[1].1, "/v1/connect-sessions/con_1?wait=50");
    assert!(ran.data.contains("grt_1") && ran.messages.contains("https://p.example/c"));
}

#[tokio::test]
async fn a_key_is_never_sent_in_the_clear_to_another_machine() {
    let cli = Cli::try_parse_from(["postern", "--url", "http://postern.example", "agents", "list"]).unwrap();
    let error = client::Client::new(&cli.global, &BTreeMap::new()).unwrap_err();
    assert_eq!(error.exit(), Exit::Usage);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_plain_failure_with_a_hint() {
    let cli = Cli::try_parse_from(["postern", "--url", "http://127.0.0.1:1", "agents", "list"]).unwrap();
    let style = Style {
        json: false,
        quiet: false,
        colour: false,
        may_ask: false,
        to_terminal: false,
        messages_to_terminal: false,
    };
    let mut output = Output::new(
        style,
        Box::new(Captured::default()),
        Box::new(Captured::default()),
    );
    let error = run(cli, &BTreeMap::new(), &mut output).await.unwrap_err();
    assert_eq!(error.exit(), Exit::Failure);
    assert!(error.to_string().contains("is it running"), "{error}");
}
