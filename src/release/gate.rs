//! The gate: one transaction in which a decision is spent, the entry is written and the sealed secret is read.
//!
//! One lane takes whatever waits, each org in turn, and commits it at once: the commit under way is the window in which
//! the next batch gathers. Nothing is opened before the commit; a receipt dies five seconds after it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use crate::{
    domain::{AgentId, Clock, EntryId, GrantId, OrgId, Time, entry::Epoch},
    egress::BeginBy,
    failpoints::Failpoint,
    store::{
        Contended, Durability, GateAnswer, GateItem, IdempotencyKey, IdempotencyRecord, NewEntry, SecretKind,
        SecretRow, Spend, Store, StoreError,
    },
};

use super::{
    admission::{Admission, Full, Place},
    queues::{Queues, Ticket},
    verify::VerifiedDecision,
};

/// Why the gate released nothing. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum GateRefusal {
    /// The org is sealed until an admin recovers.
    #[error("the org is sealed")]
    Sealed,
    /// The org moved on since the facts were read: read again, decide again.
    #[error("the facts are stale")]
    Stale,
    /// The grant is not active any more, or its tokens were renewed: read again.
    #[error("the grant changed")]
    GrantChanged,
    /// The decision was spent already.
    #[error("the decision was spent")]
    Spent {
        /// By this entry.
        entry: EntryId,
    },
    /// The idempotency key belongs to another call.
    #[error("the idempotency key is taken")]
    Taken(IdempotencyRecord),
    /// The process is stopping; nothing was tried.
    #[error("the gate is closed")]
    Closed,
    /// The database did not commit.
    #[error("the store is unavailable")]
    Store(#[source] StoreError),
}

/// Proof that an entry is durable. It names the secret that came with the commit and dies [`RECEIPT_LIFE`] after it.
///
/// INVARIANT: constructed only by [`Gate::release`]. Moved, never cloned: it releases once.
#[derive(Debug)]
pub struct AuditReceipt {
    entry: EntryId,
    at: Time,
    dies: Duration,
    secret: Option<SecretRow>,
    decision: VerifiedDecision,
    clock: Arc<dyn Clock>,
}

/// The receipt is older than [`RECEIPT_LIFE`]: nothing may leave on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the receipt is dead")]
pub struct DeadReceipt;

impl AuditReceipt {
    /// The entry that precedes the release.
    #[must_use]
    pub fn entry(&self) -> EntryId {
        self.entry
    }

    /// When it was committed.
    #[must_use]
    pub fn at(&self) -> Time {
        self.at
    }

    /// The decision that was spent.
    #[must_use]
    pub fn decision(&self) -> &VerifiedDecision {
        &self.decision
    }

    /// The last moment at which a send may begin; every send, resends included, carries it.
    #[must_use]
    pub fn begin_by(&self) -> BeginBy {
        BeginBy::new(Arc::clone(&self.clock), self.dies)
    }

    /// Whether anything may still be opened or handed over.
    ///
    /// # Errors
    /// When more than five seconds, suspension included, have passed since the commit.
    pub fn live(&self) -> Result<(), DeadReceipt> {
        if self.begin_by().has_passed() {
            Err(DeadReceipt)
        } else {
            Ok(())
        }
    }

    /// The sealed secret that came with the commit, while the receipt lives.
    pub(super) fn secret(&self) -> Result<Option<&SecretRow>, DeadReceipt> {
        self.live()?;
        Ok(self.secret.as_ref())
    }
}

/// What is to be released against a verified decision.
#[derive(Debug)]
pub struct Release {
    /// The tenant.
    pub org: OrgId,
    /// The epoch at which every fact was read.
    pub epoch: Epoch,
    /// Which secret of which grant, of which generation.
    pub secret: (GrantId, SecretKind, u64),
    /// The caller's idempotency key.
    pub idempotency: Option<IdempotencyKey>,
    /// The entry.
    pub entry: NewEntry,
}

/// An entry that releases nothing: a refusal, an evaluation.
#[derive(Debug)]
pub struct Statement {
    /// The tenant.
    pub org: OrgId,
    /// The epoch at which every fact was read.
    pub epoch: Epoch,
    /// The caller's idempotency key, with how the call ended.
    pub idempotency: Option<IdempotencyKey>,
    /// The entry.
    pub entry: NewEntry,
}

/// The one door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate {
    admission: Admission,
    line: Arc<Line>,
    wake: mpsc::Sender<()>,
    clock: Arc<dyn Clock>,
}

/// Everybody who waits for the lane.
#[derive(Debug)]
struct Line(Mutex<Queues<Waiting>>);

impl Line {
    fn queues(&self) -> MutexGuard<'_, Queues<Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Waiting {
    item: GateItem,
    answer: Answer,
}

/// A place in the line. Whoever goes away before being served gives it up.
#[derive(Debug)]
struct Queued<'a> {
    line: &'a Line,
    ticket: Ticket,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.line.queues().leave(self.ticket);
    }
}

/// With the moment, on the boot clock, at which the try that committed began: a receipt's life is counted from there,
/// never from after a pause.
type Answer = oneshot::Sender<Result<(GateAnswer, Duration), StoreError>>;

impl Gate {
    /// Starts the lane. It ends when the last clone of the gate is dropped.
    #[must_use]
    pub fn start(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self::start_with(store, clock, Durability::Commit)
    }

    /// A gate whose transactions are rolled back: what a release costs without its durability.
    #[cfg(feature = "bench")]
    #[must_use]
    pub fn start_without_commit(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self::start_with(store, clock, Durability::LeaveOut)
    }

    fn start_with(store: Store, clock: Arc<dyn Clock>, durability: Durability) -> Self {
        // Room for one: whoever is awake already looks at everything.
        let (wake, woken) = mpsc::channel(1);
        let line = Arc::new(Line(Mutex::new(Queues::new(SHARE))));
        let lane = Lane {
            store,
            clock: Arc::clone(&clock),
            durability,
            line: Arc::clone(&line),
            wake: wake.downgrade(),
        };
        tokio::spawn(run_lane(lane, woken));
        let admission = Admission::new();
        Self {
            admission,
            line,
            wake,
            clock,
        }
    }

    /// Whether a call of this agent would be let in now: asked before anything costly is done for it.
    ///
    /// # Errors
    /// [`Full`].
    pub fn has_room(&self, org: OrgId, agent: AgentId) -> Result<(), Full> {
        self.admission.has_room(org, agent)
    }

    /// Lets a call of this agent in. It keeps its place until it passed the gate or has to wait for a provider.
    ///
    /// # Errors
    /// [`Full`]: too much is under way, of this agent, this org or altogether.
    pub fn enter(&self, org: OrgId, agent: AgentId) -> Result<Place, Full> {
        self.admission.enter(org, agent)
    }

    /// Spends the decision, writes the entry and reads the secret, all or nothing.
    ///
    /// # Errors
    /// A typed refusal; nothing was written then.
    pub async fn release(
        &self,
        decision: VerifiedDecision,
        release: Release,
    ) -> Result<AuditReceipt, GateRefusal> {
        let entry = release.entry.id;
        let spend = Spend {
            iss: decision.claims().iss.clone(),
            jti: decision.claims().jti.clone(),
            keep_until: Time::from_unix_seconds(decision.claims().exp) + SPENT_OUTLIVES,
        };
        let item = GateItem {
            org: release.org,
            epoch: Some(release.epoch),
            secret: Some(release.secret),
            spend: Some(spend),
            idempotency: release.idempotency,
            entry: release.entry,
        };
        let (at, secret, committed) = self.pass(item).await?;
        Failpoint::GateCommitted.reached();
        let dies = committed + RECEIPT_LIFE;
        Ok(AuditReceipt {
            entry,
            at,
            dies,
            secret,
            decision,
            clock: Arc::clone(&self.clock),
        })
    }

    /// Writes an entry that releases nothing.
    ///
    /// # Errors
    /// A typed refusal; nothing was written then.
    pub async fn state(&self, statement: Statement) -> Result<Time, GateRefusal> {
        let item = GateItem {
            org: statement.org,
            epoch: Some(statement.epoch),
            secret: None,
            spend: None,
            idempotency: statement.idempotency,
            entry: statement.entry,
        };
        self.pass(item).await.map(|(at, ..)| at)
    }

    /// Appends what became of a release. It allows nothing, so it holds at any epoch.
    ///
    /// # Errors
    /// A typed refusal; nothing was written then.
    pub async fn follow_up(&self, org: OrgId, entry: NewEntry) -> Result<Time, GateRefusal> {
        let item = GateItem {
            org,
            epoch: None,
            secret: None,
            spend: None,
            idempotency: None,
            entry,
        };
        self.pass(item).await.map(|(at, ..)| at)
    }

    async fn pass(&self, item: GateItem) -> Result<(Time, Option<SecretRow>, Duration), GateRefusal> {
        let (answer, answered) = oneshot::channel();
        let queued = self.join(Waiting { item, answer });
        // Full: the lane is about to look anyway.
        let _awake = self.wake.try_send(());
        let answered = answered.await;
        drop(queued);
        let (answer, committed) = answered
            .map_err(|_| GateRefusal::Closed)?
            .map_err(GateRefusal::Store)?;
        match answer {
            GateAnswer::Committed { at, secret } => Ok((at, secret, committed)),
            GateAnswer::Sealed => Err(GateRefusal::Sealed),
            GateAnswer::StaleEpoch | GateAnswer::Waits => Err(GateRefusal::Stale),
            GateAnswer::GrantChanged => Err(GateRefusal::GrantChanged),
            GateAnswer::Spent(entry) => Err(GateRefusal::Spent { entry }),
            GateAnswer::Taken(record) => Err(GateRefusal::Taken(record)),
        }
    }

    /// The line needs no bound of its own: in it are calls that were let in, and what became of calls.
    fn join(&self, waiting: Waiting) -> Queued<'_> {
        let org = waiting.item.org;
        let ticket = self.line.queues().join(org, waiting);
        let line = &self.line;
        Queued { line, ticket }
    }
}

/// Takes whatever waits, commits it, answers, and starts over, until the last gate is gone. Runs in its own task: a
/// caller that hangs up cannot cancel a transaction half-way.
async fn run_lane(lane: Lane, mut woken: mpsc::Receiver<()>) {
    while woken.recv().await.is_some() {
        loop {
            let batch = lane.line.queues().take(BATCH);
            if batch.is_empty() {
                break;
            }
            lane.serve(batch).await;
        }
    }
}

/// What the lane works with.
#[derive(Debug, Clone)]
struct Lane {
    store: Store,
    clock: Arc<dyn Clock>,
    durability: Durability,
    line: Arc<Line>,
    wake: mpsc::WeakSender<()>,
}

/// An org that is served apart from the lane, until this is dropped.
#[derive(Debug)]
struct Held {
    lane: Lane,
    org: OrgId,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.lane.line.queues().free(self.org);
        if let Some(wake) = self.lane.wake.upgrade() {
            // Full: the lane is about to look anyway.
            let _awake = wake.try_send(());
        }
    }
}

impl Lane {
    async fn serve(&self, batch: Vec<Waiting>) {
        let (items, answers): (Vec<_>, Vec<_>) = batch.into_iter().map(|one| (one.item, one.answer)).unzip();
        match self.run(&items).await {
            Ok((done, begun)) => self.settle(items, answers, done, begun),
            // One bad request must not fail its neighbours: each is tried alone. Without a database there is nothing
            // to try: everybody is told at once, and the lane is free for who comes when it is back.
            Err(error) if error.outage().is_none() && !error.is_contended() && answers.len() > 1 => {
                for (item, answer) in items.into_iter().zip(answers) {
                    self.try_alone(item, answer).await;
                }
            }
            Err(error) => fail(answers, error),
        }
    }

    /// Answers everybody; who has to wait for a change of their org waits apart, holding nobody up. Whoever comes for
    /// that org meanwhile waits in its queue.
    ///
    /// `begun` is from before the commit: a process stopped between commit and answer wakes up with a dead receipt.
    fn settle(&self, items: Vec<GateItem>, answers: Vec<Answer>, done: Vec<GateAnswer>, begun: Duration) {
        let mut waiting: HashMap<OrgId, (Vec<GateItem>, Vec<Answer>)> = HashMap::new();
        for ((item, answer), done) in items.into_iter().zip(answers).zip(done) {
            match done {
                GateAnswer::Waits => {
                    let (items, answers) = waiting.entry(item.org).or_default();
                    items.push(item);
                    answers.push(answer);
                }
                done => tell(answer, Ok((done, begun))),
            }
        }
        for (org, (items, answers)) in waiting {
            self.line.queues().hold(org);
            let held = Held {
                lane: self.clone(),
                org,
            };
            tokio::spawn(async move {
                held.lane.wait_apart(org, items, answers).await;
                drop(held);
            });
        }
    }

    /// Runs a batch until nobody is in its way, and says when the try that committed began.
    async fn run(&self, items: &[GateItem]) -> Result<(Vec<GateAnswer>, Duration), StoreError> {
        self.store
            .retry(|| async {
                let begun = self.clock.since_boot();
                let done = self.store.run_gate(items, self.durability).await?;
                Ok((done, begun))
            })
            .await
    }

    /// A request by itself.
    async fn try_alone(&self, item: GateItem, answer: Answer) {
        let alone = [item];
        match self.run(&alone).await {
            Ok((done, begun)) => self.settle(alone.into(), vec![answer], done, begun),
            Err(error) => tell(answer, Err(error)),
        }
    }

    async fn wait_apart(&self, org: OrgId, items: Vec<GateItem>, answers: Vec<Answer>) {
        let done = self.store.retry(|| async {
            let begun = self.clock.since_boot();
            let done = self.store.run_gate_apart(org, &items, self.durability).await?;
            Ok((done, begun))
        });
        match done.await {
            Ok((done, begun)) => {
                for (answer, done) in answers.into_iter().zip(done) {
                    tell(answer, Ok((done, begun)));
                }
            }
            Err(error) => fail(answers, error),
        }
    }
}

/// A caller that is gone leaves its entry behind; the sweeper writes its outcome.
fn tell(answer: Answer, done: Result<(GateAnswer, Duration), StoreError>) {
    let _gone = answer.send(done);
}

fn fail(answers: Vec<Answer>, error: StoreError) {
    let outage = error.outage();
    let mut error = Some(error);
    for answer in answers {
        // An error of its own has only the one that is alone in its batch; the others hear of the same outage, or that
        // their batch was in somebody's way.
        let error = outage
            .clone()
            .map(StoreError::Unavailable)
            .or_else(|| error.take());
        tell(answer, Err(error.unwrap_or(StoreError::Conflict)));
    }
}

/// How long a receipt lives, suspension included (architecture §3).
pub const RECEIPT_LIFE: Duration = Duration::from_secs(5);
/// A spent decision is remembered this long after its `exp`.
const SPENT_OUTLIVES: Duration = Duration::from_secs(24 * 3600);
/// The most of one org in one batch: whoever else is in it waits for them.
const SHARE: usize = 16;
/// The most requests in one transaction.
const BATCH: usize = 256;
