//! Renewing before anybody waits: what is in use, and what would die of idleness.

use std::time::Duration;

use postern::{
    domain::connector::Category,
    flows::{refresh::ahead, vend},
};
use sqlx::PgConnection;

use super::{harness::World, leases::run};

#[tokio::test]
async fn a_token_in_use_is_renewed_before_anybody_waits_for_it() {
    let (world, grant) = World::connected().await;
    world.vend(world.read(grant)).await.unwrap();
    // Just connected: it is looked at, and its time set.
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 1);
    assert_eq!(
        ahead::look(&world.deps).await.unwrap(),
        0,
        "its time has not come"
    );
    let before = world.seen("token").await.len();
    // Acme Mail's tokens live 300 s; the last 30 s a vend would renew it itself.
    world.later(Duration::from_secs(265));
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 1);
    world.until_seen("token", before + 1).await;
    world.until_generation(grant, 2).await;
    world.later(Duration::from_secs(100));
    world.vend(world.read(grant)).await.unwrap();
    assert_eq!(
        world.seen("token").await.len(),
        before + 1,
        "the vend found it renewed"
    );
}

#[tokio::test]
async fn a_token_nobody_uses_is_left_to_end() {
    let (world, _) = World::connected().await;
    ahead::look(&world.deps).await.unwrap();
    let before = world.seen("token").await.len();
    for _ in 0..100 {
        world.later(Duration::from_secs(60));
        ahead::look(&world.deps).await.unwrap();
    }
    assert_eq!(world.seen("token").await.len(), before);
}

#[tokio::test]
async fn a_grant_that_would_die_of_idleness_is_kept_alive() {
    let world = World::with_connector(&[IDLE]).await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    // Connecting lets it be looked at; a renewal says itself when that is to be.
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 1, "its token ends first");
    for generation in 2..6 {
        assert_eq!(ahead::look(&world.deps).await.unwrap(), 0, "nothing is due yet");
        world.later(days(1));
        assert_eq!(ahead::look(&world.deps).await.unwrap(), 1, "and nobody used it");
        // Not half the time has passed.
        world.later(days(13));
        ahead::look(&world.deps).await.unwrap();
        world.later(days(9));
        assert_eq!(ahead::look(&world.deps).await.unwrap(), 1);
        world.until_generation(grant, generation).await;
    }
    assert_eq!(world.seen("token").await.len(), 1 + 4, "one renewal each time");
    // 92 days.
    world.vend(world.read(grant)).await.unwrap();
}

/// While a deployment is rolled out another replica may have the file; and this one may be given it back.
#[tokio::test]
async fn a_grant_is_kept_alive_though_its_connectors_file_was_gone_when_it_was_due() {
    let world = World::with_connector(&[IDLE]).await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 1, "its time is set");
    world.later(days(23));
    let world = world
        .restarted_after(|dir| std::fs::rename(dir.join("connectors"), dir.join("away")).unwrap())
        .await;
    assert!(world.deps.catalogue.get(&world.connector).is_none());
    assert_eq!(
        ahead::look(&world.deps).await.unwrap(),
        0,
        "nobody knows here what is due"
    );
    let world = world
        .restarted_after(|dir| std::fs::rename(dir.join("away"), dir.join("connectors")).unwrap())
        .await;
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 1);
    world.until_generation(grant, 2).await;
}

/// What becomes of grants that nobody uses may be found out long after they were connected.
#[tokio::test]
async fn a_grant_is_kept_alive_once_its_connectors_file_says_that_it_would_die() {
    let world = World::with_connector(&[]).await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 1, "its token ends first");
    world.later(days(1));
    assert_eq!(
        ahead::look(&world.deps).await.unwrap(),
        1,
        "and nothing more is due"
    );
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 0);
    let file = format!("connectors/{}.toml", world.connector);
    let world = world
        .restarted_after(|dir| {
            let file = dir.join(file);
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(text.contains(IDLE.0), "{text}");
            std::fs::write(file, text.replace(IDLE.0, IDLE.1)).unwrap();
        })
        .await;
    world.later(days(22));
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 1);
    world.until_generation(grant, 2).await;
}

/// While a deployment is rolled out, replicas of the version before may say so of grants that they have nothing to do for.
#[tokio::test]
async fn a_grant_of_which_nobody_has_said_when_it_is_looked_at_is_kept_alive() {
    let world = World::with_connector(&[IDLE]).await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 1, "its time is set");
    world
        .raw_sql(&format!("UPDATE grants SET renew_at = NULL WHERE id = '{grant}'"))
        .await;
    world.later(days(23));
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 1);
    world.until_generation(grant, 2).await;
    assert_eq!(
        ahead::look(&world.deps).await.unwrap(),
        0,
        "its time is set again"
    );
}

#[tokio::test]
async fn a_grant_that_cannot_be_renewed_is_not_looked_at_again_and_again() {
    let (world, grant) = World::connected().await;
    world
        .raw_sql(&format!(
            "UPDATE grants SET renew_at = NULL, has_refresh_token = 0 WHERE id = '{grant}'"
        ))
        .await;
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 1);
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 0);
}

#[tokio::test]
async fn a_grant_that_cannot_be_read_keeps_no_other_from_its_turn() {
    let (world, grant) = World::connected().await;
    let other = world.connect(world.ben, &[Category::Read]).await;
    for grant in [grant, other] {
        world.vend(world.read(grant)).await.unwrap();
    }
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 2, "their time is set");
    world.later(Duration::from_secs(265));
    world
        .raw_sql(&format!("UPDATE grants SET scopes = 'x' WHERE id = '{grant}'"))
        .await;
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 2);
    world.until_generation(other, 2).await;
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 0, "it is put off");
}

/// Somebody who holds these orgs until they roll back.
async fn holding(world: &World, orgs: &str) -> PgConnection {
    let mut holder = world.superuser().await;
    let line = format!("BEGIN; SELECT 1 FROM orgs WHERE {orgs} FOR UPDATE");
    run(&mut holder, &line).await;
    holder
}

/// Somebody is in an org's way for longer than anybody waits, and very much more of it is overdue than is looked at in one go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_org_of_which_nothing_can_be_taken_up_keeps_no_other_from_its_turn() {
    let world = World::on_postgres().await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    let (caller, theirs) = world.another_org("Another").await;
    let ask = world.read(theirs);
    vend::vend(&world.deps, caller, ask).await.unwrap();
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 2, "their time is set");
    world.seed(grant, 33_000).await;
    let org = world.org;
    world
        .raw_sql(&format!("UPDATE grants SET renew_at = 1 WHERE org_id = '{org}'"))
        .await;
    world.later(Duration::from_secs(265));
    let mut holder = holding(&world, &format!("org_id = '{org}'")).await;
    let before = world.seen("token").await.len();
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 1);
    world.until_seen("token", before + 1).await;
    run(&mut holder, "ROLLBACK").await;
    assert!(ahead::look(&world.deps).await.unwrap() > 1, "it is not forgotten");
}

/// There is room for one grant, and three orgs whose rows somebody holds are overdue for longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_orgs_of_which_nothing_can_be_taken_up_keep_no_other_from_its_turn() {
    let world = World::on_postgres().await;
    world.connect(world.ada, &[Category::Read]).await;
    for name in ["Second", "Third"] {
        world.another_org(name).await;
    }
    let (caller, theirs) = world.another_org("Another").await;
    let org = caller.org;
    let ask = world.read(theirs);
    vend::vend(&world.deps, caller, ask).await.unwrap();
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 4, "their time is set");
    world
        .raw_sql(&format!("UPDATE grants SET renew_at = 1 WHERE org_id <> '{org}'"))
        .await;
    world.later(Duration::from_secs(265));
    let mut holder = holding(&world, &format!("org_id <> '{org}'")).await;
    let connector = world.deps.catalogue.get(&"acme-mail".parse().unwrap()).unwrap();
    let mut rooms: Vec<_> = std::iter::from_fn(|| world.deps.flights.take_room(connector)).collect();
    rooms.pop();
    let before = world.seen("token").await.len();
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 1);
    world.until_seen("token", before + 1).await;
    run(&mut holder, "ROLLBACK").await;
}

/// A silent provider fills the room that a replica has for it; the rest is left as it is, to those who have some.
#[tokio::test]
async fn a_replica_without_room_leaves_what_is_due_to_another() {
    let world = World::on_postgres().await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    world.vend(world.read(grant)).await.unwrap();
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 1, "its time is set");
    let other = world.replica().await.unwrap();
    let connector = world.deps.catalogue.get(&"acme-mail".parse().unwrap()).unwrap();
    let mut rooms: Vec<_> = std::iter::from_fn(|| world.deps.flights.take_room(connector)).collect();
    world.later(Duration::from_secs(265));
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 0);
    assert_eq!(ahead::look(&other).await.unwrap(), 1);
    world.until_generation(grant, 2).await;
    // And with room for one it looks at one.
    rooms.pop();
    let more = world.connect(world.ben, &[Category::Read]).await;
    assert_ne!(more, grant);
    assert_eq!(ahead::look(&world.deps).await.unwrap(), 1);
}

/// What the file says and what it says instead of a provider that lets grants die of idleness.
const IDLE: (&str, &str) = ("rotates = true", "rotates = true\nidle_days = 30");

fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 3600)
}
