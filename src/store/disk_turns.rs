//! Turns in the data directory. An act that makes no progress is given up by whoever waits for it, and goes on alone: it ends by
//! itself or with the process. Until then no other is begun, so that acts do not pile up on blocked threads.

use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Mutex, OwnedMutexGuard};

/// One line of those who act.
#[derive(Debug)]
pub(super) struct DiskTurns {
    line: Arc<Mutex<()>>,
    /// Counts progress: as long as it grows, nothing hangs.
    steps: Arc<AtomicU64>,
    /// The count when the act under way was given up; while it stands there, nobody waits.
    hung_at: AtomicU64,
    /// Nobody waits longer than this while nothing comes about.
    pub(super) within: Duration,
}

/// Somebody's turn. That it is over is a step, too.
struct Turn {
    steps: Arc<AtomicU64>,
    _place: OwnedMutexGuard<()>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }
}

impl Default for DiskTurns {
    fn default() -> Self {
        Self::within(WITHIN)
    }
}

impl DiskTurns {
    /// Nobody waits longer than this while nothing comes about.
    pub(super) fn within(within: Duration) -> Self {
        Self {
            line: Arc::default(),
            steps: Arc::default(),
            hung_at: AtomicU64::new(u64::MAX),
            within,
        }
    }

    /// Called by whoever has the turn, whenever it has made progress.
    pub(super) fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Acts when it is its turn. Whoever goes away before that begins nothing; what was begun is done.
    ///
    /// # Errors
    /// Those of `act`; [`io::ErrorKind::TimedOut`] if nothing comes about for a while, and at once for as long as that goes on.
    pub(super) async fn take<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if self.hung_at.load(Ordering::Relaxed) == self.steps() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut acting = pin!(async {
            let place = Arc::clone(&self.line).lock_owned().await;
            let turn = Turn {
                steps: Arc::clone(&self.steps),
                _place: place,
            };
            let acted = tokio::task::spawn_blocking(move || {
                let done = act();
                drop(turn);
                done
            });
            acted
                .await
                .unwrap_or_else(|_| Err(io::Error::other("whoever had the file stopped")))
        });
        let (mut before, mut idle) = (self.steps(), 0);
        // Counted in ticks: while the process stands still, its disk hangs no longer than one of them.
        while idle < TICKS {
            if let Ok(done) = tokio::time::timeout(self.within / TICKS, acting.as_mut()).await {
                return done;
            }
            let now = self.steps();
            idle = if now == before { idle + 1 } else { 0 };
            before = now;
        }
        self.hung_at.store(before, Ordering::Relaxed);
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// A directory in which nothing comes about for so long hangs.
const WITHIN: Duration = Duration::from_secs(5);
/// As many parts of that are waited for one by one.
const TICKS: u32 = 50;

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicBool, AtomicUsize},
        mpsc,
    };

    use super::*;

    /// Begins an act that hangs until the sender is dropped, and is given up.
    async fn hung(turns: &DiskTurns) -> mpsc::Sender<()> {
        let (hanging, goes_on) = mpsc::channel::<()>();
        let gave_up = turns.take(move || {
            let _gone = goes_on.recv();
            Ok(())
        });
        assert_eq!(gave_up.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        hanging
    }

    #[tokio::test]
    async fn beside_an_act_that_hangs_none_is_begun_and_nobody_waits() {
        let turns = DiskTurns::within(Duration::from_millis(20));
        let hanging = hung(&turns).await;
        let begun = Arc::new(AtomicUsize::new(0));
        for _ in 0..100 {
            let begun = Arc::clone(&begun);
            let act = turns.take(move || {
                begun.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
            let mut act = pin!(act);
            let at_once = std::future::poll_fn(|context| std::task::Poll::Ready(act.as_mut().poll(context)));
            assert!(at_once.await.is_ready(), "it waits");
        }
        drop(hanging);
        // The turn is over a moment later.
        let done = tokio::time::timeout(Duration::from_secs(60), async {
            while turns.take(|| Ok(())).await.is_err() {
                tokio::task::yield_now().await;
            }
        });
        done.await.expect("it never went on");
        assert_eq!(begun.load(Ordering::SeqCst), 0, "begun all the same");
    }

    #[tokio::test]
    async fn an_act_that_comes_on_is_waited_for_however_long_it_takes() {
        let turns = Arc::new(DiskTurns::within(Duration::from_millis(200)));
        let of = Arc::clone(&turns);
        let act = turns.take(move || {
            for _ in 0..40 {
                // Nothing else stands in for a disk that is slow.
                std::thread::sleep(Duration::from_millis(20));
                of.step();
            }
            Ok("done")
        });
        assert_eq!(act.await.unwrap(), "done");
    }

    #[tokio::test]
    async fn an_act_that_panicked_ends_its_turn() {
        let turns = DiskTurns::default();
        let stopped: io::Result<()> = turns.take(|| panic!("it goes wrong")).await;
        stopped.unwrap_err();
        turns.take(|| Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_goes_away_in_the_line_begins_nothing() {
        let turns = DiskTurns::default();
        let place = Arc::clone(&turns.line).lock_owned().await;
        let begun = Arc::new(AtomicBool::new(false));
        let act = {
            let begun = Arc::clone(&begun);
            turns.take(move || {
                begun.store(true, Ordering::SeqCst);
                Ok(())
            })
        };
        let gone = tokio::time::timeout(Duration::from_millis(20), act).await;
        gone.unwrap_err();
        drop(place);
        turns.take(|| Ok(())).await.unwrap();
        assert!(!begun.load(Ordering::SeqCst));
    }
}
