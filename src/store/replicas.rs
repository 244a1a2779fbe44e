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
use crate::domain::{Randomness, Time};

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
    /// It is an older one: the replica knows what is missing in it.
    Bad = 3,
    /// An org is not as it was.
    Torn = 4,
}

impl Word {
    fn of(stored: i64) -> Self {
        match stored {
            0 => Self::Unsaid,
            1 => Self::Good,
            2 => Self::Strange,
            3 => Self::Bad,
            // Nor is what a newer version says anything to rely on.
            _ => Self::Torn,
        }
    }

    /// What several say together: one that has to say something against the database outweighs all others.
    #[must_use]
    pub fn worst(said: &[Self]) -> Option<Self> {
        let order = [Self::Bad, Self::Torn, Self::Unsaid, Self::Good, Self::Strange];
        order.into_iter().find(|word| said.contains(word))
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

    /// Renews the lease on the replica's name; takes another name if it was lost. And hears what other replicas have found:
    /// nothing is released any more once one of them knows the database for an older one. One that merely knows nothing of it
    /// is not heard.
    ///
    /// # Errors
    /// When the database is unavailable, its copy goes on in its place, or the name was lost with what was written under it:
    /// then nothing more may be released over it.
    pub async fn renew_replica(&self) -> Result<(), StoreError> {
        if matches!(*self.engine, Engine::Sqlite(_)) {
            return Ok(());
        }
        self.retry(|| async {
            let is_new = self.vigil.has_written_nothing();
            if !self.try_to_renew_replica(is_new).await? {
                // A database that was put back may lack the name as well. Under another one nothing would be missed; but what is
                // found is said to the others under one.
                let looked = self.look_for_lost_entries().await;
                self.try_to_renew_replica(true).await?;
                looked?;
            }
            Ok(())
        })
        .await
    }

    /// Whether it has a name; one that is lost is replaced if `anew` says so.
    async fn try_to_renew_replica(&self, anew: bool) -> Result<bool, StoreError> {
        let mut tx = self.write_deployment().await?;
        // A copy keeps everybody out of this line until its mark stands there (`copy::mark`). Whoever stood still for longer
        // than the lease kept nobody from copying, and may wake over what was left behind.
        let moved = tx
            .row("SELECT 1 FROM meta WHERE name = $1", params![COPIED_TO])
            .await?;
        if moved.is_some() {
            self.vigil.leave();
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
        if kept == 0 && !anew {
            return Ok(false);
        }
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
        let older = tx
            .row(
                "SELECT 1 FROM replicas WHERE token <> $1 AND expires_at > $2 AND word = $3 LIMIT 1",
                params![token, tx.now, Word::Bad as i64],
            )
            .await?;
        tx.commit().await?;
        if let Some(name) = taken {
            *self.replica.name.lock().unwrap_or_else(PoisonError::into_inner) = Arc::from(name);
        }
        if older.is_some() {
            self.vigil.be_told();
        }
        Ok(true)
    }

    /// Says to other replicas, from here on, what this one found when it compared the database with what is kept outside.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn give_word(&self, word: Word) -> Result<(), StoreError> {
        self.replica.word.store(word as u8, Ordering::Release);
        self.renew_replica().await
    }

    /// After a recovery by this process: what was said against the database before is no longer so. A replica that lives and
    /// still knows better says it again; one that died while it said so cannot take it back itself.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn take_words_back(&self) -> Result<(), StoreError> {
        if matches!(*self.engine, Engine::Sqlite(_)) {
            return Ok(());
        }
        self.retry(|| async {
            let mut tx = self.write_deployment().await?;
            let sql = "UPDATE replicas SET word = $2 WHERE word = $1";
            tx.execute(sql, params![Word::Bad as i64, Word::Unsaid as i64])
                .await?;
            tx.commit().await
        })
        .await?;
        self.hear_again().await
    }

    /// After a recovery: asks anew whether any other replica knows the database for an older one.
    ///
    /// # Errors
    /// As [`Store::renew_replica`].
    pub async fn hear_again(&self) -> Result<(), StoreError> {
        self.vigil.forget_what_was_told();
        self.renew_replica().await
    }

    /// What it says: once it has compared, what it has found up to now.
    fn word(&self) -> Word {
        let found = self.found();
        match Word::of(self.replica.word.load(Ordering::Acquire).into()) {
            Word::Unsaid if found != Word::Bad => Word::Unsaid,
            _ => found,
        }
    }

    /// What the other living replicas say of the database together; `None` where there are none. One that has not compared
    /// yet is waited for, unless another has found something.
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
        Ok(Word::worst(&said))
    }

    /// Gives the name back; one that cannot be given back is free when its lease ends.
    pub(super) async fn leave_replica(&self) {
        if matches!(*self.engine, Engine::Sqlite(_)) {
            return;
        }
        let done = self.retry(|| async {
            let mut tx = self.write_deployment().await?;
            let token = self.replica.token.as_slice();
            // What it has found is to be heard though it stops for that very reason.
            let (until, word) = match self.found() {
                Word::Bad => (tx.now + LEASE, Word::Bad),
                _ => (Time::from_unix_micros(0), Word::Unsaid),
            };
            tx.execute(
                "UPDATE replicas SET expires_at = $2, word = $3 WHERE token = $1",
                params![token, until, word as i64],
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
