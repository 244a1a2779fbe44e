//! An account is connected again before the provider was asked to end what there was of it: where that would end both, the
//! new grant is spared, and the report and an entry say what was not done.

use postern::{
    flows::{connect::ConnectFailure, sweep},
    store::Location,
};

use super::*;

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
    let other = connect_with(&world, world.ada, "other@else.example").await;
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
        let of_ben = connect_with(&world, world.ben, "ben@acme.example").await;
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

/// The provider knows its account and its client, and none of the org's persons.
#[tokio::test]
async fn what_another_person_connected_with_the_same_account_is_spared() {
    for kills in ["grant", "all_tokens_of_user_and_client"] {
        let kills = format!("kills = \"{kills}\"");
        let world = World::with_connector(&[("kills = \"grant\"", &kills)]).await;
        let of_ada = world.connect(world.ada, &[Category::Read]).await;
        let of_ben = world.connect(world.ben, &[Category::Read]).await;
        let id = world.revoke(Selector::Grant(of_ada)).await.id;
        upstream::fan_out(&world.deps).await.unwrap();
        assert_eq!(upstream::drain(&world.deps).await.unwrap(), 1);
        let result = report(&world, id).await[0].result;
        assert_eq!(result, UpstreamResult::Unconfirmed, "{kills}");
        assert_eq!(world.secrets_of(of_ada).await, 0, "our copy goes all the same");
        is_spared(&world, of_ben, 0).await;
        // The last of the account is spared for nobody.
        let id = world.revoke(Selector::Grant(of_ben)).await.id;
        upstream::fan_out(&world.deps).await.unwrap();
        assert_eq!(upstream::drain(&world.deps).await.unwrap(), 1);
        assert_eq!(ended(&world, id).await, 1, "{kills}");
    }
}

#[tokio::test]
async fn grants_of_one_account_that_end_together_are_spared_for_none_of_each_other() {
    let world = World::new().await;
    for person in [world.ada, world.ben] {
        world.connect(person, &[Category::Read]).await;
    }
    let id = world.revoke(Selector::All(true)).await.id;
    upstream::fan_out(&world.deps).await.unwrap();
    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 2);
    assert_eq!(ended(&world, id).await, 2);
}

#[tokio::test]
async fn what_the_same_client_was_given_at_another_connector_is_spared() {
    for (client, result, requests) in [
        (DEMO_CLIENT_ID, UpstreamResult::Unconfirmed, 0),
        ("another", UpstreamResult::Revoked, 2),
    ] {
        let kills = "kills = \"all_tokens_of_user_and_client\"";
        let mut world = World::with_connector(&[("kills = \"grant\"", kills)]).await;
        let grant = world.connect(world.ada, &[Category::Read]).await;
        be_client_of_acme_mail(&world, DEMO_CLIENT_ID).await;
        world.connector = acme_mail();
        world.connect(world.ada, &[Category::Read]).await;
        be_client_of_acme_mail(&world, client).await;
        let id = world.revoke(Selector::Grant(grant)).await.id;
        upstream::fan_out(&world.deps).await.unwrap();
        assert_eq!(upstream::drain(&world.deps).await.unwrap(), 1);
        assert_eq!(report(&world, id).await[0].result, result, "{client}");
        assert_eq!(world.seen("revoke").await.len(), requests, "{client}");
    }
}

#[tokio::test]
async fn a_revocation_waits_for_another_persons_connect_with_the_same_account() {
    let world = World::new().await;
    let before = world.connect(world.ada, &[Category::Read]).await;
    let journey = Journey::begin(&world, world.ben, None).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    journey.come_back(&world, answer).await.unwrap();
    let id = world.revoke(Selector::Grant(before)).await.id;
    upstream::fan_out(&world.deps).await.unwrap();
    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 0);
    let waits = report(&world, id).await.remove(0);
    assert_eq!((waits.result, waits.attempts), (UpstreamResult::Pending, 0));
    let grant = journey.confirm(&world, &[Category::Read]).await.unwrap();
    world.later(Duration::from_secs(601));
    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 1);
    is_spared(&world, grant, 0).await;
}

/// It may be anybody's: Ben's grant is not ended because nobody could say whose tokens Ada brought.
#[tokio::test]
async fn tokens_of_an_account_that_was_not_told_are_left_alone_beside_anothers_grant() {
    let world = World::new().await;
    let of_ben = world.connect(world.ben, &[Category::Read]).await;
    let journey = Journey::begin(&world, world.ada, None).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    let down = json!({"next": "api", "path": "/userinfo", "status": 503, "body": "down", "times": 1});
    world.fault(down).await;
    let outcome = journey.come_back(&world, answer).await;
    assert!(
        matches!(outcome, Err(ConnectFailure::ProviderUnavailable)),
        "{outcome:?}"
    );
    let discarded = world.grants_of(world.ada).await.pop().unwrap();
    assert_eq!(discarded.account.id, None);
    upstream::drain(&world.deps).await.unwrap();
    assert_eq!(world.seen("revoke").await.len(), 0);
    let entries = world.entries().await;
    let mut reasons = entries.iter().filter_map(|entry| entry.draft.reason.as_deref());
    assert!(reasons.any(|reason| reason == "not_revocable_alone"));
    world.later(Duration::from_secs(400));
    world.vend(world.read(of_ben)).await.unwrap();
}

/// Where the provider never tells the account, the person stands for it: else nobody's tokens were ever ended there.
#[tokio::test]
async fn without_accounts_a_persons_own_grants_are_spared_and_no_others() {
    let told =
        "how = \"userinfo\"\nurl = \"{origin}/userinfo\"\nid = \"sub\"\nlabel = \"email\"\nemail = \"email\"";
    let world = World::with_connector(&[(told, "how = \"none\"")]).await;
    let first = world.connect(world.ada, &[Category::Read]).await;
    let second = world.connect(world.ada, &[Category::Read]).await;
    assert_ne!(first, second);
    world.connect(world.ben, &[Category::Read]).await;
    for (grant, result) in [
        (first, UpstreamResult::Unconfirmed),
        (second, UpstreamResult::Revoked),
    ] {
        let id = world.revoke(Selector::Grant(grant)).await.id;
        upstream::fan_out(&world.deps).await.unwrap();
        assert_eq!(upstream::drain(&world.deps).await.unwrap(), 1);
        assert_eq!(report(&world, id).await[0].result, result);
    }
}

/// Hundreds of connects of a person that came to nothing, each newer than `grant`.
async fn ended_since(world: &World, grant: GrantId) {
    let (numbers, id) = if matches!(world.location, Location::Sqlite(_)) {
        (
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 600)",
            "printf('grt_7%025d', n)",
        )
    } else {
        (
            "WITH numbers (n) AS (SELECT generate_series(1, 600))",
            "'grt_7' || lpad(n::text, 25, '0')",
        )
    };
    let kept = "user_id, connector, account_id, account_label, account_tenant, label, scopes, connected_epoch, generation, \
                binding, access_expires_at, has_refresh_token, connected_at, last_used_at";
    world
        .raw_sql(&format!(
            "INSERT INTO grants (org_id, id, state, state_at, {kept})
             {numbers} SELECT org_id, {id}, 'revoked', 1, {kept} FROM numbers, grants WHERE id = '{grant}'"
        ))
        .await;
}

#[tokio::test]
async fn a_grant_is_found_behind_hundreds_that_ended_since() {
    let world = World::new().await;
    let before = world.connect(world.ada, &[Category::Read]).await;
    let id = world.revoke(Selector::Grant(before)).await.id;
    upstream::fan_out(&world.deps).await.unwrap();
    let grant = world.connect(world.ada, &[Category::Read]).await;
    assert_ne!(grant, before);
    ended_since(&world, grant).await;
    let shown = world.grants_of(world.ada).await;
    assert!(
        shown.iter().any(|shown| shown.id == grant),
        "its person is not shown it"
    );
    let again = world.connect(world.ada, &[Category::Read]).await;
    assert_eq!(again, grant, "it is renewed, not doubled");
    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 1);
    let result = report(&world, id).await[0].result;
    assert_eq!(result, UpstreamResult::Unconfirmed);
    is_spared(&world, grant, 0).await;
}
