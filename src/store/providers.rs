//! How fast each provider is asked to end tokens, whatever the number of replicas: a token bucket of one second's worth,
//! and the moment before which it wants to be left alone, by one client or by all of them.
//!
//! Providers count requests per client, so the client that was told to wait rests, whichever orgs use it, and nobody else.
//! Some count per address as well: that shows where several clients are told so and nobody is served in between.

use std::{collections::HashSet, time::Duration};

use crate::{crypto::digest, domain::Time};

use super::{
    Store, StoreError,
    sql::{Tx, params},
    waits::{LONGEST_DEBT, LONGEST_REST, is_astray, is_on},
};

/// The clients that a provider wants to be left alone by.
#[derive(Debug)]
pub struct Resting {
    host: String,
    rows: HashSet<String>,
}

impl Resting {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn holds(&self, client: &str) -> bool {
        self.rows.contains(&row_of(&self.host, client))
    }
}

impl Store {
    /// Takes as many of `wanted` turns to ask a provider as there are now; at most `per_second` in any second on average.
    ///
    /// # Errors
    /// When the database is unavailable: then nobody is asked.
    pub async fn take_turns(&self, host: &str, wanted: u64, per_second: u32) -> Result<u64, StoreError> {
        self.retry(|| async {
            let mut tx = self.write_deployment().await?;
            let bucket = tx.bucket(host).await?;
            if is_on(bucket.not_before, tx.now, LONGEST_REST) {
                return Ok(0);
            }
            let (turns, taken_up_to) = bucket.take(tx.now, wanted, per_second);
            if turns > 0 {
                tx.put_bucket(host, taken_up_to, bucket.not_before).await?;
                tx.commit().await?;
            }
            Ok(turns)
        })
        .await
    }

    /// Takes turns for requests that were made already: the next ones come later by as much.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn owe_turns(&self, host: &str, made: u64, per_second: u32) -> Result<(), StoreError> {
        self.retry(|| async {
            let mut tx = self.write_deployment().await?;
            let bucket = tx.bucket(host).await?;
            let taken_up_to = bucket.owing(tx.now, made, per_second);
            tx.put_bucket(host, taken_up_to, bucket.not_before).await?;
            tx.commit().await
        })
        .await
    }

    /// Leaves a provider alone for as long as it said to this client. Once several of its clients rest of which none was
    /// told so before it served anybody, nobody asks it until the first of these may, but for a minute at most: that all
    /// are meant is a guess, and these may be one org's.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn rest_client(&self, host: &str, client: &str, after: Duration) -> Result<(), StoreError> {
        let row = row_of(host, client);
        self.retry(|| async {
            let mut tx = self.write_deployment().await?;
            let now = tx.now;
            let not_before = tx.bucket(&row).await?.not_before;
            let not_before = not_before.max(now + after.min(LONGEST_REST));
            tx.put_bucket(&row, now, not_before).await?;
            let mut ends: Vec<Time> = tx
                .resting(host)
                .await?
                .into_iter()
                .filter(|(_, rest)| rest.taken_up_to > Bucket::UNTOUCHED.taken_up_to)
                .map(|(_, rest)| rest.not_before)
                .collect();
            ends.sort_unstable();
            if let Some(&first) = ends.first().filter(|_| ends.len() >= SEVERAL) {
                let bucket = tx.bucket(host).await?;
                let shared = bucket.not_before.max(first.min(now + LONGEST_SHARED));
                tx.put_bucket(host, bucket.taken_up_to, shared).await?;
            }
            tx.commit().await
        })
        .await
    }

    /// The clients that rest at a provider now.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn resting_clients(&self, host: &str) -> Result<Resting, StoreError> {
        let resting = self.read_deployment().await?.resting(host).await?;
        Ok(Resting {
            host: host.to_owned(),
            rows: resting.into_iter().map(|(row, _)| row).collect(),
        })
    }

    /// A provider served somebody: what it told others until now was meant for each of these alone.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn provider_served(&self, host: &str) -> Result<(), StoreError> {
        self.retry(|| async {
            let mut tx = self.write_deployment().await?;
            let (from, to) = rows_of(host);
            tx.execute(
                "UPDATE providers SET taken_up_to = 0 WHERE host > $1 AND host < $2",
                params![from, to],
            )
            .await?;
            let bucket = tx.bucket(host).await?;
            tx.put_bucket(host, bucket.taken_up_to, Bucket::UNTOUCHED.not_before)
                .await?;
            tx.commit().await
        })
        .await
    }
}

/// The row of a client's rest at a provider. What it takes up to is when it was told so, and nothing once anybody was served.
fn row_of(host: &str, client: &str) -> String {
    format!("{host} {}", digest::base64url(&digest::sha256(client.as_bytes())))
}

/// The rows of all clients' rests at a provider lie between these. No host holds a blank.
fn rows_of(host: &str) -> (String, String) {
    (format!("{host} "), format!("{host}!"))
}

/// A provider's bucket. Tokens are made at a steady pace; those up to `taken_up_to` are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    taken_up_to: Time,
    not_before: Time,
}

impl Bucket {
    const UNTOUCHED: Self = Self {
        taken_up_to: Time::from_unix_micros(0),
        not_before: Time::from_unix_micros(0),
    };

    /// As far as it can be believed. Whoever asks for a rest was asked before: where a clock that was ahead wrote of turns, it
    /// wrote of rests, too.
    fn believed(self, now: Time) -> Self {
        if is_astray(self.taken_up_to, now, LONGEST_DEBT) || is_astray(self.not_before, now, LONGEST_REST) {
            Self::UNTOUCHED
        } else {
            self
        }
    }

    /// How many turns there are, and up to when tokens are taken then.
    fn take(self, now: Time, wanted: u64, per_second: u32) -> (u64, Time) {
        // What nobody took within a second is gone.
        let from = self.taken_up_to.max(now - SECOND);
        let made = now.since(from).as_micros() * u128::from(per_second) / SECOND.as_micros();
        let turns = wanted.min(u64::try_from(made).unwrap_or(u64::MAX));
        (turns, from + worth(turns, per_second))
    }

    /// Up to when tokens are taken once so many more requests are paid for.
    fn owing(self, now: Time, made: u64, per_second: u32) -> Time {
        let owed = self.taken_up_to.max(now - SECOND) + worth(made, per_second);
        owed.min(now + LONGEST_DEBT)
    }
}

/// How long it takes to make so many tokens.
fn worth(turns: u64, per_second: u32) -> Duration {
    Duration::from_micros(turns.saturating_mul(1_000_000) / u64::from(per_second.max(1)))
}

impl Tx {
    async fn bucket(&mut self, host: &str) -> Result<Bucket, StoreError> {
        let row = self
            .row(
                "SELECT taken_up_to, not_before FROM providers WHERE host = $1",
                params![host],
            )
            .await?;
        let Some(row) = row else {
            return Ok(Bucket::UNTOUCHED);
        };
        let mut fields = row.fields("providers");
        let bucket = Bucket {
            taken_up_to: fields.time()?,
            not_before: fields.time()?,
        };
        Ok(bucket.believed(self.now))
    }

    /// The rows of the clients that rest at a provider.
    async fn resting(&mut self, host: &str) -> Result<Vec<(String, Bucket)>, StoreError> {
        let (from, to) = rows_of(host);
        let rows = self
            .rows(
                "SELECT host, taken_up_to, not_before FROM providers WHERE host > $1 AND host < $2",
                params![from, to],
            )
            .await?;
        let mut resting = Vec::new();
        for row in rows {
            let mut fields = row.fields("providers");
            let row = fields.text()?;
            let rest = Bucket {
                taken_up_to: fields.time()?,
                not_before: fields.time()?,
            };
            let rest = rest.believed(self.now);
            if is_on(rest.not_before, self.now, LONGEST_REST) {
                resting.push((row, rest));
            }
        }
        Ok(resting)
    }

    async fn put_bucket(
        &mut self,
        host: &str,
        taken_up_to: Time,
        not_before: Time,
    ) -> Result<(), StoreError> {
        self.change(
            "providers",
            "INSERT INTO providers (host, taken_up_to, not_before) VALUES ($1, $2, $3)
             ON CONFLICT (host) DO UPDATE SET taken_up_to = $2, not_before = $3",
            params![host, taken_up_to, not_before],
        )
        .await
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// So many clients are not told to wait for something each of them did, where nobody is served meanwhile.
const SEVERAL: usize = 3;
/// For how long all of a provider's clients rest together.
const LONGEST_SHARED: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_unix_seconds(1_800_000_000);

    #[test]
    fn a_bucket_holds_what_a_second_makes_and_no_more() {
        let (turns, taken_up_to) = Bucket::UNTOUCHED.take(NOW, 100, 10);
        assert_eq!((turns, taken_up_to), (10, NOW));
    }

    #[test]
    fn an_empty_bucket_fills_at_its_pace() {
        let empty = Bucket {
            taken_up_to: NOW,
            ..Bucket::UNTOUCHED
        };
        assert_eq!(empty.take(NOW, 1, 10).0, 0);
        assert_eq!(empty.take(NOW + Duration::from_millis(99), 1, 10).0, 0);
        assert_eq!(empty.take(NOW + Duration::from_millis(100), 5, 10).0, 1);
        assert_eq!(empty.take(NOW + Duration::from_secs(60), 100, 10).0, 10);
    }

    #[test]
    fn over_a_minute_no_more_is_taken_than_the_pace_and_one_bucket() {
        let (mut bucket, mut taken) = (Bucket::UNTOUCHED, 0);
        for step in 0..6000 {
            let (turns, taken_up_to) = bucket.take(NOW + Duration::from_millis(10) * step, 3, 7);
            taken += turns;
            bucket.taken_up_to = taken_up_to;
        }
        assert!((7 * 60 - 1..=7 * 61).contains(&taken), "{taken}");
    }

    #[test]
    fn what_is_owed_is_paid_before_the_next_turn() {
        let owing = Bucket {
            taken_up_to: NOW + worth(5, 10),
            ..Bucket::UNTOUCHED
        };
        assert_eq!(owing.take(NOW + Duration::from_millis(500), 1, 10).0, 0);
        assert_eq!(owing.take(NOW + Duration::from_millis(600), 1, 10).0, 1);
    }

    #[test]
    fn nothing_is_owed_for_longer_than_is_believed() {
        let owing = Bucket {
            taken_up_to: Bucket::UNTOUCHED.owing(NOW, 1_000_000, 1),
            not_before: NOW + LONGEST_REST,
        };
        assert_eq!(owing.believed(NOW), owing);
        assert_eq!(owing.taken_up_to, NOW + LONGEST_DEBT);
    }

    #[test]
    fn a_bucket_that_was_used_ahead_is_full_and_nobody_rests() {
        let ahead = NOW + Duration::from_secs(3 * 3600);
        let used = Bucket {
            taken_up_to: ahead,
            not_before: ahead + Duration::from_secs(120),
        };
        assert_eq!(used.believed(NOW), Bucket::UNTOUCHED);
        assert_eq!(used.believed(ahead), used);
    }
}
