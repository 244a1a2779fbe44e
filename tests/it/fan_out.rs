//! What follows a revocation at the providers: nothing is forgotten when a process dies, nobody is asked twice without
//! need, and each provider is asked at its own pace, whatever the number of replicas.

use std::{
    collections::{BTreeMap, HashSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use postern::{
    dev::acme_mail::DEMO_CLIENT_ID,
    domain::{
        GrantId, RevocationId, UserId,
        connector::{Category, ConnectorId},
        entry::EntryType,
        grant::GrantState,
    },
    flows::{Deps, Refusal, apply, connect::overdue::Ending, revoke, upstream},
    store::{OutboxRow, Selector, UpstreamResult},
    workers::Workers,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::harness::{Journey, Outcome, World, acme_mail, connect_as};

mod beside;
mod pace;
mod rests;

/// Somebody connects with this account.
async fn connect_with(world: &World, user: UserId, account: &str) -> GrantId {
    match connect_as(world, user, account, &[Category::Read], false).await {
        Outcome::Granted(grant) => grant,
        other => panic!("not connected: {other:?}"),
    }
}

/// The org has this client at the built-in connector, too.
async fn be_client_of_acme_mail(world: &World, client: &str) {
    be_client(world, &acme_mail(), client).await;
}

/// The org has this client at a connector from now on.
async fn be_client(world: &World, connector: &ConnectorId, client: &str) {
    let document = format!("[connector.{connector}]\nclient_id = \"{client}\"\n");
    apply::apply(&world.deps, world.org, "test".to_owned(), &document)
        .await
        .unwrap();
}

async fn report(world: &World, id: RevocationId) -> Vec<OutboxRow> {
    revoke::report(&world.deps, world.org, id, None, 10_000)
        .await
        .unwrap()
        .1
}

/// How often each token was asked about, by its digest.
async fn asked(world: &World) -> BTreeMap<String, usize> {
    let mut asked = BTreeMap::new();
    for call in world.seen("revoke").await {
        *asked
            .entry(call["token_sha256"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    asked
}

async fn ended(world: &World, id: RevocationId) -> usize {
    let rows = report(world, id).await;
    rows.iter()
        .filter(|row| row.result == UpstreamResult::Revoked)
        .count()
}

/// Where only access tokens are taken, and one of them ends nothing else or is dead, what could make more lives on.
#[tokio::test]
async fn a_refresh_token_that_the_provider_does_not_end_is_not_said_to_be_ended() {
    for (kills, later, result) in [
        ("token", 0, UpstreamResult::Unconfirmed),
        ("grant", 0, UpstreamResult::Revoked),
        ("grant", 400, UpstreamResult::Unconfirmed),
    ] {
        let changed = format!("accepts = \"access\"\nkills = \"{kills}\"");
        let world = World::with_connector(&[("kills = \"grant\"", &changed)]).await;
        let grant = world.connect(world.ada, &[Category::Read]).await;
        let issued = world.seen("token").await.pop().unwrap();
        world.later(Duration::from_secs(later));
        let id = world.revoke(Selector::Grant(grant)).await.id;
        upstream::fan_out(&world.deps).await.unwrap();
        upstream::drain(&world.deps).await.unwrap();
        let asked = asked(&world).await;
        assert_eq!(asked.len(), 1);
        assert!(asked.contains_key(issued["issued_access_sha256"].as_str().unwrap()));
        assert_eq!(report(&world, id).await[0].result, result, "{kills}, {later}");
    }
}

#[tokio::test]
async fn the_refresh_token_is_ended_first() {
    let (world, grant) = World::connected().await;
    let issued = world.seen("token").await.pop().unwrap();
    world.revoke(Selector::Grant(grant)).await;
    upstream::fan_out(&world.deps).await.unwrap();
    upstream::drain(&world.deps).await.unwrap();
    let calls = world.seen("revoke").await;
    let order: Vec<_> = calls.iter().map(|call| &call["token_sha256"]).collect();
    assert!(issued["issued_refresh_sha256"].is_string());
    assert_eq!(
        order,
        [&issued["issued_refresh_sha256"], &issued["issued_access_sha256"]]
    );
}

#[tokio::test]
async fn two_that_end_one_connect_at_the_same_time_are_not_in_each_others_way() {
    let world = World::new().await;
    for _ in 0..5 {
        let journey = Journey::begin(&world, world.ada, None).await;
        let answer = journey.consent(&world, "ada@acme.example", false).await;
        journey.come_back(&world, answer).await.unwrap();
        world.later(Duration::from_secs(3600));
        let mut due = world.deps.store.due().await.unwrap();
        let [(org, id)] = due.connects(0, 10).await.unwrap()[..] else {
            panic!("there is one that waits for its person")
        };
        drop(due);
        let end = async || Ending::default().end(&world.deps, org, id).await;
        let (one, other, third) = tokio::join!(end(), end(), end());
        assert!(
            one.is_some() && other.is_some() && third.is_some(),
            "{one:?} {other:?} {third:?}"
        );
        assert_eq!(end().await, Some(0));
    }
    let entries = world.entries().await;
    let ended = entries.iter().filter(|entry| entry.kind == EntryType::Connect);
    assert_eq!(ended.count(), 5, "each once");
}

#[tokio::test]
async fn a_row_becomes_a_tombstone_at_once_and_loses_its_secrets_with_the_last_word() {
    let (world, grant) = World::connected().await;
    world
        .fault(json!({"next": "revoke", "status": 503, "body": "down", "times": 1}))
        .await;
    let at = world.deps.store.read(world.org).await.unwrap().now();
    world.revoke(Selector::Grant(grant)).await;
    world.later(Duration::from_secs(1));
    upstream::fan_out(&world.deps).await.unwrap();
    let buried = world.grant(grant).await;
    assert_eq!(
        buried.state,
        GrantState::Revoked { at },
        "when it ended, not when it was buried"
    );
    upstream::drain(&world.deps).await.unwrap();
    assert_eq!(world.secrets_of(grant).await, 2, "they are needed to ask again");
    world.later(Duration::from_secs(10));
    upstream::drain(&world.deps).await.unwrap();
    assert_eq!(world.secrets_of(grant).await, 0);
    let tombstone = world.grant(grant).await;
    assert_eq!(
        (tombstone.state, tombstone.id),
        (GrantState::Revoked { at }, grant)
    );
    assert_eq!(tombstone.connected_at, buried.connected_at);
}

#[tokio::test]
async fn a_stop_leaves_the_rest_of_what_follows_a_revocation_to_the_next_start() {
    let (world, grant) = World::connected().await;
    let id = world.revoke(Selector::Grant(grant)).await.id;
    world.deps.uncut.stop();
    assert_eq!(upstream::fan_out(&world.deps).await.unwrap(), 0);
    let world = world.restarted().await;
    assert_eq!(upstream::fan_out(&world.deps).await.unwrap(), 1);
    world.deps.uncut.stop();
    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 0);
    assert_eq!(asked(&world).await.len(), 0);
    let world = world.restarted().await;
    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 1);
    assert_eq!(ended(&world, id).await, 1);
}

/// A grant is ended while its tokens are being renewed, and the provider's answer comes before the tombstone.
async fn ended_while_renewed() -> (World, GrantId, RevocationId) {
    let (world, grant) = World::connected().await;
    world.later(Duration::from_secs(24 * 3600));
    let before = world.seen("token").await.len();
    // Time to revoke in, and over before the lease is renewed.
    world
        .fault(json!({"next": "token", "delay_ms": 2500, "times": 1}))
        .await;
    let vending = world.vend(world.read(grant));
    let ending = async {
        world.until_seen("token", before + 1).await;
        world.revoke(Selector::User(world.ada)).await.id
    };
    let (vended, id) = tokio::join!(vending, ending);
    assert!(matches!(vended, Err(Refusal::Revoked { .. })), "{vended:?}");
    (world, grant, id)
}

#[tokio::test]
async fn a_report_names_a_grant_that_was_being_refreshed() {
    let (world, grant, id) = ended_while_renewed().await;
    // It was queued on nobody's behalf, an hour before its revocation comes to it.
    world.later(Duration::from_secs(3600));
    let at = world.deps.store.read(world.org).await.unwrap().now();
    assert_eq!(upstream::fan_out(&world.deps).await.unwrap(), 1);
    let rows = report(&world, id).await;
    let [row] = &rows[..] else {
        panic!("the report names {rows:?}")
    };
    assert_eq!((row.grant, row.result), (grant, UpstreamResult::Pending));
    assert_eq!(row.give_up_at, at + upstream::GIVE_UP, "as long as any other");
    upstream::drain(&world.deps).await.unwrap();
    assert_eq!(ended(&world, id).await, 1);
}

/// The provider ends the tokens before the revocation comes to the grant.
#[tokio::test]
async fn what_a_provider_said_before_the_tombstone_is_its_last_word() {
    let (world, _, id) = ended_while_renewed().await;
    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 1);
    assert_eq!(upstream::fan_out(&world.deps).await.unwrap(), 1);
    assert_eq!(
        ended(&world, id).await,
        1,
        "the report names it, ended: {:?}",
        report(&world, id).await
    );
    world.later(Duration::from_secs(10));
    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 0);
    assert_eq!(ended(&world, id).await, 1);
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    let totals = tx.upstream_totals(world.org, id).await.unwrap();
    drop(tx);
    assert_eq!((totals.pending, totals.revoked), (0, 1), "{totals:?}");
    let entries = world.entries().await;
    let said = entries
        .iter()
        .filter(|entry| entry.kind == EntryType::UpstreamRevoke)
        .map(|entry| entry.draft.outcome.as_deref());
    assert_eq!(said.collect::<Vec<_>>(), [Some("revoked")]);
}

/// Whoever asks for longer than a claim lasts is asked beside, and hears an answer that is no news any more.
#[tokio::test]
async fn a_last_word_that_is_heard_twice_is_said_once() {
    let (world, grant) = World::connected().await;
    let id = world.revoke(Selector::Grant(grant)).await.id;
    upstream::fan_out(&world.deps).await.unwrap();
    world
        .fault(json!({"next": "revoke", "delay_ms": 1500, "times": 1}))
        .await;
    let slow = tokio::spawn({
        let deps = Arc::clone(&world.deps);
        async move { upstream::drain(&deps).await.unwrap() }
    });
    until_asked(&world, id).await;
    world.until_seen("revoke", 1).await;
    world.later(Duration::from_secs(181));
    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 1);
    assert_eq!(slow.await.unwrap(), 0);
    assert_eq!(ended(&world, id).await, 1);
    let entries = world.entries().await;
    let said = entries
        .iter()
        .filter(|entry| entry.kind == EntryType::UpstreamRevoke);
    assert_eq!(said.count(), 1);
}

/// The first steps of a fan-out are done by a process that then dies; another one does the rest, and nothing twice.
#[tokio::test]
async fn a_fan_out_is_taken_over_where_it_was_left() {
    let world = World::on_postgres().await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    world.seed(grant, 250).await;
    let other = world.replica().await.unwrap();
    let id = world.revoke(Selector::All(true)).await.id;
    upstream::bury_now(&world.deps, world.org, id).await.unwrap();
    let first = report(&world, id).await;
    assert!((1..251).contains(&first.len()), "{} are queued", first.len());
    let taken_over = upstream::fan_out(&other).await.unwrap();
    assert_eq!(taken_over, 251 - first.len());
    let all = report(&world, id).await;
    let grants: HashSet<GrantId> = all.iter().map(|row| row.grant).collect();
    assert_eq!((all.len(), grants.len()), (251, 251));
    let kept: BTreeMap<GrantId, _> = all.iter().map(|row| (row.grant, row.give_up_at)).collect();
    assert!(first.iter().all(|row| kept[&row.grant] == row.give_up_at));
    assert_eq!(
        upstream::fan_out(&world.deps).await.unwrap(),
        0,
        "nothing is left"
    );
}

/// A process dies while it asks. What it had taken is asked again when its claim is over, by whoever lives; what was
/// answered and what it had not taken is not.
#[tokio::test]
async fn what_a_dead_process_was_asking_is_asked_again_by_another() {
    let world = Arc::new(World::on_postgres().await);
    let grants = world.connect_many(3).await;
    let other = world.replica().await.unwrap();
    let id = world.revoke(Selector::All(true)).await.id;
    upstream::fan_out(&world.deps).await.unwrap();
    world
        .fault(json!({"next": "revoke", "delay_ms": 100_000, "times": 1}))
        .await;
    let dying = tokio::spawn({
        let deps = Arc::clone(&world.deps);
        async move { upstream::drain(&deps).await }
    });
    // The slow one holds up none of the others.
    for _ in 0..1000 {
        if ended(&world, id).await == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(ended(&world, id).await, 2);
    dying.abort();
    assert!(dying.await.unwrap_err().is_cancelled());
    world.later(Duration::from_secs(60));
    assert_eq!(upstream::drain(&other).await.unwrap(), 0, "it may only be slow");
    world.later(Duration::from_secs(121));
    assert_eq!(upstream::drain(&other).await.unwrap(), 1);
    assert_eq!(ended(&world, id).await, grants.len());
    let mut times: Vec<usize> = asked(&world).await.into_values().collect();
    times.sort_unstable();
    assert_eq!(
        times,
        [1, 1, 1, 1, 1, 2],
        "three grants, two tokens each, one lost answer"
    );
}

#[tokio::test]
async fn a_provider_that_wants_to_be_left_alone_is_by_every_replica_and_for_every_grant() {
    let world = World::on_postgres().await;
    let grants = [
        connect_with(&world, world.ada, "ada@acme.example").await,
        connect_with(&world, world.ben, "ben@acme.example").await,
    ];
    let other = world.replica().await.unwrap();
    let busy = json!({"next": "revoke", "status": 429, "body": "slow down", "retry_after": 120, "times": 1});
    world.fault(busy).await;
    let first = world.revoke(Selector::Grant(grants[0])).await.id;
    upstream::fan_out(&world.deps).await.unwrap();
    assert_eq!(upstream::drain(&world.deps).await.unwrap(), 0);
    assert_eq!(world.seen("revoke").await.len(), 1);
    let second = world.revoke(Selector::Grant(grants[1])).await.id;
    upstream::fan_out(&other).await.unwrap();
    for _ in 0..4 {
        world.later(Duration::from_millis(29_900));
        for deps in [&world.deps, &other] {
            assert_eq!(upstream::drain(deps).await.unwrap(), 0);
        }
    }
    assert_eq!(world.seen("revoke").await.len(), 1, "not before it said");
    world.later(Duration::from_secs(1));
    assert_eq!(upstream::drain(&other).await.unwrap(), 2);
    for id in [first, second] {
        assert_eq!(ended(&world, id).await, 1);
    }
}

/// Acme Mail's file says nothing, so it is asked ten times a second.
#[tokio::test]
async fn two_replicas_together_ask_a_provider_no_faster_than_one_may() {
    let world = World::on_postgres().await;
    let grants = world.connect_many(24).await;
    let tokens = 2 * grants.len();
    let other = world.replica().await.unwrap();
    let id = world.revoke(Selector::All(true)).await.id;
    upstream::fan_out(&world.deps).await.unwrap();
    let drain = async |deps: &Arc<Deps>| upstream::drain(deps).await.unwrap();
    let mut took = None;
    for half_seconds in 0..24 {
        tokio::join!(drain(&world.deps), drain(&other));
        let requests = world.seen("revoke").await.len();
        // A bucket of ten turns, each of which became two requests: the second is owed.
        assert!(
            requests <= 20 + 5 * half_seconds,
            "{requests} after {half_seconds} half seconds"
        );
        if requests == tokens {
            took.get_or_insert(half_seconds);
        }
        world.later(Duration::from_millis(500));
    }
    // 48 requests at ten a second, the first of them at once: they are not slower than that either.
    assert!(took.is_some_and(|took| took <= 12), "{took:?}");
    assert_eq!(ended(&world, id).await, grants.len());
    let asked = asked(&world).await;
    assert!(
        asked.len() == tokens && asked.values().all(|times| *times == 1),
        "{asked:?}"
    );
}

/// A provider that takes requests and does not answer until it is told to.
async fn silent() -> (String, tokio::sync::watch::Sender<bool>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (speak, spoken) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut spoken = spoken.clone();
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {
                    spoken.wait_for(|spoken| *spoken).await.unwrap();
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    });
    (address, speak)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_does_not_answer_holds_up_no_other() {
    let (address, speak) = silent().await;
    let mut world = World::ending_tokens_at(&address).await;
    let slow = world.connect(world.ada, &[Category::Read]).await;
    be_client_of_acme_mail(&world, DEMO_CLIENT_ID).await;
    world.connector = acme_mail();
    let fast = connect_with(&world, world.ben, "ben@acme.example").await;
    let workers = Workers::start(&world.deps);
    // The silent one is asked first, and has not answered when the other's turn comes.
    let first = world.revoke(Selector::Grant(slow)).await.id;
    until_asked(&world, first).await;
    let second = world.revoke(Selector::Grant(fast)).await.id;
    until_ended(&world, second).await;
    assert_eq!(ended(&world, first).await, 0);
    speak.send(true).unwrap();
    until_ended(&world, first).await;
    workers.stop().await;
}

/// Waits until somebody has taken the grant of a revocation to ask about it.
async fn until_asked(world: &World, id: RevocationId) {
    for _ in 0..1000 {
        let now = world.deps.store.read(world.org).await.unwrap().now();
        let rows = report(world, id).await;
        if rows.iter().any(|row| row.due_at > now) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nobody asks");
}

async fn until_ended(world: &World, id: RevocationId) {
    for _ in 0..1000 {
        if ended(world, id).await == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{id} was not ended at its provider");
}
