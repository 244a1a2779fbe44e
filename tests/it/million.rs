//! Ending a million grants costs what ending a few does: a revocation takes effect before anything is counted or buried.
//! What follows it comes to its end whoever dies meanwhile, and is in no other org's way.
//! `scripts/test --long` runs it with a million of them, in a release build.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use postern::{
    domain::{clock::Time, connector::Category},
    flows::{
        Deps, Refusal,
        actions::{Ask, Caller},
        revoke, upstream, vend,
    },
    store::{Location, Selector},
    workers::Workers,
};
use serde_json::json;
use tokio::task::JoinSet;

use super::harness::{World, database, ending};

fn many() -> u64 {
    let asked = std::env::var("POSTERN_TEST_GRANTS");
    asked.map_or(20_000, |asked| asked.parse().unwrap())
}

/// Revokes; how long it took to take effect for everybody, and what was answered how much later.
async fn revoke(
    world: &World,
    deps: &Arc<Deps>,
    selector: Selector,
) -> (Duration, Duration, revoke::Revoked) {
    let epoch = async || {
        let mut tx = world.deps.store.read(world.org).await.unwrap();
        tx.epoch(world.org).await.unwrap().unwrap().counter
    };
    let before = epoch().await;
    let start = Instant::now();
    let answering = tokio::spawn({
        let (deps, org) = (Arc::clone(deps), world.org);
        async move { revoke::run(&deps, org, ending(selector)).await.unwrap() }
    });
    while epoch().await == before {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let stopped = start.elapsed();
    let answer = answering.await.unwrap();
    (stopped, start.elapsed(), answer)
}

/// The best of several, so that what else the machine does is left out: how long the end of `count` grants takes. In time it is
/// each time.
async fn best(count: u64, on_postgres: bool) -> Duration {
    let (mut best, rounds) = (Duration::MAX, 3);
    let world = if on_postgres {
        World::on_postgres().await
    } else {
        World::on_sqlite().await
    };
    let grant = world.connect(world.ada, &[Category::Read, Category::Write]).await;
    world.seed(grant, count).await;
    for round in 0..rounds {
        let (stopped, answered, revoked) = revoke(&world, &world.deps, Selector::All(true)).await;
        println!(
            "{count} grants, round {round}: stopped after {stopped:?}, answered after {answered:?} with {:?}",
            revoked.counts
        );
        assert!(stopped < WITHIN, "{stopped:?}");
        best = best.min(stopped);
        if round == 0 {
            let within = Duration::from_secs(if count > 1000 { 5 } else { 2 });
            assert!(answered < within.min(WITHIN), "{answered:?}");
            all_are_counted(&world, &revoked, count + 1).await;
            let refused = world.vend(world.read(grant)).await;
            assert!(matches!(refused, Err(Refusal::Revoked { .. })), "{refused:?}");
        }
    }
    best
}

/// The counts stand in the revocation, in the end.
async fn all_are_counted(world: &World, revoked: &revoke::Revoked, grants: u64) {
    for _ in 0..1200 {
        let report = revoke::report(&world.deps, world.org, revoked.id, None, 1).await;
        if let Some(counts) = report.unwrap().0.counts {
            assert_eq!((counts.grants, counts.delegations), (grants, grants));
            assert!(revoked.counts.is_none_or(|answered| answered == counts));
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} was never counted", revoked.id);
}

async fn costs_the_same(on_postgres: bool) {
    let few = best(50, on_postgres).await;
    let very_many = best(many(), on_postgres).await;
    println!("stopped: {few:?} for 50, {very_many:?} for {}", many());
    // Walking so many of them takes longer than this on any machine; 10 ms are left to the scheduler.
    assert!(
        very_many < few * 4 + Duration::from_millis(10),
        "{few:?} {very_many:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ending_very_many_grants_takes_as_long_as_ending_a_few_on_sqlite() {
    costs_the_same(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ending_very_many_grants_takes_as_long_as_ending_a_few_on_postgres() {
    costs_the_same(true).await;
}

/// What callers for two orgs get done: for the one whose persons are revoked, and for its neighbour.
#[derive(Default)]
struct Load {
    released: [AtomicUsize; 2],
    over: AtomicBool,
}

/// A moment in a load, and how much had been released for each org by then.
struct Mark(Instant, [usize; 2]);

impl Load {
    /// Calls for one of them as fast as it can, until the load is over or what it calls for has ended.
    async fn call(self: Arc<Self>, deps: Arc<Deps>, caller: Caller, ask: Ask, org: usize) {
        while !self.over.load(Ordering::Relaxed) {
            match vend::vend(&deps, caller, ask.clone()).await {
                Ok(_) => {
                    self.released[org].fetch_add(1, Ordering::Relaxed);
                }
                Err(Refusal::Revoked { .. }) => {
                    assert_eq!(org, OURS, "nothing of the neighbour's was revoked");
                    return;
                }
                // Turned away because the facts never settled or too much waits: load, not loss.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    /// Lets time pass, so that the workers' leases have to be renewed and providers are asked at their pace.
    async fn tick(self: Arc<Self>, world: Arc<World>) {
        while !self.over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            world.later(Duration::from_millis(50));
        }
    }

    fn mark(&self) -> Mark {
        let released = [OURS, THEIRS].map(|org| self.released[org].load(Ordering::Relaxed));
        Mark(Instant::now(), released)
    }

    /// Releases a second for each org since then.
    fn rates(&self, since: &Mark) -> [f64; 2] {
        let Mark(now, released) = self.mark();
        let took = now.duration_since(since.0).as_secs_f64();
        [OURS, THEIRS].map(|org| (released[org] - since.1[org]) as f64 / took)
    }

    /// Waits until so much more was released for one of them.
    async fn until_released(&self, org: usize, more: usize, since: &Mark) {
        while self.mark().1[org] < since.1[org] + more {
            assert!(
                since.0.elapsed() < Duration::from_secs(120),
                "the callers get nothing done"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// So many percent of them took no longer.
fn percent(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// Three replicas release as fast as they can, their workers at work, while persons of one org are revoked, one after
/// another; then everything of it is. Another org's callers are among the load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_gets_through_the_full_load_of_three_replicas() {
    let world = Arc::new(World::on_postgres().await);
    let grant = world.connect(world.ada, &[Category::Read, Category::Write]).await;
    let (neighbour, theirs) = world.another_org("Other").await;
    world.seed(grant, many()).await;
    let replicas = [
        Arc::clone(&world.deps),
        world.replica().await.unwrap(),
        world.replica().await.unwrap(),
    ];
    let workers = replicas.each_ref().map(Workers::start);
    let load = Arc::new(Load::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&load).tick(Arc::clone(&world)));
    for caller in 0..CALLERS {
        let deps = Arc::clone(&replicas[caller % 3]);
        let (by, grant, org) = if caller % 4 == 0 {
            (neighbour, theirs, THEIRS)
        } else {
            (world.agent, grant, OURS)
        };
        tasks.spawn(Arc::clone(&load).call(deps, by, world.read(grant), org));
    }
    // Before anything is measured, everybody's facts have been read.
    load.until_released(OURS, 4 * CALLERS, &load.mark()).await;
    let begun = load.mark();
    tokio::time::sleep(MEASURED).await;
    let before = load.rates(&begun);

    let (mut stops, mut waits) = (Vec::new(), Vec::new());
    // One in a hundred is a figure only with hundreds. Their grants are none that anybody calls for.
    let persons = if many() >= 1_000_000 { 300 } else { 40 };
    let begun = load.mark();
    for person in 1..=persons {
        let user = format!("usr_{person:026}").parse().unwrap();
        let (stopped, _, revoked) = revoke(&world, &replicas[person % 3], Selector::User(user)).await;
        stops.push(stopped);
        waits.push(revoked.guard_wait);
        let last = load.mark();
        tokio::time::sleep(PAUSE).await;
        // As many releases as the org has callers: they have all read its facts again, and are in the next one's way.
        load.until_released(OURS, CALLERS - CALLERS / 4, &last).await;
    }
    let during = load.rates(&begun);

    let (stopped, answered, _) = revoke(&world, &replicas[0], Selector::All(true)).await;
    let last = load.mark();
    let beginning = Time::from_unix_seconds(0);
    let durable = world.releases(grant, beginning).await;
    load.until_released(THEIRS, 1, &last).await;
    load.over.store(true, Ordering::Relaxed);
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(
        world.releases(grant, beginning).await,
        durable,
        "a release became durable after everything was revoked"
    );
    let [released, _] = load.mark().1;
    assert!(durable.len() >= released, "{released}: {}", durable.len());
    // Burying them all is another test's: whoever is told to stop leaves the rest of it.
    for deps in &replicas {
        deps.uncut.stop();
    }
    for workers in workers {
        workers.stop().await;
    }

    stops.sort();
    waits.sort();
    println!(
        "{CALLERS} callers at three replicas with their workers, releases a second (the revoked org / another): \
         {:.0} / {:.0} before, {:.0} / {:.0} while {persons} persons were revoked",
        before[OURS], before[THEIRS], during[OURS], during[THEIRS]
    );
    println!(
        "{persons} persons: stopped after p50 {:?}, p99 {:?}, longest {:?}, of that for the guard p50 {:?}, p99 {:?}, \
         longest {:?}; {} grants at once: stopped after {stopped:?}, answered after {answered:?}",
        percent(&stops, 50),
        percent(&stops, 99),
        stops[persons - 1],
        percent(&waits, 50),
        percent(&waits, 99),
        waits[persons - 1],
        many()
    );
    for org in [OURS, THEIRS] {
        assert!(
            during[org] >= before[org] * LOAD_KEPT,
            "there was no load: {during:?} after {before:?}"
        );
    }
    assert!(
        answered < WITHIN && stops[persons - 1] < WITHIN,
        "{stops:?} {answered:?}"
    );
    // The promise is of a program as people run it; one in a hundred of few is the longest.
    let within = if cfg!(debug_assertions) || persons < 300 {
        GUARD_WITHIN_LOOSE
    } else {
        GUARD_WITHIN
    };
    assert!(percent(&waits, 99) <= within, "{waits:?}");
}

/// As a replica's worker does, and without the others.
async fn fan_out(deps: Arc<Deps>, over: Arc<AtomicBool>) {
    while !over.load(Ordering::Relaxed) {
        upstream::fan_out(&deps).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Calls now and then, as long as it is not over; how long each call took.
async fn go_on_calling(deps: Arc<Deps>, caller: Caller, ask: Ask, over: Arc<AtomicBool>) -> Vec<Duration> {
    let mut took = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let asked = Instant::now();
        vend::vend(&deps, caller, ask.clone()).await.unwrap();
        took.push(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    took
}

/// Two replicas bury what was revoked, and one of them dies half-way. In the long form there are as many as were revoked at
/// once elsewhere; else a few of them, which take seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fan_out_over_very_many_grants_comes_to_its_end_though_a_replica_dies() {
    let is_long = std::env::var_os("POSTERN_LONG").is_some();
    let seeded = if is_long { many() } else { many().min(1_000) };
    let all = seeded + 1;
    let world = World::on_postgres().await;
    let grant = world.connect(world.ada, &[Category::Read, Category::Write]).await;
    let (neighbour, theirs) = world.another_org("Other").await;
    world.seed(grant, seeded).await;
    let (one, other) = (world.replica().await.unwrap(), world.replica().await.unwrap());
    let over = Arc::new(AtomicBool::new(false));
    let mut calls = JoinSet::new();
    for deps in [&world.deps, &other, &world.deps, &other] {
        let (deps, over) = (Arc::clone(deps), Arc::clone(&over));
        calls.spawn(go_on_calling(deps, neighbour, world.read(theirs), over));
    }

    let id = world.revoke(Selector::All(true)).await.id;
    let began = Instant::now();
    let dying = tokio::spawn(fan_out(one, Arc::clone(&over)));
    let living = tokio::spawn(fan_out(other, Arc::clone(&over)));
    let path = format!("/v1/revocations/{id}?limit=1");
    let (mut before, mut died, mut slowest) = (0, None, Duration::ZERO);
    loop {
        let (row, _) = revoke::report(&world.deps, world.org, id, None, 1).await.unwrap();
        let asked = Instant::now();
        let answer = world.api().get(&world.as_admin(), &path).await;
        slowest = slowest.max(asked.elapsed());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = answer.json()["progress"].clone();
        let queued = seen["queued"].as_u64().unwrap();
        assert!(queued >= before, "{before}, and then {seen}");
        before = queued;
        // Not known before they are counted, and the same ever after.
        assert!(seen["total"].is_null() || seen["total"] == all, "{seen}");
        if row.fanned_out {
            let whole = json!({"total": all, "queued": all, "done": 0, "remaining": all});
            assert_eq!(seen, whole);
            break;
        }
        if died.is_none() && queued >= all / 2 {
            // In the middle of a transaction, most likely.
            dying.abort();
            died = Some((began.elapsed(), queued));
        }
        assert!(
            !living.is_finished() && began.elapsed() < buried_within(all),
            "{seen} after {:?}",
            began.elapsed()
        );
        tokio::time::sleep(if is_long { PAUSE * 10 } else { PAUSE / 10 }).await;
    }
    let took = began.elapsed();
    over.store(true, Ordering::Relaxed);
    living.await.unwrap();
    assert!(dying.await.unwrap_err().is_cancelled());
    let (died, at_death) = died.expect("one died");
    assert!(at_death < all, "it died in the middle");
    assert_eq!(buried(&world, id.to_string()).await, (all, all));

    let mut calls: Vec<Duration> = calls.join_all().await.into_iter().flatten().collect();
    calls.sort();
    println!(
        "fan-out over {all} grants on two replicas: {took:.0?}, {:.0} a second; one died after {died:.0?} with \
         {at_death} buried; progress was told in {slowest:?} at the slowest; another org's {} calls meanwhile: p50 \
         {:?}, p99 {:?}, longest {:?}",
        all as f64 / took.as_secs_f64(),
        calls.len(),
        percent(&calls, 50),
        percent(&calls, 99),
        percent(&calls, 100)
    );
    assert!(percent(&calls, 99) < WITHIN);
}

/// How many grants of the org have their tombstone and their place among the calls to providers, and how many there are.
async fn buried(world: &World, revocation: String) -> (u64, u64) {
    let Location::Postgres(settings) = &world.location else {
        panic!("not PostgreSQL")
    };
    let mut superuser = database::superuser(&database::name_of(settings)).await;
    let (buried, all): (i64, i64) = sqlx::query_as(
        "SELECT count(o.grant_id) FILTER (WHERE g.state = 'revoked' AND g.state_at IS NOT NULL), count(*)
         FROM grants g LEFT JOIN outbox o
           ON o.org_id = g.org_id AND o.grant_id = g.id AND o.revocation_id = $2
         WHERE g.org_id = $1",
    )
    .bind(world.org.to_string())
    .bind(revocation)
    .fetch_one(&mut superuser)
    .await
    .unwrap();
    (buried.try_into().unwrap(), all.try_into().unwrap())
}

/// Most of it is one round trip after another: a bound for a machine that others use as well.
fn buried_within(grants: u64) -> Duration {
    Duration::from_secs(180 + grants / 300)
}

/// At three replicas, every fourth of them for the neighbour.
const CALLERS: usize = 64;
const OURS: usize = 0;
const THEIRS: usize = 1;
/// How long the load without a revocation is measured.
const MEASURED: Duration = Duration::from_secs(3);
/// Between two revocations, at least.
const PAUSE: Duration = Duration::from_millis(100);
/// So much of the load is left, at least, while somebody is revoked every [`PAUSE`]. Not all of it can be: each revocation
/// sends the callers of its org back to read the facts again. With less than a quarter, most revocations would meet nobody
/// whom they had to wait for. Without optimisation other tests run beside, more of them or fewer than before.
const LOAD_KEPT: f64 = if cfg!(debug_assertions) { 0.1 } else { 0.25 };
/// The promise is a second; a build without optimisation beside others on a busy machine is given more.
const WITHIN: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 1 });
/// So long at most, but for one in a hundred, a change waits for the releases under way.
const GUARD_WITHIN: Duration = Duration::from_millis(100);
/// The same without optimisation or with few persons, beside whatever else runs.
const GUARD_WITHIN_LOOSE: Duration = Duration::from_secs(3);
