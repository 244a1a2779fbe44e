//! A primary that dies under load and a synchronous standby that takes its place: nothing was released without an entry,
//! no generation is lost, and nobody starts anything again. And that the look for what is lost finds it, where a primary
//! waited for no standby.

use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use postern::{
    app::ready::Prober,
    dev::acme_mail,
    domain::{GrantId, UserId, connector::Category, grant::GrantState},
    flows::{
        Deps, Refusal, apply, delegate, sequence,
        vend::{self, Vended},
    },
    workers::Workers,
};
use serde_json::json;
use tokio::{sync::RwLock, task::JoinSet};

use super::{
    harness::{ISSUER, Outcome, World, cluster::Cluster, connect_as, fetch, token},
    shared::loopback,
};

/// What the callers saw.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    /// Held shared by every call. Tokens expire between calls only: a provider that calls a token dead which it gave a
    /// moment ago ends the grant, and rightly so.
    calling: RwLock<()>,
    released: Mutex<Vec<String>>,
    /// Of them, those for the grant that needs nothing of the provider but its calls: they go on whatever the other waits for.
    unhindered: AtomicUsize,
    refused: AtomicUsize,
    /// Whether anybody was told that nothing is released over this database any more.
    sealed: AtomicBool,
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

/// A Postern over the cluster, and an Acme Mail that takes each refresh token once: a renewal that is lost stays lost, and no
/// grace heals it unseen. Narrowing needs a grace, so the tokens that leave are raw ones.
async fn strict(cluster: &Cluster) -> World {
    let world = World::on(cluster.location()).await;
    let (listener, acme) = loopback::listen().await;
    let provider = loopback::acme(&acme, Arc::clone(&world.clock) as _, ISSUER, &[STRICT])
        .with_rotation_grace(Duration::ZERO);
    tokio::spawn(loopback::serve(listener, provider.router()));
    let world = World {
        connector: STRICT.parse().unwrap(),
        acme: acme.clone(),
        ..world
    };
    let world = world.restarted_after(|dir| write_connector(dir, &acme)).await;
    let rule = r#"@modes("execute,raw") permit (principal, action, resource);"#;
    let document = toml::to_string(&json!({
        "connector": {STRICT: {"client_id": acme_mail::DEMO_CLIENT_ID}},
        "policies": {"org": [rule], "agent": [rule]},
    }))
    .unwrap();
    apply::apply(&world.deps, world.org, "test".to_owned(), &document)
        .await
        .unwrap();
    world
}

/// What Postern is told of that Acme Mail, in a replica's directory.
fn write_connector(dir: &Path, acme: &str) {
    let mut text = include_str!("../../connectors/acme-mail.toml").to_owned();
    for (before, after) in [
        ("id = \"acme-mail\"", format!("id = \"{STRICT}\"")),
        ("old_refresh_valid_s = 60", "old_refresh_valid_s = 0".to_owned()),
        (
            "how = \"refresh_scope\"\nproof = \"returned_scope\"",
            "how = \"none\"".to_owned(),
        ),
        ("{origin}", acme.to_owned()),
        ("{authority}", acme.trim_start_matches("http://").to_owned()),
    ] {
        assert!(text.contains(before), "{before}");
        text = text.replace(before, &after);
    }
    std::fs::create_dir(dir.join("connectors")).unwrap();
    std::fs::write(dir.join("connectors").join(format!("{STRICT}.toml")), text).unwrap();
}

/// Somebody connects it and lets the agent do both, and have their token as it is.
async fn connect(world: &World, user: UserId, account: &str) -> GrantId {
    let both = [Category::Read, Category::Write];
    let Outcome::Granted(grant) = connect_as(world, user, account, &both, false).await else {
        panic!("not connected")
    };
    let ask = delegate::Ask {
        agent: world.agent.agent,
        grant,
        categories: [Category::Read, Category::Write].into(),
        tools: [].into(),
        raw: true,
        expires_at: None,
    };
    delegate::make(&world.deps, world.org, user, ask).await.unwrap();
    grant
}

/// One caller that asks again and again, for calls and for tokens, and takes nothing but an outage for an excuse, until it is
/// told that there is no use. Some call for a grant whose tokens expire, the others are unhindered.
async fn call(world: Arc<World>, deps: Arc<Deps>, grant: GrantId, expires: bool, seen: Arc<Seen>) {
    let mut turn = 0;
    while !seen.stopped() {
        turn += 1;
        let ask = world.read(grant);
        let ask = if turn % 4 == 0 { token(ask) } else { ask };
        let calling = if expires {
            Some(seen.calling.read().await)
        } else {
            None
        };
        let vended = vend::vend(&deps, world.agent, ask).await;
        drop(calling);
        match vended {
            Ok(Vended::Executed { entry, .. } | Vended::Token { entry, .. }) => {
                seen.released.lock().unwrap().push(entry.to_string());
                seen.unhindered.fetch_add(usize::from(!expires), Ordering::SeqCst);
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
            Err(Refusal::Sealed) => {
                seen.sealed.store(true, Ordering::SeqCst);
                return;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// The provider lets the access tokens expire.
async fn expire(world: &World, seen: &Seen) {
    let _nobody_calls = seen.calling.write().await;
    expire_between_calls(world).await;
}

async fn expire_between_calls(world: &World) {
    let url = format!("{}/admin/expire", world.acme);
    fetch("POST", &url, Some(json!({"account": ADA}))).await;
}

/// The provider renews a token, which spends the one before it, and takes its time to say so. Returns before it does.
async fn renewed_and_not_told_yet(world: &World, seen: &Seen) {
    let nobody_calls = seen.calling.write().await;
    let asked = world.seen("token").await.len();
    let delay_ms = u64::try_from(SILENCE.as_millis()).unwrap();
    world
        .fault(json!({"next": "token", "after": true, "delay_ms": delay_ms}))
        .await;
    expire_between_calls(world).await;
    drop(nobody_calls);
    world.until_seen("token", asked + 1).await;
}

/// Waits until the provider has told: whoever it told has no database.
async fn until_told(world: &World) {
    let began = Instant::now();
    while world
        .seen("token")
        .await
        .iter()
        .any(|request| request["status"].is_null())
    {
        assert!(began.elapsed() < SILENCE * 4, "the provider never answered");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until a generation that somebody asked for is kept: releases beside it may come sooner.
async fn until_renewed(world: &World, grant: GrantId, first: u64) {
    let began = Instant::now();
    while world.grant(grant).await.generation == first {
        assert!(began.elapsed() < Duration::from_secs(90), "nothing is renewed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How often the provider renewed the grant's tokens.
async fn renewals(world: &World) -> u64 {
    let requests = world.seen("token").await;
    let renewed = requests.iter().filter(|request| {
        request["grant_type"] == "refresh_token"
            && request["account"] == ADA
            && request["issued_refresh_sha256"].is_string()
    });
    u64::try_from(renewed.count()).unwrap()
}

/// Waits until the database holds every generation that the provider gave. An answer that found no database for long enough
/// is in the spool by then, and is entered soon after there is one.
async fn until_all_is_entered(world: &World, seen: &Seen, grant: GrantId, first: u64) {
    // So nobody has a token renewed meanwhile.
    let _nobody_calls = seen.calling.write().await;
    let began = Instant::now();
    loop {
        let given = first + renewals(world).await;
        let held = world.grant(grant).await;
        if held.generation == given {
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(90),
            "generation {given} was given, and the grant is {held:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
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

/// Waits until nothing is released any more: each commit waits for a standby that hears nothing of it.
async fn until_quiet(seen: &Seen) {
    let began = Instant::now();
    let mut before = seen.released();
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let released = seen.released();
        if released == before {
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "releases on commits that no standby has confirmed"
        );
        before = released;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_killed_under_load_takes_nothing_with_it() {
    kill_under_load(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_killed_while_its_standby_is_cut_off_takes_nothing_with_it() {
    kill_under_load(true).await;
}

async fn kill_under_load(cut_off: bool) {
    let cluster = Cluster::start().await;
    let world = Arc::new(strict(&cluster).await);
    let grant = connect(&world, world.ada, ADA).await;
    let unhindered = connect(&world, world.ben, "ben@acme.example").await;
    let first = world.grant(grant).await.generation;
    let other = world.data_dir();
    write_connector(&other, &world.acme);
    let replicas = [Arc::clone(&world.deps), world.replica_in(&other).await.unwrap()];
    let workers: Vec<Workers> = replicas.iter().map(Workers::start).collect();
    let seen = Arc::new(Seen::default());
    let mut tasks = JoinSet::new();
    for caller in 0..16 {
        let deps = Arc::clone(&replicas[caller % replicas.len()]);
        let expires = caller < 8;
        let grant = if expires { grant } else { unhindered };
        tasks.spawn(call(Arc::clone(&world), deps, grant, expires, Arc::clone(&seen)));
    }
    tasks.spawn(tick(Arc::clone(&world), Arc::clone(&seen)));
    tasks.spawn(renew(Arc::clone(&world), Arc::clone(&seen)));
    tasks.spawn(probe(Arc::clone(&world.deps), Arc::clone(&seen)));
    until("releases", || {
        seen.released() > 100 && seen.is_ready() == Some(true)
    })
    .await;

    until_renewed(&world, grant, first).await;
    renewed_and_not_told_yet(&world, &seen).await;
    // Releases are being committed and answered when it dies.
    let before = seen.unhindered.load(Ordering::SeqCst);
    until("releases beside the renewal", || {
        seen.unhindered.load(Ordering::SeqCst) > before + 20
    })
    .await;
    if cut_off {
        // What is being committed from here on stands at the primary alone.
        cluster.cut_off().await;
        until_quiet(&seen).await;
    } else {
        // What is promised from here on stands at the standby and is not seen there before it is promoted.
        cluster.pause_replay().await;
        let before = seen.released();
        until("releases that the standby does not show", || {
            seen.released() > before + 20
        })
        .await;
    }
    cluster.kill_primary();
    until("not ready", || seen.is_ready() == Some(false)).await;
    until_told(&world).await;
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
    until_all_is_entered(&world, &seen, grant, first).await;
    seen.stop.store(true, Ordering::SeqCst);
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(*seen.ready.lock().unwrap(), [true, false, true]);
    assert!(
        seen.refused.load(Ordering::SeqCst) > 0,
        "nobody noticed the failover"
    );
    let lost = replicas.iter().any(|deps| deps.store.has_lost_entries());
    assert!(!lost && !seen.sealed.load(Ordering::SeqCst));
    nothing_was_lost(&world, &cluster, &seen, grant, first).await;
    for workers in workers {
        workers.stop().await;
    }
}

async fn nothing_was_lost(world: &World, cluster: &Cluster, seen: &Seen, grant: GrantId, first: u64) {
    // No generation: all that the provider gave are there, and the last refresh token, which works once, works.
    let held = world.grant(grant).await;
    assert_eq!(held.state, GrantState::Active);
    assert_eq!(held.generation, first + renewals(world).await);
    expire(world, seen).await;
    world.vend(world.read(grant)).await.unwrap();
    assert_eq!(world.grant(grant).await.generation, held.generation + 1);
    assert_eq!(held.generation + 1, first + renewals(world).await);
    let refused: Vec<_> = world
        .seen("token")
        .await
        .into_iter()
        .filter(|request| request["status"].as_u64().is_some_and(|status| status != 200))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");

    // No release without an entry: neither to a caller nor to the provider.
    assert_eq!(without_entry(cluster, seen).await, Vec::<String>::new());
    let executed = "SELECT id FROM entries WHERE kind = 'release' AND mode = 'execute'";
    let executed = ids(cluster, executed).await.len();
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
    assert!(super::audit::verifies(world).await);
}

/// The entries of the database that goes on which this asks for.
async fn ids(cluster: &Cluster, sql: &'static str) -> HashSet<String> {
    let ids: Vec<String> = sqlx::query_scalar(sql)
        .fetch_all(&mut cluster.promoted().await)
        .await
        .unwrap();
    HashSet::from_iter(ids)
}

/// What was released and has no entry in the database that goes on.
async fn without_entry(cluster: &Cluster, seen: &Seen) -> Vec<String> {
    let entries = ids(cluster, "SELECT id FROM entries WHERE kind = 'release'").await;
    let released = seen.released.lock().unwrap();
    released
        .iter()
        .filter(|entry| !entries.contains(*entry))
        .cloned()
        .collect()
}

/// The other way round: where the promise does not hold, the look above says so, and Postern stops releasing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_waits_for_nobody_loses_releases_and_is_found_out() {
    let cluster = Cluster::start().await;
    cluster.wait_for_nobody().await;
    let world = Arc::new(strict(&cluster).await);
    let grant = connect(&world, world.ben, "ben@acme.example").await;
    let seen = Arc::new(Seen::default());
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let deps = Arc::clone(&world.deps);
        callers.spawn(call(Arc::clone(&world), deps, grant, false, Arc::clone(&seen)));
    }
    let ticking = tokio::spawn(tick(Arc::clone(&world), Arc::clone(&seen)));
    until("releases", || seen.released() > 20).await;
    cluster.cut_off().await;
    // Of those under way meanwhile, the standby may have the entries.
    let before = seen.released() + CALLERS;
    until("releases that no standby knows of", || {
        seen.released() > before + 20
    })
    .await;
    cluster.kill_primary();
    cluster.switch();
    cluster.promote();
    until("found out", || world.deps.store.has_lost_entries()).await;
    let told = tokio::time::timeout(Duration::from_secs(30), async {
        while let Some(done) = callers.join_next().await {
            done.unwrap();
        }
    });
    told.await.expect("not every caller was told");
    assert!(seen.sealed.load(Ordering::SeqCst));
    // Nothing leaves any more, and nothing is written that would hide the loss.
    let released = "SELECT id FROM entries WHERE kind = 'release'";
    let (before, calls) = (ids(&cluster, released).await, world.seen("api").await.len());
    for _ in 0..CALLERS {
        let refused = world.vend(world.read(grant)).await;
        assert!(matches!(refused, Err(Refusal::Sealed)), "{refused:?}");
    }
    assert_eq!(ids(&cluster, released).await, before);
    assert_eq!(world.seen("api").await.len(), calls);
    let lost = without_entry(&cluster, &seen).await;
    assert!(lost.len() >= 20, "only {} are missed", lost.len());
    seen.stop.store(true, Ordering::SeqCst);
    ticking.await.unwrap();
}

/// How many call at once where the primary waits for nobody.
const CALLERS: usize = 8;
/// Whose tokens expire.
const ADA: &str = "ada@acme.example";
/// The connector's id.
const STRICT: &str = "acme-other";
/// How long the provider is silent after the renewal in which the primary dies: long enough to kill it.
const SILENCE: Duration = Duration::from_secs(4);
