//! A connection to PostgreSQL that breaks over the answer to a COMMIT: what was to be done is done, and nobody is told that it
//! is not.

use postern::{
    domain::{GrantId, entry::EntryType},
    flows::Refusal,
};
use serde_json::json;

use super::{
    harness::{Answer, World},
    leases::run,
    vanished::connected,
};

/// The admin ends a grant.
async fn revoke(world: &World, grant: GrantId) -> Answer {
    let body = json!({"selector": {"grant": grant}, "reason": "left"});
    world
        .api()
        .post(&world.as_admin(), "/v1/revocations", &body)
        .await
}

async fn revocations(world: &World) -> usize {
    let entries = world.entries().await;
    let revocations = entries.iter().filter(|entry| entry.kind == EntryType::Revoke);
    revocations.count()
}

fn says(answer: &Answer, status: u16, code: &str) {
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (status, code),
        "{}",
        answer.text()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_that_nobody_confirmed_may_have_been_made_and_can_be_repeated() {
    let (world, link, grant, _other) = connected().await;
    link.break_off_after(COMMIT);
    let answer = revoke(&world, grant).await;
    assert!(!link.is_to_break(), "{}", answer.text());
    says(&answer, 504, "outcome_unknown");
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("may have been done"), "{detail}");
    // It was, and Postern did not try a second time by itself.
    assert_eq!(revocations(&world).await, 1);
    let refused = world.vend(world.read(grant)).await;
    assert!(matches!(refused, Err(Refusal::Revoked { .. })), "{refused:?}");

    let again = revoke(&world, grant).await;
    assert_eq!(again.status, 200, "{}", again.text());
    assert_eq!(revocations(&world).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_over_whose_commit_the_server_ends_the_connection_may_have_been_made() {
    let (world, _link, grant, mut other) = connected().await;
    run(&mut other, END).await;
    let answer = revoke(&world, grant).await;
    says(&answer, 504, "outcome_unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_whose_commit_is_refused_was_not_made() {
    let (world, _link, grant, mut other) = connected().await;
    run(&mut other, REFUSE).await;
    let answer = revoke(&world, grant).await;
    says(&answer, 503, "store_unavailable");
    run(&mut other, "DROP TRIGGER refuse ON revocations").await;
    assert_eq!(revocations(&world).await, 0);
    world.vend(world.read(grant)).await.unwrap();
}

/// Nothing is released on it: there is nothing that the agent would have to look for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vend_that_nobody_confirmed_released_nothing_and_says_so() {
    let (world, link, grant, _other) = connected().await;
    let sent = world.seen("api").await.len();
    link.break_off_after(COMMIT);
    let body = json!({"grant": grant, "tool": "messages.list", "args": {"limit": 3}});
    let answer = world.api().post(&world.as_agent(), "/v1/vend", &body).await;
    assert!(!link.is_to_break(), "{}", answer.text());
    says(&answer, 503, "store_unavailable");
    assert_eq!(world.seen("api").await.len(), sent);
    world.vend(world.read(grant)).await.unwrap();
}

/// What begins at READ COMMITTED says the word as well.
const COMMIT: &str = "; COMMIT";
/// The server takes a revocation and then refuses to commit it.
const REFUSE: &str = "
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
    CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON revocations DEFERRABLE INITIALLY DEFERRED
      FOR EACH ROW EXECUTE FUNCTION refuse()";
/// The server ends the connection over the commit of a revocation.
const END: &str = "
    CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
      $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER leave AFTER INSERT ON revocations DEFERRABLE INITIALLY DEFERRED
      FOR EACH ROW EXECUTE FUNCTION leave()";
