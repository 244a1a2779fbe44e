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
}

impl Prober {
    /// One that has not looked yet.
    #[must_use]
    pub fn new(deps: Arc<Deps>) -> Self {
        Self {
            deps,
            next_write: Duration::ZERO,
            down: false,
        }
    }

    /// The short stable names of what is in the way; empty when nothing is.
    pub async fn obstacles(&mut self) -> Vec<&'static str> {
        let mut obstacles = Vec::new();
        if !self.store_works().await {
            obstacles.push("store");
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

    /// Reads at every look; writes now and then, and at every look while it does not work.
    async fn store_works(&mut self) -> bool {
        let now = self.deps.clock.since_boot();
        let done = if now >= self.next_write {
            self.deps.store.prove_writable().await
        } else {
            self.deps.store.meta("made_by").await.map(drop)
        };
        match &done {
            Ok(()) if now >= self.next_write => self.next_write = now + WRITE_EVERY,
            Ok(()) => {}
            Err(_) => self.next_write = now,
        }
        if let Err(error) = &done
            && !self.down
        {
            tracing::error!(cause = %error, "the database cannot be written: nothing is released until it can");
        }
        self.down = done.is_err();
        !self.down
    }
}

/// How often a write is tried. Each costs one commit.
const WRITE_EVERY: Duration = Duration::from_secs(10);
