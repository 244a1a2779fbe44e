//! Who is let in: how many calls may be under way between the door and the gate.
//!
//! Everybody who is let in is served; everybody else is refused at once, while that is still cheap. So few may be inside
//! that the processors get through them in a few tens of milliseconds: a fast refusal is worth more to its caller than a
//! place that is served a second later. Nothing here waits or does I/O.

use std::{
    collections::{HashMap, hash_map::Entry},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::domain::{AgentId, OrgId};

use super::turns::Turn;

/// How many may be inside.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// Altogether, as long as nobody with less than an even share comes.
    all: usize,
    /// Altogether, whoever comes.
    most: usize,
    /// Of one org.
    org: usize,
    /// Of one agent.
    agent: usize,
}

impl Room {
    /// What this many processors get through soon enough.
    fn of(processors: usize) -> Self {
        let all = processors.saturating_mul(PER_PROCESSOR).clamp(OF_ONE_AGENT, 2048);
        Self {
            all,
            most: 2 * all,
            org: OF_ONE_ORG,
            agent: OF_ONE_AGENT,
        }
    }
}

/// No room: come again a little later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much is under way")]
pub struct Full;

/// Everybody who is inside. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    room: Room,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Debug, Default)]
struct Inside {
    all: usize,
    orgs: HashMap<OrgId, Org>,
}

#[derive(Debug, Default)]
struct Org {
    all: usize,
    agents: HashMap<AgentId, usize>,
}

/// A place inside; dropping it makes room.
#[derive(Debug)]
#[must_use]
pub struct Place {
    taken: Option<Taken>,
    turn: Option<Turn>,
}

#[derive(Debug)]
struct Taken {
    inside: Arc<Mutex<Inside>>,
    org: OrgId,
    agent: AgentId,
}

impl Admission {
    /// With room for what so many processors get through.
    pub(super) fn new(processors: usize) -> Self {
        Self::with(Room::of(processors))
    }

    fn with(room: Room) -> Self {
        Self {
            room,
            inside: Arc::default(),
        }
    }

    /// Whether one more call of this agent would be let in now.
    pub(super) fn has_room(&self, org: OrgId, agent: AgentId) -> Result<(), Full> {
        self.room.fits(&locked(&self.inside), org, agent)
    }

    /// Lets one more call of this agent in, until the place is dropped.
    pub(super) fn enter(&self, org: OrgId, agent: AgentId) -> Result<Place, Full> {
        let mut inside = locked(&self.inside);
        self.room.fits(&inside, org, agent)?;
        inside.all += 1;
        let of_org = inside.orgs.entry(org).or_default();
        of_org.all += 1;
        *of_org.agents.entry(agent).or_default() += 1;
        drop(inside);
        let inside = Arc::clone(&self.inside);
        Ok(Place {
            taken: Some(Taken { inside, org, agent }),
            turn: None,
        })
    }
}

impl Room {
    fn fits(self, inside: &Inside, org: OrgId, agent: AgentId) -> Result<(), Full> {
        if inside.all >= self.most {
            return Err(Full);
        }
        let Some(of_org) = inside.orgs.get(&org) else {
            return Ok(());
        };
        let of_agent = of_org.agents.get(&agent).copied().unwrap_or(0);
        // One org's flood takes what nobody else asks for, and no more than that.
        let even = self.all / inside.orgs.len().max(1);
        let greedy = inside.all >= self.all && of_org.all >= even;
        if greedy || of_org.all >= self.org || of_agent >= self.agent {
            return Err(Full);
        }
        Ok(())
    }
}

impl Place {
    /// Does this work. As soon as it has to wait, the place is given up: whoever waits for a provider needs none of what
    /// is scarce here, and is not refused afterwards either.
    pub async fn until_it_waits<F: Future>(&mut self, work: F) -> F::Output {
        self.giving_up(Self::leave, work).await
    }

    /// Does this work. As soon as it has to wait, the turn is given up, and the place kept: a key service that is asked again
    /// for each call must not be asked by more than there is room for.
    pub async fn turn_until_it_waits<F: Future>(&mut self, work: F) -> F::Output {
        self.giving_up(Self::without_turn, work).await
    }

    async fn giving_up<F: Future>(&mut self, give_up: fn(&mut Self), work: F) -> F::Output {
        let mut work = pin!(work);
        std::future::poll_fn(|context| {
            let polled = work.as_mut().poll(context);
            if polled.is_pending() {
                give_up(self);
            }
            polled
        })
        .await
    }

    /// Goes on with this turn. Nobody has two.
    pub(super) fn has_turn(&mut self, turn: Turn) {
        self.turn = Some(turn);
    }

    /// It was judged: the processor is free for the next one.
    pub fn judged(&mut self) {
        if let Some(turn) = &mut self.turn {
            turn.judged();
        }
    }

    /// Gives up its turn, to wait for something else or for another one.
    pub fn without_turn(&mut self) {
        self.turn = None;
    }

    /// Makes room for somebody else.
    pub fn leave(&mut self) {
        self.without_turn();
        let Some(Taken { inside, org, agent }) = self.taken.take() else {
            return;
        };
        let mut inside = locked(&inside);
        inside.all = inside.all.saturating_sub(1);
        if let Entry::Occupied(mut of_org) = inside.orgs.entry(org) {
            let counts = of_org.get_mut();
            counts.all = counts.all.saturating_sub(1);
            if let Entry::Occupied(mut of_agent) = counts.agents.entry(agent) {
                *of_agent.get_mut() -= 1;
                if *of_agent.get() == 0 {
                    of_agent.remove();
                }
            }
            if of_org.get().all == 0 {
                of_org.remove();
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

fn locked(inside: &Mutex<Inside>) -> MutexGuard<'_, Inside> {
    inside.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So many are decided and committed by one processor in a few tens of milliseconds; a refusal waits behind them.
const PER_PROCESSOR: usize = 32;
const OF_ONE_ORG: usize = 128;
const OF_ONE_AGENT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn org(number: u8) -> OrgId {
        OrgId::from_bytes([number; 16])
    }

    fn agent(number: u8) -> AgentId {
        AgentId::from_bytes([number; 16])
    }

    fn admission(all: usize, most: usize, org: usize, agent: usize) -> Admission {
        Admission::with(Room {
            all,
            most,
            org,
            agent,
        })
    }

    #[test]
    fn an_org_and_an_agent_have_room_for_so_many() {
        let admission = admission(9, 9, 3, 2);
        let first = admission.enter(org(1), agent(1)).unwrap();
        let _second = admission.enter(org(1), agent(1)).unwrap();
        assert_eq!(admission.has_room(org(1), agent(1)), Err(Full), "the agent's");
        let _third = admission.enter(org(1), agent(2)).unwrap();
        assert_eq!(admission.has_room(org(1), agent(3)), Err(Full), "the org's");
        assert_eq!(admission.has_room(org(2), agent(4)), Ok(()));
        drop(first);
        assert_eq!(admission.has_room(org(1), agent(1)), Ok(()));
    }

    #[test]
    fn whoever_has_less_than_an_even_share_is_let_into_a_full_house_until_it_bursts() {
        let admission = admission(4, 6, 9, 9);
        let mut inside: Vec<_> = (0..4)
            .map(|_| admission.enter(org(1), agent(1)).unwrap())
            .collect();
        assert_eq!(admission.has_room(org(1), agent(1)), Err(Full));
        inside.push(admission.enter(org(2), agent(2)).unwrap());
        inside.push(admission.enter(org(2), agent(2)).unwrap());
        assert_eq!(admission.has_room(org(2), agent(2)), Err(Full));
        assert_eq!(
            admission.has_room(org(3), agent(3)),
            Err(Full),
            "it is at its most"
        );
        // The flood's calls end; it gets no more than half while the other is there.
        inside.drain(..3);
        assert_eq!(admission.has_room(org(1), agent(1)), Ok(()));
        inside.push(admission.enter(org(1), agent(1)).unwrap());
        assert_eq!(admission.has_room(org(1), agent(1)), Err(Full));
        assert_eq!(admission.has_room(org(3), agent(3)), Ok(()));
    }

    #[test]
    fn nothing_is_remembered_of_who_left() {
        let admission = admission(4, 4, 4, 4);
        let mut place = admission.enter(org(1), agent(1)).unwrap();
        let other = admission.enter(org(1), agent(2)).unwrap();
        place.leave();
        place.leave();
        drop(place);
        assert_eq!(
            locked(&admission.inside).all,
            1,
            "left once, however often it says so"
        );
        drop(other);
        let inside = locked(&admission.inside);
        assert_eq!(inside.all, 0);
        assert!(inside.orgs.is_empty());
    }

    #[tokio::test]
    async fn whoever_has_to_wait_gives_the_place_up_and_whoever_need_not_keeps_it() {
        let admission = admission(1, 1, 1, 1);
        let mut place = admission.enter(org(1), agent(1)).unwrap();
        assert_eq!(place.until_it_waits(async { 7 }).await, 7);
        assert_eq!(admission.has_room(org(1), agent(1)), Err(Full));
        assert_eq!(
            place
                .until_it_waits(async {
                    tokio::task::yield_now().await;
                    admission.has_room(org(1), agent(1))
                })
                .await,
            Ok(())
        );
    }

    #[test]
    fn room_grows_with_the_processors_and_one_agent_never_lacks_its_own() {
        assert_eq!(Room::of(1).all, 64);
        assert_eq!(Room::of(16).all, 512);
        assert!(Room::of(1).all >= Room::of(1).agent);
        assert_eq!(Room::of(usize::MAX).most, 4096);
    }
}
