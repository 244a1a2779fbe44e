//! Time and randomness as values that are handed in: nothing in this program asks the system for them on its own.

use std::{
    fmt,
    ops::{Add, Sub},
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A moment: microseconds since the Unix epoch (UTC). JSON shows RFC 3339 with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

impl Time {
    /// From microseconds since the Unix epoch.
    #[must_use]
    pub const fn from_unix_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From whole seconds since the Unix epoch; saturates.
    #[must_use]
    pub const fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// Microseconds since the Unix epoch, the form of storage.
    #[must_use]
    pub const fn unix_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn unix_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Whole seconds since the Unix epoch, the form of JWT `NumericDate` (RFC 7519 §2).
    #[must_use]
    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// How long after `earlier` this is; zero when it is not later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Parses RFC 3339.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        chrono::DateTime::parse_from_rfc3339(text)
            .ok()
            .map(|time| Self(time.timestamp_micros()))
    }

    /// Parses the date of an HTTP header (RFC 9110 §5.6.7), in the one form that may be sent.
    #[must_use]
    pub fn parse_http_date(text: &str) -> Option<Self> {
        chrono::NaiveDateTime::parse_from_str(text, "%a, %d %b %Y %H:%M:%S GMT")
            .ok()
            .map(|time| Self(time.and_utc().timestamp_micros()))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)),
        )
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)),
        )
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match chrono::DateTime::from_timestamp_micros(self.0) {
            Some(time) => f.write_str(&time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)),
            None => write!(f, "{}us", self.0),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        Self::parse_rfc3339(&text).ok_or_else(|| de::Error::custom("not an RFC 3339 time"))
    }
}

/// The only source of time.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Wall-clock time.
    fn now(&self) -> Time;

    /// Time since some fixed moment, counting suspension; never goes backwards (`CLOCK_BOOTTIME`).
    fn since_boot(&self) -> Duration;
}

/// A clock that moves only when told to, for tests and the virtual week.
#[derive(Debug)]
pub struct FixedClock {
    now: AtomicI64,
    /// How far the wall clock was put back since: time since the boot knows nothing of that.
    put_back: AtomicI64,
}

impl FixedClock {
    /// A clock standing at `now`.
    #[must_use]
    pub fn new(now: Time) -> Self {
        Self {
            now: AtomicI64::new(now.unix_micros()),
            put_back: AtomicI64::new(0),
        }
    }

    /// Moves the hand forward.
    pub fn advance(&self, by: Duration) {
        self.now.fetch_add(micros(by), Ordering::SeqCst);
    }

    /// Puts the wall clock back, as an operator does with one that went ahead.
    pub fn put_back(&self, by: Duration) {
        self.put_back.fetch_add(micros(by), Ordering::SeqCst);
        self.now.fetch_sub(micros(by), Ordering::SeqCst);
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl Clock for FixedClock {
    fn now(&self) -> Time {
        Time(self.now.load(Ordering::SeqCst))
    }

    fn since_boot(&self) -> Duration {
        let micros = self.now.load(Ordering::SeqCst) + self.put_back.load(Ordering::SeqCst);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

/// The generator could not deliver; nothing may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the random generator is unavailable")]
pub struct RandomnessUnavailable;

/// The only source of randomness: keys, nonces, ids, one-time secrets.
pub trait Randomness: fmt::Debug + Send + Sync {
    /// Fills `bytes` with unpredictable bytes.
    ///
    /// # Errors
    /// When the operating system's generator fails; nothing of `bytes` may be used then.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomnessUnavailable>;
}

/// A pause of at most `longest`, as long as chance has it: those who wait for the same do not come back together.
///
/// # Errors
/// When there is no randomness.
pub fn random_pause(longest: Duration, random: &dyn Randomness) -> Result<Duration, RandomnessUnavailable> {
    let mut dice = [0; 2];
    random.fill(&mut dice)?;
    Ok(longest.mul_f64(f64::from(u16::from_be_bytes(dice)) / f64::from(u16::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_a_header_is_read_in_its_one_form() {
        // RFC 9110 §5.6.7's own example.
        let time = Time::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(time, Some(Time::from_unix_seconds(784_111_777)));
        for other in [
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06 Nov 1994 08:49:37 +0100",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "",
        ] {
            assert_eq!(Time::parse_http_date(other), None, "{other}");
        }
    }
}
