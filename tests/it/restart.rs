//! The process dies without a word and starts again on the same directory; nobody else may.

use std::time::Duration;

use postern::app::{AppError, Kind};
use postern::store::{OutsideError, StoreError};
use serde_json::{Value, json};

use postern::domain::connector::Category;

use super::harness::{Proof, World, is_held, log_in, open_as};

fn list(grant: impl ToString) -> Value {
    json!({"grant": grant.to_string(), "tool": "messages.list", "args": {}})
}

#[tokio::test]
async fn a_grant_still_gives_after_a_restart() {
    let (world, grant) = World::connected().await;
    let world = world.restarted().await;
    let answer = world
        .api()
        .post(&world.as_agent(), "/v1/vend", &list(grant))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn a_grant_is_refreshed_after_a_restart() {
    let (world, grant) = World::connected().await;
    let world = world.restarted().await;
    world.later(Duration::from_secs(3700));
    let answer = world
        .api()
        .post(&world.as_agent(), "/v1/vend", &list(grant))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn every_kind_of_key_is_known_after_a_restart() {
    let world = World::new().await.restarted().await;
    for proof in [world.as_admin(), world.as_service(), world.as_agent()] {
        let answer = world.api().get(&proof, "/v1/grants").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[tokio::test]
async fn a_browser_session_survives_a_restart() {
    let world = World::new().await;
    let ada = log_in(&world.deps, world.org, world.ada).await;
    let world = world.restarted().await;
    assert_eq!(world.api().get(&ada, "/v1/users").await.status, 200);
}

#[tokio::test]
async fn a_revocation_holds_after_a_restart() {
    let (world, grant) = World::connected().await;
    let body = json!({"selector": {"grant": grant}, "reason": "test"});
    let revoked = world
        .api()
        .post(&world.as_admin(), "/v1/revocations", &body)
        .await;
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    let world = world.restarted().await;
    let answer = world
        .api()
        .post(&world.as_agent(), "/v1/vend", &list(grant))
        .await;
    assert_eq!(answer.status, 410, "{}", answer.text());
}

#[tokio::test]
async fn a_decision_that_was_spent_stays_spent_after_a_restart() {
    let (world, grant) = World::connected().await;
    let asked = world
        .api()
        .post(&world.as_agent(), "/v1/decisions", &list(grant))
        .await;
    let mut body = list(grant);
    body["decision"] = asked.json()["decision"].clone();
    let first = world.api().post(&world.as_agent(), "/v1/vend", &body).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let world = world.restarted().await;
    let again = world.api().post(&world.as_agent(), "/v1/vend", &body).await;
    assert_eq!((again.status, again.code().as_str()), (409, "decision_spent"));
}

#[tokio::test]
async fn a_decision_that_was_not_spent_is_good_after_a_restart() {
    let (world, grant) = World::connected().await;
    let asked = world
        .api()
        .post(&world.as_agent(), "/v1/decisions", &list(grant))
        .await;
    let mut body = list(grant);
    body["decision"] = asked.json()["decision"].clone();
    let world = world.restarted().await;
    let answer = world.api().post(&world.as_agent(), "/v1/vend", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn an_idempotency_key_is_remembered_after_a_restart() {
    let (world, grant) = World::connected().await;
    let mut body = list(grant);
    body["idempotency_key"] = json!("once");
    let first = world.api().post(&world.as_agent(), "/v1/vend", &body).await;
    let world = world.restarted().await;
    let again = world.api().post(&world.as_agent(), "/v1/vend", &body).await;
    assert_eq!((again.status, again.code().as_str()), (409, "already_released"));
    assert_eq!(again.json()["entry_id"], first.json()["entry_id"]);
}

/// What the dead process had not finished is finished at once: nobody else could.
#[tokio::test]
async fn a_key_whose_call_died_with_its_process_says_so_after_a_restart() {
    let world = World::on_sqlite().await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    let mut body = list(grant);
    body["idempotency_key"] = json!("once");
    let first = world.api().post(&world.as_agent(), "/v1/vend", &body).await;
    world
        .raw_sql("UPDATE idempotency SET status = NULL, code = NULL")
        .await;
    world
        .raw_sql("INSERT INTO open_calls SELECT org_id, id, ts FROM entries WHERE kind = 'release'")
        .await;
    let running = world.api().post(&world.as_agent(), "/v1/vend", &body).await;
    assert_eq!(running.code(), "in_progress");
    let world = world.restarted().await;
    let again = world.api().post(&world.as_agent(), "/v1/vend", &body).await;
    assert_eq!((again.status, again.code().as_str()), (504, "outcome_unknown"));
    assert_eq!(again.json()["entry_id"], first.json()["entry_id"]);
    let unknown = world.entries().await.into_iter().any(|entry| {
        entry.draft.outcome.as_deref() == Some("unknown")
            && first.json()["entry_id"] == json!(entry.draft.correlation)
    });
    assert!(unknown);
}

#[tokio::test]
async fn the_notarys_key_and_the_logs_key_are_the_same_after_a_restart() {
    let world = World::new().await;
    let keys = async |world: &World| {
        let notary = world
            .api()
            .get(&Proof::Nothing, "/.well-known/postern/decision-keys")
            .await;
        let log = world.api().get(&world.as_admin(), "/v1/audit/key").await;
        assert_eq!((notary.status, log.status), (200, 200));
        (notary.text(), log.text())
    };
    let before = keys(&world).await;
    let world = world.restarted().await;
    assert_eq!(keys(&world).await, before);
}

#[tokio::test]
async fn a_second_deployment_on_the_same_sqlite_file_is_refused_while_the_first_lives() {
    let world = World::on_sqlite().await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    let second = world.replica().await;
    assert!(
        matches!(second, Err(AppError::Store(StoreError::Locked))),
        "{second:?}"
    );
    world.vend(world.read(grant)).await.unwrap();
}

/// `recover` or `init` beside a running replica, with its configuration.
#[tokio::test]
async fn a_second_process_in_a_replicas_data_directory_is_refused_and_takes_nothing_from_it() {
    let world = World::on_postgres().await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    let kept = || std::fs::read_to_string(world.dir.path().join("checkpoints.jsonl")).unwrap();
    let before = kept();
    let World {
        dir,
        location,
        clock,
        acme,
        ..
    } = &world;
    let second = open_as(Kind::Dev, dir.path(), location, clock, acme).await;
    assert!(
        matches!(second, Err(AppError::Outside(OutsideError::InUse { .. }))),
        "{second:?}"
    );
    let body = json!({"selector": {"grant": grant}, "reason": "test"});
    let answer = world
        .api()
        .post(&world.as_admin(), "/v1/revocations", &body)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        kept().len() > before.len(),
        "the first one writes to a file that has no name"
    );
}

#[tokio::test]
async fn a_stop_says_outside_what_was_written_and_ends_though_somebody_has_a_connection() {
    let (world, grant) = World::connected().await;
    world.vend(world.read(grant)).await.unwrap();
    let file = world.dir.path().join("checkpoints.jsonl");
    let kept = || std::fs::read(&file).unwrap().len();
    let before = kept();
    let in_use = world.deps.store.read(world.org).await.unwrap();
    let store = world.deps.store.clone();
    let stopping = tokio::spawn(async move { store.close().await });
    for _ in 0..500 {
        if kept() > before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(kept() > before, "it is said only once nobody has a connection");
    assert!(!stopping.is_finished());
    let stopped = tokio::time::timeout(Duration::from_secs(60), stopping).await;
    stopped.expect("it waits for ever").unwrap();
    drop(in_use);
}

#[tokio::test]
async fn a_database_made_by_dev_is_not_opened_by_serve() {
    let (world, grant) = World::connected().await;
    let world = world.restarted().await;
    let World {
        deps,
        dir,
        clock,
        acme,
        location,
        ..
    } = world;
    drop(deps);
    for _ in 0..500 {
        match open_as(Kind::Serve, dir.path(), &location, &clock, &acme).await {
            Err(error) if is_held(&error) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(AppError::Refused(words)) => {
                assert!(words.contains("made by `postern dev`"), "{words}");
                return;
            }
            other => panic!("{grant}: {other:?}"),
        }
    }
    panic!("the database stays locked");
}
