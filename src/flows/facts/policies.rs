//! Compiled policies, org by org: compiled once for as long as the texts stand, all against one vocabulary, and held of
//! the orgs that asked last. Who holds a set keeps it: one that is given up here is only compiled again when it is asked
//! for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use crate::{
    connectors::Catalogue,
    domain::{OrgId, decision::PolicyRef},
    flows::{Refusal, question},
    policy::{CompiledPolicies, PolicySources, Vocabulary},
    store::PolicyRow,
};

/// The policies of the orgs that asked last.
#[derive(Debug, Default)]
pub(super) struct Policies {
    /// What policies may name: the catalogue does not change while the process runs.
    vocabulary: OnceLock<Arc<Vocabulary>>,
    sets: Mutex<Sets<CompiledPolicies>>,
}

impl Policies {
    /// The org's policies, compiled unless these very texts are held.
    ///
    /// # Errors
    /// When they do not compile.
    pub(super) fn compiled(
        &self,
        catalogue: &Catalogue,
        org: OrgId,
        row: PolicyRow,
    ) -> Result<Arc<CompiledPolicies>, Refusal> {
        let sources = question::sources(row.version, row.org, row.agent);
        // SECURITY: a set is known by its texts. The version counts in the database: an older one, put back under this
        // process, gives the same number to other texts. The row's own digest is only what was written beside them.
        let reference = sources.reference();
        let held = self.sets().find(org, &reference);
        if let Some(compiled) = held {
            return Ok(compiled);
        }
        // Compiled outside of the lock: long texts take long.
        let compiled = question::compile(&sources, &self.vocabulary(catalogue)?)?;
        let weight = weight(&sources);
        Ok(self.sets().keep(org, reference, weight, Arc::new(compiled)))
    }

    fn vocabulary(&self, catalogue: &Catalogue) -> Result<Arc<Vocabulary>, Refusal> {
        if let Some(vocabulary) = self.vocabulary.get() {
            return Ok(Arc::clone(vocabulary));
        }
        let vocabulary = question::vocabulary(catalogue)?;
        Ok(Arc::clone(self.vocabulary.get_or_init(|| vocabulary)))
    }

    fn sets(&self) -> MutexGuard<'_, Sets<CompiledPolicies>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// INVARIANT: never more than [`MOST`] is held, and of an org one set at most.
#[derive(Debug)]
struct Sets<P> {
    orgs: HashMap<OrgId, OfOrg<P>>,
    held: usize,
    /// How often was asked until now: a clock for who asked last.
    asked: u64,
}

#[derive(Debug)]
struct OfOrg<P> {
    reference: PolicyRef,
    set: Arc<P>,
    weight: usize,
    asked: u64,
}

impl<P> Default for Sets<P> {
    fn default() -> Self {
        Self {
            orgs: HashMap::new(),
            held: 0,
            asked: 0,
        }
    }
}

impl<P> Sets<P> {
    /// The org's set, if it is this one.
    fn find(&mut self, org: OrgId, reference: &PolicyRef) -> Option<Arc<P>> {
        self.asked += 1;
        let of = self.orgs.get_mut(&org)?;
        if of.reference != *reference {
            return None;
        }
        of.asked = self.asked;
        Some(Arc::clone(&of.set))
    }

    /// Holds the set in place of the one that the org had before. What was compiled of the same texts at the same time
    /// and came first stays: everybody shares that.
    fn keep(&mut self, org: OrgId, reference: PolicyRef, weight: usize, set: Arc<P>) -> Arc<P> {
        if let Some(first) = self.find(org, &reference) {
            return first;
        }
        self.forget(org);
        if weight > LARGEST {
            return set;
        }
        self.make_room(weight);
        self.held += weight;
        let of = OfOrg {
            reference,
            set: Arc::clone(&set),
            weight,
            asked: self.asked,
        };
        self.orgs.insert(org, of);
        set
    }

    /// Gives up the sets of those who have not asked for the longest time. An org holds one set, of a part of all that may
    /// be held: however large its policies are and however often they change, the rest is the others'.
    fn make_room(&mut self, weight: usize) {
        while self.held + weight > MOST {
            let longest = self.orgs.iter().min_by_key(|(_, of)| of.asked);
            let Some((&org, _)) = longest else { return };
            self.forget(org);
        }
    }

    fn forget(&mut self, org: OrgId) {
        if let Some(of) = self.orgs.remove(&org) {
            self.held -= of.weight;
        }
    }
}

/// The bytes of the texts; an empty set takes something, too.
fn weight(sources: &PolicySources) -> usize {
    let files = sources.org.iter().chain(&sources.agent);
    files.map(|file| file.text.len()).sum::<usize>().max(LEAST)
}

/// What is held at most, in bytes of texts. What is made of them is about fifty times as much, so 100 MiB: of hundreds of orgs
/// with the usual few kilobytes, and of 2,048 at most.
const MOST: usize = 1 << 21;
/// What one org's texts may weigh to be held: all that two calls of `apply` (512 KiB) can put in force.
const LARGEST: usize = MOST / 2;
/// What a set weighs at least.
const LEAST: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{connectors::Options, domain::AgentId, store::PolicyText};

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
    fn row(agent: &str) -> PolicyRow {
        let text = PolicyText {
            name: "p.cedar".to_owned(),
            text: agent.to_owned(),
        };
        PolicyRow {
            version: 7,
            org: Vec::new(),
            agent: vec![text],
            digest: "sha256:0".to_owned(),
        }
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
        assert!(sets.held <= MOST);
        assert_eq!(sets.held, sets.orgs.values().map(|of| of.weight).sum::<usize>());
    }

    fn is_held(sets: &mut Sets<usize>, n: usize, digest: usize) -> bool {
        sets.find(org(n), &reference(digest)).is_some()
    }

    #[test]
    fn other_texts_of_the_same_version_are_compiled_and_judge() {
        let (policies, catalogue) = (Policies::default(), catalogue());
        let ask = |agent: &str| policies.compiled(&catalogue, org(1), row(agent)).unwrap();
        let (before, after) = (ask(OPEN), ask(READS));
        assert!(may_send(&before) && !may_send(&after));
        assert_eq!(before.reference().version, after.reference().version);
        assert_ne!(before.reference().digest, after.reference().digest);
        assert!(may_send(&ask(OPEN)), "and back");
    }

    #[test]
    fn texts_that_stand_are_compiled_once_however_often_they_are_read() {
        let (policies, catalogue) = (Policies::default(), catalogue());
        let ask = |n: usize| policies.compiled(&catalogue, org(n), row(OPEN)).unwrap();
        let first = ask(1);
        ask(2);
        assert!(Arc::ptr_eq(&first, &ask(1)));
    }

    #[test]
    fn all_orgs_share_one_vocabulary() {
        let (policies, catalogue) = (Policies::default(), catalogue());
        for n in 1..=3 {
            policies.compiled(&catalogue, org(n), row(OPEN)).unwrap();
        }
        let vocabulary = policies.vocabulary(&catalogue).unwrap();
        // The three sets', the one that is kept for the next, and this one.
        assert_eq!(Arc::strong_count(&vocabulary), 5);
    }

    #[test]
    fn policies_that_do_not_compile_are_refused_and_not_held() {
        let (policies, catalogue) = (Policies::default(), catalogue());
        let refused = policies.compiled(&catalogue, org(1), row("permit ("));
        assert!(matches!(refused, Err(Refusal::StoreUnavailable(_))));
        assert_eq!(policies.sets().held, 0);
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
}
