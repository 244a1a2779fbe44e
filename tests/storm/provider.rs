//! Four authorization servers and their APIs on loopback: as little as answers a token request as RFC 6749 §6 says, after
//! 200 ms, and remembers it. A refresh token is good once; the second time it is `invalid_grant`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::plan::{LATENCY, PROVIDERS, REPLICA_HEADER, REPLICAS};

/// All of them.
#[derive(Debug)]
pub(crate) struct Providers {
    pub(crate) addresses: Vec<SocketAddr>,
    ledger: Arc<Mutex<Ledger>>,
}

/// What they were asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    /// Which refresh token of each grant is the good one.
    pub(crate) generations: Vec<u64>,
    pub(crate) token_requests: usize,
    /// Requests with a token that was not good any more.
    pub(crate) refused: usize,
    pub(crate) api_requests: usize,
    /// Token requests under way, by replica, and the most there were.
    under_way: [usize; REPLICAS],
    pub(crate) most: [usize; REPLICAS],
    pub(crate) first: Option<Instant>,
    pub(crate) last: Option<Instant>,
    /// When each token request came and was answered.
    calls: Vec<(Instant, Instant)>,
}

impl Ledger {
    /// How many token requests were under way on average, in so many equal parts of the time between the first and the last.
    pub(crate) fn under_way_in_parts(&self, parts: u32) -> Vec<f64> {
        let first = self.first.unwrap();
        let part = (self.last.unwrap() - first) / parts;
        (0..parts)
            .map(|number| {
                let (from, to) = (first + part * number, first + part * (number + 1));
                let within = |(came, answered): &(Instant, Instant)| {
                    (*answered).min(to).saturating_duration_since((*came).max(from))
                };
                let all: Duration = self.calls.iter().map(within).sum();
                all.div_duration_f64(part)
            })
            .collect()
    }
}

impl Providers {
    /// Starts them, with a first refresh token for every grant.
    pub(crate) async fn start(grants: usize) -> Self {
        let ledger = Ledger {
            generations: vec![1; grants],
            ..Ledger::default()
        };
        let ledger = Arc::new(Mutex::new(ledger));
        let mut addresses = Vec::new();
        for _ in 0..PROVIDERS {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move {
                while let Ok((guest, _)) = listener.accept().await {
                    guest.set_nodelay(true).unwrap();
                    tokio::spawn(serve(guest, Arc::clone(&ledger)));
                }
            });
        }
        Self { addresses, ledger }
    }

    /// What they were asked so far.
    pub(crate) fn ledger(&self) -> Ledger {
        self.ledger.lock().unwrap().clone()
    }
}

/// The refresh token of a grant.
pub(crate) fn refresh_token(grant: usize, generation: u64) -> String {
    format!("refresh-{grant}-{generation}")
}

/// The access token of a grant.
pub(crate) fn access_token(grant: usize, generation: u64) -> String {
    format!("access-{grant}-{generation}")
}

/// Answers one client's requests, one after the other.
async fn serve(mut guest: TcpStream, ledger: Arc<Mutex<Ledger>>) {
    let mut bytes = Vec::new();
    while let Some(asked) = read(&mut guest, &mut bytes).await {
        let (status, answer) = if asked.path == "/token" {
            token(&asked, &ledger).await
        } else {
            api(&asked, &ledger)
        };
        let body = answer.to_string();
        let head = format!(
            "HTTP/1.1 {status} Any\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        if guest.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn token(asked: &Asked, ledger: &Mutex<Ledger>) -> (u16, Value) {
    let replica: usize = asked.header(REPLICA_HEADER).parse().unwrap();
    let presented = url::form_urlencoded::parse(&asked.body)
        .find_map(|(name, value)| (name == "refresh_token").then(|| value.into_owned()))
        .unwrap();
    let (grant, generation) = numbers(&presented);
    let came = Instant::now();
    let good = {
        let mut ledger = ledger.lock().unwrap();
        ledger.token_requests += 1;
        ledger.first.get_or_insert(came);
        ledger.under_way[replica] += 1;
        ledger.most[replica] = ledger.most[replica].max(ledger.under_way[replica]);
        let good = ledger.generations[grant] == generation;
        if good {
            ledger.generations[grant] += 1;
        } else {
            ledger.refused += 1;
        }
        good
    };
    tokio::time::sleep(LATENCY).await;
    let mut ledger = ledger.lock().unwrap();
    ledger.under_way[replica] -= 1;
    let answered = Instant::now();
    ledger.last = Some(answered);
    ledger.calls.push((came, answered));
    if !good {
        return (400, json!({"error": "invalid_grant"}));
    }
    let answer = json!({
        "access_token": access_token(grant, generation + 1), "token_type": "Bearer", "expires_in": 3600,
        "refresh_token": refresh_token(grant, generation + 1), "scope": "mail.read",
    });
    (200, answer)
}

/// The mail of whoever's newest token it is: the number of the grant.
fn api(asked: &Asked, ledger: &Mutex<Ledger>) -> (u16, Value) {
    let (grant, generation) = numbers(asked.header("authorization"));
    let mut ledger = ledger.lock().unwrap();
    ledger.api_requests += 1;
    if ledger.generations[grant] == generation {
        (200, json!({"messages": [{"id": grant}]}))
    } else {
        (401, json!({"error": "invalid_token"}))
    }
}

/// The grant and the generation a token was made of.
fn numbers(token: &str) -> (usize, u64) {
    let mut parts = token.rsplit('-');
    let generation = parts.next().unwrap().parse().unwrap();
    (parts.next().unwrap().parse().unwrap(), generation)
}

struct Asked {
    path: String,
    head: String,
    body: Vec<u8>,
}

impl Asked {
    fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find(|line| {
            line.split_once(':')
                .is_some_and(|(field, _)| field.eq_ignore_ascii_case(name))
        });
        line.unwrap_or_else(|| panic!("no {name} in {}", self.head))
            .split_once(':')
            .unwrap()
            .1
            .trim()
    }
}

/// The next request; none when the client is gone.
async fn read(guest: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Asked> {
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = std::str::from_utf8(&bytes[..end]).unwrap().to_owned();
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_lowercase()
                        .strip_prefix("content-length:")?
                        .trim()
                        .parse()
                        .ok()
                })
                .unwrap_or(0);
            let from = end + 4;
            if bytes.len() >= from + length {
                let body = bytes[from..from + length].to_vec();
                bytes.drain(..from + length);
                let path = head.split(' ').nth(1).unwrap().to_owned();
                return Some(Asked { path, head, body });
            }
        }
        if guest.read_buf(bytes).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}
