//! Those of the waiters that are agents: each vends one action over HTTP, and comes again when it is refused for a while.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    http::Call,
    plan::{ISSUER, is_asked_over_http},
    seed::Seeded,
};

/// What they came to.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Answers of the provider's API that came through.
    pub(crate) served: usize,
    /// Refusals for a while: too much was under way (429), or something was not to be had just then (503).
    pub(crate) full: usize,
    pub(crate) unavailable: usize,
}

/// Lets all of them ask at once, each the replica whose turn it is.
pub(crate) async fn ask(replicas: Vec<SocketAddr>, seeded: Vec<Seeded>) -> Heard {
    static FULL: AtomicUsize = AtomicUsize::new(0);
    static UNAVAILABLE: AtomicUsize = AtomicUsize::new(0);
    let mut tasks = JoinSet::new();
    for (number, seeded) in seeded.into_iter().enumerate() {
        if !is_asked_over_http(number) {
            continue;
        }
        let call = Call {
            at: replicas[number / 10 % replicas.len()],
            host: ISSUER.trim_start_matches("http://").to_owned(),
            method: "POST",
            path: "/v1/vend".to_owned(),
            key: seeded.agent_key,
            body: Some(json!({
                "grant": seeded.id.to_string(), "tool": "messages.list", "args": {"limit": 1}, "mode": "execute",
            })),
        };
        tasks.spawn(async move {
            loop {
                let (status, answer) = call.ask(PATIENCE).await.expect("no answer");
                match status {
                    200 => {
                        let mail = &answer["body"]["messages"][0]["id"];
                        assert_eq!(*mail, json!(number), "{answer}");
                        return;
                    }
                    429 => FULL.fetch_add(1, Ordering::Relaxed),
                    503 => UNAVAILABLE.fetch_add(1, Ordering::Relaxed),
                    _ => panic!("grant {number}: {status} {answer}"),
                };
                tokio::time::sleep(AGAIN).await;
            }
        });
    }
    let served = tasks.join_all().await.len();
    Heard {
        served,
        full: FULL.load(Ordering::Relaxed),
        unavailable: UNAVAILABLE.load(Ordering::Relaxed),
    }
}

/// How long an agent waits for an answer.
const PATIENCE: Duration = Duration::from_secs(120);
/// When it comes again.
const AGAIN: Duration = Duration::from_millis(500);
