//! Very many changes in one org, or messages of one that hang, keep no other org's from being told; and of one grant the
//! receiver hears one thing after the other.

use std::{sync::Arc, time::Duration};

use postern::{
    domain::{GrantId, OrgId, connector::Category},
    flows::{Refusal, notify},
};
use tokio::task::JoinHandle;

use super::{Receiver, found_dead, org_of, reconnect};
use crate::harness::{World, database};

/// An org has messages under way at most.
const OF_ONE_ORG: usize = 8;

impl Receiver {
    /// Leaves an org's messages without an answer.
    fn hold(&self, org: OrgId) {
        self.held.send_replace(Some(org));
    }

    /// Answers them.
    fn let_go(&self) {
        self.held.send_replace(None);
    }

    /// Whose the messages so far were.
    fn orgs(&self) -> Vec<OrgId> {
        let got = self.got.lock().unwrap();
        got.iter().map(|(_, body)| org_of(body)).collect()
    }

    /// Waits until as many messages of an org have come.
    async fn until_told_of(&self, org: OrgId, count: usize) {
        for _ in 0..1000 {
            if self.orgs().iter().filter(|of| **of == org).count() >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{count} of {org} never came: {:?}", self.orgs());
    }
}

/// An org, with Ada's grant and more beside it: a change of each is to be told.
async fn with_very_many_changes(more: u64) -> (World, Arc<Receiver>) {
    let (mut world, grant) = World::connected().await;
    let receiver = Receiver::of(&mut world).await;
    world.seed(grant, more).await;
    changed(&world, world.org).await;
    (world, receiver)
}

/// The state of all of an org's grants has changed.
async fn changed(world: &World, org: OrgId) {
    let notices = format!(
        "INSERT INTO notices (org_id, grant_id, changes, at, told, attempts, due_at)
         SELECT org_id, id, 1, coalesce(state_at, 1), 0, 0, 0 FROM grants WHERE org_id = '{org}'"
    );
    world.raw_sql(&notices).await;
}

/// How many notices are as `condition` says.
async fn count(world: &World, condition: &str) -> u64 {
    let touch = format!("UPDATE notices SET told = told WHERE {condition}");
    database::raw_sql(&world.location, &touch).await
}

fn telling(world: &World) -> JoinHandle<Result<usize, Refusal>> {
    let deps = Arc::clone(&world.deps);
    tokio::spawn(async move { notify::tell(&deps).await })
}

/// What has to be over long before anybody gives the receiver up.
async fn soon<F: Future>(work: F) -> F::Output {
    let soon = tokio::time::timeout(Duration::from_secs(10), work).await;
    soon.expect("it waits for messages that hang")
}

#[tokio::test]
async fn very_many_changes_of_one_org_keep_no_other_waiting() {
    let (world, receiver) = with_very_many_changes(199).await;
    let (other, _) = world.another_org("Other").await;
    changed(&world, other.org).await;
    for _ in 0..2 {
        notify::tell(&world.deps).await.unwrap();
    }
    let orgs = receiver.orgs();
    let place = orgs.iter().position(|org| *org == other.org);
    assert!(place.is_some_and(|place| place < 100), "{place:?}");
    assert_eq!(orgs.len(), 201, "and there is no pause while there is more");
}

#[tokio::test]
async fn messages_that_hang_keep_no_other_org_waiting() {
    let (world, receiver) = with_very_many_changes(39).await;
    let (other, _) = world.another_org("Other").await;
    receiver.hold(world.org);
    let telling = telling(&world);
    receiver.until_told_of(world.org, OF_ONE_ORG).await;
    // What comes while they hang, too.
    changed(&world, other.org).await;
    receiver.until_told_of(other.org, 1).await;
    assert_eq!(receiver.orgs().len(), OF_ONE_ORG + 1);
    receiver.let_go();
    assert_eq!(telling.await.unwrap().unwrap(), 41);
    assert_eq!(count(&world, "due_at IS NULL").await, 41);
}

#[tokio::test]
async fn a_stop_cuts_no_message_off_and_begins_none() {
    let (world, receiver) = with_very_many_changes(39).await;
    receiver.hold(world.org);
    let telling = telling(&world);
    receiver.until_told_of(world.org, OF_ONE_ORG).await;
    world.deps.uncut.stop();
    receiver.let_go();
    assert_eq!(telling.await.unwrap().unwrap(), OF_ONE_ORG);
    assert_eq!(receiver.orgs().len(), OF_ONE_ORG);
    assert_eq!(
        count(&world, "due_at IS NULL").await,
        8,
        "it is known that they arrived"
    );
    assert_eq!(
        count(&world, "due_at = 0").await,
        32,
        "the next start goes on with them"
    );
}

/// A grant of whose death the receiver is being told, and holds its answer back.
async fn with_a_message_under_way() -> (World, GrantId, Arc<Receiver>, JoinHandle<Result<usize, Refusal>>) {
    let (mut world, grant) = World::connected().await;
    let receiver = Receiver::of(&mut world).await;
    receiver.hold(world.org);
    found_dead(&world, grant).await;
    let telling = telling(&world);
    receiver.until_told_of(world.org, 1).await;
    (world, grant, receiver, telling)
}

/// An older state that arrives behind a newer one would be taken for what holds.
#[tokio::test]
async fn a_change_is_not_told_while_the_one_before_it_is_under_way() {
    let (world, grant, receiver, telling) = with_a_message_under_way().await;
    reconnect(&world, grant).await;
    assert_eq!(soon(notify::tell(&world.deps)).await.unwrap(), 0);
    assert_eq!(receiver.messages().len(), 1);
    receiver.let_go();
    assert_eq!(telling.await.unwrap().unwrap(), 2, "it follows at once");
    let messages = receiver.messages();
    let told: Vec<_> = messages
        .iter()
        .map(|(id, body)| (id.as_str(), body["data"]["state"].as_str().unwrap()))
        .collect();
    let [first, second] = [format!("{grant}.1"), format!("{grant}.2")];
    assert_eq!(told, [(&*first, "needs_reconnect"), (&*second, "active")]);
}

#[tokio::test]
async fn a_change_that_comes_while_the_one_before_it_fails_does_not_wait_for_the_next_try() {
    let (mut world, grant) = World::connected().await;
    let receiver = Receiver::of(&mut world).await;
    receiver.hold(world.org);
    receiver.answers(500);
    found_dead(&world, grant).await;
    let telling = telling(&world);
    receiver.until_told_of(world.org, 1).await;
    receiver.answers(204);
    reconnect(&world, grant).await;
    receiver.let_go();
    // By this look if its moment of rest is over by then, else by the next one.
    let mut told = telling.await.unwrap().unwrap();
    told += notify::tell(&world.deps).await.unwrap();
    assert_eq!(told, 1);
    assert_eq!(receiver.messages()[1].0, format!("{grant}.2"));
}

#[tokio::test]
async fn what_somebody_was_telling_who_died_is_told_again() {
    let (world, grant, receiver, telling) = with_a_message_under_way().await;
    telling.abort();
    assert!(telling.await.unwrap_err().is_cancelled());
    reconnect(&world, grant).await;
    receiver.let_go();
    assert_eq!(
        notify::tell(&world.deps).await.unwrap(),
        0,
        "nobody knows that it died"
    );
    world.later(Duration::from_secs(91));
    assert_eq!(notify::tell(&world.deps).await.unwrap(), 1);
    assert_eq!(receiver.messages()[1].0, format!("{grant}.2"));
}

#[tokio::test]
async fn replicas_share_what_is_to_be_told() {
    let mut world = World::on_postgres().await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    let receiver = Receiver::of(&mut world).await;
    let mut replica = world.replica().await.unwrap();
    receiver.is_told_by(&mut replica).await;
    world.seed(grant, 99).await;
    changed(&world, world.org).await;
    let (here, there) = tokio::join!(notify::tell(&world.deps), notify::tell(&replica));
    assert_eq!(here.unwrap() + there.unwrap(), 100);
    let mut ids: Vec<String> = receiver.messages().into_iter().map(|(id, _)| id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), receiver.orgs().len()), (100, 100), "each once");
}
