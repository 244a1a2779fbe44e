//! The names of the processes that write. A name is held by a lease and used again when that has ended, so that the log
//! has as many writers as there ever were replicas at one time, not as many as there were starts.
//!
//! The lease is for good order only. Two processes under one name would still write one chain: each number is given
//! once, by constraint, and the slower one is turned away.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use super::{Store, StoreError, copy::COPIED_TO, engine::Engine, sql::params};
use crate::domain::Randomness;

/// This process among the replicas.
#[derive(Debug)]
pub(super) struct Replica {
    token: [u8; 16],
    name: Mutex<Arc<str>>,
    /// What it says of the database.
    word: AtomicU8,
}

/// What a replica says of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Nothing: it has not compared yet.
    Unsaid = 0,
    /// It is the one that was written to.
    Good = 1,
    /// It has never heard of an org.
    Strange = 2,
    /// It is an older one, or another.
    Bad = 3,
}

impl Word {
    fn of(stored: i64) -> Self {
        match stored {
            0 => Self::Unsaid,
            1 => Self::Good,
            2 => Self::Strange,
            // What a newer version says is nothing to rely on.
            _ => Self::Bad,
        }
    }
}

impl Replica {
    pub(super) fn new(random: &dyn Randomness) -> Result<Self, StoreError> {
        let mut token = [0; 16];
        random.fill(&mut token).map_err(|_| StoreError::Randomness)?;
        Ok(Self {
            token,
            // On SQLite there is one process, and this is its name.
            name: Mutex::new(Arc::from("r1")),
            word: AtomicU8::new(Word::Unsaid as u8),
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
    /// When the database is unavailable, or its copy goes on in its place: then nothing more may be released over it.
    pub async fn renew_replica(&self) -> Result<(), StoreError> {
        if matches!(*self.engine, Engine::Sqlite(_)) {
            return Ok(());
        }
        self.retry(|| self.try_to_renew_replica()).await
    }

    async fn try_to_renew_replica(&self) -> Result<(), StoreError> {
        let mut tx = self.write_deployment().await?;
        // A copy keeps everybody out of this line until its mark stands there (`copy::mark`). Whoever stood still for longer
        // than the lease kept nobody from copying, and may wake over what was left behind.
        let moved = tx
            .row("SELECT 1 FROM meta WHERE name = $1", params![COPIED_TO])
            .await?;
        if moved.is_some() {
            self.vigil.lose();
            tracing::error!("this database was copied to another one, which goes on in its place");
            return Err(StoreError::Moved);
        }
        let until = tx.now + LEASE;
        let token = self.replica.token.as_slice();
        let word = self.word() as i64;
        let kept = tx
            .execute(
                "UPDATE replicas SET expires_at = $2, word = $3 WHERE token = $1",
                params![token, until, word],
            )
            .await?;
        let mut taken = None;
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
            taken = Some(name);
        }
        tx.commit().await?;
        if let Some(name) = taken {
            *self.replica.name.lock().unwrap_or_else(PoisonError::into_inner) = Arc::from(name);
        }
        Ok(())
    }

    /// Says to other replicas, from here on, what this one found when it compared the database with what is kept outside.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn give_word(&self, word: Word) -> Result<(), StoreError> {
        self.replica.word.store(word as u8, Ordering::Release);
        self.renew_replica().await
    }

    fn word(&self) -> Word {
        match Word::of(self.replica.word.load(Ordering::Acquire).into()) {
            // What was found since.
            _ if self.has_lost_entries() => Word::Bad,
            Word::Good if self.sealed_orgs() > 0 => Word::Bad,
            word => word,
        }
    }

    /// What the other living replicas say of the database together; `None` where there are none. One that has to say
    /// something against it outweighs all others, and one that has not compared yet is waited for.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn others_word(&self) -> Result<Option<Word>, StoreError> {
        if matches!(*self.engine, Engine::Sqlite(_)) {
            return Ok(None);
        }
        let mut tx = self.read_deployment().await?;
        let rows = tx
            .rows(
                "SELECT DISTINCT word FROM replicas WHERE token <> $1 AND expires_at > $2",
                params![self.replica.token.as_slice(), tx.now],
            )
            .await?;
        let said: Vec<Word> = rows
            .into_iter()
            .map(|row| Ok(Word::of(row.fields("replicas").int()?)))
            .collect::<Result<_, StoreError>>()?;
        let order = [Word::Bad, Word::Unsaid, Word::Good, Word::Strange];
        Ok(order.into_iter().find(|word| said.contains(word)))
    }

    /// Gives the name back; one that cannot be given back is free when its lease ends.
    pub(super) async fn leave_replica(&self) {
        if matches!(*self.engine, Engine::Sqlite(_)) {
            return;
        }
        let done = self.retry(|| async {
            let mut tx = self.write_deployment().await?;
            let token = self.replica.token.as_slice();
            tx.execute(
                "UPDATE replicas SET expires_at = 0, word = 0 WHERE token = $1",
                params![token],
            )
            .await?;
            tx.commit().await
        });
        if let Err(error) = done.await {
            tracing::debug!(cause = %error, "the replica's name was not given back");
        }
    }
}

/// How long a name is held without being renewed.
const LEASE: Duration = Duration::from_secs(20);
