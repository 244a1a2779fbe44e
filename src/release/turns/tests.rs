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
    let mut waits: Waits<'_> = Box::pin(turns.wait(org(number)));
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
    let turns = Turns::of(2, 9);
    let (_, first) = come(&turns, 1);
    let (_, second) = come(&turns, 1);
    let (mut third, none) = come(&turns, 1);
    assert!(first.is_some() && second.is_some() && none.is_none());
    drop(first);
    assert!(look(&mut third).is_some());
}

#[test]
fn another_org_is_next_however_many_of_the_first_wait() {
    let turns = Turns::of(1, 9);
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
    let turns = Turns::of(1, 9);
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

/// Judged, and not answered yet.
fn under_way(turn: Option<Turn>) -> Turn {
    let mut turn = turn.unwrap();
    turn.judged();
    turn
}

#[test]
fn an_org_that_comes_alone_may_have_everybody_under_way() {
    let turns = Turns::of(1, 2);
    let all: Vec<_> = (0..100).map(|_| under_way(come(&turns, 1).1)).collect();
    assert_eq!(locked(&turns.0).under_way[&org(1)], 100);
    drop(all);
    assert!(locked(&turns.0).under_way.is_empty());
}

#[test]
fn while_others_come_an_org_with_more_under_way_than_they_have_but_for_a_few_waits() {
    let turns = Turns::of(2, 2);
    let mut all: Vec<_> = (0..4).map(|_| under_way(come(&turns, 1).1)).collect();
    let other = under_way(come(&turns, 2).1);
    let (mut waits, none) = come(&turns, 1);
    assert!(none.is_none(), "although nobody is judged");
    all.pop();
    assert!(
        look(&mut waits).is_none(),
        "three are under way still, and one of the other org"
    );
    all.pop();
    let turn = look(&mut waits);
    assert!(turn.is_some());
    let (gone, none) = come(&turns, 1);
    assert!(none.is_none(), "three are under way again");
    drop((gone, all, turn, other));
    let line = locked(&turns.0);
    assert_eq!((line.free, line.all_under_way), (2, 0));
    assert!(line.under_way.is_empty());
}

#[test]
fn two_busy_orgs_have_everybody_under_way() {
    let turns = Turns::of(2, 2);
    let (mut going, mut waiting) = (Vec::new(), Vec::new());
    for number in (0..40).map(|call| 1 + call % 2) {
        let (waits, turn) = come(&turns, number);
        match turn {
            Some(turn) => going.push(under_way(Some(turn))),
            None => waiting.push(waits),
        }
    }
    assert_eq!(going.len() + waiting.len(), 40);
    assert!(waiting.is_empty(), "{} wait", waiting.len());
}

#[test]
fn whoever_waits_has_a_turn_as_soon_as_the_others_have_more_under_way() {
    let turns = Turns::of(9, 2);
    let mut other: Vec<_> = (0..2).map(|_| under_way(come(&turns, 2).1)).collect();
    let flood: Vec<_> = (0..4).map(|_| under_way(come(&turns, 1).1)).collect();
    let (mut first, none) = come(&turns, 1);
    assert!(none.is_none(), "four are under way, and two of the other org");
    let (mut second, none) = come(&turns, 1);
    assert!(none.is_none());
    // None of its own ended.
    other.push(under_way(come(&turns, 2).1));
    let turn = under_way(look(&mut first));
    assert!(look(&mut second).is_none(), "five, and three of the other org");
    other.push(under_way(come(&turns, 2).1));
    let (mut third, none) = come(&turns, 1);
    assert!(none.is_none(), "the second came before it");
    let second = under_way(look(&mut second));
    drop((flood, other));
    assert!(look(&mut third).is_some());
    drop((turn, second));
    assert!(locked(&turns.0).under_way.is_empty());
}

#[test]
fn whoever_waits_for_nothing_but_time_has_a_turn_when_one_of_the_org_ends() {
    let turns = Turns::of(9, 2);
    let _other = under_way(come(&turns, 2).1);
    let mut flood: Vec<_> = (0..3).map(|_| under_way(come(&turns, 1).1)).collect();
    let (mut waits, none) = come(&turns, 1);
    assert!(none.is_none());
    locked(&turns.0).arrivals = Arrivals::default();
    flood.pop();
    assert!(look(&mut waits).is_some(), "nobody else came lately");
}

#[test]
fn whoever_goes_away_leaves_no_place_in_the_line() {
    let turns = Turns::of(1, 2);
    let (_, held) = come(&turns, 1);
    let gone: Vec<_> = (0..100).map(|call| come(&turns, call % 3).0).collect();
    drop(gone);
    assert!(locked(&turns.0).waiting.first().is_none());
    drop(held);
    assert_eq!(locked(&turns.0).free, 1);
    // And where its org has as many under way as it may.
    let turns = Turns::of(9, 2);
    let other = under_way(come(&turns, 2).1);
    let flood: Vec<_> = (0..3).map(|_| under_way(come(&turns, 1).1)).collect();
    drop(come(&turns, 1).0);
    drop((other, flood));
    let line = locked(&turns.0);
    assert_eq!((line.held, line.all_under_way), (None, 0));
}

#[test]
fn over_a_distant_database_an_org_has_more_under_way() {
    let turns = Turns::of(9, 2);
    let _other = under_way(come(&turns, 2).1);
    let mut flood = Vec::new();
    let mut has = || {
        while flood.len() < 100
            && let (_, Some(turn)) = come(&turns, 1)
        {
            flood.push(under_way(Some(turn)));
        }
        flood.len()
    };
    assert_eq!(has(), 1 + 2);
    turns.committed(NEAR * 40);
    turns.committed(NEAR * 7 + NEAR / 2);
    assert_eq!(has(), 1 + 2 * 8);
}

#[test]
fn a_database_is_as_far_as_the_fastest_of_the_last_batches() {
    let mut batches = Batches::default();
    assert_eq!(batches.distance(), 1);
    batches.count(NEAR / 10);
    for _ in 1..2 * COUNTED {
        assert_eq!(batches.distance(), 1);
        batches.count(NEAR * 7);
    }
    assert_eq!(batches.distance(), 8);
    batches.count(Duration::MAX);
    assert_eq!(batches.distance(), 8);
}

#[test]
fn an_org_comes_alone_when_no_other_has_come_for_a_while() {
    let (mut arrivals, now) = (Arrivals::default(), Instant::now());
    arrivals.saw(org(1), now);
    arrivals.saw(org(1), now);
    assert!(!arrivals.others_since(org(1), now));
    assert!(arrivals.others_since(org(2), now));
    arrivals.saw(org(2), now);
    arrivals.saw(org(2), now + LATELY / 2);
    arrivals.saw(org(3), now + LATELY / 2);
    assert!(arrivals.others_since(org(1), now + LATELY));
    assert!(arrivals.others_since(org(3), now + LATELY), "the second");
    let late = now + LATELY / 2 + LATELY;
    assert!(!arrivals.others_since(org(3), late));
    arrivals.saw(org(2), late);
    assert!(
        !arrivals.others_since(org(2), late),
        "the third came too long ago"
    );
    assert!(arrivals.others_since(org(3), late));
}
