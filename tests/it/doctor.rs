//! `postern doctor`, the program itself, against a real server that is well and against ones that are not.

use std::{process::Command, sync::Arc, time::Duration};

use axum::{Router, http::header, middleware::map_response, response::Response};
use postern::{
    app::ready::Prober,
    crypto::lookup::show_api_key,
    domain::connector::Category,
    flows::{Deps, found},
    http::{
        router,
        routes::health::{self, Readiness},
        security::Site,
    },
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{harness::World, shared::loopback};

/// Where the API and the probes of a deployment answer. The Host is that of the listener.
struct Served {
    url: String,
    ops: String,
}

impl Served {
    async fn of(deps: &Arc<Deps>) -> Self {
        Self::by(deps, |app| app).await
    }

    /// With something between the router and whoever asks.
    async fn by(deps: &Arc<Deps>, between: impl FnOnce(Router) -> Router) -> Self {
        let (api, url) = loopback::listen().await;
        let (probes, ops) = loopback::listen().await;
        let site = Site::new(&url.parse().unwrap()).unwrap();
        let app = between(router::app(Arc::clone(deps), site));
        let obstacles = Prober::new(Arc::clone(deps)).obstacles().await;
        let (sender, readiness) = watch::channel(Readiness { obstacles });
        for (listener, app) in [(api, app), (probes, health::routes(readiness))] {
            tokio::spawn(loopback::serve(listener, app));
        }
        // What was found stays what the probes say.
        std::mem::forget(sender);
        Self { url, ops }
    }
}

/// What the doctor said, line by line, and its exit code.
struct Said {
    exit: i32,
    lines: Vec<Value>,
}

impl Said {
    /// The one line about `check`.
    fn line(&self, check: &str) -> &Value {
        let mut found = self.lines.iter().filter(|line| line["check"] == check);
        let line = found
            .next()
            .unwrap_or_else(|| panic!("{check}: {:?}", self.lines));
        assert!(found.next().is_none(), "{check} twice: {:?}", self.lines);
        line
    }

    /// Asserts that the one line about `check` is wrong or a warning, says so, and says what to do.
    fn assert_finds(&self, check: &str, result: &str, found: &str, fix: &str) {
        let line = self.line(check);
        assert_eq!(line["result"], result, "{line}");
        assert!(line["found"].as_str().unwrap().contains(found), "{line}");
        assert!(line["fix"].as_str().unwrap().contains(fix), "{line}");
        assert_eq!(
            self.exit == 1,
            self.lines.iter().any(|line| line["result"] == "wrong")
        );
    }

    fn assert_well_but_for(&self, checks: &[&str]) {
        for line in &self.lines {
            if !checks.contains(&line["check"].as_str().unwrap()) {
                assert_eq!(line["result"], "ok", "{line}");
            }
        }
    }
}

async fn doctor(url: &str, ops: Option<&str>, key: Option<&str>) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    command.env_clear().args(["--url", url, "--json", "doctor"]);
    if let Some(ops) = ops {
        command.args(["--ops-url", ops]);
    }
    if let Some(key) = key {
        command.env("POSTERN_API_KEY", key);
    }
    // Each of its requests has a limit of its own, so that it comes to an end.
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for key in key.into_iter().filter(|key| key.len() > 20) {
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(
            !text.contains(key) && !messages.contains(key),
            "the key was shown"
        );
    }
    Said {
        exit: output.status.code().unwrap(),
        lines: text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    }
}

async fn asked(world: &World) -> Said {
    let served = Served::of(&world.deps).await;
    doctor(&served.url, Some(&served.ops), Some(&world.admin_key)).await
}

#[tokio::test]
async fn a_deployment_that_is_well_is_said_to_be() {
    let (world, _) = World::connected().await;
    let said = asked(&world).await;
    said.assert_well_but_for(&[]);
    assert_eq!(said.exit, 0);
    let checks: Vec<&str> = said
        .lines
        .iter()
        .map(|line| line["check"].as_str().unwrap())
        .collect();
    let all = [
        "server",
        "replica",
        "version",
        "clock",
        "api key",
        "policies",
        "agents",
        "connectors",
        "grants",
        "upstream",
        "log",
    ];
    assert_eq!(checks, all);
    let org = world.org.to_string();
    assert!(said.line("api key")["found"].as_str().unwrap().contains(&org));
}

/// Most entries of a deployment are older than the log may take.
#[tokio::test]
async fn entries_older_than_a_minute_are_well_if_they_have_their_place() {
    let (world, _) = World::connected().await;
    let now = chrono::DateTime::from_timestamp_micros(world.deps.clock.now().unix_micros()).unwrap();
    let later = (now + Duration::from_mins(5))
        .format("%a, %d %b %Y %H:%M:%S GMT")
        .to_string();
    let dated = |app: Router| app.layer(map_response(move |answer: Response| dated(answer, later.clone())));
    let served = Served::by(&world.deps, dated).await;
    let asked = || doctor(&served.url, Some(&served.ops), Some(&world.admin_key));
    asked()
        .await
        .assert_finds("log", "wrong", "has waited for its place", "sequencer");
    // The look at the head has brought it up to date.
    let said = asked().await;
    said.assert_well_but_for(&["clock"]);
}

/// The answer of a server whose clock says so.
async fn dated(mut answer: Response, now: String) -> Response {
    answer.headers_mut().insert(header::DATE, now.parse().unwrap());
    answer
}

#[tokio::test]
async fn a_server_that_is_not_there_is_wrong() {
    let (listener, url) = loopback::listen().await;
    drop(listener);
    let said = doctor(&url, Some(&url), None).await;
    said.assert_finds("server", "wrong", "is it running", "start it");
    said.assert_finds("replica", "wrong", "is it running", "--ops-url");
    assert_eq!((said.exit, said.lines.len()), (1, 2));
}

#[tokio::test]
async fn another_program_at_the_address_is_wrong() {
    let world = World::new().await;
    let said = doctor(&world.acme, None, Some(&world.admin_key)).await;
    said.assert_finds("server", "wrong", "something else than Postern", "--url");
    said.assert_finds("replica", "unknown", "not asked", "--ops-url");
}

#[tokio::test]
async fn a_name_the_server_does_not_go_by_is_wrong() {
    let world = World::new().await;
    let served = Served::of(&world.deps).await;
    let other = served.url.replace("127.0.0.1", "localhost");
    let said = doctor(&other, None, Some(&world.admin_key)).await;
    said.assert_finds("server", "wrong", "status 4", "public_url");
    assert_eq!(said.exit, 1);
}

#[tokio::test]
async fn a_key_that_is_none_or_is_not_accepted_is_wrong() {
    let world = World::new().await;
    let served = Served::of(&world.deps).await;
    let mut cut = world.admin_key.clone();
    cut.pop();
    let other = World::new().await;
    for (key, found) in [
        (None, "none given"),
        (Some(cut.as_str()), "not a key"),
        (Some(other.admin_key.as_str()), "not accepted"),
    ] {
        let said = doctor(&served.url, Some(&served.ops), key).await;
        said.assert_finds("api key", "wrong", found, "active");
        said.assert_well_but_for(&["api key"]);
        assert_eq!(said.exit, 1);
    }
}

#[tokio::test]
async fn a_key_of_an_agent_or_a_host_is_told_what_it_cannot_see() {
    let world = World::new().await;
    let served = Served::of(&world.deps).await;
    for (key, kind) in [(&world.agent_key, "agent"), (&world.service_key, "service")] {
        let said = doctor(&served.url, Some(&served.ops), Some(key)).await;
        assert!(said.line("api key")["found"].as_str().unwrap().contains(kind));
        said.assert_finds("policies", "unknown", "for admin keys", "psd_");
        said.assert_well_but_for(&["policies"]);
        assert_eq!(said.exit, 0);
    }
}

#[tokio::test]
async fn a_key_file_that_is_gone_is_an_obstacle_with_its_own_words() {
    let world = World::new().await;
    std::fs::remove_file(world.dir.path().join("kek")).unwrap();
    let said = asked(&world).await;
    said.assert_finds("replica", "wrong", "keys:", "key file");
    assert_eq!(said.exit, 1);
}

#[tokio::test]
async fn an_org_in_which_nothing_was_set_up_is_told_what_is_missing() {
    let world = World::new().await;
    let founded = found::found(&world.deps, "Empty", "eve@empty.example")
        .await
        .unwrap();
    let served = Served::of(&world.deps).await;
    let key = show_api_key(&founded.admin_key);
    let said = doctor(&served.url, Some(&served.ops), Some(&key)).await;
    said.assert_finds("policies", "wrong", "everything is denied", "postern apply");
    said.assert_finds("agents", "warning", "none is active", "[[agent]]");
    said.assert_finds("connectors", "warning", "none is configured", "client_id");
    said.assert_well_but_for(&["policies", "agents", "connectors"]);
    assert_eq!(said.exit, 1);
}

#[tokio::test]
async fn a_client_without_the_secret_its_server_demands_is_wrong() {
    let world = World::new().await;
    world
        .apply(&json!({"connector": {"github": {"client_id": "abc"}}}))
        .await;
    let said = asked(&world).await;
    said.assert_finds("connectors", "wrong", "github", "client_secret_env");
    assert_eq!(said.exit, 1);
}

#[tokio::test]
async fn connections_without_a_client_are_wrong() {
    let (world, _) = World::connected().await;
    world.raw_sql("DELETE FROM connector_clients").await;
    let said = asked(&world).await;
    let about: Vec<&Value> = said
        .lines
        .iter()
        .filter(|line| line["check"] == "connectors")
        .collect();
    assert!(
        about.iter().any(|line| line["result"] == "wrong"
            && line["found"]
                .as_str()
                .unwrap()
                .contains("acme-mail has connections and no client")),
        "{about:?}"
    );
    assert_eq!(said.exit, 1);
}

#[tokio::test]
async fn a_connection_that_waits_for_its_person_is_a_warning() {
    let (world, grant) = World::connected().await;
    world
        .raw_sql("UPDATE grants SET state = 'needs_reconnect', state_reason = 'refresh_token_dead'")
        .await;
    let said = asked(&world).await;
    said.assert_finds("grants", "warning", &grant.to_string(), "postern connect");
    assert_eq!(said.exit, 0);
}

#[tokio::test]
async fn a_revocation_that_never_reaches_its_provider_is_wrong() {
    let (world, first) = World::connected().await;
    let second = world.connect(world.ada, &[Category::Read]).await;
    for grant in [first, second] {
        let body = json!({"selector": {"grant": grant}, "reason": "test"});
        let answer = world
            .api()
            .post(&world.as_admin(), "/v1/revocations", &body)
            .await;
        assert!(answer.status == 200 || answer.status == 410, "{}", answer.text());
    }
    // The worker, but no provider: the tombstones are there, and nobody has answered for an hour.
    postern::flows::upstream::fan_out(&world.deps).await.unwrap();
    world.raw_sql("UPDATE floors SET at = 1000000").await;
    let said = asked(&world).await;
    said.assert_finds("upstream", "wrong", "have not reached their provider", "log");
    assert_eq!(said.exit, 1);
}

#[tokio::test]
async fn a_checkpoint_that_does_not_hold_is_wrong() {
    let (world, _) = World::connected().await;
    let served = Served::of(&world.deps).await;
    assert_eq!(doctor(&served.url, None, Some(&world.admin_key)).await.exit, 0);
    world
        .raw_sql("UPDATE logs SET checkpoint = replace(checkpoint, 'writer r1', 'writer r9')")
        .await;
    let said = doctor(&served.url, None, Some(&world.admin_key)).await;
    said.assert_finds("log", "wrong", "does not hold", "postern audit verify");
    assert_eq!(said.exit, 1);
}
