//! The last moment at which a request may begin: asked when its first byte is about to be handed to the connection.
//!
//! Promises: after that moment no byte of a request leaves, however long the name, the connection or a place in the
//! pool was waited for. One that has begun is finished.
//!
//! How: hyper asks a body whether it is at its end right before it writes the head, and flushes head and first part of
//! the body together. A body that came too late claims to have something to say, and then fails instead of saying it:
//! hyper drops the connection with the head unflushed. This holds for HTTP/1.1, the one version this room speaks: over
//! HTTP/2 heads leave without their bodies.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::domain::Clock;

/// Until when a request may begin, on the clock that counts suspension.
#[derive(Debug, Clone)]
pub struct BeginBy {
    clock: Arc<dyn Clock>,
    at: Duration,
}

impl BeginBy {
    /// Before `at`, counted as [`Clock::since_boot`] does.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, at: Duration) -> Self {
        Self { clock, at }
    }

    /// Whether it is too late.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        self.clock.since_boot() >= self.at
    }
}

/// What became of a request that waits for its connection; shared with its body.
#[derive(Debug, Clone, Default)]
pub(super) struct Beginning(Arc<AtomicU8>);

impl Beginning {
    /// Whether the request was stopped before anything of it left.
    fn came_too_late(&self) -> bool {
        self.0.load(Ordering::SeqCst) == TOO_LATE
    }

    /// Whether nothing of the request has left. From now on nothing will.
    pub(super) fn give_up(&self) -> bool {
        let decided = self
            .0
            .compare_exchange(WAITING, TOO_LATE, Ordering::SeqCst, Ordering::SeqCst);
        decided.map_or_else(|earlier| earlier == TOO_LATE, |_| true)
    }

    /// Decides once: the first to ask decides for all.
    fn is_allowed(&self, by: &BeginBy) -> bool {
        let answer = if by.has_passed() { TOO_LATE } else { BEGUN };
        let decided = self
            .0
            .compare_exchange(WAITING, answer, Ordering::SeqCst, Ordering::SeqCst);
        decided.map_or_else(|earlier| earlier == BEGUN, |_| answer == BEGUN)
    }
}

/// A body that lets its request begin in time or not at all.
#[derive(Debug)]
pub(super) struct TimedBody {
    rest: Bytes,
    by: BeginBy,
    beginning: Beginning,
}

impl TimedBody {
    pub(super) fn new(body: Option<Bytes>, by: BeginBy, beginning: &Beginning) -> Self {
        Self {
            rest: body.unwrap_or_default(),
            by,
            beginning: beginning.clone(),
        }
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = TooLate;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TooLate>>> {
        if !self.beginning.is_allowed(&self.by) {
            return Poll::Ready(Some(Err(TooLate)));
        }
        let rest = std::mem::take(&mut self.rest);
        Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))))
    }

    fn is_end_stream(&self) -> bool {
        self.beginning.is_allowed(&self.by) && self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
        if self.beginning.came_too_late() {
            // Never nothing: of nothing no failure is asked.
            SizeHint::with_exact(rest.max(1))
        } else {
            SizeHint::with_exact(rest)
        }
    }
}

/// The moment has passed; the request was not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request came too late to begin")]
pub(super) struct TooLate;

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const TOO_LATE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Time, clock::FixedClock};

    fn request(beginning: &Beginning) -> TimedBody {
        let clock = Arc::new(FixedClock::new(Time::from_unix_seconds(1_800_000_000)));
        let at = clock.since_boot() + Duration::from_secs(60);
        TimedBody::new(None, BeginBy::new(clock, at), beginning)
    }

    #[test]
    fn what_was_given_up_before_it_began_never_begins() {
        let beginning = Beginning::default();
        let body = request(&beginning);
        assert!(beginning.give_up() && beginning.give_up());
        assert!(!body.is_end_stream());
        assert_ne!(body.size_hint().exact(), Some(0));
    }

    #[test]
    fn what_has_begun_cannot_be_given_up() {
        let beginning = Beginning::default();
        let body = request(&beginning);
        assert!(body.is_end_stream());
        assert!(!beginning.give_up());
        assert!(body.is_end_stream());
    }
}
