//! The names of the processes that write. A name is held by a lease and used again when that has ended, so that the log
//! has as many writers as there ever were replicas at one time, not as many as there were starts.
//!
//! The lease is for good order only. Two processes under one name would still write one chain: each number is given
//! once, by constraint, and the slower one is turned away.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    Store, StoreError,
    copy::COPIED_TO,
    engine::Engine,
    sql::{Tx, params},
    waits::{farthest, is_over},
};
use crate::domain::{Randomness, Time};

/// This process among the replicas.
#[derive(Debug)]
pub(super) struct Replica {
    token: [u8; 16],
    name: Mutex<Arc<str>>,
    /// What it says of the database.
    word: AtomicU8,
    /// When the last renewal began that was done: microseconds since boot.
    renewed_at: AtomicU64,
    /// The same by the database's clock, in microseconds: what others had found by then has been heard.
    heard_at: AtomicI64,
    /// Those who wait to write stand in line here: one renews for all of them.
    renewing: tokio::sync::Mutex<()>,
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

/// What a replica has seen of the others' leases since it began to listen to them.
///
/// SECURITY: a database that takes a dead one's place brings the words of replicas that died with it, on leases that have not
/// ended. Only a replica that lives renews its lease, and it looks first whether the database still has what it wrote.
#[derive(Debug, Default)]
pub struct Listening {
    /// By token, until when the lease was held at first.
    since: HashMap<Vec<u8>, Time>,
    /// What those said together at the last look that had anything to say.
    compared: Option<Word>,
}

impl Listening {
    /// Whether the replica with this token has renewed its lease since.
    fn has_renewed(&mut self, token: Vec<u8>, until: Time) -> bool {
        let first = self.since.entry(token).or_insert(until);
        // Also a lease that goes back is of another database, or another time.
        *first = until.min(*first);
        *first < until
    }

    /// What the others said together at the last look, without those that had not compared yet or may be dead.
    #[must_use]
    pub fn compared(&self) -> Option<Word> {
        self.compared
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
            // Whoever takes no name is never late.
            renewed_at: AtomicU64::new(u64::MAX),
            // What was said before it came is for whoever vouches for the database to it.
            heard_at: AtomicI64::new(i64::MAX),
            renewing: tokio::sync::Mutex::default(),
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

    /// Whether the lease was not renewed for so long that others may have the name by now. In a database that took the place of
    /// the one this process wrote to, they may have brought the numbers under it to where they were.
    pub(super) fn is_late(&self) -> bool {
        let renewed_at = self.replica.renewed_at.load(Ordering::Acquire);
        self.since_boot().saturating_sub(renewed_at) > LATE
    }

    fn since_boot(&self) -> u64 {
        u64::try_from(self.clock.since_boot().as_micros()).unwrap_or(u64::MAX)
    }

    /// [`Store::renew_replica`] if it is late, for a transaction that is about to begin.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn renew_if_late(&self) -> Result<(), StoreError> {
        if self.is_late() {
            self.renew_in_turn().await
        } else {
            Ok(())
        }
    }

    /// A renewal begins a transaction, too.
    fn renew_in_turn(&self) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send + '_>> {
        Box::pin(async move {
            // Where a renewal comes to nothing, each in the line would begin one, behind all before it.
            let Ok(_turn) = tokio::time::timeout(TURN_WITHIN, self.replica.renewing.lock()).await else {
                return Err(StoreError::Conflict);
            };
            if !self.is_late() {
                return Ok(());
            }
            self.renew_replica().await.map_err(|error| match error {
                // Of the renewal: what the caller is about to do was not even sent.
                error if error.is_undecided() => error.said().unwrap_or(error),
                error => error,
            })
        })
    }

    /// Renews the lease on the replica's name; takes another name if it was lost. Looks first whether the database has what this
    /// process wrote and heard of last: with the lease it renews its word. And hears what other replicas have found:
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
            // Before it looks: what a database is that came while it looked, it does not know.
            let begun = self.since_boot();
            let is_new = self.vigil.has_written_nothing();
            let is_lost = match self.look_for_lost_entries().await {
                Ok(()) => false,
                // That is what is said then.
                Err(StoreError::Lost) => true,
                // That is its org's matter alone: whoever releases there finds it as well.
                Err(error) if error.is_damage() => {
                    tracing::error!(cause = %error, "whether the database has lost entries of an org cannot be told");
                    false
                }
                Err(error) => return Err(error),
            };
            if self.try_to_renew_replica(begun, is_new).await? {
                return Ok(());
            }
            // A database that was put back may lack the name as well. Under another one nothing would be missed; but what is
            // found is said to the others under one.
            self.try_to_renew_replica(begun, true).await?;
            if is_lost {
                return Err(StoreError::Lost);
            }
            Ok(())
        })
        .await
    }

    /// Whether it has a name; one that is lost is replaced if `anew` says so. `begun`: when the look before it began.
    async fn try_to_renew_replica(&self, begun: u64, anew: bool) -> Result<bool, StoreError> {
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
        // First: whoever is told says so.
        self.hear(&mut tx).await?;
        let (heard_at, until) = (tx.now, tx.now + LEASE);
        let token = self.replica.token.as_slice();
        let word = self.word() as i64;
        let kept = tx
            .row(
                "UPDATE replicas SET expires_at = $2, word = $3 WHERE token = $1 RETURNING name",
                params![token, until, word],
            )
            .await?;
        // Read also where it is kept: a commit that nobody confirmed may have given it another one.
        let name = match kept {
            Some(row) => row.fields("replicas").text()?,
            None if anew => self.take_name(&mut tx, until, word).await?,
            None => return Ok(false),
        };
        tx.commit().await?;
        self.replica.renewed_at.store(begun, Ordering::Release);
        self.replica
            .heard_at
            .store(heard_at.unix_micros(), Ordering::Release);
        if *name != *self.replica() {
            *self.replica.name.lock().unwrap_or_else(PoisonError::into_inner) = Arc::from(name);
        }
        Ok(true)
    }

    /// Takes a free name, or the next new one.
    async fn take_name(&self, tx: &mut Tx, until: Time, word: i64) -> Result<String, StoreError> {
        let free = tx
            .row(
                // What a dead one found stands until it is taken back.
                concat!(
                    "SELECT name FROM replicas WHERE ",
                    is_over!("expires_at", "$1", "$3"),
                    " AND word <> $2 ORDER BY name LIMIT 1"
                ),
                params![tx.now, Word::Bad as i64, farthest(tx.now, LEASE)],
            )
            .await?;
        let chosen = match free {
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
            params![&chosen, self.replica.token.as_slice(), until, word],
        )
        .await?;
        Ok(chosen)
    }

    /// Hears what other replicas have found, since this one heard them last: it may have stood still for longer than a lease.
    async fn hear(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let token = self.replica.token.as_slice();
        let before = Time::from_unix_micros(self.replica.heard_at.load(Ordering::Acquire));
        let older = tx
            .row(
                "SELECT 1 FROM replicas WHERE token <> $1 AND expires_at > $2 AND word = $3 LIMIT 1",
                params![token, before.min(tx.now), Word::Bad as i64],
            )
            .await?;
        if older.is_some() {
            self.vigil.be_told();
            return Ok(());
        }
        let params = params![
            token,
            tx.now,
            Word::Bad as i64,
            Word::Unsaid as i64,
            farthest(tx.now, LEASE)
        ];
        // A replica that died over it takes nothing back; one whose word was taken back may be about to say it again.
        let stands = self.vigil.is_told() && tx.row(SAID_AGAINST, params).await?.is_some();
        if !stands {
            self.vigil.hear_nothing();
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

    /// After a recovery by this process: what others said against the database before is no longer so. A replica that lives and
    /// still knows better says it again; one that died while it said so cannot take it back itself. This one goes on saying it
    /// as long as it has another org to recover.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn take_words_back(&self) -> Result<(), StoreError> {
        if matches!(*self.engine, Engine::Sqlite(_)) {
            return Ok(());
        }
        self.retry(|| async {
            let mut tx = self.write_deployment().await?;
            let token = self.replica.token.as_slice();
            let sql = "UPDATE replicas SET word = $2 WHERE word = $1 AND token <> $3";
            tx.execute(sql, params![Word::Bad as i64, Word::Unsaid as i64, token])
                .await?;
            tx.commit().await
        })
        .await?;
        self.vigil.forget_what_was_told();
        self.renew_replica().await
    }

    /// After a recovery by another process: from here on, what was told holds only until nobody says it any more. That may be
    /// now, or once that process has done all it does.
    ///
    /// # Errors
    /// As [`Store::renew_replica`].
    pub async fn hear_again(&self) -> Result<(), StoreError> {
        self.vigil.meet_recovery();
        self.renew_replica().await
    }

    /// Whether it has compared the database with what is kept outside.
    pub(super) fn has_compared(&self) -> bool {
        Word::of(self.replica.word.load(Ordering::Acquire).into()) != Word::Unsaid
    }

    /// What it says: once it has compared, what it has found up to now.
    fn word(&self) -> Word {
        let found = self.found();
        match Word::of(self.replica.word.load(Ordering::Acquire).into()) {
            Word::Unsaid if found != Word::Bad => Word::Unsaid,
            _ => found,
        }
    }

    /// What the other replicas whose leases have not ended say of the database together; `None` where there are none. One that
    /// has not compared yet is waited for, unless another has found something; so is one that says that all is well and has
    /// not renewed its lease since this one listens: it may be dead. A lease that ends later than any that is given now was
    /// taken by a clock that was ahead, and says nothing: whoever lives puts it right. Only that the database is an older one
    /// stands until it is taken back.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn others_word(&self, listening: &mut Listening) -> Result<Option<Word>, StoreError> {
        if matches!(*self.engine, Engine::Sqlite(_)) {
            return Ok(None);
        }
        let mut tx = self.read_deployment().await?;
        let rows = tx
            .rows(
                concat!(
                    "SELECT token, expires_at, word FROM replicas WHERE token <> $1 AND (NOT ",
                    is_over!("expires_at", "$2", "$3"),
                    " OR word = $4 AND expires_at > $2)"
                ),
                params![
                    self.replica.token.as_slice(),
                    tx.now,
                    farthest(tx.now, LEASE),
                    Word::Bad as i64
                ],
            )
            .await?;
        let said: Vec<Word> = rows
            .into_iter()
            .map(|row| {
                let mut fields = row.fields("replicas");
                let (token, until) = (fields.blob()?, fields.time()?);
                let word = Word::of(fields.int()?);
                Ok(match listening.has_renewed(token, until) {
                    false if word == Word::Good => Word::Unsaid,
                    _ => word,
                })
            })
            .collect::<Result<_, StoreError>>()?;
        let compared: Vec<Word> = said
            .iter()
            .copied()
            .filter(|word| *word != Word::Unsaid)
            .collect();
        listening.compared = Word::worst(&compared);
        Ok(Word::worst(&said))
    }

    /// Gives the name back; one that cannot be given back is free when its lease ends. What this process has found is to be
    /// heard though it stops for that very reason: then it keeps a name, or takes one to say it under.
    pub(super) async fn leave_replica(&self) {
        if matches!(*self.engine, Engine::Sqlite(_)) {
            return;
        }
        if self.found() == Word::Bad {
            if let Err(error) = self.renew_replica().await {
                tracing::debug!(cause = %error, "what was found may have been said to nobody");
            }
            return;
        }
        let done = self.retry(|| async {
            let mut tx = self.write_deployment().await?;
            let token = self.replica.token.as_slice();
            let (ended, nothing) = (Time::from_unix_micros(0), Word::Unsaid as i64);
            tx.execute(
                "UPDATE replicas SET expires_at = $2, word = $3 WHERE token = $1",
                params![token, ended, nothing],
            )
            .await?;
            tx.commit().await
        });
        if let Err(error) = done.await {
            tracing::debug!(cause = %error, "the replica's name was not given back");
        }
    }
}

/// Whether anybody else says something against the database, or may be about to.
const SAID_AGAINST: &str = concat!(
    "SELECT 1 FROM replicas WHERE token <> $1 AND (word = $3 OR word = $4 AND NOT ",
    is_over!("expires_at", "$2", "$5"),
    ") LIMIT 1"
);
/// How long a name is held without being renewed.
pub const LEASE: Duration = Duration::from_secs(20);
/// A process that is about to write looks first when its last renewal lies so many microseconds back. Half a lease: a standby that
/// is promoted may lack the last renewals.
const LATE: u64 = LEASE.as_secs() * 1_000_000 / 2;
/// How long whoever is about to write waits for another's renewal.
const TURN_WITHIN: Duration = Duration::from_secs(5);
