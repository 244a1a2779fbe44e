//! Whether this replica can do what a release needs: write, and unwrap the organisation's key.

use std::{sync::Arc, time::Duration};

use postern_kms::KeyState;
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
};

use crate::{flows::Deps, http::routes::health::Readiness};

/// Keeps readiness current: probes of load balancers then touch neither the database nor the key service.
pub(super) async fn probe(deps: Arc<Deps>, ready: watch::Sender<Readiness>) {
    let prober = Arc::new(Mutex::new(Prober::new(deps)));
    let look = || {
        let prober = Arc::clone(&prober);
        async move { prober.lock().await.obstacles().await }
    };
    keep_current(&ready, PROBE_EVERY, look).await;
}

/// A look that panics is begun anew, as those of the workers; until it has looked again, this replica is none to route to.
async fn keep_current<L>(ready: &watch::Sender<Readiness>, pause: Duration, look: impl Fn() -> L)
where
    L: Future<Output = Vec<&'static str>> + Send + 'static,
{
    loop {
        // In a set: whoever drops this stops the look, too.
        let mut looking = JoinSet::new();
        looking.spawn(look());
        let obstacles = match looking.join_next().await {
            Some(Ok(obstacles)) => obstacles,
            Some(Err(_)) | None => {
                tracing::error!("a look at readiness stopped unexpectedly and is begun anew");
                vec!["starting"]
            }
        };
        ready.send_if_modified(|readiness| {
            let changed = readiness.obstacles != obstacles;
            readiness.obstacles = obstacles;
            changed
        });
        tokio::time::sleep(pause).await;
    }
}

/// Looks for what stands between this replica and work.
#[derive(Debug)]
pub struct Prober {
    deps: Arc<Deps>,
    /// On the boot clock.
    next_write: Duration,
    /// What stood between it and its database at the last look.
    before: Option<&'static str>,
}

impl Prober {
    /// One that has not looked yet.
    #[must_use]
    pub fn new(deps: Arc<Deps>) -> Self {
        Self {
            deps,
            next_write: Duration::ZERO,
            before: None,
        }
    }

    /// The short stable names of what is in the way; empty when nothing is.
    pub async fn obstacles(&mut self) -> Vec<&'static str> {
        let mut obstacles = Vec::from_iter(self.before_the_store().await);
        if !self.key_works().await {
            obstacles.push("keys");
        }
        if self.deps.store.sealed_orgs() > 0 {
            obstacles.push("sealed");
        }
        if let Err(error) = self.deps.store.flush_outside().await {
            tracing::error!(cause = %error, "the file outside the database cannot be written");
            obstacles.push("outside");
        }
        // Its answer is the mark it leaves: whoever serves stops then.
        let _looked = self.deps.store.look_for_lost_entries().await;
        obstacles
    }

    /// Whether the deployment's key-encryption key can be used now: a service that answers may say that it cannot.
    async fn key_works(&self) -> bool {
        let known = self.deps.keyring.status().await.unwrap_or_default();
        known
            .iter()
            .any(|key| key.key_ref == self.deps.kek_ref && key.state == KeyState::Enabled)
    }

    /// What stands between this replica and its database: that does not work, or has another clock. Reads at every look; writes
    /// now and then, and at every look while it does not work.
    async fn before_the_store(&mut self) -> Option<&'static str> {
        let now = self.deps.clock.since_boot();
        let clock = self.deps.store.agrees_with_clock(CLOCK_WITHIN).await;
        let done = match clock {
            Ok(agrees) if now >= self.next_write => self.deps.store.prove_writable().await.map(|()| agrees),
            read => read,
        };
        match &done {
            Ok(_) if now >= self.next_write => self.next_write = now + WRITE_EVERY,
            Ok(_) => {}
            Err(_) => self.next_write = now,
        }
        let obstacle = match &done {
            Err(_) => Some("store"),
            Ok(false) => Some("clock"),
            Ok(true) => None,
        };
        if obstacle != self.before {
            match &done {
                Err(error) => {
                    tracing::error!(cause = %error, "the database cannot be written: nothing is released until it can");
                }
                Ok(false) => {
                    tracing::error!("the clock of this machine is more than five seconds off the database's");
                }
                Ok(true) => {}
            }
        }
        self.before = obstacle;
        obstacle
    }
}

/// How often readiness is looked at.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// The time of what is promised is the database's; a replica whose own is further off is not ready (protocol §4).
const CLOCK_WITHIN: Duration = Duration::from_secs(5);
/// How often a write is tried. Each costs one commit.
const WRITE_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_look_that_panicked_is_not_ready_and_is_begun_anew() {
        let (ready, mut readiness) = watch::channel(Readiness {
            obstacles: Vec::new(),
        });
        let looks = Arc::new(AtomicUsize::new(0));
        let look = || {
            let looks = Arc::clone(&looks);
            async move {
                assert!(
                    looks.fetch_add(1, Ordering::SeqCst) > 0,
                    "the first look goes wrong"
                );
                vec!["keys"]
            }
        };
        let pause = Duration::from_millis(50);
        let said = async {
            readiness.changed().await.unwrap();
            let after_the_panic = readiness.borrow_and_update().obstacles.clone();
            readiness.changed().await.unwrap();
            (after_the_panic, readiness.borrow().obstacles.clone())
        };
        let said = tokio::select! {
            said = tokio::time::timeout(Duration::from_secs(60), said) => said.expect("it never looked again"),
            () = keep_current(&ready, pause, look) => panic!("it ended"),
        };
        assert_eq!(said, (vec!["starting"], vec!["keys"]));
    }
}
