//! I7: what was planted is found in no file, no log line, no problem and no export. The scan is proved on a plant of
//! its own first.

use std::{
    io::Write,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use postern::{crypto::digest::hex, domain::connector::Category};
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use super::harness::{Answer, World, database};

/// Everything logged in this process, by whichever test.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Log {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

/// Where a marker stands in plain, as hex, or inside Base64 at any of its three alignments.
fn found(haystack: &[u8], marker: &str) -> Option<String> {
    let mut forms = vec![("plain", marker.to_owned()), ("hex", hex(marker.as_bytes()))];
    for shift in 0..3 {
        let coded = STANDARD.encode([&b"xxx"[..shift], marker.as_bytes()].concat());
        // Only what no neighbour can change.
        let inner = coded.trim_end_matches('=');
        let inner = &inner[[0, 2, 3][shift]..inner.len() - 1];
        forms.push(("base64", inner.to_owned()));
    }
    // Markers are ASCII: what is not UTF-8 around them does not matter.
    let text = String::from_utf8_lossy(haystack);
    forms
        .into_iter()
        .find(|(_, form)| text.contains(form.as_str()))
        .map(|(name, _)| name.to_owned())
}

fn files_below(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    files
}

#[test]
fn the_scan_finds_a_plant_in_every_form() {
    let marker = "canary-in-a-cage-0123456789";
    let basic = STANDARD.encode(format!("client:{marker}"));
    for text in [
        format!("a {marker} b"),
        hex(format!("a{marker}").as_bytes()),
        STANDARD.encode(format!("{marker}!")),
        STANDARD.encode(format!("1{marker}!")),
        basic,
    ] {
        assert!(found(text.as_bytes(), marker).is_some(), "{text}");
    }
    assert!(found(b"canary-in-a-cage", marker).is_none());
}

#[tokio::test]
async fn nothing_postern_writes_or_answers_holds_a_planted_secret() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    tracing::info!("the log is being read");

    let (world, answers, exports, mut markers) = run().await;
    // The prefixes of every token and code the provider mints: no bytes of ours begin so.
    markers.extend(["acme_at_", "acme_rt_", "acme_ac_"].map(str::to_owned));
    let mut places = files_below(world.dir.path());
    let database = database::contents(&world.location).await;
    assert!(database.iter().any(|(_, bytes)| !bytes.is_empty()));
    places.extend(database);
    places.push(("the log".to_owned(), log.bytes()));
    for (index, answer) in answers.iter().enumerate() {
        assert!(
            answer.status >= 400,
            "answer {index} is no problem: {}",
            answer.text()
        );
        let headers = format!("{:?}", answer.headers);
        places.push((
            format!("problem {index}"),
            [headers.as_bytes(), &answer.body].concat(),
        ));
    }
    for (index, export) in exports.into_iter().enumerate() {
        places.push((format!("export {index}"), export));
    }
    assert!(
        String::from_utf8_lossy(&log.bytes()).contains("the log is being read"),
        "the log was not read"
    );
    for (name, bytes) in &places {
        for marker in &markers {
            assert_eq!(found(bytes, marker), None, "{marker} in {name}");
        }
    }
}

/// A run that touches everything, with markers wherever a secret or a person's words can be.
async fn run() -> (World, Vec<Answer>, Vec<Vec<u8>>, Vec<String>) {
    let marker = |what: &str| format!("canary{what}5b1f0c77e2d94a68");
    let world = World::new().await;
    let (api, agent, admin) = (world.api(), world.as_agent(), world.as_admin());

    // A client secret, replaced afterwards by the client that works.
    let secret = marker("client");
    world
        .apply(&json!({"connector": {"acme-mail": {"client_id": "x", "client_secret": secret}}}))
        .await;
    world
        .apply(&json!({"connector": {"acme-mail": {"client_id": postern::dev::acme_mail::DEMO_CLIENT_ID}}}))
        .await;
    let broken =
        format!("[connector.acme-mail]\nclient_id = \"x\"\nclient_secret = \"{secret}\"\nclient_secret = 1");
    let mut problems = vec![api.post(&admin, "/v1/apply", &json!({"toml": broken})).await];

    let grant = world.connect(world.ada, &[Category::Read, Category::Write]).await;
    let vend = async |body: &Value| api.post(&agent, "/v1/vend", body).await;
    let list = |q: &str| json!({"grant": grant, "tool": "messages.list", "args": {"q": q}});

    let (query, text, claimed) = (marker("query"), marker("text"), marker("claimed"));
    let mut body = list(&query);
    body["context"] = json!({"note": claimed});
    let answer = vend(&body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sent = json!({"grant": grant, "tool": "messages.send", "args": {"to": ["ben@acme.example"], "subject": text, "body": text}});
    let answer = vend(&sent).await;
    assert_eq!(answer.status, 200, "{}", answer.text());

    // A token that left, a refresh that rotated, and both again afterwards.
    let mut token = list(&query);
    token["mode"] = json!("token");
    let mut markers = vec![secret, query.clone(), text.clone(), claimed];
    for _ in 0..2 {
        let answer = vend(&token).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        markers.push(answer.json()["access_token"].as_str().unwrap().to_owned());
        world.later(Duration::from_secs(3700));
        assert_eq!(vend(&list(&query)).await.status, 200);
    }

    // Every kind of "no", each with a marker inside.
    let outside = json!({"grant": grant, "tool": "messages.send", "args": {"to": ["eve@else.example"], "subject": text, "body": text}});
    let mut unknown = list(&query);
    unknown["args"]["nope"] = json!(text);
    let mut wide = list(&query);
    wide["mode"] = json!("handle");
    let mut forged = list(&query);
    forged["decision"] = json!(text);
    let mut surprise = list(&query);
    surprise["surprise"] = json!(text);
    for body in [outside, unknown, wide, forged, surprise, list(&"é".repeat(600))] {
        problems.push(vend(&body).await);
    }
    world
        .fault(json!({"next": "api", "status": 500, "body": format!("{{\"error\":\"{text}\"}}"), "times": 1}))
        .await;
    vend(&list(&query)).await;
    world.later(Duration::from_secs(3700));
    world
        .fault(json!({"next": "token", "status": 400, "body": format!("{{\"error\":\"invalid_grant\",\"error_description\":\"{text}\"}}"), "times": 3}))
        .await;
    problems.push(vend(&list(&query)).await);
    let wrong = super::harness::Proof::Key(format!("psa_{text}"));
    problems.push(api.get(&wrong, "/v1/grants").await);
    problems.push(api.get(&admin, &format!("/v1/grants/{text}")).await);
    problems.push(api.get(&admin, &format!("/v1/grants?user={text}")).await);
    markers.extend([
        world.admin_key.clone(),
        world.agent_key.clone(),
        world.service_key.clone(),
    ]);

    let mut exports = Vec::new();
    for path in ["/v1/audit/checkpoint", "/v1/audit/log?limit=500"] {
        let answer = api.get(&admin, path).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        exports.push(answer.body);
    }
    drop(api);
    (world, problems, exports, markers)
}
