//! A receiver that says how long it is to be left alone.

use std::time::Duration;

use postern::flows::notify;

use super::{Receiver, found_dead, reconnect};
use crate::harness::World;

impl Receiver {
    /// It answers so, the next time with a wish to be left alone.
    fn asks_for(&self, status: u16, after: &'static str) {
        self.answers(status);
        *self.after.lock().unwrap() = Some(after);
    }
}

#[tokio::test]
async fn a_message_is_tried_again_when_the_receiver_said() {
    let (mut world, grant) = World::connected().await;
    let receiver = Receiver::of(&mut world).await;
    receiver.asks_for(429, "1800");
    found_dead(&world, grant).await;
    assert_eq!(notify::tell(&world.deps).await.unwrap(), 0);
    receiver.answers(204);
    world.later(Duration::from_secs(1799));
    assert_eq!(notify::tell(&world.deps).await.unwrap(), 0);
    assert_eq!(receiver.messages().len(), 1);
    world.later(Duration::from_secs(1));
    assert_eq!(notify::tell(&world.deps).await.unwrap(), 1);
}

#[tokio::test]
async fn a_message_waits_for_an_hour_at_most_and_for_its_own_pause_at_least() {
    for (after, seconds) in [("86400", 3600), ("0", 150)] {
        let (mut world, grant) = World::connected().await;
        let receiver = Receiver::of(&mut world).await;
        receiver.asks_for(503, after);
        found_dead(&world, grant).await;
        assert_eq!(notify::tell(&world.deps).await.unwrap(), 0);
        receiver.answers(204);
        world.later(Duration::from_secs(seconds - 1));
        assert_eq!(notify::tell(&world.deps).await.unwrap(), 0, "{after}");
        world.later(Duration::from_secs(1));
        assert_eq!(notify::tell(&world.deps).await.unwrap(), 1, "{after}");
    }
}

#[tokio::test]
async fn nothing_else_is_told_while_the_receiver_is_left_alone() {
    let (mut world, grant) = World::connected().await;
    let receiver = Receiver::of(&mut world).await;
    receiver.asks_for(503, "100");
    found_dead(&world, grant).await;
    assert_eq!(notify::tell(&world.deps).await.unwrap(), 0);
    receiver.answers(204);
    // It would be told at once.
    reconnect(&world, grant).await;
    world.later(Duration::from_secs(99));
    assert_eq!(notify::tell(&world.deps).await.unwrap(), 0);
    assert_eq!(receiver.messages().len(), 1);
    world.later(Duration::from_secs(1));
    assert_eq!(notify::tell(&world.deps).await.unwrap(), 1);
    assert_eq!(receiver.messages()[1].1["data"]["state"], "active");
}
