//! One action ends it (I2 on one replica), and the provider is told.

use std::{collections::HashSet, slice, sync::Arc, time::Duration};

use postern::{
    domain::{
        GrantId, OrgId,
        connector::Category,
        entry::{Entry, EntryType},
        grant::GrantState,
    },
    flows::{Refusal, apply, audit, connect::ConnectFailure, login, revoke, sequence, sweep, upstream},
    store::{Selector, SelectorCounts, UpstreamResult},
};

use serde_json::json;

use super::{
    harness::{Journey, World, agent_with, database, ending, until_counted},
    race::Race,
};

async fn upstream_settled(world: &World) {
    upstream::fan_out(&world.deps).await.unwrap();
    upstream::drain(&world.deps).await.unwrap();
}

#[tokio::test]
async fn after_revoke_answers_nothing_of_the_selection_is_released() {
    for selector in selectors().await {
        let (world, grant) = World::connected().await;
        world.vend(world.read(grant)).await.unwrap();
        let selector = selector(&world, grant);
        world.revoke(selector.clone()).await;
        let before = world.seen("api").await.len();
        let refused = world.vend(world.read(grant)).await;
        assert!(
            matches!(
                refused,
                Err(Refusal::Revoked { .. } | Refusal::Denied { .. } | Refusal::Unauthenticated)
            ),
            "{selector:?}: {refused:?}"
        );
        assert_eq!(world.seen("api").await.len(), before, "{selector:?}");
    }
}

type Select = fn(&World, GrantId) -> Selector;

pub(crate) async fn selectors() -> Vec<Select> {
    vec![
        |_, _| Selector::All(true),
        |world, _| Selector::User(world.ada),
        |world, _| Selector::Agent(world.agent.agent),
        |_, _| Selector::Connector(super::harness::acme_mail()),
        |_, grant| Selector::Grant(grant),
    ]
}

#[tokio::test]
async fn a_dry_run_counts_and_changes_nothing() {
    let (world, grant) = World::connected().await;
    let counts = revoke::dry_run(&world.deps, world.org, &Selector::All(true))
        .await
        .unwrap();
    assert_eq!((counts.grants, counts.delegations), (1, 1));
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test]
async fn the_provider_is_told_and_the_receipt_says_so() {
    let (world, grant) = World::connected().await;
    let revoked = world.revoke(Selector::Grant(grant)).await;
    upstream_settled(&world).await;
    let (_, grants) = revoke::report(&world.deps, world.org, revoked.id, None, 10)
        .await
        .unwrap();
    assert_eq!(
        grants.iter().map(|row| row.result).collect::<Vec<_>>(),
        [UpstreamResult::Revoked]
    );
    assert!(!world.seen("revoke").await.is_empty());
    let secrets = world
        .deps
        .store
        .read(world.org)
        .await
        .unwrap()
        .secrets_of(world.org, grant)
        .await
        .unwrap();
    assert!(secrets.is_empty(), "our copy is shredded on the final answer");
}

/// What the report says when the provider was asked once, which was answered like this, and ten seconds later.
async fn asked_twice(first: serde_json::Value) -> [UpstreamResult; 2] {
    let (world, grant) = World::connected().await;
    world.fault(first).await;
    let revoked = world.revoke(Selector::Grant(grant)).await;
    upstream_settled(&world).await;
    let result = async |world: &World| {
        let (_, grants) = revoke::report(&world.deps, world.org, revoked.id, None, 10)
            .await
            .unwrap();
        grants.first().unwrap().result
    };
    let before = result(&world).await;
    world.later(Duration::from_secs(10));
    upstream::drain(&world.deps).await.unwrap();
    [before, result(&world).await]
}

#[tokio::test]
async fn an_upstream_revocation_is_retried_until_the_provider_answers() {
    let down = json!({"next": "revoke", "status": 503, "body": "down", "times": 1});
    let results = asked_twice(down).await;
    assert_eq!(results, [UpstreamResult::Pending, UpstreamResult::Revoked]);
}

/// A proxy's page, a server that is being changed, the way to a page about that.
#[tokio::test]
async fn an_upstream_revocation_is_retried_when_something_else_answers_in_the_providers_place() {
    for first in [
        json!({"next": "revoke", "status": 403, "body": "<html>", "times": 2}),
        json!({"next": "revoke", "status": 404, "body": {"message": "no route"}, "times": 2}),
        json!({"next": "revoke", "status": 302, "redirect_to": "http://127.0.0.1:9/", "times": 2}),
    ] {
        let results = asked_twice(first.clone()).await;
        assert_eq!(
            results,
            [UpstreamResult::Pending, UpstreamResult::Revoked],
            "{first}"
        );
    }
    // Said of the refresh token alone it leaves the access token to be ended, and with it the grant.
    let once = json!({"next": "revoke", "status": 403, "body": "<html>", "times": 1});
    assert_eq!(asked_twice(once).await, [UpstreamResult::Revoked; 2]);
}

/// A refresh is under way, the grant is revoked, and the refresh is answered while the provider is asked to end the
/// tokens from before.
#[tokio::test]
async fn tokens_that_come_while_the_provider_is_asked_are_ended_too() {
    let (world, grant) = World::connected().await;
    let world = Arc::new(world);
    world.later(Duration::from_secs(400));
    world.fault(json!({"next": "token", "delay_ms": 2_000})).await;
    world.fault(json!({"next": "revoke", "delay_ms": 5_000})).await;
    let vending = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.vend(world.read(grant)).await.map(drop) })
    };
    world.until_seen("token", 2).await;
    world.revoke(Selector::Grant(grant)).await;
    upstream_settled(&world).await;
    let refused = vending.await.unwrap();
    assert!(matches!(refused, Err(Refusal::Revoked { .. })), "{refused:?}");
    // The first answer is not final: the same round goes on to the tokens that came meanwhile.
    let token = world.seen("token").await.pop().unwrap();
    let ended: Vec<_> = world.seen("revoke").await;
    for issued in ["issued_refresh_sha256", "issued_access_sha256"] {
        assert!(token[issued].is_string());
        assert!(
            ended.iter().any(|call| call["token_sha256"] == token[issued]),
            "{issued} was never ended"
        );
    }
    assert_eq!(world.secrets_of(grant).await, 0);
}

#[tokio::test]
async fn revoking_a_person_ends_their_session() {
    let (world, _) = World::connected().await;
    let link = login::make_link(&world.deps, world.org, world.ada, "test".to_owned())
        .await
        .unwrap();
    let token = postern::crypto::random::parse_link_token(link.url.rsplit('/').next().unwrap()).unwrap();
    let session = login::enter(&world.deps, &token).await.unwrap();
    assert!(login::who(&world.deps, &session).await.unwrap().is_some());
    world.revoke(Selector::User(world.ada)).await;
    assert!(login::who(&world.deps, &session).await.unwrap().is_none());
}

#[tokio::test]
async fn a_revocation_of_another_org_is_not_found() {
    let (world, grant) = World::connected().await;
    let elsewhere = OrgId::from_bytes([9; 16]);
    assert!(
        revoke::run(&world.deps, elsewhere, ending(Selector::Grant(grant)))
            .await
            .is_err()
    );
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test]
async fn connecting_again_after_a_revocation_works_at_once() {
    let (world, first) = World::connected().await;
    world.revoke(Selector::All(true)).await;
    let second = world
        .connect(world.ada, &[postern::domain::connector::Category::Read])
        .await;
    assert_ne!(first, second, "a revoked grant never comes back");
    world.vend(world.read(second)).await.unwrap();
}

/// Whether a call is told that what the selector names has ended.
pub(crate) fn is_told(selector: &Selector, refusal: &Refusal) -> bool {
    match selector {
        // Its delegations end in the same moment; a call is told of what it finds first.
        Selector::Agent(_) => matches!(refusal, Refusal::Unauthenticated | Refusal::Denied { .. }),
        _ => matches!(refusal, Refusal::Revoked { .. }),
    }
}

/// What the next round of a race needs after this selector: a grant of its own, and an agent that may ask.
pub(crate) async fn anew(world: &mut World, grant: GrantId, selector: &Selector) -> GrantId {
    if let Selector::Agent(agent) = selector {
        // It never works again. The grant does, and would stay the same one if it were connected again.
        world.revoke(Selector::Grant(grant)).await;
        let document = toml::to_string(&json!({"agent": [{"name": format!("After {agent}")}]})).unwrap();
        let applied = apply::apply(&world.deps, world.org, "test".to_owned(), &document)
            .await
            .unwrap();
        world.agent = agent_with(&world.deps, &applied.keys[0].key).await;
    }
    world.connect(world.ada, &[Category::Read, Category::Write]).await
}

/// I2 on one replica: vends race a revocation by each kind of selector in turn; no release of the selection follows the
/// revocation's entry in the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_release_follows_the_entry_of_a_revocation_in_a_race() {
    let rounds = if std::env::var_os("POSTERN_LONG").is_some() {
        1_000
    } else if std::env::var_os("POSTERN_TEST_STORE").is_none() {
        100
    } else {
        6
    };
    let ((mut world, mut grant), mut before) = (World::connected().await, 0);
    let selectors = selectors().await;
    for (round, select) in (0..rounds).zip(selectors.iter().cycle()) {
        if round % 20 == 19 {
            // A log of many thousands of entries takes longer to read than a race does.
            ((world, grant), before) = (World::connected().await, 0);
        }
        let selector = select(&world, grant);
        let mut race = Race::start(&world, grant, slice::from_ref(&world.deps), &selector);
        race.until_released(8 + round % 32).await;
        let revocation = world.revoke(selector.clone()).await.id.to_string();
        race.answered();
        race.all_told().await;
        let entries = since(&world, before).await;
        before += u64::try_from(entries.len()).unwrap();
        let revoked = entries
            .iter()
            .position(|entry| {
                entry.kind == EntryType::Revoke && entry.draft.correlation.as_ref() == Some(&revocation)
            })
            .unwrap();
        assert_eq!(releases(&entries[revoked..]), 0, "{selector:?}");
        let durable: HashSet<_> = entries.iter().map(|entry| entry.id).collect();
        let without = race.without(|entry| durable.contains(entry));
        assert_eq!(without, 0, "{selector:?}: released without an entry");
        grant = anew(&mut world, grant, &selector).await;
    }
}

/// The entries of the log from this place on.
async fn since(world: &World, place: u64) -> Vec<Entry> {
    sequence::run(&world.deps, world.org).await.unwrap();
    let log = audit::log_page(&world.deps, world.org, place, MOST)
        .await
        .unwrap();
    assert!(
        u64::try_from(log.len()).unwrap() < MOST,
        "a round has more entries than a page"
    );
    log.iter()
        .map(|(_, bytes)| serde_json::from_str(bytes).unwrap())
        .collect()
}

fn releases(entries: &[Entry]) -> usize {
    let releases = entries.iter().filter(|entry| entry.kind == EntryType::Release);
    releases.count()
}

/// What a revocation ended, if that is counted.
async fn ended(world: &World, selector: Selector) -> Option<SelectorCounts> {
    let id = world.revoke(selector).await.id;
    world.counted(id).await
}

#[tokio::test]
async fn what_has_ended_is_counted_by_no_later_revocation() {
    let (world, first) = until_counted(async || {
        let (world, _) = World::connected().await;
        super::harness::log_in(&world.deps, world.org, world.ada).await;
        super::harness::Journey::begin(&world, world.ada, None).await;
        let first = ended(&world, Selector::User(world.ada)).await?;
        Some((world, first))
    })
    .await;
    assert_eq!(
        (first.grants, first.delegations, first.sessions, first.connects),
        (1, 1, 1, 1)
    );
    let again = revoke::dry_run(&world.deps, world.org, &Selector::User(world.ada))
        .await
        .unwrap();
    assert_eq!(again, postern::store::SelectorCounts::default());
    let all = revoke::dry_run(&world.deps, world.org, &Selector::All(true))
        .await
        .unwrap();
    assert_eq!((all.grants, all.delegations, all.connects), (0, 0, 0));
}

/// The delegations of a grant end with it, and are counted once.
#[tokio::test]
async fn the_delegations_of_a_dead_grant_are_counted_by_no_later_revocation() {
    let (world, grant, first) = until_counted(async || {
        let (world, grant) = World::connected().await;
        let first = ended(&world, Selector::Grant(grant)).await?;
        Some((world, grant, first))
    })
    .await;
    assert_eq!((first.grants, first.delegations), (1, 1));
    for selector in [
        Selector::Grant(grant),
        Selector::User(world.ada),
        Selector::All(true),
    ] {
        let again = revoke::dry_run(&world.deps, world.org, &selector).await.unwrap();
        assert_eq!((again.grants, again.delegations), (0, 0), "{selector:?}");
    }
}

#[tokio::test]
async fn a_connector_nobody_knows_cannot_be_revoked() {
    let (world, _) = World::connected().await;
    let nope = Selector::Connector("nope".parse().unwrap());
    let refused = revoke::dry_run(&world.deps, world.org, &nope).await;
    assert!(
        matches!(&refused, Err(Refusal::InvalidRequest(faults)) if faults[0].pointer == "/selector/connector"),
        "{refused:?}"
    );
    world.raw_sql("UPDATE grants SET connector = 'nope'").await;
    revoke::dry_run(&world.deps, world.org, &nope).await.unwrap();
}

#[tokio::test]
async fn a_revocation_that_took_effect_says_so_though_the_calls_under_way_cannot_be_read() {
    let (world, grant) = World::connected().await;
    database::raw_sql(&world.location, "ALTER TABLE open_calls RENAME TO elsewhere").await;
    let body = json!({"selector": {"grant": grant}, "reason": "test"});
    let revoked = world
        .api()
        .post(&world.as_admin(), "/v1/revocations", &body)
        .await;
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    assert_eq!(revoked.json().get("in_flight"), Some(&serde_json::Value::Null));
    let state = world.grant(grant).await.state;
    assert!(matches!(state, GrantState::Revoked { .. }), "{state:?}");
}

/// Who is found by a link just before a revocation would else be signed in just after it, in a session of the new epoch.
#[tokio::test]
async fn a_login_link_is_not_spent_after_a_revocation_of_its_person() {
    let world = World::new().await;
    let link = || postern::crypto::random::link_token(&*world.deps.random).unwrap();
    let links = [link(), link()].map(|token| world.deps.lookup.link("login", &token).unwrap());
    let mut tx = world.deps.store.write(world.org).await.unwrap();
    let expires_at = tx.now() + Duration::from_secs(600);
    for hash in &links {
        tx.insert_login_link(hash, world.org, world.ada, expires_at)
            .await
            .unwrap();
    }
    assert!(tx.spend_login_link(world.org, &links[0]).await.unwrap());
    tx.commit().await.unwrap();
    world.revoke(Selector::User(world.ada)).await;
    let mut tx = world.deps.store.write(world.org).await.unwrap();
    assert!(!tx.spend_login_link(world.org, &links[1]).await.unwrap());
}

#[tokio::test]
async fn a_call_is_in_flight_until_its_outcome_is_recorded() {
    let (world, grant) = World::connected().await;
    world.vend(world.read(grant)).await.unwrap();
    let none = world
        .revoke(Selector::Agent(world.agent.agent))
        .await
        .in_flight
        .unwrap();
    assert!(none.is_empty());
    // As if the process had died between the call and its outcome.
    let reopen = "INSERT INTO open_calls SELECT org_id, id, ts FROM entries WHERE kind = 'release'";
    world.raw_sql(reopen).await;
    let in_flight = async || world.revoke(Selector::Grant(grant)).await.in_flight.unwrap();
    assert_eq!(in_flight().await.len(), 1);
    world.later(Duration::from_secs(301));
    assert_eq!(sweep::run(&world.deps).await.unwrap(), 1);
    assert!(in_flight().await.is_empty());
    let unknown = |entry: &postern::domain::entry::Entry| entry.draft.outcome.as_deref() == Some("unknown");
    assert_eq!(
        world
            .entries()
            .await
            .iter()
            .filter(|entry| unknown(entry))
            .count(),
        1
    );
}

/// What the person has not confirmed yet ends with what it belongs to, here and at the provider.
#[tokio::test]
async fn a_revocation_ends_the_connects_it_covers_and_their_tokens() {
    let selectors: [Select; 3] = [
        |_, _| Selector::All(true),
        |world, _| Selector::User(world.ada),
        |_, _| Selector::Connector(super::harness::acme_mail()),
    ];
    for selector in selectors {
        let (world, grant) = World::connected().await;
        let journey = Journey::begin(&world, world.ada, None).await;
        let answer = journey.consent(&world, "other@else.example", false).await;
        journey.come_back(&world, answer).await.unwrap();
        let selector = selector(&world, grant);
        let revoked = world.revoke(selector.clone()).await;
        upstream_settled(&world).await;
        let ended = world.seen("revoke").await;
        assert!(
            ended.iter().any(|seen| seen["account"] == "other@else.example"),
            "{selector:?}: {ended:?}"
        );
        let confirmed = journey.confirm(&world, &[]).await;
        assert!(
            matches!(confirmed, Err(ConnectFailure::Revoked)),
            "{selector:?}: {confirmed:?}"
        );
        let (row, _) = revoke::report(&world.deps, world.org, revoked.id, None, 10)
            .await
            .unwrap();
        assert!(row.fanned_out);
    }
}

#[tokio::test]
async fn a_confirmation_that_comes_before_the_fan_out_is_refused_in_its_own_words() {
    let world = World::new().await;
    let journey = Journey::begin(&world, world.ada, None).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    journey.come_back(&world, answer).await.unwrap();
    world.revoke(Selector::All(true)).await;
    let confirmed = journey.confirm(&world, &[]).await;
    assert!(matches!(confirmed, Err(ConnectFailure::Revoked)), "{confirmed:?}");
}

/// Tokens that are on their way when the revocation comes are ended as soon as they have come.
#[tokio::test]
async fn a_fan_out_waits_for_the_exchange_under_way() {
    let world = World::new().await;
    let journey = Journey::begin(&world, world.ada, None).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    journey.come_back(&world, answer).await.unwrap();
    world
        .raw_sql("UPDATE connect_sessions SET status = 'exchanging'")
        .await;
    let revoked = world.revoke(Selector::All(true)).await;
    upstream_settled(&world).await;
    let fanned_out = async || {
        let report = revoke::report(&world.deps, world.org, revoked.id, None, 10).await;
        report.unwrap().0.fanned_out
    };
    assert!(!fanned_out().await);
    world
        .raw_sql("UPDATE connect_sessions SET status = 'confirming'")
        .await;
    upstream_settled(&world).await;
    assert!(fanned_out().await);
    assert_eq!(world.seen("revoke").await.len(), 2, "access and refresh token");
}

/// Entries of one page.
const MOST: u64 = 10_000;
