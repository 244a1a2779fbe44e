//! A PostgreSQL host that is gone without a word, as after a loss of power or behind a cut network: nobody waits for it
//! for ever, nothing is released on what nobody knows, and nobody starts anything again when it is back.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use postern::{
    domain::{GrantId, OrgId, connector::Category, entry::EntryType},
    flows::{
        Refusal,
        actions::Ask,
        refresh::{self, Want, spooled},
        revoke, sweep,
    },
    store::{Location, Selector, StoreError},
};
use serde_json::json;
use sqlx::PgConnection;
use tokio::task::JoinSet;

use super::{
    harness::{World, database, ending, link::Link, token},
    leases::{run, until_waiting},
};

/// A deployment whose database is behind a link, with a grant; and a way of its own to the database.
pub(crate) async fn connected() -> (Arc<World>, Link, GrantId, PgConnection) {
    let dir = tempfile::tempdir().unwrap();
    let location = database::postgres(dir.path()).await;
    let Location::Postgres(settings) = &location else {
        panic!()
    };
    let other = database::superuser(&database::name_of(settings)).await;
    let (link, location) = Link::to(location).await;
    let world = World::on(location).await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    world.vend(world.read(grant)).await.unwrap();
    (Arc::new(world), link, grant, other)
}

/// What comes of work, which has to come to its end: the limits of all that may wait one behind the other, added up.
async fn in_time<F: Future>(what: &str, work: F) -> F::Output {
    let done = tokio::time::timeout(Duration::from_secs(60), work).await;
    done.unwrap_or_else(|_| panic!("{what}: never"))
}

fn is_outage<T>(done: &Result<T, Refusal>) -> bool {
    matches!(
        done,
        Err(Refusal::StoreUnavailable(Some(StoreError::Unavailable(_))))
    )
}

/// A call that can be asked again.
fn keyed(world: &World, grant: GrantId) -> Ask {
    Ask {
        idempotency: Some(("once".to_owned(), "digest".to_owned())),
        ..world.read(grant)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_vanishes_over_work_holds_nobody_for_ever_and_is_used_again_when_it_is_back() {
    let (world, link, grant, mut other) = connected().await;
    // Readers that come back to their pool only when the host is gone.
    let mut readers = Vec::new();
    for other in 0..8 {
        readers.push(
            world
                .deps
                .store
                .read(OrgId::from_bytes([other; 16]))
                .await
                .unwrap(),
        );
    }
    run(&mut other, "BEGIN; LOCK TABLE entries IN ACCESS EXCLUSIVE MODE").await;
    let vend = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.vend(world.read(grant)).await })
    };
    until_waiting(&world, 1).await;
    let revocation = {
        let (world, ask) = (Arc::clone(&world), ending(Selector::User(world.ben)));
        tokio::spawn(async move { revoke::run(&world.deps, world.org, ask).await })
    };
    until_waiting(&world, 2).await;
    link.vanish();
    drop(readers);
    run(&mut other, "COMMIT").await;

    let begun = Instant::now();
    let vended = in_time("the vend", vend).await.unwrap();
    assert!(is_outage(&vended), "{vended:?}");
    let revoked = in_time("the revocation", revocation).await.unwrap();
    assert!(is_outage(&revoked), "{revoked:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let meanwhile = in_time("a vend of meanwhile", world.vend(world.read(grant))).await;
    assert!(is_outage(&meanwhile), "{meanwhile:?}");

    link.come_back();
    let begun = Instant::now();
    world.vend(world.read(grant)).await.unwrap();
    let revoked = revoke::run(&world.deps, world.org, ending(Selector::User(world.ada))).await;
    revoked.unwrap();
    assert!(world.vend(world.read(grant)).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // No place in the pool is lost.
    let mut all = JoinSet::new();
    for org in (0..16).map(|org| OrgId::from_bytes([org; 16])) {
        let world = Arc::clone(&world);
        all.spawn(async move { world.deps.store.read(org).await });
    }
    let held = in_time("a full pool", all.join_all()).await;
    assert!(held.iter().all(Result::is_ok), "{held:?}");
    drop(held);
    in_time("the stop", world.deps.store.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_over_a_host_that_vanished_comes_to_its_end() {
    let (world, link, ..) = connected().await;
    let reader = world.deps.store.read(world.org).await.unwrap();
    link.vanish();
    drop(reader);
    in_time("the stop", world.deps.store.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_released_on_a_commit_that_nobody_confirmed() {
    let (world, link, grant, _other) = connected().await;
    let before = world.seen("api").await.len();
    link.vanish_after(COMMIT);
    let refused = in_time("the release", world.vend(keyed(&world, grant))).await;
    assert!(is_outage(&refused), "{refused:?}");
    assert_eq!(world.seen("api").await.len(), before);

    link.come_back();
    // It was committed, as it turns out: nobody can know that it was not sent, so it is not sent again.
    let again = world.vend(keyed(&world, grant)).await;
    assert!(
        matches!(
            again,
            Err(Refusal::InProgress { .. } | Refusal::OutcomeUnknown { .. } | Refusal::StoreUnavailable(_))
        ),
        "{again:?}"
    );
    let releases = world.entries().await;
    let releases = releases.iter().filter(|entry| entry.kind == EntryType::Release);
    assert_eq!(releases.count(), 2);
    assert_eq!(world.seen("api").await.len(), before);
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_kept_by_a_commit_that_nobody_confirmed_is_kept_once() {
    let (world, link, grant, _other) = connected().await;
    let seen = world.grant(grant).await;
    let asked = world.seen("token").await.len();
    // Over before the lease is renewed: that commits, too.
    world
        .fault(json!({"next": "token", "after": true, "delay_ms": 2500, "times": 1}))
        .await;
    let refreshing = {
        let (world, seen) = (Arc::clone(&world), seen.clone());
        let want = Want::Renewed {
            than: Some(seen.generation),
        };
        tokio::spawn(async move { refresh::ensure(&world.deps, &seen, want).await })
    };
    world.until_seen("token", asked + 1).await;
    link.vanish_after(COMMIT);
    in_time("the silence", link.until_silent()).await;
    let _unknown = in_time("the refresh", refreshing).await.unwrap();
    assert!(world.deps.spool.holds(grant));

    link.come_back();
    for _ in 0..1000 {
        if !world.deps.spool.holds(grant) {
            break;
        }
        spooled::drain(&world.deps).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!world.deps.spool.holds(grant));
    assert_eq!(world.grant(grant).await.generation, seen.generation + 1);
    assert_eq!(world.seen("token").await.len(), asked + 1);
    world.vend(world.read(grant)).await.unwrap();
}

/// Of a token nothing but its key is open: no row among the open calls, no process that would finish it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_of_a_token_whose_commit_nobody_confirmed_is_in_progress_and_then_unknown() {
    let (world, link, grant, _other) = connected().await;
    // Its narrowed token is there already: nothing is left to commit but the release.
    world.vend(token(world.read(grant))).await.unwrap();
    link.vanish_after(COMMIT);
    let refused = in_time("the release", world.vend(token(keyed(&world, grant)))).await;
    assert!(is_outage(&refused), "{refused:?}");

    link.come_back();
    let before = told_again(&world, grant).await;
    assert!(matches!(before, Refusal::InProgress { .. }), "{before:?}");
    world.later(Duration::from_secs(421));
    sweep::run(&world.deps).await.unwrap();
    let after = told_again(&world, grant).await;
    assert!(
        matches!(after, Refusal::OutcomeUnknown { entry: Some(_) }),
        "{after:?}"
    );
    let releases = world.entries().await;
    let releases = releases.iter().filter(|entry| entry.kind == EntryType::Release);
    assert_eq!(releases.count(), 3);
}

/// What a call is told that asks for the token once more. Connections of before may be met first, which are dead.
async fn told_again(world: &World, grant: GrantId) -> Refusal {
    for _ in 0..10 {
        match world.vend(token(keyed(world, grant))).await {
            Err(Refusal::StoreUnavailable(_)) => {}
            Err(refusal) => return refusal,
            Ok(vended) => panic!("released again: {vended:?}"),
        }
    }
    panic!("the database is not used again")
}

/// What begins at READ COMMITTED says the word as well.
const COMMIT: &str = "; COMMIT";
