//! How long anything waits at most, and what a moment means that lies farther ahead.
//!
//! Whoever has to wait finds in a row until when. A clock that was ahead wrote moments there that stay ahead after it was put
//! right: believed, they would have everybody wait for as long as it had been wrong. So each kind of wait has a longest
//! one, which nobody writes beyond.
//!
//! INVARIANT: what is farther ahead than the longest wait of its kind, and [`SLACK`], counts as past, in Rust and in SQL.

use std::time::Duration;

use crate::domain::Time;

/// Whether the wait until a moment is still on.
pub(super) fn is_on(until: Time, now: Time, longest: Duration) -> bool {
    until > now && !is_astray(until, now, longest)
}

/// Whether nobody whose clock was right can have written this moment.
pub(super) fn is_astray(until: Time, now: Time, longest: Duration) -> bool {
    until > farthest(now, longest)
}

/// The last moment that can have been written, seen from now.
pub(super) fn farthest(now: Time, longest: Duration) -> Time {
    now + longest + SLACK
}

/// The same as [`is_on`] in SQL, the other way round: an expression for the moment, the parameter that is now, and the one
/// that is the [`farthest`] moment of the kind.
macro_rules! is_over {
    ($until:literal, $now:literal, $farthest:literal) => {
        concat!("(", $until, " <= ", $now, " OR ", $until, " > ", $farthest, ")")
    };
}
pub(super) use is_over;

/// A transaction that began earlier may come later to a row, and finds there what was written with a later clock: believed no
/// further than is ever written, a lease of just now would be nobody's. The clock of a new primary may be behind, too.
const SLACK: Duration = Duration::from_secs(60);
/// No lease of a refresh is honoured for longer without being renewed.
pub const LONGEST_LEASE: Duration = Duration::from_secs(60);
/// No provider is left alone for longer after a failed refresh, whatever it asks for.
pub const LONGEST_COOLDOWN: Duration = Duration::from_secs(600);
/// An upstream revocation is tried again after this long at the latest, if its provider may be asked at all.
pub const LONGEST_BACKOFF: Duration = Duration::from_secs(3600);
/// A provider is left alone for a day at most when it is to end tokens, whatever it asks for.
pub(super) const LONGEST_REST: Duration = Duration::from_secs(24 * 3600);
/// What one grant's many tokens cost is owed for a minute at most.
pub(super) const LONGEST_DEBT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_on_until_its_moment_and_not_when_that_is_too_far_ahead() {
        let now = Time::from_unix_seconds(1_800_000_000);
        let longest = Duration::from_secs(60);
        let is_on = |until| is_on(until, now, longest);
        assert!(!is_on(now));
        assert!(is_on(now + Duration::from_micros(1)));
        assert!(
            is_on(now + longest + SLACK),
            "somebody began later and was faster"
        );
        assert!(!is_on(now + longest + SLACK + Duration::from_micros(1)));
    }
}
