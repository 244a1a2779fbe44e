//! A lane: whatever waits is done together, in one transaction. The commit under way is the window in which the next batch
//! gathers, as in the gate; there is no timer.

use std::{future::Future, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use super::StoreError;

/// What a lane does.
pub(super) trait Work: Send + Sync + 'static {
    /// What is handed in.
    type Ask: Send + Sync;
    /// What comes of it.
    type Answer: Send;

    /// Does all of it or nothing; the answers are in the order of the asks.
    fn all(&self, asks: &[Self::Ask]) -> impl Future<Output = Result<Vec<Self::Answer>, StoreError>> + Send;
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
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(BATCH);
            while waiting.recv_many(&mut batch, BATCH).await > 0 {
                let (asks, answers): (Vec<_>, Vec<_>) =
                    batch.drain(..).map(|one| (one.ask, one.answer)).unzip();
                for (answer, to) in each(&work, &asks).await.into_iter().zip(answers) {
                    // Whoever asked may be gone.
                    let _gone = to.send(answer);
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

async fn each<W: Work>(work: &W, asks: &[W::Ask]) -> Vec<Result<W::Answer, StoreError>> {
    let error = match work.all(asks).await {
        Ok(answers) => return answers.into_iter().map(Ok).collect(),
        Err(error) if asks.len() == 1 => return vec![Err(error)],
        Err(error) => error,
    };
    // One that cannot be done must not take the others with it, unless there is no database for any.
    let outage = error.outage();
    let mut answers = Vec::with_capacity(asks.len());
    for ask in asks {
        answers.push(match &outage {
            Some(cause) => Err(StoreError::Unavailable(Arc::clone(cause))),
            None => work
                .all(std::slice::from_ref(ask))
                .await
                .and_then(|answers| answers.into_iter().next().ok_or(StoreError::Stopped)),
        });
    }
    answers
}

/// Done together.
const BATCH: usize = 256;
/// What may wait; the next ones wait to be handed in.
const QUEUE: usize = 4096;
