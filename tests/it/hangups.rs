//! Clients that hang up. What they asked for is dropped after the k-th poll, for every k until it succeeds: whatever had
//! been begun comes to its end, and asking again does what asking once does.

use std::{future::Future, pin::pin, task::Poll, time::Duration};

use postern::{
    crypto::random,
    domain::{GrantId, connector::Category, entry::EntryType, grant::GrantState, secret::AuthorizationCode},
    flows::{
        connect::{ConnectFailure, Visitor, begin, callback},
        refresh::{self, Want},
        revoke, sweep,
    },
    store::{Location, Selector},
};
use serde_json::json;
use url::Url;

use super::harness::{Answer, Journey, World, database};

/// Lets `work` wait at most `polls` times and drops it then; what came of it, if it had come to its end.
pub async fn dropped_after<F: Future>(work: F, polls: usize) -> Option<F::Output> {
    let mut work = pin!(work);
    let mut left = polls;
    std::future::poll_fn(move |context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// Looks again until something is so. What was dropped goes on in a task of its own, which nobody can wait for.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..500 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: never");
}

/// No connection of a pool has a transaction that nobody will end.
pub async fn nothing_stays_open(world: &World) {
    let Location::Postgres(settings) = &world.location else {
        // There is one connection that writes: a transaction left open would have stopped everybody.
        return;
    };
    let mut connection = database::superuser(&database::name_of(settings)).await;
    until("no transaction is open", async || {
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'postern'
               AND state LIKE 'idle in transaction%'",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        (open == 0).then_some(())
    })
    .await;
}

async fn count(world: &World, kind: EntryType) -> usize {
    let entries = world.entries().await;
    entries.iter().filter(|entry| entry.kind == kind).count()
}

/// Asks for a vend and drops that after so many polls, then asks again under the same key until something has come of it.
/// Whether the first had come to its end.
async fn vended(world: &World, grant: GrantId, mode: &str, polls: usize) -> bool {
    let (api, agent) = (world.api(), world.as_agent());
    let body = json!({
        "grant": grant, "tool": "messages.list", "args": {}, "mode": mode, "idempotency_key": format!("k{polls}"),
    });
    let done = dropped_after(api.post(&agent, "/v1/vend", &body), polls).await;
    let again: Answer = until("an outcome", async || {
        let answer = api.post(&agent, "/v1/vend", &body).await;
        (answer.code() != "in_progress").then_some(answer)
    })
    .await;
    let made = (again.status, again.code());
    let once = made.0 == 200 || made == (409, "already_released".to_owned());
    assert!(once, "{polls}: {}", again.text());
    if let Some(done) = &done {
        assert_eq!(done.status, 200, "{}", done.text());
    }
    done.is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vend_dropped_after_any_poll_is_made_exactly_once_when_it_is_asked_for_again() {
    let (world, grant) = World::connected().await;
    for polls in 0.. {
        let before = world.seen("api").await.len();
        let done = vended(&world, grant, "execute", polls).await;
        assert_eq!(world.seen("api").await.len(), before + 1, "{polls}");
        if done && polls >= AT_LEAST {
            break;
        }
    }
    let releases = count(&world, EntryType::Release).await;
    assert_eq!(count(&world, EntryType::Outcome).await, releases);
    nothing_stays_open(&world).await;
}

/// The token it would go out with has ended: on the way the provider is asked for another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vend_that_needs_a_refresh_and_is_dropped_after_any_poll_causes_one_and_is_made_once() {
    let (world, grant) = World::connected().await;
    for polls in 0.. {
        world.later(Duration::from_secs(400));
        let generation = world.grant(grant).await.generation;
        let before = (world.seen("token").await.len(), world.seen("api").await.len());
        let done = vended(&world, grant, "execute", polls).await;
        let now = (world.seen("token").await.len(), world.seen("api").await.len());
        assert_eq!(now, (before.0 + 1, before.1 + 1), "{polls}");
        let kept = world.grant(grant).await;
        assert_eq!(
            (kept.state, kept.generation),
            (GrantState::Active, generation + 1),
            "{polls}"
        );
        if done && polls >= AT_LEAST {
            break;
        }
    }
    let releases = count(&world, EntryType::Release).await;
    assert_eq!(count(&world, EntryType::Outcome).await, releases);
    nothing_stays_open(&world).await;
}

/// Each time the provider is asked for a narrowed one. A token that nobody took is not given out again under its key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_vended_and_dropped_after_any_poll_is_released_once() {
    let (world, grant) = World::connected().await;
    let calls = world.seen("api").await.len();
    for polls in 0.. {
        world.later(Duration::from_secs(400));
        let before = (
            world.seen("token").await.len(),
            count(&world, EntryType::Release).await,
        );
        let done = vended(&world, grant, "token", polls).await;
        let now = (
            world.seen("token").await.len(),
            count(&world, EntryType::Release).await,
        );
        assert_eq!(now, (before.0 + 1, before.1 + 1), "{polls}");
        assert_eq!(world.grant(grant).await.state, GrantState::Active, "{polls}");
        if done && polls >= AT_LEAST {
            break;
        }
    }
    assert_eq!(world.seen("api").await.len(), calls, "a call of our own");
    nothing_stays_open(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_dropped_after_any_poll_asks_the_provider_once_and_keeps_the_answer() {
    let (world, grant) = World::connected().await;
    for polls in 0.. {
        let before = world.seen("token").await.len();
        let seen = world.grant(grant).await;
        let want = Want::Renewed {
            than: Some(seen.generation),
        };
        let done = dropped_after(refresh::ensure(&world.deps, &seen, want.clone()), polls).await;
        // Whoever comes next wants no more than what the first one wanted.
        refresh::ensure(&world.deps, &seen, want).await.unwrap();
        assert_eq!(world.seen("token").await.len(), before + 1, "{polls}");
        let now = world.grant(grant).await;
        assert_eq!(
            (now.state, now.generation),
            (GrantState::Active, seen.generation + 1)
        );
        if let Some(done) = done {
            done.unwrap();
            if polls >= AT_LEAST {
                break;
            }
        }
    }
    world.vend(world.read(grant)).await.unwrap();
    nothing_stays_open(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_that_was_begun_is_done_though_nobody_waits_for_it() {
    let (world, mut grant) = World::connected().await;
    for polls in 0.. {
        let before = count(&world, EntryType::Revoke).await;
        let ask = revoke::Ask {
            selector: Selector::Grant(grant),
            reason: "test".to_owned(),
            drain: false,
            by: "test".to_owned(),
        };
        let done = dropped_after(revoke::run(&world.deps, world.org, ask), polls).await;
        until("the revocation's entry", async || {
            (count(&world, EntryType::Revoke).await == before + 1).then_some(())
        })
        .await;
        let refused = world.vend(world.read(grant)).await;
        assert!(refused.is_err(), "{polls}: {refused:?}");
        if let Some(done) = done {
            done.unwrap();
            if polls >= AT_LEAST {
                break;
            }
        }
        grant = world.connect(world.ada, &[Category::Read]).await;
    }
    nothing_stays_open(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_dropped_after_any_poll_is_done_or_not_begun() {
    let (world, mut grant) = World::connected().await;
    let api = world.api();
    for polls in 0.. {
        let (entries, body) = (
            count(&world, EntryType::Revoke).await,
            json!({"selector": {"grant": grant}, "reason": "test"}),
        );
        let admin = world.as_admin();
        let done = dropped_after(api.post(&admin, "/v1/revocations", &body), polls).await;
        // What is released now is released before anything ended; what is not, because of an entry that says so.
        let vended = world
            .api()
            .post(
                &world.as_agent(),
                "/v1/vend",
                &json!({"grant": grant, "tool": "messages.list", "args": {}}),
            )
            .await;
        match vended.status {
            200 => {}
            410 => assert_eq!(count(&world, EntryType::Revoke).await, entries + 1, "{polls}"),
            _ => panic!("{polls}: {}", vended.text()),
        }
        let again = api.post(&admin, "/v1/revocations", &body).await;
        assert_eq!(again.status, 200, "{polls}: {}", again.text());
        let refused = world.vend(world.read(grant)).await;
        assert!(refused.is_err(), "{polls}: {refused:?}");
        if let Some(done) = done {
            assert_eq!(done.status, 200, "{}", done.text());
            if polls >= AT_LEAST {
                break;
            }
        }
        grant = world.connect(world.ada, &[Category::Read]).await;
    }
    nothing_stays_open(&world).await;
}

/// What the provider's redirect says, as often as the browser comes with it.
fn answer(back: &Url) -> callback::Answer {
    let get = |wanted: &str| {
        back.query_pairs()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.into_owned())
    };
    callback::Answer {
        code: get("code").map(AuthorizationCode::new),
        state: get("state"),
        error: get("error"),
        iss: get("iss"),
    }
}

async fn codes_exchanged(world: &World) -> usize {
    let asked = world.seen("token").await;
    asked
        .iter()
        .filter(|entry| entry["grant_type"] == "authorization_code")
        .count()
}

async fn end_everything(world: &World) {
    let ask = revoke::Ask {
        selector: Selector::All(true),
        reason: "test".to_owned(),
        drain: false,
        by: "test".to_owned(),
    };
    revoke::run(&world.deps, world.org, ask).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_dropped_after_any_poll_exchanges_its_code_once_and_can_be_confirmed() {
    let world = World::new().await;
    for polls in 0.. {
        let journey = Journey::begin(&world, world.ada, None).await;
        let back = journey.way_back(&world, "ada@acme.example", false).await;
        let before = codes_exchanged(&world).await;
        let done = dropped_after(journey.come_back(&world, answer(&back)), polls).await;
        // The browser comes again, and the person confirms as soon as there is something to confirm.
        let grant = until("a grant", async || {
            let _spent = journey.come_back(&world, answer(&back)).await;
            journey.confirm(&world, &[Category::Read]).await.ok()
        })
        .await;
        assert_eq!(codes_exchanged(&world).await, before + 1, "{polls}");
        world.vend(world.read(grant)).await.unwrap();
        if let Some(done) = done {
            done.unwrap();
            if polls >= AT_LEAST {
                break;
            }
        }
        end_everything(&world).await;
    }
    nothing_stays_open(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmation_dropped_after_any_poll_keeps_one_grant() {
    let world = World::new().await;
    for polls in 0.. {
        let journey = Journey::begin(&world, world.ada, None).await;
        let back = journey.way_back(&world, "ada@acme.example", false).await;
        journey.come_back(&world, answer(&back)).await.unwrap();
        let before = count(&world, EntryType::Connect).await;
        let done = dropped_after(journey.confirm(&world, &[Category::Read]), polls).await;
        // Confirmed again, it is kept, or it has been.
        let grant = until("a grant", async || {
            let _kept = journey.confirm(&world, &[Category::Read]).await;
            let grants = world.grants_of(world.ada).await;
            let living: Vec<_> = grants
                .iter()
                .filter(|grant| grant.state == GrantState::Active)
                .collect();
            assert!(living.len() < 2, "{polls}: {living:?}");
            living.first().map(|grant| grant.id)
        })
        .await;
        assert_eq!(count(&world, EntryType::Connect).await, before + 1, "{polls}");
        world.vend(world.read(grant)).await.unwrap();
        if let Some(done) = done {
            done.unwrap();
            if polls >= AT_LEAST {
                break;
            }
        }
        end_everything(&world).await;
    }
    nothing_stays_open(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmation_that_was_begun_is_kept_though_nobody_waits_for_it() {
    let world = World::new().await;
    let journey = Journey::begin(&world, world.ada, None).await;
    let back = journey.way_back(&world, "ada@acme.example", false).await;
    journey.come_back(&world, answer(&back)).await.unwrap();
    for patience in [50, 100, 200, 300, 400, 500] {
        // Nothing can be kept while another writes; by the time the person goes away, it waits for that.
        let writer = world.deps.store.write(world.org).await.unwrap();
        let confirming = journey.confirm(&world, &[Category::Read]);
        let answered = tokio::time::timeout(Duration::from_millis(patience), confirming).await;
        drop(writer);
        assert!(answered.is_err(), "it was kept while another wrote: {answered:?}");
        // Longer than it takes to keep it: the next round's confirmation would find it kept.
        for _ in 0..200 {
            let grants = world.grants_of(world.ada).await;
            if let Some(grant) = grants.first() {
                assert_eq!((grants.len(), &grant.state), (1, &GrantState::Active));
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    panic!("what was begun is not kept");
}

#[tokio::test]
async fn a_transaction_dropped_after_any_poll_leaves_no_transaction_open() {
    let world = World::on_postgres().await;
    let mut polls = 0;
    loop {
        let done = dropped_after(
            async {
                let mut tx = world.deps.store.write(world.org).await?;
                tx.advance_epoch(world.org, &Selector::All(true)).await?;
                tx.commit().await
            },
            polls,
        )
        .await;
        let epoch = world
            .deps
            .store
            .read(world.org)
            .await
            .unwrap()
            .epoch(world.org)
            .await
            .unwrap();
        assert!(epoch.is_some());
        if let Some(done) = done {
            done.unwrap();
            break;
        }
        polls += 1;
    }
    assert!(polls > 0);
    nothing_stays_open(&world).await;
}

/// Whoever hung up makes another link. The one before stands there whole, or not at all, and nobody knows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_begun_and_dropped_after_any_poll_stands_in_nobodys_way() {
    let world = World::new().await;
    let sessions = async || database::counts(&world.location).await["connect_sessions"];
    for polls in 0.. {
        let ask = || begin::Ask::new(world.ada, world.connector.clone());
        let before = sessions().await;
        let done = dropped_after(begin::create(&world.deps, world.org, ask()), polls).await;
        begin::create(&world.deps, world.org, ask()).await.unwrap();
        let made = sessions().await - before;
        assert!(made == 2 || (done.is_none() && made == 1), "{polls}: {made}");
        if let Some(done) = done {
            done.unwrap();
            if polls >= AT_LEAST {
                break;
            }
        }
    }
    assert!(world.seen("token").await.is_empty());
    world.connect(world.ada, &[Category::Read]).await;
    // Time ends what nobody follows.
    world.later(Duration::from_secs(601));
    sweep::run(&world.deps).await.unwrap();
    let pending = "UPDATE connect_sessions SET status = status WHERE status = 'pending'";
    assert_eq!(database::raw_sql(&world.location, pending).await, 0);
    nothing_stays_open(&world).await;
}

/// A link is good once. Whoever's browser went away before it learned that has a link that is used up, or one that is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_followed_and_dropped_after_any_poll_is_used_up_or_good_still() {
    let world = World::new().await;
    let visitor = Visitor {
        user: Some((world.org, world.ada)),
    };
    let link = async || {
        let ask = begin::Ask::new(world.ada, world.connector.clone());
        let link = begin::create(&world.deps, world.org, ask).await.unwrap();
        random::parse_link_token(link.url.rsplit('/').next().unwrap()).unwrap()
    };
    for polls in 0.. {
        let made = link().await;
        let done = dropped_after(begin::go(&world.deps, &made, visitor), polls).await;
        match begin::go(&world.deps, &made, visitor).await {
            // Nothing had been begun.
            Ok(_) => assert!(done.is_none(), "{polls}: followed twice"),
            Err(ConnectFailure::Used) => {}
            Err(other) => panic!("{polls}: {other:?}"),
        }
        if let Some(done) = done {
            done.unwrap();
            if polls >= AT_LEAST {
                break;
            }
        }
    }
    world.connect(world.ada, &[Category::Read]).await;
    nothing_stays_open(&world).await;
}

/// A quick machine may be done after fewer polls; so many places are tried all the same.
pub const AT_LEAST: usize = 6;
