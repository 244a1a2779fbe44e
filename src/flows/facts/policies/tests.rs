//! Compiled once, apart from the workers, an org once at a time; held within the bound, shared beyond it.

use std::{
    pin::{Pin, pin},
    sync::mpsc,
    task::{Context, Waker},
};

use super::*;
use crate::{connectors::Options, domain::AgentId};

const OPEN: &str = "permit (principal, action, resource);";
const READS: &str = "permit (principal, action in Action::\"read\", resource);";

fn org(n: usize) -> OrgId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&u64::try_from(n).unwrap().to_be_bytes());
    OrgId::from_bytes(bytes)
}

fn catalogue() -> Catalogue {
    Catalogue::load(&Options {
        acme_mail_origin: Some("http://127.0.0.1:4701"),
        ..Options::default()
    })
    .unwrap()
}

/// What the database says is always the same, but for the texts.
fn texts(agent: &str) -> Texts {
    let text = PolicyText {
        name: "p.cedar".to_owned(),
        text: agent.to_owned(),
    };
    Texts::from(PolicyRow {
        version: 7,
        org: Vec::new(),
        agent: vec![text],
        digest: "sha256:0".to_owned(),
    })
}

/// Whether it waits, asked once.
fn waits<F: Future>(work: Pin<&mut F>) -> bool {
    work.poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

fn may_send(policies: &CompiledPolicies) -> bool {
    let acme_mail = "acme-mail".parse().unwrap();
    policies.covers_tool(AgentId::from_bytes([1; 16]), &acme_mail, "messages.send")
}

fn reference(digest: usize) -> PolicyRef {
    PolicyRef {
        id: "cedar".to_owned(),
        version: "7".to_owned(),
        digest: digest.to_string(),
    }
}

fn keep(sets: &mut Sets<usize>, n: usize, digest: usize, weight: usize) {
    sets.keep(org(n), reference(digest), weight, Arc::new(digest));
    sets.given_up.clear();
    assert!(sets.held <= MOST);
    assert_eq!(sets.held, sets.orgs.values().map(|of| of.weight).sum::<usize>());
}

fn is_held(sets: &mut Sets<usize>, n: usize, digest: usize) -> bool {
    sets.find(org(n), &reference(digest), LEAST).is_some()
}

#[tokio::test]
async fn other_texts_of_the_same_version_are_compiled_and_judge() {
    let (policies, catalogue) = (Policies::default(), catalogue());
    let ask = async |agent: &str| {
        let compiled = policies.compiled(&catalogue, org(1), texts(agent)).await;
        compiled.unwrap()
    };
    let (before, after) = (ask(OPEN).await, ask(READS).await);
    assert!(may_send(&before) && !may_send(&after));
    assert_eq!(before.reference().version, after.reference().version);
    assert_ne!(before.reference().digest, after.reference().digest);
    let back = ask(OPEN).await;
    assert!(may_send(&back), "and back");
}

#[tokio::test]
async fn texts_that_stand_are_compiled_once_however_often_they_are_read() {
    let (policies, catalogue) = (Policies::default(), catalogue());
    let ask = async |n: usize| {
        let compiled = policies.compiled(&catalogue, org(n), texts(OPEN)).await;
        compiled.unwrap()
    };
    let first = ask(1).await;
    ask(2).await;
    assert!(Arc::ptr_eq(&first, &ask(1).await));
    assert!(Arc::ptr_eq(&first, &policies.find(org(1), &texts(OPEN)).unwrap()));
}

#[tokio::test]
async fn all_orgs_share_one_vocabulary() {
    let (policies, catalogue) = (Policies::default(), catalogue());
    for n in 1..=3 {
        policies.compiled(&catalogue, org(n), texts(OPEN)).await.unwrap();
    }
    let vocabulary = Arc::clone(policies.vocabulary.get().unwrap());
    // The three sets', the one that is kept for the next, and this one.
    assert_eq!(Arc::strong_count(&vocabulary), 5);
}

#[tokio::test]
async fn policies_that_do_not_compile_are_refused_and_not_held() {
    let (policies, catalogue) = (Policies::default(), catalogue());
    let refused = policies.compiled(&catalogue, org(1), texts("permit (")).await;
    assert!(matches!(refused, Err(Refusal::StoreUnavailable(_))));
    assert_eq!(policies.sets().held, 0);
    let findings = |text: &str| {
        let agent = vec![PolicyText {
            name: "p.cedar".to_owned(),
            text: text.to_owned(),
        }];
        policies.findings(&catalogue, Vec::new(), agent)
    };
    assert!(!findings("permit (").await.unwrap().is_empty());
    assert!(findings(OPEN).await.unwrap().is_empty());
}

/// Here the runtime has one worker, and this test is on it.
#[tokio::test]
async fn while_something_is_compiled_the_worker_is_free_and_the_next_one_waits() {
    let (policies, catalogue) = (Policies::default(), catalogue());
    let (go_on, told) = mpsc::channel::<()>();
    let mut first = pin!(policies.apart(move || told.recv().is_ok()));
    assert!(waits(first.as_mut()));
    let mut next = pin!(policies.compiled(&catalogue, org(2), texts(OPEN)));
    assert!(waits(next.as_mut()) && waits(first.as_mut()));
    assert!(policies.find(org(2), &texts(OPEN)).is_none());
    go_on.send(()).unwrap();
    assert!(first.await.unwrap());
    assert!(may_send(&next.await.unwrap()));
}

#[tokio::test]
async fn who_goes_away_leaves_what_it_compiles_to_its_end_and_its_place_until_then() {
    let policies = Policies::default();
    let (go_on, told) = mpsc::channel::<()>();
    let mut work = Box::pin(policies.apart(move || told.recv().is_ok()));
    assert!(waits(work.as_mut()));
    drop(work);
    assert!(policies.compiler.try_lock().is_err());
    go_on.send(()).unwrap();
    assert!(policies.apart(|| true).await.unwrap());
}

#[tokio::test]
async fn an_org_has_one_place_however_many_of_its_calls_compile_and_others_have_theirs() {
    let policies = Policies::default();
    let first = policies.alone(org(1)).await;
    let mut second = pin!(policies.alone(org(1)));
    assert!(waits(second.as_mut()));
    let other = policies.alone(org(2)).await;
    assert!(waits(second.as_mut()));
    drop(first);
    drop((second.await, other));
    let last = policies.alone(org(3)).await;
    assert_eq!(
        policies.compiling.lock().unwrap().len(),
        1,
        "who left is forgotten"
    );
    drop(last);
}

#[test]
fn no_more_is_held_than_the_bound_and_who_asked_last_keeps_it() {
    let mut sets = Sets::default();
    let places = MOST / LEAST;
    for n in 0..places + 10 {
        keep(&mut sets, n, n, LEAST);
        assert!(is_held(&mut sets, 0, 0), "it asks all the time");
    }
    assert_eq!((sets.orgs.len(), sets.held), (places, MOST));
    assert!(!is_held(&mut sets, 1, 1) && !is_held(&mut sets, 10, 10));
    assert!(is_held(&mut sets, 11, 11) && is_held(&mut sets, places, places));
}

#[test]
fn of_an_org_one_set_is_held() {
    let mut sets = Sets::default();
    keep(&mut sets, 1, 1, 3 * LEAST);
    keep(&mut sets, 1, 2, LEAST);
    assert!(!is_held(&mut sets, 1, 1) && is_held(&mut sets, 1, 2));
    assert_eq!(sets.held, LEAST);
}

#[test]
fn one_org_with_giant_policies_costs_those_in_use_nothing() {
    let mut sets = Sets::default();
    // All there is, and a hundred of them asked last.
    for n in (1..=256).rev() {
        keep(&mut sets, n, n, MOST / 256);
    }
    for digest in 0..50 {
        keep(&mut sets, 0, digest, LARGEST);
        assert!(is_held(&mut sets, 0, digest));
        assert!((1..=100).all(|n| is_held(&mut sets, n, n)));
    }
}

#[test]
fn policies_larger_than_an_orgs_part_are_not_held() {
    let mut sets = Sets::default();
    for n in 1..=2 {
        keep(&mut sets, n, n, LARGEST);
    }
    keep(&mut sets, 2, 3, LARGEST + 1);
    assert!(!is_held(&mut sets, 2, 3) && !is_held(&mut sets, 2, 2));
    assert!(is_held(&mut sets, 1, 1));
}

#[test]
fn of_two_compiled_at_once_all_share_the_first() {
    let mut sets = Sets::default();
    let [first, second] = [Arc::new(1), Arc::new(2)];
    sets.keep(org(1), reference(1), LEAST, Arc::clone(&first));
    let kept = sets.keep(org(1), reference(1), LEAST, second);
    assert!(Arc::ptr_eq(&kept, &first));
    assert_eq!(sets.held, LEAST);
}

#[test]
fn what_is_given_up_is_told_and_shared_until_nobody_has_it() {
    let mut sets = Sets::default();
    let first = Arc::new(1);
    sets.keep(org(1), reference(1), LARGEST, Arc::clone(&first));
    keep(&mut sets, 2, 2, LARGEST);
    sets.keep(org(3), reference(3), LEAST, Arc::new(3));
    assert_eq!(sets.given_up, [(org(1), Arc::clone(&first))]);
    sets.given_up.clear();
    let found = sets.find(org(1), &reference(1), LARGEST);
    assert!(found.is_some_and(|set| Arc::ptr_eq(&set, &first)));
    assert!(sets.orgs.contains_key(&org(1)) && !sets.orgs.contains_key(&org(2)));
    // And of an org that has put others in force since, without giving those up.
    keep(&mut sets, 1, 4, LEAST);
    let found = sets.find(org(1), &reference(1), LARGEST);
    assert!(found.is_some_and(|set| Arc::ptr_eq(&set, &first)));
    assert!(is_held(&mut sets, 1, 4));
    drop(first);
    assert!(sets.find(org(1), &reference(1), LARGEST).is_none());
}
