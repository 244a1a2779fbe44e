//! The invariants, asked from the outside: what agents heard, what Acme Mail saw, what the exported log says. I1 to I6, I12 and
//! I15 are here, I7 and I8 in `secrets.rs`; I16, a week with nobody there, runs on a virtual clock in `tests/it/week.rs`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    deployment::Deployment,
    faults::Fault,
    load::{Asked, FEW, Try, Want, asked, subject},
    log::Log,
};

/// A fault that is over, and what happened meanwhile.
pub(crate) struct Round<'r> {
    pub(crate) deployment: &'r Deployment,
    pub(crate) fault: Fault,
    pub(crate) struck: Instant,
    /// When its healing began.
    pub(crate) healing: Instant,
    /// How long it was until everybody was served again.
    pub(crate) out: Duration,
    /// What Acme Mail had been asked last before the round.
    pub(crate) since: u64,
    pub(crate) asked: &'r [Asked],
    /// The grant that was ended, and when that was answered.
    pub(crate) revoked: (&'r str, Instant),
    pub(crate) logs: &'r [Log; 2],
    pub(crate) seen: &'r Seen,
}

/// What Acme Mail saw so far.
#[derive(Debug)]
pub(crate) struct Seen {
    requests: Vec<Value>,
    /// Letters by sender and subject, as they arrived.
    letters: BTreeMap<(String, String), usize>,
}

impl Seen {
    pub(crate) async fn look(deployment: &Deployment) -> Self {
        let mut letters = BTreeMap::new();
        for (tenant, person) in deployment.everybody() {
            let account = deployment.tenants[tenant].people[person].account;
            let path = format!("/admin/mailbox?account={account}");
            for letter in deployment.acme("GET", &path, None).await.as_array().unwrap() {
                if letter["folder"] == "inbox" {
                    let text = |name: &str| letter[name].as_str().unwrap().to_owned();
                    *letters.entry((text("from"), text("subject"))).or_default() += 1;
                }
            }
        }
        Self {
            requests: requests(deployment).await,
            letters,
        }
    }

    fn letters(&self, account: &str, number: u64) -> usize {
        let place = (account.to_owned(), subject(number));
        self.letters.get(&place).copied().unwrap_or_default()
    }

    /// Requests about an account, of one kind.
    fn about<'s>(&'s self, account: &'s str, kind: &'s str) -> impl Iterator<Item = &'s Value> {
        let fits = move |seen: &&Value| seen["account"] == account && seen["kind"] == kind;
        self.requests.iter().filter(fits)
    }
}

/// What Acme Mail was asked, in order of arrival.
async fn requests(deployment: &Deployment) -> Vec<Value> {
    match deployment.acme("GET", "/admin/log", None).await {
        Value::Array(requests) => requests,
        other => panic!("{other}"),
    }
}

/// The number of the latest request that Acme Mail has seen.
pub(crate) async fn latest_request(deployment: &Deployment) -> u64 {
    let requests = requests(deployment).await;
    requests
        .last()
        .map_or(0, |latest| latest["seq"].as_u64().unwrap())
}

/// The refresh tokens that bought an account new ones, in requests after this one, and how often each did.
fn spent(requests: &[Value], account: &str, since: u64) -> BTreeMap<String, usize> {
    let mut spent = BTreeMap::new();
    let bought = requests.iter().filter(|seen| {
        seen["kind"] == "token"
            && seen["account"] == account
            && seen["issued_refresh_sha256"].is_string()
            && seen["grant_type"] == "refresh_token"
            && seen["seq"].as_u64() > Some(since)
    });
    for seen in bought {
        let token = seen["token_sha256"].as_str().unwrap().to_owned();
        *spent.entry(token).or_default() += 1;
    }
    spent
}

/// How often an account's tokens were renewed.
async fn renewals(deployment: &Deployment, account: &str) -> usize {
    let is_one = |seen: &&Value| {
        seen["kind"] == "token" && seen["account"] == account && seen["grant_type"] == "refresh_token"
    };
    requests(deployment).await.iter().filter(is_one).count()
}

impl Round<'_> {
    fn account(&self, one: &Asked) -> &'static str {
        self.deployment.tenants[one.tenant].people[one.person].account
    }

    /// Else nothing was tried: calls came through before it and after it, and came while nothing might be released.
    pub(crate) fn there_was_a_load(&self) -> Result<(), String> {
        let tries = || {
            let tries = |one: &'_ Asked| {
                one.tries
                    .iter()
                    .map(|tried| (one.want, tried.clone()))
                    .collect::<Vec<_>>()
            };
            self.asked.iter().flat_map(tries)
        };
        let before = tries().filter(|(_, tried)| tried.released() && tried.over < self.struck);
        let after = tries().filter(|(_, tried)| tried.released() && tried.sent > self.healing);
        let forbidden = |want| self.fault.forbids(want);
        let is_forbidden = tries().any(|(want, _)| forbidden(want).is_some());
        let meanwhile = tries().filter(|(want, tried)| {
            forbidden(*want)
                .is_some_and(|margin| tried.sent > self.struck + margin && tried.sent < self.healing)
        });
        match (before.count(), meanwhile.count(), after.count()) {
            (before, _, after) if before.min(after) < FEW => {
                Err(format!("{before} released before it, {after} after it: no load"))
            }
            (_, few @ ..FEW_MEANWHILE, _) if is_forbidden => {
                Err(format!("{few} asked while nothing might be released: no load"))
            }
            _ => Ok(()),
        }
    }

    /// I12: while it lasts, nothing is released that must not be.
    pub(crate) fn nothing_was_released_while_broken(&self) -> Result<(), String> {
        for one in self.asked {
            let Some(margin) = self.fault.forbids(one.want) else {
                continue;
            };
            for tried in &one.tries {
                let within = tried.sent > self.struck + margin && tried.over < self.healing;
                if within && tried.released() {
                    return Err(format!("I12: {one:?} was released while broken"));
                }
            }
        }
        Ok(())
    }

    /// I1, I6, I15: one key, one entry, one letter, and no letter without its entry.
    pub(crate) fn every_release_has_its_one_entry(&self) -> Result<(), String> {
        for one in self.asked {
            let entries = one.entries();
            let letters = self.seen.letters(self.account(one), one.number);
            let released = one.tries.iter().filter(|tried| tried.released()).count();
            if entries.len() > 1 || letters > 1 || released > 1 {
                return Err(format!("I15: {letters} letters of {one:?}"));
            }
            let entry = entries.first().and_then(|id| self.logs[one.tenant].entry(id));
            if !entries.is_empty() && entry.is_none() {
                return Err(format!("I6: not in the log: {one:?}"));
            }
            let is_release = entry.is_some_and(|entry| entry["type"] == "release");
            if released > 0 && !is_release {
                return Err(format!("I6: the entry is no release: {one:?} {entry:?}"));
            }
            let answered = one.want == Want::Send && one.tries.iter().any(Try::done);
            if answered && letters != 1 {
                return Err(format!("I15: released, and {letters} letters: {one:?}"));
            }
            // Of a grant that was ended nobody learns more by its key; the sum below holds for it too.
            let knows = one.tries.last().is_none_or(|tried| tried.status != Some(410));
            if letters == 1 && knows && !is_release {
                return Err(format!("I1: a letter without its entry: {one:?} {entry:?}"));
            }
        }
        Ok(())
    }

    /// I1: the provider did no more for anybody than the log has releases of.
    pub(crate) fn the_provider_did_no_more_than_was_released(&self) -> Result<(), String> {
        for (tenant, person) in self.deployment.everybody() {
            let who = &self.deployment.tenants[tenant].people[person];
            for (method, tool) in [("GET", "messages.list"), ("POST", "messages.send")] {
                let done = self.seen.about(who.account, "api").filter(|seen| {
                    seen["path"] == "/api/messages" && seen["method"] == method && seen["error"].is_null()
                });
                let released = self.logs[tenant].entries.iter().filter(|entry| {
                    entry["type"] == "release"
                        && entry["mode"] == "execute"
                        && entry["tool"] == tool
                        && entry["user"] == who.id.as_str()
                });
                let (done, released) = (done.count(), released.count());
                if done > released {
                    return Err(format!(
                        "I1: {done} {method} for {released} releases of {}",
                        who.account
                    ));
                }
            }
        }
        Ok(())
    }

    /// I2: what was asked after the end of a grant was answered is not released, and nothing of it follows its end in the
    /// log.
    pub(crate) fn nothing_follows_a_revocation(&self) -> Result<(), String> {
        let (grant, at) = self.revoked;
        for one in self
            .asked
            .iter()
            .filter(|one| (one.tenant, one.person) == REVOKED)
        {
            let asked_late = one.tries.iter().any(|tried| tried.sent > at && tried.released());
            let is_late = one.began > at && self.seen.letters(self.account(one), one.number) > 0;
            if asked_late || is_late {
                return Err(format!("I2: released after the end of {grant}: {one:?}"));
            }
        }
        let entries = &self.logs[REVOKED.0].entries;
        let end = entries.iter().rposition(|entry| entry["type"] == "revoke");
        let after = end
            .map(|end| &entries[end..])
            .ok_or("I2: no entry of the revocation")?;
        let mut late = after
            .iter()
            .filter(|entry| entry["type"] == "release" && entry["grant"] == grant);
        late.next().map_or(Ok(()), |entry| {
            Err(format!("I2: {entry} follows the end of {grant}"))
        })
    }

    /// I3: no renewal of a grant that lives was ever answered with a no.
    pub(crate) fn no_rotation_was_lost(&self) -> Result<(), String> {
        for (tenant, person) in self
            .deployment
            .everybody()
            .into_iter()
            .filter(|who| *who != REVOKED)
        {
            let account = self.deployment.tenants[tenant].people[person].account;
            let mut refused = self
                .seen
                .about(account, "token")
                .filter(|seen| seen["error"].is_string());
            if let Some(seen) = refused.next() {
                return Err(format!("I3: {seen}"));
            }
        }
        let unknown =
            |seen: &&Value| seen["kind"] == "token" && seen["error"].is_string() && seen["account"].is_null();
        self.seen
            .requests
            .iter()
            .find(unknown)
            .map_or(Ok(()), |seen| Err(format!("I3: {seen}")))
    }

    /// I3: the database holds every generation that the provider gave. Its grace heals what was lost; so where no answer can be
    /// lost, no refresh token was sent twice either.
    pub(crate) async fn no_generation_was_lost(&self) -> Result<(), String> {
        let others = self
            .deployment
            .everybody()
            .into_iter()
            .filter(|who| *who != REVOKED);
        for (tenant, person) in others {
            let account = self.deployment.tenants[tenant].people[person].account;
            let (grant, first) = self.deployment.connected(tenant, person);
            let begun = Instant::now();
            loop {
                // In this order: what is given in between is for the next look.
                let given = spent(&requests(self.deployment).await, account, 0).len();
                let held = self.deployment.generation(&grant).await;
                if held - first >= i64::try_from(given).unwrap() {
                    break;
                }
                if begun.elapsed() > ASKED_AGAIN_WITHIN {
                    return Err(format!(
                        "I3: {account} was given {given} generations after {first} and is at {held}"
                    ));
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            // Whoever waits for a database loses its lease in the end, and another one asks.
            let is_long = self.fault.breaks_the_store() && self.out > LEASES_LAST;
            let twice = spent(&self.seen.requests, account, self.since)
                .into_iter()
                .find(|(_, times)| *times > 1);
            if let Some((token, times)) = twice.filter(|_| !is_long && !self.fault.may_lose_answers()) {
                return Err(format!(
                    "I3: the answer for {account} was lost: asked {times} times with {token}"
                ));
            }
        }
        Ok(())
    }
}

/// I4: an expired token, twelve callers at all replicas, one request to renew it, and everybody is served (I3).
pub(crate) async fn one_renewal_serves_all(
    deployment: &Deployment,
    numbers: &mut dyn FnMut() -> u64,
) -> Result<(), String> {
    let who = (0, 0);
    let account = deployment.tenants[0].people[0].account;
    for again in [true, false] {
        let before = renewals(deployment, account).await;
        deployment.expire(who.0, who.1).await;
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..12 {
            let mut one = asked(deployment, who, Want::List, numbers());
            let at = deployment.replicas[number % deployment.replicas.len()].listen;
            calls.spawn(async move {
                one.ask(at, Duration::from_secs(20)).await;
                one
            });
        }
        while let Some(one) = calls.join_next().await {
            let one = one.unwrap();
            if !one.released() {
                return Err(format!("I3: not served after the fault: {one:?}"));
            }
        }
        match renewals(deployment, account).await - before {
            1 => return Ok(()),
            // A renewal ahead of time may have been due at this very moment; not twice.
            2 if again => {}
            many => return Err(format!("I4: {many} renewals of one expired token")),
        }
    }
    Err("I4: two renewals of one expired token, twice".to_owned())
}

/// I15: whoever repeats a key learns of the same release, and nothing is released again.
///
/// Where the database broke between a release and what is written of it, the key says `in_progress` until that is written, soon
/// after the database is back.
pub(crate) async fn repeated_keys_say_the_same(
    deployment: &Deployment,
    fault: Fault,
    asked: &mut [Asked],
) -> Result<(), String> {
    let begun = Instant::now();
    let mut sample = asked
        .iter_mut()
        .filter(|one| one.released() && (one.tenant, one.person) != REVOKED);
    for one in sample.by_ref().step_by(9).take(8) {
        let code = loop {
            one.ask(deployment.replicas[0].listen, Duration::from_secs(20))
                .await;
            let code = one.tries.last().unwrap().code.clone();
            let unwritten = fault.breaks_the_store() && code == "in_progress";
            if !unwritten || begun.elapsed() > WRITTEN_WITHIN {
                break code;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        if one.entries().len() != 1 || code != "already_released" {
            return Err(format!("I15: {one:?}"));
        }
    }
    Ok(())
}

/// I5: the other org's keys open nothing of this one's.
pub(crate) async fn tenants_are_apart(deployment: &Deployment, logs: &[Log; 2]) -> Result<(), String> {
    let grant = deployment
        .living_grant(0, 0)
        .await
        .ok_or("I3: the grant is gone")?;
    let [ours, theirs] = &deployment.tenants;
    let entry = logs[0].entries[0]["id"].as_str().unwrap();
    let replica = &deployment.replicas[0];
    for path in [
        format!("/v1/grants/{grant}"),
        format!("/v1/users/{}", ours.people[0].id),
        format!("/v1/audit/entries/{entry}"),
    ] {
        let own = replica
            .call("GET", &path, &ours.admin_key, None)
            .ask(PATIENCE)
            .await;
        let foreign = replica
            .call("GET", &path, &theirs.admin_key, None)
            .ask(PATIENCE)
            .await;
        let statuses = (own.map(|(status, _)| status), foreign.map(|(status, _)| status));
        if statuses != (Some(200), Some(404)) {
            return Err(format!("I5: {path}: {statuses:?}"));
        }
    }
    let body = json!({"grant": grant, "tool": "messages.list", "args": {}});
    let vend = replica
        .call("POST", "/v1/vend", &theirs.agent_key, Some(body))
        .ask(PATIENCE)
        .await;
    if !matches!(vend, Some((403 | 404, _))) {
        return Err(format!("I5: a foreign agent: {vend:?}"));
    }
    let text = serde_json::to_string(&logs[1].entries).unwrap();
    let ids = ours
        .people
        .iter()
        .map(|person| &person.id)
        .chain([&ours.id, &grant]);
    let mut seen = ids.filter(|id| text.contains(id.as_str()));
    seen.next()
        .map_or(Ok(()), |id| Err(format!("I5: {id} in the other org's log")))
}

/// Whose grant is ended in every round: (tenant, person).
pub(crate) const REVOKED: (usize, usize) = (0, 1);
const PATIENCE: Duration = Duration::from_secs(20);
/// Less than a lease that nobody renews, and than an answer takes from the spool into the database.
const LEASES_LAST: Duration = Duration::from_secs(7);
/// How long after a fault an answer may still have to be asked for again: a lease has to end first.
const ASKED_AGAIN_WITHIN: Duration = Duration::from_secs(30);

/// Fewer that ask while nothing may be released show nothing.
const FEW_MEANWHILE: usize = 5;
/// How long after a fault what the database could not take may still have to be written. A try that began during the fault may
/// take ten seconds to fail, and the one after it some more.
const WRITTEN_WITHIN: Duration = Duration::from_secs(20);
