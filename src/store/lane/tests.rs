use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{
    sync::{Mutex, Semaphore, oneshot},
    time::timeout,
};

use super::*;

const TROUBLED: OrgId = OrgId::from_bytes([1; 16]);
const SOUND: OrgId = OrgId::from_bytes([2; 16]);
/// What nothing here takes.
const LONG: Duration = Duration::from_secs(60);

/// One ask: whose, and whether it can be done at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Of(OrgId, u64),
    Bad(OrgId),
}

/// Every batch that was tried.
type Tried = Arc<Mutex<Vec<(Vec<Ask>, Patience)>>>;

/// Work in whose way somebody is for one org, until there is a permit.
#[derive(Debug)]
struct Fake {
    free: Arc<Semaphore>,
    down: bool,
    tried: Tried,
    /// How many wait with patience.
    waiting: Arc<AtomicUsize>,
}

impl Work for Fake {
    type Ask = Ask;
    type Answer = u64;

    fn org(ask: &Ask) -> OrgId {
        match *ask {
            Ask::Of(org, _) | Ask::Bad(org) => org,
        }
    }

    async fn all(&self, asks: &[Ask], patience: Patience) -> Result<Vec<u64>, StoreError> {
        self.tried.lock().await.push((asks.to_vec(), patience));
        if self.down {
            return Err(StoreError::Unavailable(Arc::new(sqlx::Error::PoolTimedOut)));
        }
        if asks.iter().any(|ask| Self::org(ask) == TROUBLED) {
            match patience {
                Patience::Little if self.free.available_permits() == 0 => return Err(StoreError::Conflict),
                Patience::Little => {}
                Patience::Much => {
                    self.waiting.fetch_add(1, Ordering::SeqCst);
                    drop(self.free.acquire().await.unwrap());
                }
            }
        }
        asks.iter()
            .map(|ask| match ask {
                Ask::Of(_, number) => Ok(*number),
                Ask::Bad(_) => Err(StoreError::Inconsistent { table: "bad" }),
            })
            .collect()
    }
}

/// A lane, who is in its way, what it tried, and how many wait.
struct Started {
    lane: Lane<Fake>,
    free: Arc<Semaphore>,
    tried: Tried,
    waiting: Arc<AtomicUsize>,
}

fn start(down: bool) -> Started {
    let (free, tried, waiting) = (Arc::new(Semaphore::new(0)), Arc::default(), Arc::default());
    let lane = Lane::start(Fake {
        free: Arc::clone(&free),
        down,
        tried: Arc::clone(&tried),
        waiting: Arc::clone(&waiting),
    });
    Started {
        lane,
        free,
        tried,
        waiting,
    }
}

impl Started {
    /// Hands them in so that they are one batch; where each answer will be.
    fn batch(&self, asks: &[Ask]) -> Vec<oneshot::Receiver<Result<u64, StoreError>>> {
        // Nothing else runs on this thread before they are all in the queue.
        asks.iter()
            .map(|ask| {
                let (answer, answered) = oneshot::channel();
                assert!(self.lane.0.try_send(Waiting { ask: *ask, answer }).is_ok());
                answered
            })
            .collect()
    }

    async fn until_one_waits(&self) {
        while self.waiting.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    }
}

async fn answer(of: oneshot::Receiver<Result<u64, StoreError>>) -> Result<u64, StoreError> {
    timeout(LONG, of).await.expect("nobody answers").unwrap()
}

#[tokio::test]
async fn an_org_in_trouble_holds_up_nobody_elses() {
    let started = start(false);
    let mut first = started.batch(&[Ask::Of(TROUBLED, 1), Ask::Of(SOUND, 2), Ask::Of(TROUBLED, 3)]);
    assert_eq!(answer(first.remove(1)).await.unwrap(), 2);
    started.until_one_waits().await;
    // The lane goes on, and whoever comes for the org in trouble spoils no other batch.
    let mut later = started.batch(&[Ask::Of(SOUND, 4), Ask::Of(TROUBLED, 5)]);
    assert_eq!(answer(later.remove(0)).await.unwrap(), 4);
    assert!(
        first
            .iter_mut()
            .chain(&mut later)
            .all(|of| of.try_recv().is_err())
    );
    let little = |tried: &[(Vec<Ask>, Patience)]| {
        tried
            .iter()
            .filter(|(asks, patience)| {
                *patience == Patience::Little && asks.iter().any(|ask| Fake::org(ask) == TROUBLED)
            })
            .count()
    };
    assert_eq!(
        little(&started.tried.lock().await),
        1,
        "only the first batch met with it"
    );

    started.free.add_permits(1);
    for (of, number) in first.into_iter().chain(later).zip([1, 3, 5]) {
        assert_eq!(answer(of).await.unwrap(), number);
    }
    // Back in the lane.
    let again = started.lane.hand_in(Ask::Of(TROUBLED, 6));
    assert_eq!(timeout(LONG, again).await.unwrap().unwrap(), 6);
    assert_eq!(little(&started.tried.lock().await), 2);
    let apart = started.tried.lock().await.iter().any(|(asks, patience)| {
        *patience == Patience::Much && asks == &[Ask::Of(TROUBLED, 1), Ask::Of(TROUBLED, 3)]
    });
    assert!(apart, "those of one org are tried together");
}

#[tokio::test]
async fn one_that_cannot_be_done_takes_no_other_with_it() {
    let started = start(false);
    let mut batch = started.batch(&[Ask::Of(SOUND, 1), Ask::Bad(SOUND), Ask::Of(SOUND, 3)]);
    let bad = answer(batch.remove(1)).await;
    assert!(
        matches!(bad, Err(StoreError::Inconsistent { table: "bad" })),
        "{bad:?}"
    );
    for (of, number) in batch.into_iter().zip([1, 3]) {
        assert_eq!(answer(of).await.unwrap(), number);
    }
}

#[tokio::test]
async fn without_a_database_everybody_is_told_at_once() {
    let started = start(true);
    for of in started.batch(&[Ask::Of(SOUND, 1), Ask::Of(TROUBLED, 2), Ask::Of(SOUND, 3)]) {
        let told = answer(of).await;
        assert!(matches!(told, Err(StoreError::Unavailable(_))), "{told:?}");
    }
    assert_eq!(
        started.tried.lock().await.len(),
        1,
        "nothing is tried again without one"
    );
}

/// Work of which a batch cannot be done, and then there is no database any more. How often it was tried.
#[derive(Debug)]
struct Fails(Arc<AtomicUsize>);

impl Work for Fails {
    type Ask = OrgId;
    type Answer = ();

    fn org(ask: &OrgId) -> OrgId {
        *ask
    }

    async fn all(&self, asks: &[OrgId], _: Patience) -> Result<Vec<()>, StoreError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        match asks.len() {
            1 => Err(StoreError::Unavailable(Arc::new(sqlx::Error::PoolTimedOut))),
            _ => Err(StoreError::Inconsistent { table: "bad" }),
        }
    }
}

#[tokio::test]
async fn once_there_is_no_database_nobody_else_is_tried_alone() {
    let tried = Arc::new(AtomicUsize::new(0));
    let lane = Lane::start(Fails(Arc::clone(&tried)));
    // Nothing else runs on this thread before they are all in the queue.
    let told = tokio::join!(lane.hand_in(SOUND), lane.hand_in(SOUND), lane.hand_in(SOUND));
    for told in [told.0, told.1, told.2] {
        assert!(matches!(told, Err(StoreError::Unavailable(_))), "{told:?}");
    }
    assert_eq!(
        tried.load(Ordering::SeqCst),
        3,
        "in the lane, apart from it, and one of them alone"
    );
}

/// Work that the database ends after so long, whatever it is.
#[derive(Debug)]
struct Dawdles(Arc<AtomicUsize>);

impl Work for Dawdles {
    type Ask = OrgId;
    type Answer = ();

    fn org(ask: &OrgId) -> OrgId {
        *ask
    }

    async fn all(&self, _: &[OrgId], patience: Patience) -> Result<Vec<()>, StoreError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        if patience == Patience::Much {
            tokio::time::sleep(ALONE_WITHIN).await;
        }
        // Any error but an outage.
        Err(StoreError::Busy)
    }
}

#[tokio::test]
async fn a_batch_that_ran_into_a_limit_of_time_is_not_tried_one_by_one() {
    let tried = Arc::new(AtomicUsize::new(0));
    let lane = Lane::start(Dawdles(Arc::clone(&tried)));
    let all = async { tokio::join!(lane.hand_in(SOUND), lane.hand_in(SOUND), lane.hand_in(SOUND)) };
    let told = timeout(LONG, all).await.expect("not everybody is told");
    for told in [told.0, told.1, told.2] {
        assert!(matches!(told, Err(StoreError::Busy)), "{told:?}");
    }
    assert_eq!(
        tried.load(Ordering::SeqCst),
        2,
        "in the lane and apart from it, all together"
    );
}

/// Work that stops unexpectedly where it is patient.
#[derive(Debug)]
struct Panics;

impl Work for Panics {
    type Ask = OrgId;
    type Answer = ();

    fn org(ask: &OrgId) -> OrgId {
        *ask
    }

    async fn all(&self, asks: &[OrgId], patience: Patience) -> Result<Vec<()>, StoreError> {
        assert!(patience == Patience::Little, "it goes wrong");
        if asks == [SOUND] {
            Ok(vec![()])
        } else {
            Err(StoreError::Conflict)
        }
    }
}

#[tokio::test]
async fn whoever_waits_for_work_that_stopped_is_told() {
    let lane = Lane::start(Panics);
    for _ in 0..2 {
        let told = timeout(LONG, lane.hand_in(TROUBLED))
            .await
            .expect("nobody answers");
        assert!(matches!(told, Err(StoreError::Stopped)), "{told:?}");
    }
    timeout(LONG, lane.hand_in(SOUND)).await.unwrap().unwrap();
}

/// Work that stops unexpectedly at the first batch.
#[derive(Debug)]
struct Breaks(AtomicUsize);

impl Work for Breaks {
    type Ask = OrgId;
    type Answer = ();

    fn org(ask: &OrgId) -> OrgId {
        *ask
    }

    async fn all(&self, asks: &[OrgId], _: Patience) -> Result<Vec<()>, StoreError> {
        assert!(self.0.fetch_add(1, Ordering::SeqCst) > 0, "it goes wrong");
        Ok(vec![(); asks.len()])
    }
}

#[tokio::test]
async fn a_lane_outlives_a_batch_that_stopped() {
    let lane = Lane::start(Breaks(AtomicUsize::new(0)));
    let told = timeout(LONG, lane.hand_in(SOUND)).await.expect("nobody answers");
    assert!(matches!(told, Err(StoreError::Stopped)), "{told:?}");
    timeout(LONG, lane.hand_in(SOUND)).await.unwrap().unwrap();
}
