//! How many refreshes are under way in this process: one per grant, some per provider, so many in all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use url::Url;

use crate::{
    domain::{GrantId, connector::Connector},
    store::{SecretKind, SecretRow},
};

use super::failed::Failed;

/// One refresh per grant at a time in this process; others wait for it and are given its result.
#[derive(Debug)]
pub struct Flights {
    under_way: UnderWay,
    places: Turns,
    calls: Turns,
    background: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    onlookers: Arc<Semaphore>,
}

type UnderWay = Arc<Mutex<HashMap<GrantId, Flight>>>;

/// What came of a flight.
pub(super) type Landed = Result<Obtained, Failed>;

/// A token that will do.
#[derive(Debug, Clone)]
pub struct Obtained {
    /// Sealed.
    pub row: SecretRow,
    /// Whether the provider gave it just now; else it was there already, and may be older than what made somebody ask.
    pub is_fresh: bool,
}

impl Default for Flights {
    fn default() -> Self {
        Self {
            under_way: Arc::default(),
            // Calls, as many that are about to call, as many that have called.
            places: Turns::new(3),
            calls: Turns::new(1),
            background: Arc::new(Semaphore::new(BACKGROUND)),
            queue: Arc::new(Semaphore::new(QUEUE)),
            onlookers: Arc::new(Semaphore::new(ONLOOKERS)),
        }
    }
}

/// Somebody else's flight.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    /// Which secret it is to bring.
    pub(super) kind: SecretKind,
    landed: watch::Receiver<Option<Landed>>,
}

impl Flight {
    /// Waits for it to land; `None` if it was lost.
    pub(super) async fn landed(mut self) -> Option<Landed> {
        let landed = self.landed.wait_for(Option::is_some).await.ok()?;
        landed.clone()
    }
}

/// Who flies. Dropping it lets the next one fly.
#[derive(Debug)]
pub(super) struct Pilot {
    under_way: UnderWay,
    grant: GrantId,
    landed: watch::Sender<Option<Landed>>,
}

impl Pilot {
    /// Tells everybody on board.
    pub(super) fn land(self, landed: Landed) {
        self.landed.send_replace(Some(landed));
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        locked(&self.under_way).remove(&self.grant);
    }
}

/// A place on the one flight of a grant.
#[derive(Debug)]
pub(super) enum Seat {
    /// There was none under way.
    Pilot(Pilot),
    /// There is one.
    Passenger(Flight),
}

/// So many at a time, and fewer of them about any one authorization server.
#[derive(Debug)]
struct Turns {
    shared: Arc<Semaphore>,
    /// No host may have more than a few of these, so that one that does not answer cannot take them all.
    reserve: Arc<Semaphore>,
    hosts: Mutex<HashMap<String, Host>>,
    per_host: usize,
    few: usize,
}

/// What one authorization server may have of the turns.
#[derive(Debug, Clone)]
struct Host {
    most: Arc<Semaphore>,
    few: Arc<Semaphore>,
}

/// A turn; dropping it lets the next one have it.
#[derive(Debug)]
#[must_use]
pub struct Turn {
    _host: Option<OwnedSemaphorePermit>,
    _few: Option<OwnedSemaphorePermit>,
    _one: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// Every limit below, so many times over.
    fn new(times: usize) -> Self {
        Self {
            shared: Arc::new(Semaphore::new(times * (CALLS - RESERVE))),
            reserve: Arc::new(Semaphore::new(times * RESERVE)),
            hosts: Mutex::default(),
            per_host: times * CALLS_PER_HOST,
            few: times * FEW,
        }
    }

    async fn next(&self, name: String) -> Turn {
        let host = {
            let mut hosts = locked(&self.hosts);
            let host = hosts.entry(name).or_insert_with(|| Host {
                most: Arc::new(Semaphore::new(self.per_host)),
                few: Arc::new(Semaphore::new(self.few)),
            });
            host.clone()
        };
        // The host first: whoever waits for a slow one must not keep others from theirs. None is ever closed, which is the
        // only way to get nothing.
        let most = host.most.acquire_owned().await.ok();
        let reserved = async {
            let few = host.few.acquire_owned().await.ok();
            (few, Arc::clone(&self.reserve).acquire_owned().await.ok())
        };
        let (few, one) = tokio::select! {
            biased;
            one = Arc::clone(&self.shared).acquire_owned() => (None, one.ok()),
            reserved = reserved => reserved,
        };
        Turn {
            _host: most,
            _few: few,
            _one: one,
        }
    }
}

impl Flights {
    /// Takes a seat on the grant's flight, the pilot's if nobody has it.
    pub(super) fn board(&self, grant: GrantId, kind: &SecretKind) -> Seat {
        let mut under_way = locked(&self.under_way);
        if let Some(flight) = under_way.get(&grant) {
            return Seat::Passenger(flight.clone());
        }
        let (sender, landed) = watch::channel(None);
        let kind = kind.clone();
        under_way.insert(grant, Flight { kind, landed });
        Seat::Pilot(Pilot {
            under_way: Arc::clone(&self.under_way),
            grant,
            landed: sender,
        })
    }

    /// Whether somebody here refreshes the grant or waits to.
    pub(super) fn is_under_way(&self, grant: GrantId) -> bool {
        locked(&self.under_way).contains_key(&grant)
    }

    /// Waits for a place among the refreshes that are being prepared, asked for or kept. There are more of these than calls:
    /// a call that ends finds another one ready, and what is answered does not pile up. Public for a test that takes all.
    pub async fn place(&self, connector: &Connector) -> Turn {
        self.places.next(host(connector)).await
    }

    /// Waits until it may look without a place: those that have one are to find the database free.
    pub(super) async fn onlooker(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.onlookers).acquire_owned().await.ok()
    }

    /// Waits for a turn to call the connector's authorization server.
    pub(super) async fn call(&self, connector: &Connector) -> Turn {
        self.calls.next(host(connector)).await
    }

    /// Takes room for one more refresh that nobody waits for, if there is any: a provider that is silent for hours must not
    /// let them pile up.
    pub(super) fn take_room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.queue).try_acquire_owned().ok()
    }

    /// Waits for a place among the refreshes that nobody waits for: they leave room for those that somebody does.
    pub(super) async fn in_background(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.background).acquire_owned().await.ok()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whom a refresh calls. There are as many as the catalogue names.
fn host(connector: &Connector) -> String {
    let server = &connector.server;
    let url = server.refresh_url.as_ref().unwrap_or(&server.token_url);
    Url::parse(url).map_or_else(|_| url.clone(), |url| url.authority().to_owned())
}

/// Calls to providers at a time.
const CALLS: usize = 64;
/// Calls to one provider at a time: one that does not answer leaves some to the others.
const CALLS_PER_HOST: usize = 56;
/// Of all calls, those of which no provider has more than [`FEW`]: up to three that do not answer leave some to the others.
const RESERVE: usize = 8;
/// Calls to one provider that may be of the reserve.
const FEW: usize = 2;
/// How many may look at a time without a place.
const ONLOOKERS: usize = 16;
/// How many refreshes at a time may be for nobody who waits.
const BACKGROUND: usize = 32;
/// How many of these there are at most, with those that wait for their place.
const QUEUE: usize = 8 * BACKGROUND;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// All that one gets without anybody giving anything back.
    async fn all_for(turns: &Turns, name: &str) -> Vec<Turn> {
        let mut got = Vec::new();
        let next = || tokio::time::timeout(Duration::from_millis(20), turns.next(name.to_owned()));
        while let Ok(turn) = next().await {
            got.push(turn);
        }
        got
    }

    #[tokio::test]
    async fn providers_that_do_not_answer_leave_some_turns_to_the_others() {
        let turns = Arc::new(Turns::new(1));
        let one = all_for(&turns, "one").await;
        assert_eq!(one.len(), CALLS_PER_HOST);
        // No more than two are left to another that does not answer either, and as many to the next.
        let mut others = Vec::new();
        for name in ["two", "three", "four", "five"] {
            others.push(all_for(&turns, name).await);
        }
        assert!(others.iter().all(|got| got.len() == FEW));
        assert_eq!(one.len() + 4 * FEW, CALLS, "and that is all");
        assert!(all_for(&turns, "six").await.is_empty());
        let waits = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.next("two".to_owned()).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        others.remove(0);
        drop(waits.await.unwrap());
        drop(one);
        let two = all_for(&turns, "two").await;
        assert_eq!(two.len(), CALLS_PER_HOST, "one at rest costs the others nothing");
    }

    #[test]
    fn refreshes_that_nobody_waits_for_do_not_pile_up() {
        let flights = Flights::default();
        let mut taken: Vec<_> = std::iter::from_fn(|| flights.take_room()).collect();
        assert_eq!(taken.len(), QUEUE);
        taken.pop();
        assert!(flights.take_room().is_some());
    }
}
