//! Work that the end of the process must not cut: what a provider was asked that it answers once. A rotated refresh token,
//! or the tokens of a code, that reach nobody are lost (I3), or live on unknown.

use std::time::Duration;

use tokio::sync::watch;

/// How much of such work is under way in this process, and whether more may begin.
#[derive(Debug)]
pub struct Uncut {
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    is_stopping: bool,
    is_closed: bool,
    under_way: usize,
}

/// A piece of work under way. Dropping it says that it is done.
#[derive(Debug)]
#[must_use]
pub struct Held {
    state: watch::Sender<State>,
}

impl Default for Uncut {
    fn default() -> Self {
        let (state, _) = watch::channel(State::default());
        Self { state }
    }
}

impl Uncut {
    /// Begins a piece of work; `None` when the process waits for the last of it.
    pub fn begin(&self) -> Option<Held> {
        let begun = self.state.send_if_modified(|state| {
            if !state.is_closed {
                state.under_way += 1;
            }
            !state.is_closed
        });
        begun.then(|| Held {
            state: self.state.clone(),
        })
    }

    /// A stop has begun. Requests that are still to be answered may begin such work; nobody else should.
    pub fn stop(&self) {
        self.state.send_modify(|state| state.is_stopping = true);
    }

    /// Whether a stop has begun: what nobody waits for is left to another replica, or to the next start.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.state.borrow().is_stopping
    }

    /// Lets no more begin and waits for what is under way, 75 s at most.
    pub async fn end(&self) {
        self.state.send_modify(|state| state.is_closed = true);
        let mut state = self.state.subscribe();
        let under_way = state.borrow().under_way;
        if under_way == 0 {
            return;
        }
        tracing::info!(
            under_way,
            "stopping: waiting for {under_way} answers of providers to be kept"
        );
        let none = state.wait_for(|state| state.under_way == 0);
        if tokio::time::timeout(LONGEST, none).await.is_err() {
            let left = self.state.borrow().under_way;
            tracing::error!(
                left,
                "stopping: {left} answers of providers were not waited for any longer"
            );
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.state
            .send_modify(|state| state.under_way = state.under_way.saturating_sub(1));
    }
}

/// No such work takes longer: a provider's answer is waited for at most 30 s, what it proves or names 10 s; then it has
/// [`KEPT_WITHIN`] to be kept, and goes beside the database or, of a connect, is looked for once more (3 s) and ended within
/// [`ENDED_WITHIN`]. Whoever stops the process by force has to allow this much on top of the draining.
const LONGEST: Duration = Duration::from_secs(75);
/// How long the database may take to keep what a provider answered.
pub const KEPT_WITHIN: Duration = Duration::from_secs(15);
/// How long a provider may take to say whose a token is, or that a narrowing narrowed it.
pub const PROVED_WITHIN: Duration = Duration::from_secs(10);
/// How long a provider may take to end tokens that could be kept nowhere.
pub const ENDED_WITHIN: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn the_end_waits_for_what_is_under_way_and_lets_nothing_more_begin() {
        let uncut = Arc::new(Uncut::default());
        let held = uncut.begin().unwrap();
        uncut.stop();
        let asked_for = uncut.begin();
        assert!(
            uncut.is_stopping() && asked_for.is_some(),
            "a request may need it"
        );
        let end = tokio::spawn({
            let uncut = Arc::clone(&uncut);
            async move { uncut.end().await }
        });
        tokio::task::yield_now().await;
        drop(asked_for);
        tokio::task::yield_now().await;
        assert!(uncut.begin().is_none());
        assert!(!end.is_finished(), "one is left");
        drop(held);
        end.await.unwrap();
    }
}
