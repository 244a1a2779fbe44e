//! The course of a campaign: load, a fault, its end, recovery, checks; and the next.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    checks::{self, REVOKED, Round, Seen},
    deployment::Deployment,
    dice::Dice,
    faults::{Fault, unlucky},
    load::{Asked, Load, Want, asked},
    log::Log,
    postgres::Postgres,
    secrets,
    table::{self, Row, say},
};

/// Runs one and fails if anything was not survived.
pub(crate) async fn campaign(title: &str, postgres: Option<Postgres>, replicas: usize) {
    let (dice, seed) = Dice::cast();
    say(&format!("{title}: POSTERN_FAULTS_SEED={seed}"));
    let begun = Instant::now();
    let mut campaign = Campaign {
        deployment: Arc::new(Deployment::start(postgres, replicas).await),
        numbers: Arc::default(),
        dice,
    };
    let long = std::env::var_os("POSTERN_LONG").is_some();
    let mut rows = Vec::new();
    let mut memory = None;
    'all: loop {
        let mut faults = Fault::all(&campaign.deployment.store);
        campaign.dice.shuffle(&mut faults);
        for fault in faults {
            let row = campaign.round(fault).await;
            say(&format!("{title}: {row}"));
            let survived = row.complaints.is_empty();
            rows.push(row);
            if !survived || (long && begun.elapsed() > LONG) {
                break 'all;
            }
        }
        memory.get_or_insert_with(|| campaign.memory());
        if !long {
            break;
        }
    }
    let grown = campaign.memory().saturating_sub(memory.unwrap_or(u64::MAX));
    table::show(
        &format!("{title}, seed {seed}, {} s", begun.elapsed().as_secs()),
        &rows,
    );
    let complaints: Vec<&String> = rows.iter().flat_map(|row| &row.complaints).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    assert!(
        grown < MEMORY_KIB,
        "memory grew by {grown} KiB after the first round of all faults"
    );
}

struct Campaign {
    deployment: Arc<Deployment>,
    numbers: Arc<AtomicU64>,
    dice: Dice,
}

impl Campaign {
    async fn round(&mut self, fault: Fault) -> Row {
        let deployment = Arc::clone(&self.deployment);
        let lasts = fault.lasts(&deployment.store);
        let since = checks::latest_request(&deployment).await;
        let load = Load::start(&deployment, &self.numbers, &mut self.dice);
        let begun = Instant::now();
        tokio::time::sleep(CALM).await;
        load.until_released(begun).await;

        if fault.strikes_renewals() {
            self.begin_renewals().await;
        }
        fault.strike(&deployment, &load).await;
        let struck = Instant::now();
        tokio::time::sleep(fault.revoked_after(&deployment.store)).await;
        let grant = deployment.grant_of(REVOKED.0, REVOKED.1);
        let early = self.revoke(&grant, Duration::from_secs(3)).await;
        tokio::time::sleep((struck + lasts).saturating_duration_since(Instant::now())).await;
        let said = match fault.obstacle(&deployment.store) {
            Some(obstacle) => unlucky(&deployment).says(obstacle).await,
            None => Ok(()),
        };
        let healing = Instant::now();
        fault.heal(&deployment, &load).await;
        let recovered = self.until_served(healing).await;
        let revoked_at = match early {
            Some(at) => Ok(at),
            // It did not say that it was done: it is asked again, as an admin would.
            None => self.until_revoked(&grant).await,
        };
        tokio::time::sleep(CALM).await;
        load.until_released(healing).await;
        let mut asked = load.stop().await;
        let settled = self.settle(&mut asked, fault).await;

        let mut row = Row::new(fault.name(), &asked, healing.elapsed(), early.is_some());
        let revoked_at = match (recovered, revoked_at) {
            (Ok(recovered), Ok(at)) => {
                row.recovered = recovered;
                at
            }
            (recovered, revoked) => {
                row.check(recovered.map(drop));
                row.check(revoked.map(drop));
                return row;
            }
        };
        row.check(settled);
        row.check(said);
        if early.is_none() && fault.lets_revoke(deployment.replicas.len()) {
            row.check(Err(
                "I12: nothing could be revoked meanwhile, and nothing was in the way".to_owned(),
            ));
        }
        row.check(checks::repeated_keys_say_the_same(&deployment, fault, &mut asked).await);
        row.check(checks::one_renewal_serves_all(&deployment, &mut self.numbers()).await);
        let seen = Seen::look(&deployment).await;
        let logs = match [0, 1].map(|tenant| Log::export(&deployment, tenant)) {
            [Ok(ours), Ok(theirs)] => [ours, theirs],
            failed => {
                row.check(Err(format!("I6: {failed:?}")));
                return row;
            }
        };
        let round = Round {
            deployment: &deployment,
            fault,
            struck,
            healing,
            out: healing.duration_since(struck) + row.recovered,
            since,
            asked: &asked,
            revoked: (&grant, revoked_at),
            logs: &logs,
            seen: &seen,
        };
        row.check(round.there_was_a_load());
        row.check(round.nothing_was_released_while_broken());
        row.check(round.every_release_has_its_one_entry());
        row.check(round.the_provider_did_no_more_than_was_released());
        row.check(round.nothing_follows_a_revocation());
        row.check(round.no_rotation_was_lost());
        row.check(round.no_generation_was_lost().await);
        row.check(checks::tenants_are_apart(&deployment, &logs).await);
        row.check(secrets::nothing_is_in_the_clear(&deployment));
        deployment.connect(REVOKED.0, REVOKED.1).await;
        row.check(secrets::sealed_values_open_only_at_home(&deployment, &mut self.numbers()).await);
        row
    }

    /// Whoever calls next finds that a token has to be renewed. At most once in a round under load: a provider that calls a
    /// token dead which it gave a moment ago ends the grant, and rightly so.
    async fn begin_renewals(&mut self) {
        let everybody = self.deployment.everybody();
        for (tenant, person) in everybody.into_iter().filter(|who| *who != REVOKED) {
            self.deployment.expire(tenant, person).await;
        }
        tokio::time::sleep(Duration::from_millis(self.dice.below(60))).await;
    }

    /// Asks for the end of a grant; when that was done, if it was.
    async fn revoke(&self, grant: &str, within: Duration) -> Option<Instant> {
        let body = json!({"selector": {"grant": grant}, "reason": "campaign"});
        let key = &self.deployment.tenants[REVOKED.0].admin_key;
        let call = self.deployment.replicas[0].call("POST", "/v1/revocations", key, Some(body));
        let (status, _) = call.ask(within).await?;
        (status == 200).then(Instant::now)
    }

    async fn until_revoked(&self, grant: &str) -> Result<Instant, String> {
        let begun = Instant::now();
        while begun.elapsed() < RECOVERS_WITHIN {
            if let Some(at) = self.revoke(grant, RECOVERS_WITHIN).await {
                return Ok(at);
            }
            tokio::time::sleep(SHORTLY).await;
        }
        Err("I12: nothing can be revoked after the fault".to_owned())
    }

    /// Waits until every replica serves both orgs again, in both ways; how long that took.
    async fn until_served(&self, since: Instant) -> Result<Duration, String> {
        let mut number = self.numbers();
        for replica in &self.deployment.replicas {
            replica.is_ready_again().await?;
            for (who, want) in [((0, 0), Want::Send), ((0, 0), Want::Token), ((1, 0), Want::Send)] {
                loop {
                    let mut one = asked(&self.deployment, who, want, number());
                    one.ask(replica.listen, SERVES_WITHIN).await;
                    if one.released() {
                        break;
                    }
                    if since.elapsed() > RECOVERS_WITHIN {
                        return Err(format!("not recovered: {one:?}, ended: {}", replica.has_ended()));
                    }
                    tokio::time::sleep(SHORTLY).await;
                }
            }
        }
        Ok(since.elapsed())
    }

    /// Repeats every key whose outcome was not heard until it is.
    async fn settle(&self, asked: &mut Vec<Asked>, fault: Fault) -> Result<(), String> {
        let begun = Instant::now();
        let (mut settled, mut open): (Vec<_>, Vec<_>) = asked.drain(..).partition(Asked::settled);
        while !open.is_empty() && begun.elapsed() < SETTLES_WITHIN {
            let mut calls = tokio::task::JoinSet::new();
            let rest = open.split_off(open.len().min(16));
            for mut one in open {
                let at = self.deployment.replicas[0].listen;
                calls.spawn(async move {
                    one.ask(at, SERVES_WITHIN).await;
                    one
                });
            }
            open = rest;
            let again = calls.join_all().await;
            let (done, not_yet): (Vec<_>, Vec<_>) = again.into_iter().partition(Asked::settled);
            if done.is_empty() {
                tokio::time::sleep(SHORTLY).await;
            }
            settled.extend(done);
            open.extend(not_yet);
        }
        let lost = open
            .iter()
            .find(|one| !(fault.leaves_calls_open() && one.tries.last().unwrap().code == "in_progress"))
            .map(|one| format!("I15: no outcome, {} in all: {one:?}", open.len()));
        asked.extend(settled);
        asked.extend(open);
        lost.map_or(Ok(()), Err)
    }

    fn numbers(&self) -> impl FnMut() -> u64 + use<> {
        let numbers = Arc::clone(&self.numbers);
        move || numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// What the largest replica holds, in KiB.
    fn memory(&self) -> u64 {
        self.deployment
            .replicas
            .iter()
            .map(|replica| replica.memory())
            .max()
            .unwrap()
    }
}

/// How long everything is well before and after a fault.
const CALM: Duration = Duration::from_millis(800);
/// The longest that anything may stay broken that is mended.
const RECOVERS_WITHIN: Duration = Duration::from_secs(20);
/// The longest for one answer.
const SERVES_WITHIN: Duration = Duration::from_secs(8);
/// The longest until every call has an outcome. A request to a provider, and a wait for another replica's, may last thirty.
const SETTLES_WITHIN: Duration = Duration::from_secs(40);
const SHORTLY: Duration = Duration::from_millis(200);
/// The whole of the long form.
const LONG: Duration = Duration::from_secs(20 * 60);
/// What a replica may hold more after all faults than after each fault once.
const MEMORY_KIB: u64 = 64 * 1024;
