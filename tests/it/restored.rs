//! An older database put back, and what may hide that it is: numbers that are caught up with, other replicas that know more
//! or less, a recovery by one of them. And what must never be taken for it.

mod absent;
mod elsewhere;
mod late;
mod told;
mod went_back;

use std::{path::Path, sync::Arc, time::Duration};

use postern::{
    domain::{
        GrantId, OrgId,
        connector::Category,
        grant::GrantState,
        principal::{KeyOwner, Principal, Role},
    },
    flows::{
        Deps, Refusal, keys,
        recover::{self, Plan, Vouch},
        revoke,
        seal::{self, Disagreement, Side, Why},
        sequence,
        vend::{self, Vended},
    },
    store::{Location, Selector, StoreError},
};

use super::{
    harness::{self, World},
    sealed::{copied, forge, plans, put_back, restoring, signed},
};

const BOTH: [Category; 2] = [Category::Read, Category::Write];

/// A world over PostgreSQL with a grant, and a replica that joined it, whose directory this is.
async fn joined() -> (World, GrantId, std::path::PathBuf, Arc<Deps>) {
    let world = World::on_postgres().await;
    let grant = world.connect(world.ada, &BOTH).await;
    signed(&world).await;
    let dir = world.data_dir();
    let joined = world.replica_in(&dir).await.unwrap();
    (world, grant, dir, joined)
}

/// Puts the copy in the place of the database, whoever is at work on it.
async fn restore(world: &World, copy: &[u8]) {
    let restore = restoring(&world.location, copy).await;
    restore(world.dir.path());
}

async fn plan(deps: &Deps) -> Plan {
    let found = seal::check(deps).await.unwrap();
    let mut plans = recover::planned(deps, &found, Vouch::No).await.unwrap();
    assert_eq!(plans.len(), 1, "{plans:?}");
    plans.remove(0)
}

async fn recovered(deps: &Deps) -> Plan {
    let plan = plan(deps).await;
    recover::run(deps, &plan, "test").await.unwrap();
    plan
}

async fn is_revoked(deps: &Deps, org: OrgId, grant: GrantId) -> bool {
    let mut tx = deps.store.read(org).await.unwrap();
    let grant = tx.grant(org, grant).await.unwrap().unwrap();
    matches!(grant.state, GrantState::Revoked { .. })
}

/// A vend on a replica. Connections that a restore broke are met first.
async fn vend(world: &World, deps: &Arc<Deps>, grant: GrantId) -> Result<Vended, Refusal> {
    for _ in 0..100 {
        match vend::vend(deps, world.agent, world.read(grant)).await {
            Err(Refusal::StoreUnavailable(_)) => {}
            vended => return vended,
        }
    }
    panic!("the database is not used again")
}

/// The same of something else.
async fn unbroken<T>(mut work: impl AsyncFnMut() -> Result<T, Refusal>) -> Result<T, Refusal> {
    for _ in 0..100 {
        match work().await {
            Err(Refusal::StoreUnavailable(_)) => {}
            done => return done,
        }
    }
    panic!("the database is not used again")
}

async fn renewed(deps: &Deps) {
    unbroken(async || Ok(deps.store.renew_replica().await?))
        .await
        .unwrap();
}

/// A revocation is lost, and an admin ends something else so often before the recovery.
async fn nothing_hides_what_was_ended(changes: usize) {
    let (world, first) = World::connected().await;
    let second = world.connect(world.ben, &BOTH).await;
    signed(&world).await;
    let copy = copied(&world).await;
    world.revoke(Selector::Grant(first)).await;
    let world = put_back(world, &copy).await;
    assert!(world.deps.store.is_sealed(world.org));
    for _ in 0..changes {
        world.revoke(Selector::Grant(second)).await;
    }
    let world = world.restarted().await;
    assert!(world.deps.store.is_sealed(world.org));
    let plan = recovered(&world.deps).await;
    assert_eq!(plan.why, "older_database");
    assert!(plan.ends.contains(&Selector::Grant(first)), "{plan:?}");
    assert!(!plan.ends_everything(), "{plan:?}");
    let again = world.vend(world.read(first)).await;
    assert!(matches!(again, Err(Refusal::Revoked { .. })), "{again:?}");
    let world = world.restarted().await;
    assert!(!world.deps.store.is_sealed(world.org));
}

/// The numbers are where they were.
#[tokio::test]
async fn an_org_stays_sealed_whatever_its_numbers_come_to() {
    nothing_hides_what_was_ended(1).await;
}

/// Of what is ended then every entry is there, and there are more of them than of what is missing.
#[tokio::test]
async fn what_is_ended_while_an_org_is_sealed_hides_nothing_of_what_was_ended_before() {
    nothing_hides_what_was_ended(40).await;
}

/// Another replica, which never heard of it, goes on while nobody looks.
#[tokio::test]
async fn numbers_that_another_replica_caught_up_with_hide_nothing() {
    let (world, first, dir, joined) = joined().await;
    let second = world.connect(world.ben, &BOTH).await;
    seal::keep_up(&joined).await.unwrap();
    signed(&world).await;
    let copy = copied(&world).await;
    world.revoke(Selector::Grant(first)).await;
    joined.store.close().await;
    world.stopped().await;
    restore(&world, &copy).await;
    let joined = world.replica_in(&dir).await.unwrap();
    assert_eq!(joined.store.sealed_orgs(), 0);
    let ask = harness::ending(Selector::Grant(second));
    revoke::run(&joined, world.org, ask).await.unwrap();
    let again = world.replica_in(world.dir.path()).await.unwrap();
    assert!(again.store.is_sealed(world.org));
    assert_eq!(plan(&again).await.ends, [Selector::Grant(first)]);
}

/// A file that is lost says nothing of what was before, whatever is written into the new one.
#[tokio::test]
async fn an_org_without_a_record_stays_sealed_though_one_was_begun() {
    let (world, first) = World::connected().await;
    let second = world.connect(world.ben, &BOTH).await;
    signed(&world).await;
    // No replica that lives can vouch for it.
    world.later(Duration::from_secs(60));
    let world = world
        .restarted_after(|dir| std::fs::remove_file(dir.join("checkpoints.jsonl")).unwrap())
        .await;
    world.revoke(Selector::Grant(first)).await;
    world.later(Duration::from_secs(60));
    let world = world.restarted().await;
    assert!(world.deps.store.is_sealed(world.org));
    assert_eq!(plans(&world, Vouch::No).await[0].ends, [Selector::All(true)]);
    let plans = plans(&world, Vouch::DatabaseIsCurrent).await;
    assert_eq!((plans[0].why, plans[0].ends.len()), ("no_outside_checkpoint", 0));
    recover::run(&world.deps, &plans[0], "test").await.unwrap();
    world.vend(world.read(second)).await.unwrap();
}

/// Whoever signs knows the number of a move, and nothing of what it ended.
#[tokio::test]
async fn what_another_replica_ended_is_ended_again_by_whoever_only_signed_it() {
    let (world, first, dir, joined) = joined().await;
    let copy = copied(&world).await;
    world.revoke(Selector::Grant(first)).await;
    sequence::run(&joined, world.org).await.unwrap();
    seal::keep_up(&joined).await.unwrap();
    joined.store.close().await;
    world.stopped().await;
    restore(&world, &copy).await;
    let joined = world.replica_in(&dir).await.unwrap();
    assert!(joined.store.is_sealed(world.org));
    assert_eq!(recovered(&joined).await.ends, [Selector::All(true)]);
    joined.store.close().await;
    // The one that ended it has nothing to add: it learns of the recovery, and no second one is asked for.
    let again = world.replica_in(world.dir.path()).await.unwrap();
    assert_eq!(again.store.sealed_orgs(), 0);
    assert!(is_revoked(&again, world.org, first).await);
}

#[tokio::test]
async fn what_one_replica_alone_knows_is_ended_again_after_a_recovery_by_another() {
    let (world, first, dir, joined) = joined().await;
    let second = world.connect(world.ben, &BOTH).await;
    signed(&world).await;
    // The other one knows that something is missing, and not this.
    let copy = copied_before_the_last_of(&world, &joined, second).await;
    world.revoke(Selector::Grant(first)).await;
    world.stopped().await;
    restore(&world, &copy).await;
    let joined = world.replica_in(&dir).await.unwrap();
    assert_eq!(recovered(&joined).await.ends, []);
    assert!(!is_revoked(&joined, world.org, first).await);
    joined.store.close().await;

    let again = world.replica_in(world.dir.path()).await.unwrap();
    assert!(again.store.is_sealed(world.org));
    let plan = recovered(&again).await;
    assert_eq!(
        (plan.why, plan.ends),
        ("older_database", vec![Selector::Grant(first)])
    );
    let refused = vend(&world, &again, first).await;
    assert!(matches!(refused, Err(Refusal::Revoked { .. })), "{refused:?}");
    vend(&world, &again, second).await.unwrap();
    again.store.close().await;
    let joined = world.replica_in(&dir).await.unwrap();
    assert_eq!(joined.store.sealed_orgs(), 0);
    vend(&world, &joined, second).await.unwrap();
}

/// A copy of the database; the replica has heard of all in it, works on beyond it, signs what it wrote, and stops.
async fn copied_before_the_last_of(world: &World, joined: &Arc<Deps>, grant: GrantId) -> Vec<u8> {
    seal::keep_up(joined).await.unwrap();
    let copy = copied(world).await;
    vend(world, joined, grant).await.unwrap();
    sequence::run(joined, world.org).await.unwrap();
    joined.store.close().await;
    copy
}

/// The replica's file says from now on that the database was once found to be older.
async fn remembers_older(world: &World, deps: &Deps) {
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    let epoch = tx.epoch(world.org).await.unwrap().unwrap();
    drop(tx);
    let line = (world.org, epoch, "older_database");
    deps.store.seal_outside(vec![line]).await.unwrap();
}

/// A recovery of the org, though nothing was lost.
pub(crate) async fn plan_without_a_loss(world: &World) -> recover::Plan {
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    let epoch = tx.epoch(world.org).await.unwrap().unwrap();
    drop(tx);
    let found = Disagreement {
        org: world.org,
        why: Why::NoRecord,
        inside: Side { size: 0, epoch },
        is_remembered: false,
        is_older: false,
        is_witness_silent: false,
        agreed: epoch.counter,
        ended: Vec::new(),
        writers: [].into(),
        kept: None,
        checkpoint: None,
        witnessed: None,
    };
    world.deps.store.seal(world.org);
    recover::plan(&found, Vouch::DatabaseIsCurrent)
}

/// As if this process had recovered.
async fn recover_here(world: &World) {
    let plan = plan_without_a_loss(world).await;
    recover::run(&world.deps, &plan, "test").await.unwrap();
}

/// Its own change would bring the epoch to where it is known to have been.
#[tokio::test]
async fn an_epoch_that_is_known_is_never_begun_again() {
    let (world, grant, _, joined) = joined().await;
    let ada = Principal::User {
        org: world.org,
        user: world.ada,
        role: Role::Admin,
    };
    let make = async || keys::make(&joined, &ada, KeyOwner::Agent(world.agent.agent)).await;
    make().await.unwrap();
    world.revoke(Selector::Grant(grant)).await;
    sequence::run(&joined, world.org).await.unwrap();
    for sql in [
        "DELETE FROM floors",
        "DELETE FROM revocations",
        "UPDATE epochs SET counter = counter - 1",
    ] {
        world.raw_sql(sql).await;
    }
    let made = make().await;
    assert!(matches!(made, Err(Refusal::Sealed)), "{made:?}");
    assert!(joined.store.has_lost_entries());
}

/// The log was signed by another replica: nothing but the releases themselves is known of them.
#[tokio::test]
async fn a_replica_knows_of_its_releases_though_another_signs_the_log() {
    let (world, grant, _, joined) = joined().await;
    let copy = copied(&world).await;
    world.vend(world.read(grant)).await.unwrap();
    sequence::run(&joined, world.org).await.unwrap();
    // The worker has nothing to place.
    assert!(!sequence::round(&world.deps).await.unwrap());
    joined.store.close().await;
    let world = put_back(world, &copy).await;
    assert!(world.deps.store.is_sealed(world.org));
    let plan = plan(&world.deps).await;
    assert!(plan.ends.is_empty(), "{plan:?}");
}

#[tokio::test]
async fn a_process_that_lost_its_database_is_followed_by_one_that_is_sealed() {
    let (world, grant) = World::connected().await;
    world.vend(world.read(grant)).await.unwrap();
    let (other, others) = world.another_org("Other").await;
    world
        .raw_sql("UPDATE writers SET seq = seq - 1 WHERE writer = 'r1/hot'")
        .await;
    let lost = world.vend(world.read(grant)).await;
    assert!(matches!(lost, Err(Refusal::Sealed)), "{lost:?}");
    // Nor is the database any other organisation's.
    let lost = vend::vend(&world.deps, other, world.read(others)).await;
    assert!(matches!(lost, Err(Refusal::Sealed)), "{lost:?}");
    assert!(world.deps.store.sealed_orgs() > 0);
    // Others bring it to where it was.
    world
        .raw_sql("UPDATE writers SET seq = seq + 1 WHERE writer = 'r1/hot'")
        .await;
    let world = world.restarted().await;
    let found = plans(&world, Vouch::No).await;
    assert_eq!(found.len(), 2);
    for plan in &found {
        assert_eq!((plan.why, plan.ends.len()), ("lost_entries", 0), "{plan:?}");
        recover::run(&world.deps, plan, "test").await.unwrap();
    }
    world.vend(world.read(grant)).await.unwrap();
    let world = world.restarted().await;
    assert_eq!(world.deps.store.sealed_orgs(), 0);
}

#[tokio::test]
async fn a_replica_that_knows_of_nothing_releases_nothing_once_another_knows_better() {
    let (world, grant, _, joined) = joined().await;
    let copy = copied(&world).await;
    world.revoke(Selector::Grant(grant)).await;
    let world = put_back(world, &copy).await;
    assert!(world.deps.store.is_sealed(world.org));
    vend(&world, &joined, grant).await.unwrap();
    renewed(&joined).await;
    let refused = vend(&world, &joined, grant).await;
    assert!(matches!(refused, Err(Refusal::Sealed)), "{refused:?}");
    assert!(joined.store.sealed_orgs() > 0 && !joined.store.has_lost_entries());
    // Not even if that one is gone before it is recovered.
    world.raw_sql("UPDATE replicas SET expires_at = 0").await;
    renewed(&joined).await;
    assert!(joined.store.is_sealed(world.org));

    recovered(&world.deps).await;
    unbroken(async || seal::keep_up(&joined).await).await.unwrap();
    assert_eq!(joined.store.sealed_orgs(), 0);
    let refused = vend(&world, &joined, grant).await;
    assert!(matches!(refused, Err(Refusal::Revoked { .. })), "{refused:?}");
}

/// It knows of no org at all, or of one that was changed: neither is a word about the others' database.
#[tokio::test]
async fn a_stranger_and_a_torn_org_stop_nobody_else() {
    let (world, grant, _, joined) = joined().await;
    // Nobody else vouches for it.
    world.raw_sql("UPDATE replicas SET word = 4").await;
    let stranger = world.replica().await.unwrap();
    assert!(stranger.store.is_sealed(world.org));
    stranger.store.renew_replica().await.unwrap();
    stranger.store.seal(world.org);
    stranger.store.renew_replica().await.unwrap();
    for deps in [&world.deps, &joined] {
        deps.store.renew_replica().await.unwrap();
        vend(&world, deps, grant).await.unwrap();
    }
}

/// It has signed what the database lacks: signing something else in its place would leave no trace of the first.
#[tokio::test]
async fn a_log_does_not_go_on_from_less_than_was_signed() {
    let (world, grant, _, joined) = joined().await;
    let copy = copied(&world).await;
    world.vend(world.read(grant)).await.unwrap();
    sequence::run(&joined, world.org).await.unwrap();
    let before = joined.store.known_outside(world.org);
    let world = put_back(world, &copy).await;
    vend(&world, &world.deps, grant).await.unwrap();
    let grown = unbroken(async || sequence::run(&joined, world.org).await).await;
    assert!(matches!(grown, Err(Refusal::Sealed)), "{grown:?}");
    assert!(joined.store.has_lost_entries());
    assert_eq!(joined.store.known_outside(world.org), before);
}

/// What others did is there or not, whoever is idle.
#[tokio::test]
async fn a_replica_that_only_watches_notices_that_less_is_there_than_it_knows() {
    let (world, grant, _, joined) = joined().await;
    let copy = copied(&world).await;
    world.revoke(Selector::Grant(grant)).await;
    seal::keep_up(&joined).await.unwrap();
    let world = put_back(world, &copy).await;
    let watched = unbroken(async || seal::keep_up(&joined).await).await;
    assert!(matches!(watched, Err(Refusal::Sealed)), "{watched:?}");
    assert!(joined.store.has_lost_entries());
    drop(world);
}

#[tokio::test]
async fn a_process_whose_database_was_copied_away_is_not_sealed_over_the_copy() {
    let (world, _, _, joined) = joined().await;
    joined.store.close().await;
    world.raw_sql("UPDATE replicas SET expires_at = 0").await;
    let there = Location::Sqlite(world.dir.path().join("there.db"));
    harness::copied(&world.clock, &world.location, &there)
        .await
        .unwrap();
    let renewed = world.deps.store.renew_replica().await;
    assert!(matches!(renewed, Err(StoreError::Moved)), "{renewed:?}");
    assert!(world.deps.store.is_sealed(world.org));
    let moved = World {
        location: there,
        ..world
    };
    let world = moved.restarted().await;
    assert_eq!(world.deps.store.sealed_orgs(), 0);
}

/// Each of them moves, releases and signs in turn, and each has its own view of it.
#[tokio::test]
async fn replicas_that_worked_beside_each_other_are_sealed_at_no_start() {
    let (world, grant, dir, joined) = joined().await;
    let third = world.data_dir();
    let replicas = [
        (world.dir.path().to_path_buf(), Arc::clone(&world.deps)),
        (dir, joined),
        (third.clone(), world.replica_in(&third).await.unwrap()),
    ];
    let ada = Principal::User {
        org: world.org,
        user: world.ada,
        role: Role::Admin,
    };
    for turn in 0..12 {
        let (_, deps) = &replicas[turn % 3];
        vend(&world, deps, grant).await.unwrap();
        keys::make(deps, &ada, KeyOwner::Agent(world.agent.agent))
            .await
            .unwrap();
        let (_, other) = &replicas[turn * 2 % 3];
        sequence::round(other).await.unwrap();
        let (_, watching) = &replicas[turn / 2 % 3];
        seal::keep_up(watching).await.unwrap();
    }
    for (_, deps) in &replicas {
        assert!(!deps.store.has_lost_entries() && deps.store.sealed_orgs() == 0);
        deps.store.close().await;
    }
    for (dir, _) in &replicas {
        starts_unsealed(&world, dir).await;
    }
}

async fn starts_unsealed(world: &World, dir: &Path) {
    let alone = world.replica_in(dir).await.unwrap();
    assert_eq!(alone.store.sealed_orgs(), 0, "{}", dir.display());
    alone.store.close().await;
}
