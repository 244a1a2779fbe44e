//! Copies of the log, `kill -9` between a delivery and the cursor that knows of it: every entry comes at least once and in
//! order, and what comes twice comes from the cursor on.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use postern::{failpoints::Failpoint, store::Location};
use serde_json::Value;

use crate::{
    provider::Rotation,
    rows::scalar,
    served::{COPY, Copies, Setup},
    server::{Server, call},
    shared::loopback,
};

/// Entries as a receiver got them, by index and as hashed.
type Got = Vec<(u64, Value)>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_gets_every_entry_in_order_though_the_process_dies_before_its_cursor_moves() {
    let server = Server::connected(Rotation::Grace).await;
    let file = server.dir().join(COPY);
    let got = move || -> Got {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        // A line that is being written has no end yet.
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| indexed(&serde_json::from_str(line).unwrap()))
            .collect()
    };
    killed_over_deliveries(server, Copies::File, got).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_gets_every_entry_in_order_though_the_process_dies_before_its_cursor_moves() {
    let server = Server::connected(Rotation::Grace).await;
    let bodies: Arc<Mutex<Vec<Value>>> = Arc::default();
    let app = Router::new()
        .route("/in", post(take))
        .with_state(Arc::clone(&bodies));
    let (listener, origin) = loopback::listen().await;
    tokio::spawn(async move { axum::serve(listener, app).await });
    let got = move || -> Got {
        let bodies = bodies.lock().unwrap();
        let entries = bodies
            .iter()
            .flat_map(|body| body["data"]["entries"].as_array().unwrap());
        entries.map(indexed).collect()
    };
    killed_over_deliveries(server, Copies::Webhook(format!("{origin}/in")), got).await;
}

async fn take(State(bodies): State<Arc<Mutex<Vec<Value>>>>, body: Bytes) -> &'static str {
    bodies
        .lock()
        .unwrap()
        .push(serde_json::from_slice(&body).unwrap());
    "taken"
}

fn indexed(one: &Value) -> (u64, Value) {
    (one["index"].as_u64().unwrap(), one["entry"].clone())
}

async fn killed_over_deliveries(mut server: Server, copies: Copies, got: impl Fn() -> Got) {
    server.kill();
    server.set_up(|setup| Setup {
        copies: Some(copies),
        ..setup
    });
    server.start_again().await;
    let mut cursors = Vec::new();
    for round in 0..ROUNDS {
        server.order(Failpoint::SinkDelivered, "kill");
        // What is delivered at the latest; whether it is answered does not matter.
        let _answer = server.read().await;
        server.until_dead().await;
        assert!(server.was_reached(), "round {round}: it died of something else");
        let (before, cursor) = (got(), cursor(&server.location).await);
        let (last, _) = before.last().unwrap();
        assert!(
            *last >= cursor,
            "round {round}: the cursor is at {cursor}, though only {last} came"
        );
        cursors.push(cursor);
        server.start_again().await;
        until(|| got().len() > before.len()).await;
    }
    let begun = Instant::now();
    loop {
        let (log, got) = (log(&server).await, got());
        let next = in_order(&got, &log);
        if next == log.len() {
            assert_eq!(repeated_from(&got), cursors, "what came again, and the cursors");
            return;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "only {next} of {} entries came",
            log.len()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// At least once and in order: without what came again it is the log, up to the index this returns.
fn in_order(got: &[(u64, Value)], log: &[Value]) -> usize {
    let mut next = 0;
    for (index, entry) in got {
        let index = usize::try_from(*index).unwrap();
        assert!(index <= next, "{index} came before {next}");
        // What was copied a moment ago may be too young for the log that was read before it.
        if let Some(logged) = log.get(index) {
            assert_eq!(entry, logged, "{index}");
        }
        next = next.max(index + 1);
    }
    next
}

/// Where the order goes back.
fn repeated_from(got: &[(u64, Value)]) -> Vec<u64> {
    got.windows(2)
        .filter(|pair| pair[1].0 != pair[0].0 + 1)
        .map(|pair| pair[1].0)
        .collect()
}

/// The org's log as the service has it.
async fn log(server: &Server) -> Vec<Value> {
    let url = format!("{}/v1/audit/log?start=0&limit=500", server.url);
    let (status, answer) = call("GET", &url, server.admin_key(), None).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    assert!(answer["next"].is_null(), "the log is longer than one page");
    let entries = answer["entries"].as_array().unwrap().iter();
    entries
        .map(|one| serde_json::from_str(one["entry"].as_str().unwrap()).unwrap())
        .collect()
}

/// Which index the one sink is to get next, by the database.
async fn cursor(location: &Location) -> u64 {
    let next = scalar::<i64>(location, "SELECT next_index FROM sink_cursors").await;
    next.unwrap_or_default().try_into().unwrap()
}

async fn until(reached: impl Fn() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < PATIENCE, "nothing more is delivered");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How often the process dies over a delivery.
const ROUNDS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(60);
