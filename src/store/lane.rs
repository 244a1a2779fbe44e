//! A lane: whatever waits is done together, in one transaction. The commit under way is the window in which the next batch
//! gathers, as in the gate; there is no timer.
//!
//! A batch waits a moment only for anybody in its way. If it comes to nothing, its orgs are served apart from the lane and
//! from each other, with patience: one in trouble holds up nobody else's. Who comes for such an org meanwhile waits there.

use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    Contended as _, Store, StoreError,
    engine::{Mode, Reach},
    sql::Tx,
};
use crate::domain::OrgId;

/// What a lane does.
pub(super) trait Work: Send + Sync + 'static {
    /// What is handed in.
    type Ask: Send + Sync;
    /// What comes of it.
    type Answer: Send;

    /// Whose it is.
    fn org(ask: &Self::Ask) -> OrgId;

    /// Whose they are: each org once.
    fn orgs(asks: &[Self::Ask]) -> Vec<OrgId> {
        let orgs: BTreeSet<OrgId> = asks.iter().map(Self::org).collect();
        Vec::from_iter(orgs)
    }

    /// Does all of it or nothing; the answers are in the order of the asks.
    fn all(
        &self,
        asks: &[Self::Ask],
        patience: Patience,
    ) -> impl Future<Output = Result<Vec<Self::Answer>, StoreError>> + Send;
}

/// How long work waits for others that are in its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// A moment: others wait for it.
    Little,
    /// Seconds: it is about one org.
    Much,
}

/// Where asks are handed in. Cheap to clone.
#[derive(Debug)]
pub(super) struct Lane<W: Work>(mpsc::Sender<Waiting<W>>);

impl<W: Work> Clone for Lane<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[derive(Debug)]
struct Waiting<W: Work> {
    ask: W::Ask,
    answer: oneshot::Sender<Result<W::Answer, StoreError>>,
}

impl<W: Work> Lane<W> {
    /// Starts the lane; it ends when nobody can hand anything in any more.
    pub(super) fn start(work: W) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Waiting<W>>(QUEUE);
        let (work, apart) = (Arc::new(work), Apart::<W>::default());
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(BATCH);
            while waiting.recv_many(&mut batch, BATCH).await > 0 {
                let batch = apart.keep_theirs(batch.drain(..));
                if batch.is_empty() {
                    continue;
                }
                let served = tokio::spawn({
                    let work = Arc::clone(&work);
                    async move { serve(&*work, batch, Patience::Little).await }
                });
                // In a task of its own: one that panics leaves the lane to who comes next. Whoever waited for it hears that
                // nobody will answer.
                let Ok(Err((batch, error))) = served.await else {
                    continue;
                };
                if error.outage().is_some() {
                    // There is no database for anybody.
                    fail(batch, error);
                } else {
                    apart.serve(&work, batch);
                }
            }
        });
        Self(queue)
    }

    /// Does one thing, together with whatever else waits.
    pub(super) async fn hand_in(&self, ask: W::Ask) -> Result<W::Answer, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.0
            .send(Waiting { ask, answer })
            .await
            .map_err(|_| StoreError::Stopped)?;
        answered.await.map_err(|_| StoreError::Stopped)?
    }
}

/// The orgs that are served apart from the lane, and who has come for them since.
struct Apart<W: Work>(Arc<Mutex<HashMap<OrgId, Vec<Waiting<W>>>>>);

impl<W: Work> Default for Apart<W> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<W: Work> Clone for Apart<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W: Work> Apart<W> {
    /// Lets those wait whose orgs are served apart; returns the others.
    fn keep_theirs(&self, batch: impl Iterator<Item = Waiting<W>>) -> Vec<Waiting<W>> {
        let mut orgs = self.orgs();
        batch
            .filter_map(|one| match orgs.get_mut(&W::org(&one.ask)) {
                Some(waiting) => {
                    waiting.push(one);
                    None
                }
                None => Some(one),
            })
            .collect()
    }

    /// Serves each org of a batch by itself, until nobody waits for it any more.
    fn serve(&self, work: &Arc<W>, batch: Vec<Waiting<W>>) {
        let mut by_org: HashMap<OrgId, Vec<Waiting<W>>> = HashMap::new();
        for one in batch {
            by_org.entry(W::org(&one.ask)).or_default().push(one);
        }
        for (org, mut batch) in by_org {
            self.orgs().insert(org, Vec::new());
            let work = Arc::clone(work);
            let served = Served {
                apart: self.clone(),
                org,
            };
            tokio::spawn(async move {
                while !batch.is_empty() {
                    patiently(&*work, batch).await;
                    batch = served.next();
                }
            });
        }
    }

    fn orgs(&self) -> MutexGuard<'_, HashMap<OrgId, Vec<Waiting<W>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An org that is served apart; back in the lane once this is dropped, however that comes about.
struct Served<W: Work> {
    apart: Apart<W>,
    org: OrgId,
}

impl<W: Work> Served<W> {
    /// Who has come since; nobody: the org is back in the lane.
    fn next(&self) -> Vec<Waiting<W>> {
        let mut orgs = self.apart.orgs();
        let Some(waiting) = orgs.get_mut(&self.org) else {
            return Vec::new();
        };
        if waiting.is_empty() {
            // Under the lock under which they come: nobody is left behind.
            orgs.remove(&self.org);
            return Vec::new();
        }
        waiting.drain(..waiting.len().min(BATCH)).collect()
    }
}

impl<W: Work> Drop for Served<W> {
    fn drop(&mut self) {
        // Gone already, unless the work panicked: then whoever waits hears that nobody will answer.
        self.apart.orgs().remove(&self.org);
    }
}

/// Does what waits for one org; what cannot be done together is done one by one. A batch that ran into a limit of time was
/// held up by the database and by none of its own: so would each of them be, one after the other. Who is not tried by then,
/// or when there is no database any more, hears why.
async fn patiently<W: Work>(work: &W, batch: Vec<Waiting<W>>) {
    let until = Instant::now() + ALONE_WITHIN;
    let Err((batch, mut error)) = serve(work, batch, Patience::Much).await else {
        return;
    };
    // Contended: all of them were tried for as long as anything is.
    if batch.len() == 1 || error.outage().is_some() || error.is_contended() {
        fail(batch, error);
        return;
    }
    let mut left = batch.into_iter();
    while Instant::now() < until
        && let Some(one) = left.next()
    {
        let Err((one, failed)) = serve(work, vec![one], Patience::Much).await else {
            continue;
        };
        let outage = failed.outage();
        fail(one, failed);
        if let Some(cause) = outage {
            error = StoreError::Unavailable(cause);
            break;
        }
    }
    fail(left.collect(), error);
}

/// Does a batch and answers everybody; if it comes to nothing, they still wait.
async fn serve<W: Work>(
    work: &W,
    batch: Vec<Waiting<W>>,
    patience: Patience,
) -> Result<(), (Vec<Waiting<W>>, StoreError)> {
    let (asks, to): (Vec<_>, Vec<_>) = batch.into_iter().map(|one| (one.ask, one.answer)).unzip();
    match work.all(&asks, patience).await {
        Ok(answers) => {
            for (answer, to) in answers.into_iter().zip(to) {
                // Whoever asked may be gone.
                let _gone = to.send(Ok(answer));
            }
            Ok(())
        }
        Err(error) => {
            let batch = asks.into_iter().zip(to);
            Err((
                batch.map(|(ask, answer)| Waiting { ask, answer }).collect(),
                error,
            ))
        }
    }
}

fn fail<W: Work>(batch: Vec<Waiting<W>>, error: StoreError) {
    for (one, error) in batch.into_iter().zip(error.told_to_each()) {
        let _gone = one.answer.send(Err(error));
    }
}

impl Store {
    /// The one writing transaction of some orgs outside the gate, with so much patience with whoever is in its way.
    pub(super) async fn write_orgs_with(&self, patience: Patience, orgs: &[OrgId]) -> Result<Tx, StoreError> {
        let mode = match patience {
            Patience::Little => Mode::Hasty,
            Patience::Much => Mode::Write,
        };
        self.begin(mode, Reach::Orgs(orgs)).await
    }

    /// Does a batch's transaction once; with much patience, until nobody is in its way.
    pub(super) async fn try_with<T, W>(
        &self,
        patience: Patience,
        mut work: impl FnMut() -> W,
    ) -> Result<T, StoreError>
    where
        W: Future<Output = Result<T, StoreError>>,
    {
        match patience {
            Patience::Little => work().await,
            Patience::Much => self.retry(work).await,
        }
    }

    /// A transaction that changes rows of some orgs beside their other writers: it has to lock them before it reads them.
    pub(super) async fn write_rows(&self, orgs: &[OrgId]) -> Result<Tx, StoreError> {
        self.begin(Mode::Rows, Reach::Orgs(orgs)).await
    }
}

/// Done together.
const BATCH: usize = 256;
/// What may wait; the next ones wait to be handed in.
const QUEUE: usize = 4096;
/// How long after its beginning those of a batch that came to nothing are still tried one by one: half of what a single
/// statement may take.
const ALONE_WITHIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
