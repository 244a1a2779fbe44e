use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use url::Url;

use super::{resolver::Lookup, *};
use crate::domain::{Clock, Time, clock::FixedClock, connector::ConnectorId, secret::AccessToken};

/// A listener that counts connections, keeps what it read and gives one canned answer.
struct Server {
    port: u16,
    hits: Arc<AtomicUsize>,
    seen: Arc<std::sync::Mutex<String>>,
    over: Arc<AtomicUsize>,
}

impl Server {
    /// Answers one request of each connection.
    async fn start(answer: String) -> Self {
        Self::start_for(answer, 1).await
    }

    /// Answers every request.
    async fn start_keeping(answer: String) -> Self {
        Self::start_for(answer, usize::MAX).await
    }

    async fn start_for(answer: String, each: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let hits = Arc::new(AtomicUsize::new(0));
        let seen = Arc::new(std::sync::Mutex::new(String::new()));
        let (counter, log) = (Arc::clone(&hits), Arc::clone(&seen));
        let over = Arc::new(AtomicUsize::new(0));
        let done = Arc::clone(&over);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                for _ in 0..each {
                    let mut buffer = vec![0; 8192];
                    let read = stream.read(&mut buffer).await.unwrap_or(0);
                    log.lock()
                        .unwrap()
                        .push_str(&String::from_utf8_lossy(&buffer[..read]));
                    if stream.write_all(answer.as_bytes()).await.is_err() || read == 0 {
                        break;
                    }
                }
                done.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self {
            port,
            hits,
            seen,
            over,
        }
    }

    /// Waits until a connection was read to its end.
    async fn until_hit(&self) {
        while self.over.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

struct Table(&'static str);

impl Lookup for Table {
    fn lookup(
        &self,
        _name: String,
    ) -> std::pin::Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>> {
        let address = self.0.parse().unwrap();
        Box::pin(async move { Ok(vec![address]) })
    }
}

fn id() -> ConnectorId {
    "demo".parse().unwrap()
}

fn purpose() -> Purpose {
    Purpose::connector(&id())
}

fn allowing(port: u16) -> Egress {
    Egress::new(
        EgressPolicy::strict()
            .allow(&id(), &format!("127.0.0.1:{port}"))
            .unwrap(),
    )
    .unwrap()
}

fn get(url: &str) -> OutboundRequest<'static> {
    OutboundRequest::new(Method::GET, Url::parse(url).unwrap())
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn loopback_is_refused_and_never_contacted_unless_named() {
    let server = Server::start(ok("{}")).await;
    let egress = Egress::new(EgressPolicy::strict()).unwrap();
    for url in [
        format!("http://127.0.0.1:{}/", server.port),
        format!("https://127.0.0.1:{}/", server.port),
        format!("https://localhost:{}/", server.port),
        format!("https://[::ffff:127.0.0.1]:{}/", server.port),
        format!("https://0x7f.1:{}/", server.port),
        format!("https://2130706433:{}/", server.port),
        format!("https://017700000001:{}/", server.port),
        format!("https://user@example.com:{}/", server.port),
    ] {
        let error = egress.send(&purpose(), get(&url)).await.unwrap_err();
        assert!(matches!(error, EgressError::Refused(_)), "{url}: {error}");
        assert!(!error.may_have_been_sent());
    }
    assert_eq!(server.hits(), 0);
}

#[tokio::test]
async fn a_named_destination_is_reached_by_its_connector_only() {
    let server = Server::start(ok("hello")).await;
    let egress = allowing(server.port);
    let url = format!("http://127.0.0.1:{}/a", server.port);
    let answer = egress.send(&purpose(), get(&url)).await.unwrap();
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (200, b"hello".as_slice())
    );
    let other = Purpose::connector(&"other".parse().unwrap());
    assert_eq!(
        egress.send(&other, get(&url)).await.unwrap_err(),
        EgressError::Refused(Refusal::Scheme)
    );
    assert_eq!(server.hits(), 1);
}

#[tokio::test]
async fn a_name_that_resolves_to_a_private_address_is_not_contacted() {
    let server = Server::start(ok("{}")).await;
    for address in [
        "127.0.0.1",
        "169.254.169.254",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
    ] {
        let egress = Egress::with_lookup(EgressPolicy::strict(), Arc::new(Table(address))).unwrap();
        let url = format!("https://rebound.example:{}/", server.port);
        let error = egress.send(&purpose(), get(&url)).await.unwrap_err();
        assert_eq!(error, EgressError::Refused(Refusal::Address), "{address}");
    }
    assert_eq!(server.hits(), 0);
}

#[tokio::test]
async fn a_redirect_is_answered_to_the_caller_and_never_followed() {
    let other = Server::start(ok("stolen")).await;
    let server = Server::start(format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:{}/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        other.port
    ))
    .await;
    // Both are named, so that only the redirect rule can keep the second from being contacted.
    let policy = EgressPolicy::strict()
        .allow(&id(), &format!("127.0.0.1:{}", server.port))
        .unwrap()
        .allow(&id(), &format!("127.0.0.1:{}", other.port))
        .unwrap();
    let token = AccessToken::new("s3cret".to_owned());
    let mut request = get(&format!("http://127.0.0.1:{}/", server.port));
    request.credential = Credential::Bearer(&token);
    let answer = Egress::new(policy)
        .unwrap()
        .send(&purpose(), request)
        .await
        .unwrap();
    assert_eq!(answer.status, 307);
    assert_eq!((server.hits(), other.hits()), (1, 0));
    let seen = server.seen.lock().unwrap().clone();
    assert!(seen.contains("authorization: Bearer s3cret"), "{seen}");
    assert!(seen.contains("user-agent: postern/"), "{seen}");
    assert!(!seen.contains("accept-encoding"), "{seen}");
}

#[tokio::test]
async fn proxy_variables_are_ignored() {
    // The variables must be there before the process starts, so the work is done in a child process.
    let proxy = Server::start(ok("from the proxy")).await;
    let server = Server::start(ok("direct")).await;
    let url = format!("http://127.0.0.1:{}", proxy.port);
    let output = tokio::task::spawn_blocking({
        let port = server.port.to_string();
        move || {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            for name in [
                "HTTP_PROXY",
                "http_proxy",
                "HTTPS_PROXY",
                "https_proxy",
                "ALL_PROXY",
                "all_proxy",
            ] {
                child.env(name, &url);
            }
            child
                .env("POSTERN_TEST_PORT", port)
                .args([
                    "--exact",
                    "egress::tests::child_process_sends_one_request",
                    "--ignored",
                    "--nocapture",
                ])
                .output()
                .unwrap()
        }
    })
    .await
    .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    assert_eq!((server.hits(), proxy.hits()), (1, 0));
}

#[tokio::test]
#[ignore = "run by proxy_variables_are_ignored, in a process of its own"]
async fn child_process_sends_one_request() {
    let port = std::env::var("POSTERN_TEST_PORT").unwrap().parse().unwrap();
    let answer = allowing(port)
        .send(&purpose(), get(&format!("http://127.0.0.1:{port}/")))
        .await
        .unwrap();
    assert_eq!(answer.body.as_slice(), b"direct");
}

#[tokio::test]
async fn an_answer_over_the_limit_is_cut_and_marked() {
    let server = Server::start(ok(&"x".repeat(4000))).await;
    let mut request = get(&format!("http://127.0.0.1:{}/", server.port));
    request.max_body = 1000;
    let answer = allowing(server.port).send(&purpose(), request).await.unwrap();
    assert!(answer.truncated && answer.body.is_empty());
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_connection_that_never_came_about_sent_nothing() {
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let error = allowing(port)
        .send(&purpose(), get(&format!("http://127.0.0.1:{port}/")))
        .await
        .unwrap_err();
    assert_eq!(error, EgressError::Unreachable);
    assert!(!error.may_have_been_sent());
}

/// A name that takes its time: the clock moves on while it is looked up.
struct Slow(Arc<FixedClock>, Duration);

impl Lookup for Slow {
    fn lookup(
        &self,
        _name: String,
    ) -> std::pin::Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>> {
        self.0.advance(self.1);
        Box::pin(async { Ok(vec![Ipv4Addr::LOCALHOST.into()]) })
    }
}

/// Sends to a server whose name takes `takes` to resolve, five seconds being allowed.
async fn send_after(server: &Server, takes: Duration, body: Option<&'static str>) -> Result<(), EgressError> {
    let clock = Arc::new(FixedClock::new(Time::from_unix_seconds(1_800_000_000)));
    let authority = format!("slow.example:{}", server.port);
    let policy = EgressPolicy::strict().allow(&id(), &authority).unwrap();
    let egress = Egress::with_lookup(policy, Arc::new(Slow(Arc::clone(&clock), takes))).unwrap();
    let mut request = get(&format!("http://{authority}/"));
    if let Some(body) = body {
        request.method = Method::POST;
        request.body = Some(body.into());
    }
    let at = clock.since_boot() + Duration::from_secs(5);
    request.begin_by = Some(BeginBy::new(clock, at));
    egress.send(&purpose(), request).await.map(drop)
}

#[tokio::test]
async fn no_byte_of_a_request_leaves_after_the_last_moment_to_begin() {
    for body in [None, Some("some text")] {
        let server = Server::start(ok("{}")).await;
        let error = send_after(&server, Duration::from_secs(6), body)
            .await
            .unwrap_err();
        assert_eq!(error, EgressError::TooLate);
        assert!(!error.may_have_been_sent());
        // The connection came about, and was closed with nothing on it.
        server.until_hit().await;
        assert_eq!(*server.seen.lock().unwrap(), "", "{body:?}");
    }
}

#[tokio::test]
async fn a_request_that_begins_in_time_is_sent_as_any_other() {
    for (body, framing) in [(None, None), (Some("some text"), Some("content-length: 9"))] {
        let server = Server::start(ok("{}")).await;
        send_after(&server, Duration::from_secs(4), body).await.unwrap();
        let seen = server.seen.lock().unwrap().clone();
        assert!(
            seen.ends_with(&format!("\r\n\r\n{}", body.unwrap_or_default())),
            "{seen}"
        );
        assert_eq!(seen.contains("content-length"), framing.is_some(), "{seen}");
        assert!(seen.contains(framing.unwrap_or_default()), "{seen}");
        assert!(!seen.contains("transfer-encoding"), "{seen}");
    }
}

#[tokio::test]
async fn what_is_late_before_it_begins_contacts_nobody() {
    let server = Server::start(ok("{}")).await;
    let clock = Arc::new(FixedClock::new(Time::from_unix_seconds(1_800_000_000)));
    let mut request = get(&format!("http://127.0.0.1:{}/", server.port));
    request.begin_by = Some(BeginBy::new(Arc::clone(&clock) as _, clock.since_boot()));
    let error = allowing(server.port).send(&purpose(), request).await.unwrap_err();
    assert_eq!((error, server.hits()), (EgressError::TooLate, 0));
}

/// One connection, kept: the second request waits for no connection, and the moment passes while it is prepared.
#[tokio::test]
async fn a_kept_connection_carries_nothing_late_either() {
    let server = Server::start_keeping(ok("{}").replace("connection: close\r\n", "")).await;
    let egress = allowing(server.port);
    let url = format!("http://127.0.0.1:{}/", server.port);
    egress.send(&purpose(), get(&url)).await.unwrap();
    let before = server.seen.lock().unwrap().clone();
    let mut request = get(&url);
    request.begin_by = Some(BeginBy::new(Arc::new(Ticking::default()), Duration::from_secs(2)));
    let error = egress.send(&purpose(), request).await.unwrap_err();
    assert_eq!((error, server.hits()), (EgressError::TooLate, 1));
    assert_eq!(*server.seen.lock().unwrap(), before);
}

/// A clock on which every look takes a second.
#[derive(Debug, Default)]
struct Ticking(AtomicUsize);

impl Clock for Ticking {
    fn now(&self) -> Time {
        Time::from_unix_seconds(0)
    }

    fn since_boot(&self) -> Duration {
        let looks = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        Duration::from_secs(looks.try_into().unwrap())
    }
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_may_have_carried_the_request() {
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"] {
        let server = Server::start(answer.to_owned()).await;
        let error = allowing(server.port)
            .send(&purpose(), get(&format!("http://127.0.0.1:{}/", server.port)))
            .await
            .unwrap_err();
        assert!(error.may_have_been_sent(), "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn errors_and_debug_output_hold_no_url_and_no_secret() {
    let egress = Egress::new(EgressPolicy::strict()).unwrap();
    let token = AccessToken::new("canary-token".to_owned());
    let mut request = get("http://127.0.0.1:1/canary-path?q=canary-query");
    request.credential = Credential::Query {
        name: "token",
        token: &token,
    };
    let shown = format!("{request:?}");
    let error = egress.send(&purpose(), request).await.unwrap_err();
    assert!(!format!("{shown} {error} {error:?}").contains("canary"));
}

#[tokio::test]
async fn a_token_that_is_no_header_value_is_refused() {
    let server = Server::start(ok("{}")).await;
    let token = AccessToken::new("a\r\nhost: evil".to_owned());
    let mut request = get(&format!("http://127.0.0.1:{}/", server.port));
    request.credential = Credential::Bearer(&token);
    let error = allowing(server.port).send(&purpose(), request).await.unwrap_err();
    assert_eq!(error, EgressError::Refused(Refusal::Header));
    assert_eq!(server.hits(), 0);
}

#[tokio::test]
async fn the_operator_client_sends_keys_in_the_clear_to_loopback_only() {
    let server = Server::start(ok("mine")).await;
    let client = operator_client().unwrap();
    let answer = client
        .send(get(&format!("http://127.0.0.1:{}/", server.port)))
        .await
        .unwrap();
    assert_eq!(answer.body.as_slice(), b"mine");
    let error = client.send(get("http://postern.example/")).await.unwrap_err();
    assert_eq!(error, EgressError::Refused(Refusal::Scheme));
}

#[test]
fn exceptions_are_written_in_normal_form() {
    for text in [
        "127.0.0.1",
        "127.1:80",
        "Example.com:443",
        "http://a:1",
        "a:1/x",
        "a:01",
        "",
        ":1",
        "a b:1",
    ] {
        assert!(EgressPolicy::strict().allow(&id(), text).is_err(), "{text}");
    }
    for text in ["127.0.0.1:4700", "crm.internal:443", "[::1]:8080"] {
        assert!(EgressPolicy::strict().allow(&id(), text).is_ok(), "{text}");
    }
}
