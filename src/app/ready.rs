//! Whether this replica can do what a release needs: write, and unwrap the organisation's key.

use std::{io, sync::Arc, time::Duration};

use postern_kms::KeyState;
use tokio::task::JoinSet;

use crate::flows::Deps;

/// Looks for what stands between this replica and work.
#[derive(Debug)]
pub struct Prober {
    deps: Arc<Deps>,
    /// On the boot clock.
    next_write: Duration,
    /// What stood between it and its database at the last look.
    before: Option<&'static str>,
    /// What is being written outside the database, one at a time. In a set: whoever drops this stops it, too.
    flushing: JoinSet<io::Result<()>>,
}

impl Prober {
    /// One that has not looked yet.
    #[must_use]
    pub fn new(deps: Arc<Deps>) -> Self {
        Self {
            deps,
            next_write: Duration::ZERO,
            before: None,
            flushing: JoinSet::new(),
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
        if let Err(error) = self.flush_outside().await {
            tracing::error!(cause = %error, "the file outside the database cannot be written");
            obstacles.push("outside");
        }
        // Its answer is the mark it leaves: whoever serves stops then.
        let _looked = self.deps.store.look_for_lost_entries().await;
        obstacles
    }

    /// A directory that hangs says nothing, and is not waited for: the next look goes on with the same write.
    async fn flush_outside(&mut self) -> io::Result<()> {
        if self.flushing.is_empty() {
            let deps = Arc::clone(&self.deps);
            self.flushing
                .spawn(async move { deps.store.flush_outside().await });
        }
        match tokio::time::timeout(OUTSIDE_WITHIN, self.flushing.join_next()).await {
            Ok(Some(Ok(flushed))) => flushed,
            Ok(Some(Err(stopped))) => Err(io::Error::other(stopped)),
            Ok(None) | Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
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

/// How long writing the file outside the database may take.
const OUTSIDE_WITHIN: Duration = Duration::from_secs(5);
/// The time of what is promised is the database's; a replica whose own is further off is not ready (protocol §4).
const CLOCK_WITHIN: Duration = Duration::from_secs(5);
/// How often a write is tried. Each costs one commit.
const WRITE_EVERY: Duration = Duration::from_secs(10);
