//! A database that is older than what is kept outside of it starts sealed, and recovery gives nothing back.

mod beside;
mod lanes;
mod newcomers;
mod unfinished;

use std::{path::Path, process::Command, time::Duration};

use postern::{
    domain::{GrantId, connector::Category},
    flows::{
        Refusal, apply, found,
        recover::{self, Plan, Vouch},
        refresh::{self, doubt, spooled},
        revoke::{self, Ask},
        seal, sequence,
        vend::Vended,
    },
    store::{Location, Selector},
};
use serde_json::json;

use super::{
    harness::{World, database},
    spool,
};

const FILE: &str = "checkpoints.jsonl";

/// A copy of the database as it is now: a file of SQLite's, or what `pg_dump` makes of the whole.
pub async fn copied(world: &World) -> Vec<u8> {
    let copy = world.dir.path().join("copy.db");
    let _none = std::fs::remove_file(&copy);
    match &world.location {
        Location::Sqlite(path) => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
            let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
            sqlx::query("VACUUM INTO $1")
                .bind(copy.to_str().unwrap())
                .execute(&pool)
                .await
                .unwrap();
            pool.close().await;
        }
        Location::Postgres(settings) => {
            let own = database::settings("postgres", &database::name_of(settings)).await;
            let mut dump = Command::new("pg_dump");
            done(
                dump.args(["--create", "--format=custom", "--file"])
                    .arg(&copy)
                    .arg(own.url),
            );
        }
    }
    std::fs::read(copy).unwrap()
}

/// Starts the world again with the copy in its database's place.
pub async fn put_back(world: World, copy: &[u8]) -> World {
    let location = world.location.clone();
    let restore = restoring(&location, copy).await;
    world.restarted_after(restore).await
}

/// Puts the copy in the place of the database, given a data directory; whoever has the database loses their connections.
pub async fn restoring(location: &Location, copy: &[u8]) -> impl FnOnce(&Path) {
    let server = match location {
        Location::Sqlite(_) => None,
        Location::Postgres(settings) => {
            let name = database::name_of(settings);
            Some((database::settings("postgres", "postgres").await.url, name))
        }
    };
    move |dir: &Path| match server {
        None => put_file_back(dir, copy),
        Some((url, name)) => {
            let file = dir.join("copy.db");
            std::fs::write(&file, copy).unwrap();
            let drop = format!("DROP DATABASE {name} WITH (FORCE)");
            done(Command::new("psql").args(["--quiet", "--command", &drop, &url]));
            done(
                Command::new("pg_restore")
                    .args(["--create", "--dbname", &url])
                    .arg(file),
            );
        }
    }
}

fn done(command: &mut Command) {
    let ended = command.output().unwrap();
    assert!(ended.status.success(), "{command:?}: {ended:?}");
}

pub fn put_file_back(dir: &Path, copy: &[u8]) {
    for beside in ["postern.db-wal", "postern.db-shm"] {
        let _none = std::fs::remove_file(dir.join(beside));
    }
    std::fs::write(dir.join("postern.db"), copy).unwrap();
}

pub async fn signed(world: &World) {
    sequence::run(&world.deps, world.org).await.unwrap();
}

async fn revoke(world: &World, selector: Selector) {
    let ask = Ask {
        selector,
        reason: "test".to_owned(),
        drain: false,
        by: "test".to_owned(),
    };
    revoke::run(&world.deps, world.org, ask).await.unwrap();
}

async fn vend(world: &World, grant: GrantId) -> Result<Vended, Refusal> {
    world.vend(world.read(grant)).await
}

pub async fn plans(world: &World, vouch: Vouch) -> Vec<Plan> {
    let found = seal::check(&world.deps).await.unwrap();
    found.iter().map(|found| recover::plan(found, vouch)).collect()
}

/// A world with two grants whose database was put back to before `since` happened.
async fn put_back_before(since: impl AsyncFnOnce(&World, GrantId)) -> (World, GrantId, GrantId) {
    let (world, first) = World::connected().await;
    let second = world.connect(world.ben, &[Category::Read, Category::Write]).await;
    signed(&world).await;
    let copy = copied(&world).await;
    since(&world, first).await;
    signed(&world).await;
    let world = put_back(world, &copy).await;
    (world, first, second)
}

/// Whoever asks with a refresh token that was asked with before may end the grant.
#[tokio::test]
async fn nothing_is_asked_of_a_provider_in_the_name_of_a_sealed_org() {
    let (world, first) = World::connected().await;
    world.later(Duration::from_secs(400));
    world
        .fault(json!({"next": "token", "hang_up": true, "after": true, "times": 1}))
        .await;
    vend(&world, first).await.unwrap_err();
    signed(&world).await;
    let copy = copied(&world).await;
    world.later(Duration::from_secs(3));
    vend(&world, first).await.unwrap();
    signed(&world).await;
    let world = put_back(world, &copy).await;
    assert!(world.deps.store.is_sealed(world.org));
    let before = world.seen("token").await.len();
    world.later(Duration::from_secs(20));
    assert_eq!(doubt::ask_again(&world.deps).await.unwrap(), 0);
    assert!(matches!(
        doubt::settle(&world.deps, world.org, first).await,
        Err(Refusal::Sealed)
    ));
    let grant = world.grant(first).await;
    let than = Some(grant.generation);
    let asked = refresh::ensure(&world.deps, &grant, refresh::Want::Renewed { than }).await;
    assert!(matches!(asked, Err(Refusal::Sealed)), "{asked:?}");
    assert_eq!(world.seen("token").await.len(), before);
}

/// It may hold the one token that is good. An admin decides first; then it is the grant's, though the grant is older than it.
#[tokio::test]
async fn a_spooled_answer_of_a_sealed_org_is_entered_once_it_is_recovered_and_never_ended() {
    let mut answered = None;
    let (world, first, _) = put_back_before(async |world, first| {
        world.later(Duration::from_secs(400));
        vend(world, first).await.unwrap();
        answered = Some(spool::spooled(world, first).await);
    })
    .await;
    let answered = answered.unwrap();
    assert!(world.deps.store.is_sealed(world.org));
    assert_eq!(spooled::drain(&world.deps).await, 0);
    assert!(world.deps.spool.holds(first));
    assert_eq!(spool::files(&world).len(), 1);
    assert_eq!(spool::ended(&world).await, [] as [&str; 0]);

    assert!(world.grant(first).await.generation < answered.generation);
    recover::run(&world.deps, &plans(&world, Vouch::No).await[0], "test")
        .await
        .unwrap();
    assert_eq!(spooled::drain(&world.deps).await, 1);
    assert_eq!(world.grant(first).await.generation, answered.generation + 1);
    assert!(spool::is_kept(&world, &answered).await);
    assert!(spool::files(&world).is_empty() && !spool::is_in_doubt(&world, first).await);
    assert_eq!(spool::ended(&world).await, [] as [&str; 0]);
}

#[tokio::test]
async fn a_database_put_back_vends_nothing_and_still_revokes_and_shows() {
    let (world, first, second) = put_back_before(async |world, first| {
        vend(world, first).await.unwrap();
    })
    .await;
    assert!(world.deps.store.is_sealed(world.org));
    assert!(matches!(vend(&world, second).await, Err(Refusal::Sealed)));
    let api = world.api();
    let body = json!({"grant": first.to_string(), "tool": "messages.list", "args": {}});
    let answer = api.post(&world.as_agent(), "/v1/vend", &body).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "sealed"));
    assert_eq!(api.get(&world.as_admin(), "/v1/audit/entries").await.status, 200);
    assert_eq!(
        api.get(&world.as_admin(), "/v1/audit/checkpoint").await.status,
        200
    );
    let body = json!({"selector": {"grant": first}, "reason": "test"});
    let answer = api.post(&world.as_admin(), "/v1/revocations", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    drop(api);
    // Nor does what it does meanwhile make it whole.
    let world = world.restarted().await;
    assert!(world.deps.store.is_sealed(world.org));
}

#[tokio::test]
async fn recovery_says_what_is_lost() {
    let (world, ..) = put_back_before(async |world, first| {
        vend(world, first).await.unwrap();
        revoke(world, Selector::Grant(first)).await;
    })
    .await;
    let plans = plans(&world, Vouch::No).await;
    let [plan] = plans.as_slice() else {
        panic!("{plans:?}")
    };
    assert_eq!((plan.why, plan.org), ("older_database", world.org));
    let outside = plan.outside.as_ref().unwrap();
    assert_eq!(outside.entries - plan.inside.entries, 4);
    assert_eq!(outside.epoch.counter - plan.inside.epoch.counter, 1);
    let lost = |writer: &str| {
        plan.lost_entries
            .get(writer)
            .map(|(first, last)| last - first + 1)
    };
    assert_eq!((lost("r1/hot"), lost("r1/cold")), (Some(3), Some(1)));
}

#[tokio::test]
async fn recovery_ends_again_what_was_revoked_since_and_nothing_else() {
    let (world, first, second) = put_back_before(async |world, first| {
        revoke(world, Selector::Grant(first)).await;
    })
    .await;
    let plans = plans(&world, Vouch::DatabaseIsCurrent).await;
    assert_eq!(plans[0].ends, [Selector::Grant(first)]);
    let old = world
        .deps
        .store
        .read(world.org)
        .await
        .unwrap()
        .epoch(world.org)
        .await
        .unwrap()
        .unwrap();
    recover::run(&world.deps, &plans[0], "test").await.unwrap();
    assert!(matches!(vend(&world, first).await, Err(Refusal::Revoked { .. })));
    vend(&world, second).await.unwrap();
    let new = world
        .deps
        .store
        .read(world.org)
        .await
        .unwrap()
        .epoch(world.org)
        .await
        .unwrap()
        .unwrap();
    assert_ne!(new.incarnation, old.incarnation);
    assert_eq!(new.counter, old.counter + 2);
    signed(&world).await;
    let world = world.restarted().await;
    assert!(!world.deps.store.is_sealed(world.org));
    assert!(matches!(vend(&world, first).await, Err(Refusal::Revoked { .. })));
    let recovered = world.entries().await;
    assert!(
        recovered
            .iter()
            .any(|entry| entry.draft.outcome.as_deref() == Some("recovered"))
    );
}

#[tokio::test]
async fn a_still_older_database_put_back_after_a_recovery_gives_nothing_back_either() {
    let (world, first) = World::connected().await;
    let second = world.connect(world.ben, &[Category::Read, Category::Write]).await;
    signed(&world).await;
    let oldest = copied(&world).await;
    revoke(&world, Selector::Grant(first)).await;
    signed(&world).await;
    let newer = copied(&world).await;
    revoke(&world, Selector::Grant(second)).await;
    signed(&world).await;
    let world = put_back(world, &newer).await;
    recover::run(&world.deps, &plans(&world, Vouch::No).await[0], "test")
        .await
        .unwrap();
    let world = put_back(world, &oldest).await;
    recover::run(&world.deps, &plans(&world, Vouch::No).await[0], "test")
        .await
        .unwrap();
    for grant in [first, second] {
        assert!(matches!(vend(&world, grant).await, Err(Refusal::Revoked { .. })));
    }
}

#[tokio::test]
async fn a_policy_changed_since_ends_everything_on_recovery() {
    let (mut world, first, second) = put_back_before(async |world, _| {
        let document = "[[agent]]\nname = \"Another\"\n";
        apply::apply(&world.deps, world.org, "test".to_owned(), document)
            .await
            .unwrap();
    })
    .await;
    let plans = plans(&world, Vouch::DatabaseIsCurrent).await;
    assert_eq!(plans[0].ends, [Selector::All(true)]);
    recover::run(&world.deps, &plans[0], "test").await.unwrap();
    super::recovered::given_a_key(&mut world).await;
    for grant in [first, second] {
        assert!(matches!(vend(&world, grant).await, Err(Refusal::Revoked { .. })));
    }
}

/// Makes the log's tree another one.
pub async fn forge(world: &World) {
    let zeros = match &world.location {
        Location::Sqlite(_) => "zeroblob(length(hashes))",
        Location::Postgres(_) => "decode(repeat('00', length(hashes)), 'hex')",
    };
    world
        .raw_sql(&format!("UPDATE tiles SET hashes = {zeros} WHERE level = 0"))
        .await;
}

#[tokio::test]
async fn a_database_of_which_nothing_is_kept_outside_is_sealed_until_somebody_vouches_for_it() {
    let (world, grant) = World::connected().await;
    signed(&world).await;
    // No replica that lives can vouch for it.
    world.later(Duration::from_secs(60));
    let world = world
        .restarted_after(|dir| std::fs::remove_file(dir.join(FILE)).unwrap())
        .await;
    assert!(matches!(vend(&world, grant).await, Err(Refusal::Sealed)));
    assert_eq!(plans(&world, Vouch::No).await[0].ends, [Selector::All(true)]);
    let plans = plans(&world, Vouch::DatabaseIsCurrent).await;
    assert!(plans[0].ends.is_empty());
    recover::run(&world.deps, &plans[0], "test").await.unwrap();
    vend(&world, grant).await.unwrap();
}

#[tokio::test]
async fn a_database_with_another_history_is_sealed() {
    let (world, grant) = World::connected().await;
    signed(&world).await;
    forge(&world).await;
    let world = world.restarted().await;
    assert!(matches!(vend(&world, grant).await, Err(Refusal::Sealed)));
    let plans = plans(&world, Vouch::DatabaseIsCurrent).await;
    assert_eq!(
        (plans[0].why, plans[0].ends.as_slice()),
        ("other_history", &[Selector::All(true)][..])
    );
}

#[tokio::test]
async fn a_process_that_died_before_it_told_the_outside_is_not_sealed() {
    let (world, grant) = World::connected().await;
    signed(&world).await;
    vend(&world, grant).await.unwrap();
    signed(&world).await;
    let world = world
        .restarted_after(|dir| {
            let text = std::fs::read_to_string(dir.join(FILE)).unwrap();
            let last = text.trim_end().rfind('\n').unwrap();
            std::fs::write(dir.join(FILE), &text[..=last + 10]).unwrap();
        })
        .await;
    assert!(!world.deps.store.is_sealed(world.org));
    vend(&world, grant).await.unwrap();
}

/// As on a standby that missed it: no number of the writer that releases is missing.
#[tokio::test]
async fn a_database_that_forgets_a_revocation_releases_nothing_to_whoever_knows_of_it() {
    let (world, grant) = World::connected().await;
    vend(&world, grant).await.unwrap();
    revoke(&world, Selector::Grant(grant)).await;
    for sql in [
        "DELETE FROM floors",
        "DELETE FROM revocations",
        "DELETE FROM entries WHERE kind = 'revoke'",
        "UPDATE writers SET seq = seq - 1 WHERE writer = 'r1/cold'",
        "UPDATE epochs SET counter = counter - 1",
    ] {
        world.raw_sql(sql).await;
    }
    let again = vend(&world, grant).await;
    assert!(matches!(again, Err(Refusal::Sealed)), "{again:?}");
    assert!(world.deps.store.has_lost_entries());
}

/// The last thing it committed is missing, in one org of two: nobody asks for anything.
#[tokio::test]
async fn an_idle_replica_notices_that_its_last_entry_alone_is_missing() {
    let (world, grant) = World::connected().await;
    found::found(&world.deps, "Second", "eve@second.example")
        .await
        .unwrap();
    vend(&world, grant).await.unwrap();
    world.deps.store.look_for_lost_entries().await.unwrap();
    let back = format!(
        "UPDATE writers SET seq = seq - 1 WHERE writer = 'r1/hot' AND org_id = '{}'",
        world.org
    );
    world.raw_sql(&back).await;
    world.deps.store.look_for_lost_entries().await.unwrap_err();
    assert!(world.deps.store.has_lost_entries());
}

#[tokio::test]
async fn a_replica_whose_database_forgets_its_entries_releases_nothing_and_says_so() {
    let (world, grant) = World::connected().await;
    vend(&world, grant).await.unwrap();
    world
        .raw_sql("UPDATE writers SET seq = seq - 1 WHERE writer = 'r1/hot'")
        .await;
    assert!(matches!(vend(&world, grant).await, Err(Refusal::Sealed)));
    assert!(world.deps.store.has_lost_entries());
}

#[tokio::test]
async fn an_idle_replica_notices_too_that_its_database_was_put_back() {
    let (world, grant) = World::connected().await;
    vend(&world, grant).await.unwrap();
    assert!(world.deps.store.look_for_lost_entries().await.is_ok());
    world.raw_sql("UPDATE writers SET seq = 1").await;
    assert!(world.deps.store.look_for_lost_entries().await.is_err());
    assert!(world.deps.store.has_lost_entries());
}
