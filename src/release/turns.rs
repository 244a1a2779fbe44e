//! Whose turn it is to be judged: deciding, signing and verifying are one piece of work that takes a processor longer than
//! everything else a request needs.
//!
//! Without turns, whoever is let in stands for it in the runtime's own queue, which knows no orgs: a refusal of microseconds
//! waits there for all of them, and so does another org's only call. Here few are ready to run at a time, each org in turn.
//! Nothing here does I/O.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::domain::OrgId;

use super::queues::Queues;

/// Everybody who waits to be judged. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Mutex<Line>>);

#[derive(Debug)]
struct Line {
    /// How many more may have a turn.
    free: usize,
    waiting: Queues<oneshot::Sender<Turn>>,
}

/// A turn; dropping it makes it the next one's. Nothing may be waited for while it is held.
#[derive(Debug)]
#[must_use]
pub struct Turn(Option<Arc<Mutex<Line>>>);

impl Turns {
    /// As many at a time as keep so many processors busy.
    pub(super) fn new(processors: usize) -> Self {
        Self::of(processors.saturating_mul(PER_PROCESSOR))
    }

    fn of(free: usize) -> Self {
        Self(Arc::new(Mutex::new(Line {
            free,
            waiting: Queues::new(usize::MAX),
        })))
    }

    /// Waits for the org's turn.
    pub(super) async fn next(&self, org: OrgId) -> Turn {
        let given = {
            let mut line = locked(&self.0);
            if line.free > 0 {
                line.free -= 1;
                return Turn(Some(Arc::clone(&self.0)));
            }
            let (give, given) = oneshot::channel();
            line.waiting.join(org, give);
            given
        };
        // The line lives as long as `self`: it would have to lose a turn. Order is all that is lost then.
        given.await.unwrap_or(Turn(None))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(line) = self.0.take() else { return };
        while let Some(next) = pass_on(&line) {
            match next.send(Self(Some(Arc::clone(&line)))) {
                Ok(()) => return,
                // Whoever is gone gives nothing back: the turn is still here to be passed on.
                Err(mut turn) => turn.0 = None,
            }
        }
    }
}

/// Who is next; with nobody waiting, the turn is free again.
fn pass_on(line: &Mutex<Line>) -> Option<oneshot::Sender<Turn>> {
    let mut line = locked(line);
    let next = line.waiting.take(1).pop();
    if next.is_none() {
        line.free += 1;
    }
    next
}

fn locked(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One that is judged and one that is next: no processor waits for whoever is woken.
const PER_PROCESSOR: usize = 2;

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    fn org(number: u8) -> OrgId {
        OrgId::from_bytes([number; 16])
    }

    type Waits<'a> = Pin<Box<dyn Future<Output = Turn> + 'a>>;

    /// Comes, and has the turn if there is one.
    fn come(turns: &Turns, number: u8) -> (Waits<'_>, Option<Turn>) {
        let mut waits: Waits<'_> = Box::pin(turns.next(org(number)));
        let turn = look(&mut waits);
        (waits, turn)
    }

    fn look(waits: &mut Waits<'_>) -> Option<Turn> {
        match waits.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn there_are_so_many_turns_and_whoever_comes_first_waits_for_nobody() {
        let turns = Turns::of(2);
        let (_, first) = come(&turns, 1);
        let (_, second) = come(&turns, 1);
        let (mut third, none) = come(&turns, 1);
        assert!(first.is_some() && second.is_some() && none.is_none());
        drop(first);
        assert!(look(&mut third).is_some());
    }

    #[test]
    fn another_org_is_next_however_many_of_the_first_wait() {
        let turns = Turns::of(1);
        let (_, held) = come(&turns, 1);
        let mut flood: Vec<_> = (0..100).map(|_| come(&turns, 1).0).collect();
        let (mut other, none) = come(&turns, 2);
        assert!(none.is_none());
        drop(held);
        let turn = look(&mut flood[0]);
        assert!(turn.is_some(), "it came first");
        assert!(look(&mut other).is_none());
        drop(turn);
        assert!(look(&mut other).is_some());
        assert!(look(&mut flood[1]).is_some(), "and then the first org's again");
    }

    #[test]
    fn a_turn_of_somebody_who_is_gone_goes_to_the_next() {
        let turns = Turns::of(1);
        let (_, held) = come(&turns, 1);
        let (gone, _) = come(&turns, 1);
        let (told, _) = come(&turns, 1);
        let (mut last, _) = come(&turns, 1);
        drop(gone);
        drop(held);
        // Given its turn, and gone before it could take it.
        drop(told);
        let turn = look(&mut last);
        assert!(turn.is_some(), "nobody else is there");
        drop((turn, last));
        assert_eq!(locked(&turns.0).free, 1);
        assert_eq!(Arc::strong_count(&turns.0), 1, "nothing is left over");
    }
}
