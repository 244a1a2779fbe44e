//! The lane before the database: whoever waits is taken into batches, each org in turn, and answered when its batch has
//! been committed.
//!
//! The batches under way are the window in which the next one gathers. No two of them are about the same org: its chain
//! has one end.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::Instant,
};

use crate::{
    domain::{Clock, OrgId},
    failpoints::Failpoint,
    store::{Contended, Durability, GateAnswer, GateItem, Store, StoreError},
};

use super::{queues::Queues, turns::Turns};

/// Everybody who waits for the lane.
#[derive(Debug)]
pub(super) struct Line(Mutex<Queues<Waiting>>);

impl Line {
    pub(super) fn queues(&self) -> MutexGuard<'_, Queues<Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) item: GateItem,
    pub(super) answer: Answer,
}

/// With the moment, on the boot clock, at which the try that committed began: a receipt's life is counted from there,
/// never from after a pause.
pub(super) type Answer = oneshot::Sender<Result<(GateAnswer, Duration), StoreError>>;

/// Starts the lane: the line to stand in, and what wakes it. It ends when the last sender is dropped.
pub(super) fn start(
    store: Store,
    clock: Arc<dyn Clock>,
    durability: Durability,
    turns: Turns,
) -> (Arc<Line>, mpsc::Sender<()>) {
    // Room for one: whoever is awake already looks at everything.
    let (wake, woken) = mpsc::channel(1);
    let line = Arc::new(Line(Mutex::new(Queues::new(SHARE))));
    let batches = usize::try_from(store.gate_batches()).unwrap_or(1);
    let lane = Lane {
        store,
        clock,
        durability,
        turns,
        line: Arc::clone(&line),
        wake: wake.downgrade(),
    };
    tokio::spawn(run_batches(lane, batches, woken));
    (line, wake)
}

/// Takes whatever waits, commits it, answers, and starts over, until the last gate is gone. Batches run in tasks of their
/// own: a caller that hangs up cannot cancel a transaction half-way.
async fn run_batches(lane: Lane, batches: usize, mut woken: mpsc::Receiver<()>) {
    let batches = Arc::new(Semaphore::new(batches));
    while woken.recv().await.is_some() {
        loop {
            // First: until there is room for a batch, it gathers. Nobody ever closes the semaphore.
            let Ok(room) = Arc::clone(&batches).acquire_owned().await else {
                return;
            };
            Failpoint::GateGathering.reached();
            let Some((batch, held)) = lane.take() else { break };
            let lane = lane.clone();
            tokio::spawn(async move {
                lane.serve(batch).await;
                drop((held, room));
            });
        }
    }
}

/// What the lane works with.
#[derive(Debug, Clone)]
struct Lane {
    store: Store,
    clock: Arc<dyn Clock>,
    durability: Durability,
    /// They are told how long a batch takes.
    turns: Turns,
    line: Arc<Line>,
    wake: mpsc::WeakSender<()>,
}

/// Orgs of which nobody else is served until this is dropped: they are in a batch, or wait apart from the lane.
#[derive(Debug)]
struct Held {
    lane: Lane,
    orgs: BTreeSet<OrgId>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut queues = self.lane.line.queues();
        for org in &self.orgs {
            queues.free(*org);
        }
        drop(queues);
        if let Some(wake) = self.lane.wake.upgrade() {
            // Full: the lane is about to look anyway.
            let _awake = wake.try_send(());
        }
    }
}

impl Lane {
    /// The next batch, its orgs held; `None` while nobody waits who could be served.
    fn take(&self) -> Option<(Vec<Waiting>, Held)> {
        let mut queues = self.line.queues();
        let batch = queues.take(BATCH);
        if batch.is_empty() {
            return None;
        }
        let orgs: BTreeSet<OrgId> = batch.iter().map(|one| one.item.org).collect();
        for org in &orgs {
            queues.hold(*org);
        }
        let lane = self.clone();
        drop(queues);
        Some((batch, Held { lane, orgs }))
    }

    async fn serve(&self, batch: Vec<Waiting>) {
        let (items, answers): (Vec<_>, Vec<_>) = batch.into_iter().map(|one| (one.item, one.answer)).unzip();
        let until = Instant::now() + ALONE_WITHIN;
        match self.run(&items).await {
            Ok((done, begun)) => self.settle(items, answers, done, begun),
            // One bad request must not fail its neighbours: each is tried alone. Without a database there is nothing
            // to try: everybody is told at once, and the lane is free for who comes when it is back.
            Err(error) if error.outage().is_none() && !error.is_contended() && answers.len() > 1 => {
                self.try_each(items, answers, error, until).await;
            }
            Err(error) => fail(answers, error),
        }
    }

    /// Tries each request of a batch alone that came to nothing. A batch that ran into a limit of time was held up by the
    /// database and by no request of its own: so would each of them be, one after the other. Who is not tried by then, or
    /// when there is no database any more, hears why.
    async fn try_each(
        &self,
        items: Vec<GateItem>,
        answers: Vec<Answer>,
        mut error: StoreError,
        until: Instant,
    ) {
        let mut left = items.into_iter().zip(answers);
        while Instant::now() < until
            && let Some((item, answer)) = left.next()
        {
            if let Some(outage) = self.try_alone(item, answer).await {
                error = outage;
                break;
            }
        }
        fail(left.map(|(_, answer)| answer).collect(), error);
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
                orgs: [org].into(),
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
                // Else it would count against the receipts.
                self.store.renew_if_late().await?;
                let begun = self.clock.since_boot();
                let done = self.store.run_gate(items, self.durability).await?;
                // What wrote nothing was not waited for.
                if done.iter().any(|one| matches!(one, GateAnswer::Committed { .. })) {
                    self.turns
                        .committed(self.clock.since_boot().saturating_sub(begun));
                }
                Ok((done, begun))
            })
            .await
    }

    /// A request by itself. What comes back is an outage: nobody else need be tried.
    async fn try_alone(&self, item: GateItem, answer: Answer) -> Option<StoreError> {
        let alone = [item];
        match self.run(&alone).await {
            Ok((done, begun)) => {
                self.settle(alone.into(), vec![answer], done, begun);
                None
            }
            Err(error) => {
                let outage = error.outage().map(StoreError::Unavailable);
                tell(answer, Err(error));
                outage
            }
        }
    }

    async fn wait_apart(&self, org: OrgId, items: Vec<GateItem>, answers: Vec<Answer>) {
        let done = self.store.retry(|| async {
            self.store.renew_if_late().await?;
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
    for (answer, error) in answers.into_iter().zip(error.told_to_each()) {
        tell(answer, Err(error));
    }
}

/// The most of one org in one batch: whoever else is in it waits for them.
const SHARE: usize = 16;
/// The most requests in one transaction.
const BATCH: usize = 256;
/// How long after its beginning requests of a batch that came to nothing are still tried alone: half of what a single
/// statement may take.
const ALONE_WITHIN: Duration = Duration::from_secs(5);
