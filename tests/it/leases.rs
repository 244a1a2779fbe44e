//! What a claim of a refresh lease and an answer that is kept wait for over PostgreSQL, and what they do not wait for.

use std::{sync::Arc, time::Duration};

use postern::{
    domain::{Clock as _, GrantId, connector::Category},
    flows::refresh::{Want, ensure},
    store::{Claim, Location, Selector},
};
use sqlx::{AssertSqlSafe, PgConnection};

use super::harness::{Proof, World, database, log_in};

pub(crate) async fn connected() -> (Arc<World>, GrantId, PgConnection) {
    let world = World::on_postgres().await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    let Location::Postgres(settings) = &world.location else {
        panic!()
    };
    let other = database::superuser(&database::name_of(settings)).await;
    (Arc::new(world), grant, other)
}

/// A claim by somebody who has just read the grant.
async fn claim(world: &Arc<World>, grant: GrantId) -> tokio::task::JoinHandle<Claim> {
    let (world, ask) = (Arc::clone(world), world.claim_ask(grant).await);
    tokio::spawn(async move { world.deps.claims.claim(ask).await.unwrap() })
}

pub(crate) async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap();
}

/// Until somebody waits for a lock in this database.
async fn until_one_waits(world: &World) {
    until_waiting(world, 1).await;
}

/// Until so many wait for a lock in this database.
pub(crate) async fn until_waiting(world: &World, count: i64) {
    let Location::Postgres(settings) = &world.location else {
        panic!()
    };
    let mut watching = database::superuser(&database::name_of(settings)).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    for _ in 0..2000 {
        let waiting = sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut watching);
        if waiting.await.unwrap() >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no {count} wait for a lock")
}

/// I4: whoever waited for a lease until an answer was kept under it would ask with a refresh token that is spent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_waited_for_an_answer_to_be_kept_is_not_given() {
    let (world, grant, mut keeper) = connected().await;
    // Its holder said nothing for long: the lease has ended, and nobody else has claimed it.
    run(
        &mut keeper,
        &format!(
            "INSERT INTO refresh_leases (org_id, grant_id, fence, holder, expires_at, intent, intent_at)
             VALUES ('{}', '{grant}', 1, 'late', 0, 'access_token', 0);
             BEGIN; UPDATE refresh_leases SET expires_at = 0, intent = NULL, intent_at = NULL WHERE grant_id = '{grant}';
             UPDATE grants SET generation = generation + 1 WHERE id = '{grant}'",
            world.org
        ),
    )
    .await;
    let waiting = claim(&world, grant).await;
    until_one_waits(&world).await;
    run(&mut keeper, "COMMIT").await;
    let claimed = waiting.await.unwrap();
    assert!(matches!(claimed, Claim::Moved), "{claimed:?}");
    // Whoever reads anew is given it.
    let claimed = claim(&world, grant).await.await.unwrap();
    assert!(
        matches!(&claimed, Claim::Ours(lease) if lease.fence == 2),
        "{claimed:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_waited_for_another_is_not_given() {
    let (world, grant, mut other) = connected().await;
    run(
        &mut other,
        &format!(
            "BEGIN; INSERT INTO refresh_leases (org_id, grant_id, fence, holder, expires_at, intent, intent_at)
             VALUES ('{}', '{grant}', 1, 'other', {}, 'access_token', 0)",
            world.org,
            (world.clock.now() + Duration::from_secs(10)).unix_micros()
        ),
    )
    .await;
    let waiting = claim(&world, grant).await;
    until_one_waits(&world).await;
    run(&mut other, "COMMIT").await;
    let claimed = waiting.await.unwrap();
    assert!(matches!(claimed, Claim::Held), "{claimed:?}");
}

/// A revoked grant's provider is asked for nothing more, even before its tombstone is written.
#[tokio::test]
async fn a_grant_under_a_floor_is_not_claimed() {
    let (world, grant, _) = connected().await;
    let ask = world.claim_ask(grant).await;
    world.revoke(Selector::Grant(grant)).await;
    let claimed = world.deps.claims.claim(ask).await.unwrap();
    assert!(matches!(claimed, Claim::Moved), "{claimed:?}");
}

/// Whoever stands in an org's line for long holds up no claim, and an answer for as long only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_line_of_an_org_holds_up_what_is_kept_and_nothing_else() {
    let (world, grant, mut first) = connected().await;
    let held = world.grant(grant).await;
    let before = world.seen("token").await.len();
    run(
        &mut first,
        &format!(
            "BEGIN; SELECT 1 FROM orgs WHERE org_id = '{}' FOR UPDATE",
            world.org
        ),
    )
    .await;
    let renewing = {
        let (world, held, than) = (Arc::clone(&world), held.clone(), Some(held.generation));
        tokio::spawn(async move { ensure(&world.deps, &held, Want::Renewed { than }).await })
    };
    // Claimed, then, and durably so.
    world.until_seen("token", before + 1).await;
    until_one_waits(&world).await;
    // Longer than the lane itself waits for anybody.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert!(!renewing.is_finished(), "it was kept before it was its turn");
    run(&mut first, "COMMIT").await;
    let obtained = renewing.await.unwrap().unwrap();
    assert!(obtained.is_fresh);
    assert_eq!(world.grant(grant).await.generation, held.generation + 1);
    assert_eq!(world.seen("token").await.len(), before + 1);
}

/// Whoever only looks at a page waits for nobody who changes the org.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_use_of_a_session_is_noted_beside_the_line_of_its_org() {
    let (world, _, mut first) = connected().await;
    let admin = log_in(&world.deps, world.org, world.ada).await;
    let Proof::Session(token) = &admin else { panic!() };
    let token = postern::crypto::random::parse_link_token(token).unwrap();
    let hash = world.deps.lookup.session(&token).unwrap();
    world.later(Duration::from_secs(60));
    run(
        &mut first,
        &format!(
            "BEGIN; SELECT 1 FROM orgs WHERE org_id = '{}' FOR UPDATE",
            world.org
        ),
    )
    .await;
    let answer = world.api().browse(&admin, "", "/activity").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    let now = tx.now();
    let row = tx.session(world.org, &hash).await.unwrap().unwrap();
    assert_eq!(row.seen_at, now);
    run(&mut first, "COMMIT").await;
}

/// Two replicas that claim the same leases, each in an order of its own, and give them back: each is given to one of them,
/// and no two transactions wait for each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crowds_of_claims_of_two_replicas_never_wait_in_a_circle() {
    let (world, _, mut watching) = connected().await;
    let mut asks = Vec::new();
    for grant in world.connect_many(24).await {
        asks.push(world.claim_ask(grant).await);
    }
    let other = world.replica().await.unwrap();
    for round in 0..20_usize {
        let mut claims = tokio::task::JoinSet::new();
        for n in 0..asks.len() {
            for deps in [&world.deps, &other] {
                // The one forwards, the other backwards.
                let place = if Arc::ptr_eq(deps, &other) {
                    asks.len() - 1 - n
                } else {
                    n
                };
                let ask = asks[(place + round) % asks.len()].clone();
                let deps = Arc::clone(deps);
                claims.spawn(async move {
                    let claim = deps.claims.claim(ask.clone()).await.unwrap();
                    if let Claim::Ours(lease) = &claim {
                        return Some((ask.grant, lease.fence));
                    }
                    assert!(matches!(claim, Claim::Held), "{claim:?}");
                    None
                });
            }
        }
        let won: Vec<_> = claims.join_all().await.into_iter().flatten().collect();
        assert_eq!(won.len(), asks.len());
        let grants_won: std::collections::BTreeSet<_> = won.iter().map(|(grant, _)| *grant).collect();
        assert_eq!(grants_won.len(), asks.len());
        for (grant, fence) in won {
            let mut tx = world.deps.store.write(world.org).await.unwrap();
            assert!(tx.release_refresh(world.org, grant, fence).await.unwrap());
            tx.commit().await.unwrap();
        }
    }
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let deadlocks: i64 = sqlx::query_scalar(deadlocks)
        .fetch_one(&mut watching)
        .await
        .unwrap();
    assert_eq!(deadlocks, 0);
}
