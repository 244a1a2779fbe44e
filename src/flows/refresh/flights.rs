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
            places: Turns::new(PLACES, PLACES_PER_HOST),
            calls: Turns::new(CALLS, CALLS_PER_HOST),
            background: Arc::new(Semaphore::new(BACKGROUND)),
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
    all: Arc<Semaphore>,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
    per_host: usize,
}

/// A turn; dropping it lets the next one have it.
#[derive(Debug)]
#[must_use]
pub struct Turn {
    _host: Option<OwnedSemaphorePermit>,
    _one: Option<OwnedSemaphorePermit>,
}

impl Turns {
    fn new(all: usize, per_host: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            hosts: Mutex::default(),
            per_host,
        }
    }

    async fn next(&self, connector: &Connector) -> Turn {
        let host = {
            let mut hosts = locked(&self.hosts);
            let host = hosts
                .entry(host(connector))
                .or_insert_with(|| Arc::new(Semaphore::new(self.per_host)));
            Arc::clone(host)
        };
        // The host first: whoever waits for a slow one must not keep others from theirs. Neither is ever closed, which is
        // the only way to get none.
        Turn {
            _host: host.acquire_owned().await.ok(),
            _one: Arc::clone(&self.all).acquire_owned().await.ok(),
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
        self.places.next(connector).await
    }

    /// Waits until it may look without a place: those that have one are to find the database free.
    pub(super) async fn onlooker(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.onlookers).acquire_owned().await.ok()
    }

    /// Waits for a turn to call the connector's authorization server.
    pub(super) async fn call(&self, connector: &Connector) -> Turn {
        self.calls.next(connector).await
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
/// Refreshes that are more than wanted, at a time: calls, as many that are about to call, as many that have called.
const PLACES: usize = 3 * CALLS;
/// The same of one provider.
const PLACES_PER_HOST: usize = 3 * CALLS_PER_HOST;
/// How many may look at a time without a place.
const ONLOOKERS: usize = 16;
/// How many refreshes at a time may be for nobody who waits.
const BACKGROUND: usize = 32;
