//! Trying again. A transaction that others were in the way of did nothing (SQLSTATE 40001, 40P01, 55P03, 25P03): it is run
//! again after a pause that grows and is never the same for two, until there is no time left. Everything that is tried again
//! is tried again here.
//!
//! On PostgreSQL transactions are READ COMMITTED, so only deadlocks, waits for locks and transactions that kept others
//! waiting end this way. Engines that know nothing weaker than SERIALIZABLE answer 40001 whenever they are busy.

use std::{
    convert::Infallible,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{Store, StoreError};
use crate::domain::{Randomness, random_pause};

/// An error that may mean no more than that others were in the way.
pub trait Contended {
    /// Whether nothing was done and the same work may succeed now.
    fn is_contended(&self) -> bool;
}

impl Contended for StoreError {
    fn is_contended(&self) -> bool {
        matches!(self, Self::Conflict)
    }
}

impl Store {
    /// Runs `work`, a whole transaction from its beginning to its commit, until nobody is in its way, for a few seconds. What
    /// is retried in it shares them.
    ///
    /// # Errors
    /// The last one of `work`: at once if it is of another kind, else when the time is up.
    pub async fn retry<T, E, W>(&self, work: impl FnMut() -> W) -> Result<T, E>
    where
        W: Future<Output = Result<T, E>>,
        E: Contended,
    {
        retry(&*self.random, WITHIN, work).await
    }
}

async fn retry<T, E, W>(
    random: &dyn Randomness,
    within: Duration,
    mut work: impl FnMut() -> W,
) -> Result<T, E>
where
    W: Future<Output = Result<T, E>>,
    E: Contended,
{
    let outer = LEFT.try_with(Arc::clone).ok();
    let left = outer.clone().unwrap_or_else(|| Arc::new(Left::of(within)));
    let trying = async {
        let mut longest = FIRST_PAUSE;
        loop {
            match work().await {
                Err(error) if error.is_contended() && !left.is_over() => {
                    let Ok(pause) = random_pause(longest, random) else {
                        return Err(error);
                    };
                    tokio::time::sleep(pause).await;
                    longest = (longest * 2).min(LONGEST_PAUSE);
                }
                done => return done,
            }
        }
    };
    if outer.is_some() {
        return trying.await;
    }
    let trying = LEFT.scope(Arc::clone(&left), trying);
    tokio::select! {
        biased;
        done = trying => done,
        never = left.count_down() => match never {},
    }
}

tokio::task_local! {
    /// Of the outermost of retries within each other: all in it give up with it.
    static LEFT: Arc<Left>;
}

/// How much longer to try. It is counted in steps while the process runs: while it stands still it tries nothing, and what it
/// finds then may be no more than that the database ended its transaction.
struct Left(AtomicU32);

impl Left {
    fn of(within: Duration) -> Self {
        let steps = within.as_millis().div_ceil(STEP.as_millis());
        Self(AtomicU32::new(u32::try_from(steps).unwrap_or(u32::MAX)))
    }

    fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// Tokio's time, as the pauses are: a test that pauses one pauses both.
    async fn count_down(&self) -> Infallible {
        loop {
            tokio::time::sleep(STEP).await;
            let _over = self
                .0
                .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        }
    }
}

/// What time is counted in here.
const STEP: Duration = Duration::from_millis(100);
/// The first pause is at most this long; each of the next ones at most twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(4);
/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// After this long nothing is tried any more: the caller is told, and may come again.
const WITHIN: Duration = Duration::from_secs(8);

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::Instant;

    use super::*;
    use crate::crypto::OsRandomness;

    #[tokio::test]
    async fn work_in_somebodys_way_is_done_when_they_are_gone() {
        let tries = Cell::new(0);
        let done = retry(&OsRandomness::new(), WITHIN, || {
            tries.set(tries.get() + 1);
            let gone = tries.get() > 12;
            async move {
                if gone {
                    Ok("done")
                } else {
                    Err(StoreError::Conflict)
                }
            }
        })
        .await;
        assert_eq!((done.unwrap(), tries.get()), ("done", 13));
    }

    #[tokio::test]
    async fn retries_within_each_other_give_up_together() {
        let (random, within) = (OsRandomness::new(), Duration::from_secs(2));
        let began = Instant::now();
        let done: Result<(), _> = retry(&random, within, || async {
            tokio::time::sleep(Duration::from_millis(1800)).await;
            retry(&random, within, || async { Err(StoreError::Conflict) }).await
        })
        .await;
        assert!(matches!(done, Err(StoreError::Conflict)));
        assert!(began.elapsed() < within * 2 - Duration::from_millis(300));
    }

    #[tokio::test]
    async fn time_in_which_the_process_stands_still_is_not_counted() {
        let (tries, within) = (Cell::new(0), Duration::from_millis(300));
        let done = retry(&OsRandomness::new(), within, || {
            tries.set(tries.get() + 1);
            let first = tries.get() == 1;
            async move {
                if first {
                    // Nothing else stands in for a process that was stopped.
                    std::thread::sleep(within * 3);
                    Err(StoreError::Conflict)
                } else {
                    Ok(())
                }
            }
        })
        .await;
        done.unwrap();
        assert_eq!(tries.get(), 2);
    }

    #[tokio::test]
    async fn an_error_of_another_kind_is_the_answer_at_once() {
        let tries = Cell::new(0);
        let done: Result<(), _> = retry(&OsRandomness::new(), WITHIN, || {
            tries.set(tries.get() + 1);
            async { Err(StoreError::Exists) }
        })
        .await;
        assert!(matches!(done, Err(StoreError::Exists)));
        assert_eq!(tries.get(), 1);
    }
}
