//! The server against slow, large and failing requests.

mod patience;

use std::time::Instant;

use axum::routing::{get, post};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{Notify, oneshot},
    task::JoinHandle,
};

use super::*;
use crate::{
    domain::{Randomness, RandomnessUnavailable},
    http::{
        extract::StrictJson,
        guard::deadline,
        problem::Problem,
        security::{Site, require_host},
    },
};

/// More than the kernel keeps for anybody.
const LARGE: usize = 64 << 20;

#[derive(Debug)]
struct Sevens;

impl Randomness for Sevens {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomnessUnavailable> {
        bytes.fill(7);
        Ok(())
    }
}

struct Running {
    address: SocketAddr,
    /// Told when something slow is under way.
    slow: Arc<Notify>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<Drained>,
}

impl Running {
    async fn start(limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let site = Site::new(&url::Url::parse(&format!("http://{address}")).unwrap()).unwrap();
        let slow = Arc::new(Notify::new());
        let (begun, never_done) = (Arc::clone(&slow), Arc::clone(&slow));
        let late = Router::new().route(
            "/slow",
            get(|| async move {
                begun.notify_one();
                tokio::time::sleep(Duration::from_millis(300)).await;
                "late"
            })
            .post(|| async move {
                never_done.notify_one();
                tokio::time::sleep(Duration::from_secs(30)).await;
                "never"
            }),
        );
        let app = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/large", get(|| async { vec![b'a'; LARGE] }))
            .route("/panic", get(|| async { explode() }))
            .route("/broken", get(|| async { Problem::internal("the cause") }))
            .route(
                "/echo",
                post(|StrictJson(body): StrictJson<serde_json::Value>| async move { body.to_string() }),
            )
            .merge(deadline(late, Duration::from_millis(1500)));
        let app = require_host(app, site);
        let server = tokio::spawn(serve(
            listener,
            app,
            limits,
            RequestIds::new(&Sevens).unwrap(),
            async { stopped.await.unwrap_or(()) },
        ));
        Self {
            address,
            slow,
            stop: Some(stop),
            server,
        }
    }

    async fn exchange(&self, raw: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(raw.as_bytes()).await.unwrap();
        read_all(&mut stream).await
    }

    async fn get(&self, path: &str) -> String {
        self.exchange(&format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address
        ))
        .await
    }

    async fn post(&self, path: &str, body: &str) -> String {
        self.exchange(&format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        ))
        .await
    }
}

fn explode() -> &'static str {
    panic!("canary-secret in a payload")
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the answer is as good an end as a close.
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await;
    String::from_utf8(bytes).unwrap()
}

fn short() -> Limits {
    Limits {
        header_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(1500),
        drain: Duration::from_secs(2),
        ..Limits::default()
    }
}

#[tokio::test]
async fn a_header_trickle_is_cut_at_the_timeout() {
    let running = Running::start(short()).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let began = Instant::now();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: ").await.unwrap();
    let cut = loop {
        if stream.write_all(b"a").await.is_err() {
            break true;
        }
        let mut byte = [0_u8; 1];
        let read = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut byte)).await;
        if matches!(read, Ok(Ok(0) | Err(_))) {
            break true;
        }
        if began.elapsed() > Duration::from_secs(5) {
            break false;
        }
    };
    assert!(cut, "the connection outlived its header timeout");
    assert!(
        began.elapsed() >= Duration::from_millis(250),
        "cut before the timeout"
    );
}

#[tokio::test]
async fn a_body_trickle_is_cut_at_the_timeout() {
    let running = Running::start(Limits {
        body_timeout: Duration::from_millis(300),
        ..short()
    })
    .await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n",
        running.address
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let trickle = tokio::spawn(async move {
        while writing.write_all(b"1").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let began = Instant::now();
    let mut answer = Vec::new();
    let read = reading.read_to_end(&mut answer);
    let _reset = tokio::time::timeout(Duration::from_secs(5), read).await.unwrap();
    assert!(
        began.elapsed() >= Duration::from_millis(250),
        "{:?}",
        began.elapsed()
    );
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 400 "));
    trickle.abort();
}

#[tokio::test]
async fn who_has_nothing_more_to_send_still_gets_an_answer() {
    let running = Running::start(short()).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let request = format!("GET /slow HTTP/1.1\r\nHost: {}\r\n\r\n", running.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(read_all(&mut stream).await.ends_with("late"));
}

#[tokio::test]
async fn a_silent_connection_is_cut_at_the_timeout() {
    let running = Running::start(short()).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let began = Instant::now();
    assert_eq!(read_all(&mut stream).await, "");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_panic_becomes_a_500_with_an_id_only() {
    let running = Running::start(short()).await;
    let answer = running.get("/panic").await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(
        answer.contains("\"code\":\"internal\"") && answer.contains("\"request_id\":\"req_0707070707070707"),
        "{answer}"
    );
    assert!(!answer.contains("canary"), "{answer}");
}

#[tokio::test]
async fn the_server_lives_on_after_a_panic() {
    let running = Running::start(short()).await;
    running.get("/panic").await;
    assert!(running.get("/").await.ends_with("hello"));
}

#[tokio::test]
async fn an_internal_problem_shows_an_id_and_not_its_cause() {
    let running = Running::start(short()).await;
    let answer = running.get("/broken").await;
    assert!(
        answer.contains("\"request_id\":\"req_") && !answer.contains("the cause"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_oversized_body_is_refused() {
    let running = Running::start(short()).await;
    let body = format!("\"{}\"", "a".repeat(64 * 1024));
    let answer = running.post("/echo", &body).await;
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("invalid_request"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_body_of_the_full_size_is_read() {
    let running = Running::start(short()).await;
    let body = format!("\"{}\"", "a".repeat(64 * 1024 - 2));
    let answer = running.post("/echo", &body).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{}", answer.len());
}

#[tokio::test]
async fn a_foreign_host_is_refused() {
    let running = Running::start(short()).await;
    for host in ["evil.example", "localhost", "127.0.0.1", "127.0.0.1:1"] {
        let answer = running
            .exchange(&format!(
                "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{host}: {answer}");
    }
}

#[tokio::test]
async fn two_hosts_or_none_are_refused() {
    let running = Running::start(short()).await;
    let address = running.address;
    for raw in [
        format!("GET / HTTP/1.1\r\nHost: {address}\r\nHost: {address}\r\nConnection: close\r\n\r\n"),
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(),
        format!("GET http://evil.example/ HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"),
    ] {
        let answer = running.exchange(&raw).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{raw}: {answer}");
    }
}

#[tokio::test]
async fn two_lengths_at_once_end_the_connection_so_nothing_can_be_smuggled() {
    let running = Running::start(short()).await;
    // RFC 9112 §6.3: Transfer-Encoding wins, and the connection closes; the second request is never read.
    let address = running.address;
    let answer = running
        .exchange(&format!(
            "POST /echo HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\
             Transfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: {address}\r\n\r\n"
        ))
        .await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[tokio::test]
async fn too_many_headers_are_refused() {
    let running = Running::start(short()).await;
    let fields = (0..80).fold(String::new(), |fields, n| format!("{fields}X-{n}: 1\r\n"));
    let answer = running
        .exchange(&format!(
            "GET / HTTP/1.1\r\nHost: {}\r\n{fields}\r\n",
            running.address
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_one_not_found() {
    let running = Running::start(short()).await;
    let path = running.get("/nothing").await;
    let method = running.post("/", "1").await;
    for answer in [path, method] {
        assert!(
            answer.starts_with("HTTP/1.1 404 ") && answer.contains("\"code\":\"not_found\""),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_client_cannot_choose_the_request_id() {
    let running = Running::start(short()).await;
    let answer = running
        .exchange(&format!(
            "GET / HTTP/1.1\r\nHost: {}\r\nX-Request-Id: mine\r\nConnection: close\r\n\r\n",
            running.address
        ))
        .await;
    assert!(
        answer.contains("x-request-id: req_") && !answer.contains("mine"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_write_that_runs_out_of_time_has_an_unknown_outcome() {
    let running = Running::start(short()).await;
    let answer = running.post("/slow", "1").await;
    assert!(
        answer.starts_with("HTTP/1.1 504 ") && answer.contains("outcome_unknown"),
        "{answer}"
    );
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_for_a_slot() {
    let running = Running::start(Limits {
        connections: 1,
        ..short()
    })
    .await;
    let began = Instant::now();
    let _idle = TcpStream::connect(running.address).await.unwrap();
    // The idle connection is cut by the header timeout; only then is this one served.
    assert!(running.get("/").await.ends_with("hello"));
    assert!(
        began.elapsed() >= Duration::from_millis(250),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn shutdown_answers_what_is_under_way_and_accepts_nothing_new() {
    let mut running = Running::start(short()).await;
    let address = running.address;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("GET /slow HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    running.slow.notified().await;
    running.stop.take().unwrap().send(()).unwrap();
    assert!(read_all(&mut stream).await.ends_with("late"));
    assert_eq!(running.server.await.unwrap(), Drained::Clean);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_drain_that_takes_too_long_is_cut() {
    let mut running = Running::start(Limits {
        drain: Duration::from_millis(50),
        ..short()
    })
    .await;
    let address = running.address;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("POST /slow HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    running.slow.notified().await;
    running.stop.take().unwrap().send(()).unwrap();
    assert_eq!(running.server.await.unwrap(), Drained::Cut(1));
}
