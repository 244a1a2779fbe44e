//! Copies of the log: at least once, in order, whatever the receiver and the process do meanwhile; never a secret.

mod apart;
mod ocsf;
mod turns;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use http::{HeaderMap, StatusCode};
use postern::{
    audit::sinks::{FileSink, Form, OtlpSink, Sink, WebhookSink},
    crypto::{lookup::show_link, random::parse_link_token, webhook::WebhookKey},
    egress::{Webhook, operator_client},
    flows::{Refusal, audit, found, login, sequence, sinks},
};
use serde_json::{Value, json};

use super::{
    harness::{Journey, World, ask},
    shared::loopback,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A receiver on loopback that answers 503 to every second request it gets.
#[derive(Default)]
struct Receiver {
    got: Mutex<Vec<(HeaderMap, Value)>>,
    refused: AtomicUsize,
    asked: AtomicUsize,
}

impl Receiver {
    async fn start() -> (Arc<Self>, url::Url) {
        let receiver = Arc::new(Self::default());
        let app = Router::new()
            .route("/in", post(Self::take))
            .with_state(Arc::clone(&receiver));
        let (listener, origin) = loopback::listen().await;
        // Not as Postern is served: a batch is larger than a request to Postern may be.
        tokio::spawn(async move { axum::serve(listener, app).await });
        (receiver, format!("{origin}/in").parse().unwrap())
    }

    async fn take(
        State(this): State<Arc<Self>>,
        headers: HeaderMap,
        body: Bytes,
    ) -> (StatusCode, &'static str) {
        let taken = (headers, serde_json::from_slice(&body).unwrap());
        // An even request is heard and answered as if it was not: the worst a receiver can do.
        this.got.lock().unwrap().push(taken);
        if this.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            this.refused.fetch_add(1, Ordering::Relaxed);
            return (StatusCode::SERVICE_UNAVAILABLE, "");
        }
        (StatusCode::OK, r#"{"partialSuccess":{}}"#)
    }

    fn bodies(&self) -> Vec<Value> {
        let got = self.got.lock().unwrap();
        got.iter().map(|(_, body)| body.clone()).collect()
    }
}

/// The log as the database has it.
async fn log(world: &World) -> Vec<String> {
    sequence::run(&world.deps, world.org).await.unwrap();
    let log = audit::log_page(&world.deps, world.org, 0, 10_000).await.unwrap();
    log.into_iter().map(|(_, entry)| entry).collect()
}

async fn until_up_to_date(world: &World, sink: &dyn Sink) {
    for _ in 0..50 {
        if matches!(sinks::drain(&world.deps, sink).await, Ok(0)) {
            return;
        }
    }
    panic!("{} never came up to date", sink.name());
}

/// What opens Postern to a person: links to sign in, followed and not, a session, and of a connect under way its link and
/// what binds it to a browser.
async fn opened_to_people(world: &World) -> Vec<String> {
    let link = async || {
        let link = login::make_link(&world.deps, world.org, world.ada, "test".to_owned()).await;
        link.unwrap().url.rsplit('/').next().unwrap().to_owned()
    };
    let (unfollowed, followed) = (link().await, link().await);
    let token = parse_link_token(&followed).unwrap();
    let session = login::enter(&world.deps, &token).await.unwrap();
    let journey = Journey::begin(world, world.ada, None).await;
    let [session, connect, browser] = [&session, &journey.link, &journey.cookie].map(show_link);
    vec![unfollowed, followed, session, connect, browser]
}

/// Grows the log, copies it, restarts, grows and copies again. With what opened Postern to people meanwhile.
async fn run(make: impl Fn(&World) -> Arc<dyn Sink>) -> (World, Vec<String>, Vec<String>) {
    let (world, grant) = World::connected().await;
    let opened = opened_to_people(&world).await;
    let canary = json!({"q": "canary-in-the-arguments"});
    world.vend(ask(grant, "messages.list", canary)).await.unwrap();
    log(&world).await;
    until_up_to_date(&world, &*make(&world)).await;
    let world = world.restarted().await;
    for _ in 0..120 {
        world.vend(world.read(grant)).await.unwrap();
    }
    log(&world).await;
    // It dies after the first batch of these.
    let _some = sinks::drain(&world.deps, &*make(&world)).await;
    let world = world.restarted().await;
    until_up_to_date(&world, &*make(&world)).await;
    let log = log(&world).await;
    (world, log, opened)
}

/// At least once and in order: without what came again, exactly the log.
fn at_least_once_in_order(got: &[(u64, String)], log: &[String]) {
    let mut next = 0_u64;
    for (index, entry) in got {
        assert!(*index <= next, "{index} came before {next}");
        assert_eq!(entry, &log[*index as usize], "{index}");
        next = next.max(index + 1);
    }
    assert_eq!(next, log.len() as u64);
}

/// What was asked, what opens Acme Mail, and what opens Postern to programs and people.
fn no_secret_is_in(text: &str, world: &World, opened: &[String]) {
    let secrets = [
        "canary-in-the-arguments",
        "acme_at_",
        "acme_rt_",
        "acme_ac_",
        &world.service_key,
        &world.agent_key,
        &world.admin_key,
        SECRET,
    ];
    for secret in secrets.into_iter().chain(opened.iter().map(String::as_str)) {
        assert!(!text.contains(secret), "{secret} is in a copy of the log");
    }
}

#[tokio::test]
async fn a_file_holds_the_log_line_by_line_across_restarts_and_half_lines() {
    let path = |world: &World| world.dir.path().join("copy.jsonl");
    let (world, log, opened) = run(|world| {
        // What a crash in the middle of a line leaves behind.
        if let Ok(mut file) = std::fs::OpenOptions::new().append(true).open(path(world)) {
            std::io::Write::write_all(&mut file, b"{\"entry\":{\"acc").unwrap();
        }
        Arc::new(FileSink::new("copy".to_owned(), path(world), Form::Entries))
    })
    .await;
    let text = std::fs::read_to_string(path(&world)).unwrap();
    let text = text.strip_suffix("{\"entry\":{\"acc").unwrap_or(&text);
    let expected: Vec<String> = log
        .iter()
        .enumerate()
        .map(|(index, entry)| format!("{{\"entry\":{entry},\"index\":{index}}}"))
        .collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    no_secret_is_in(text, &world, &opened);
}

#[tokio::test]
async fn a_file_that_cannot_be_written_moves_no_cursor() {
    let (world, _) = World::connected().await;
    let log = log(&world).await;
    let path = world.dir.path().join("copies/log.jsonl");
    let sink = FileSink::new("copy".to_owned(), path.clone(), Form::Entries);
    assert!(sinks::drain(&world.deps, &sink).await.is_err());
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    assert_eq!(sinks::drain(&world.deps, &sink).await.unwrap(), log.len());
    assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), log.len());
}

#[tokio::test]
async fn a_file_that_somebody_keeps_locked_is_given_up_for_this_look() {
    let (world, _) = World::connected().await;
    let log = log(&world).await;
    let path = world.dir.path().join("log.jsonl");
    let sink = FileSink::new("copy".to_owned(), path.clone(), Form::Entries);
    // A replica on this host that was stopped while it wrote.
    let stopped = std::fs::File::create(&path).unwrap();
    stopped.lock().unwrap();
    let look = tokio::time::timeout(Duration::from_secs(10), sinks::drain(&world.deps, &sink)).await;
    let refused = look.expect("it waits for ever");
    assert!(
        matches!(refused, Err(Refusal::ProviderUnavailable)),
        "{refused:?}"
    );
    drop(stopped);
    assert_eq!(sinks::drain(&world.deps, &sink).await.unwrap(), log.len());
    assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), log.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_for_a_file_that_was_moved_away_goes_to_the_new_one() {
    let (world, _) = World::connected().await;
    let log = log(&world).await;
    let path = world.dir.path().join("log.jsonl");
    let sink = FileSink::new("copy".to_owned(), path.clone(), Form::Entries);
    let other = std::fs::File::create(&path).unwrap();
    other.lock().unwrap();
    let rotate = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        std::fs::rename(&path, path.with_extension("1")).unwrap();
        drop(other);
    };
    let (taken, ()) = tokio::join!(sinks::drain(&world.deps, &sink), rotate);
    assert_eq!(taken.unwrap(), log.len());
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), log.len());
}

#[tokio::test]
async fn a_stop_leaves_the_rest_of_a_log_to_the_next_start() {
    let (world, _) = World::connected().await;
    log(&world).await;
    let path = world.dir.path().join("log.jsonl");
    let sink = FileSink::new("copy".to_owned(), path.clone(), Form::Entries);
    world.deps.uncut.stop();
    assert_eq!(sinks::drain(&world.deps, &sink).await.unwrap(), 0);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_log_that_cannot_be_read_holds_up_no_other() {
    let (world, _) = World::connected().await;
    let second = found::found(&world.deps, "Second", "eve@second.example")
        .await
        .unwrap();
    for org in [world.org, second.org] {
        sequence::run(&world.deps, org).await.unwrap();
    }
    // Logs are copied in the order of their orgs.
    let (broken, whole) = (world.org.min(second.org), world.org.max(second.org));
    let spoil = format!(
        "UPDATE entries SET bytes = '{{}}' WHERE org_id = '{broken}' AND id IN
         (SELECT entry_id FROM leaves WHERE org_id = '{broken}' AND log_index = 0)"
    );
    world.raw_sql(&spoil).await;
    let path = world.dir.path().join("ocsf.jsonl");
    let sink = FileSink::new("ocsf".to_owned(), path.clone(), Form::Ocsf);
    let log = audit::log_page(&world.deps, whole, 0, 10_000).await.unwrap();
    assert_eq!(sinks::drain(&world.deps, &sink).await.unwrap(), log.len());
    assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), log.len());
}

#[tokio::test]
async fn a_webhook_gets_every_entry_signed_though_it_fails_half_the_time() {
    let (receiver, url) = Receiver::start().await;
    let (world, log, opened) = run(|_| {
        let key = WebhookKey::parse(SECRET).unwrap();
        let client = operator_client().unwrap();
        Arc::new(WebhookSink::new(
            "hook".to_owned(),
            Webhook::new(url.clone(), key, client),
        ))
    })
    .await;
    assert!(receiver.refused.load(Ordering::Relaxed) > 1);
    let mut got = Vec::new();
    for body in receiver.bodies() {
        assert_eq!(body["type"], "audit.entries");
        assert_eq!(body["data"]["org"], world.org.to_string());
        for one in body["data"]["entries"].as_array().unwrap() {
            let index = one["index"].as_u64().unwrap();
            // JSON values compare; the bytes are checked by the signature and by the index.
            let entry: Value = serde_json::from_str(&log[index as usize]).unwrap();
            assert_eq!(one["entry"], entry);
            got.push((index, log[index as usize].clone()));
        }
        no_secret_is_in(&body.to_string(), &world, &opened);
    }
    at_least_once_in_order(&got, &log);
    let ids: Vec<String> = receiver
        .got
        .lock()
        .unwrap()
        .iter()
        .map(|(headers, _)| headers["webhook-id"].to_str().unwrap().to_owned())
        .collect();
    // What comes again as the same batch has the same id.
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_that_copy_side_by_side_give_every_entry_in_order_and_a_file_of_its_own_name_is_whole() {
    let (receiver, url) = Receiver::start().await;
    let (world, grant) = World::connected().await;
    for _ in 0..250 {
        world.vend(world.read(grant)).await.unwrap();
    }
    let log = log(&world).await;
    // As three replicas do: the receiver is one, the files are theirs.
    let mut replicas = tokio::task::JoinSet::new();
    for replica in 0..3 {
        let (deps, url) = (Arc::clone(&world.deps), url.clone());
        let path = world.dir.path().join(format!("{replica}.jsonl"));
        replicas.spawn(async move {
            let key = WebhookKey::parse(SECRET).unwrap();
            let hook = Webhook::new(url, key, operator_client().unwrap());
            let hook = WebhookSink::new("hook".to_owned(), hook);
            // Every second request is refused.
            while !matches!(sinks::drain(&deps, &hook).await, Ok(0)) {}
            let file = FileSink::new(format!("file-{replica}"), path.clone(), Form::Entries);
            sinks::drain(&deps, &file).await.unwrap();
            std::fs::read_to_string(path).unwrap().lines().count()
        });
    }
    while let Some(lines) = replicas.join_next().await {
        assert_eq!(lines.unwrap(), log.len());
    }
    let mut got = Vec::new();
    for body in receiver.bodies() {
        for one in body["data"]["entries"].as_array().unwrap() {
            let index = one["index"].as_u64().unwrap();
            got.push((index, log[index as usize].clone()));
        }
    }
    assert!(got.len() > log.len(), "nothing came twice");
    at_least_once_in_order(&got, &log);
}

#[tokio::test]
async fn a_webhooks_signature_holds_over_the_bytes_that_came() {
    let seen: Arc<Mutex<Option<(HeaderMap, Bytes)>>> = Arc::default();
    let keep = Arc::clone(&seen);
    let app = Router::new().route(
        "/in",
        post(move |headers: HeaderMap, body: Bytes| async move {
            *keep.lock().unwrap() = Some((headers, body));
            StatusCode::NO_CONTENT
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: url::Url = format!("http://{}/in", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let (world, _) = World::connected().await;
    log(&world).await;
    let key = || WebhookKey::parse(SECRET).unwrap();
    let receiver = Webhook::new(url, key(), operator_client().unwrap());
    let sink = WebhookSink::new("hook".to_owned(), receiver);
    sinks::drain(&world.deps, &sink).await.unwrap();
    let (headers, body) = seen.lock().unwrap().clone().unwrap();
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    let seconds = text("webhook-timestamp").parse().unwrap();
    assert_eq!(
        text("webhook-signature"),
        key().sign(&text("webhook-id"), seconds, &body)
    );
}

#[tokio::test]
async fn a_collector_gets_every_entry_as_a_log_record() {
    let (receiver, url) = Receiver::start().await;
    let (world, log, opened) = run(|_| {
        Arc::new(OtlpSink::new(
            "otlp".to_owned(),
            url.clone(),
            operator_client().unwrap(),
        ))
    })
    .await;
    let mut got = Vec::new();
    for body in receiver.bodies() {
        no_secret_is_in(&body.to_string(), &world, &opened);
        let resource = &body["resourceLogs"][0];
        assert!(resource["resource"].to_string().contains(&world.org.to_string()));
        for record in resource["scopeLogs"][0]["logRecords"].as_array().unwrap() {
            let attribute = |name: &str| {
                let list = record["attributes"].as_array().unwrap().iter();
                list.filter(|one| one["key"] == name)
                    .map(|one| one["value"].clone())
                    .next()
            };
            let index = attribute("postern.index").unwrap()["intValue"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap();
            assert!(record["timeUnixNano"].as_str().unwrap().parse::<u64>().unwrap() > 0);
            got.push((index, record["body"]["stringValue"].as_str().unwrap().to_owned()));
        }
    }
    at_least_once_in_order(&got, &log);
}
