//! An account is connected again before the provider was asked to end what there was of it: where that would end both, the
//! new grant is spared, and the report and an entry say what was not done.

use postern::flows::sweep;

use super::*;
use crate::harness::{Outcome, connect_as};

/// The provider was asked so often and not again, an entry says why, and the grant still renews.
async fn is_spared(world: &World, grant: GrantId, asked: usize) {
    assert_eq!(world.seen("revoke").await.len(), asked);
    let entries = world.entries().await;
    let mut said = entries
        .iter()
        .filter(|entry| entry.kind == EntryType::UpstreamRevoke)
        .map(|entry| (entry.draft.outcome.as_deref(), entry.draft.reason.as_deref()));
    let newest = said.next().expect("nothing says what became of the old one");
    assert_eq!(newest, (Some("unconfirmed"), Some("not_revocable_alone")));
    world.later(Duration::from_secs(400));
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test]
async fn a_quarantine_that_is_over_does_not_end_what_was_connected_since() {
    let world = crate::sweep::quarantined().await;
    let apart = world.grants_of(world.ada).await.pop().unwrap().id;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    world.later(Duration::from_secs(8 * 24 * 3600));
    sweep::run(&world.deps).await.unwrap();
    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 1);
    assert_eq!(world.secrets_of(apart).await, 0, "our copy goes all the same");
    is_spared(&world, grant, 0).await;
}

/// The provider is away when it is asked to end a grant, whose account is connected again before it is asked once more.
async fn connected_again_meanwhile(kills: &str) -> (World, RevocationId, GrantId) {
    let kills = format!("kills = \"{kills}\"");
    let world = World::with_connector(&[("kills = \"grant\"", &kills)]).await;
    let before = world.connect(world.ada, &[Category::Read]).await;
    let down = json!({"next": "revoke", "status": 503, "body": "down", "times": 1});
    world.fault(down).await;
    let id = world.revoke(Selector::Grant(before)).await.id;
    upstream::fan_out(&world.deps).await.unwrap();
    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 0);
    let grant = world.connect(world.ada, &[Category::Read]).await;
    world.later(Duration::from_secs(10));
    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 1);
    (world, id, grant)
}

#[tokio::test]
async fn a_revocation_that_is_retried_does_not_end_what_was_connected_since() {
    for kills in ["grant", "all_tokens_of_user_and_client"] {
        let (world, id, grant) = connected_again_meanwhile(kills).await;
        let result = report(&world, id).await[0].result;
        assert_eq!(result, UpstreamResult::Unconfirmed, "{kills}");
        is_spared(&world, grant, 1).await;
    }
}

#[tokio::test]
async fn a_token_that_ends_alone_is_ended_though_its_account_was_connected_again() {
    let (world, id, grant) = connected_again_meanwhile("token").await;
    assert_eq!(ended(&world, id).await, 1);
    world.later(Duration::from_secs(400));
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test]
async fn another_account_of_the_same_person_keeps_no_token_from_its_end() {
    let world = World::new().await;
    let outcome = connect_as(&world, world.ada, "other@else.example", &[Category::Read], false).await;
    let Outcome::Granted(other) = outcome else {
        panic!("{outcome:?}")
    };
    world.connect(world.ada, &[Category::Read]).await;
    let id = world.revoke(Selector::Grant(other)).await.id;
    upstream::fan_out(&world.deps).await.unwrap();
    upstream::drain(&world.deps).await.unwrap();
    assert_eq!(ended(&world, id).await, 1);
}

/// While somebody is asked to confirm, nobody knows whether there will be a grant to spare.
#[tokio::test]
async fn a_revocation_waits_for_the_connect_under_way_and_holds_up_no_other() {
    for confirms in [true, false] {
        let world = World::new().await;
        let before = world.connect(world.ada, &[Category::Read]).await;
        let of_ben = world.connect(world.ben, &[Category::Read]).await;
        let id = world.revoke(Selector::Grant(before)).await.id;
        let other = world.revoke(Selector::Grant(of_ben)).await.id;
        let journey = Journey::begin(&world, world.ada, None).await;
        let answer = journey.consent(&world, "ada@acme.example", false).await;
        journey.come_back(&world, answer).await.unwrap();
        upstream::fan_out(&world.deps).await.unwrap();
        assert_eq!(upstream::drain(&world.deps).await.unwrap(), 1);
        assert_eq!((ended(&world, id).await, ended(&world, other).await), (0, 1));
        let waits = report(&world, id).await.remove(0);
        assert_eq!((waits.result, waits.attempts), (UpstreamResult::Pending, 0));
        if confirms {
            let grant = journey.confirm(&world, &[Category::Read]).await.unwrap();
            world.later(Duration::from_secs(601));
            assert_eq!(upstream::drain(&world.deps).await.unwrap(), 1);
            is_spared(&world, grant, 2).await;
        } else {
            world.later(Duration::from_secs(601));
            assert_eq!(upstream::drain(&world.deps).await.unwrap(), 1);
            assert_eq!(ended(&world, id).await, 1);
        }
    }
}
