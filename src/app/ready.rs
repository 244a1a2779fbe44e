//! Whether this replica can do what a release needs: write, and unwrap the organisation's key.

use std::{sync::Arc, time::Duration};

use postern_kms::KeyState;

use crate::flows::Deps;

/// Looks for what stands between this replica and work.
#[derive(Debug)]
pub struct Prober {
    deps: Arc<Deps>,
    /// On the boot clock.
    next_write: Duration,
    down: bool,
    astray: bool,
}

impl Prober {
    /// One that has not looked yet.
    #[must_use]
    pub fn new(deps: Arc<Deps>) -> Self {
        Self {
            deps,
            next_write: Duration::ZERO,
            down: false,
            astray: false,
        }
    }

    /// The short stable names of what is in the way; empty when nothing is.
    pub async fn obstacles(&mut self) -> Vec<&'static str> {
        let mut obstacles = Vec::new();
        match self.store_works().await {
            None => obstacles.push("store"),
            Some(false) => obstacles.push("clock"),
            Some(true) => {}
        }
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

    /// Whether the clock agrees with the database's; `None` while the database does not work. Reads at every look; writes now
    /// and then, and at every look while it does not work.
    async fn store_works(&mut self) -> Option<bool> {
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
        if let Err(error) = &done
            && !self.down
        {
            tracing::error!(cause = %error, "the database cannot be written: nothing is released until it can");
        }
        if let Ok(false) = done
            && !self.astray
        {
            tracing::error!("the clock of this machine is more than five seconds off the database's");
        }
        (self.down, self.astray) = (done.is_err(), matches!(done, Ok(false)));
        done.ok()
    }
}

/// The time of what is promised is the database's; a replica whose own is further off is not ready (protocol §4).
const CLOCK_WITHIN: Duration = Duration::from_secs(5);
/// How often a write is tried. Each costs one commit.
const WRITE_EVERY: Duration = Duration::from_secs(10);
