//! PostgreSQL with several replicas: what one decides, spends, renews or revokes holds on all of them.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use postern::{
    app::{AppError, Kind},
    domain::{
        GrantId,
        connector::Category,
        decision::{Outcome, UnverifiedDecision},
    },
    flows::{Deps, Refusal, decide, revoke, sequence, vend},
    store::{Location, Selector, StoreError},
    workers::Workers,
};
use serde_json::json;
use sqlx::AssertSqlSafe;
use tokio::{task::JoinSet, time::timeout};

use super::{
    audit,
    harness::{World, acme_mail, database, ending, open_as},
    race::Race,
    revoke::{anew, selectors},
};

/// A connected world with as many replicas.
async fn replicated(count: usize) -> (World, GrantId, Vec<Arc<Deps>>) {
    let world = World::on_postgres().await;
    let grant = world.connect(world.ada, &[Category::Read, Category::Write]).await;
    let mut replicas = vec![Arc::clone(&world.deps)];
    while replicas.len() < count {
        replicas.push(world.replica().await.unwrap());
    }
    (world, grant, replicas)
}

/// How often a race is run: in a long run, in the first run of all tests, and a few times wherever they are run once more.
fn rounds(long: usize, first: usize) -> usize {
    if std::env::var_os("POSTERN_LONG").is_some() {
        long
    } else if std::env::var_os("POSTERN_TEST_STORE").is_none() {
        first
    } else {
        6
    }
}

fn everything() -> revoke::Ask {
    ending(Selector::All(true))
}

#[tokio::test]
async fn every_replica_has_a_name_of_its_own_and_gives_it_back() {
    let (world, _, replicas) = replicated(3).await;
    let names: HashSet<_> = replicas.iter().map(|deps| deps.store.replica()).collect();
    assert_eq!(names.len(), 3);
    let left = replicas[1].store.replica();
    replicas[1].store.close().await;
    let next = world.replica().await.unwrap();
    assert_eq!(next.store.replica(), left);
}

/// A supervisor starts it again and again.
#[tokio::test]
async fn a_start_that_is_refused_gives_its_name_back() {
    let world = World::on_postgres().await;
    let dir = world.data_dir();
    // It is the demonstration's database.
    let refused = open_as(Kind::Serve, &dir, &world.location, &world.clock, &world.acme).await;
    assert!(matches!(refused, Err(AppError::Refused(_))), "{refused:?}");
    let next = world.replica_in(&dir).await.unwrap();
    assert_eq!(&*next.store.replica(), "r2");
}

/// Its chains are another's by then: that one did not stop.
#[tokio::test]
async fn a_replica_that_lost_its_name_says_no_stop_under_it() {
    let (world, grant, replicas) = replicated(2).await;
    vend::vend(&replicas[1], world.agent, world.read(grant))
        .await
        .unwrap();
    let lost = replicas[1].store.replica();
    let expired = format!("UPDATE replicas SET expires_at = 0 WHERE name = '{lost}'");
    world.raw_sql(&expired).await;
    assert_eq!(world.replica().await.unwrap().store.replica(), lost);
    replicas[1].store.renew_replica().await.unwrap();
    let name = replicas[1].store.replica();
    assert_ne!(name, lost);
    vend::vend(&replicas[1], world.agent, world.read(grant))
        .await
        .unwrap();
    replicas[1].store.close().await;
    let Location::Postgres(settings) = &world.location else {
        panic!("not PostgreSQL")
    };
    let mut superuser = database::superuser(&database::name_of(settings)).await;
    let stopped: Vec<String> =
        sqlx::query_scalar("SELECT writer FROM entries WHERE kind = 'writer' AND outcome = 'stopped'")
            .fetch_all(&mut superuser)
            .await
            .unwrap();
    assert!(!stopped.is_empty());
    assert!(
        stopped
            .iter()
            .all(|writer| writer.starts_with(&format!("{name}/"))),
        "{stopped:?}"
    );
}

/// Under another name it still knows what it wrote, and says so to the others.
#[tokio::test]
async fn a_replica_whose_name_is_lost_with_its_entries_tells_the_others() {
    let (world, grant, replicas) = replicated(2).await;
    vend::vend(&replicas[1], world.agent, world.read(grant))
        .await
        .unwrap();
    let name = replicas[1].store.replica();
    let back = format!("UPDATE writers SET seq = seq - 1 WHERE writer = '{name}/hot'");
    world.raw_sql(&back).await;
    world.raw_sql("DELETE FROM replicas").await;
    let renewed = replicas[1].store.renew_replica().await;
    assert!(matches!(renewed, Err(StoreError::Lost)), "{renewed:?}");
    replicas[0].store.renew_replica().await.unwrap();
    for replica in &replicas {
        let refused = vend::vend(replica, world.agent, world.read(grant)).await;
        assert!(matches!(refused, Err(Refusal::Sealed)), "{refused:?}");
    }
}

/// What it wrote since under its new name says nothing of that.
#[tokio::test]
async fn what_a_replica_wrote_under_a_name_it_had_before_is_missed_as_well() {
    let (world, grant, replicas) = replicated(2).await;
    let store = &replicas[1].store;
    vend::vend(&replicas[1], world.agent, world.read(grant))
        .await
        .unwrap();
    let before = store.replica();
    world
        .raw_sql(&format!(
            "UPDATE replicas SET expires_at = 0 WHERE name = '{before}'"
        ))
        .await;
    assert_eq!(world.replica().await.unwrap().store.replica(), before);
    store.renew_replica().await.unwrap();
    assert_ne!(store.replica(), before);
    vend::vend(&replicas[1], world.agent, world.read(grant))
        .await
        .unwrap();
    store.look_for_lost_entries().await.unwrap();
    let back = format!("UPDATE writers SET seq = seq - 1 WHERE writer = '{before}/hot'");
    world.raw_sql(&back).await;
    let looked = store.look_for_lost_entries().await;
    assert!(matches!(looked, Err(StoreError::Lost)), "{looked:?}");
}

#[tokio::test]
async fn a_replica_at_work_keeps_its_name_however_long_it_works() {
    let (world, _, replicas) = replicated(1).await;
    let workers = Workers::start(&world.deps);
    let Location::Postgres(settings) = &world.location else {
        panic!()
    };
    let mut connection = database::superuser(&database::name_of(settings)).await;
    for _ in 0..2 {
        world.later(Duration::from_secs(15));
        let now = world.deps.clock.now().unix_micros();
        let mut looks = 0;
        loop {
            let until: i64 = sqlx::query_scalar("SELECT max(expires_at) FROM replicas")
                .fetch_one(&mut connection)
                .await
                .unwrap();
            if until > now + 15_000_000 {
                break;
            }
            looks += 1;
            assert!(looks < 300, "the lease is not renewed");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_ne!(
        world.replica().await.unwrap().store.replica(),
        replicas[0].store.replica()
    );
    workers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_decision_presented_to_three_replicas_releases_exactly_once() {
    let (world, grant, replicas) = replicated(3).await;
    let answer = decide::decide(&world.deps, world.agent, &world.read(grant))
        .await
        .unwrap();
    assert_eq!(answer.outcome, Outcome::Allow);
    let before = world.seen("api").await.len();
    let mut tasks = JoinSet::new();
    for turn in 0..96 {
        let deps = Arc::clone(&replicas[turn % 3]);
        let agent = world.agent;
        let mut ask = world.read(grant);
        ask.decision = Some(UnverifiedDecision(answer.jws.clone()));
        tasks.spawn(async move { vend::vend(&deps, agent, ask).await });
    }
    let (mut released, mut spent) = (0, 0);
    while let Some(done) = tasks.join_next().await {
        match done.unwrap() {
            Ok(_) => released += 1,
            Err(Refusal::DecisionSpent { .. }) => spent += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((released, spent), (1, 95));
    assert_eq!(world.seen("api").await.len(), before + 1);
}

/// A provider that does not answer keeps every place. Whoever waits for one finds what a sibling gets meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_a_sibling_gets_is_found_although_every_place_is_taken() {
    let (world, grant, replicas) = replicated(2).await;
    world.later(Duration::from_secs(400));
    let connector = world.deps.catalogue.get(&acme_mail()).unwrap();
    let mut places = Vec::new();
    while let Ok(place) = timeout(SHORT, replicas[0].flights.place(connector)).await {
        places.push(place);
    }
    let begun = Instant::now();
    let (deps, agent, ask) = (Arc::clone(&replicas[0]), world.agent, world.read(grant));
    let waiting = tokio::spawn(async move { vend::vend(&deps, agent, ask).await });
    // After five seconds it looks for the first time: the sibling has the lease, and no answer yet.
    tokio::time::sleep(Duration::from_secs(2)).await;
    world
        .fault(json!({"next": "token", "delay_ms": 5_500, "times": 1}))
        .await;
    vend::vend(&replicas[1], agent, world.read(grant)).await.unwrap();
    assert!(begun.elapsed() > Duration::from_secs(6));
    let found = timeout(Duration::from_secs(2), waiting).await;
    assert!(matches!(found, Ok(Ok(Ok(_)))), "{found:?}");
    assert!(places.len() > 100, "{}", places.len());
}

/// Its lease is lost, and a sibling has renewed the token meanwhile: what it hears of the old one says nothing of the grant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_hears_too_late_that_a_token_is_dead_takes_the_siblings() {
    let (world, grant, replicas) = replicated(2).await;
    world.later(Duration::from_secs(400));
    let before = world.seen("token").await.len();
    let dead = json!({"next": "token", "delay_ms": 1500, "status": 400, "body": {"error": "invalid_grant"}, "times": 1});
    world.fault(dead).await;
    let (deps, agent, ask) = (Arc::clone(&replicas[0]), world.agent, world.read(grant));
    let late = tokio::spawn(async move { vend::vend(&deps, agent, ask).await });
    world.until_seen("token", before + 1).await;
    // As if it had stood still for as long as a lease lives.
    world.raw_sql("UPDATE refresh_leases SET expires_at = 0").await;
    vend::vend(&replicas[1], agent, world.read(grant)).await.unwrap();
    late.await.unwrap().unwrap();
    assert_eq!(world.seen("token").await.len(), before + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_callers_on_each_of_five_replicas_cause_one_refresh() {
    let (mut world, mut grant, mut replicas) = replicated(5).await;
    // A run over PostgreSQL comes after one that has been here already.
    let rounds = rounds(500, if database::is_postgres() { 12 } else { 50 });
    for round in 0..rounds {
        if round % 10 == 9 {
            // The provider's log of thousands of calls would be longer than an answer may be.
            (world, grant, replicas) = replicated(5).await;
        }
        world.later(Duration::from_secs(400));
        let before = world.seen("token").await.len();
        let mut tasks = JoinSet::new();
        for deps in &replicas {
            for _ in 0..64 {
                let (deps, agent, ask) = (Arc::clone(deps), world.agent, world.read(grant));
                tasks.spawn(async move { vend::vend(&deps, agent, ask).await });
            }
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap().unwrap();
        }
        assert_eq!(world.seen("token").await.len(), before + 1);
    }
}

#[tokio::test]
async fn a_revocation_on_one_replica_is_known_to_the_others_at_once() {
    let (world, grant, replicas) = replicated(3).await;
    for deps in &replicas {
        vend::vend(deps, world.agent, world.read(grant)).await.unwrap();
    }
    revoke::run(&replicas[0], world.org, everything()).await.unwrap();
    for deps in &replicas {
        let refused = vend::vend(deps, world.agent, world.read(grant)).await;
        assert!(matches!(refused, Err(Refusal::Revoked { .. })), "{refused:?}");
    }
}

/// I2: vends on every replica race a revocation on one of them, by each kind of selector in turn.
async fn race(count: usize) {
    let (mut world, grant, replicas) = replicated(count).await;
    race_on(&mut world, grant, &replicas, rounds(1_000, 100)).await;
}

async fn race_on(world: &mut World, mut grant: GrantId, replicas: &[Arc<Deps>], rounds: usize) {
    let count = replicas.len();
    let selectors = selectors().await;
    for (round, select) in (0..rounds).zip(selectors.iter().cycle()) {
        let selector = select(world, grant);
        // Entries of one moment have no order among replicas.
        world.later(Duration::from_secs(1));
        let since = world.deps.clock.now();
        for deps in replicas {
            vend::vend(deps, world.agent, world.read(grant)).await.unwrap();
        }
        let mut race = Race::start(world, grant, replicas, &selector);
        race.until_released(8 + round % 32).await;
        let asked = Instant::now();
        let revoked = revoke::run(&replicas[count - 1], world.org, ending(selector.clone()))
            .await
            .unwrap_or_else(|refusal| panic!("{selector:?}, after {:?}: {refusal:?}", asked.elapsed()));
        race.answered();
        let durable = world.releases(grant, since).await;
        race.all_told().await;
        let in_the_end = world.releases(grant, since).await;
        assert_eq!(
            in_the_end, durable,
            "{selector:?}: a release became durable after the revocation was answered"
        );
        let without = race.without(|entry| durable.contains_key(entry));
        assert_eq!(without, 0, "{selector:?}: released without an entry");
        assert!(durable.len() >= count + race.released());
        assert!(
            durable.values().all(|counter| *counter < revoked.epoch.counter),
            "{selector:?}: a release of the selection commits after the revocation's entry"
        );
        grant = anew(world, grant, &selector).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_release_follows_a_revocation_on_one_replica() {
    race(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_release_follows_a_revocation_on_three_replicas() {
    race(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_release_follows_a_revocation_on_five_replicas() {
    race(5).await;
}

/// The promise rests on the guard's row lock, advisory locks only keep the order: engines that have none keep it too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_release_follows_a_revocation_where_advisory_locks_lock_nothing() {
    let (mut world, grant, _) = replicated(1).await;
    let Location::Postgres(settings) = &world.location else {
        panic!("not PostgreSQL")
    };
    let name = database::name_of(settings);
    let mut connection = database::superuser(&name).await;
    let shadowed = format!(
        "CREATE SCHEMA without_advisory_locks;
         GRANT USAGE ON SCHEMA without_advisory_locks TO public;
         CREATE FUNCTION without_advisory_locks.pg_advisory_xact_lock(bigint) RETURNS void
           LANGUAGE sql AS 'SELECT';
         CREATE FUNCTION without_advisory_locks.pg_advisory_xact_lock_shared(bigint) RETURNS void
           LANGUAGE sql AS 'SELECT';
         CREATE FUNCTION without_advisory_locks.pg_try_advisory_xact_lock_shared(bigint) RETURNS boolean
           LANGUAGE sql AS 'SELECT true';
         ALTER DATABASE {name} SET search_path = without_advisory_locks, pg_catalog, public"
    );
    sqlx::raw_sql(AssertSqlSafe(shadowed))
        .execute(&mut connection)
        .await
        .unwrap();
    // Connections from before would have them still.
    let replicas = [world.replica().await.unwrap(), world.replica().await.unwrap()];
    let mut held = database::superuser(&name).await;
    let locks: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_locks, pg_advisory_xact_lock(1) WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    )
    .fetch_one(&mut held)
    .await
    .unwrap();
    assert_eq!(locks, 0, "they lock still");
    race_on(&mut world, grant, &replicas, rounds(200, 20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_waits_for_a_change_of_its_org_and_is_decided_on_what_came_of_it() {
    let (world, grant, replicas) = replicated(2).await;
    vend::vend(&replicas[1], world.agent, world.read(grant))
        .await
        .unwrap();
    let mut change = world.deps.store.write(world.org).await.unwrap();
    change
        .advance_epoch(world.org, &Selector::All(true))
        .await
        .unwrap();
    let waiting = {
        let (deps, agent, ask) = (Arc::clone(&replicas[1]), world.agent, world.read(grant));
        tokio::spawn(async move { vend::vend(&deps, agent, ask).await })
    };
    world.keep_open(&mut change, Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    change.commit().await.unwrap();
    waiting.await.unwrap().unwrap();
}

/// What a process that is stopped within a transaction, or cut off, does to the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_says_nothing_more_holds_up_a_revocation_for_a_moment_only() {
    let (world, grant, replicas) = replicated(2).await;
    let mut silent = replicas[1].store.write(world.org).await.unwrap();
    silent
        .advance_epoch(world.org, &Selector::All(true))
        .await
        .unwrap();
    revoke::run(&replicas[0], world.org, everything()).await.unwrap();
    let told = silent.commit().await.unwrap_err();
    // Nothing of it was done, and whoever was only late begins anew; a pooler does not pass on why.
    let pooled = matches!(&world.location, Location::Postgres(settings) if settings.pooler);
    assert!(pooled || matches!(told, StoreError::Conflict), "{told:?}");
    let refused = vend::vend(&replicas[1], world.agent, world.read(grant)).await;
    assert!(matches!(refused, Err(Refusal::Revoked { .. })), "{refused:?}");
}

#[tokio::test]
async fn the_log_of_many_writers_is_one_log() {
    let (world, grant, replicas) = replicated(3).await;
    for _ in 0..3 {
        for deps in &replicas {
            vend::vend(deps, world.agent, world.read(grant)).await.unwrap();
        }
    }
    for deps in &replicas {
        sequence::run(deps, world.org).await.unwrap();
    }
    let writers: HashSet<String> = world
        .entries()
        .await
        .into_iter()
        .map(|entry| entry.writer)
        .collect();
    assert!(writers.len() > 3, "{writers:?}");
    assert!(audit::verifies(&world).await);
}

/// Whoever has not got a place by then gets none.
const SHORT: Duration = Duration::from_millis(100);
