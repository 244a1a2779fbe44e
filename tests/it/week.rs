//! I16: a week with nobody there. Two people connected on Friday and left; their agent works for them at 6 a.m. every
//! day. A third connected and never asked for anything, a fourth never connected. The clock is moved; what the workers
//! do by themselves is done at every step of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use postern::{
    audit::Checkpoint,
    domain::{Clock as _, GrantId, Time, UserId, connector::Category, grant::GrantState},
    flows::{
        Refusal,
        actions::{Ask, Target},
        audit, upstream,
        vend::Vended,
    },
    workers::periodic,
};
use serde_json::json;

use super::{
    audit::verifies,
    harness::{Outcome, World, ask, connect_as, database, log_in, token},
};

/// The people of the week.
struct Week {
    world: World,
    /// Their grants and where their agent's mail goes.
    served: Vec<(GrantId, &'static str)>,
    idle: GrantId,
    stranger: UserId,
    keys: AtomicU64,
}

impl Week {
    async fn begin() -> Self {
        // Grants that die of two days' idleness, so that a week is long enough to lose one.
        let world = World::with_connector(&[("rotates = true", "rotates = true\nidle_days = 2")]).await;
        let more = json!({"person": [
            {"email": "robin@else.example", "role": "member"},
            {"email": "stranger@acme.example", "role": "member"},
        ]});
        world.apply(&more).await;
        let robin = person(&world, "robin@else.example").await;
        let stranger = person(&world, "stranger@acme.example").await;
        let served = vec![
            (
                granted(&world, world.ada, "ada@acme.example").await,
                "ben@acme.example",
            ),
            (
                granted(&world, robin, "other@else.example").await,
                "other@else.example",
            ),
        ];
        let idle = granted(&world, world.ben, "ben@acme.example").await;
        Self {
            world,
            served,
            idle,
            stranger,
            keys: AtomicU64::new(0),
        }
    }

    /// Lets this much time pass, in steps.
    async fn pass(&self, whole: Duration, step: Duration) {
        let end = self.world.clock.now() + whole;
        while self.world.clock.now() < end {
            self.world.later(step.min(end.since(self.world.clock.now())));
            self.work().await;
        }
    }

    /// What the workers do, once: the looks of all that a process starts. Nothing of it may fail.
    async fn work(&self) {
        let deps = &self.world.deps;
        let mut due = deps.store.due().await.unwrap();
        let is_renewing = !due.renewal_connectors().await.unwrap().is_empty();
        drop(due);
        for worker in periodic(deps) {
            while worker.look().await.expect(worker.name) {}
        }
        // The one that is not in the list asks each provider in a task of its own; here all of them are waited for.
        upstream::drain(deps).await.unwrap();
        if is_renewing {
            self.until_nobody_asks().await;
        }
    }

    /// A look does not wait for the provider; the clock waits for it here.
    async fn until_nobody_asks(&self) {
        let (mut quiet, began) = (0, Instant::now());
        while quiet < 2 {
            assert!(
                began.elapsed() < Duration::from_secs(120),
                "somebody asks for ever"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
            let asking = "UPDATE refresh_leases SET fence = fence WHERE intent IS NOT NULL";
            let is_quiet = database::raw_sql(&self.world.location, asking).await == 0;
            quiet = if is_quiet { quiet + 1 } else { 0 };
        }
    }

    /// Six in the morning: a look at the mail by Postern, one with a token of the agent's own, and a letter.
    async fn morning(&self) {
        for &(grant, to) in &self.served {
            let letter = json!({"to": [to], "subject": "Good morning", "body": "Nothing new."});
            let sent = self.once(ask(grant, "messages.send", letter)).await;
            let read = self.once(self.world.read(grant)).await;
            for vended in [sent, read] {
                assert!(
                    matches!(&vended, Vended::Executed { answer, .. } if answer.status < 300),
                    "{vended:?}"
                );
            }
            let released = self.once(token(self.world.read(grant))).await;
            assert!(matches!(released, Vended::Token { .. }), "{released:?}");
        }
        let nobody = Ask {
            target: Target::Account {
                connector: self.world.connector.clone(),
                user: self.stranger,
                account: None,
            },
            ..self.world.read(self.idle)
        };
        let refused = self.world.vend(nobody).await;
        assert!(
            matches!(refused, Err(Refusal::ConnectionRequired(_))),
            "{refused:?}"
        );
    }

    /// A vend with an idempotency key of its own, as an agent makes that nobody watches.
    async fn once(&self, ask: Ask) -> Vended {
        let number = self.keys.fetch_add(1, Ordering::Relaxed);
        let idempotency = Some((format!("call-{number}"), "digest".to_owned()));
        self.world.vend(Ask { idempotency, ..ask }).await.unwrap()
    }

    /// When an account's refresh tokens were used, all of them successfully.
    async fn renewals(&self, account: &str) -> Vec<Time> {
        let mut at = Vec::new();
        for seen in self.world.seen("token").await {
            assert_eq!(seen["status"], 200, "{seen}");
            if seen["account"] == account && seen["grant_type"] == "refresh_token" {
                at.push(Time::parse_rfc3339(seen["at"].as_str().unwrap()).unwrap());
            }
        }
        at
    }

    async fn checkpoint(&self) -> Checkpoint {
        let note = audit::checkpoint(&self.world.deps, self.world.org).await.unwrap();
        Checkpoint::read_unverified(&note).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_week_with_nobody_there() {
    let week = Week::begin().await;
    let world = &week.world;
    let ada = log_in(&world.deps, world.org, world.ada).await;
    assert_eq!(world.api().get(&ada, "/v1/users").await.status, 200);
    let mut sizes = vec![week.checkpoint().await.size];
    let mut rows: Vec<BTreeMap<String, i64>> = Vec::new();

    let first = world.clock.now();
    week.pass(Duration::from_secs(22 * 3600), LONG_STEP).await;
    for day in 0..DAYS {
        assert_eq!((world.clock.now().unix_seconds() / 3600) % 24, 6);
        week.work().await;
        let idle_size = week.checkpoint().await.size;
        week.morning().await;
        // The tokens of this morning end while somebody may still use them.
        week.pass(Duration::from_secs(10 * 60), SHORT_STEP).await;
        sizes.push(week.checkpoint().await.size);
        assert!(sizes[day + 1] > sizes[day]);
        assert!(sizes[day + 1] > idle_size);
        week.pass(DAY - Duration::from_secs(10 * 60), LONG_STEP).await;
        rows.push(database::counts(&world.location).await);
    }
    assert!(world.clock.now().since(first) > DAY * 7);

    // Whoever was away comes back: everything is as it was left.
    for &(grant, _) in &week.served {
        assert_eq!(world.grant(grant).await.state, GrantState::Active);
    }
    assert_eq!(world.grant(week.idle).await.state, GrantState::Active);
    week.once(world.read(week.idle)).await;
    week.work().await;
    assert!(verifies(world).await);
    assert_eq!(
        world.api().get(&ada, "/v1/users").await.status,
        401,
        "a session of last week"
    );
    let counts = database::counts(&world.location).await;
    assert_eq!(counts["sessions"], 0);

    the_provider_was_asked_no_more_than_needed(&week, first).await;
    the_database_keeps_the_log_and_nothing_else(&rows);
}

/// One renewal for the morning's first call, one for the narrowed token, one ahead of the end of the token that was used:
/// three a day and person. The idle grant is kept alive, and hardly ever asked about.
async fn the_provider_was_asked_no_more_than_needed(week: &Week, first: Time) {
    for account in ["ada@acme.example", "other@else.example"] {
        let renewals = week.renewals(account).await;
        let by_day = |at: &Time| at.since(first).as_secs() / DAY.as_secs();
        let mut days: BTreeMap<u64, usize> = BTreeMap::new();
        for at in &renewals {
            *days.entry(by_day(at)).or_default() += 1;
        }
        assert_eq!(
            days.into_values().collect::<Vec<_>>(),
            [3; DAYS],
            "{account}: {renewals:?}"
        );
    }
    let idle = week.renewals("ben@acme.example").await;
    assert!((4..=8).contains(&idle.len()), "{idle:?}");
    let mut before = first;
    for at in idle {
        assert!(at.since(before) < DAY * 2, "idle for {:?}", at.since(before));
        before = at;
    }
}

/// From the third day on no table grows but those of the log: what is spent goes as fast as it comes.
fn the_database_keeps_the_log_and_nothing_else(rows: &[BTreeMap<String, i64>]) {
    let (early, late) = (&rows[2], &rows[DAYS - 1]);
    let grown: BTreeSet<&str> = late
        .iter()
        // One tile takes 256 leaves.
        .filter(|(table, _)| *table != "tiles")
        .filter(|(table, count)| *count > &early[*table])
        .map(|(table, _)| table.as_str())
        .collect();
    assert_eq!(grown, BTreeSet::from(["entries", "leaves"]), "{early:?} {late:?}");
}

/// Connects and lets the agent read and write.
async fn granted(world: &World, user: UserId, account: &str) -> GrantId {
    match connect_as(world, user, account, &[Category::Read, Category::Write], false).await {
        Outcome::Granted(grant) => grant,
        other => panic!("not connected: {other:?}"),
    }
}

async fn person(world: &World, email: &str) -> UserId {
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    tx.user_by_email(world.org, email).await.unwrap().unwrap().id
}

const DAYS: usize = 7;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// A night passes in these.
const LONG_STEP: Duration = Duration::from_secs(600);
/// Shorter than the time in which a token is renewed ahead of its end.
const SHORT_STEP: Duration = Duration::from_secs(15);
