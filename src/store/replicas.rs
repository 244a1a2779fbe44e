//! The names of the processes that write. A name is held by a lease and used again when that has ended, so that the log
//! has as many writers as there ever were replicas at one time, not as many as there were starts.
//!
//! The lease is for good order only. Two processes under one name would still write one chain: each number is given
//! once, by constraint, and the slower one is turned away.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{Store, StoreError, engine::Engine, sql::params};
use crate::domain::Randomness;

/// This process among the replicas.
#[derive(Debug)]
pub(super) struct Replica {
    token: [u8; 16],
    name: Mutex<Arc<str>>,
    /// Whether every org was compared with what is kept outside the database.
    compared: AtomicBool,
}

/// What a replica says of the database; the highest of several counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It has not compared yet.
    None = 0,
    /// It is the one that was written to.
    Good = 1,
    /// An org is sealed.
    Sealed = 2,
}

impl Replica {
    pub(super) fn new(random: &dyn Randomness) -> Result<Self, StoreError> {
        let mut token = [0; 16];
        random.fill(&mut token).map_err(|_| StoreError::Randomness)?;
        Ok(Self {
            token,
            // On SQLite there is one process, and this is its name.
            name: Mutex::new(Arc::from("r1")),
            compared: AtomicBool::new(false),
        })
    }
}

impl Store {
    /// The name of this replica in leases and the log.
    #[must_use]
    pub fn replica(&self) -> Arc<str> {
        let name = self.replica.name.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&name)
    }

    /// Renews the lease on the replica's name; takes another name if it was lost.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn renew_replica(&self) -> Result<(), StoreError> {
        if matches!(*self.engine, Engine::Sqlite(_)) {
            return Ok(());
        }
        self.retry(|| self.try_to_renew_replica()).await
    }

    async fn try_to_renew_replica(&self) -> Result<(), StoreError> {
        let mut tx = self.write_deployment().await?;
        let until = tx.now + LEASE;
        let token = self.replica.token.as_slice();
        let word = self.word() as i64;
        let kept = tx
            .execute(
                "UPDATE replicas SET expires_at = $2, word = $3 WHERE token = $1",
                params![token, until, word],
            )
            .await?;
        if kept == 0 {
            let free = tx
                .row(
                    "SELECT name FROM replicas WHERE expires_at < $1 ORDER BY name LIMIT 1",
                    params![tx.now],
                )
                .await?;
            let name = match free {
                Some(row) => row.fields("replicas").text()?,
                None => {
                    let row = tx.row("SELECT count(*) FROM replicas", params![]).await?;
                    let taken = row.map_or(Ok(0), |row| row.fields("replicas").count())?;
                    format!("r{}", taken + 1)
                }
            };
            tx.change(
                "replicas",
                "INSERT INTO replicas (name, token, expires_at, word) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (name) DO UPDATE SET token = $2, expires_at = $3, word = $4",
                params![&name, token, until, word],
            )
            .await?;
            *self.replica.name.lock().unwrap_or_else(PoisonError::into_inner) = Arc::from(name);
        }
        tx.commit().await
    }

    /// Says to other replicas, from here on, that every org was compared with what is kept outside the database.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn vouch(&self) -> Result<(), StoreError> {
        self.replica.compared.store(true, Ordering::Release);
        self.renew_replica().await
    }

    fn word(&self) -> Word {
        if self.sealed_orgs() > 0 {
            Word::Sealed
        } else if self.replica.compared.load(Ordering::Acquire) {
            Word::Good
        } else {
            Word::None
        }
    }

    /// What the other living replicas say of the database; `None` where there are none.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn others_say(&self) -> Result<Option<Word>, StoreError> {
        if matches!(*self.engine, Engine::Sqlite(_)) {
            return Ok(None);
        }
        let mut tx = self.read_deployment().await?;
        let row = tx
            .row(
                "SELECT max(word) FROM replicas WHERE token <> $1 AND expires_at > $2",
                params![self.replica.token.as_slice(), tx.now],
            )
            .await?;
        let word = row.map_or(Ok(None), |row| row.fields("replicas").opt_int())?;
        Ok(word.map(|word| match word {
            0 => Word::None,
            1 => Word::Good,
            // What a newer version says is no word to take.
            _ => Word::Sealed,
        }))
    }

    /// Gives the name back; one that cannot be given back is free when its lease ends.
    pub(super) async fn leave_replica(&self) {
        if matches!(*self.engine, Engine::Sqlite(_)) {
            return;
        }
        let done = async {
            let mut tx = self.write_deployment().await?;
            let token = self.replica.token.as_slice();
            tx.execute(
                "UPDATE replicas SET expires_at = 0 WHERE token = $1",
                params![token],
            )
            .await?;
            tx.commit().await
        };
        if let Err(error) = done.await {
            tracing::debug!(cause = %error, "the replica's name was not given back");
        }
    }
}

/// How long a name is held without being renewed.
const LEASE: Duration = Duration::from_secs(20);
