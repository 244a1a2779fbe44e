//! What recovery makes of keys, engines, agents and decisions that an older database brings back.

use std::{path::Path, process::Command, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer as _, SigningKey};
use postern::{
    crypto::{
        api_key,
        digest::{base64url, base64url_decode, hex, sha256},
    },
    domain::{
        GrantId,
        decision::UnverifiedDecision,
        principal::{KeyKind, KeyOwner, Principal, Role},
        secret::ApiKey,
    },
    flows::{
        Refusal, apply, authenticate, decide, engines, keys,
        recover::{self, Plan, Vouch},
        seal, sequence,
        vend::Vended,
    },
    release::DecisionError,
    store::{EngineRow, Location, Selector},
};
use serde_json::{Value, json};

use super::{
    harness::{World, database},
    sealed::{copied, put_file_back},
};

const ENGINE: &str = "https://engine.example";

/// Starts the world again with the copy in its database's place.
async fn put_back(world: World, copy: &[u8]) -> World {
    let server = match &world.location {
        Location::Sqlite(_) => None,
        Location::Postgres(settings) => {
            let name = database::name_of(settings);
            Some((database::settings("postgres", "postgres").await.url, name))
        }
    };
    let restored = |dir: &Path| {
        let Some((url, name)) = server else {
            return put_file_back(dir, copy);
        };
        let file = dir.join("copy.db");
        std::fs::write(&file, copy).unwrap();
        let drop = format!("DROP DATABASE {name} WITH (FORCE)");
        for command in [
            Command::new("psql").args(["--quiet", "--command", &drop, &url]),
            Command::new("pg_restore")
                .args(["--create", "--dbname", &url])
                .arg(file),
        ] {
            let ended = command.output().unwrap();
            assert!(ended.status.success(), "{command:?}: {ended:?}");
        }
    };
    world.restarted_after(restored).await
}

async fn signed(world: &World) {
    sequence::run(&world.deps, world.org).await.unwrap();
}

/// The one plan there is, as an admin is shown it.
async fn plan(world: &World, vouch: Vouch) -> Plan {
    let found = seal::check(&world.deps).await.unwrap();
    let mut plans = recover::planned(&world.deps, &found, vouch).await.unwrap();
    assert_eq!(plans.len(), 1, "{plans:?}");
    plans.remove(0)
}

async fn recovered(world: &World) -> Plan {
    let plan = plan(world, Vouch::No).await;
    recover::run(&world.deps, &plan, "test").await.unwrap();
    plan
}

/// A person who administers: no key has to live for that.
fn ada(world: &World) -> Principal {
    Principal::User {
        org: world.org,
        user: world.ada,
        role: Role::Admin,
    }
}

/// Gives the agent a key in place of the one that a recovery ended.
pub async fn given_a_key(world: &mut World) {
    let owner = KeyOwner::Agent(world.agent.agent);
    let made = keys::make(&world.deps, &ada(world), owner).await.unwrap();
    world.agent.key = made.row.id;
}

async fn applied(world: &World, document: &Value) {
    let document = toml::to_string(document).unwrap();
    apply::apply(&world.deps, world.org, "test".to_owned(), &document)
        .await
        .unwrap();
}

fn signer() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

async fn with_an_engine(world: &World) {
    let x = base64url(signer().verifying_key().as_bytes());
    let engine = json!({
        "name": "House", "iss": ENGINE, "alg": "EdDSA", "connectors": ["acme-mail"], "tools": ["*"],
        "public_key_jwk": {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "house-1"},
    });
    applied(world, &json!({"engine": [engine]})).await;
}

async fn engine(world: &World) -> EngineRow {
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    tx.engines(world.org).await.unwrap().remove(0)
}

async fn lets_in(world: &World, kind: KeyKind, text: &str) -> bool {
    let (_, key) = api_key::parse(text).unwrap();
    lets_in_by(world, kind, &key).await
}

async fn lets_in_by(world: &World, kind: KeyKind, key: &ApiKey) -> bool {
    match authenticate::by_key(&world.deps, kind, key).await {
        Ok(_) => true,
        Err(Refusal::Unauthenticated) => false,
        Err(other) => panic!("{other:?}"),
    }
}

/// Which of the keys of the demo organisation work: admin, service, agent.
async fn living(world: &World) -> [bool; 3] {
    [
        lets_in(world, KeyKind::Admin, &world.admin_key).await,
        lets_in(world, KeyKind::Service, &world.service_key).await,
        lets_in(world, KeyKind::Agent, &world.agent_key).await,
    ]
}

async fn present(world: &World, grant: GrantId, jws: &str) -> Result<Vended, Refusal> {
    let mut ask = world.read(grant);
    ask.decision = Some(UnverifiedDecision(jws.to_owned()));
    world.vend(ask).await
}

async fn decided(world: &World, grant: GrantId) -> String {
    let ask = world.read(grant);
    decide::decide(&world.deps, world.agent, &ask).await.unwrap().jws
}

/// The same decision, as the engine signs it.
fn of_the_engine(jws: &str) -> String {
    let payload = base64url_decode(jws.split('.').nth(1).unwrap()).unwrap();
    let mut claims: Value = serde_json::from_slice(&payload).unwrap();
    claims["iss"] = json!(ENGINE);
    let header = json!({"typ": "action-decision+jwt", "alg": "EdDSA", "kid": "house-1"});
    let input = format!(
        "{}.{}",
        base64url(header.to_string().as_bytes()),
        base64url(claims.to_string().as_bytes())
    );
    let signature = signer().sign(input.as_bytes()).to_bytes();
    format!("{input}.{}", base64url(&signature))
}

#[tokio::test]
async fn an_api_key_revoked_since_lets_nobody_in_after_recovery() {
    let (world, grant) = World::connected().await;
    let stolen = keys::make(&world.deps, &ada(&world), KeyOwner::Admin)
        .await
        .unwrap();
    signed(&world).await;
    let copy = copied(&world).await;
    keys::revoke(&world.deps, &ada(&world), stolen.row.id)
        .await
        .unwrap();
    signed(&world).await;
    let mut world = put_back(world, &copy).await;
    // The database alone would let whoever stole it in.
    assert!(lets_in_by(&world, KeyKind::Admin, &stolen.key).await);
    let plan = recovered(&world).await;
    assert_eq!(
        (plan.ends_api_keys, plan.ends_engines),
        (Some(4), Some(0)),
        "{plan:?}"
    );
    assert!(!lets_in_by(&world, KeyKind::Admin, &stolen.key).await);
    // Which others were revoked since is not known either.
    assert_eq!(living(&world).await, [false; 3]);
    let again = world.vend(world.read(grant)).await;
    assert!(matches!(again, Err(Refusal::Unauthenticated)), "{again:?}");
    given_a_key(&mut world).await;
    let again = world.vend(world.read(grant)).await;
    assert!(matches!(again, Err(Refusal::Revoked { .. })), "{again:?}");
}

/// Nobody could administer the organisation else: sessions end, and every way to a key needs one or the other.
#[tokio::test]
async fn whoever_recovers_goes_on_with_a_new_admin_key() {
    let (world, _) = World::connected().await;
    signed(&world).await;
    let copy = copied(&world).await;
    applied(&world, &json!({"agent": [{"name": "Another"}]})).await;
    let world = put_back(world, &copy).await;
    let planned = plan(&world, Vouch::No).await;
    let key = planned.admin_key.as_ref().unwrap();
    assert!(!lets_in_by(&world, KeyKind::Admin, key).await, "not yet");
    let shown = serde_json::to_string(&planned).unwrap();
    assert!(
        !shown.contains(key.expose_secret()) && shown.contains("\"ends_api_keys\":3"),
        "{shown}"
    );
    recover::run(&world.deps, &planned, "test").await.unwrap();
    assert!(lets_in_by(&world, KeyKind::Admin, key).await);
    let told = world.entries().await;
    let told = |outcome: &str| {
        told.iter()
            .filter(|entry| entry.draft.outcome.as_deref() == Some(outcome))
            .count()
    };
    assert_eq!((told("key_revoked"), told("key_created")), (3, 1));
}

#[tokio::test]
async fn an_engine_disabled_since_decides_nothing_after_recovery() {
    let (world, _) = World::connected().await;
    with_an_engine(&world).await;
    signed(&world).await;
    let copy = copied(&world).await;
    let id = engine(&world).await.id;
    engines::disable(&world.deps, world.org, id, "test".to_owned())
        .await
        .unwrap();
    let world = put_back(world, &copy).await;
    assert!(engine(&world).await.disabled_at.is_none());
    let plan = recovered(&world).await;
    assert_eq!(plan.ends_engines, Some(1), "{plan:?}");
    assert!(engine(&world).await.disabled_at.is_some());
    assert!(world.entries().await.iter().any(|entry| {
        entry.draft.outcome.as_deref() == Some("engine_disabled")
            && entry.draft.correlation == Some(id.to_string())
    }));
}

#[tokio::test]
async fn an_agent_revoked_since_stays_disabled_though_everything_is_ended() {
    let (world, _) = World::connected().await;
    signed(&world).await;
    let copy = copied(&world).await;
    world.revoke(Selector::Agent(world.agent.agent)).await;
    applied(&world, &json!({"agent": [{"name": "Another"}]})).await;
    let world = put_back(world, &copy).await;
    let plan = recovered(&world).await;
    assert_eq!(
        plan.ends,
        [Selector::All(true), Selector::Agent(world.agent.agent)]
    );
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    let agent = tx.agent(world.org, world.agent.agent).await.unwrap().unwrap();
    assert!(agent.disabled_at.is_some());
}

#[tokio::test]
async fn keys_and_engines_live_on_where_it_is_known_what_else_was_ended() {
    let (world, grant) = World::connected().await;
    with_an_engine(&world).await;
    signed(&world).await;
    let copy = copied(&world).await;
    world.revoke(Selector::Grant(grant)).await;
    let world = put_back(world, &copy).await;
    let plan = recovered(&world).await;
    assert_eq!(plan.ends, [Selector::Grant(grant)]);
    assert!(plan.ends_api_keys.is_none() && plan.ends_engines.is_none() && plan.admin_key.is_none());
    assert_eq!(living(&world).await, [true; 3]);
    assert!(engine(&world).await.disabled_at.is_none());
}

/// The world, started again where nothing is kept outside of its database any more.
async fn forgotten_outside(world: World) -> World {
    // No replica that lives can vouch for it.
    world.later(Duration::from_secs(60));
    world
        .restarted_after(|dir| std::fs::remove_file(dir.join("checkpoints.jsonl")).unwrap())
        .await
}

#[tokio::test]
async fn whoever_vouches_for_the_database_ends_no_key() {
    let (world, grant) = World::connected().await;
    with_an_engine(&world).await;
    signed(&world).await;
    let world = forgotten_outside(world).await;
    let plan = plan(&world, Vouch::DatabaseIsCurrent).await;
    assert!(plan.ends.is_empty() && plan.ends_api_keys.is_none() && plan.admin_key.is_none());
    recover::run(&world.deps, &plan, "test").await.unwrap();
    assert_eq!(living(&world).await, [true; 3]);
    assert!(engine(&world).await.disabled_at.is_none());
    world.vend(world.read(grant)).await.unwrap();
}

/// Nothing that was kept outside names it: only the recovery itself knows.
#[tokio::test]
async fn what_a_recovery_ended_for_want_of_a_record_is_not_given_back_by_an_older_database() {
    let (world, _) = World::connected().await;
    signed(&world).await;
    let copy = copied(&world).await;
    let world = forgotten_outside(world).await;
    recovered(&world).await;
    signed(&world).await;
    let world = put_back(world, &copy).await;
    let plan = recovered(&world).await;
    assert_eq!(
        (plan.why, plan.ends),
        ("older_database", vec![Selector::All(true)])
    );
    assert_eq!(living(&world).await, [false; 3]);
}

#[tokio::test]
async fn a_decision_spent_in_what_was_lost_releases_nothing_after_recovery() {
    let (world, grant) = World::connected().await;
    with_an_engine(&world).await;
    let own = decided(&world, grant).await;
    let external = of_the_engine(&decided(&world, grant).await);
    signed(&world).await;
    let copy = copied(&world).await;
    for jws in [&own, &external] {
        present(&world, grant, jws).await.unwrap();
    }
    signed(&world).await;
    let world = put_back(world, &copy).await;
    let plan = recovered(&world).await;
    assert!(plan.ends.is_empty(), "{plan:?}");
    for jws in [&own, &external] {
        let again = present(&world, grant, jws).await;
        assert!(
            matches!(again, Err(Refusal::DecisionRejected(DecisionError::Stale))),
            "{again:?}"
        );
    }
    // What is decided in the call itself is of the new epoch, also in the same second.
    world.vend(world.read(grant)).await.unwrap();
    // Later than any replica's clock could have been ahead.
    world.later(Duration::from_secs(6));
    let later = decided(&world, grant).await;
    present(&world, grant, &later).await.unwrap();
}

/// It covers no grant and no person, and outlives a restart.
#[tokio::test]
async fn a_recovery_is_remembered_by_the_database_it_left() {
    let (world, grant) = World::connected().await;
    let spent = decided(&world, grant).await;
    signed(&world).await;
    let copy = copied(&world).await;
    present(&world, grant, &spent).await.unwrap();
    signed(&world).await;
    let world = put_back(world, &copy).await;
    recovered(&world).await;
    let world = world.restarted().await;
    let again = present(&world, grant, &spent).await;
    assert!(
        matches!(again, Err(Refusal::DecisionRejected(DecisionError::Stale))),
        "{again:?}"
    );
    world.vend(world.read(grant)).await.unwrap();
}

/// Counting is for the receipt alone.
#[tokio::test]
async fn what_cannot_be_counted_is_ended_all_the_same() {
    let (world, grant) = World::connected().await;
    signed(&world).await;
    let copy = copied(&world).await;
    world.revoke(Selector::Grant(grant)).await;
    let world = put_back(world, &copy).await;
    let rename = async |from: &str, to: &str| {
        database::raw_sql(&world.location, &format!("ALTER TABLE {from} RENAME TO {to}")).await;
    };
    rename("delegations", "hidden").await;
    let plan = recovered(&world).await;
    rename("hidden", "delegations").await;
    assert_eq!(plan.ends, [Selector::Grant(grant)]);
    let again = world.vend(world.read(grant)).await;
    assert!(matches!(again, Err(Refusal::Revoked { .. })), "{again:?}");
}

/// The URL of a witness that nobody is at, and its key.
fn silent_witness() -> String {
    let public = signer().verifying_key().to_bytes();
    let id = sha256(&[&b"silent.example\n\x04"[..], &public[..]].concat());
    let key = STANDARD.encode([&[4][..], &public[..]].concat());
    format!(
        "http://127.0.0.1:9/prefix\nsilent.example+{}+{key}",
        hex(&id[..4])
    )
}

/// It has cosigned what was lost, and would else seal the org again, for everything, as soon as it is there.
#[tokio::test]
async fn a_recovery_answers_a_witness_that_was_not_there_for_what_is_known_without_it() {
    let (world, grant) = World::connected().await;
    signed(&world).await;
    let copy = copied(&world).await;
    for _ in 0..4 {
        world.vend(world.read(grant)).await.unwrap();
    }
    signed(&world).await;
    std::fs::write(world.dir.path().join("witness"), silent_witness()).unwrap();
    let world = put_back(world, &copy).await;
    let found = seal::check_for_recovery(&world.deps).await.unwrap();
    let plan = recover::plan(&found[0], Vouch::No);
    assert!(plan.witness_silent && plan.ends.is_empty(), "{plan:?}");
    recover::run(&world.deps, &plan, "test").await.unwrap();
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    let answered = tx.sink_cursor(world.org, "witness:silent.example").await.unwrap();
    assert_eq!(answered, plan.outside.unwrap().entries);
}
