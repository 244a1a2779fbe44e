//! How many refreshes are under way in this process: one per grant, some per provider, so many in all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use crate::domain::{GrantId, connector::Connector};

/// One refresh per grant at a time in this process; others wait for it and then find its result.
#[derive(Debug)]
pub struct Flights {
    grants: Mutex<Grants>,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
    calls: Arc<Semaphore>,
    background: Arc<Semaphore>,
}

#[derive(Debug)]
struct Grants {
    flights: HashMap<GrantId, Arc<tokio::sync::Mutex<()>>>,
    /// When there are so many, those that have landed are forgotten.
    full: usize,
}

impl Default for Flights {
    fn default() -> Self {
        Self {
            grants: Mutex::new(Grants {
                flights: HashMap::new(),
                full: FEW,
            }),
            hosts: Mutex::default(),
            calls: Arc::new(Semaphore::new(CALLS)),
            background: Arc::new(Semaphore::new(BACKGROUND)),
        }
    }
}

/// A turn to call a provider; dropping it lets the next one call.
#[derive(Debug)]
pub(super) struct Turn {
    _host: Option<OwnedSemaphorePermit>,
    _call: Option<OwnedSemaphorePermit>,
}

impl Flights {
    pub(super) fn of(&self, grant: GrantId) -> Arc<tokio::sync::Mutex<()>> {
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        if grants.flights.len() >= grants.full {
            // Nobody waits on a flight that only the map still holds. Looking at each costs more than a flight when many
            // are under way, so it is done once per doubling.
            grants.flights.retain(|_, flight| Arc::strong_count(flight) > 1);
            grants.full = grants.flights.len().saturating_mul(2).max(FEW);
        }
        Arc::clone(grants.flights.entry(grant).or_default())
    }

    /// Waits for a turn to call the connector's authorization server.
    pub(super) async fn turn(&self, connector: &Connector) -> Turn {
        let host = {
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            let host = host(connector);
            Arc::clone(
                hosts
                    .entry(host)
                    .or_insert_with(|| Arc::new(Semaphore::new(CALLS_PER_HOST))),
            )
        };
        // The host first: whoever waits for a slow one must not keep others from calling theirs. Neither is ever closed,
        // which is the only way to get none.
        Turn {
            _host: host.acquire_owned().await.ok(),
            _call: Arc::clone(&self.calls).acquire_owned().await.ok(),
        }
    }

    /// Waits for a place among the refreshes that nobody waits for: they leave room for those that somebody does.
    pub(super) async fn in_background(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.background).acquire_owned().await.ok()
    }
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
/// Of these, how many may be for nobody who waits.
const BACKGROUND: usize = 32;
/// So many flights are not worth looking through.
const FEW: usize = 256;
