//! A race of vends against a revocation (I2): who calls, and what they see of it.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use postern::{
    domain::{EntryId, GrantId},
    flows::{
        Deps, Refusal,
        actions::{Ask, Caller},
        vend::{self, Vended},
    },
    store::Selector,
};
use tokio::task::JoinSet;

use super::{
    harness::{World, token},
    revoke::is_told,
};

/// A race under way.
pub struct Race {
    seen: Arc<Seen>,
    callers: JoinSet<()>,
}

/// What the callers see of it.
struct Seen {
    selector: Selector,
    /// The entries that callers were told of with what was released to them.
    released: Mutex<HashSet<EntryId>>,
    /// The revocation was answered.
    answered: AtomicBool,
}

impl Race {
    /// Lets everybody call, on one replica after the other, every fourth for a token.
    pub fn start(world: &World, grant: GrantId, replicas: &[Arc<Deps>], selector: &Selector) -> Self {
        let seen = Arc::new(Seen {
            selector: selector.clone(),
            released: Mutex::default(),
            answered: AtomicBool::new(false),
        });
        let mut callers = JoinSet::new();
        for (caller, deps) in (0..CALLERS).zip(replicas.iter().cycle()) {
            let (deps, agent, ask) = (Arc::clone(deps), world.agent, world.read(grant));
            let ask = if caller % 4 == 3 { token(ask) } else { ask };
            callers.spawn(Arc::clone(&seen).call(deps, agent, ask));
        }
        Self { seen, callers }
    }

    /// Waits until so much was released: the revocation shall come into the middle.
    pub async fn until_released(&mut self, count: usize) {
        while self.released() < count {
            if let Some(ended) = self.callers.try_join_next() {
                ended.unwrap();
                panic!("{:?}: refused before the revocation", self.seen.selector);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub fn released(&self) -> usize {
        self.seen.released.lock().unwrap().len()
    }

    /// How many releases were heard of that have none of these entries.
    pub fn without(&self, has: impl Fn(&EntryId) -> bool) -> usize {
        let released = self.seen.released.lock().unwrap();
        released.iter().filter(|entry| !has(entry)).count()
    }

    /// The revocation was answered: who asks from now on is given nothing.
    pub fn answered(&self) {
        self.seen.answered.store(true, Ordering::SeqCst);
    }

    /// Waits until everybody was told.
    pub async fn all_told(&mut self) {
        while let Some(done) = self.callers.join_next().await {
            done.unwrap();
        }
    }
}

impl Seen {
    /// Calls until it is told that what it calls for has ended. Nobody stops before, so that the revocation always comes
    /// into the middle.
    async fn call(self: Arc<Self>, deps: Arc<Deps>, agent: Caller, ask: Ask) {
        let (began, selector) = (Instant::now(), &self.selector);
        loop {
            let late = self.answered.load(Ordering::SeqCst);
            match vend::vend(&deps, agent, ask.clone()).await {
                Ok(Vended::Executed { entry, .. } | Vended::Token { entry, .. }) => {
                    assert!(
                        !late,
                        "{selector:?}: asked after the revocation was answered, and released"
                    );
                    let is_new = self.released.lock().unwrap().insert(entry);
                    assert!(is_new, "{entry} stands for two releases");
                }
                Err(refusal) if is_told(selector, &refusal) => return,
                // Too much waits, or the facts never settled: load, and no answer to the question.
                Err(Refusal::StoreUnavailable(None) | Refusal::RateLimited(_) | Refusal::Unsettled) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(other) => panic!("{selector:?}: {other:?}"),
            }
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{selector:?}: never told"
            );
        }
    }
}

/// Of a race, on all replicas together: as many as one agent may have inside at a time.
const CALLERS: usize = 64;
