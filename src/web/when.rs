//! Moments in words. The server does not know the reader's clock or zone, so every moment names UTC.

use std::fmt;

use askama::filters::HtmlSafe;

use crate::domain::Time;

/// A moment and the moment it is looked at from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    at: Time,
    now: Time,
}

impl When {
    /// `at`, seen from `now`.
    #[must_use]
    pub fn new(at: Time, now: Time) -> Self {
        Self { at, now }
    }

    /// `20 Nov 2026, 09:14 UTC`, as a `<time>`.
    #[must_use]
    pub fn absolute(self) -> TimeTag {
        TimeTag {
            at: self.at,
            words: self.date(),
            title: None,
        }
    }

    /// `20 Nov 2026, 09:14:07 UTC`, as a `<time>`, for records.
    #[must_use]
    pub fn exact(self) -> TimeTag {
        TimeTag {
            at: self.at,
            words: written(self.at, "%-d %b %Y, %H:%M:%S UTC"),
            title: None,
        }
    }

    /// `4 minutes ago`, `in 9 minutes`, or the date when it is a month away, as a `<time>`.
    #[must_use]
    pub fn relative(self) -> TimeTag {
        TimeTag {
            at: self.at,
            words: self.distance(),
            title: Some(self.date()),
        }
    }

    /// How long until then: `9 minutes`, `less than a minute`.
    #[must_use]
    pub fn left(self) -> String {
        spell(self.at.since(self.now).as_secs()).unwrap_or_else(|| "less than a minute".to_owned())
    }

    fn date(self) -> String {
        written(self.at, "%-d %b %Y, %H:%M UTC")
    }

    fn distance(self) -> String {
        let (back, ahead) = (
            self.now.since(self.at).as_secs(),
            self.at.since(self.now).as_secs(),
        );
        if back.max(ahead) > 30 * DAY {
            return written(self.at, "%-d %b %Y");
        }
        match (spell(back), spell(ahead)) {
            (Some(words), _) => format!("{words} ago"),
            (_, Some(words)) => format!("in {words}"),
            _ if ahead > 0 => "in less than a minute".to_owned(),
            _ => "just now".to_owned(),
        }
    }
}

/// A `<time>` element, ready for a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeTag {
    at: Time,
    words: String,
    title: Option<String>,
}

impl fmt::Display for TimeTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<time datetime=\"{}\"", self.at)?;
        if let Some(title) = &self.title {
            write!(f, " title=\"{title}\"")?;
        }
        write!(f, ">{}</time>", self.words)
    }
}

// Digits, letters of our own formats and nothing else.
impl HtmlSafe for TimeTag {}

fn written(at: Time, format: &str) -> String {
    chrono::DateTime::from_timestamp_micros(at.unix_micros())
        .map_or_else(|| at.to_string(), |time| time.format(format).to_string())
}

fn spell(seconds: u64) -> Option<String> {
    let (count, unit) = match seconds {
        0..MINUTE => return None,
        MINUTE..HOUR => (seconds / MINUTE, "minute"),
        HOUR..DAY => (seconds / HOUR, "hour"),
        _ => (seconds / DAY, "day"),
    };
    Some(format!("{count} {unit}{}", if count == 1 { "" } else { "s" }))
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_166_040; // 2026-11-20T09:14:00Z

    fn when(seconds: i64) -> When {
        When::new(
            Time::from_unix_seconds(NOW + seconds),
            Time::from_unix_seconds(NOW),
        )
    }

    #[test]
    fn moments_are_written_with_their_zone() {
        assert_eq!(
            when(0).absolute().to_string(),
            "<time datetime=\"2026-11-20T09:14:00.000Z\">20 Nov 2026, 09:14 UTC</time>"
        );
    }

    #[test]
    fn distances_are_spelled_in_both_directions() {
        let words = |seconds| when(seconds).distance();
        assert_eq!(words(0), "just now");
        assert_eq!(words(-59), "just now");
        assert_eq!(words(-60), "1 minute ago");
        assert_eq!(words(-7_200), "2 hours ago");
        assert_eq!(words(599), "in 9 minutes");
        assert_eq!(words(30), "in less than a minute");
        assert_eq!(words(-40 * 86_400), "11 Oct 2026");
    }

    #[test]
    fn time_that_is_up_is_less_than_a_minute() {
        assert_eq!(when(-5).left(), "less than a minute");
        assert_eq!(when(600).left(), "10 minutes");
    }
}
