//! Where servers of each kind really were killed, counted over the tests of a run: a step that is never reached against one
//! kind is no step that it survived.

use std::{collections::HashSet, sync::Mutex};

use postern::failpoints::Failpoint;

use crate::{provider::Rotation, server::Server};

use super::{DOUBT, EACH, at};

/// What becomes of the old refresh token, or of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is spent.
    Strict,
    /// It is taken for 60 s more.
    Grace,
    /// The answer does not arrive, whichever of these it is.
    Lossy,
}

#[derive(Debug)]
struct Tally {
    killed: Vec<(Kind, Failpoint)>,
    /// How many tests have killed at all their places.
    done: usize,
}

static TALLY: Mutex<Tally> = Mutex::new(Tally {
    killed: Vec::new(),
    done: 0,
});

tokio::task_local! {
    /// Which kind the servers of this task are of.
    static AGAINST: Kind;
}

/// A test that is counted. One that fails never ends its count, so that nothing more is asked of a run that has failed.
#[derive(Debug)]
pub(super) struct Count(());

impl Count {
    /// To be written just so: [`counting`] looks for it.
    pub(super) fn begin() -> Self {
        Self(())
    }

    /// The same as [`at`].
    pub(super) async fn at<Check: Future<Output = ()> + Send + 'static>(
        &self,
        rotation: Rotation,
        places: &'static [Failpoint],
        each: usize,
        check: impl Fn(Server, &'static [Failpoint]) -> Check,
    ) {
        let kind = match rotation {
            Rotation::Strict => Kind::Strict,
            Rotation::Grace => Kind::Grace,
        };
        against(kind, rotation, places, each, check).await;
    }

    /// The same where the provider's answer is lost.
    pub(super) async fn at_lossy<Check: Future<Output = ()> + Send + 'static>(
        &self,
        rotation: Rotation,
        places: &'static [Failpoint],
        each: usize,
        check: impl Fn(Server, &'static [Failpoint]) -> Check,
    ) {
        against(Kind::Lossy, rotation, places, each, check).await;
    }
}

/// The last test of a run of all of them asks whether anything was left out.
impl Drop for Count {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let killed = {
            let mut tally = TALLY.lock().unwrap();
            tally.done += 1;
            if tally.done < counting() {
                return;
            }
            tally.killed.clone()
        };
        let steps: HashSet<_> = EACH.concat().into_iter().collect();
        let lossy = &steps | &HashSet::from(DOUBT);
        for (kind, steps) in [
            (Kind::Strict, &steps),
            (Kind::Grace, &steps),
            (Kind::Lossy, &lossy),
        ] {
            let at = killed.iter().filter(|(against, _)| *against == kind);
            let at: HashSet<_> = at.map(|(_, place)| *place).collect();
            println!("against {kind:?}: killed at {} steps", at.len());
            let left = steps - &at;
            assert!(left.is_empty(), "against {kind:?} never killed at {left:?}");
            assert!(at.len() >= 40, "against {kind:?} killed at {} steps", at.len());
        }
    }
}

async fn against<Check: Future<Output = ()> + Send + 'static>(
    kind: Kind,
    rotation: Rotation,
    places: &'static [Failpoint],
    each: usize,
    check: impl Fn(Server, &'static [Failpoint]) -> Check,
) {
    at(rotation, places, each, |server, places| {
        AGAINST.scope(kind, check(server, places))
    })
    .await;
}

/// A process has died at this place. It counts if a test that is counted has killed it.
pub(super) fn died_at(place: Failpoint) {
    if let Ok(kind) = AGAINST.try_with(|kind| *kind) {
        TALLY.lock().unwrap().killed.push((kind, place));
    }
}

/// How many tests are counted. Where some of them were left out the others are not asked.
fn counting() -> usize {
    let tests = [include_str!("../rotation.rs"), include_str!("spooled.rs")];
    tests
        .iter()
        .map(|text| text.matches("Count::begin()").count())
        .sum()
}
