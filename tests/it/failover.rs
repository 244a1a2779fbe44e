//! A primary that dies under load and a synchronous standby that takes its place: nothing was released without an entry,
//! no generation is lost, and nobody starts anything again.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use postern::{
    app::ready::Prober,
    domain::{GrantId, connector::Category, grant::GrantState},
    flows::{
        Deps, Refusal, audit, sequence,
        vend::{self, Vended},
    },
    workers::Workers,
};
use serde_json::json;
use tokio::{sync::RwLock, task::JoinSet};

use super::harness::{World, cluster::Cluster, fetch, token};

/// What the callers saw.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    /// Held shared by every call. Tokens expire between calls only: a provider that calls a token dead which it gave a
    /// moment ago ends the grant, and rightly so.
    calling: RwLock<()>,
    released: Mutex<Vec<String>>,
    refused: AtomicUsize,
    /// What the readiness of the first replica was, each time it changed.
    ready: Mutex<Vec<bool>>,
}

impl Seen {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn released(&self) -> usize {
        self.released.lock().unwrap().len()
    }

    fn is_ready(&self) -> Option<bool> {
        self.ready.lock().unwrap().last().copied()
    }
}

/// One caller that asks again and again, for calls and for tokens, and takes nothing but an outage for an excuse.
async fn call(world: Arc<World>, deps: Arc<Deps>, grant: GrantId, seen: Arc<Seen>) {
    let mut turn = 0;
    while !seen.stopped() {
        turn += 1;
        let ask = world.read(grant);
        let ask = if turn % 4 == 0 { token(ask) } else { ask };
        let calling = seen.calling.read().await;
        let vended = vend::vend(&deps, world.agent, ask).await;
        drop(calling);
        match vended {
            Ok(Vended::Executed { entry, .. } | Vended::Token { entry, .. }) => {
                seen.released.lock().unwrap().push(entry.to_string());
            }
            Err(
                Refusal::StoreUnavailable(_)
                | Refusal::RateLimited(_)
                | Refusal::Unsettled
                | Refusal::ProviderUnavailable
                | Refusal::OutcomeUnknown { .. },
            ) => {
                seen.refused.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// The provider lets the access tokens expire.
async fn expire(world: &World, seen: &Seen) {
    let _nobody_calls = seen.calling.write().await;
    let url = format!("{}/admin/expire", world.acme);
    fetch("POST", &url, Some(json!({"account": "ada@acme.example"}))).await;
}

/// Time goes on, whatever anybody waits for.
async fn tick(world: Arc<World>, seen: Arc<Seen>) {
    while !seen.stopped() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.later(Duration::from_millis(50));
    }
}

/// Now and then there is a token to renew. Apart from [`tick`], for it waits for the calls, and they for time.
async fn renew(world: Arc<World>, seen: Arc<Seen>) {
    while !seen.stopped() {
        tokio::time::sleep(Duration::from_millis(400)).await;
        expire(&world, &seen).await;
    }
}

async fn probe(deps: Arc<Deps>, seen: Arc<Seen>) {
    let mut prober = Prober::new(deps);
    while !seen.stopped() {
        let ready = prober.obstacles().await.is_empty();
        if seen.is_ready() != Some(ready) {
            seen.ready.lock().unwrap().push(ready);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(90), "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_killed_under_load_takes_nothing_with_it() {
    let cluster = Cluster::start().await;
    let world = Arc::new(World::on(cluster.location()).await);
    let grant = world.connect(world.ada, &[Category::Read, Category::Write]).await;
    let replicas = [Arc::clone(&world.deps), world.replica().await.unwrap()];
    let workers: Vec<Workers> = replicas.iter().map(Workers::start).collect();
    let seen = Arc::new(Seen::default());
    let mut tasks = JoinSet::new();
    for caller in 0..8 {
        let deps = Arc::clone(&replicas[caller % replicas.len()]);
        tasks.spawn(call(Arc::clone(&world), deps, grant, Arc::clone(&seen)));
    }
    tasks.spawn(tick(Arc::clone(&world), Arc::clone(&seen)));
    tasks.spawn(renew(Arc::clone(&world), Arc::clone(&seen)));
    tasks.spawn(probe(Arc::clone(&world.deps), Arc::clone(&seen)));
    until("releases", || {
        seen.released() > 100 && seen.is_ready() == Some(true)
    })
    .await;

    let generation = world.grant(grant).await.generation;
    assert!(generation > 1, "nothing was renewed before the failover");
    // In the middle of a renewal.
    expire(&world, &seen).await;
    cluster.kill_primary();
    until("not ready", || seen.is_ready() == Some(false)).await;
    // The address moves on before there is a primary: whoever connects finds a database that only reads.
    cluster.switch();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = seen.released();
    cluster.promote();
    let recovered = until("ready again", || seen.is_ready() == Some(true)).await;
    let released = until("released again", || seen.released() > before + 100).await;
    eprintln!(
        "ready {} ms after the promotion, 100 releases {} ms later",
        recovered.as_millis(),
        released.as_millis()
    );
    seen.stop.store(true, Ordering::SeqCst);
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(*seen.ready.lock().unwrap(), [true, false, true]);
    assert!(
        seen.refused.load(Ordering::SeqCst) > 0,
        "nobody noticed the failover"
    );
    nothing_was_lost(&world, &cluster, &seen, grant, generation).await;
    for workers in workers {
        workers.stop().await;
    }
}

async fn nothing_was_lost(world: &World, cluster: &Cluster, seen: &Seen, grant: GrantId, generation: u64) {
    // No generation: what anybody had seen is there, and so is a refresh token that works.
    let held = world.grant(grant).await;
    assert_eq!(held.state, GrantState::Active);
    assert!(
        held.generation >= generation,
        "{} < {generation}",
        held.generation
    );
    expire(world, seen).await;
    world.vend(world.read(grant)).await.unwrap();
    assert!(world.grant(grant).await.generation > held.generation);
    let refused: Vec<_> = world
        .seen("token")
        .await
        .into_iter()
        .filter(|request| request["status"].as_u64().is_some_and(|status| status != 200))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");

    // No release without an entry: neither to a caller nor to the provider.
    let entries: Vec<(String, Option<String>)> =
        sqlx::query_as("SELECT id, mode FROM entries WHERE kind = 'release'")
            .fetch_all(&mut cluster.promoted().await)
            .await
            .unwrap();
    let ids: HashSet<&str> = entries.iter().map(|(id, _)| id.as_str()).collect();
    for entry in seen.released.lock().unwrap().iter() {
        assert!(
            ids.contains(entry.as_str()),
            "{entry} was released and is not there"
        );
    }
    let executed = entries
        .iter()
        .filter(|(_, mode)| mode.as_deref() == Some("execute"))
        .count();
    let answered = world
        .seen("api")
        .await
        .into_iter()
        .filter(|request| request["status"] == 200 && request["path"].as_str().unwrap().contains("messages"))
        .count();
    assert!(
        answered > 0 && answered <= executed,
        "{answered} calls, {executed} entries"
    );

    // And the log is one log.
    sequence::run(&world.deps, world.org).await.unwrap();
    audit::checkpoint(&world.deps, world.org).await.unwrap();
}
