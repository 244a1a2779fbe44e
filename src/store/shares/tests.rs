use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use super::*;

fn org(number: u8) -> Party {
    Party::Org(OrgId::from_bytes([number; 16]))
}

fn key(number: u8) -> Party {
    Party::of(Mode::Read, Reach::Hash(&[number; 32]))
}

/// Looks at a future once.
fn looked_at<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// As many places as a party gets without waiting.
fn fill(shares: &Shares, party: Party) -> Vec<Place> {
    std::iter::from_fn(|| shares.take_now(party)).collect()
}

#[test]
fn one_org_gets_half_and_there_is_always_one_for_the_next() {
    let shares = Shares::new(16);
    let held: Vec<_> = (1..=4).map(|number| fill(&shares, org(number))).collect();
    let counts: Vec<_> = held.iter().map(Vec::len).collect();
    assert_eq!(counts, [8, 4, 2, 1]);
    assert_eq!(fill(&shares, org(5)).len(), 1);
    assert_eq!(fill(&shares, Party::Keyed).len(), 1);
    assert_eq!(fill(&shares, Party::Workers).len(), 1);
    assert_eq!(fill(&Shares::new(1), org(1)).len(), 1);
    assert_eq!(fill(&Shares::new(2), org(1)).len(), 1);
}

#[test]
fn workers_get_all_that_is_left() {
    let shares = Shares::new(16);
    let orgs = fill(&shares, org(1));
    assert_eq!(orgs.len() + fill(&shares, Party::Workers).len(), 16);
}

#[test]
fn what_comes_back_goes_to_who_holds_the_fewest() {
    let shares = Shares::new(4);
    let mut first = fill(&shares, org(1));
    let (second, third) = (fill(&shares, org(2)), fill(&shares, org(3)));
    assert_eq!((first.len(), second.len(), third.len()), (2, 1, 1));
    let mut more = pin!(shares.take(org(1)));
    let mut other = pin!(shares.take(org(4)));
    assert!(looked_at(more.as_mut()).is_pending());
    assert!(looked_at(other.as_mut()).is_pending());
    drop(first.pop());
    assert!(looked_at(other.as_mut()).is_ready());
    assert!(looked_at(more.as_mut()).is_pending());
    drop((second, third));
    assert!(looked_at(more.as_mut()).is_ready());
}

#[test]
fn who_gets_no_place_hears_whether_that_is_for_its_own_share() {
    let shares = Shares::new(6);
    let ours = fill(&shares, org(1));
    assert!(matches!(shares.none_for(org(1)), StoreError::Busy));
    let others = [fill(&shares, org(2)), fill(&shares, Party::Keyed)];
    assert!(matches!(shares.none_for(org(2)), StoreError::Busy));
    for party in [org(3), Party::Keyed, Party::Workers] {
        assert!(shares.none_for(party).outage().is_some(), "{party:?}");
    }
    drop((ours, others));
    assert!(shares.none_for(org(1)).outage().is_some());
}

/// A crowd that came first is no line for others to stand behind.
#[test]
fn those_who_hold_as_many_are_served_in_turn() {
    let shares = Shares::new(1);
    let held = shares.take_now(org(1));
    let mut crowd: Vec<_> = (0..8).map(|_| Box::pin(shares.take(org(1)))).collect();
    for one in &mut crowd {
        assert!(looked_at(one.as_mut()).is_pending());
    }
    let mut other = pin!(shares.take(org(2)));
    assert!(looked_at(other.as_mut()).is_pending());
    drop(held);
    let mut crowd = crowd.into_iter();
    let mut first = crowd.next().unwrap();
    let Poll::Ready(place) = looked_at(first.as_mut()) else {
        panic!("it came first")
    };
    drop(place);
    assert!(looked_at(other.as_mut()).is_ready());
}

#[test]
fn whoever_goes_away_takes_no_place_along_and_is_forgotten() {
    let shares = Shares::new(2);
    let held = (shares.take_now(org(1)), shares.take_now(org(2)));
    let mut gone = Box::pin(shares.take(org(3)));
    let mut served = Box::pin(shares.take(org(3)));
    assert!(looked_at(gone.as_mut()).is_pending());
    assert!(looked_at(served.as_mut()).is_pending());
    drop(gone);
    drop(held);
    // Given to it, and never looked at.
    drop(served);
    let state = shares.locked();
    assert_eq!(state.free, 2);
    assert!(state.parties.is_empty(), "{state:?}");
}

/// Those of a crowd that are served at once.
fn served<F: Future<Output = Place>>(crowd: &mut [Pin<Box<F>>]) -> Vec<Place> {
    crowd
        .iter_mut()
        .filter_map(|one| match looked_at(one.as_mut()) {
            Poll::Ready(place) => Some(place),
            Poll::Pending => None,
        })
        .collect()
}

#[test]
fn a_crowd_with_one_key_is_no_line_for_another_key_to_stand_behind() {
    let shared = PoolShares::new(16);
    let mut crowd: Vec<_> = (0..64).map(|_| Box::pin(shared.take(key(1)))).collect();
    let held = served(&mut crowd);
    assert_eq!(held.len(), 4);
    let mut other = pin!(shared.take(key(2)));
    assert!(looked_at(other.as_mut()).is_ready());
    assert!(shared.none_for(key(1)).outage().is_some(), "it is no org's");
}

#[test]
fn keys_however_many_hold_half_together_and_give_it_back() {
    let shared = PoolShares::new(16);
    let mut crowd: Vec<_> = (0..64).map(|which| Box::pin(shared.take(key(which)))).collect();
    let held = served(&mut crowd);
    assert_eq!(held.len(), 8);
    assert_eq!(fill(&shared.all, org(1)).len(), 4);
    drop((crowd, held));
    for (shares, places) in [(&shared.all, 16), (&shared.keys, 8)] {
        let state = shares.locked();
        assert_eq!(state.free, places);
        assert!(state.parties.is_empty(), "{state:?}");
    }
}

#[test]
fn half_of_the_places_are_never_held_for_long() {
    let shared = PoolShares::new(16);
    let take = |number| std::iter::from_fn(|| shared.take_for_long_now(org(number))).collect::<Vec<_>>();
    let held: Vec<_> = (1..=8).map(take).collect();
    let count: usize = held.iter().map(Vec::len).sum();
    assert_eq!((held[0].len(), count), (4, 8));
    assert!(shared.take_for_long_now(org(9)).is_none());
    assert!(shared.all.take_now(org(1)).is_some());
    assert!(shared.all.take_now(org(9)).is_some());
    drop(held);
    assert_eq!((shared.all.locked().free, shared.long.locked().free), (16, 8));
}
