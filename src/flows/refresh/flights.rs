//! How many refreshes are under way in this process: one per grant, some per provider, so many in all.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
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
    /// For what is lost when it waits: the provider takes the old refresh token for a while only (I3).
    urgent: Turns,
    background: Turns,
    background_calls: Arc<Semaphore>,
    rooms: Turns,
    onlookers: Arc<Semaphore>,
    /// Since when narrowings are known to come to nothing, by the time since the boot.
    in_vain: Mutex<HashMap<Narrowing, Duration>>,
    /// Since when fresh tokens of a connection are known to be refused by an address that no file describes.
    refused: Mutex<HashMap<Connection, Duration>>,
}

/// A narrowed token of one connection: who connects again has another one.
type Narrowing = (GrantId, i64, SecretKind);

/// A grant as its person connected it.
type Connection = (GrantId, i64);

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
            places: Turns::new(3 * CALLS, 3 * FEW),
            calls: Turns::new(CALLS, FEW),
            urgent: Turns::new(CALLS, FEW),
            background: Turns::new(BACKGROUND, FEW),
            background_calls: Arc::new(Semaphore::new(BACKGROUND_CALLS)),
            rooms: Turns::new(ROOMS, ROOMS_FEW),
            onlookers: Arc::new(Semaphore::new(ONLOOKERS)),
            in_vain: Mutex::default(),
            refused: Mutex::default(),
        }
    }
}

/// Somebody else's flight.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    /// Which secret it is to bring.
    pub(super) kind: SecretKind,
    landed: watch::Receiver<Option<Landed>>,
    news: Arc<Notify>,
    /// Whether its pilot may call, and asks itself what is in doubt.
    is_asking: bool,
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

/// In which line a refresh waits for its turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// Behind everybody who came before.
    Common,
    /// Beside them, behind those only whose answers are lost as well.
    Urgent,
}

/// So many at a time, of which one authorization server may have all, and a few more that are each server's own.
#[derive(Debug)]
struct Turns {
    shared: Arc<Semaphore>,
    hosts: Mutex<HashMap<String, Host>>,
    per_host: usize,
    few: usize,
}

/// What one authorization server may have of the turns, and a few of its own: those that do not answer cannot take them all.
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
    _one: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// So many for all, of which one host may have all, and a few more for each.
    fn new(shared: usize, few: usize) -> Self {
        Self {
            shared: Arc::new(Semaphore::new(shared)),
            hosts: Mutex::default(),
            per_host: shared,
            few,
        }
    }

    fn of(&self, name: String) -> Host {
        let mut hosts = locked(&self.hosts);
        let host = hosts.entry(name).or_insert_with(|| Host {
            most: Arc::new(Semaphore::new(self.per_host)),
            few: Arc::new(Semaphore::new(self.few)),
        });
        host.clone()
    }

    /// The turn that is free now, if there is one.
    fn now(&self, name: String) -> Option<Turn> {
        let host = self.of(name);
        let most = host.most.try_acquire_owned().ok()?;
        let shared = Arc::clone(&self.shared).try_acquire_owned();
        let one = shared.or_else(|_| host.few.try_acquire_owned()).ok()?;
        Some(Turn {
            _host: Some(most),
            _one: Some(one),
        })
    }

    async fn next(&self, name: String) -> Turn {
        let host = self.of(name);
        // The host first: whoever waits for a slow one must not keep others from theirs. None is ever closed, which is the
        // only way to get nothing.
        let most = host.most.acquire_owned().await.ok();
        let one = tokio::select! {
            biased;
            one = Arc::clone(&self.shared).acquire_owned() => one,
            own = host.few.acquire_owned() => own,
        };
        Turn {
            _host: most,
            _one: one.ok(),
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
        let flight = Flight {
            kind,
            landed,
            news: Arc::default(),
            is_asking: false,
        };
        under_way.insert(grant, flight);
        Seat::Pilot(Pilot {
            under_way: Arc::clone(&self.under_way),
            grant,
            landed: sender,
        })
    }

    /// Says whether the pilot of the grant's flight may call or waits for anything.
    pub(super) fn set_asking(&self, grant: GrantId, is_asking: bool) {
        if let Some(flight) = locked(&self.under_way).get_mut(&grant) {
            flight.is_asking = is_asking;
        }
    }

    /// Whether the grant has a flight here whose pilot waits for nobody.
    pub(super) fn is_asking(&self, grant: GrantId) -> bool {
        locked(&self.under_way)
            .get(&grant)
            .is_some_and(|flight| flight.is_asking)
    }

    /// What a pilot who waits for a turn is told by: somebody beside the flight found out how the grant stands.
    pub(super) fn news(&self, grant: GrantId) -> Arc<Notify> {
        let under_way = locked(&self.under_way);
        under_way
            .get(&grant)
            .map_or_else(Arc::default, |flight| Arc::clone(&flight.news))
    }

    /// Lets the pilot of the grant's flight look, if there is one.
    pub(super) fn tell(&self, grant: GrantId) {
        if let Some(flight) = locked(&self.under_way).get(&grant) {
            flight.news.notify_one();
        }
    }

    /// Waits for a place among the refreshes that are being prepared, asked for or kept. There are more of these than calls:
    /// a call that ends finds another one ready, and what is answered does not pile up. Public for a test that takes all.
    pub async fn place(&self, connector: &Connector) -> Turn {
        self.places.next(host(connector)).await
    }

    /// Waits for a place in this line.
    pub(super) async fn place_in(&self, line: Line, connector: &Connector) -> Turn {
        match line {
            Line::Common => self.place(connector).await,
            Line::Urgent => self.urgent.next(host(connector)).await,
        }
    }

    /// Waits until it may look without a place: those that have one are to find the database free.
    pub(super) async fn onlooker(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.onlookers).acquire_owned().await.ok()
    }

    /// Waits for a turn to call the connector's authorization server. Public for a test that takes all.
    pub async fn call(&self, connector: &Connector) -> Turn {
        self.calls.next(host(connector)).await
    }

    /// Waits for such a turn in this line. In the urgent one there are no more places than may call.
    pub(super) async fn call_in(&self, line: Line, connector: &Connector) -> Turn {
        match line {
            Line::Common => self.call(connector).await,
            Line::Urgent => Turn {
                _host: None,
                _one: None,
            },
        }
    }

    /// Takes room for one more refresh that nobody waits for, if there is any: a provider that is silent for hours must not
    /// let them pile up, nor keep the others' from being renewed. Public for a test that takes all.
    pub fn take_room(&self, connector: &Connector) -> Option<Turn> {
        self.rooms.now(host(connector))
    }

    /// Notes that a narrowing came to nothing.
    pub(super) fn narrowed_in_vain(&self, narrowing: Narrowing, now: Duration) {
        remember(&self.in_vain, narrowing, now);
    }

    /// Whether a narrowing came to nothing a moment ago. One that rotates the refresh token for nothing is asked for once a
    /// minute at most.
    pub(super) fn narrows_in_vain(&self, narrowing: &Narrowing, now: Duration) -> bool {
        is_remembered(&self.in_vain, narrowing, now)
    }

    /// Notes that a fresh token was refused where no file says what to expect.
    pub(in crate::flows) fn refused_fresh(&self, connection: Connection, now: Duration) {
        remember(&self.refused, connection, now);
    }

    /// Whether a fresh token was refused so a moment ago: another one is asked for once a minute at most.
    pub(in crate::flows) fn refuses_fresh(&self, connection: &Connection, now: Duration) -> bool {
        is_remembered(&self.refused, connection, now)
    }

    /// Waits for a place among the refreshes that nobody waits for: they leave room for those that somebody does.
    pub(super) async fn in_background(&self, connector: &Connector) -> (Turn, Option<OwnedSemaphorePermit>) {
        let turn = self.background.next(host(connector)).await;
        (
            turn,
            Arc::clone(&self.background_calls).acquire_owned().await.ok(),
        )
    }
}

/// Notes what came to nothing.
fn remember<K: Eq + Hash>(known: &Mutex<HashMap<K, Duration>>, what: K, now: Duration) {
    let mut known = locked(known);
    if known.len() >= MOST_IN_VAIN {
        known.retain(|_, since| now.saturating_sub(*since) < IN_VAIN_FOR);
    }
    // What there is no room for is tried again.
    if known.len() < MOST_IN_VAIN {
        known.insert(what, now);
    }
}

fn is_remembered<K: Eq + Hash>(known: &Mutex<HashMap<K, Duration>>, what: &K, now: Duration) -> bool {
    let since = locked(known).get(what).copied();
    since.is_some_and(|since| now.saturating_sub(since) < IN_VAIN_FOR)
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

/// Calls to providers at a time in one line, beside [`FEW`] to each; to one provider no more than these.
const CALLS: usize = 56;
/// Calls to one provider that no other can take from it, however many do not answer.
const FEW: usize = 2;
/// How many may look at a time without a place.
const ONLOOKERS: usize = 16;
/// How many refreshes at a time may be for nobody who waits, beside [`FEW`] about each provider.
const BACKGROUND: usize = 32;
/// How many of these call at a time at most, however many providers there are: fewer than [`CALLS`].
const BACKGROUND_CALLS: usize = 48;
/// How many of these there are at most, with those that wait for their place.
const ROOMS: usize = 8 * BACKGROUND;
/// How many more there are about each provider, whatever the others do.
const ROOMS_FEW: usize = 8;
/// How long a narrowing that came to nothing is not asked for again.
const IN_VAIN_FOR: Duration = Duration::from_secs(60);
/// How many of these are remembered.
const MOST_IN_VAIN: usize = 10_000;

#[cfg(test)]
mod tests {
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
        let turns = Arc::new(Turns::new(CALLS, FEW));
        let one = all_for(&turns, "one").await;
        assert_eq!(one.len(), CALLS);
        // Two are left to another that does not answer either, and as many to each next.
        let mut others = Vec::new();
        for name in ["two", "three", "four", "five", "six", "seven"] {
            others.push(all_for(&turns, name).await);
        }
        assert!(others.iter().all(|got| got.len() == FEW));
        let waits = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.next("two".to_owned()).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        others.remove(0);
        drop(waits.await.unwrap());
        drop(one);
        let two = all_for(&turns, "two").await;
        assert_eq!(two.len(), CALLS, "one at rest costs the others nothing");
    }

    #[test]
    fn narrowings_in_vain_are_remembered_for_a_minute_and_not_without_end() {
        let flights = Flights::default();
        let kind = SecretKind::Narrowed("one".to_owned());
        let grant = |n: usize| GrantId::from_bytes(u128::try_from(n).unwrap().to_be_bytes());
        let at = Duration::from_secs;
        for n in 0..=MOST_IN_VAIN {
            flights.narrowed_in_vain((grant(n), 1, kind.clone()), at(100));
        }
        let is_in_vain = |n, now| flights.narrows_in_vain(&(grant(n), 1, kind.clone()), now);
        assert!(is_in_vain(0, at(159)) && !is_in_vain(0, at(160)));
        assert!(!is_in_vain(MOST_IN_VAIN, at(100)), "there was no room");
        let other = SecretKind::Narrowed("other".to_owned());
        assert!(!flights.narrows_in_vain(&(grant(0), 1, other), at(100)));
        assert!(
            !flights.narrows_in_vain(&(grant(0), 2, kind.clone()), at(100)),
            "connected again"
        );
        flights.narrowed_in_vain((grant(MOST_IN_VAIN), 1, kind.clone()), at(160));
        assert!(is_in_vain(MOST_IN_VAIN, at(160)));
        assert_eq!(locked(&flights.in_vain).len(), 1);
    }

    #[test]
    fn refreshes_that_nobody_waits_for_pile_up_neither_nor_leave_other_providers_none() {
        let flights = Flights::default();
        let take = |name: &str| flights.rooms.now(name.to_owned());
        let mut silent: Vec<_> = std::iter::from_fn(|| take("silent")).collect();
        assert_eq!(silent.len(), ROOMS);
        let other: Vec<_> = std::iter::from_fn(|| take("other")).collect();
        assert_eq!(other.len(), ROOMS_FEW);
        silent.pop();
        assert!(take("silent").is_some(), "what is given back is there again");
    }
}
